//! The map: from a volume's block to where its data is.
//!
//! [`Tree`] is one volume's copy-on-write radix tree of [`Entry`]s in memory and on disk; [`page`] is the form its nodes have
//! on disk. Nothing here does I/O: what is not in memory is reported as [`Missing`], and whoever has it puts it in.

pub mod entry;
pub mod node;
pub mod page;
pub mod save;
mod tree;

pub use entry::{Address, Entry};
pub use tree::{Counts, Missing, NotAPage, Shape, Tree, merge_with};

#[cfg(test)]
mod tests;
