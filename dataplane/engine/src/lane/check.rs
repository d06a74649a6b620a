//! Verifying a lane end to end: every page and block that any version holds is read and held against its checksum, and
//! the counts of the segment table against what was found.

use std::collections::BTreeMap;

use ashlar_env::Env;
use rustc_hash::FxHashMap;

use crate::chunks::Chunks;
use crate::ids::{GRANULE_BYTES, SegmentId};
use crate::map::{Address, Entry, Tree};

use super::background::Want;
use super::core::{Core, SnapshotNumber, VolumeNumber};
use super::walk::Met;
use super::{Inner, Lane, LaneError};

/// A block that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedBlock {
    /// The volume's number in the lane.
    pub volume: VolumeNumber,
    /// The earliest snapshot that holds it; `None` where only the volume itself does.
    pub snapshot: Option<SnapshotNumber>,
    /// Which block.
    pub block: u64,
    /// The segment in whose chunks it lies, and where there in bytes; `None` where no segment has it.
    pub place: Option<(SegmentId, u32)>,
}

/// Checkpoints after which nothing is half let go of any more, if the lane can make any at all.
const ROUNDS: usize = 4;

/// How many hold a stored block: as what was written, and as copies.
pub type Holders = (i64, i64);

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blocks that were read, each once however many versions hold it.
    pub blocks: u64,
    /// Pages of maps that were read.
    pub pages: u64,
    /// What is damaged, for people.
    pub damaged: Vec<String>,
    /// Those of them that are blocks.
    pub blocks_damaged: Vec<DamagedBlock>,
    /// Some map could not be read to its end: what is below is not verified, and counts tell nothing.
    pub is_partial: bool,
    /// Segments whose count of live granules is wrong: segment, count, what was found.
    pub miscounted: Vec<(SegmentId, i64, i64)>,
    /// Stored blocks whose holders are counted wrongly: where, counts, what was found.
    pub miscounted_copies: Vec<(Address, Holders, Holders)>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.miscounted.is_empty() && self.miscounted_copies.is_empty()
    }
}

/// A version, and the one before it: what both hold is verified with that.
struct Version {
    volume: VolumeNumber,
    snapshot: Option<SnapshotNumber>,
    name: String,
    tree: Tree,
    before: Tree,
}

/// What versions hold.
#[derive(Default)]
struct Found {
    /// Granules by segment, each stored block once.
    granules: FxHashMap<SegmentId, i64>,
    /// Of stored blocks that copies refer to: how often as what was written, and how often as a copy.
    shared: BTreeMap<Address, Holders>,
}

impl Found {
    fn add(&mut self, entry: Entry, core: &Core) {
        if entry.is_copy() || core.table.shared.contains(entry.address()) {
            let (original, copies) = self.shared.entry(entry.address()).or_default();
            *(if entry.is_copy() { &mut *copies } else { &mut *original }) += 1;
            if *original + *copies > 1 {
                return;
            }
        }
        *self.granules.entry(entry.address().segment).or_default() += i64::from(entry.granules());
    }

    /// Holds the table of blocks with copies against what was found.
    fn compare_shared(&mut self, core: &Core, report: &mut CheckReport) {
        for (address, original, copies) in core.table.shared.all() {
            let found = self.shared.remove(&address).unwrap_or_default();
            if found != (original, copies) {
                report.miscounted_copies.push((address, (original, copies), found));
            }
        }
        let unknown = std::mem::take(&mut self.shared).into_iter();
        report.miscounted_copies.extend(unknown.map(|(address, found)| (address, (0, 0), found)));
    }
}

impl<E: Env, C: Chunks> Lane<E, C> {
    /// Verifies everything. Nothing should be written meanwhile, or counts may seem wrong.
    ///
    /// # Errors
    /// What a checkpoint or a store says; damage is in the report.
    pub async fn check(&self) -> Result<CheckReport, LaneError> {
        let inner = &*self.0;
        // Counts are exact once changes are merged, and nothing is half let go of.
        inner.turn(Want::Checkpoint).await?;
        let mut rounds = 0;
        while inner.core().is_letting_go() {
            rounds += 1;
            if rounds > ROUNDS {
                return Err(LaneError::Full);
            }
            inner.turn(Want::Checkpoint).await?;
        }
        let mut report = CheckReport::default();
        let mut counts = Found::default();
        for version in inner.versions() {
            inner.check_version(&version, &mut report, &mut counts).await;
        }
        let core = inner.core();
        counts.compare_shared(&core, &mut report);
        let mut counts = counts.granules;
        for (id, segment) in core.table.sorted() {
            let (counted, found) = (segment.live.now(), counts.remove(&id).unwrap_or(0));
            if counted != found {
                report.miscounted.push((id, counted, found));
            }
        }
        for (id, found) in counts {
            report.damaged.push(format!("segment {} is not in the table and holds {found} granules", id.0));
        }
        report.damaged.sort();
        Ok(report)
    }
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// All versions, each volume's in the order of their making.
    fn versions(&self) -> Vec<Version> {
        let core = self.core();
        let mut last: FxHashMap<VolumeNumber, Tree> = FxHashMap::default();
        for (number, volume) in &core.volumes {
            let origin =
                volume.origin.and_then(|(snapshot, of)| core.snapshots.get(&snapshot)?.volumes.get(&of));
            if let Some(origin) = origin {
                last.insert(*number, origin.tree.clone());
            }
        }
        let held = core.snapshots.values().flat_map(|snapshot| &snapshot.volumes);
        for (number, held) in held {
            let origin =
                held.origin.and_then(|(snapshot, of)| core.snapshots.get(&snapshot)?.volumes.get(&of));
            if let Some(origin) = origin {
                last.insert(*number, origin.tree.clone());
            }
        }
        let mut versions = Vec::new();
        let mut add = |volume: VolumeNumber, snapshot: Option<SnapshotNumber>, tree: &Tree| {
            let nothing = || Tree::at_level(core.shape, 0, Entry::EMPTY);
            let before = last.insert(volume, tree.clone()).unwrap_or_else(nothing);
            let name = match snapshot {
                Some(snapshot) => format!("volume {volume} in snapshot {snapshot}"),
                None => format!("volume {volume}"),
            };
            versions.push(Version { volume, snapshot, name, tree: tree.clone(), before });
        };
        for (number, snapshot) in &core.snapshots {
            for (volume, held) in &snapshot.volumes {
                add(*volume, Some(*number), &held.tree);
            }
        }
        for (number, volume) in &core.volumes {
            add(*number, None, &volume.tree);
        }
        versions
    }

    async fn check_version(&self, version: &Version, report: &mut CheckReport, counts: &mut Found) {
        let mut blocks = Vec::new();
        let Version { volume, name, tree, before, snapshot } = version;
        let mut count = |entry: Entry| counts.add(entry, &self.core());
        let meet = |met| match met {
            Met::Page(page) => {
                report.pages += 1;
                count(page);
            }
            Met::Block { block, this } if !this.is_empty() => {
                blocks.push((block, this));
                count(this);
            }
            Met::Block { .. } => {}
        };
        let walked = self.walk(*volume, tree, before, 0, meet).await;
        if let Err(error) = walked {
            report.is_partial = true;
            report.damaged.push(format!("{name}: the map cannot be read to its end: {error}"));
        }
        for (block, entry) in blocks {
            report.blocks += 1;
            // A page is read like any other stored bytes.
            if let Err(error) = self.page(entry).await {
                let place = self.core().table.resolve(entry.address());
                let place = place.map(|at| (at.segment, at.position * GRANULE_BYTES as u32));
                let (volume, snapshot) = (*volume, *snapshot);
                report.blocks_damaged.push(DamagedBlock { volume, snapshot, block, place });
                report.damaged.push(format!("{name}, block {block}: {}", why_not(&error)));
            }
        }
    }
}

/// Why a block cannot be read; it is fetched like a page, which the error speaks of.
fn why_not(error: &LaneError) -> String {
    match error {
        LaneError::Damaged(_) => "wrong checksum".into(),
        error => error.to_string(),
    }
}
