//! The NVMe/TCP target, sans-IO but for the small server.
pub mod limits;
pub mod view;
pub mod wire;
