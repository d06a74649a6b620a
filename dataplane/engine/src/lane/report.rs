//! What is in a lane, for people.

use std::collections::BTreeMap;

use ashlar_env::Env;
use ashlar_env::units::VolumeId;

use crate::chunks::Chunks;
use crate::ids::{BLOCK_BYTES, GRANULE_BYTES};
use crate::map::node::Slot;
use crate::map::{Address, Entry, Tree};

use super::core::{Core, SnapshotNumber, Space, VolumeNumber};
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
    /// Whether anything else could hold what it holds: snapshots, what it is a clone of, copies.
    pub may_share: bool,
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
    /// What its segments take on devices, all replicas together, in bytes.
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

/// What maps take of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapMemory {
    /// Leaves that are there, whole or as changes over what is on disk.
    pub leaves: usize,
    /// Inner nodes.
    pub inner: usize,
    /// The entries of all of these, in bytes.
    pub bytes: usize,
}

impl MapMemory {
    fn add(&mut self, slot: &Slot, level: u32) {
        let Slot::Loaded(node) = slot else { return };
        if level == 0 {
            let leaf = node.leaf().borrow();
            self.leaves += 1;
            let whole = leaf.full.as_deref().map_or(0, size_of_val);
            self.bytes += whole + leaf.changes.capacity() * size_of::<(u16, Entry)>();
            return;
        }
        self.inner += 1;
        let children = node.children().borrow();
        self.bytes += size_of_val(&**children);
        children.iter().for_each(|child| self.add(child, level - 1));
    }
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

    /// What the maps of the volumes take of memory now: goes through all nodes that are there.
    #[must_use]
    pub fn map_memory(&self) -> MapMemory {
        let core = self.0.core();
        let mut memory = MapMemory::default();
        for volume in core.volumes.values() {
            memory.add(volume.tree.root(), volume.tree.level());
        }
        memory
    }

    /// What is in it now. Counts include what is merged into the maps: a block written twice since the last checkpoint may
    /// be counted twice until the next.
    #[must_use]
    pub fn report(&self) -> LaneReport {
        let core = self.0.core();
        let volumes = core.volumes.iter().map(|(&number, volume)| {
            let (mapped_bytes, stored_bytes) = bytes(volume.space);
            let (id, size_bytes, origin) = (volume.id, volume.size_bytes, volume.origin);
            let held = core.snapshots.values().any(|snapshot| snapshot.volumes.contains_key(&number));
            let may_share = held || origin.is_some() || core.table.shared.len() > 0;
            VolumeReport { number, id, size_bytes, mapped_bytes, stored_bytes, origin, may_share }
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
        let chunks = self.0.segments.list().len();
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
        let mut alone = Alone::default();
        for (volume, this, next, floor) in neighbours {
            self.0.walk(volume, &this, &next, floor, |met| alone.meet(met, floor, &self.0.core())).await?;
        }
        Ok(alone.bytes(&self.0.core()))
    }

    /// What would be free if the volume were deleted and its snapshots stayed, in bytes. Known at once where nothing could
    /// hold anything of it as well; else reads the maps of what differs from its latest snapshot.
    ///
    /// # Errors
    /// [`LaneError::NoVolume`], or what a read says.
    pub async fn exclusive_bytes_of(&self, volume: VolumeNumber) -> Result<u64, LaneError> {
        let (this, before, floor) = {
            let core = self.0.core();
            let found = core.volumes.get(&volume).ok_or(LaneError::NoVolume)?;
            let held = core.snapshots.iter().rev().filter_map(|(number, snapshot)| {
                let held = snapshot.volumes.get(&volume).filter(|_| snapshot.leaving.is_none())?;
                Some((*number, held.tree.clone()))
            });
            let origin = found.origin.and_then(|(number, of)| {
                Some((number, core.snapshots.get(&number)?.volumes.get(&of)?.tree.clone()))
            });
            match held.chain(origin).next() {
                None if core.table.shared.len() == 0 => return Ok(bytes(found.space).1),
                None => (found.tree.clone(), Tree::at_level(core.shape, 0, Entry::EMPTY), 0),
                Some((floor, before)) => (found.tree.clone(), before, floor),
            }
        };
        let mut alone = Alone::default();
        self.0.walk(volume, &this, &before, floor, |met| alone.meet(met, floor, &self.0.core())).await?;
        Ok(alone.bytes(&self.0.core()))
    }
}

/// What one version alone holds.
#[derive(Default)]
struct Alone {
    granules: u64,
    /// Of stored blocks with copies: how often it holds them, and their granules.
    shared: BTreeMap<Address, (i64, u64)>,
}

impl Alone {
    fn meet(&mut self, met: Met, floor: u32, core: &Core) {
        let Met::Block { this, .. } = met else { return };
        if this.is_empty() || this.birth() <= floor {
            return;
        }
        let granules = u64::from(this.granules());
        if core.table.shared.contains(this.address()) {
            self.shared.entry(this.address()).or_insert((0, granules)).0 += 1;
        } else {
            self.granules += granules;
        }
    }

    /// What nobody else holds, in bytes: of a block with copies all who hold it must have been met.
    fn bytes(self, core: &Core) -> u64 {
        let all = |(address, (met, _)): &(Address, (i64, u64))| core.table.shared.holders(*address) <= *met;
        let shared: u64 = self.shared.into_iter().filter(all).map(|(_, (_, granules))| granules).sum();
        (self.granules + shared) * GRANULE_BYTES as u64
    }
}
