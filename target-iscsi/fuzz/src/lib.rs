//! The fuzz targets of the iSCSI target as functions, so that a test or an example can call them as well.
//!
//! An input is a script of records (see [`script`]). `examples/seeds.rs` writes the corpora.

#[path = "../../tests/common/bytes.rs"]
pub mod bytes;
pub mod connection;
#[path = "../../../target-nvmeof/fuzz/src/disk.rs"]
pub mod disk;
pub mod login;
#[path = "../../../target-nvmeof/fuzz/src/script.rs"]
pub mod script;
pub mod scsi;
#[path = "../../../target-nvmeof/fuzz/src/world.rs"]
pub mod world;
