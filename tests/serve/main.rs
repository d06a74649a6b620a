//! A node as its operator meets it: the built binary on ports that the kernel picks, driven through its API, its
//! command line, signals, and by hosts of our own.

mod crash;
mod debug;
mod devices;
mod discovery;
mod drain;
mod faults;
mod idle;
mod initiator;
mod iscsi;
mod lifecycle;
mod log;
mod node;
mod refusals;
mod signals;
