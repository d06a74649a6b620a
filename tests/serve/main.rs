//! A node as its operator meets it: the built binary on ports that the kernel picks, driven through its API, its
//! command line, signals, and by an NVMe/TCP host of our own.

mod crash;
mod debug;
mod devices;
mod discovery;
mod drain;
mod faults;
mod idle;
mod lifecycle;
mod log;
mod node;
mod refusals;
mod signals;
