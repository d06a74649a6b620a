//! The fuzz targets of the storage engine as functions, so that a test or an example can call them as well.
//!
//! `examples/seeds.rs` writes the corpora.

mod format;
mod open;

pub use format::store_format;
pub use open::{Patch, store_open};

/// Where every structure has its checksum.
const CRC_AT: std::ops::Range<usize> = 8..12;

/// Gives a structure a checksum that fits, so that what lies behind the checksum is reached.
fn reseal(bytes: &mut [u8]) {
    let crc = ashlar_codec::crc32c_append(ashlar_codec::crc32c(&bytes[..8]), &bytes[CRC_AT.end..]);
    bytes[CRC_AT].copy_from_slice(&crc.to_le_bytes());
}
