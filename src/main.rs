//! The `ashlar` binary: assembly of a node, and the command line.
fn main() {}
