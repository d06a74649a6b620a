//! Log-structured volumes of a real process that is killed: every acknowledged write is there afterwards, every other
//! has happened to a block of 4 KiB as a whole or not at all, and snapshots hold what they held.
//!
//! `ledger` keeps the books over all of a volume's nodes, `load` makes the load and compares, `cycles` kills,
//! `changes` changes devices and policies meanwhile, `full` runs out of space.

mod bench;
mod changes;
mod copies;
mod cycles;
mod full;
mod ledger;
mod load;
mod random;
