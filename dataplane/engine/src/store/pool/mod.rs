//! Several chunk stores of one node as one.
//!
//! A new chunk goes to the store with most free space of those that have no other shard of the same segment; where there
//! is none, it is refused. Reads and appends go straight to the store that has the chunk: a handle knows it. Fences are raised
//! on every store, so it does not matter which one a writer's chunks are on; a store that comes to the pool takes over
//! the pool's fences, and the pool its, before it gets a chunk.
//!
//! A store is *drained* before its device is removed ([`Pool::drain`]): it gets no new chunks, and sealed chunks move to
//! other stores, while they are read. Open chunks stay: their writer sees to it that they are sealed or deleted.

mod copies;
mod drain;
mod error;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::rc::Rc;

use ashlar_env::buf::{Buf, BufMut, BufPool, PoolPlan};
use ashlar_env::{Disk, Spawn};
use smallvec::SmallVec;
use uuid::Uuid;

use super::carry::{Carried, Carrier};
use super::format::FenceEntry;
use super::table::first_of;
use super::wait::Waiters;
use super::{ChunkStore, LocalChunk};
use crate::chunks::{Chunk, ChunkStat, Chunks, Seal, StoreError, StoreInfo};
use crate::ids::{ChunkId, Epoch, GroupId};
use crate::segment::SHARDS_MAX;
pub use copies::CopyStore;
pub use drain::{Drained, Progress};
pub use error::PoolError;

/// A pool of chunk stores. Cloning gives the same pool.
pub struct Pool<E, D> {
    inner: Rc<Inner<E, D>>,
}

impl<E, D> Clone for Pool<E, D> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

struct Inner<E, D> {
    id: Uuid,
    members: RefCell<Vec<Rc<Member<E, D>>>>,
    places: RefCell<BTreeMap<ChunkId, Rc<Place<E, D>>>>,
    /// Chunks whose names others on other stores have, which are used.
    shadowed: RefCell<Vec<(Uuid, ChunkId)>>,
    carrier: Rc<Carrier>,
    /// A chunk has come to rest.
    rested: Waiters,
    /// Memory for copies: one piece at a time.
    scratch: BufPool,
}

/// A store of the pool.
struct Member<E, D> {
    store: ChunkStore<E, D>,
    /// It gets no new chunks.
    closed: Cell<bool>,
}

/// Where a chunk is wanted, if it can be.
#[derive(Clone, Default)]
struct Wish {
    /// There rather than elsewhere.
    on: Option<Uuid>,
    /// There only if nowhere else.
    off: SmallVec<[Uuid; 4]>,
}

/// How well a store suits a chunk: it is where it is wanted, it is not where it is not, and free slots.
type Rank = (bool, bool, u32);

/// Where a chunk is.
struct Place<E, D> {
    id: ChunkId,
    /// `None` until the chunk is there.
    chunk: RefCell<Option<LocalChunk<E, D>>>,
    /// The device that it is on; nil until it is there.
    device: Cell<Uuid>,
    /// The device that it is being created on.
    coming: Cell<Option<Uuid>>,
    /// It is being moved or deleted.
    busy: Cell<bool>,
}

impl<E, D> Place<E, D> {
    fn new(id: ChunkId, chunk: Option<LocalChunk<E, D>>, device: Uuid) -> Self {
        let (coming, busy) = (Cell::new(None), Cell::new(false));
        Self { id, chunk: RefCell::new(chunk), device: Cell::new(device), coming, busy }
    }

    fn chunk(&self) -> Option<LocalChunk<E, D>> {
        self.chunk.borrow().clone()
    }
}

/// What became of a store that was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Chunks that the pool has on another store already, and that were deleted here: a drain had been interrupted.
    pub deleted: Vec<ChunkId>,
    /// Chunks that the pool has on another store, and that differ. They were left alone; the pool uses the other ones.
    pub differing: Vec<ChunkId>,
}

/// A handle of a chunk of a pool. It stays good when the chunk moves to another store.
pub struct PoolChunk<E, D> {
    place: Rc<Place<E, D>>,
}

impl<E, D> Clone for PoolChunk<E, D> {
    fn clone(&self) -> Self {
        Self { place: Rc::clone(&self.place) }
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> PoolChunk<E, D> {
    /// The device that has the chunk now.
    #[must_use]
    pub fn device(&self) -> Uuid {
        self.place.device.get()
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> Chunk for PoolChunk<E, D> {
    fn append(
        &self,
        epoch: Epoch,
        offset: u32,
        data: &[Buf],
    ) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let begun = self.place.chunk().map(|chunk| chunk.append_now(epoch, offset, data));
        async move { begun.ok_or(StoreError::NotFound)?.await }
    }

    fn read(&self, offset: u32, buf: BufMut) -> impl Future<Output = Result<BufMut, StoreError>> + 'static {
        let place = Rc::clone(&self.place);
        async move {
            // A chunk that moves waits for the readers that have begun; so this finds it where it is.
            let chunk = place.chunk().ok_or(StoreError::NotFound)?;
            chunk.read(offset, buf).await
        }
    }

    fn is_failing(&self) -> bool {
        self.place.chunk.borrow().as_ref().is_none_or(Chunk::is_failing)
    }

    fn seal(&self, epoch: Epoch, seal: Seal) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let begun = self.place.chunk().map(|chunk| chunk.begin_seal(epoch, seal));
        async move { begun.ok_or(StoreError::NotFound)?.await }
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> Pool<E, D> {
    /// A pool without stores.
    #[must_use]
    pub fn new(env: &E, id: Uuid) -> Self {
        let inner = Inner {
            id,
            members: RefCell::default(),
            places: RefCell::default(),
            shadowed: RefCell::default(),
            carrier: Carrier::start(env),
            rested: Waiters::default(),
            scratch: BufPool::on_heap(PoolPlan { limits: [1, 0, 0, 1, 0] }),
        };
        Self { inner: Rc::new(inner) }
    }

    /// The stores, in the order in which they were added.
    #[must_use]
    pub fn stores(&self) -> Vec<ChunkStore<E, D>> {
        self.inner.members.borrow().iter().map(|member| member.store.clone()).collect()
    }

    /// How many devices get new chunks, whether or not they have space.
    #[must_use]
    pub fn devices_that_take(&self) -> usize {
        let members = self.inner.members.borrow();
        members.iter().filter(|member| !member.closed.get() && !member.store.info().failed).count()
    }

    /// Lets a store get no new chunks from now on; what is on it stays.
    ///
    /// # Errors
    /// [`PoolError::Unknown`]
    pub fn close(&self, device: Uuid) -> Result<(), PoolError> {
        self.inner.member(device)?.closed.set(true);
        Ok(())
    }

    /// Takes a store into the pool, with its chunks.
    ///
    /// # Errors
    /// [`PoolError`]; the pool is then as it was.
    pub async fn add(&self, store: ChunkStore<E, D>) -> Result<Added, PoolError> {
        let info = store.info();
        self.inner.fits(&info)?;
        let member = Rc::new(Member { store, closed: Cell::new(true) });
        // From now on it gets every fence that is raised; no chunk yet.
        self.inner.members.borrow_mut().push(Rc::clone(&member));
        if let Err(error) = self.share_fences().await {
            self.inner.members.borrow_mut().retain(|other| !Rc::ptr_eq(other, &member));
            return Err(PoolError::Fences { device: info.device, error });
        }
        let mut added = Added::default();
        for stat in member.store.list(None) {
            self.inner.take_in(&member, stat, &mut added);
        }
        for &id in &added.deleted {
            // If that fails the store has, and it is found again when it is added the next time.
            let _ = member.store.give_up(id).await;
        }
        member.closed.set(false);
        Ok(added)
    }

    /// Makes all stores that can be written refuse what any of them refuses.
    async fn share_fences(&self) -> Result<(), StoreError> {
        let stores = self.stores();
        let mut highest: BTreeMap<GroupId, Epoch> = BTreeMap::new();
        for FenceEntry { group, epoch } in stores.iter().flat_map(ChunkStore::fences) {
            let fence = highest.entry(group).or_insert(epoch);
            *fence = epoch.max(*fence);
        }
        for (group, epoch) in highest {
            for store in stores.iter().filter(|store| store.fence_of(group) < epoch) {
                match store.begin_fence(group, epoch).await {
                    // Somebody has raised it further meanwhile.
                    Ok(()) | Err(StoreError::Fenced { .. }) => {}
                    Err(StoreError::Disk(_)) if store.info().failed => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Deletes what is left of `group` under names that complete chunks on other stores have: for a group that was opened
    /// with those.
    pub async fn delete_shadowed(&self, group: GroupId) {
        let all = std::mem::take(&mut *self.inner.shadowed.borrow_mut());
        for (device, id) in all {
            let is_complete = self.stat(id).is_some_and(|stat| stat.sealed.is_some());
            if id.lane.group != group || !is_complete {
                self.inner.shadowed.borrow_mut().push((device, id));
            } else if let Ok(member) = self.inner.member(device) {
                // If that fails the store has: it is found again when it is added the next time.
                let _ = member.store.give_up(id).await;
            }
        }
    }

    /// Takes a store out of the pool. Without `force` it must be empty; with it, the pool forgets the chunks on it:
    /// those are the result.
    ///
    /// # Errors
    /// [`PoolError`]; the pool is then as it was.
    pub fn remove(&self, device: Uuid, force: bool) -> Result<Vec<ChunkId>, PoolError> {
        let inner = &self.inner;
        inner.member(device)?;
        let left = inner.on(device);
        if !force && !left.is_empty() {
            return Err(PoolError::NotEmpty { device, chunks: left.len() });
        }
        inner.members.borrow_mut().retain(|member| member.store.device() != device);
        let mut places = inner.places.borrow_mut();
        let gone: Vec<_> = left.iter().filter_map(|place| places.remove(&place.id)).collect();
        drop(places);
        for place in gone {
            place.chunk.take();
        }
        Ok(left.iter().map(|place| place.id).collect())
    }

    fn begin_create(
        &self,
        id: ChunkId,
        epoch: Epoch,
        from_reserve: bool,
        wish: Wish,
    ) -> Carried<Result<PoolChunk<E, D>, StoreError>> {
        let place = self.inner.claim(id);
        let inner = Rc::clone(&self.inner);
        self.inner.carrier.run(async move {
            let place = place?;
            match inner.create(&place, epoch, from_reserve, &wish).await {
                Ok(chunk) => {
                    place.device.set(chunk.store().device());
                    *place.chunk.borrow_mut() = Some(chunk);
                    place.coming.set(None);
                    Ok(PoolChunk { place })
                }
                Err(error) => {
                    inner.places.borrow_mut().remove(&id);
                    Err(error)
                }
            }
        })
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> Inner<E, D> {
    /// Whether a store can be one of the pool's.
    fn fits(&self, new: &StoreInfo) -> Result<(), PoolError> {
        let members = self.members.borrow();
        for member in members.iter() {
            let old = member.store.info();
            if old.device == new.device {
                return Err(PoolError::Present { device: new.device });
            }
            if old.chunk_bytes != new.chunk_bytes {
                let (device, pool) = (new.device, old.chunk_bytes);
                return Err(PoolError::ChunkSize { device, chunk_bytes: new.chunk_bytes, pool });
            }
        }
        let align = members.iter().map(|member| member.store.info().align_bytes).max();
        match align {
            Some(pool) if new.align_bytes > pool => {
                Err(PoolError::Alignment { device: new.device, align_bytes: new.align_bytes, pool })
            }
            _ => Ok(()),
        }
    }

    fn member(&self, device: Uuid) -> Result<Rc<Member<E, D>>, PoolError> {
        let members = self.members.borrow();
        let found = members.iter().find(|member| member.store.device() == device);
        found.map(Rc::clone).ok_or(PoolError::Unknown { device })
    }

    /// The chunks on a device, or on their way to it.
    fn on(&self, device: Uuid) -> Vec<Rc<Place<E, D>>> {
        let places = self.places.borrow();
        let is_on =
            |place: &&Rc<Place<E, D>>| place.device.get() == device || place.coming.get() == Some(device);
        places.values().filter(is_on).map(Rc::clone).collect()
    }

    /// Enters a chunk of a store that is being added. Of two equal ones the one on a store that works is kept, else the
    /// one that was here first; a sealed one is better than an open one, which is what a failed writer left.
    fn take_in(&self, member: &Rc<Member<E, D>>, stat: ChunkStat, added: &mut Added) {
        let Some(chunk) = member.store.open(stat.id) else { return };
        let mut places = self.places.borrow_mut();
        let device = member.store.device();
        let Some(place) = places.get(&stat.id) else {
            places.insert(stat.id, Rc::new(Place::new(stat.id, Some(chunk), device)));
            return;
        };
        let other = place.chunk();
        let other_failed = self.member(place.device.get()).is_ok_and(|member| member.store.info().failed);
        let is_equal = stat.sealed.is_some() && other.as_ref().is_some_and(|other| other.stat() == stat);
        let is_better = stat.sealed.is_some() && other.is_some_and(|other| other.stat().sealed.is_none());
        if !is_equal {
            let unused = if is_better { place.device.get() } else { device };
            self.shadowed.borrow_mut().push((unused, stat.id));
        }
        if (is_equal && other_failed && !member.store.info().failed) || is_better {
            *place.chunk.borrow_mut() = Some(chunk);
            place.device.set(device);
        }
        if is_equal && !other_failed {
            added.deleted.push(stat.id);
        } else if !is_equal {
            added.differing.push(stat.id);
        }
    }

    /// Takes the name of a new chunk.
    fn claim(&self, id: ChunkId) -> Result<Rc<Place<E, D>>, StoreError> {
        let mut places = self.places.borrow_mut();
        if places.contains_key(&id) {
            return Err(StoreError::Exists);
        }
        let place = Rc::new(Place::new(id, None, Uuid::nil()));
        places.insert(id, Rc::clone(&place));
        Ok(place)
    }

    /// Creates the chunk on the best store that takes it.
    async fn create(
        &self,
        place: &Place<E, D>,
        epoch: Epoch,
        from_reserve: bool,
        wish: &Wish,
    ) -> Result<LocalChunk<E, D>, StoreError> {
        let begin = |store: ChunkStore<E, D>| store.begin_create(place.id, epoch, from_reserve);
        self.try_stores(place, None, from_reserve, wish, begin).await
    }

    /// Tries stores, the best first, until one takes the chunk, or refuses it for a reason that is the same everywhere.
    async fn try_stores<F>(
        &self,
        place: &Place<E, D>,
        except: Option<Uuid>,
        from_reserve: bool,
        wish: &Wish,
        begin: impl Fn(ChunkStore<E, D>) -> F,
    ) -> Result<LocalChunk<E, D>, StoreError>
    where
        F: Future<Output = Result<LocalChunk<E, D>, StoreError>>,
    {
        let mut tried: Vec<Uuid> = except.into_iter().collect();
        let mut last = if self.is_alone(place.id, &tried) { StoreError::NoDevice } else { StoreError::Full };
        loop {
            let Some(store) = self.best(place.id, &tried, from_reserve, wish) else { break };
            tried.push(store.device());
            // Siblings made at the same time see where this one goes.
            place.coming.set(Some(store.device()));
            match retry(begin(store).await) {
                ControlFlow::Break(Ok(chunk)) => return Ok(chunk),
                ControlFlow::Break(Err(error)) => {
                    last = error;
                    break;
                }
                ControlFlow::Continue(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether every store that takes chunks has another shard of the segment.
    fn is_alone(&self, id: ChunkId, except: &[Uuid]) -> bool {
        let siblings = self.siblings(id);
        let takes = |member: &&Rc<Member<E, D>>| {
            let device = member.store.device();
            let open = !member.closed.get() && !member.store.info().failed;
            open && !siblings.contains(&device) && !except.contains(&device)
        };
        !siblings.is_empty() && !self.members.borrow().iter().any(|member| takes(&member))
    }

    /// The store for a chunk: of those without a sibling the one with most space.
    fn best(&self, id: ChunkId, tried: &[Uuid], from_reserve: bool, wish: &Wish) -> Option<ChunkStore<E, D>> {
        let free = |store: &ChunkStore<E, D>| {
            if from_reserve { store.free_with_reserve() } else { store.info().free }
        };
        let siblings = self.siblings(id);
        let mut best: Option<(Rank, ChunkStore<E, D>)> = None;
        for member in self.members.borrow().iter() {
            let store = &member.store;
            let space = free(store);
            let device = store.device();
            let taken = tried.contains(&device) || siblings.contains(&device);
            if member.closed.get() || store.info().failed || space == 0 || taken {
                continue;
            }
            let rank = (wish.on == Some(device), !wish.off.contains(&device), space);
            if best.as_ref().is_none_or(|(highest, _)| rank > *highest) {
                best = Some((rank, store.clone()));
            }
        }
        best.map(|(_, store)| store)
    }

    /// The devices that have other shards of the segment. The two names that one replica may have are of one shard.
    fn siblings(&self, id: ChunkId) -> Vec<Uuid> {
        let places = self.places.borrow();
        let shards = ChunkId { shard: 0, ..id }..=ChunkId { shard: u8::MAX, ..id };
        let own = id.shard % SHARDS_MAX as u8;
        let others = places.range(shards).filter(|(other, _)| other.shard % SHARDS_MAX as u8 != own);
        others.flat_map(|(_, place)| [Some(place.device.get()), place.coming.get()]).flatten().collect()
    }

    async fn delete(&self, place: &Rc<Place<E, D>>, epoch: Epoch) -> Result<(), StoreError> {
        self.rested.until(&self.carrier, || !place.busy.replace(true)).await;
        let outcome = match place.chunk() {
            Some(chunk) => chunk.store().begin_delete(place.id, epoch).await,
            None => Err(StoreError::NotFound),
        };
        if outcome.is_ok() {
            place.chunk.take();
            let mut places = self.places.borrow_mut();
            if places.get(&place.id).is_some_and(|present| Rc::ptr_eq(present, place)) {
                places.remove(&place.id);
            }
        }
        place.busy.set(false);
        self.rested.wake();
        outcome
    }

    /// Raises a fence on every store that takes writes.
    async fn fence(&self, group: GroupId, epoch: Epoch) -> Result<(), StoreError> {
        let stores: Vec<_> = self.members.borrow().iter().map(|member| member.store.clone()).collect();
        // Begun everywhere before the first is waited for.
        let begun: Vec<_> = stores.iter().map(|store| store.begin_fence(group, epoch)).collect();
        let mut raised = 0;
        let mut refused = Ok(());
        for (fence, store) in begun.into_iter().zip(&stores) {
            match fence.await {
                Ok(()) => raised += 1,
                // It takes no appends either; when it comes back it takes over the pool's fences.
                Err(error @ StoreError::Disk(_)) if store.info().failed => refused = refused.and(Err(error)),
                Err(error) => return Err(error),
            }
        }
        if raised > 0 { Ok(()) } else { refused.and(Err(StoreError::Full)) }
    }

    fn stat(place: &Place<E, D>) -> Option<ChunkStat> {
        place.chunk().filter(LocalChunk::is_there).map(|chunk| chunk.stat())
    }
}

/// Whether another store may take what this one has not.
fn retry<T>(outcome: Result<T, StoreError>) -> ControlFlow<Result<T, StoreError>, StoreError> {
    match outcome {
        Err(error @ (StoreError::Full | StoreError::Disk(_))) => ControlFlow::Continue(error),
        decided => ControlFlow::Break(decided),
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> Chunks for Pool<E, D> {
    type Chunk = PoolChunk<E, D>;

    /// The sum of the stores. `failed` where all are, `free` of those that get new chunks, `device` the pool's id.
    fn info(&self) -> StoreInfo {
        let members = self.inner.members.borrow();
        let infos = || members.iter().map(|member| (member.store.info(), member.closed.get()));
        let open = infos().filter(|(info, closed)| !closed && !info.failed);
        StoreInfo {
            device: self.inner.id,
            chunk_bytes: infos().map(|(info, _)| info.chunk_bytes).min().unwrap_or(0),
            align_bytes: infos().map(|(info, _)| info.align_bytes).max().unwrap_or(0),
            slots: infos().map(|(info, _)| info.slots).sum(),
            free: open.map(|(info, _)| info.free).sum(),
            failed: infos().all(|(info, _)| info.failed),
        }
    }

    fn create(
        &self,
        id: ChunkId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<PoolChunk<E, D>, StoreError>> + 'static {
        self.begin_create(id, epoch, false, Wish::default())
    }

    fn create_reserved(
        &self,
        id: ChunkId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<PoolChunk<E, D>, StoreError>> + 'static {
        self.begin_create(id, epoch, true, Wish::default())
    }

    fn open(&self, id: ChunkId) -> Option<PoolChunk<E, D>> {
        let places = self.inner.places.borrow();
        let place = places.get(&id).filter(|place| Inner::stat(place).is_some())?;
        Some(PoolChunk { place: Rc::clone(place) })
    }

    fn stat(&self, id: ChunkId) -> Option<ChunkStat> {
        self.inner.places.borrow().get(&id).and_then(|place| Inner::stat(place))
    }

    fn list(&self, group: Option<GroupId>) -> Vec<ChunkStat> {
        let places = self.inner.places.borrow();
        let from = places.range(first_of(group.unwrap_or(GroupId(0)))..);
        let of = from.take_while(|(id, _)| group.is_none_or(|group| id.lane.group == group));
        of.filter_map(|(_, place)| Inner::stat(place)).collect()
    }

    fn delete(&self, id: ChunkId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let place = self.inner.places.borrow().get(&id).map(Rc::clone);
        let inner = Rc::clone(&self.inner);
        self.inner.carrier.run(async move { inner.delete(&place.ok_or(StoreError::NotFound)?, epoch).await })
    }

    fn fence(&self, group: GroupId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let inner = Rc::clone(&self.inner);
        self.inner.carrier.run(async move { inner.fence(group, epoch).await })
    }
}
