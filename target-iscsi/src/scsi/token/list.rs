//! The parameter lists of POPULATE TOKEN and WRITE USING TOKEN (SBC-3, sections 5.7 and 5.46).

use std::time::Duration;

use ashlar_env::units::{BlockRange, Lba};
use ashlar_env::volume::VolumeInfo;

use super::rod::{ACCESS_UPON_REFERENCE, TOKEN_BYTES, Token};
use crate::scsi::sense::{Asc, Failure, Sense};

/// Bytes of a block device range descriptor.
pub const RANGE_BYTES: usize = 16;
/// MAXIMUM RANGE DESCRIPTORS.
pub const RANGES_MAX: usize = 128;
/// Bytes of POPULATE TOKEN's list before the descriptors.
pub const POPULATE_BYTES: usize = 16;
/// Bytes of WRITE USING TOKEN's list before the descriptors.
pub const WRITE_BYTES: usize = 24 + TOKEN_BYTES;
/// The most bytes of either list that are looked at: one descriptor more than there may be.
pub const LIST_BYTES_MAX: u32 = (WRITE_BYTES + (RANGES_MAX + 1) * RANGE_BYTES) as u32;
/// The most bytes of one command's blocks.
pub const TRANSFER_BYTES_MAX: u64 = 4 << 30;
/// MAXIMUM INACTIVITY TIMEOUT, in seconds.
pub const TIMEOUT_S_MAX: u32 = 600;
/// DEFAULT INACTIVITY TIMEOUT, in seconds.
pub const TIMEOUT_S_DEFAULT: u32 = 60;

/// What POPULATE TOKEN asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Populate {
    /// How long the token may lie unused.
    pub timeout: Duration,
    /// The blocks.
    pub ranges: Box<[BlockRange]>,
}

/// What WRITE USING TOKEN asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Answer before the copy has ended (IMMED).
    pub immediate: bool,
    /// The token is not used again (DEL_TKN).
    pub delete: bool,
    /// How many blocks of the token to pass over.
    pub offset_blocks: u64,
    /// The token.
    pub token: Box<Token>,
    /// Where to write.
    pub ranges: Box<[BlockRange]>,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn wrong_length() -> Failure {
    Sense::illegal(Asc::PARAMETER_LENGTH).into()
}

/// Reads POPULATE TOKEN's list.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR, TOO MANY SEGMENT DESCRIPTORS, INVALID FIELD IN PARAMETER LIST, LOGICAL BLOCK ADDRESS OUT
/// OF RANGE.
pub fn populate(list: &[u8], info: &VolumeInfo) -> Result<Populate, Failure> {
    let header = list.get(..POPULATE_BYTES).ok_or_else(wrong_length)?;
    let timeout_s = number(&header[4..8]) as u32;
    if timeout_s > TIMEOUT_S_MAX {
        return Err(Sense::parameter(4).into());
    }
    // RTV: the host wants a type of token, and there is but one.
    if header[2] & 0x02 != 0 && number(&header[8..12]) != u64::from(ACCESS_UPON_REFERENCE) {
        return Err(Sense::parameter(8).into());
    }
    let ranges = ranges(list, POPULATE_BYTES, info)?;
    let timeout_s = if timeout_s == 0 { TIMEOUT_S_DEFAULT } else { timeout_s };
    Ok(Populate { timeout: Duration::from_secs(u64::from(timeout_s)), ranges })
}

/// Reads WRITE USING TOKEN's list.
///
/// # Errors
/// As [`populate`].
pub fn write(list: &[u8], info: &VolumeInfo) -> Result<Write, Failure> {
    let header = list.get(..WRITE_BYTES).ok_or_else(wrong_length)?;
    let ranges = ranges(list, WRITE_BYTES, info)?;
    let mut token = Box::new([0; TOKEN_BYTES]);
    token.copy_from_slice(&header[16..16 + TOKEN_BYTES]);
    Ok(Write {
        immediate: header[2] & 0x01 != 0,
        delete: header[2] & 0x02 != 0,
        offset_blocks: number(&header[8..16]),
        token,
        ranges,
    })
}

/// The range descriptors behind a header of `at` bytes, whose last two say how long they are.
fn ranges(list: &[u8], at: usize, info: &VolumeInfo) -> Result<Box<[BlockRange]>, Failure> {
    let said = number(&list[at - 2..at]) as usize;
    let in_all = number(&list[..2]) as usize + 2;
    if said < RANGE_BYTES || !said.is_multiple_of(RANGE_BYTES) || in_all < at + said {
        return Err(Sense::parameter(at as u16 - 2).into());
    }
    if said > RANGES_MAX * RANGE_BYTES {
        return Err(Sense::illegal(Asc::TOO_MANY_SEGMENTS).into());
    }
    let descriptors = list.get(at..at + said).ok_or_else(wrong_length)?;
    let range = |bytes: &[u8]| {
        BlockRange::new(Lba(number(&bytes[..8])), number(&bytes[8..12]))
            .filter(|range| range.end().0 <= info.blocks)
    };
    let ranges: Option<Vec<BlockRange>> = descriptors.chunks(RANGE_BYTES).map(range).collect();
    let mut ranges = ranges.ok_or_else(|| Failure::from(Sense::illegal(Asc::LBA_RANGE)))?;
    ranges.retain(|range| range.blocks() > 0);
    let mut ascending = ranges.clone();
    ascending.sort_unstable_by_key(|range| range.first());
    let overlap = ascending.windows(2).any(|pair| pair[0].overlaps(pair[1]));
    // Below 2^32 blocks each, and at most 128 of them.
    let blocks: u64 = ranges.iter().map(|range| range.blocks()).sum();
    if overlap || blocks << info.block_size.shift() > TRANSFER_BYTES_MAX {
        return Err(Sense::parameter(at as u16).into());
    }
    Ok(ranges.into())
}

#[cfg(test)]
pub(in crate::scsi) mod tests {
    use ashlar_env::Volume;
    use ashlar_env::units::BlockSize;
    use proptest::prelude::*;

    use super::*;
    use crate::scsi::testing::Store;

    fn finish(mut list: Vec<u8>, ranges: &[(u64, u32)]) -> Vec<u8> {
        list.extend(((ranges.len() * RANGE_BYTES) as u16).to_be_bytes());
        for (lba, blocks) in ranges {
            list.extend(lba.to_be_bytes());
            list.extend(blocks.to_be_bytes());
            list.extend([0; 4]);
        }
        let rest = (list.len() - 2) as u16;
        list[..2].copy_from_slice(&rest.to_be_bytes());
        list
    }

    /// POPULATE TOKEN's list.
    pub fn populate_list(timeout_s: u32, ranges: &[(u64, u32)]) -> Vec<u8> {
        let mut list = vec![0; 14];
        list[4..8].copy_from_slice(&timeout_s.to_be_bytes());
        finish(list, ranges)
    }

    /// WRITE USING TOKEN's list.
    pub fn write_list(flags: u8, offset: u64, token: &[u8], ranges: &[(u64, u32)]) -> Vec<u8> {
        let mut list = vec![0, 0, flags, 0, 0, 0, 0, 0];
        list.extend(offset.to_be_bytes());
        list.extend(token);
        list.resize(WRITE_BYTES - 2, 0);
        finish(list, ranges)
    }

    fn info() -> VolumeInfo {
        Store::new(1, BlockSize::B512, 1000).info()
    }

    fn asc(list: &[u8]) -> Option<(u8, u8)> {
        match populate(list, &info()) {
            Ok(_) => None,
            Err(Failure::Check(sense)) => Some((sense.asc.0, sense.asc.1)),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_are_read() {
        let range = |first, blocks| BlockRange::new(Lba(first), blocks).unwrap();
        let read = populate(&populate_list(0, &[(7, 2), (100, 0), (0, 7)]), &info()).unwrap();
        let ranges: Box<[_]> = Box::from([range(7, 2), range(0, 7)]);
        assert_eq!(read, Populate { timeout: Duration::from_secs(60), ranges });
        let list = write_list(3, 9, &[0xAB; TOKEN_BYTES], &[(990, 10)]);
        let read = write(&list, &info()).unwrap();
        assert_eq!((read.immediate, read.delete, read.offset_blocks), (true, true, 9));
        assert_eq!((*read.token, &read.ranges[..]), ([0xAB; TOKEN_BYTES], &[range(990, 10)][..]));
    }

    #[test]
    fn each_wrong_list_has_its_sense() {
        let good = populate_list(60, &[(0, 8), (8, 8)]);
        for len in 0..good.len() {
            assert_eq!(asc(&good[..len]), Some((0x1A, 0)), "{len}");
        }
        let changed = |at: usize, value: u8| {
            let mut list = good.clone();
            list[at] = value;
            asc(&list)
        };
        for (at, value, want) in [
            (15, 31, (0x26, 0)),
            (15, 0, (0x26, 0)),
            (15, 48, (0x26, 0)),
            (1, 45, (0x26, 0)),
            (2, 0x02, (0x26, 0)),
            (4, 1, (0x26, 0)),
            // The second range begins within the first.
            (39, 7, (0x26, 0)),
            (16, 0xFF, (0x21, 0)),
            (24, 0xFF, (0x21, 0)),
        ] {
            assert_eq!(changed(at, value), Some(want), "{at} {value}");
        }
        assert_eq!(asc(&populate_list(0, &[(999, 2)])), Some((0x21, 0)));
        let many: Vec<_> = (0..=RANGES_MAX as u64).map(|at| (at, 1)).collect();
        assert_eq!(asc(&populate_list(0, &many[1..])), None);
        assert_eq!(asc(&populate_list(0, &many)), Some((0x26, 0x08)));
        let huge = VolumeInfo { blocks: 1 << 40, ..info() };
        assert!(populate(&populate_list(0, &[(0, 1 << 23)]), &huge).is_ok());
        assert!(populate(&populate_list(0, &[(0, (1 << 23) + 1)]), &huge).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_are_too_bad(mut bytes in proptest::collection::vec(any::<u8>(), 0..700), small in 0..3_u8) {
            if bytes.len() >= WRITE_BYTES && small > 0 {
                bytes[14..16].copy_from_slice(&[0, 32]);
                bytes[WRITE_BYTES - 2..WRITE_BYTES].copy_from_slice(&[0, 16]);
                bytes[4..8].fill(0);
            }
            for ranges in [populate(&bytes, &info()).map(|p| p.ranges), write(&bytes, &info()).map(|w| w.ranges)].into_iter().flatten() {
                prop_assert!(ranges.iter().all(|range| range.end().0 <= 1000 && range.blocks() > 0));
            }
        }
    }
}
