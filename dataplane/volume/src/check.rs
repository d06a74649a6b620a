//! What every volume asks of an operation before it looks at the data.

use ashlar_env::VolumeError;
use ashlar_env::buf::MAX_BYTES;
use ashlar_env::units::{BlockRange, Lba};
use ashlar_env::volume::{Operation, VolumeInfo};

use crate::reservation::Access;

/// The most sources of one copy.
pub const COPY_SOURCES_MAX: usize = 256;

/// The most blocks that one copy moves.
pub const COPY_BLOCKS_MAX: u64 = 1 << 17;

/// What the operation is to reservations; `None` for those that see to it themselves.
#[must_use]
pub fn access(operation: &Operation) -> Option<Access> {
    use Operation as O;
    match operation {
        O::Read { .. } | O::Compare { .. } | O::Verify { .. } | O::Allocation { .. } => Some(Access::Read),
        // Whoever may write may read, so that one question is enough for those that do both.
        O::Write { .. }
        | O::Flush
        | O::WriteZeroes { .. }
        | O::Unmap { .. }
        | O::CompareAndWrite { .. }
        | O::Copy { .. } => Some(Access::Write),
        O::Permit(access) => Some(*access),
        O::Reserve(_) | O::ReserveNexus(_) => None,
    }
}

/// Whether the operation's ranges and lengths are right for a volume like this, and whether it may be written.
///
/// # Errors
/// [`VolumeError::Invalid`] for an empty or too long range, data of another length than their range, and a copy
/// that is beyond the limits or overlaps itself; [`VolumeError::OutOfRange`]; [`VolumeError::ReadOnly`].
pub fn check(info: &VolumeInfo, operation: &Operation) -> Result<(), VolumeError> {
    use Operation as O;
    match operation {
        O::Read { range } => transfer(info, *range, &[]),
        O::Write { range, data, .. } => {
            transfer(info, *range, &[data.len()])?;
            writable(info)
        }
        O::Compare { range, expected } => transfer(info, *range, &[expected.len()]),
        O::CompareAndWrite { range, expected, data, .. } => {
            transfer(info, *range, &[expected.len(), data.len()])?;
            writable(info)
        }
        O::Verify { range } | O::Allocation { range } => within(info, *range),
        O::WriteZeroes { range, .. } => {
            within(info, *range)?;
            writable(info)
        }
        O::Unmap { ranges } => {
            ranges.iter().try_for_each(|range| within(info, *range))?;
            writable(info)
        }
        O::Copy { sources, to, .. } => {
            copy(info, sources, *to)?;
            writable(info)
        }
        O::Flush | O::Reserve(_) | O::ReserveNexus(_) | O::Permit(_) => Ok(()),
    }
}

/// Whether the range lies within the volume now.
///
/// # Errors
/// [`VolumeError::Invalid`] where it is empty, [`VolumeError::OutOfRange`].
pub fn within(info: &VolumeInfo, range: BlockRange) -> Result<(), VolumeError> {
    if range.blocks() == 0 {
        return Err(VolumeError::Invalid);
    }
    if range.end().0 > info.blocks { Err(VolumeError::OutOfRange) } else { Ok(()) }
}

fn transfer(info: &VolumeInfo, range: BlockRange, lengths: &[usize]) -> Result<(), VolumeError> {
    within(info, range)?;
    // A volume's size in bytes fits 64 bits, so that of a range within does.
    let bytes = range.blocks() << info.block_size.shift();
    let fits = bytes <= MAX_BYTES as u64 && lengths.iter().all(|&len| len as u64 == bytes);
    if fits { Ok(()) } else { Err(VolumeError::Invalid) }
}

fn writable(info: &VolumeInfo) -> Result<(), VolumeError> {
    if info.read_only { Err(VolumeError::ReadOnly) } else { Ok(()) }
}

fn copy(info: &VolumeInfo, sources: &[BlockRange], to: Lba) -> Result<(), VolumeError> {
    if sources.is_empty() || sources.len() > COPY_SOURCES_MAX {
        return Err(VolumeError::Invalid);
    }
    let mut blocks = 0_u64;
    for source in sources {
        within(info, *source)?;
        blocks = blocks.checked_add(source.blocks()).ok_or(VolumeError::Invalid)?;
    }
    if blocks > COPY_BLOCKS_MAX {
        return Err(VolumeError::Invalid);
    }
    let target = BlockRange::new(to, blocks).ok_or(VolumeError::OutOfRange)?;
    within(info, target)?;
    if sources.iter().any(|source| source.overlaps(target)) {
        return Err(VolumeError::Invalid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ashlar_env::buf::Buf;
    use ashlar_env::disk::Durability;
    use ashlar_env::units::{BlockSize, VolumeId};

    use super::*;

    fn info() -> VolumeInfo {
        VolumeInfo {
            id: VolumeId(uuid::Uuid::nil()),
            block_size: BlockSize::B512,
            blocks: 1 << 20,
            read_only: false,
            volatile_cache: true,
            thin: false,
            unmap_granularity_blocks: 0,
            preferred_write_blocks: 1,
            atomic_write_blocks: 1,
        }
    }

    fn range(first: u64, blocks: u64) -> BlockRange {
        BlockRange::new(Lba(first), blocks).unwrap()
    }

    fn write(range: BlockRange, len: usize) -> Operation {
        Operation::Write { range, data: Buf::zeroes(len), durability: Durability::Cached }
    }

    fn copy(sources: &[BlockRange], to: u64) -> Operation {
        Operation::Copy { sources: sources.into(), to: Lba(to), durability: Durability::Cached }
    }

    #[test]
    fn each_wrong_shape_has_its_error() {
        let end = 1 << 20;
        let cases = [
            (write(range(0, 2), 1024), Ok(())),
            (write(range(end - 2, 2), 1024), Ok(())),
            (write(range(end - 1, 2), 1024), Err(VolumeError::OutOfRange)),
            (write(range(u64::MAX, 0), 0), Err(VolumeError::Invalid)),
            (write(range(u64::MAX - 1, 1), 512), Err(VolumeError::OutOfRange)),
            (write(range(0, 2), 1023), Err(VolumeError::Invalid)),
            (Operation::Read { range: range(0, 2048) }, Ok(())),
            (Operation::Read { range: range(0, 2049) }, Err(VolumeError::Invalid)),
            (Operation::Verify { range: range(0, end) }, Ok(())),
            (Operation::Verify { range: range(0, end + 1) }, Err(VolumeError::OutOfRange)),
            (Operation::Unmap { ranges: Box::new([range(0, 1), range(9, 0)]) }, Err(VolumeError::Invalid)),
            (copy(&[range(0, 8), range(0, 8)], 8), Ok(())),
            (copy(&[range(0, 8), range(20, 1)], 7), Err(VolumeError::Invalid)),
            (copy(&[range(0, 8)], end - 7), Err(VolumeError::OutOfRange)),
            (copy(&[range(0, 8)], u64::MAX - 7), Err(VolumeError::OutOfRange)),
            (copy(&[], 0), Err(VolumeError::Invalid)),
            (copy(&[range(0, COPY_BLOCKS_MAX), range(0, 1)], 1 << 19), Err(VolumeError::Invalid)),
        ];
        for (operation, expected) in cases {
            assert_eq!(check(&info(), &operation), expected, "{operation:?}");
        }
    }

    #[test]
    fn a_read_only_volume_refuses_what_changes_it() {
        let info = VolumeInfo { read_only: true, ..info() };
        assert_eq!(check(&info, &write(range(0, 1), 512)), Err(VolumeError::ReadOnly));
        assert_eq!(check(&info, &copy(&[range(0, 1)], 1)), Err(VolumeError::ReadOnly));
        assert_eq!(check(&info, &Operation::Read { range: range(0, 1) }), Ok(()));
        assert_eq!(check(&info, &Operation::Flush), Ok(()));
    }
}
