//! The NVMe/TCP target, sans-IO but for the small server.
pub mod hub;
pub mod io;
pub mod limits;
pub mod server;
pub mod transport;
pub mod view;
pub mod wire;

// What the tests beside this crate share with those in it names it from outside.
#[cfg(test)]
extern crate self as ashlar_nvmeof;
