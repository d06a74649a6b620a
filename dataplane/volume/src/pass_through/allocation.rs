//! Which blocks have space below.

use ashlar_env::disk::{Disk, DiskExtent};
use ashlar_env::units::{BlockRange, BlockSize, Lba};
use ashlar_env::volume::{EXTENTS_MAX, Extent, Outcome};
use ashlar_env::{Env, VolumeError};

use super::Inner;
use crate::persist::ReservationStore;

impl<E: Env, D: Disk, S: ReservationStore> Inner<E, D, S> {
    /// A look at the disk as it is, without a place in the range table: who asks knows that it may change at once.
    pub(super) async fn allocation(&self, range: BlockRange) -> Result<Outcome, VolumeError> {
        // The disk wants its own blocks whole.
        let wide = self.bytes(self.widen(range));
        let found = self.disk.allocation(wide).await.map_err(|error| VolumeError::from_read(&error))?;
        Ok(Outcome::Extents(in_blocks(range, self.info.get().block_size, &found)))
    }
}

/// The disk's extents as blocks of `range`. A block that is allocated in part is allocated.
fn in_blocks(range: BlockRange, size: BlockSize, found: &[DiskExtent]) -> Box<[Extent]> {
    let mut extents = Vec::new();
    let mut at = range.first().0;
    for piece in found {
        let whole = piece.range.end() >> size.shift();
        let end = if piece.allocated { piece.range.end().div_ceil(u64::from(size.bytes())) } else { whole };
        // A hole begins after the block in which what was before it ends: `at` is there already.
        push(&mut extents, &mut at, end.min(range.end().0), piece.allocated);
    }
    if extents.is_empty() {
        push(&mut extents, &mut at, range.end().0, true);
    }
    extents.truncate(EXTENTS_MAX);
    extents.into()
}

fn push(extents: &mut Vec<Extent>, at: &mut u64, end: u64, allocated: bool) {
    let Some(blocks) = end.checked_sub(*at).filter(|&blocks| blocks > 0) else { return };
    match extents.last_mut() {
        Some(last) if last.allocated == allocated => {
            let blocks = last.range.blocks() + blocks;
            last.range = BlockRange::new(last.range.first(), blocks).expect("it lies in the volume");
        }
        _ => {
            let range = BlockRange::new(Lba(*at), blocks).expect("it lies in the volume");
            extents.push(Extent { range, allocated });
        }
    }
    *at = end;
}

#[cfg(test)]
mod tests {
    use ashlar_env::units::ByteRange;

    use super::*;

    fn blocks(range: (u64, u64), size: BlockSize, found: &[(u64, u64, bool)]) -> Vec<(u64, u64, bool)> {
        let range = BlockRange::new(Lba(range.0), range.1).unwrap();
        let disk = |&(start, len, allocated): &(u64, u64, bool)| DiskExtent {
            range: ByteRange { start, len },
            allocated,
        };
        let found: Vec<_> = found.iter().map(disk).collect();
        let triple = |extent: &Extent| (extent.range.first().0, extent.range.blocks(), extent.allocated);
        in_blocks(range, size, &found).iter().map(triple).collect()
    }

    #[test]
    fn extents_are_cut_to_the_range_and_joined() {
        let found = [(0, 4096, true), (4096, 4096, true), (8192, 65536, false)];
        assert_eq!(blocks((3, 20), BlockSize::B512, &found), [(3, 13, true), (16, 7, false)]);
        assert_eq!(blocks((16, 1), BlockSize::B512, &found), [(16, 1, false)]);
    }

    #[test]
    fn a_block_allocated_in_part_is_allocated() {
        let found = [(0, 4608, true), (4608, 3584, false), (8192, 4096, false), (12288, 512, true)];
        let want = [(0, 2, true), (2, 1, false), (3, 1, true)];
        assert_eq!(blocks((0, 4), BlockSize::B4096, &found), want);
        let found = [(0, 2048, false), (2048, 1024, true), (3072, 5120, false)];
        assert_eq!(blocks((0, 2), BlockSize::B4096, &found), [(0, 1, true), (1, 1, false)]);
    }

    #[test]
    fn what_ends_early_ends_early() {
        assert_eq!(blocks((0, 100), BlockSize::B512, &[(0, 5120, false)]), [(0, 10, false)]);
        assert_eq!(blocks((7, 3), BlockSize::B512, &[]), [(7, 3, true)]);
    }
}
