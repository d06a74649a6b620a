//! Which blocks of a volume have space.

use ashlar_env::Env;
use ashlar_env::disk::DiskExtent;
use ashlar_env::units::ByteRange;
use ashlar_env::volume::EXTENTS_MAX;

use crate::chunks::Chunks;
use crate::ids::BLOCK_SHIFT;

use super::core::VolumeNumber;
use super::{Inner, LaneError};

/// How many looks at the map one question takes: 64 MiB where every block has space, far more where few have.
const LOOKS_MAX: usize = 16384;

impl<E: Env, C: Chunks> Inner<E, C> {
    /// The extents from byte `range.start` on, which is not empty and lies within the volume. They end with the range, or
    /// before it where it takes too many looks, or has too many extents.
    pub(super) async fn extents(
        &self,
        volume: VolumeNumber,
        range: ByteRange,
    ) -> Result<Box<[DiskExtent]>, LaneError> {
        let mut extents = Vec::<DiskExtent>::new();
        let mut at = range.start;
        for _ in 0..LOOKS_MAX {
            if at >= range.end() {
                break;
            }
            let (allocated, end) = self.extent(volume, at >> BLOCK_SHIFT).await?;
            let end = if end > u64::MAX >> BLOCK_SHIFT { u64::MAX } else { end << BLOCK_SHIFT };
            let piece = ByteRange { start: at, len: end.min(range.end()) - at };
            if let Some(last) = extents.last_mut().filter(|last| last.allocated == allocated) {
                last.range.len += piece.len;
            } else if extents.len() < EXTENTS_MAX {
                extents.push(DiskExtent { range: piece, allocated });
            } else {
                break;
            }
            at = piece.end();
        }
        Ok(extents.into())
    }

    async fn extent(&self, volume: VolumeNumber, block: u64) -> Result<(bool, u64), LaneError> {
        loop {
            let found = {
                let core = self.core();
                core.volumes.get(&volume).ok_or(LaneError::NoVolume)?.tree.extent(block)
            };
            match found {
                Ok(found) => return Ok(found),
                Err(missing) => self.load(volume, missing).await?,
            }
        }
    }
}
