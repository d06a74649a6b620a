//! The log-structured storage engine.
//!
//! From the bottom up:
//!
//! * [`chunks`] is what a device (or, later, another node) offers: fixed-size append-only chunks; [`store`]
//!   implements it on a [`ashlar_env::Disk`].
//! * [`segment`] replicates one append-only piece over several chunk stores; [`log`] writes records into a chain of
//!   segments, acknowledges them in order, and finds the end of the chain again after a crash.
//! * [`map`] is the copy-on-write tree from a volume's block to where its data is.
//! * [`lane`] puts them together: reads and writes of volumes, checkpoints, recovery, snapshots, compaction.
//! * [`groups`] is all of a node's: a pool of devices, and a lane for each group.
//! * [`debug`] looks at a store from outside: it verifies all of it and prints what is on a device.
//!
//! **Architecture invariant:** this crate reaches disks, time, randomness and tasks only through `ashlar-env`, has no
//! state outside its values, and no branch for the simulator.

pub mod chunks;
pub mod debug;
pub mod groups;
pub mod ids;
pub mod lane;
pub mod log;
pub mod map;
pub mod segment;
pub mod store;
#[doc(hidden)]
pub mod testing;
mod wire;
