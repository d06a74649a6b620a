//! The SCSI commands that a load and its set-up need (SBC-4, SPC-5), as an initiator builds them.

/// A command descriptor block, padded with zeros to 16 bytes.
pub type Cdb = [u8; 16];

/// TEST UNIT READY.
pub const TEST_UNIT_READY: Cdb = [0; 16];

/// The opcode of READ(16).
const READ_16: u8 = 0x88;
/// The opcode of WRITE(16).
const WRITE_16: u8 = 0x8A;
/// The opcode of SYNCHRONIZE CACHE(16).
const SYNCHRONIZE_CACHE_16: u8 = 0x91;
/// The opcode of WRITE SAME(16).
const WRITE_SAME_16: u8 = 0x93;
/// The opcode of SERVICE ACTION IN(16).
const SERVICE_ACTION_IN_16: u8 = 0x9E;
/// The service action READ CAPACITY(16).
const READ_CAPACITY_16: u8 = 0x10;

/// A command on `blocks` blocks from `lba`: LBA in bytes 2 to 9, the number of blocks in bytes 10 to 13.
#[inline]
#[must_use]
fn ranged(opcode: u8, lba: u64, blocks: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// READ(16).
#[inline]
#[must_use]
pub fn read(lba: u64, blocks: u32) -> Cdb {
    ranged(READ_16, lba, blocks)
}

/// WRITE(16).
#[inline]
#[must_use]
pub fn write(lba: u64, blocks: u32) -> Cdb {
    ranged(WRITE_16, lba, blocks)
}

/// WRITE SAME(16) of the one block that is sent, everywhere in the range.
#[must_use]
pub fn write_same(lba: u64, blocks: u32) -> Cdb {
    ranged(WRITE_SAME_16, lba, blocks)
}

/// SYNCHRONIZE CACHE(16) of the whole unit.
#[must_use]
pub fn synchronize_cache() -> Cdb {
    ranged(SYNCHRONIZE_CACHE_16, 0, 0)
}

/// READ CAPACITY(16) with room for `allocation` bytes.
#[must_use]
pub fn read_capacity(allocation: u32) -> Cdb {
    let mut cdb = ranged(SERVICE_ACTION_IN_16, 0, allocation);
    cdb[1] = READ_CAPACITY_16;
    cdb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_big_endian_behind_the_opcode() {
        let expected = [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0];
        assert_eq!(read(0x0102_0304_0506_0708, 0x090A_0B0C), expected);
        assert_eq!((read_capacity(32)[..2].to_vec(), read_capacity(32)[13]), (vec![0x9E, 0x10], 32));
    }
}
