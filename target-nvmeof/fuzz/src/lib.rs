//! The fuzz targets of the NVMe/TCP target as functions, so that a test or an example can call them as well.
//!
//! An input is a script of records (see [`script`]): bytes from the host, and what else may happen meanwhile.
//! `examples/seeds.rs` writes the corpora.

#[path = "../../tests/common/bytes.rs"]
pub mod bytes;
pub mod connection;
pub mod disk;
pub mod hub;
pub mod io_command;
pub mod output;
pub mod script;
pub mod transport;
pub mod world;
