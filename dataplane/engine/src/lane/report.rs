//! What is in a lane, for people.

use ashlar_env::Env;
use ashlar_env::units::VolumeId;

use crate::chunks::Chunks;
use crate::ids::{BLOCK_BYTES, GRANULE_BYTES};

use super::core::{SnapshotNumber, Space, VolumeNumber};
use super::scrub::ScrubReport;
use super::walk::Met;
use super::{Lane, LaneError};

/// A volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeReport {
    /// Its number in the lane.
    pub number: VolumeNumber,
    /// Its identity.
    pub id: VolumeId,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What of it is mapped, in bytes: logical.
    pub mapped_bytes: u64,
    /// What that takes, after compression, in bytes. What it shares with snapshots and clones is counted for each.
    pub stored_bytes: u64,
    /// The snapshot and volume that it is a clone of.
    pub origin: Option<(SnapshotNumber, VolumeNumber)>,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Its number.
    pub number: SnapshotNumber,
    /// The volumes it holds, with their sizes in bytes.
    pub volumes: Vec<(VolumeNumber, u64)>,
    /// What of these was mapped, in bytes.
    pub mapped_bytes: u64,
    /// What that takes, in bytes.
    pub stored_bytes: u64,
    /// It is being deleted.
    pub leaving: bool,
}

/// A lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneReport {
    /// Its volumes.
    pub volumes: Vec<VolumeReport>,
    /// Its snapshots.
    pub snapshots: Vec<SnapshotReport>,
    /// What lives in its segments, shared or not, maps included, in bytes.
    pub live_bytes: u64,
    /// What its segments take on devices, a replica each, in bytes.
    pub physical_bytes: u64,
    /// Bytes logged since the last checkpoint.
    pub logged_bytes: u64,
    /// Operations of the log that have not ended.
    pub backlog: usize,
    /// Whether blocks are compressed.
    pub compresses: bool,
    /// How far scrubbing has come, and what it found.
    pub scrub: ScrubReport,
}

const fn bytes(space: Space) -> (u64, u64) {
    let mapped = space.mapped.now() as u64 * BLOCK_BYTES as u64;
    (mapped, space.stored.now() as u64 * GRANULE_BYTES as u64)
}

impl<E: Env, C: Chunks> Lane<E, C> {
    /// From now on holds so many leaves of maps in memory; those that are not saved come on top.
    pub fn set_leaves_max(&self, leaves: usize) {
        self.0.leaves_max.set(leaves);
        self.0.core().shrink(leaves);
    }

    /// What is in it now. Counts include what is merged into the maps: a block written twice since the last checkpoint may
    /// be counted twice until the next.
    #[must_use]
    pub fn report(&self) -> LaneReport {
        let core = self.0.core();
        let volumes = core.volumes.iter().map(|(&number, volume)| {
            let (mapped_bytes, stored_bytes) = bytes(volume.space);
            let (id, size_bytes, origin) = (volume.id, volume.size_bytes, volume.origin);
            VolumeReport { number, id, size_bytes, mapped_bytes, stored_bytes, origin }
        });
        let snapshots = core.snapshots.iter().map(|(&number, snapshot)| {
            let spaces = || snapshot.volumes.values().map(|held| bytes(held.space));
            SnapshotReport {
                number,
                volumes: snapshot.volumes.iter().map(|(volume, held)| (*volume, held.size_bytes)).collect(),
                mapped_bytes: spaces().map(|(mapped, _)| mapped).sum(),
                stored_bytes: spaces().map(|(_, stored)| stored).sum(),
                leaving: snapshot.leaving.is_some(),
            }
        });
        let segments = core.table.sorted();
        let live: i64 = segments.iter().map(|(_, segment)| segment.live.now()).sum();
        let chunks = self.0.segments.list().into_iter().filter(|(shard, _)| *shard == 0).count();
        LaneReport {
            volumes: volumes.collect(),
            snapshots: snapshots.collect(),
            live_bytes: live as u64 * GRANULE_BYTES as u64,
            physical_bytes: chunks as u64 * u64::from(self.0.segments.segment_bytes()),
            logged_bytes: self.0.shared.logged_bytes.get(),
            backlog: self.0.log().backlog(),
            compresses: core.compression != 0,
            scrub: self.0.scrub_report(),
        }
    }

    /// What would be free if snapshot `number` were deleted, in bytes. Reads the maps of what differs.
    ///
    /// # Errors
    /// [`LaneError::NoSnapshot`], or what a read says.
    pub async fn exclusive_bytes(&self, number: SnapshotNumber) -> Result<u64, LaneError> {
        let neighbours = self.0.core().neighbours_of(number).ok_or(LaneError::NoSnapshot)?;
        let mut granules = 0;
        for (volume, this, next, floor) in neighbours {
            let meet = |met| {
                if let Met::Block { this, .. } = met
                    && !this.is_empty()
                    && this.birth() > floor
                {
                    granules += u64::from(this.granules());
                }
            };
            self.0.walk(volume, &this, &next, floor, meet).await?;
        }
        Ok(granules * GRANULE_BYTES as u64)
    }
}
