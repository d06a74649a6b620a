//! I/O commands: from submission queue entries to operations on a volume, and from outcomes to completions.

pub mod command;
pub mod fused;
pub mod outcome;
pub mod reservation;

pub use command::{operation, transfer};
pub use outcome::{completion, status};
