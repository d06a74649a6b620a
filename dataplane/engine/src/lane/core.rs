//! The state of a lane in memory, and how the log changes it. Nothing here waits: what the log says is applied at
//! once, in its order.

use std::collections::{BTreeMap, VecDeque};

use ashlar_env::units::VolumeId;

use crate::ids::{BLOCK_BYTES, SegmentId, SegmentKind};
use crate::map::{Address, Counts, Entry, Missing, Shape, Tree};

use super::control::Control;
use super::counter::Counter;
use super::state::{HeldState, Root, SnapshotState, VolumeState};
use super::table::{Released, Table};

/// A volume's number in its lane, from 1.
pub type VolumeNumber = u32;

/// A snapshot's number: the birth of what was written last before it.
pub type SnapshotNumber = u32;

/// A volume.
pub struct Volume {
    /// Its identity.
    pub id: VolumeId,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its map.
    pub tree: Tree,
    /// The snapshot, and the volume in it, that it is a clone of.
    pub origin: Option<(SnapshotNumber, VolumeNumber)>,
    /// How much is mapped.
    pub space: Space,
}

/// How much of a volume is mapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// Blocks.
    pub mapped: Counter,
    /// Granules that they take.
    pub stored: Counter,
}

/// A volume as a snapshot holds it.
pub struct Held {
    /// The snapshot, and the volume in it, that the volume is a clone of.
    pub origin: Option<(SnapshotNumber, VolumeNumber)>,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its map.
    pub tree: Tree,
    /// How much is mapped.
    pub space: Space,
}

/// A snapshot.
pub struct Snapshot {
    /// What it holds.
    pub volumes: BTreeMap<VolumeNumber, Held>,
    /// The last generation before its cut. Changes of generations up to it are in it even when they are merged later.
    pub generation: u64,
    /// Whether a checkpoint has been completed since the cut.
    pub settled: bool,
    /// It is being deleted.
    pub leaving: Option<Departure>,
}

/// A snapshot's way out: what it alone held is let go of at once in the end, so that a crash half-way changes nothing.
pub struct Departure {
    /// The last generation for which the snapshot counts as there.
    pub generation: u64,
    /// The birth at that time: snapshots of lower numbers were there.
    pub birth: u32,
    /// The volumes as they were at that time.
    pub heads: BTreeMap<VolumeNumber, Tree>,
    /// Whether a checkpoint has saved these.
    pub saved: bool,
    /// What has been replaced since and would have been let go of already.
    pub released: Released,
}

/// A version that is neither volume nor snapshot any more.
pub struct Leaving {
    /// The volume.
    pub volume: VolumeNumber,
    /// What was born up to here belongs to others.
    pub floor: u32,
    /// The birth at the time it left: snapshots of lower numbers were there.
    pub birth: u32,
    /// Its map.
    pub tree: Tree,
    /// Whether a checkpoint has saved it.
    pub saved: bool,
}

/// The state.
pub struct Core {
    /// The shape of all maps.
    pub shape: Shape,
    /// The volumes by number.
    pub volumes: BTreeMap<VolumeNumber, Volume>,
    /// The snapshots by number.
    pub snapshots: BTreeMap<SnapshotNumber, Snapshot>,
    /// Versions to be let go of.
    pub leaving: Vec<Leaving>,
    /// The segments.
    pub table: Table,
    /// The snapshots that volumes are clones of, those of deleted ones as well: what was born up to them is not the
    /// clone's.
    pub origins: BTreeMap<VolumeNumber, SnapshotNumber>,
    /// The birth of what is written next.
    pub birth: u32,
    /// The lowest number that no snapshot was given yet.
    pub next_snapshot: SnapshotNumber,
    /// Counts up with each cut of any kind.
    pub generation: u64,
    /// The last generation that the running checkpoint sees.
    pub frozen: Option<u64>,
    /// Where in the log its cut lies: what is written at lower addresses it sees.
    pub frozen_at: Address,
    /// The number of the next volume.
    pub next_volume: VolumeNumber,
    /// How blocks are compressed.
    pub compression: u8,
    /// Pages from here on have a place but are perhaps not durable: they cannot be read back yet.
    pub volatile_from: Option<Address>,
    /// Segments whose chunks are to be deleted.
    pub dead: Vec<SegmentId>,
    /// Leaves that came into memory, the one longest there first.
    pub leaves: VecDeque<(VolumeNumber, u64)>,
}

/// The books for the changes of one volume.
pub struct Books<'a> {
    number: VolumeNumber,
    floor: u32,
    frozen: Option<u64>,
    table: &'a mut Table,
    space: Option<&'a mut Space>,
    snapshots: &'a mut BTreeMap<SnapshotNumber, Snapshot>,
    /// Where to note leaves that take memory; none for versions that are not kept.
    leaves: Option<&'a mut VecDeque<(VolumeNumber, u64)>>,
}

impl Books<'_> {
    fn within(&self, generation: u64) -> bool {
        self.frozen.is_none_or(|frozen| generation <= frozen)
    }

    /// `old` gave way to what was born at `birth`: let go of it unless a snapshot holds it.
    pub fn release(&mut self, old: Entry, birth: u32, generation: u64) {
        if old.is_empty() || old.birth() <= self.floor {
            return;
        }
        let within = self.within(generation);
        let number = self.number;
        let mut last = None;
        if old.birth() < birth {
            for (_, snapshot) in self.snapshots.range_mut(old.birth()..birth) {
                if !snapshot.volumes.contains_key(&number) {
                    continue;
                }
                match &mut snapshot.leaving {
                    // The one that is let go of last: until then it is in the way of a crash.
                    Some(departure) if generation > departure.generation => {
                        let later = |last: &&mut Departure| last.generation > departure.generation;
                        if !last.as_ref().is_some_and(later) {
                            last = Some(departure);
                        }
                    }
                    _ => return,
                }
            }
        }
        match last {
            Some(departure) => self.table.note(&mut departure.released, old),
            None => self.table.release(old, within),
        }
    }
}

impl Counts for Books<'_> {
    fn replaced(&mut self, old: Entry, new: Entry, generation: u64) {
        let within = self.within(generation);
        let mapped = i64::from(!new.is_empty()) - i64::from(!old.is_empty());
        let stored = i64::from(new.granules()) - i64::from(old.granules());
        if let Some(space) = &mut self.space {
            space.mapped.add(mapped, within);
            space.stored.add(stored, within);
        }
        for snapshot in self.snapshots.values_mut().rev().take_while(|snapshot| !snapshot.settled) {
            if snapshot.generation >= generation
                && let Some(held) = snapshot.volumes.get_mut(&self.number)
            {
                held.space.mapped.add(mapped, within);
                held.space.stored.add(stored, within);
            }
        }
        self.release(old, new.birth(), generation);
    }

    fn dropped(&mut self, old: Entry, generation: u64) {
        let within = self.within(generation);
        self.table.release(old, within);
    }

    fn leaf_in_memory(&mut self, block: u64) {
        if let Some(leaves) = &mut self.leaves {
            leaves.push_back((self.number, block));
        }
    }
}

/// Blocks that `size_bytes` bytes take, the last perhaps in part.
#[must_use]
pub const fn blocks_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK_BYTES as u64)
}

impl Core {
    /// The state of a lane without volumes.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            leaving: Vec::new(),
            table: Table::default(),
            origins: BTreeMap::new(),
            birth: 1,
            next_snapshot: 1,
            generation: 1,
            frozen: None,
            frozen_at: Address { segment: SegmentId(0), position: 0 },
            next_volume: 1,
            compression: 0,
            volatile_from: None,
            dead: Vec::new(),
            leaves: VecDeque::new(),
        }
    }

    /// The number of volume `id`.
    #[must_use]
    pub fn number_of(&self, id: VolumeId) -> Option<VolumeNumber> {
        self.volumes.iter().find(|(_, volume)| volume.id == id).map(|(number, _)| *number)
    }

    /// Writes `entries` to the blocks of `volume` from `first` on. Granules of data count as live from now on. Blocks
    /// beyond the end (the volume shrank meanwhile) are let go of at once.
    ///
    /// # Errors
    /// An inner page that is missing; what came before its leaf has been changed.
    pub fn write(&mut self, volume: VolumeNumber, first: u64, entries: &[Entry]) -> Result<(), Missing> {
        let fanout = self.shape.fanout() as u64;
        let mut done = 0;
        while done < entries.len() {
            let block = first + done as u64;
            let room = (fanout - block % fanout) as usize;
            let end = entries.len().min(done + room);
            let part = &entries[done..end];
            self.set(volume, block, part.iter().copied())?;
            done = end;
        }
        Ok(())
    }

    /// Makes the blocks of `volume` from `first` on copies of what `entries` name.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub fn copy(&mut self, volume: VolumeNumber, first: u64, entries: &[Entry]) -> Result<(), Missing> {
        let Some(blocks) = self.volumes.get(&volume).map(|volume| blocks_of(volume.size_bytes)) else {
            return Ok(());
        };
        let inside = blocks.saturating_sub(first).min(entries.len() as u64) as usize;
        let within = self.frozen.is_none_or(|frozen| self.generation <= frozen);
        let mut copies = Vec::with_capacity(inside);
        for &entry in &entries[..inside] {
            // Before what was there is let go of: it may be the same.
            let written_within = self.frozen.is_none() || entry.address() < self.frozen_at;
            self.table.take_copy(entry, within, written_within);
            copies.push(entry.copied(self.birth));
        }
        self.write(volume, first, &copies)
    }

    /// Makes `count` blocks of `volume` from `first` on holes.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub fn clear(&mut self, volume: VolumeNumber, first: u64, count: u64) -> Result<(), Missing> {
        let fanout = self.shape.fanout() as u64;
        let hole = Entry::hole(self.birth);
        let mut done = 0;
        while done < count {
            let block = first + done;
            let some = (fanout - block % fanout).min(count - done);
            let holes = std::iter::repeat_n(hole, some as usize);
            self.set(volume, block, holes)?;
            done += some;
        }
        Ok(())
    }

    fn set(
        &mut self,
        number: VolumeNumber,
        block: u64,
        entries: impl ExactSizeIterator<Item = Entry> + Clone,
    ) -> Result<(), Missing> {
        let Self { volumes, snapshots, table, leaves, generation, frozen, birth, .. } = self;
        let Some(volume) = volumes.get_mut(&number) else { return Ok(()) };
        let within = frozen.is_none_or(|frozen| *generation <= frozen);
        let beyond = blocks_of(volume.size_bytes);
        if block >= beyond {
            return Ok(());
        }
        let entries = entries.take((beyond - block) as usize);
        let mut books = Books {
            number,
            floor: volume.origin.map_or(0, |(snapshot, _)| snapshot),
            frozen: *frozen,
            table,
            space: Some(&mut volume.space),
            snapshots,
            leaves: Some(leaves),
        };
        volume.tree.set(block, entries.clone(), *birth, *generation, &mut books)?;
        for entry in entries.filter(|entry| !entry.is_copy()) {
            table.take(entry, within);
        }
        Ok(())
    }

    /// Applies `control`. What it asks of the log's reader (pages, positions) has been seen to before.
    ///
    /// # Errors
    /// An inner page that is missing, for a copy.
    pub fn control(&mut self, control: &Control) -> Result<(), Missing> {
        match *control {
            Control::Create { volume, id, size_bytes } => {
                let tree = Tree::new(self.shape, blocks_of(size_bytes), Entry::EMPTY);
                self.add(volume, Volume { id, size_bytes, tree, origin: None, space: Space::default() });
            }
            Control::Clone { volume, id, snapshot, of } => self.clone_volume(volume, id, snapshot, of),
            Control::Resize { volume, size_bytes } => {
                let (birth, generation) = (self.birth, self.generation);
                if let Some(volume) = self.volumes.get_mut(&volume) {
                    volume.size_bytes = size_bytes;
                    volume.tree.grow(blocks_of(size_bytes), birth, generation);
                }
            }
            Control::Delete { volume } => {
                if let Some(gone) = self.volumes.remove(&volume) {
                    self.leave(volume, gone);
                }
            }
            Control::Snapshot { number } => self.snapshot(number),
            Control::DeleteSnapshot { number } => self.depart(number),
            Control::Restore { number } => self.restore(number),
            Control::Compress { method } => self.compression = method,
            Control::Copy { volume, first, ref entries } => self.copy(volume, first, entries)?,
            Control::Nothing => {}
        }
        Ok(())
    }

    fn add(&mut self, number: VolumeNumber, volume: Volume) {
        self.next_volume = self.next_volume.max(number + 1);
        self.volumes.insert(number, volume);
    }

    fn clone_volume(
        &mut self,
        number: VolumeNumber,
        id: VolumeId,
        snapshot: SnapshotNumber,
        of: VolumeNumber,
    ) {
        let Some(held) = self.snapshots.get(&snapshot).and_then(|snapshot| snapshot.volumes.get(&of)) else {
            return;
        };
        self.origins.insert(number, snapshot);
        let volume = Volume {
            id,
            size_bytes: held.size_bytes,
            tree: fresh(self.shape, held),
            origin: Some((snapshot, of)),
            space: held.space,
        };
        self.add(number, volume);
    }

    fn snapshot(&mut self, number: SnapshotNumber) {
        let held = |volume: &Volume| Held {
            origin: volume.origin,
            size_bytes: volume.size_bytes,
            tree: volume.tree.clone(),
            space: volume.space,
        };
        let volumes = self.volumes.iter().map(|(number, volume)| (*number, held(volume))).collect();
        let snapshot = Snapshot { volumes, generation: self.generation, settled: false, leaving: None };
        self.snapshots.insert(number, snapshot);
        self.birth = number + 1;
        self.generation += 1;
    }

    /// Begins to delete snapshot `number`.
    pub fn depart(&mut self, number: SnapshotNumber) {
        let heads = self.volumes.iter().map(|(number, volume)| (*number, volume.tree.clone())).collect();
        let (generation, birth) = (self.generation, self.birth);
        if let Some(snapshot) = self.snapshots.get_mut(&number) {
            snapshot.leaving =
                Some(Departure { generation, birth, heads, saved: false, released: Released::default() });
            self.generation += 1;
        }
    }

    fn restore(&mut self, number: SnapshotNumber) {
        let Some(snapshot) = self.snapshots.get(&number) else { return };
        let shape = self.shape;
        let restored: Vec<_> = snapshot
            .volumes
            .iter()
            .filter(|(number, _)| self.volumes.contains_key(number))
            .map(|(number, held)| (*number, held.size_bytes, fresh(shape, held), held.space))
            .collect();
        for (number, size_bytes, tree, space) in restored {
            let before = self.volumes.remove(&number).expect("filtered above");
            let (id, origin) = (before.id, before.origin);
            self.leave(number, before);
            self.volumes.insert(number, Volume { id, size_bytes, tree, origin, space });
        }
        self.generation += 1;
    }

    /// What `gone` alone held is to be let go of.
    fn leave(&mut self, number: VolumeNumber, gone: Volume) {
        // A snapshot that is leaving was compared with the volume when it began to: what both hold is the volume's.
        let holds =
            |snapshot: &Snapshot| snapshot.leaving.is_none() && snapshot.volumes.contains_key(&number);
        let latest = self.snapshots.iter().rev().find(|(_, snapshot)| holds(snapshot));
        let origin = gone.origin.map_or(0, |(snapshot, _)| snapshot);
        let floor = latest.map_or(0, |(number, _)| *number).max(origin);
        let birth = self.birth;
        self.leaving.push(Leaving { volume: number, floor, birth, tree: gone.tree, saved: false });
        self.generation += 1;
    }

    /// Puts a page into memory that volume `number`'s map missed.
    pub fn install(&mut self, number: VolumeNumber, missing: Missing, bytes: &[u8]) -> bool {
        let Self { volumes, snapshots, table, leaves, frozen, .. } = self;
        let Some(volume) = volumes.get_mut(&number) else { return true };
        let mut books = Books {
            number,
            floor: volume.origin.map_or(0, |(snapshot, _)| snapshot),
            frozen: *frozen,
            table,
            space: Some(&mut volume.space),
            snapshots,
            leaves: Some(leaves),
        };
        volume.tree.install(missing, bytes, &mut books).is_ok()
    }

    /// The books of volume `number`, which may be deleted already, for versions of it that are not kept in memory.
    pub fn quiet(&mut self, number: VolumeNumber) -> Books<'_> {
        let Self { volumes, snapshots, table, frozen, .. } = self;
        let volume = volumes.get_mut(&number);
        let floor = self.origins.get(&number).copied().unwrap_or(0);
        let space = volume.map(|volume| &mut volume.space);
        Books { number, floor, frozen: *frozen, table, space, snapshots, leaves: None }
    }

    /// Gives back the memory of leaves until no more than `leaves_max` are held, as far as they are saved.
    pub fn shrink(&mut self, leaves_max: usize) {
        let mut tries = self.leaves.len() * 2;
        while self.leaves.len() > leaves_max && tries > 0 {
            tries -= 1;
            let Some((number, block)) = self.leaves.pop_front() else { return };
            let volatile = self.volatile_from;
            let may = |page: Entry| page.is_empty() || volatile.is_none_or(|from| page.address() < from);
            let stays =
                self.volumes.get_mut(&number).is_some_and(|volume| volume.tree.unload_leaf(block, may));
            if stays {
                self.leaves.push_back((number, block));
            }
        }
    }

    /// Whether something is being let go of that looks at pages no map leads to any more.
    #[must_use]
    pub fn is_letting_go(&self) -> bool {
        !self.leaving.is_empty() || self.snapshots.values().any(|snapshot| snapshot.leaving.is_some())
    }

    /// The first snapshot that leaves, if it can be let go of.
    #[must_use]
    pub fn next_departure(&self) -> Option<SnapshotNumber> {
        // In the order in which they were deleted: each is compared with those that were there then.
        let began = |snapshot: &Snapshot| snapshot.leaving.as_ref().map(|departure| departure.generation);
        let leaving = self.snapshots.iter().filter_map(|found| Some((began(found.1)?, found)));
        let (_, (number, snapshot)) = leaving.min_by_key(|(generation, _)| *generation)?;
        let saved = snapshot.leaving.as_ref().is_some_and(|departure| departure.saved);
        (saved && snapshot.settled).then_some(*number)
    }

    /// Lets go of what was noted.
    pub fn release_all(&mut self, released: &Released) {
        self.table.release_all(released, self.frozen.is_none());
    }

    /// Takes out of the table the segments of which nothing is live, and was not at the cut, and that were sealed before
    /// `position`, where the log is replayed from. The segments whose chunks may be deleted.
    pub fn dead_at_cut(&mut self, position: SegmentId) -> Vec<SegmentId> {
        if self.is_letting_go() {
            return Vec::new();
        }
        let mut dead = Vec::new();
        for (id, segment) in self.table.sorted() {
            let replayed = segment.kind == SegmentKind::Log && id >= position;
            if segment.sealed.is_none() || replayed {
                continue;
            }
            let own = segment.live.now() == 0 && segment.live.at_cut() == 0;
            let hosts = self.table.live_in(id) != 0 || self.table.live_at_cut(id) != 0;
            if own && !hosts {
                dead.push(id);
            }
        }
        let mut chunks = Vec::new();
        for id in dead {
            if self.table.is_here(id) {
                chunks.push(id);
            }
            self.table.remove(id);
        }
        chunks
    }

    /// A checkpoint that saw generation `cut` is durable.
    pub fn settle(&mut self, cut: u64) {
        self.frozen = None;
        self.settle_counts();
        self.leaving.iter_mut().for_each(|version| version.saved |= version.tree.root().saved().is_some());
        for snapshot in self.snapshots.values_mut() {
            if let Some(departure) = &mut snapshot.leaving {
                departure.saved |= departure.generation <= cut;
            }
            if !snapshot.settled && snapshot.generation <= cut {
                snapshot.settled = true;
                for held in snapshot.volumes.values_mut() {
                    held.tree.unload();
                }
            }
        }
    }

    /// Counts of changes after a cut count like all others.
    pub fn settle_counts(&mut self) {
        self.table.settle();
        self.volumes.values_mut().for_each(|volume| volume.space.settle());
        for snapshot in self.snapshots.values_mut() {
            snapshot.volumes.values_mut().for_each(|held| held.space.settle());
        }
    }

    /// Up to which birth what `version` holds belongs to others, for a start that deletes the snapshots anew that are
    /// leaving now.
    #[must_use]
    pub fn floor_of(&self, version: &Leaving) -> u32 {
        let before = self.snapshots.range(..version.birth).rev();
        let mut holding = before.filter(|(_, snapshot)| snapshot.volumes.contains_key(&version.volume));
        holding.next().map_or(version.floor, |(number, _)| version.floor.max(*number))
    }

    /// Whether any clone hangs on snapshot `number`.
    #[must_use]
    pub fn has_clones(&self, number: SnapshotNumber) -> bool {
        let hangs =
            |origin: Option<(SnapshotNumber, _)>| origin.is_some_and(|(snapshot, _)| snapshot == number);
        let there = self.snapshots.values().filter(|snapshot| snapshot.leaving.is_none());
        let mut held = there.flat_map(|snapshot| snapshot.volumes.values());
        self.volumes.values().any(|volume| hangs(volume.origin)) || held.any(|held| hangs(held.origin))
    }
}

/// The map of `held` with nodes of its own: what becomes of them is no business of the snapshot's.
fn fresh(shape: Shape, held: &Held) -> Tree {
    let root = held.tree.root().saved().expect("a settled snapshot is saved");
    Tree::at_level(shape, held.tree.level(), root)
}

impl From<&VolumeState> for Space {
    fn from(state: &VolumeState) -> Self {
        Self { mapped: Counter::of(state.mapped), stored: Counter::of(state.stored) }
    }
}

impl From<&HeldState> for Space {
    fn from(state: &HeldState) -> Self {
        Self { mapped: Counter::of(state.mapped), stored: Counter::of(state.stored) }
    }
}

impl Space {
    /// A checkpoint that saw the cut is durable.
    pub const fn settle(&mut self) {
        self.mapped.settle();
        self.stored.settle();
    }
}

/// The map at `root`.
#[must_use]
pub fn tree_of(shape: Shape, root: Root) -> Tree {
    Tree::at_level(shape, u32::from(root.level), root.page)
}

/// A snapshot as a checkpoint knows it.
#[must_use]
pub fn snapshot_of(shape: Shape, state: &SnapshotState) -> Snapshot {
    let held = |held: &HeldState| {
        let tree = tree_of(shape, held.root);
        (
            held.volume,
            Held { origin: held.origin, size_bytes: held.size_bytes, tree, space: Space::from(held) },
        )
    };
    let volumes = state.volumes.iter().map(held).collect();
    Snapshot { volumes, generation: 0, settled: true, leaving: None }
}
