//! Fields at offsets.

use ashlar_codec::{crc32c, crc32c_append};
use uuid::Uuid;

use super::Damage;

/// Where every structure has its checksum.
const CRC_AT: usize = 8;
const CRC_END: usize = CRC_AT + 4;

pub fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes[at]
}

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

pub fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a range of N bytes has N bytes")
}

pub fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// The checksum of a structure: of all its bytes but the checksum's own.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c_append(crc32c(&bytes[..CRC_AT]), &bytes[CRC_END..])
}

/// Writes the checksum, once all else is there.
pub fn seal(bytes: &mut [u8]) {
    let crc = checksum(bytes);
    put(bytes, CRC_AT, crc.to_le_bytes());
}

/// Checks magic and checksum.
pub fn check(bytes: &[u8], magic: [u8; 8]) -> Result<(), Damage> {
    if bytes[..8] != magic {
        return Err(if bytes.iter().all(|&byte| byte == 0) { Damage::Blank } else { Damage::Magic });
    }
    if u32_at(bytes, CRC_AT) != checksum(bytes) { Err(Damage::Checksum) } else { Ok(()) }
}

/// Checks that a reserved range is zero.
pub fn reserved(bytes: &[u8]) -> Result<(), Damage> {
    valid(bytes.iter().all(|&byte| byte == 0), "reserved range")
}

pub fn valid(holds: bool, field: &'static str) -> Result<(), Damage> {
    if holds { Ok(()) } else { Err(Damage::Field(field)) }
}
