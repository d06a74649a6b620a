//! Copies: what is read that is not what was written is made again from another replica, and so is what a device took
//! with it.
//!
//! A replica is made again as a whole, since chunks are append-only: under its other name, from records or batches each of
//! which was held against its checksums, from whichever replica has it. It takes the place of the old one when it is sealed;
//! then the old one is deleted, if its device still does that. A crash on the way leaves an open chunk that no table knows,
//! or two sealed ones of which either will do.
//!
//! What is still written (the log, pages, checkpoints) is not mended but ended: it goes on in new segments on all the
//! devices there are, and what was ended is made again like anything else.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use ashlar_codec::crc32c;
use ashlar_env::Env;
use ashlar_env::buf::MAX_BYTES;
use ashlar_env::spawn::yield_now;

use crate::chunks::{Chunk, Chunks, Seal, StoreError};
use crate::ids::{ChunkId, GRANULE_BYTES, SegmentId, SegmentKind};
use crate::log::CheckpointMin;
use crate::log::record::{FIXED_BYTES, RecordError, decode_header, verify_payload};
use crate::segment::{Replica, ShardSet};

use super::background::Want;
use super::batch::{self, HEADER_BYTES};
use super::signal::Signal;
use super::{Inner, Lane, LaneError};

/// Pieces that are written at once.
const PIECE_BYTES: usize = 256 << 10;

/// A lane's copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// How many there are to be.
    pub wanted: usize,
    /// Segments that have fewer.
    pub segments_short: u64,
    /// What these hold, in bytes.
    pub bytes_short: u64,
    /// Those of them that could be given another now.
    pub segments_to_make: u64,
    /// Replicas made again since the lane was opened.
    pub repaired: u64,
    /// Damaged replicas for which no other had what was missing.
    pub unrepaired: u64,
}

/// What is known of a lane's repairs.
#[derive(Default)]
pub(super) struct Repair {
    /// Replicas that gave something else than what was written, or nothing.
    suspects: RefCell<BTreeSet<(SegmentId, u8)>>,
    pub wanted: Signal,
    repaired: Cell<u64>,
    unrepaired: Cell<u64>,
}

/// A replica to be made.
#[derive(Clone, Copy, Debug)]
struct Wanting {
    segment: SegmentId,
    kind: SegmentKind,
    len: u32,
    shard: u8,
}

impl<E: Env, C: Chunks> Lane<E, C> {
    /// How many copies there are of what, as far as it is known without reading.
    #[must_use]
    pub fn copies(&self) -> Copies {
        let inner = &*self.0;
        let wanted = inner.segments.stores().len();
        let (repaired, unrepaired) = (inner.repair.repaired.get(), inner.repair.unrepaired.get());
        let mut copies = Copies { wanted, repaired, unrepaired, ..Copies::default() };
        if !inner.segments.is_replicated() {
            return copies;
        }
        for (segment, _, len) in inner.sealed_here() {
            if inner.sound(segment).len() < wanted {
                copies.segments_short += 1;
                copies.bytes_short += u64::from(len);
            }
        }
        let narrow = inner.written_on().into_iter().filter(|shards| shards.len() < wanted).count();
        copies.segments_short += narrow as u64;
        let makes: BTreeSet<_> = inner.wanting().iter().map(|wanting| wanting.segment).collect();
        copies.segments_to_make = makes.len() as u64 + u64::from(inner.is_narrow());
        copies
    }

    /// Makes every replica that is missing, or is on a device that failed, as far as there are devices for it. `progress` is
    /// told of bytes done and bytes in all. How many replicas were made.
    ///
    /// # Errors
    /// [`LaneError::Full`], or what a store says; what was made stays, and the next call goes on.
    pub async fn rebuild(&self, mut progress: impl FnMut(u64, u64)) -> Result<u64, LaneError> {
        let inner = &*self.0;
        if !inner.segments.is_replicated() {
            return Ok(0);
        }
        inner.log().widen().await;
        if inner.is_narrow() {
            // The second deletes what the first has left.
            for _ in 0..2 {
                inner.renew.set(true);
                inner.turn(Want::Checkpoint).await?;
            }
        }
        let wanting = inner.wanting();
        let total = wanting.iter().map(|wanting| u64::from(wanting.len)).sum();
        let (mut done, mut made) = (0, 0);
        for one in wanting {
            made += u64::from(inner.remake(one).await?);
            done += u64::from(one.len);
            progress(done, total);
            inner.check()?;
            yield_now().await;
        }
        Ok(made)
    }
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Commits that no older checkpoint than the last counts. Whether that is so from now on: what older ones need must be
    /// kept otherwise. `begins`: where recovery begins in the log.
    pub(super) async fn commit_checkpoint(&self, begins: SegmentId) -> bool {
        let sequence = self.checkpoints.borrow().as_ref().map_or(0, |place| place.sequence);
        self.commit_checkpoint_of(sequence, begins).await
    }

    pub(super) async fn commit_checkpoint_of(&self, sequence: u64, begins: SegmentId) -> bool {
        let Some(coordinator) = self.coordinator.get().filter(|_| self.segments.is_replicated()) else {
            return true;
        };
        let (lane, epoch) = (self.id, self.epoch);
        let checkpoint = CheckpointMin { lane, epoch, sequence, segment: begins };
        coordinator.commit_checkpoint(checkpoint).await.is_ok()
    }

    /// The replica that [`crate::segment::Segments::read_from`] reads as `nth` gave something else than what was written,
    /// or nothing: it is looked at, and made again.
    pub(super) fn suspect(&self, segment: SegmentId, nth: usize) {
        if self.segments.is_replicated()
            && let Some(shard) = self.segments.shard_of(segment, nth)
        {
            self.repair.suspects.borrow_mut().insert((segment, shard));
            self.repair.wanted.notify();
        }
    }

    /// The task that looks at suspects.
    pub(super) async fn keep_whole(self: Rc<Self>) {
        loop {
            let any = || !self.repair.suspects.borrow().is_empty();
            self.repair.wanted.wait_until(|| any() || self.check().is_err()).await;
            if self.check().is_err() {
                return;
            }
            let next = self.repair.suspects.borrow_mut().pop_first();
            if let Some((segment, shard)) = next {
                self.look_at(segment, shard).await;
            }
            yield_now().await;
        }
    }

    /// Makes a replica again if it is not sound. What cannot be mended now shows when it is read or scrubbed again.
    async fn look_at(&self, segment: SegmentId, shard: u8) {
        let Some((kind, len)) = self.sealed_at(segment) else { return };
        if !self.segments.shards(segment).contains(shard)
            || self.verified_end(segment, kind, shard, len).await == len
        {
            return;
        }
        let _ = self.remake(Wanting { segment, kind, len, shard }).await;
    }

    /// Makes the damaged replica of a segment on `shard` again. Whether it is sound now.
    pub(super) async fn mend(&self, segment: SegmentId, shard: u8) -> bool {
        let Some((kind, len)) = self.sealed_at(segment) else { return false };
        self.segments.is_replicated()
            && self.remake(Wanting { segment, kind, len, shard }).await.is_ok_and(|made| made)
    }

    fn sealed_at(&self, segment: SegmentId) -> Option<(SegmentKind, u32)> {
        let core = self.core();
        let found = core.table.get(segment).filter(|_| core.table.is_here(segment))?;
        Some((found.kind, found.sealed?))
    }

    /// The segments that are complete and have chunks: number, kind, length in bytes.
    fn sealed_here(&self) -> Vec<(SegmentId, SegmentKind, u32)> {
        let core = self.core();
        let sealed = |(id, segment): (SegmentId, &super::table::Segment)| {
            let len = segment.sealed.filter(|_| core.table.is_here(id) && self.segments.contains(id))?;
            Some((id, segment.kind, len))
        };
        core.table.sorted().into_iter().filter_map(sealed).collect()
    }

    /// The stores with replicas of a segment, on devices that work.
    fn sound(&self, segment: SegmentId) -> ShardSet {
        let replicas = self.segments.replicas(segment);
        replicas.iter().filter(|replica| !replica.chunk.is_failing()).map(|replica| replica.shard).collect()
    }

    /// The stores that what is being written is on: the log, pages, checkpoints.
    fn written_on(&self) -> Vec<ShardSet> {
        let mut all = vec![self.log().shards()];
        all.extend(self.pages.borrow().as_ref().map(super::stream::Stream::shards));
        let checkpoints = self.checkpoints.borrow();
        all.extend(
            checkpoints.as_ref().and_then(|place| place.writer.as_ref()).map(|writer| writer.shards()),
        );
        all
    }

    /// Whether something is being written on fewer devices than there are for it.
    fn is_narrow(&self) -> bool {
        let could = self.segments.placeable(ShardSet::EMPTY).len();
        self.written_on().into_iter().any(|shards| shards.len() < could)
    }

    /// The replicas that are missing, or on devices that failed, and that there is a device for.
    fn wanting(&self) -> Vec<Wanting> {
        let mut wanting = Vec::new();
        for (segment, kind, len) in self.sealed_here() {
            let sound = self.sound(segment);
            let could = self.segments.placeable(sound);
            if self.segments.shards(segment).is_empty() {
                continue;
            }
            let missing = could.without(sound);
            wanting.extend(missing.iter().map(|shard| Wanting { segment, kind, len, shard }));
        }
        wanting
    }

    /// Makes a replica from the others, and from what there is of it. Whether it was done.
    async fn remake(&self, what: Wanting) -> Result<bool, LaneError> {
        let Wanting { segment, kind, len, shard } = what;
        let count = |counter: &Cell<u64>| counter.set(counter.get() + 1);
        let Some(bytes) = self.whole(segment, kind, len, false).await else {
            if self.sealed_at(segment).is_some() {
                count(&self.repair.unrepaired);
            }
            return Ok(false);
        };
        let Some(seal) = self.seal_of(segment, kind) else { return Ok(false) };
        let (first, copy) =
            (self.segments.chunk_id(segment, kind, shard), self.segments.copy_id(segment, kind, shard));
        let store = self.segments.store(shard);
        let old = self.segments.find(segment, kind, shard);
        let name = if store.stat(old).is_none() || old == copy { first } else { copy };
        let chunk = match self.write_replica(shard, name, &bytes, seal).await {
            Ok(chunk) => chunk,
            // Somebody else makes it, or it went away meanwhile.
            Err(StoreError::Exists | StoreError::NotFound) => return Ok(false),
            Err(StoreError::Full) => return Err(LaneError::Full),
            Err(StoreError::NoDevice) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if self.sealed_at(segment).is_none() || !self.segments.contains(segment) {
            let _ = store.delete(name, self.epoch).await;
            return Ok(false);
        }
        self.segments.replace(segment, Replica { shard, chunk });
        self.immovable.borrow_mut().remove(&segment);
        count(&self.repair.repaired);
        if old != name {
            // On a device that failed it stays, and is found to be of no use when that comes back.
            let _ = store.delete(old, self.epoch).await;
        }
        Ok(true)
    }

    /// How the replicas that count are sealed.
    fn seal_of(&self, segment: SegmentId, kind: SegmentKind) -> Option<Seal> {
        let shards = self.segments.shards(segment);
        shards.iter().find_map(|shard| {
            let store = self.segments.store(shard);
            store.stat(self.segments.find(segment, kind, shard))?.sealed
        })
    }

    async fn write_replica(
        &self,
        shard: u8,
        name: ChunkId,
        bytes: &[u8],
        seal: Seal,
    ) -> Result<C::Chunk, StoreError> {
        let store = self.segments.store(shard);
        if store.stat(name).is_some() && !self.segments.is_replica(shard, name) {
            // What a try before this one left.
            store.delete(name, self.epoch).await?;
        }
        let chunk = store.create(name, self.epoch).await?;
        let align = self.segments.align_bytes() as usize;
        let mut offset = 0;
        for part in bytes.chunks(PIECE_BYTES) {
            let mut buf = self.scratch.alloc(part.len().next_multiple_of(align)).await;
            buf[..part.len()].copy_from_slice(part);
            buf[part.len()..].fill(0);
            chunk.append(self.epoch, offset, &[buf.freeze()]).await?;
            offset += part.len() as u32;
            yield_now().await;
        }
        chunk.seal(self.epoch, seal).await?;
        Ok(chunk)
    }

    /// The bytes of a complete segment with several replicas, if each part of it is sound in one. Those in which it is not
    /// are looked at.
    pub(super) async fn whole_of_any(&self, segment: SegmentId) -> Option<Vec<u8>> {
        if !self.segments.is_replicated() {
            return None;
        }
        let (kind, len) = self.sealed_at(segment).filter(|(kind, _)| *kind != SegmentKind::Checkpoint)?;
        self.whole(segment, kind, len, true).await
    }

    /// A complete segment, each part of it from a replica in which it is sound. `None` where some part is so in none.
    async fn whole(
        &self,
        segment: SegmentId,
        kind: SegmentKind,
        len: u32,
        suspects: bool,
    ) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len as usize);
        while bytes.len() < len as usize {
            let mut found = None;
            for (nth, shard) in self.segments.shards_in_order(segment).into_iter().enumerate() {
                found = self.unit(segment, kind, shard, bytes.len() as u32, len).await;
                if found.is_some() {
                    break;
                }
                if suspects {
                    self.suspect(segment, nth);
                }
            }
            bytes.extend_from_slice(&found?);
            yield_now().await;
        }
        Some(bytes)
    }

    /// How far a replica is sound, in bytes, up to `limit`.
    pub(super) async fn verified_end(
        &self,
        segment: SegmentId,
        kind: SegmentKind,
        shard: u8,
        limit: u32,
    ) -> u32 {
        let mut at = 0;
        while at < limit {
            let Some(unit) = self.unit(segment, kind, shard, at, limit).await else { break };
            at += unit.len() as u32;
        }
        at
    }

    /// The record or the batch that begins at byte `at` of a replica and ends before `limit`, if it is sound.
    async fn unit(
        &self,
        segment: SegmentId,
        kind: SegmentKind,
        shard: u8,
        at: u32,
        limit: u32,
    ) -> Option<Vec<u8>> {
        let align = self.segments.align_bytes() as usize;
        let mut bytes = Vec::new();
        let mut need = if kind == SegmentKind::Log { FIXED_BYTES } else { HEADER_BYTES };
        loop {
            if need > (limit - at) as usize {
                return None;
            }
            self.fill(segment, shard, at, need, limit, &mut bytes).await?;
            let total = match kind {
                SegmentKind::Log => match decode_header(&bytes) {
                    Ok(record) => record.total_bytes(),
                    Err(RecordError::Short { need }) => need,
                    Err(_) => return None,
                },
                _ => batch::peek(&bytes)?.bytes().next_multiple_of(align),
            };
            if total <= bytes.len() {
                bytes.truncate(total);
                break;
            }
            need = total;
        }
        let is_sound = match kind {
            SegmentKind::Log => decode_header(&bytes).is_ok_and(|record| {
                let own = record.header.segment == segment && record.header.lane == self.id;
                own && verify_payload(&record, &bytes).is_ok()
            }),
            _ => self.is_sound_batch(segment, at, &bytes),
        };
        is_sound.then_some(bytes)
    }

    fn is_sound_batch(&self, segment: SegmentId, at: u32, bytes: &[u8]) -> bool {
        let Some(header) = batch::peek(bytes) else { return false };
        let own = header.segment == segment && header.lane == self.id;
        let items = batch::decode(&bytes[..HEADER_BYTES], &bytes[header.items_at()..]);
        own && items.is_some_and(|items| {
            items.iter().all(|item| {
                let start = (item.position as usize * GRANULE_BYTES).checked_sub(at as usize);
                let end = start.map(|start| start + usize::from(item.granules) * GRANULE_BYTES);
                let stored = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
                stored.is_some_and(|stored| crc32c(stored) == item.crc)
            })
        })
    }

    /// Reads on until `bytes`, which begin at `at`, are `need` at least.
    async fn fill(
        &self,
        segment: SegmentId,
        shard: u8,
        at: u32,
        need: usize,
        limit: u32,
        bytes: &mut Vec<u8>,
    ) -> Option<()> {
        let align = self.segments.align_bytes() as usize;
        while bytes.len() < need {
            let from = at as usize + bytes.len();
            let left = (limit as usize - from).next_multiple_of(align);
            let len = (need - bytes.len()).next_multiple_of(align).min(MAX_BYTES).min(left);
            let buf = self.scratch.alloc(len).await;
            let read = self.segments.read_shard(segment, shard, from as u32, buf).await;
            bytes.extend_from_slice(&read.ok()?);
        }
        Some(())
    }
}
