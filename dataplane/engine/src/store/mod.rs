//! The chunk store of one device, and several as one ([`pool`]).
//!
//! All that a storage node keeps. It knows chunks, not volumes. The layout of the device is in [`format`](mod@format);
//! besides fences and slot headers there is no metadata and no journal: the table of slots is rebuilt from the headers
//! when the store is opened.
//!
//! **What holds at any time**
//!
//! * A slot is free, or one chunk's. What the newest valid header copy says is so.
//! * What [`Chunks::create`], [`append`](crate::chunks::Chunk::append), [`seal`](crate::chunks::Chunk::seal),
//!   [`Chunks::delete`] and [`Chunks::fence`] have acknowledged is durable: written with forced unit access where the
//!   device has a volatile cache.
//! * A granule that holds data is not written again while the chunk lives: appends begin at the end, in whole granules.
//! * Nobody writes to a slot or reads from it under the name of a chunk that has been deleted: to delete waits for
//!   appends and reads that are in flight, and ends the handles. So a task that awaits a deletion must not keep a read
//!   of the same chunk that it does not poll; it may drop it.
//! * What was begun ends, also when its future is dropped, or kept and not polled while somebody else depends on it
//!   (reads excepted).
//! * When [`Chunks::fence`] has ended, no append of an older writer is in flight, and none is accepted.
//! * The first failed write or flush latches the store: whatever changes it is refused from then on, reads go on.
//!
//! **Crashes**, at any point of
//!
//! * *create*: the slot is still free, or the chunk is there, open and empty. Whoever recovers deletes it or seals it.
//! * *append*: any sectors of the piece may be there. An acknowledged append is there.
//! * *seal*: the chunk is open or sealed.
//! * *delete*: the chunk is there as it was, or the slot is free.
//! * *fence*: the old fence holds, or the new one.
//! * *a copy* (when another device is drained): the slot is free. Copies that were not completed are not chunks.
//!
//! A chunk found open when the store is opened is not appended to any more: nobody knows where it ends before it is
//! read. Recovery reads it and seals it.
//!
//! **Lost slots.** If both header copies of a slot are unreadable, what the slot holds is unknown. It is not a chunk of
//! the store any more, is reported by [`ChunkStore::lost`], and is not handed out again until somebody who knows that
//! its data are elsewhere or gone calls [`ChunkStore::reclaim`]. The same is so for the second of two slots that claim
//! one name. Both copies of a fence page being unreadable is worse, since an old writer might be let in: the store is
//! then opened as failed, for reading.
//!
//! **Free slots** are handed out lowest first, after their data were discarded, where the device can do that: one
//! discard at a time, in the background. [`StoreInfo::free`] counts them from the moment the deletion is durable.

mod carry;
mod chunk;
mod device;
mod error;
mod fences;
pub mod format;
mod open;
pub mod pool;
mod prepare;
mod table;
mod trim;
mod wait;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use ashlar_env::{Disk, Spawn};
use uuid::Uuid;

use self::format::{Content, FenceEntry, Label, SlotHeader, Superblock};
use crate::chunks::{ChunkStat, Chunks, StoreError, StoreInfo};
use crate::ids::{ChunkId, Epoch, GroupId};
use carry::{Carried, Carrier};
pub use chunk::LocalChunk;
use chunk::{Held, State};
use device::{Device, Side};
pub use error::{FormatError, OpenError};
use fences::Fences;
pub use open::{OpenOptions, OpenReport};
pub use pool::Pool;
pub use prepare::FormatOptions;
use table::{Table, Taken};
use wait::Waiters;

/// A chunk store on a disk. Cloning gives the same store.
pub struct ChunkStore<E, D> {
    inner: Rc<Inner<E, D>>,
}

impl<E, D> Clone for ChunkStore<E, D> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

pub(crate) struct Inner<E, D> {
    env: E,
    device: Device<D>,
    superblock: Superblock,
    report: OpenReport,
    /// Slots that only [`Chunks::create_reserved`] may take.
    reserve_slots: Cell<u32>,
    /// The sequence of the header written last.
    sequence: Cell<u64>,
    table: RefCell<Table>,
    fences: Fences,
    carrier: Rc<Carrier>,
    /// A slot became free, or a creation ended.
    released: Waiters,
}

impl<E, D: Disk> Inner<E, D> {
    /// Writes both headers of a slot durably.
    async fn write_header(&self, slot: u32, content: Content) -> Result<(), StoreError> {
        let mut page = self.device.page().await;
        self.sequence.set(self.sequence.get() + 1);
        let header =
            SlotHeader { device: self.superblock.device, slot, sequence: self.sequence.get(), content };
        let bytes = header.encode();
        page[..bytes.len()].copy_from_slice(&bytes);
        let second_first = self.table.borrow_mut().second_first.remove(&slot);
        let first = if second_first { Side::B } else { Side::A };
        self.device.write_pair(self.superblock.geometry.slot_start(slot), first, page).await
    }

    /// Makes entry `at` of the fences durable.
    async fn write_fence(&self, at: u32) -> Result<(), StoreError> {
        let fences = &self.fences;
        fences.written.until(&self.carrier, || !fences.writing.replace(true)).await;
        let mut outcome = self.device.check();
        if let (Ok(()), Some(draft)) = (&outcome, fences.draft(at, self.superblock.device)) {
            let mut bytes = self.device.page().await;
            draft.page.encode((&mut bytes[..]).try_into().expect("a page is a page"));
            let start = self.superblock.geometry.fence_page_start(draft.page.page);
            outcome = self.device.write_pair(start, draft.first, bytes).await;
            if outcome.is_ok() {
                fences.settle(draft.page);
            }
        }
        fences.writing.set(false);
        fences.written.wake();
        outcome
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> ChunkStore<E, D> {
    pub(crate) fn of(inner: Rc<Inner<E, D>>) -> Self {
        Self { inner }
    }

    /// The device's identity.
    #[must_use]
    pub fn device(&self) -> Uuid {
        self.inner.superblock.device
    }

    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster(&self) -> Uuid {
        self.inner.superblock.cluster
    }

    /// What was found when the store was opened.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.inner.report
    }

    /// Why nothing more is written, if so.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.inner.device.failure()
    }

    /// The lost slots; see the head of this module.
    #[must_use]
    pub fn lost(&self) -> Vec<u32> {
        self.inner.table.borrow().lost.iter().copied().collect()
    }

    /// All fences, in the order of groups.
    #[must_use]
    pub fn fences(&self) -> Vec<FenceEntry> {
        self.inner.fences.all()
    }

    /// The group's fence; epoch 0 where it has none.
    #[must_use]
    pub fn fence_of(&self, group: GroupId) -> Epoch {
        self.inner.fences.get(group)
    }

    /// Changes how many slots are kept for [`Chunks::create_reserved`].
    pub fn set_reserve(&self, slots: u32) {
        self.inner.reserve_slots.set(slots);
    }

    /// Free slots, the reserve included.
    #[must_use]
    pub fn free_with_reserve(&self) -> u32 {
        self.inner.table.borrow().available() as u32
    }

    /// Makes a lost slot free, durably: what it held is elsewhere, or is given up.
    pub fn reclaim(&self, slot: u32) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let known = self.inner.device.check().and_then(|()| {
            let removed = self.inner.table.borrow_mut().lost.remove(&slot);
            if removed { Ok(()) } else { Err(StoreError::NotFound) }
        });
        let inner = Rc::clone(&self.inner);
        self.inner.carrier.run(async move {
            known?;
            let written = inner.write_header(slot, Content::Free).await;
            match &written {
                Ok(()) => trim::release(&inner, slot),
                Err(_) => drop(inner.table.borrow_mut().lost.insert(slot)),
            }
            written
        })
    }

    /// Forgets the fence of a group that is gone for good, durably. Whether it could: not while chunks of the group
    /// are here.
    pub fn forget_fence(&self, group: GroupId) -> impl Future<Output = Result<bool, StoreError>> + 'static {
        let table = self.inner.table.borrow();
        let used = table.of(Some(group)).next().is_some() || table.is_creating(group, Epoch(u64::MAX));
        let none = self.inner.fences.get(group) == Epoch(0);
        let entry = if used || none { None } else { self.inner.fences.set(group, None) };
        let inner = Rc::clone(&self.inner);
        self.inner.carrier.run(async move {
            match entry {
                Some(at) => inner.write_fence(at).await.map(|()| true),
                None => Ok(!used),
            }
        })
    }

    /// Begins the copy of a sealed chunk of another store, which no fence is in the way of: nothing new is written.
    pub(crate) fn begin_copy(&self, stat: ChunkStat) -> Carried<Result<LocalChunk<E, D>, StoreError>> {
        let label = Label { id: stat.id, epoch: stat.epoch };
        self.begin(label, State::Copying, self.inner.reserve_slots.get())
    }

    /// Deletes a chunk whatever its epoch: it is elsewhere.
    pub(crate) fn give_up(&self, id: ChunkId) -> Carried<Result<(), StoreError>> {
        let held = self.inner.table.borrow().chunks.get(&id).map(Rc::clone);
        let inner = Rc::clone(&self.inner);
        self.inner.carrier.run(async move { delete(&inner, &held.ok_or(StoreError::NotFound)?).await })
    }

    /// [`Chunks::create`] and [`Chunks::create_reserved`]
    pub(crate) fn begin_create(
        &self,
        id: ChunkId,
        epoch: Epoch,
        from_reserve: bool,
    ) -> Carried<Result<LocalChunk<E, D>, StoreError>> {
        let reserve = if from_reserve { 0 } else { self.inner.reserve_slots.get() };
        self.begin(Label { id, epoch }, State::Open, reserve)
    }

    fn begin(
        &self,
        label: Label,
        state: State,
        reserve: u32,
    ) -> Carried<Result<LocalChunk<E, D>, StoreError>> {
        let claimed = self.claim(label, state);
        let inner = Rc::clone(&self.inner);
        self.inner.carrier.run(async move {
            claimed?;
            let created = create(&inner, label, state, reserve).await;
            inner.table.borrow_mut().creating.remove(&label.id);
            inner.released.wake();
            created.map(|held| LocalChunk::new(&inner, &held))
        })
    }

    /// Takes the name.
    fn claim(&self, label: Label, state: State) -> Result<(), StoreError> {
        self.inner.device.check()?;
        let fence = self.inner.fences.get(label.id.lane.group);
        if state == State::Open && label.epoch < fence {
            return Err(StoreError::Fenced { fence: fence.0 });
        }
        let mut table = self.inner.table.borrow_mut();
        if table.chunks.contains_key(&label.id) || table.creating.contains_key(&label.id) {
            return Err(StoreError::Exists);
        }
        table.creating.insert(label.id, label.epoch);
        Ok(())
    }
}

/// Takes a slot and writes its header.
async fn create<E, D: Disk>(
    inner: &Inner<E, D>,
    label: Label,
    state: State,
    reserve: u32,
) -> Result<Rc<Held>, StoreError> {
    let mut taken = Taken::Soon;
    let decided = || {
        taken = inner.table.borrow_mut().take(reserve);
        !matches!(taken, Taken::Soon)
    };
    inner.released.until(&inner.carrier, decided).await;
    let Taken::Slot(slot) = taken else { return Err(StoreError::Full) };
    let content = if state == State::Copying { Content::Copying(label) } else { Content::Open(label) };
    inner.write_header(slot, content).await?;
    let fence = if state == State::Copying { Epoch(0) } else { inner.fences.get(label.id.lane.group) };
    let data_start = inner.superblock.geometry.data_start(slot);
    let held = Rc::new(Held::new(label, slot, data_start, state, fence, Some(0)));
    inner.table.borrow_mut().chunks.insert(label.id, Rc::clone(&held));
    Ok(held)
}

/// Ends a chunk's handles, waits for what is in flight, and frees the slot.
async fn delete<E: Spawn + Clone + 'static, D: Disk>(
    inner: &Rc<Inner<E, D>>,
    held: &Rc<Held>,
) -> Result<(), StoreError> {
    let claim = || {
        let idle = !held.writing_header.get();
        if idle && !matches!(held.state.get(), State::Deleted) {
            held.writing_header.set(true);
        }
        idle
    };
    held.changed.until(&inner.carrier, claim).await;
    let before = held.state.get();
    if before == State::Deleted {
        // Somebody else has deleted it meanwhile: to delete again is done already.
        return Ok(());
    }
    held.state.set(State::Deleting);
    held.changed.until(&inner.carrier, || !held.is_appending() && !held.is_reading()).await;
    let written = inner.write_header(held.slot, Content::Free).await;
    match &written {
        Ok(()) => {
            held.state.set(State::Deleted);
            inner.table.borrow_mut().chunks.remove(&held.label.id);
            trim::release(inner, held.slot);
        }
        // The store has failed. The chunk is read on.
        Err(_) => held.state.set(before),
    }
    held.writing_header.set(false);
    held.changed.wake();
    written
}

/// Makes a fence durable, and sees the older writers off.
async fn fence<E, D: Disk>(
    inner: &Inner<E, D>,
    group: GroupId,
    epoch: Epoch,
    at: u32,
) -> Result<(), StoreError> {
    inner.write_fence(at).await?;
    inner.released.until(&inner.carrier, || !inner.table.borrow().is_creating(group, epoch)).await;
    let older = |held: &&Rc<Held>| held.label.epoch < epoch && held.is_appending();
    let busy: Vec<Rc<Held>> = inner.table.borrow().of(Some(group)).filter(older).map(Rc::clone).collect();
    for held in busy.iter().filter(|held| held.state.get() != State::Copying) {
        held.changed.until(&inner.carrier, || !held.is_appending()).await;
    }
    Ok(())
}

impl<E: Spawn + Clone + 'static, D: Disk> Chunks for ChunkStore<E, D> {
    type Chunk = LocalChunk<E, D>;

    fn info(&self) -> StoreInfo {
        let inner = &self.inner;
        let geometry = &inner.superblock.geometry;
        StoreInfo {
            device: inner.superblock.device,
            chunk_bytes: geometry.chunk_bytes(),
            align_bytes: geometry.align_bytes,
            slots: geometry.slots,
            free: self.free_with_reserve().saturating_sub(inner.reserve_slots.get()),
            failed: inner.device.is_failed(),
        }
    }

    fn create(
        &self,
        id: ChunkId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<LocalChunk<E, D>, StoreError>> + 'static {
        self.begin_create(id, epoch, false)
    }

    fn create_reserved(
        &self,
        id: ChunkId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<LocalChunk<E, D>, StoreError>> + 'static {
        self.begin_create(id, epoch, true)
    }

    fn open(&self, id: ChunkId) -> Option<LocalChunk<E, D>> {
        let table = self.inner.table.borrow();
        let held = table.chunks.get(&id).filter(|held| held.is_there())?;
        Some(LocalChunk::new(&self.inner, held))
    }

    fn stat(&self, id: ChunkId) -> Option<ChunkStat> {
        let table = self.inner.table.borrow();
        table.chunks.get(&id).filter(|held| held.is_there()).map(|held| held.stat())
    }

    fn list(&self, group: Option<GroupId>) -> Vec<ChunkStat> {
        let table = self.inner.table.borrow();
        table.of(group).filter(|held| held.is_there()).map(|held| held.stat()).collect()
    }

    fn delete(&self, id: ChunkId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static {
        self.begin_delete(id, epoch)
    }

    fn fence(&self, group: GroupId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static {
        self.begin_fence(group, epoch)
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> ChunkStore<E, D> {
    /// [`Chunks::delete`]
    pub(crate) fn begin_delete(&self, id: ChunkId, epoch: Epoch) -> Carried<Result<(), StoreError>> {
        let found = self.inner.table.borrow().chunks.get(&id).map(Rc::clone);
        let claimed = found.filter(|held| held.state.get() != State::Copying).ok_or(StoreError::NotFound);
        let claimed = claimed.and_then(|held| held.admit(epoch).map(|()| held));
        let inner = Rc::clone(&self.inner);
        self.inner.carrier.run(async move {
            let held = claimed?;
            delete(&inner, &held).await
        })
    }

    /// [`Chunks::fence`]
    pub(crate) fn begin_fence(&self, group: GroupId, epoch: Epoch) -> Carried<Result<(), StoreError>> {
        let claimed = self.raise(group, epoch);
        let inner = Rc::clone(&self.inner);
        self.inner.carrier.run(async move {
            match claimed? {
                Some(at) => fence(&inner, group, epoch, at).await,
                None => Ok(()),
            }
        })
    }

    /// Lets a fence hold in memory. Its entry; `None` for epoch 0, which fences nobody off.
    fn raise(&self, group: GroupId, epoch: Epoch) -> Result<Option<u32>, StoreError> {
        let present = self.inner.fences.get(group);
        if epoch < present {
            return Err(StoreError::Fenced { fence: present.0 });
        }
        self.inner.device.check()?;
        if epoch == Epoch(0) {
            return Ok(None);
        }
        let at = self.inner.fences.set(group, Some(epoch)).ok_or(StoreError::Full)?;
        for held in self.inner.table.borrow().of(Some(group)) {
            if held.state.get() != State::Copying {
                held.fence.set(epoch);
            }
        }
        Ok(Some(at))
    }
}
