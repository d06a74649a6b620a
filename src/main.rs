//! The `ashlar` binary: assembly of a node, and the command line.

mod cli;
mod node;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
