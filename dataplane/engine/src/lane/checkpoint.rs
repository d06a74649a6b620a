//! Checkpoints: the state from which a lane is recovered by replaying the log after it.
//!
//! 1. *Cut.* In one step, without waiting: the log's position, a reference to each map's root, a new generation.
//!    Writers go on; they copy what the checkpoint holds before they change it.
//! 2. *Pages.* What is not saved of the maps is written, snapshots before the volumes, leaves before what refers to them.
//! 3. *State.* Everything else is written as one record, after all pages are durable. This is the moment at which the
//!    checkpoint exists.
//! 4. *Space.* Segments of which nothing was live at the cut are deleted.

use ashlar_env::Env;
use ashlar_env::buf::MAX_BYTES;
use ashlar_env::units::VolumeId;

use crate::chunks::Chunks;
use crate::ids::{GRANULE_BYTES, SegmentId, SegmentKind};
use crate::log::Position;
use crate::map::{Address, Tree};
use crate::segment::SegmentWriter;

use super::core::{Core, SnapshotNumber, Space, VolumeNumber};
use super::state::{HeldState, LeavingState, Root, SegmentState, SnapshotState, State, VolumeState};
use super::table::Place as DataPlace;
use super::{Inner, LaneError};

/// The segment that checkpoints are appended to.
pub(super) struct Place<C: Chunks> {
    pub writer: Option<SegmentWriter<C>>,
    /// Segments with older checkpoints, to be deleted after the next.
    pub old: Vec<SegmentId>,
    pub sequence: u64,
}

/// A volume at a cut.
struct FrozenVolume {
    number: VolumeNumber,
    id: VolumeId,
    size_bytes: u64,
    origin: Option<(SnapshotNumber, VolumeNumber)>,
    tree: Tree,
}

/// A snapshot at a cut.
struct FrozenSnapshot {
    number: SnapshotNumber,
    leaving: bool,
    /// What it holds: volume, size in bytes, map.
    volumes: Vec<(VolumeNumber, u64, Tree)>,
}

/// A lane at a cut.
struct Frozen {
    position: Position,
    birth: u32,
    compression: u8,
    next_volume: VolumeNumber,
    volumes: Vec<FrozenVolume>,
    snapshots: Vec<FrozenSnapshot>,
    /// Volume, floor, birth, map.
    leaving: Vec<(VolumeNumber, u32, u32, Tree)>,
    /// Versions that leaving snapshots are compared with, oldest first: birth at that time, generation, volume, map.
    heads: Vec<(u32, u64, VolumeNumber, Tree)>,
    logged_bytes: u64,
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Makes a checkpoint of all that is applied now. Ready when durable.
    pub(super) async fn checkpoint(&self) -> Result<(), LaneError> {
        // Recovery may begin in the segment of this position, and the cut follows in the same step.
        let position = self.log().settled().await?;
        let frozen = self.freeze(position);
        let written = self.write_checkpoint(&frozen).await;
        match &written {
            Ok(()) => {
                self.thaw(&frozen);
                self.activity.note(|activity| activity.checkpoints += 1);
            }
            Err(_) => {
                self.give_up();
                self.activity.note(|activity| activity.given_up += 1);
            }
        }
        let begins = frozen.position.segment;
        drop(frozen);
        written?;
        if !self.commit_checkpoint(begins).await {
            // An older checkpoint may be taken for the newest yet: what it needs stays.
            return Ok(());
        }
        self.delete_old().await?;
        self.delete_dead().await
    }

    fn freeze(&self, mut position: Position) -> Frozen {
        let mut core = self.core();
        core.frozen = Some(core.generation);
        core.frozen_at =
            Address { segment: position.segment, position: position.offset / GRANULE_BYTES as u32 };
        core.generation += 1;
        let core = &*core;
        let volumes = core.volumes.iter().map(|(&number, volume)| FrozenVolume {
            number,
            id: volume.id,
            size_bytes: volume.size_bytes,
            origin: volume.origin,
            tree: volume.tree.clone(),
        });
        let snapshots = core.snapshots.iter().map(|(&number, snapshot)| {
            let held =
                snapshot.volumes.iter().map(|(&volume, held)| (volume, held.size_bytes, held.tree.clone()));
            FrozenSnapshot { number, leaving: snapshot.leaving.is_some(), volumes: held.collect() }
        });
        let leaving = core
            .leaving
            .iter()
            .map(|version| (version.volume, core.floor_of(version), version.birth, version.tree.clone()))
            .collect();
        let departures = core.snapshots.values().filter_map(|snapshot| snapshot.leaving.as_ref());
        let heads = departures.flat_map(|departure| {
            let head = |(number, tree): (&VolumeNumber, &Tree)| {
                (departure.birth, departure.generation, *number, tree.clone())
            };
            departure.heads.iter().map(head)
        });
        let mut heads: Vec<_> = heads.collect();
        heads.sort_by_key(|(birth, generation, ..)| (*birth, *generation));
        if self.config.planted.position_ahead {
            position.sequence += 1;
        }
        Frozen {
            position,
            birth: core.birth,
            compression: core.compression,
            next_volume: core.next_volume,
            volumes: volumes.collect(),
            snapshots: snapshots.collect(),
            leaving,
            heads,
            logged_bytes: self.shared.logged_bytes.get(),
        }
    }

    async fn write_checkpoint(&self, frozen: &Frozen) -> Result<(), LaneError> {
        if self.renew.take() {
            self.leave_segments().await?;
        }
        let taken = self.pages.borrow_mut().take();
        let mut stream = match taken {
            Some(stream) => stream,
            None => self.stream(SegmentKind::Map).await?,
        };
        self.core().volatile_from.get_or_insert(stream.end());
        let saved = self.save_all(frozen, &mut stream).await;
        if saved.is_ok() {
            self.core().volatile_from = None;
        }
        *self.pages.borrow_mut() = Some(stream);
        saved?;
        let state = self.state(frozen);
        self.write_state(state).await
    }

    /// Writes nothing more to the segments that were being written.
    async fn leave_segments(&self) -> Result<(), LaneError> {
        if let Some(place) = &mut *self.checkpoints.borrow_mut()
            && let Some(writer) = place.writer.take()
        {
            place.old.push(writer.segment());
        }
        let pages = self.pages.borrow_mut().take();
        if let Some(mut pages) = pages {
            self.finish_stream(&mut pages).await?;
            self.core().volatile_from = None;
            self.seal_stream(pages).await?;
        }
        Ok(())
    }

    async fn save_all(
        &self,
        frozen: &Frozen,
        stream: &mut super::stream::Stream<C>,
    ) -> Result<(), LaneError> {
        // The versions of a node in the order of their making: each page gives way to the next.
        let mut heads = frozen.heads.iter().peekable();
        for snapshot in &frozen.snapshots {
            while let Some((_, _, number, tree)) = heads.next_if(|(birth, ..)| *birth <= snapshot.number) {
                self.save(*number, tree, stream).await?;
            }
            for (number, _, tree) in &snapshot.volumes {
                self.save(*number, tree, stream).await?;
            }
        }
        for (_, _, number, tree) in heads {
            self.save(*number, tree, stream).await?;
        }
        for (number, _, _, tree) in &frozen.leaving {
            self.save(*number, tree, stream).await?;
        }
        for volume in &frozen.volumes {
            self.save(volume.number, &volume.tree, stream).await?;
        }
        self.finish_stream(stream).await
    }

    /// The state at the cut, once all of it is saved.
    fn state(&self, frozen: &Frozen) -> State {
        let core = self.core();
        let held = |snapshot: SnapshotNumber, (volume, size_bytes, tree): &(VolumeNumber, u64, Tree)| {
            let held = core.snapshots.get(&snapshot).and_then(|snapshot| snapshot.volumes.get(volume));
            let (mapped, stored) = at_cut(held.map(|held| held.space));
            // A snapshot that was let go of meanwhile cannot be: one task does both.
            let origin = held.and_then(|held| held.origin);
            let (volume, size_bytes) = (*volume, *size_bytes);
            HeldState { volume, size_bytes, origin, mapped, stored, root: root_of(tree) }
        };
        let snapshots = frozen.snapshots.iter().map(|snapshot| SnapshotState {
            number: snapshot.number,
            leaving: snapshot.leaving,
            volumes: snapshot.volumes.iter().map(|volume| held(snapshot.number, volume)).collect(),
        });
        let volumes = frozen.volumes.iter().map(|volume| {
            let (mapped, stored) = at_cut(core.volumes.get(&volume.number).map(|volume| volume.space));
            let (number, id, size_bytes) = (volume.number, volume.id, volume.size_bytes);
            let (origin, root) = (volume.origin, root_of(&volume.tree));
            VolumeState { number, id, size_bytes, origin, mapped, stored, root }
        });
        let leaving = frozen.leaving.iter().map(|(volume, floor, birth, tree)| LeavingState {
            volume: *volume,
            floor: *floor,
            birth: *birth,
            root: root_of(tree),
        });
        State {
            lane: self.id,
            // Known once there is room for it.
            segment: SegmentId(0),
            sequence: self.checkpoints.borrow().as_ref().map_or(0, |place| place.sequence) + 1,
            epoch: self.epoch,
            position: frozen.position,
            birth: frozen.birth,
            next_segment: self.segments.next_number(),
            pages_bytes: self.pages.borrow().as_ref().map_or(0, super::stream::Stream::durable_bytes),
            next_volume: frozen.next_volume,
            compression: frozen.compression,
            fanout_bits: core.shape.bits() as u8,
            volumes: volumes.collect(),
            snapshots: snapshots.collect(),
            leaving: leaving.collect(),
            segments: segment_states(&core),
            shared: core.table.shared.at_cut().collect(),
        }
    }

    async fn write_state(&self, state: State) -> Result<(), LaneError> {
        let mut place = self.checkpoints.borrow_mut().take().expect("one checkpoint at a time");
        let sequence = state.sequence;
        let written = self.append_state(&mut place, state).await;
        if written.is_ok() {
            place.sequence = sequence;
        }
        *self.checkpoints.borrow_mut() = Some(place);
        written
    }

    /// Deletes the segments of checkpoints before the last.
    async fn delete_old(&self) -> Result<(), LaneError> {
        let old = self.checkpoints.borrow_mut().as_mut().map(|place| std::mem::take(&mut place.old));
        for segment in old.unwrap_or_default() {
            self.segments.delete(segment, self.epoch).await?;
        }
        Ok(())
    }

    async fn append_state(&self, place: &mut Place<C>, mut state: State) -> Result<(), LaneError> {
        state.segment = place.writer.as_ref().map_or(SegmentId(0), SegmentWriter::segment);
        let mut bytes = state.encode();
        let len = bytes.len().next_multiple_of(self.segments.align_bytes() as usize);
        if len > self.segments.segment_bytes() as usize {
            return Err(LaneError::Damaged(format!(
                "the lane's state takes {len} bytes, more than a segment holds: it has too many segments"
            )));
        }
        let fits = place.writer.as_ref().is_some_and(|writer| writer.room() as usize >= len);
        if !fits {
            let next = SegmentWriter::create(&self.segments, SegmentKind::Checkpoint, self.epoch).await?;
            state.segment = next.segment();
            bytes = state.encode();
            if let Some(full) = place.writer.replace(next) {
                place.old.push(full.segment());
            }
        }
        let writer = place.writer.as_mut().expect("made above");
        let mut pieces = Vec::new();
        for start in (0..len).step_by(MAX_BYTES) {
            let piece_len = (len - start).min(MAX_BYTES);
            let mut piece = self.scratch.alloc(piece_len).await;
            let some = &bytes[start.min(bytes.len())..(start + piece_len).min(bytes.len())];
            piece[..some.len()].copy_from_slice(some);
            piece[some.len()..].fill(0);
            pieces.push(piece.freeze());
        }
        writer.append(&pieces).await?;
        Ok(())
    }

    /// The checkpoint is durable.
    fn thaw(&self, frozen: &Frozen) {
        let mut core = self.core();
        let cut = core.frozen.expect("a checkpoint runs");
        let dead: Vec<_> = core.dead_at_cut(frozen.position.segment);
        core.dead.extend(dead);
        core.settle(cut);
        core.shrink(self.leaves_max.get());
        self.shared.logged_bytes.set(self.shared.logged_bytes.get() - frozen.logged_bytes);
    }

    /// The checkpoint was not made; the next one sees what this one would have.
    fn give_up(&self) {
        let mut core = self.core();
        core.frozen = None;
        core.settle_counts();
    }

    /// Deletes the chunks of segments that are dead, unless somebody may still look at old pages.
    async fn delete_dead(&self) -> Result<(), LaneError> {
        if self.core().is_letting_go() {
            return Ok(());
        }
        let dead = std::mem::take(&mut self.core().dead);
        for segment in dead {
            self.segments.delete(segment, self.epoch).await?;
            self.gained.set(self.gained.get() + 1);
        }
        Ok(())
    }
}

/// Where `tree`, which is saved, has its root.
fn root_of(tree: &Tree) -> Root {
    let page = tree.root().saved().expect("all of it has been saved");
    Root { level: tree.level() as u8, page }
}

fn at_cut(space: Option<Space>) -> (i64, i64) {
    space.map_or((0, 0), |space| (space.mapped.at_cut(), space.stored.at_cut()))
}

fn segment_states(core: &Core) -> Vec<SegmentState> {
    let state = |(id, segment): (SegmentId, &super::table::Segment)| SegmentState {
        id,
        kind: segment.kind,
        hosts: match &segment.place {
            DataPlace::Here => None,
            DataPlace::Hosted { parts, .. } => Some(parts.iter().map(|(host, _)| *host).collect()),
        },
        sealed: segment.sealed,
        birth: segment.birth,
        live: segment.live.at_cut(),
    };
    core.table.sorted().into_iter().map(state).collect()
}
