//! Measuring and testing the target from outside: an NVMe/TCP host and an iSCSI initiator of our own, the load
//! generator made of them, and the plain echo server that shows what the kernel's sockets allow.
//!
//! * [`client`]: the host. [`client::Controller`] brings a controller up, [`client::Queue`] moves commands and
//!   data without blocking or allocating, [`client::raw`] sends whatever bytes a test wants.
//! * [`iscsi`]: the initiator, in the same shape: [`iscsi::Session`].
//! * [`load`]: the load: what to issue, what to check, what to report.
//! * [`echo`]: the server that answers in the shape of NVMe/TCP and does nothing else.
//!
//! The programs are `ashlar-load` and `ashlar-echo`; `perf/compare` runs them against Ashlar and a peer in turn.

pub mod client;
pub mod echo;
pub mod iscsi;
pub mod load;
