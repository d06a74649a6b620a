//! A store of chunks in memory, for tests: slow, failing and full on demand, and with crashes.
//!
//! A [`Medium`] is what survives: tests keep it, a [`MemoryStore`] of the node's present life works on it. At a crash
//! each append that was not acknowledged is kept, dropped or torn at the store's alignment. A chunk in a slot that was
//! used before begins with what is left in it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ashlar_env::disk::DiskError;
use ashlar_env::{Buf, BufMut, Env};

use crate::chunks::{Chunk, ChunkStat, Chunks, Seal, StoreError, StoreInfo};
use crate::ids::{ChunkId, Epoch, GroupId};

/// What a medium does to its users.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Each operation takes a time between these.
    pub delay_min: Duration,
    /// See `delay_min`.
    pub delay_max: Duration,
    /// The medium fails for good with the operation after so many more appends.
    pub fail_after: Option<u64>,
    /// Every operation that changes something fails.
    pub failed: bool,
    /// Every operation fails.
    pub gone: bool,
    /// No operation ends.
    pub hangs: bool,
}

/// What survives a crash. Cloning shares it.
#[derive(Clone)]
pub struct Medium {
    inner: Rc<Inner>,
}

struct Inner {
    number: u128,
    chunk_bytes: u32,
    align_bytes: u32,
    slots: Cell<u32>,
    faults: Cell<Faults>,
    state: RefCell<State>,
    appends: Cell<u64>,
}

#[derive(Default)]
struct State {
    chunks: BTreeMap<ChunkId, Stored>,
    fences: BTreeMap<GroupId, Epoch>,
    /// What slots that are free now held.
    leftovers: Vec<Vec<u8>>,
    next_append: u64,
}

struct Stored {
    epoch: Epoch,
    bytes: Vec<u8>,
    /// Where the next append begins; `None` after a restart: nothing is appended any more.
    end: Option<u32>,
    /// Appends not acknowledged.
    pending: BTreeMap<u64, (u32, Vec<u8>)>,
    sealed: Option<Seal>,
}

impl Medium {
    /// An empty medium with `slots` chunks of `chunk_bytes` each.
    #[must_use]
    pub fn new(number: u128, chunk_bytes: u32, align_bytes: u32, slots: u32) -> Self {
        let inner = Inner {
            number,
            chunk_bytes,
            align_bytes,
            slots: Cell::new(slots),
            faults: Cell::default(),
            state: RefCell::default(),
            appends: Cell::new(0),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Changes what it does to its users.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.inner.faults.get();
        change(&mut faults);
        self.inner.faults.set(faults);
    }

    /// Whether every operation fails.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.inner.faults.get().gone
    }

    /// Whether the other is this one.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// Changes how many chunks it holds.
    pub fn set_slots(&self, slots: u32) {
        self.inner.slots.set(slots);
    }

    /// How many appends it has completed.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.inner.appends.get()
    }

    /// The power fails: of what was not acknowledged each part is kept, dropped or torn, as `draw` says, which gives a
    /// number below its argument. How many appends were torn.
    pub fn crash(&self, mut draw: impl FnMut(u64) -> u64) -> usize {
        let align = self.inner.align_bytes as usize;
        let mut state = self.inner.state.borrow_mut();
        let mut torn = 0;
        for stored in state.chunks.values_mut() {
            for (at, bytes) in std::mem::take(&mut stored.pending).into_values() {
                let fate = draw(3);
                torn += usize::from(fate == 1 && bytes.len() > align);
                for (n, part) in bytes.chunks(align).enumerate() {
                    let kept = fate == 0 || (fate == 1 && draw(2) == 0);
                    if kept {
                        let from = at as usize + n * align;
                        stored.bytes[from..from + part.len()].copy_from_slice(part);
                    }
                }
            }
            stored.end = None;
        }
        torn
    }

    /// Whether an append of an older epoch is in flight.
    fn is_appending(&self, group: GroupId, epoch: Epoch) -> bool {
        let state = self.inner.state.borrow();
        let mut chunks = state.chunks.iter();
        chunks
            .any(|(id, stored)| id.lane.group == group && stored.epoch < epoch && !stored.pending.is_empty())
    }

    /// The bytes of a chunk, and how it was sealed.
    #[must_use]
    pub fn chunk(&self, id: ChunkId) -> Option<(Vec<u8>, Option<Seal>)> {
        self.inner.state.borrow().chunks.get(&id).map(|stored| (stored.bytes.clone(), stored.sealed))
    }

    /// Changes bytes of a chunk behind everybody's back.
    pub fn rot(&self, id: ChunkId, at: u32, bits: u8) {
        if let Some(stored) = self.inner.state.borrow_mut().chunks.get_mut(&id) {
            stored.bytes[at as usize] ^= bits;
        }
    }

    /// Forgets all: another device in its place.
    pub fn erase(&self) {
        *self.inner.state.borrow_mut() = State::default();
    }

    /// All chunks.
    #[must_use]
    pub fn list(&self) -> Vec<ChunkStat> {
        let state = self.inner.state.borrow();
        let stat =
            |(&id, stored): (&ChunkId, &Stored)| ChunkStat { id, epoch: stored.epoch, sealed: stored.sealed };
        state.chunks.iter().map(stat).collect()
    }
}

/// The store on a [`Medium`], in one life of a node.
#[derive(Clone)]
pub struct MemoryStore<E> {
    env: E,
    medium: Medium,
}

/// A chunk of it.
#[derive(Clone)]
pub struct MemoryChunk<E> {
    store: MemoryStore<E>,
    id: ChunkId,
}

/// Something that a task does whether or not anybody waits for it.
struct Going<T> {
    done: RefCell<(Option<T>, Option<Waker>)>,
}

impl<E: Env> MemoryStore<E> {
    /// The store on `medium`.
    #[must_use]
    pub fn new(env: E, medium: Medium) -> Self {
        Self { env, medium }
    }

    fn disk(what: &str) -> StoreError {
        StoreError::Disk(DiskError::Latched(what.into()))
    }

    /// Takes the time an operation takes.
    async fn pass_time(&self) {
        let faults = self.medium.inner.faults.get();
        if faults.hangs {
            std::future::pending::<()>().await;
        }
        let spread = faults.delay_max.saturating_sub(faults.delay_min).as_nanos() as u64;
        let delay = faults.delay_min + Duration::from_nanos(self.env.random_below(spread + 1));
        if !delay.is_zero() {
            self.env.sleep_until(self.env.now().plus(delay)).await;
        }
    }

    /// Runs `change` after some time, whether or not the future given back is polled on.
    async fn go<T: 'static>(
        &self,
        change: impl FnOnce(&mut State, &Inner) -> Result<T, StoreError> + 'static,
    ) -> Result<T, StoreError> {
        let going = Rc::new(Going { done: RefCell::new((None, None)) });
        let (store, here) = (self.clone(), Rc::clone(&going));
        self.env.spawn(async move {
            store.pass_time().await;
            let inner = &store.medium.inner;
            let faults = inner.faults.get();
            let done = if faults.failed || faults.gone {
                Err(Self::disk("an earlier write failed"))
            } else {
                change(&mut inner.state.borrow_mut(), inner)
            };
            let mut place = here.done.borrow_mut();
            place.0 = Some(done);
            let waker = place.1.take();
            drop(place);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        poll_fn(move |cx| {
            let mut place = going.done.borrow_mut();
            match place.0.take() {
                Some(done) => Poll::Ready(done),
                None => {
                    place.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

fn check_fence(state: &State, group: GroupId, epoch: Epoch) -> Result<(), StoreError> {
    match state.fences.get(&group) {
        Some(&fence) if epoch < fence => Err(StoreError::Fenced { fence: fence.0 }),
        _ => Ok(()),
    }
}

impl<E: Env> Chunks for MemoryStore<E> {
    type Chunk = MemoryChunk<E>;

    fn info(&self) -> StoreInfo {
        let inner = &self.medium.inner;
        StoreInfo {
            device: uuid::Uuid::from_u128(inner.number),
            chunk_bytes: inner.chunk_bytes,
            align_bytes: inner.align_bytes,
            slots: inner.slots.get(),
            free: inner.slots.get().saturating_sub(inner.state.borrow().chunks.len() as u32),
            failed: inner.faults.get().failed,
        }
    }

    fn create(
        &self,
        id: ChunkId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<Self::Chunk, StoreError>> + 'static {
        let store = self.clone();
        async move {
            let made = store.go(move |state, inner| {
                check_fence(state, id.lane.group, epoch)?;
                if state.chunks.contains_key(&id) {
                    return Err(StoreError::Exists);
                }
                if state.chunks.len() >= inner.slots.get() as usize {
                    return Err(StoreError::Full);
                }
                let bytes = state.leftovers.pop().unwrap_or_else(|| vec![0; inner.chunk_bytes as usize]);
                let stored = Stored { epoch, bytes, end: Some(0), pending: BTreeMap::new(), sealed: None };
                state.chunks.insert(id, stored);
                Ok(())
            });
            made.await?;
            Ok(MemoryChunk { store: store.clone(), id })
        }
    }

    fn open(&self, id: ChunkId) -> Option<Self::Chunk> {
        let here = self.medium.inner.state.borrow().chunks.contains_key(&id);
        here.then(|| MemoryChunk { store: self.clone(), id })
    }

    fn stat(&self, id: ChunkId) -> Option<ChunkStat> {
        let state = self.medium.inner.state.borrow();
        state.chunks.get(&id).map(|stored| ChunkStat { id, epoch: stored.epoch, sealed: stored.sealed })
    }

    fn list(&self, group: Option<GroupId>) -> Vec<ChunkStat> {
        let mut list = self.medium.list();
        list.retain(|stat| group.is_none_or(|group| group == stat.id.lane.group));
        list
    }

    fn delete(&self, id: ChunkId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let store = self.clone();
        async move {
            let gone = store.go(move |state, _| {
                check_fence(state, id.lane.group, epoch)?;
                let stored = state.chunks.remove(&id).ok_or(StoreError::NotFound)?;
                state.leftovers.push(stored.bytes);
                Ok(())
            });
            gone.await
        }
    }

    fn fence(&self, group: GroupId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let store = self.clone();
        async move {
            let fenced = store.go(move |state, _| {
                check_fence(state, group, epoch)?;
                state.fences.insert(group, epoch);
                Ok(())
            });
            fenced.await?;
            while store.medium.is_appending(group, epoch) {
                store.env.sleep_until(store.env.now().plus(Duration::from_micros(3))).await;
            }
            Ok(())
        }
    }
}

impl<E: Env> MemoryChunk<E> {
    /// Takes an append in: its number.
    fn begin(&self, epoch: Epoch, offset: u32, bytes: Vec<u8>) -> Result<u64, StoreError> {
        let inner = &self.store.medium.inner;
        let mut faults = inner.faults.get();
        if let Some(left) = faults.fail_after {
            faults.failed = left == 0;
            faults.fail_after = left.checked_sub(1);
            inner.faults.set(faults);
        }
        if faults.failed || faults.gone {
            return Err(MemoryStore::<E>::disk("a write failed"));
        }
        let mut state = inner.state.borrow_mut();
        check_fence(&state, self.id.lane.group, epoch)?;
        let number = state.next_append;
        state.next_append += 1;
        let stored = state.chunks.get_mut(&self.id).ok_or(StoreError::NotFound)?;
        let Some(end) = stored.end.filter(|_| stored.sealed.is_none() && stored.epoch == epoch) else {
            return Err(StoreError::Sealed);
        };
        if end != offset {
            return Err(StoreError::NotAtEnd { end, asked: offset });
        }
        let align = inner.align_bytes as usize;
        let end = offset as usize + bytes.len();
        if !bytes.len().is_multiple_of(align)
            || !(offset as usize).is_multiple_of(align)
            || end > stored.bytes.len()
        {
            return Err(StoreError::OutOfRange);
        }
        stored.end = Some(end as u32);
        stored.pending.insert(number, (offset, bytes));
        Ok(number)
    }
}

impl<E: Env> Chunk for MemoryChunk<E> {
    fn append(
        &self,
        epoch: Epoch,
        offset: u32,
        data: &[Buf],
    ) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let aligned =
            data.iter().all(|piece| piece.len().is_multiple_of(self.store.info().align_bytes as usize));
        let chunk = self.clone();
        let mut bytes = Vec::with_capacity(data.iter().map(|piece| piece.len()).sum());
        data.iter().for_each(|piece| bytes.extend_from_slice(piece));
        async move {
            if !aligned {
                return Err(StoreError::OutOfRange);
            }
            let number = chunk.begin(epoch, offset, bytes)?;
            let id = chunk.id;
            let done = chunk.store.go(move |state, inner| {
                // Fenced meanwhile: what was begun is neither confirmed nor undone.
                let stored = state.chunks.get_mut(&id).ok_or(StoreError::NotFound)?;
                let (at, bytes) = stored.pending.remove(&number).ok_or(StoreError::NotFound)?;
                stored.bytes[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
                inner.appends.set(inner.appends.get() + 1);
                Ok(())
            });
            done.await
        }
    }

    fn read(
        &self,
        offset: u32,
        mut buf: BufMut,
    ) -> impl Future<Output = Result<BufMut, StoreError>> + 'static {
        let chunk = self.clone();
        async move {
            chunk.store.pass_time().await;
            let inner = &chunk.store.medium.inner;
            if inner.faults.get().gone {
                return Err(MemoryStore::<E>::disk("the device is gone"));
            }
            let state = inner.state.borrow();
            let stored = state.chunks.get(&chunk.id).ok_or(StoreError::NotFound)?;
            let end = offset as usize + buf.len();
            let bytes = stored.bytes.get(offset as usize..end).ok_or(StoreError::OutOfRange)?;
            buf.copy_from_slice(bytes);
            drop(state);
            Ok(buf)
        }
    }

    fn seal(&self, epoch: Epoch, seal: Seal) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let chunk = self.clone();
        async move {
            let id = chunk.id;
            let sealed = chunk.store.go(move |state, _| {
                check_fence(state, id.lane.group, epoch)?;
                let stored = state.chunks.get_mut(&id).ok_or(StoreError::NotFound)?;
                if stored.sealed.is_some_and(|earlier| earlier != seal) {
                    return Err(StoreError::Sealed);
                }
                assert!(
                    stored.pending.values().all(|(at, _)| *at >= seal.length),
                    "sealed over an append under way"
                );
                stored.sealed = Some(seal);
                Ok(())
            });
            sealed.await
        }
    }
}
