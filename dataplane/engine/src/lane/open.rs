//! Making a lane, and finding it again after a crash.
//!
//! 1. The newest whole checkpoint is found among the lane's checkpoint segments, on whichever device. With several copies
//!    the coordinator knows how new it has to be: one that is older lies on a device that was away.
//! 2. Its segment table is taken over, and where compaction put things is read from the segments that it wrote.
//! 3. The log is recovered from the checkpoint's position: older writers are fenced, its end is settled, and what it
//!    says is applied as it was the first time.
//! 4. Chunks that neither the table nor the log knows are deleted: a checkpoint or a compaction that was not finished
//!    left them. So are replicas that do not count: a replica of a complete segment is one that is sealed at the length
//!    that the table knows, and only one that has all of it ever is.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ashlar_env::Env;
use ashlar_env::buf::MAX_BYTES;
use smallvec::SmallVec;

use crate::chunks::{Chunk, Chunks, Seal, StoreError};
use crate::ids::{Epoch, LaneId, SegmentId, SegmentKind};
use crate::log::recover::{Event, RecoverError, recover};
use crate::log::{Applied, AppliedOp, BlockSum, Coordinator, LocalCoordinator, Log, Place as LogPlace, Sink};
use crate::map::Shape;
use crate::segment::{Segments, ShardSet};

use super::batch::{self, HEADER_BYTES, ITEM_BYTES, Item};
use super::checkpoint::Place;
use super::control::Control;
use super::core::{Core, Leaving, Volume, snapshot_of, tree_of};
use super::counter::Counter;
use super::runs::{Run, Runs};
use super::state::{SegmentState, State};
use super::table::{Place as DataPlace, Segment};
use super::{Inner, Lane, LaneConfig, LaneError};

/// What a recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The checkpoint's sequence number.
    pub checkpoint: u64,
    /// Operations that were replayed.
    pub replayed: u64,
    /// Chunks that nothing refers to, deleted.
    pub orphans: u64,
}

/// An event of the log that outlives the log's buffers.
enum Owned {
    Opened(SegmentId),
    Data { volume: u32, first: u64, sums: SmallVec<[BlockSum; 1]>, place: LogPlace },
    Clear { volume: u32, first: u64, count: u32 },
    Control(Control),
    Sealed(SegmentId, u32),
}

impl Owned {
    fn of(event: Event<'_>) -> Option<Self> {
        Some(match event {
            Event::Opened(segment) => Self::Opened(segment),
            Event::Sealed(segment, length) => Self::Sealed(segment, length),
            Event::Applied(AppliedOp { op, .. }) => match op {
                Applied::Data { volume, first, sums, place } => {
                    Self::Data { volume, first, sums: sums.into(), place }
                }
                Applied::Zero { volume, first, count } | Applied::Unmap { volume, first, count } => {
                    Self::Clear { volume, first, count }
                }
                Applied::Control(bytes) => Self::Control(Control::decode(bytes)?),
            },
        })
    }
}

impl From<RecoverError> for LaneError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Full => Self::Full,
            RecoverError::Store(failed) => failed.into(),
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl<E: Env, C: Chunks> Lane<E, C> {
    /// Makes a lane without volumes, with a replica on each of `stores`.
    ///
    /// # Errors
    /// What the stores say. What was begun is deleted by [`Self::discard`].
    pub async fn create(env: E, stores: Vec<C>, id: LaneId, config: LaneConfig) -> Result<Self, LaneError> {
        Self::create_with(env, stores, id, Rc::new(LocalCoordinator::default()), config).await
    }

    /// The same with a coordinator of the caller's, which several replicas need.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_with(
        env: E,
        stores: Vec<C>,
        id: LaneId,
        coordinator: Rc<dyn Coordinator>,
        config: LaneConfig,
    ) -> Result<Self, LaneError> {
        let segments = segments_of(&env, stores, id, &config);
        let epoch = Epoch(1);
        for store in segments.stores() {
            store.fence(id.group, epoch).await?;
        }
        let inner = Inner::new(env.clone(), epoch, config, segments.clone(), Core::new(config.shape));
        *inner.checkpoints.borrow_mut() = Some(Place { writer: None, old: Vec::new(), sequence: 0 });
        assert!(inner.coordinator.set(Rc::clone(&coordinator)).is_ok(), "set once");
        let log =
            Log::create(env, segments, coordinator, epoch, config.log, Rc::clone(&inner.shared)).await?;
        assert!(inner.log.set(log).is_ok(), "set once");
        inner.checkpoint().await?;
        Ok(Self::start(inner))
    }

    /// Opens a lane that is on `stores`.
    ///
    /// # Errors
    /// [`LaneError::Damaged`] where it has no whole checkpoint, or where the log or a page cannot be read; what the
    /// stores say. Nothing that a checkpoint or the log holds is changed then.
    pub async fn open(
        env: E,
        stores: Vec<C>,
        id: LaneId,
        config: LaneConfig,
    ) -> Result<(Self, Recovery), LaneError> {
        Self::open_with(env, stores, id, Rc::new(LocalCoordinator::default()), config).await
    }

    /// The same with the coordinator that the lane had before.
    ///
    /// # Errors
    /// As [`Self::open`]; [`LaneError::Absent`] where the newest checkpoint is on a device that is not there.
    pub async fn open_with(
        env: E,
        stores: Vec<C>,
        id: LaneId,
        coordinator: Rc<dyn Coordinator>,
        config: LaneConfig,
    ) -> Result<(Self, Recovery), LaneError> {
        let segments = segments_of(&env, stores, id, &config);
        let (state, checkpoints) = newest(&segments).await?;
        let known = coordinator.checkpoint(id);
        if let Some(known) = known.filter(|known| state.sequence < known.sequence) {
            let (found, wanted) = (state.sequence, known.sequence);
            return Err(LaneError::Absent(format!(
                "checkpoint {found} was found, and {wanted} is the newest"
            )));
        }
        let shape = Shape::new(u32::from(state.fanout_bits))
            .ok_or_else(|| LaneError::Damaged("the checkpoint has an impossible shape of maps".into()))?;
        let config = LaneConfig { shape, ..config };
        let newest = segments.list().iter().map(|(_, stat)| stat.epoch).max().unwrap_or(state.epoch);
        let committed = known.map_or(Epoch(0), |known| known.epoch);
        let epoch = Epoch(newest.max(state.epoch).max(committed).0 + 1);
        let core = core_of(&state, shape);
        let inner = Inner::new(env.clone(), epoch, config, segments.clone(), core);
        let place = Place { writer: None, old: checkpoints, sequence: state.sequence };
        *inner.checkpoints.borrow_mut() = Some(place);
        inner.take_over(&state).await?;
        inner.begin_departures(&state);
        inner.load_all().await?;

        assert!(inner.coordinator.set(Rc::clone(&coordinator)).is_ok(), "set once");
        let mut events = Vec::new();
        let each = |event: Event<'_>| events.extend(Owned::of(event));
        let from = state.position;
        let recovered = recover(&env, &segments, &*coordinator, epoch, from, &config.log, each).await?;
        let mut recovery = Recovery { checkpoint: state.sequence, ..Recovery::default() };
        for event in events {
            // That a segment begins or ends is told even where nothing is in it.
            recovery.replayed += u64::from(!matches!(event, Owned::Opened(_) | Owned::Sealed(..)));
            inner.replay(event).await?;
        }
        // From here on what older checkpoints need goes.
        if !inner.commit_checkpoint_of(state.sequence, state.position.segment).await {
            return Err(LaneError::Absent("the control state cannot be written".into()));
        }
        recovery.orphans = inner.delete_orphans(recovered.position.segment).await?;
        let shared = Rc::clone(&inner.shared);
        let log = Log::resume(env, segments, coordinator, epoch, config.log, shared, recovered);
        assert!(inner.log.set(log).is_ok(), "set once");
        Ok((Self::start(inner), recovery))
    }

    fn start(inner: Rc<Inner<E, C>>) -> Self {
        inner.running.set(true);
        inner.env.spawn(Rc::clone(&inner).run());
        inner.env.spawn(Rc::clone(&inner).keep_short());
        inner.env.spawn(Rc::clone(&inner).tend_orphans());
        if inner.segments.is_replicated() {
            inner.env.spawn(Rc::clone(&inner).keep_whole());
        }
        Self(inner)
    }

    /// Deletes all chunks of a lane that is not open.
    ///
    /// # Errors
    /// What the stores say; what is left is found by the next call.
    pub async fn discard(stores: Vec<C>, id: LaneId) -> Result<(), LaneError> {
        for store in &stores {
            let chunks = store.list(Some(id.group)).into_iter().filter(|stat| stat.id.lane == id);
            for stat in chunks {
                let epoch = Epoch(stat.epoch.0.max(1));
                let fenced = store.delete(stat.id, epoch).await;
                if let Err(StoreError::Fenced { fence }) = fenced {
                    store.delete(stat.id, Epoch(fence)).await?;
                } else {
                    fenced?;
                }
            }
        }
        Ok(())
    }

    /// Ends all segments that are being written and goes on in new ones, so that a device can be taken out.
    ///
    /// # Errors
    /// What the log or a checkpoint says.
    pub async fn roll(&self) -> Result<(), LaneError> {
        let inner = &*self.0;
        // The one made ahead lies on the old device, too.
        inner.log().roll().await?;
        inner.log().roll().await?;
        inner.renew.set(true);
        inner.turn(super::background::Want::Checkpoint).await?;
        // The segment of the checkpoint before is deleted with the next one.
        inner.turn(super::background::Want::Checkpoint).await
    }

    /// Ends the lane's tasks, for a group that is to be deleted.
    pub async fn abandon(&self) {
        self.0.closed.set(true);
        self.0.work.notify();
        self.0.worked.notify();
        self.0.shared.grown.notify();
        self.0.orphaned.notify();
        self.0.repair.wanted.notify();
        self.0.worked.wait_until(|| !self.0.running.get()).await;
    }

    /// Makes a last checkpoint, so that the next start replays nothing, and ends the lane's tasks.
    ///
    /// # Errors
    /// What the checkpoint says; nothing acknowledged is lost.
    pub async fn close(&self) -> Result<(), LaneError> {
        let saved = self.0.turn(super::background::Want::Checkpoint).await;
        self.abandon().await;
        saved
    }
}

/// The segments of a lane. With several stores one that does not answer is not waited for longer than the log would.
fn segments_of<E: Env, C: Chunks>(env: &E, stores: Vec<C>, id: LaneId, config: &LaneConfig) -> Segments<C> {
    let segments = Segments::new(id, stores);
    let (env, time) = (env.clone(), config.log.answer_max);
    segments.be_patient(move || {
        let env = env.clone();
        async move { env.sleep_until(env.now().plus(time)).await }
    });
    segments
}

/// The state in memory as a checkpoint knew it.
fn core_of(state: &State, shape: Shape) -> Core {
    let mut core = Core::new(shape);
    core.birth = state.birth;
    core.next_snapshot = state.birth;
    core.next_volume = state.next_volume;
    core.compression = state.compression;
    core.generation = 1;
    for volume in &state.volumes {
        let tree = tree_of(shape, volume.root);
        let (id, size_bytes, origin) = (volume.id, volume.size_bytes, volume.origin);
        core.volumes.insert(volume.number, Volume { id, size_bytes, tree, origin, space: volume.into() });
    }
    for snapshot in &state.snapshots {
        core.snapshots.insert(snapshot.number, snapshot_of(shape, snapshot));
    }
    let volumes = state.volumes.iter().map(|volume| (volume.number, volume.origin));
    let held = state.snapshots.iter().flat_map(|snapshot| &snapshot.volumes);
    for (volume, origin) in volumes.chain(held.map(|held| (held.volume, held.origin))) {
        core.origins.extend(origin.map(|(snapshot, _)| (volume, snapshot)));
    }
    state.shared.iter().for_each(|block| core.table.shared.restore(*block));
    for version in &state.leaving {
        let (volume, floor, tree) = (version.volume, version.floor, tree_of(shape, version.root));
        core.leaving.push(Leaving { volume, floor, birth: version.birth, tree, saved: true });
    }
    core
}

/// The newest whole checkpoint, and all segments that hold checkpoints.
async fn newest<C: Chunks>(segments: &Segments<C>) -> Result<(State, Vec<SegmentId>), LaneError> {
    let mut found: Option<State> = None;
    let mut places = BTreeSet::new();
    for (shard, stat) in segments.list() {
        if stat.id.kind != SegmentKind::Checkpoint {
            continue;
        }
        places.insert(stat.id.segment);
        let Some(chunk) = segments.store(shard).open(stat.id) else { continue };
        if let Some(state) = last_in(segments, stat.id.segment, &chunk).await
            && found.as_ref().is_none_or(|found| found.sequence < state.sequence)
        {
            found = Some(state);
        }
    }
    for &place in &places {
        segments.open(place, SegmentKind::Checkpoint, segments.all());
    }
    let none = || LaneError::Damaged("there is no whole checkpoint of the group on this node".into());
    Ok((found.ok_or_else(none)?, places.into_iter().collect()))
}

/// The last whole checkpoint of a segment.
async fn last_in<C: Chunks>(segments: &Segments<C>, segment: SegmentId, chunk: &C::Chunk) -> Option<State> {
    let (align, limit) = (segments.align_bytes() as usize, segments.segment_bytes() as usize);
    let mut last = None;
    let mut at = 0;
    while at + align <= limit {
        let Some(len) = read(chunk, at, align).await.and_then(|bytes| State::length(&bytes)) else { break };
        let padded = len.next_multiple_of(align);
        if at + padded > limit {
            break;
        }
        let state = read(chunk, at, padded).await.and_then(|bytes| State::decode(&bytes));
        // What follows the last one may be from an earlier life of the slot.
        let own = |state: &State| state.lane == segments.lane() && state.segment == segment;
        let Some(state) = state.filter(own) else { break };
        last = Some(state);
        at += padded;
    }
    last
}

/// Bytes of a chunk, if they can be read.
async fn read<K: Chunk>(chunk: &K, at: usize, len: usize) -> Option<Vec<u8>> {
    let pool = ashlar_env::BufPool::on_heap(ashlar_env::buf::PoolPlan { limits: [1; 5] });
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let piece = pool.alloc((len - bytes.len()).min(MAX_BYTES)).await;
        bytes.extend_from_slice(&chunk.read((at + bytes.len()) as u32, piece).await.ok()?);
    }
    Some(bytes)
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Takes the segments over that the checkpoint knew.
    async fn take_over(&self, state: &State) -> Result<(), LaneError> {
        self.segments.skip_to(state.next_segment.saturating_sub(1));
        let mut all_hosts = BTreeSet::new();
        for SegmentState { id, kind, hosts, sealed, birth, live } in state.segments.iter().cloned() {
            let place = match hosts {
                None => {
                    let shards = self.complete(id, kind, sealed);
                    if self.segments.open(id, kind, shards) == 0 {
                        // What was live in it cannot be read; the rest of the group can.
                        self.segments.leave(id, ShardSet::first(crate::segment::SHARDS_MAX));
                    }
                    DataPlace::Here
                }
                Some(hosts) => {
                    all_hosts.extend(hosts.iter().copied());
                    // How much of it each took is read from them.
                    let parts = hosts.into_iter().map(|host| (host, 1)).collect();
                    DataPlace::Hosted { parts, runs: Rc::default() }
                }
            };
            self.core().table.restore(id, Segment { kind, sealed, birth, live: Counter::of(live), place });
        }
        let mut moves = BTreeMap::new();
        for host in all_hosts {
            self.read_moves(host, &mut moves).await?;
        }
        for (guest, moves) in moves {
            self.core().table.move_to(guest, Runs::of(moves));
        }
        let open = |segment: &&SegmentState| {
            let batches = matches!(segment.kind, SegmentKind::Map | SegmentKind::Moved);
            batches && segment.sealed.is_none() && segment.hosts.is_none()
        };
        for segment in state.segments.iter().filter(open) {
            self.seal_batches(segment.id, segment.kind, state.pages_bytes).await?;
        }
        Ok(())
    }

    /// The stores whose replicas of a segment are to be used: of a segment that is complete, those that were sealed so.
    fn complete(&self, id: SegmentId, kind: SegmentKind, sealed: Option<u32>) -> ShardSet {
        let all = self.segments.all();
        let Some(len) = sealed.filter(|_| self.segments.is_replicated()) else { return all };
        let is_whole = |shard: &u8| {
            let stat = self.segments.store(*shard).stat(self.segments.find(id, kind, *shard));
            stat.and_then(|stat| stat.sealed).is_some_and(|seal| seal.length == len)
        };
        let whole: ShardSet = all.iter().filter(is_whole).collect();
        if whole.is_empty() { all } else { whole }
    }

    /// Reads from the batches of `host` where what it holds for others is.
    async fn read_moves(
        &self,
        host: SegmentId,
        moves: &mut BTreeMap<SegmentId, Vec<Run>>,
    ) -> Result<(), LaneError> {
        if self.segments.shards(host) == ShardSet::EMPTY {
            // Nothing was live in it at the cut, and it was deleted once the checkpoint was durable; or it is lost.
            return Ok(());
        }
        let guests: BTreeSet<SegmentId> = self.core().table.guests(host).iter().copied().collect();
        self.each_batch(host, |items| {
            for item in items.iter().filter(|item| guests.contains(&item.address.segment)) {
                let (from, granules) = (item.address.position, u32::from(item.granules));
                let run = Run { from, granules, host, to: item.position };
                moves.entry(item.address.segment).or_default().push(run);
            }
        })
        .await?;
        Ok(())
    }

    /// Goes through the batches of a segment; gives where they end.
    pub(super) async fn each_batch(
        &self,
        segment: SegmentId,
        mut each: impl FnMut(Vec<Item>),
    ) -> Result<u32, LaneError> {
        let align = self.segments.align_bytes() as usize;
        let limit = self.length_max(segment) as usize;
        let mut at = 0;
        while at + align <= limit {
            let mut found = Ok(None);
            for nth in 0..self.segments.shards(segment).len().max(1) {
                found = self.batch_at(segment, nth, at, limit).await;
                if matches!(found, Ok(Some(_))) {
                    break;
                }
            }
            let Some((header, items)) = found? else { break };
            each(items);
            at += header.bytes().next_multiple_of(align);
        }
        Ok(at as u32)
    }

    /// The header and the items of the batch at byte `at` of a replica; `None` where there is none.
    async fn batch_at(
        &self,
        segment: SegmentId,
        nth: usize,
        at: usize,
        limit: usize,
    ) -> Result<Option<(batch::Header, Vec<Item>)>, LaneError> {
        let align = self.segments.align_bytes() as usize;
        let buf = self.scratch.alloc(align).await;
        let first = self.segments.read_from(segment, nth, at as u32, buf).await?;
        let header = batch::peek(&first).filter(|header| {
            let own = header.lane == self.id && header.segment == segment;
            own && at + header.bytes() <= limit
        });
        let Some(header) = header else { return Ok(None) };
        let start = at + header.items_at();
        let (from, to) = self.cover(start, start + header.items as usize * ITEM_BYTES);
        let buf = self.scratch.alloc(to - from).await;
        let read = self.segments.read_from(segment, nth, from as u32, buf).await?;
        let items = batch::decode(&first[..HEADER_BYTES], &read[start - from..]);
        Ok(items.map(|items| (header, items)))
    }

    /// How long a segment can be: what a replica was sealed at, if one was.
    fn length_max(&self, segment: SegmentId) -> u32 {
        let kind = self.core().table.get(segment).map(|segment| segment.kind);
        let shards = self.segments.shards(segment);
        let sealed = shards.iter().find_map(|shard| self.sealed_on(segment, kind?, shard));
        sealed.unwrap_or_else(|| self.segments.segment_bytes())
    }

    /// At what length a replica was sealed, in bytes, if it was.
    fn sealed_on(&self, segment: SegmentId, kind: SegmentKind, shard: u8) -> Option<u32> {
        let stat = self.segments.store(shard).stat(self.segments.find(segment, kind, shard));
        stat?.sealed.map(|seal| seal.length)
    }

    /// Seals a segment of batches where it ends: its writer is gone. One that is damaged before `bytes_min`, where it
    /// surely went on, is left as it is: what lies behind is read by its addresses, and compaction keeps off.
    async fn seal_batches(
        &self,
        segment: SegmentId,
        kind: SegmentKind,
        bytes_min: u32,
    ) -> Result<(), LaneError> {
        if self.segments.shards(segment) == ShardSet::EMPTY {
            return Ok(());
        }
        let length = match self.segments.is_replicated() {
            true => self.keep_longest(segment, kind, bytes_min).await,
            false => self.each_batch(segment, |_| {}).await.unwrap_or(0),
        };
        if length < bytes_min {
            self.immovable.borrow_mut().insert(segment);
            return Ok(());
        }
        for shard in self.segments.shards(segment).iter() {
            let store = self.segments.store(shard);
            // Its own fence comes first: an older writer must not go on after the seal.
            store.fence(self.id.group, self.epoch).await?;
            if let Some(chunk) = store.open(self.segments.find(segment, kind, shard)) {
                chunk.seal(self.epoch, Seal { length, next: None }).await?;
            }
        }
        if let Some(segment) = self.core().table.get_mut(segment) {
            segment.sealed = Some(length);
        }
        Ok(())
    }

    /// Of a segment of batches that was being written uses the replicas that go furthest, if these go to `bytes_min`: one that
    /// was left behind ends earlier. How far they go, in bytes.
    async fn keep_longest(&self, segment: SegmentId, kind: SegmentKind, bytes_min: u32) -> u32 {
        let (mut ends, limit) = (Vec::new(), self.segments.segment_bytes());
        for shard in self.segments.shards(segment).iter() {
            let end = match self.sealed_on(segment, kind, shard) {
                Some(sealed) => sealed,
                None => self.verified_end(segment, kind, shard, limit).await,
            };
            ends.push((shard, end));
        }
        let longest = ends.iter().map(|(_, end)| *end).max().unwrap_or(0);
        if longest >= bytes_min {
            let shorter = ends.iter().filter(|(_, end)| *end < longest).map(|(shard, _)| *shard);
            self.segments.leave(segment, shorter.collect());
        }
        longest
    }

    /// Snapshots that were being deleted are again.
    fn begin_departures(&self, state: &State) {
        let mut core = self.core();
        for snapshot in state.snapshots.iter().filter(|snapshot| snapshot.leaving) {
            core.depart(snapshot.number);
        }
    }

    async fn load_all(&self) -> Result<(), LaneError> {
        let volumes: Vec<_> = self.core().volumes.keys().copied().collect();
        for volume in volumes {
            self.load_inner(volume).await?;
        }
        Ok(())
    }

    async fn replay(&self, event: Owned) -> Result<(), LaneError> {
        let damaged = |_| LaneError::Damaged("a page of a map is not where the log needs it".into());
        match event {
            Owned::Opened(segment) => self.shared.segment_opened(segment),
            Owned::Sealed(segment, length) => self.shared.segment_sealed(segment, length),
            Owned::Data { volume, first, sums, place } => {
                let op = Applied::Data { volume, first, sums: &sums, place };
                self.shared.apply(&AppliedOp { sequence: 0, op }).map_err(damaged)?;
            }
            Owned::Clear { volume, first, count } => {
                let op = Applied::Unmap { volume, first, count };
                self.shared.apply(&AppliedOp { sequence: 0, op }).map_err(damaged)?;
            }
            Owned::Control(control) => {
                self.core().control(&control).map_err(damaged)?;
                let kind = match control {
                    Control::Clone { .. } => Some(0),
                    Control::Restore { .. } => Some(1),
                    Control::Delete { .. } => Some(2),
                    Control::DeleteSnapshot { .. } => Some(3),
                    Control::Copy { .. } => Some(4),
                    _ => None,
                };
                if let Some(kind) = kind {
                    self.activity.note(|activity| activity.replayed[kind] += 1);
                }
                if matches!(control, Control::Clone { .. } | Control::Restore { .. }) {
                    self.load_all().await?;
                }
                if let Control::Snapshot { number } = control {
                    self.core().next_snapshot = number + 1;
                }
            }
        }
        Ok(())
    }

    /// Deletes chunks that nothing knows of. How many.
    async fn delete_orphans(&self, new: SegmentId) -> Result<u64, LaneError> {
        let orphans: Vec<_> = {
            let core = self.core();
            let is_stale = |shard: u8, id: crate::ids::ChunkId| {
                let is_complete = core.table.get(id.segment).is_some_and(|segment| segment.sealed.is_some());
                let others = !self.segments.shards(id.segment).is_empty();
                self.segments.is_replicated() && is_complete && others && !self.segments.is_replica(shard, id)
            };
            let is_orphan = |shard: u8, id: crate::ids::ChunkId| {
                let is_known = core.table.is_here(id.segment) && !is_stale(shard, id);
                id.kind != SegmentKind::Checkpoint && id.segment != new && !is_known
            };
            let chunks = self.segments.list().into_iter();
            chunks.filter(|(shard, stat)| is_orphan(*shard, stat.id)).collect()
        };
        for (shard, stat) in &orphans {
            match self.segments.store(*shard).delete(stat.id, self.epoch).await {
                // It is found again when the device works.
                Err(error) if self.segments.is_replicated() && error.is_of_device() => {}
                deleted => deleted?,
            }
        }
        Ok(orphans.len() as u64)
    }
}
