//! The NVMe/TCP target, sans-IO but for the small server.
pub mod hub;
pub mod io;
pub mod limits;
pub mod server;
pub mod transport;
pub mod view;
pub mod wire;
