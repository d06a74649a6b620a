//! What the tests of reservations, copies and tokens stand on: a target in memory, and nexuses that send commands.

pub mod bench;
pub mod store;

pub use bench::{Bench, Host};
pub use store::{Store, block_on, issuer};
