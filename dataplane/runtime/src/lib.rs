//! The environment on Linux: one reactor per chosen core, its sockets, devices and links.
//!
//! A reactor is a pinned thread with one glommio executor. A task of that executor, the poller, drives our own
//! engine beside glommio's: an edge-triggered epoll set, an io_uring ring for disks, timers, and the links to
//! the other reactors. glommio schedules the tasks; no I/O of ours goes through it, and the thread sleeps in our
//! epoll set.
//!
//! **Architecture invariant:** this is the only crate that names glommio or io-uring, that makes system calls,
//! and (with FFI leaves of `ashlar-codec`) that holds `unsafe`. It decides nothing of any protocol.

mod config;
mod disk;
mod doorbell;
mod engine;
mod env;
mod helper;
mod inbox;
mod memory;
mod mesh;
mod net;
mod op;
mod poller;
mod random;
mod readiness;
mod reply;
mod ring;
mod runtime;
mod stats;
mod sys;
mod sysdisk;
mod task;
mod timers;

pub use config::{Register, RuntimeConfig, Spin, usable_cores};
pub use disk::Device;
pub use disk::open::{OpenDevice, OpenError, OpenOptions};
pub use env::ReactorEnv;
pub use mesh::MeshEnd;
pub use net::{Accepted, TcpListener, TcpStream};
pub use reply::{NoReply, Reply};
pub use runtime::{ReactorHandle, Runtime, StartError};
pub use stats::{Counter, ReactorStats};
pub use sysdisk::free_bytes;
