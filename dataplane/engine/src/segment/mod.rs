//! Segments: append-only pieces of a lane, replicated over chunk stores.
//!
//! [`Segments`] knows the lane's stores, hands out segment numbers, and keeps a handle of every replica of every segment
//! in use. [`SegmentWriter`] appends plain bytes to a segment of its own; the log
//! ([`crate::log`]) appends records.
//!
//! A store's place in the list is the shard number of the chunks on it. Nothing is repaired in place, because chunks are
//! append-only. A replica that is made again is written under a second name ([`Segments::copy_id`]) and takes the place
//! of the first when it is sealed, so that at no time is there less than before. The log's recovery does that, and the
//! lane's repair for replicas that are missing or were damaged later.

mod set;
mod writer;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use ashlar_env::BufPool;
use ashlar_env::buf::{BufMut, PoolPlan};
use ashlar_env::disk::DiskError;
use ashlar_env::slots::Slots;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::chunks::{Chunk, ChunkStat, Chunks, StoreError};
use crate::ids::{ChunkId, Epoch, LaneId, SegmentId, SegmentKind};

pub use set::{SHARDS_MAX, ShardSet};
pub use writer::SegmentWriter;

/// How many numbers [`Segments::create`] tries that a store turns out to have already.
const TRIES: u32 = 64;

/// A failure, and the store it came from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("store {shard}: {error}")]
pub struct ShardError {
    /// Which store.
    pub shard: u8,
    /// What happened there.
    pub error: StoreError,
}

/// A replica of a segment.
#[derive(Clone)]
pub struct Replica<K> {
    /// Which store it is on.
    pub shard: u8,
    /// Its chunk.
    pub chunk: K,
}

/// The replicas of a segment, in the order of their shards.
pub type Replicas<K> = SmallVec<[Replica<K>; 2]>;

/// A lane's segments. Cloning shares them.
pub struct Segments<C: Chunks> {
    inner: Rc<Inner<C>>,
}

struct Inner<C: Chunks> {
    lane: LaneId,
    stores: Vec<C>,
    next: Cell<u32>,
    known: RefCell<FxHashMap<SegmentId, Known<C::Chunk>>>,
    patience: RefCell<Option<Patience>>,
}

/// Gives futures that end when a store has had time enough to answer, where another has answered.
type Patience = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = ()>>>>;

struct Known<K> {
    kind: SegmentKind,
    replicas: Replicas<K>,
}

impl<K: Chunk> Known<K> {
    /// The replica to be tried after `nth` others: those on devices that work come first.
    fn nth(&self, nth: usize) -> Option<&Replica<K>> {
        let nth = nth % self.replicas.len().max(1);
        if self.replicas.len() < 2 {
            return self.replicas.first();
        }
        let sound = self.replicas.iter().filter(|replica| !replica.chunk.is_failing());
        let failing = self.replicas.iter().filter(|replica| replica.chunk.is_failing());
        sound.chain(failing).nth(nth)
    }
}

impl<C: Chunks> Clone for Segments<C> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<C: Chunks> Segments<C> {
    /// The segments of `lane` on `stores`. None is known yet; numbers begin after the highest that any store has.
    ///
    /// # Panics
    /// If there is no store, or more than [`SHARDS_MAX`].
    #[must_use]
    pub fn new(lane: LaneId, stores: Vec<C>) -> Self {
        assert!((1..=SHARDS_MAX).contains(&stores.len()), "{} replicas", stores.len());
        let seen = stores.iter().flat_map(|store| store.list(Some(lane.group)));
        let last = seen.filter(|stat| stat.id.lane == lane).map(|stat| stat.id.segment.0).max();
        let (next, known) = (Cell::new(last.unwrap_or(0) + 1), RefCell::default());
        let inner = Inner { lane, stores, next, known, patience: RefCell::default() };
        Self { inner: Rc::new(inner) }
    }

    /// Takes a store that does not answer before the futures of `pause` end for failed, where others have answered.
    pub fn be_patient<F: Future<Output = ()> + 'static>(&self, pause: impl Fn() -> F + 'static) {
        let patience: Patience = Rc::new(move || Box::pin(pause()));
        *self.inner.patience.borrow_mut() = Some(patience);
    }

    /// Ends when a store has had time enough; never for a single one.
    pub(crate) fn patience(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        match &*self.inner.patience.borrow() {
            Some(pause) if self.is_replicated() => pause(),
            _ => Box::pin(std::future::pending()),
        }
    }

    /// Whether segments have more than one replica when all is well.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        self.inner.stores.len() > 1
    }

    /// The stores that a new segment could be made on now, those of `first` before others. Space is not asked for.
    #[must_use]
    pub fn placeable(&self, first: ShardSet) -> ShardSet {
        let mut found = ShardSet::EMPTY;
        for shard in first.iter().chain(self.all().without(first).iter()) {
            if self.store(shard).can_hold(found.len()) {
                found = found.with(ShardSet::of(shard));
            }
        }
        found
    }

    /// The lane.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        self.inner.lane
    }

    /// The stores, by shard number.
    #[must_use]
    pub fn stores(&self) -> &[C] {
        &self.inner.stores
    }

    /// All stores.
    #[must_use]
    pub fn all(&self) -> ShardSet {
        ShardSet::first(self.inner.stores.len())
    }

    /// What a segment on all stores may hold, in bytes.
    #[must_use]
    pub fn segment_bytes(&self) -> u32 {
        self.inner.stores.iter().map(|store| store.info().chunk_bytes).min().expect("there is a store")
    }

    /// The alignment of appends and reads that suits all stores, in bytes.
    #[must_use]
    pub fn align_bytes(&self) -> u32 {
        self.inner.stores.iter().map(|store| store.info().align_bytes).max().expect("there is a store")
    }

    /// The number the next segment gets.
    #[must_use]
    pub fn next_number(&self) -> u32 {
        self.inner.next.get()
    }

    /// Never hands out `number` or a lower one: a checkpoint knows of numbers whose chunks are deleted.
    pub fn skip_to(&self, number: u32) {
        self.inner.next.set(self.inner.next.get().max(number + 1));
    }

    fn take_number(&self) -> SegmentId {
        let number = self.inner.next.get();
        self.inner.next.set(number.checked_add(1).expect("64 PiB of writes to one lane"));
        SegmentId(number)
    }

    /// The name of a replica.
    #[must_use]
    pub fn chunk_id(&self, segment: SegmentId, kind: SegmentKind, shard: u8) -> ChunkId {
        ChunkId { lane: self.inner.lane, segment, kind, shard }
    }

    /// The other name a replica may have: that of a copy that replaces it. It counts once it is sealed, and the chunk of
    /// the first name does not any more.
    #[must_use]
    pub fn copy_id(&self, segment: SegmentId, kind: SegmentKind, shard: u8) -> ChunkId {
        self.chunk_id(segment, kind, shard + SHARDS_MAX as u8)
    }

    /// The name under which the store of `shard` has its replica, if it has one.
    #[must_use]
    pub fn find(&self, segment: SegmentId, kind: SegmentKind, shard: u8) -> ChunkId {
        let copy = self.copy_id(segment, kind, shard);
        let is_copied = self.store(shard).stat(copy).is_some_and(|stat| stat.sealed.is_some());
        if is_copied { copy } else { self.chunk_id(segment, kind, shard) }
    }

    /// Makes a segment with a chunk on each store of `shards`, durably. It is known from then on.
    ///
    /// # Errors
    /// The first store that fails; chunks made on the others are deleted in passing, or left to the next recovery.
    pub async fn create(
        &self,
        kind: SegmentKind,
        epoch: Epoch,
        shards: ShardSet,
    ) -> Result<(SegmentId, Replicas<C::Chunk>), ShardError> {
        self.create_until(std::future::pending(), kind, epoch, shards).await
    }

    /// As [`Self::create`], from the stores' reserve as well whatever the kind: for a log that is recovered when nothing
    /// else is left.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_reserved(
        &self,
        kind: SegmentKind,
        epoch: Epoch,
        shards: ShardSet,
    ) -> Result<(SegmentId, Replicas<C::Chunk>), ShardError> {
        self.create_with(std::future::pending(), true, kind, epoch, shards).await
    }

    /// As [`Self::create`]; when `over` has ended, a store that has not answered while another has is taken for failed.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_until(
        &self,
        over: impl Future<Output = ()>,
        kind: SegmentKind,
        epoch: Epoch,
        shards: ShardSet,
    ) -> Result<(SegmentId, Replicas<C::Chunk>), ShardError> {
        // Checkpoints and compaction make space, and must always be able to.
        self.create_with(over, kind != SegmentKind::Log, kind, epoch, shards).await
    }

    /// Makes a segment on as many stores of `shards` as there are devices for, one at least: a device that fails is no
    /// reason to stop, one that is full is.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_some(
        &self,
        reserved: bool,
        kind: SegmentKind,
        epoch: Epoch,
        shards: ShardSet,
    ) -> Result<(SegmentId, Replicas<C::Chunk>), ShardError> {
        let placeable = self.placeable(ShardSet::EMPTY).and(shards);
        let mut left = if placeable.is_empty() { shards } else { placeable };
        loop {
            match self.create_with(self.patience(), reserved, kind, epoch, left).await {
                Err(failed) if failed.error.is_of_device() && left.len() > 1 => {
                    left = left.without(ShardSet::of(failed.shard));
                }
                made => return made,
            }
        }
    }

    async fn create_with(
        &self,
        over: impl Future<Output = ()>,
        reserved: bool,
        kind: SegmentKind,
        epoch: Epoch,
        shards: ShardSet,
    ) -> Result<(SegmentId, Replicas<C::Chunk>), ShardError> {
        let (mut over, mut is_over) = (pin!(over), false);
        let mut last = None;
        for _ in 0..TRIES {
            let segment = self.take_number();
            let over = std::future::poll_fn(|cx| {
                is_over = is_over || over.as_mut().poll(cx).is_ready();
                if is_over { Poll::Ready(()) } else { Poll::Pending }
            });
            match self.create_as(over, reserved, segment, kind, epoch, shards).await {
                Err(exists @ ShardError { error: StoreError::Exists, .. }) => last = Some(exists),
                Err(error) => return Err(error),
                Ok(replicas) => {
                    self.insert(segment, kind, replicas.clone());
                    return Ok((segment, replicas));
                }
            }
        }
        Err(last.expect("every try found the number taken"))
    }

    async fn create_as(
        &self,
        over: impl Future<Output = ()>,
        reserved: bool,
        segment: SegmentId,
        kind: SegmentKind,
        epoch: Epoch,
        shards: ShardSet,
    ) -> Result<Replicas<C::Chunk>, ShardError> {
        let create = |shard: u8| {
            let (store, id) = (self.store(shard), self.chunk_id(segment, kind, shard));
            async move {
                if reserved { store.create_reserved(id, epoch).await } else { store.create(id, epoch).await }
            }
        };
        let mut replicas = Replicas::new();
        let mut failed = None;
        for (shard, made) in shards.iter().zip(join_until(over, shards.iter().map(create)).await) {
            match made.unwrap_or_else(|| Err(no_answer())) {
                Ok(chunk) => replicas.push(Replica { shard, chunk }),
                Err(error) => {
                    failed.get_or_insert(ShardError { shard, error });
                }
            }
        }
        let Some(failed) = failed else { return Ok(replicas) };
        let delete = |replica: &Replica<C::Chunk>| {
            self.store(replica.shard).delete(self.chunk_id(segment, kind, replica.shard), epoch)
        };
        // What cannot be deleted is found by the next recovery: nothing refers to it.
        drop(join(replicas.iter().map(delete)).await);
        Err(failed)
    }

    /// The store of `shard`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn store(&self, shard: u8) -> &C {
        &self.inner.stores[usize::from(shard)]
    }

    /// Takes note of a segment that was found.
    pub fn insert(&self, segment: SegmentId, kind: SegmentKind, replicas: Replicas<C::Chunk>) {
        self.skip_to(segment.0);
        self.inner.known.borrow_mut().insert(segment, Known { kind, replicas });
    }

    /// Opens the replicas of a segment in `shards` that are there, and takes note of them. The number of replicas.
    pub fn open(&self, segment: SegmentId, kind: SegmentKind, shards: ShardSet) -> usize {
        let mut replicas = Replicas::new();
        for shard in shards.iter() {
            if let Some(chunk) = self.store(shard).open(self.find(segment, kind, shard)) {
                replicas.push(Replica { shard, chunk });
            }
        }
        let count = replicas.len();
        self.insert(segment, kind, replicas);
        count
    }

    /// Whether the segment is known.
    #[must_use]
    pub fn contains(&self, segment: SegmentId) -> bool {
        self.inner.known.borrow().contains_key(&segment)
    }

    /// The stores that have a replica of the segment.
    #[must_use]
    pub fn shards(&self, segment: SegmentId) -> ShardSet {
        let known = self.inner.known.borrow();
        known
            .get(&segment)
            .map_or(ShardSet::EMPTY, |known| known.replicas.iter().map(|replica| replica.shard).collect())
    }

    /// The replicas of the segment; none where it is not known.
    #[must_use]
    pub fn replicas(&self, segment: SegmentId) -> Replicas<C::Chunk> {
        self.inner.known.borrow().get(&segment).map(|known| known.replicas.clone()).unwrap_or_default()
    }

    /// From now on knows of no replica of the segment on these stores.
    pub fn leave(&self, segment: SegmentId, without: ShardSet) {
        if let Some(known) = self.inner.known.borrow_mut().get_mut(&segment) {
            known.replicas.retain(|replica| !without.contains(replica.shard));
        }
    }

    /// What the stores say of the chunks of this lane, with the store's number.
    pub fn list(&self) -> Vec<(u8, ChunkStat)> {
        let lane = self.inner.lane;
        let mut all = Vec::new();
        for (shard, store) in self.inner.stores.iter().enumerate() {
            let chunks = store.list(Some(lane.group)).into_iter().filter(|stat| stat.id.lane == lane);
            all.extend(chunks.map(|stat| (shard as u8, stat)));
        }
        all
    }

    /// Fills `buf` from byte `offset` of the segment, from any replica that can be read; with other memory where one could
    /// not.
    ///
    /// # Errors
    /// What the last replica's store said; [`StoreError::NotFound`] where there is none.
    pub async fn read(&self, segment: SegmentId, offset: u32, buf: BufMut) -> Result<BufMut, StoreError> {
        let len = buf.len();
        let mut read = self.read_from(segment, 0, offset, buf).await;
        for nth in 1..self.shards(segment).len() {
            if read.is_ok() {
                break;
            }
            let again = BufPool::on_heap(PoolPlan { limits: [1; 5] }).alloc(len).await;
            read = self.read_from(segment, nth, offset, again).await;
        }
        read
    }

    /// Fills `buf` from byte `offset` of one of the segment's replicas: the one to be tried after `nth` others failed or
    /// gave bytes without their checksum. Beyond the last one it begins anew.
    ///
    /// [`StoreError::NotFound`] where there is none.
    pub fn read_from(
        &self,
        segment: SegmentId,
        nth: usize,
        offset: u32,
        buf: BufMut,
    ) -> impl Future<Output = Result<BufMut, StoreError>> + use<C> {
        let known = self.inner.known.borrow();
        let replica = known.get(&segment).and_then(|known| known.nth(nth)).cloned();
        async move {
            match replica {
                Some(replica) => replica.chunk.read(offset, buf).await,
                None => Err(StoreError::NotFound),
            }
        }
    }

    /// Which store [`Self::read_from`] reads from.
    #[must_use]
    pub fn shard_of(&self, segment: SegmentId, nth: usize) -> Option<u8> {
        let known = self.inner.known.borrow();
        known.get(&segment).and_then(|known| known.nth(nth)).map(|replica| replica.shard)
    }

    /// The stores with replicas of a segment, in the order in which they are read.
    #[must_use]
    pub fn shards_in_order(&self, segment: SegmentId) -> SmallVec<[u8; SHARDS_MAX]> {
        (0..self.shards(segment).len()).filter_map(|nth| self.shard_of(segment, nth)).collect()
    }

    /// Fills `buf` from byte `offset` of the segment's replica on the store of `shard`.
    ///
    /// [`StoreError::NotFound`] where there is none.
    pub fn read_shard(
        &self,
        segment: SegmentId,
        shard: u8,
        offset: u32,
        buf: BufMut,
    ) -> impl Future<Output = Result<BufMut, StoreError>> + use<C> {
        let replica = self.replicas(segment).into_iter().find(|replica| replica.shard == shard);
        async move {
            match replica {
                Some(replica) => replica.chunk.read(offset, buf).await,
                None => Err(StoreError::NotFound),
            }
        }
    }

    /// Takes `replica` for the one on its store from now on.
    pub fn replace(&self, segment: SegmentId, replica: Replica<C::Chunk>) {
        if let Some(known) = self.inner.known.borrow_mut().get_mut(&segment) {
            known.replicas.retain(|other| other.shard != replica.shard);
            known.replicas.push(replica);
            known.replicas.sort_by_key(|replica| replica.shard);
        }
    }

    /// Whether chunk `id` is what is known as a replica of its segment.
    #[must_use]
    pub fn is_replica(&self, shard: u8, id: ChunkId) -> bool {
        self.shards(id.segment).contains(shard) && self.find(id.segment, id.kind, shard) == id
    }

    /// Deletes the replicas of a segment and forgets it. Reads that follow find nothing. Ready when durable.
    ///
    /// # Errors
    /// The first store that fails; what it holds is then found again by the next recovery.
    pub async fn delete(&self, segment: SegmentId, epoch: Epoch) -> Result<(), ShardError> {
        let Some(known) = self.inner.known.borrow_mut().remove(&segment) else { return Ok(()) };
        // Of a lane with several replicas a store may have one that does not count any more.
        let shards: Vec<u8> = match self.is_replicated() {
            true => self.all().iter().collect(),
            false => known.replicas.iter().map(|replica| replica.shard).collect(),
        };
        let names: Vec<(u8, ChunkId)> = shards
            .into_iter()
            .flat_map(|shard| {
                let (first, copy) =
                    (self.chunk_id(segment, known.kind, shard), self.copy_id(segment, known.kind, shard));
                [(shard, first), (shard, copy)]
            })
            .filter(|(shard, id)| !self.is_replicated() || self.store(*shard).stat(*id).is_some())
            .collect();
        let gone = names.iter().map(|(shard, id)| self.store(*shard).delete(*id, epoch));
        let mut result = Ok(());
        for ((shard, _), gone) in names.iter().zip(join_until(self.patience(), gone).await) {
            match gone.unwrap_or_else(|| Err(no_answer())) {
                Ok(()) | Err(StoreError::NotFound) => {}
                // What is left on it is found when it comes back.
                Err(error) if self.is_replicated() && error.is_of_device() => {}
                Err(error) => result = result.and(Err(ShardError { shard: *shard, error })),
            }
        }
        result
    }
}

/// What is said of a store that does not answer in time.
pub(crate) fn no_answer() -> StoreError {
    StoreError::Disk(DiskError::Medium("no answer in time".into()))
}

/// Runs a few futures together; their outputs in their order.
pub(crate) async fn join<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let all = join_until(std::future::pending(), futures).await;
    all.into_iter().map(|output| output.expect("they are waited for")).collect()
}

/// Runs a few futures together until `over` ends, and further until one of them has; their outputs in their order, `None`
/// for those that have not ended.
pub(crate) async fn join_until<F: Future>(
    over: impl Future<Output = ()>,
    futures: impl IntoIterator<Item = F>,
) -> Vec<Option<F::Output>> {
    let mut over = pin!(over);
    let mut is_over = false;
    let futures: Vec<F> = futures.into_iter().collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    let mut slots = Slots::new(futures.len());
    let mut ids = Vec::with_capacity(futures.len());
    for future in futures {
        ids.push(slots.insert(future).ok().expect("there is a slot for each"));
    }
    std::future::poll_fn(|cx| {
        loop {
            match slots.poll_next(cx) {
                Poll::Ready(Some((id, output))) => {
                    let at = ids.iter().position(|&other| other == id).expect("it was put in");
                    outputs[at] = Some(output);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        is_over = is_over || over.as_mut().poll(cx).is_ready();
        if is_over && outputs.iter().any(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs
}
