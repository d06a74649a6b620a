//! A chunk of a store on a disk.
//!
//! ```text
//!            create                 seal                        delete
//!   (slot) ----------> open ------------> sealing -> sealed ------------> deleting -> (slot)
//!                        |                                                  ^
//!                        +--------------------------------------------------+
//!            copy
//!   (slot) ----------> copying -> sealed, or the slot is free at the next start
//! ```
//!
//! A handle holds the chunk's state itself, so nothing is looked up per operation. To seal waits for the appends that
//! are in flight, to delete for appends and reads: a slot is handed out again when nobody can write to it or read from
//! it under its former name.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::{Disk, Spawn};
use smallvec::SmallVec;

use super::carry::Carried;
use super::format::{Content, Label};
use super::wait::Waiters;
use super::{ChunkStore, Inner};
use crate::chunks::{Chunk, ChunkStat, Seal, StoreError};
use crate::ids::Epoch;

/// Where a chunk is in its life. See the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    Copying,
    Sealing(Seal),
    Sealed(Seal),
    Deleting,
    Deleted,
}

/// What a store knows of a chunk.
pub(crate) struct Held {
    pub label: Label,
    pub slot: u32,
    /// Where its data begin on the device, in bytes.
    data_start: u64,
    pub state: Cell<State>,
    /// The group's fence, so that an append need not look it up.
    pub fence: Cell<Epoch>,
    /// Where the next append begins, those in flight included; `None` where that is not known: the chunk was open when
    /// the store was opened.
    end: Cell<Option<u32>>,
    /// Offset and length of the last append.
    last: Cell<(u32, u32)>,
    /// Where the appends in flight begin.
    appending: RefCell<SmallVec<[u32; 4]>>,
    reading: Cell<u32>,
    /// A header of the slot is being written.
    pub writing_header: Cell<bool>,
    pub changed: Waiters,
}

/// What an append comes to.
enum Claim {
    Write,
    /// the last append once more
    Repeated,
    Nothing,
}

impl Held {
    pub fn new(
        label: Label,
        slot: u32,
        data_start: u64,
        state: State,
        fence: Epoch,
        end: Option<u32>,
    ) -> Self {
        Self {
            label,
            slot,
            data_start,
            state: Cell::new(state),
            fence: Cell::new(fence),
            end: Cell::new(end),
            last: Cell::default(),
            appending: RefCell::default(),
            reading: Cell::new(0),
            writing_header: Cell::new(false),
            changed: Waiters::default(),
        }
    }

    /// Whether the chunk is there for its users.
    pub fn is_there(&self) -> bool {
        matches!(self.state.get(), State::Open | State::Sealing(_) | State::Sealed(_))
    }

    pub fn stat(&self) -> ChunkStat {
        let sealed = match self.state.get() {
            State::Sealed(seal) => Some(seal),
            _ => None,
        };
        ChunkStat { id: self.label.id, epoch: self.label.epoch, sealed }
    }

    pub fn is_appending(&self) -> bool {
        !self.appending.borrow().is_empty()
    }

    pub fn is_reading(&self) -> bool {
        self.reading.get() > 0
    }

    /// Refuses writers that a newer one has replaced.
    pub fn admit(&self, epoch: Epoch) -> Result<(), StoreError> {
        let least = self.label.epoch.max(self.fence.get());
        if epoch < least { Err(StoreError::Fenced { fence: least.0 }) } else { Ok(()) }
    }

    /// Takes the place of an append of `len` bytes.
    fn claim(&self, epoch: Epoch, offset: u32, len: u32, capacity: u32) -> Result<Claim, StoreError> {
        match self.state.get() {
            State::Open | State::Copying => {}
            State::Sealing(_) | State::Sealed(_) => return self.admit(epoch).and(Err(StoreError::Sealed)),
            State::Deleting | State::Deleted => return Err(StoreError::NotFound),
        }
        self.admit(epoch)?;
        // A newer writer, or a later life of the store, ends the chunk and never goes on with it.
        let Some(end) = self.end.get().filter(|_| epoch == self.label.epoch) else {
            return Err(StoreError::Sealed);
        };
        if len > 0 && (offset, len) == self.last.get() {
            return Ok(Claim::Repeated);
        }
        if offset != end {
            return Err(StoreError::NotAtEnd { end, asked: offset });
        }
        if len == 0 {
            return Ok(Claim::Nothing);
        }
        let end = end.checked_add(len).filter(|&end| end <= capacity).ok_or(StoreError::OutOfRange)?;
        self.end.set(Some(end));
        self.last.set((offset, len));
        self.appending.borrow_mut().push(offset);
        Ok(Claim::Write)
    }

    fn appended(&self, offset: u32) {
        let mut appending = self.appending.borrow_mut();
        let at = appending.iter().position(|&other| other == offset).expect("the append was in flight");
        appending.swap_remove(at);
        drop(appending);
        self.changed.wake();
    }

    /// Whether the chunk may be sealed so, or is already.
    fn may_seal(&self, seal: Seal, capacity: u32) -> Result<bool, StoreError> {
        match self.state.get() {
            State::Open | State::Copying => {}
            State::Sealing(other) | State::Sealed(other) if other == seal => return Ok(false),
            State::Sealing(_) | State::Sealed(_) => return Err(StoreError::Sealed),
            State::Deleting | State::Deleted => return Err(StoreError::NotFound),
        }
        if seal.length > capacity {
            return Err(StoreError::OutOfRange);
        }
        match self.end.get() {
            Some(end) if seal.length > end => Err(StoreError::NotAtEnd { end, asked: seal.length }),
            _ => Ok(true),
        }
    }
}

/// Keeps a chunk from being deleted while it is read.
struct Reading(Rc<Held>);

impl Reading {
    fn begin(held: &Rc<Held>) -> Self {
        held.reading.set(held.reading.get() + 1);
        Self(Rc::clone(held))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.set(self.0.reading.get() - 1);
        self.0.changed.wake();
    }
}

/// A handle of a chunk on a disk.
pub struct LocalChunk<E, D> {
    store: Rc<Inner<E, D>>,
    held: Rc<Held>,
}

impl<E, D> Clone for LocalChunk<E, D> {
    fn clone(&self) -> Self {
        Self { store: Rc::clone(&self.store), held: Rc::clone(&self.held) }
    }
}

impl<E, D> LocalChunk<E, D> {
    pub(crate) fn new(store: &Rc<Inner<E, D>>, held: &Rc<Held>) -> Self {
        Self { store: Rc::clone(store), held: Rc::clone(held) }
    }
}

impl<E: Spawn + 'static, D: Disk> LocalChunk<E, D> {
    /// What is known of the chunk.
    #[must_use]
    pub fn stat(&self) -> ChunkStat {
        self.held.stat()
    }

    /// The store that has it.
    #[must_use]
    pub fn store(&self) -> ChunkStore<E, D>
    where
        E: Clone,
    {
        ChunkStore::of(Rc::clone(&self.store))
    }

    /// Its length in bytes if it was made since the store was opened: what was appended, those in flight included.
    #[must_use]
    pub fn end(&self) -> Option<u32> {
        match self.held.state.get() {
            State::Sealed(seal) => Some(seal.length),
            _ => self.held.end.get(),
        }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.held.is_there()
    }

    pub(crate) fn align_bytes(&self) -> u32 {
        self.store.superblock.geometry.align_bytes
    }

    fn claim(&self, epoch: Epoch, offset: u32, data: &[Buf]) -> Result<Claim, StoreError> {
        let align = self.store.superblock.geometry.align_bytes as usize;
        self.store.device.check()?;
        if data.iter().any(|piece| !piece.len().is_multiple_of(align)) {
            return Err(StoreError::OutOfRange);
        }
        let len: usize = data.iter().map(|piece| piece.len()).sum();
        let len = u32::try_from(len).map_err(|_| StoreError::OutOfRange)?;
        self.held.claim(epoch, offset, len, self.store.superblock.geometry.chunk_bytes())
    }

    /// [`Chunk::append`]
    pub(crate) fn append_now(
        &self,
        epoch: Epoch,
        offset: u32,
        data: &[Buf],
    ) -> Carried<Result<(), StoreError>> {
        let claim = self.claim(epoch, offset, data);
        let data: SmallVec<[Buf; 4]> = match claim {
            Ok(Claim::Write) => data.iter().filter(|piece| !piece.is_empty()).cloned().collect(),
            _ => SmallVec::new(),
        };
        let (store, held) = (Rc::clone(&self.store), Rc::clone(&self.held));
        self.store.carrier.run(async move {
            match claim? {
                Claim::Nothing => Ok(()),
                Claim::Write => {
                    let written = write_pieces(&store, held.data_start + u64::from(offset), data).await;
                    held.appended(offset);
                    written
                }
                Claim::Repeated => {
                    let ended = || !held.appending.borrow().contains(&offset);
                    held.changed.until(&store.carrier, ended).await;
                    store.device.check()
                }
            }
        })
    }

    /// [`Chunk::seal`]
    pub(crate) fn begin_seal(&self, epoch: Epoch, seal: Seal) -> Carried<Result<(), StoreError>> {
        self.seal_now(self.held.admit(epoch), seal)
    }

    /// [`Chunk::seal`], if the writer was `admitted`.
    pub(crate) fn seal_now(
        &self,
        admitted: Result<(), StoreError>,
        seal: Seal,
    ) -> Carried<Result<(), StoreError>> {
        let held = Rc::clone(&self.held);
        let claimed = admitted.and_then(|()| self.claim_seal(seal));
        let store = Rc::clone(&self.store);
        self.store.carrier.run(async move {
            match claimed? {
                Some(before) => write_seal(&store, &held, seal, before).await,
                None => await_seal(&store, &held, seal).await,
            }
        })
    }

    /// Closes the chunk. Its state before; `None` where it is being sealed so, or is already.
    fn claim_seal(&self, seal: Seal) -> Result<Option<State>, StoreError> {
        let before = self.held.state.get();
        if !self.held.may_seal(seal, self.store.superblock.geometry.chunk_bytes())? {
            return Ok(None);
        }
        self.store.device.check()?;
        self.held.writing_header.set(true);
        self.held.state.set(State::Sealing(seal));
        Ok(Some(before))
    }

    /// The range as the device has it, if the chunk has it.
    fn locate(&self, offset: u32, len: usize) -> Result<u64, StoreError> {
        let geometry = &self.store.superblock.geometry;
        let align = geometry.align_bytes;
        let readable = match self.held.state.get() {
            State::Open | State::Copying | State::Sealing(_) => geometry.chunk_bytes(),
            State::Sealed(seal) => seal.length.next_multiple_of(align),
            State::Deleting | State::Deleted => return Err(StoreError::NotFound),
        };
        let aligned = offset.is_multiple_of(align) && len.is_multiple_of(align as usize);
        let within = u64::from(offset) + len as u64 <= u64::from(readable);
        if aligned && within {
            Ok(self.held.data_start + u64::from(offset))
        } else {
            Err(StoreError::OutOfRange)
        }
    }
}

impl<E: Spawn + 'static, D: Disk> Chunk for LocalChunk<E, D> {
    fn append(
        &self,
        epoch: Epoch,
        offset: u32,
        data: &[Buf],
    ) -> impl Future<Output = Result<(), StoreError>> + 'static {
        self.append_now(epoch, offset, data)
    }

    fn read(&self, offset: u32, buf: BufMut) -> impl Future<Output = Result<BufMut, StoreError>> + 'static {
        let begun = self.locate(offset, buf.len()).map(|at| {
            let reading = Reading::begin(&self.held);
            (reading, self.store.device.disk.read(at, buf))
        });
        async move {
            let (reading, read) = begun?;
            let read = read.await;
            drop(reading);
            Ok(read?)
        }
    }

    fn is_failing(&self) -> bool {
        self.store.device.is_failed()
    }

    fn seal(&self, epoch: Epoch, seal: Seal) -> impl Future<Output = Result<(), StoreError>> + 'static {
        self.begin_seal(epoch, seal)
    }
}

/// Writes the pieces of an append side by side, straight from where they are.
async fn write_pieces<E, D: Disk>(
    store: &Inner<E, D>,
    mut at: u64,
    mut data: SmallVec<[Buf; 4]>,
) -> Result<(), StoreError> {
    if data.len() == 1 {
        let piece = data.pop().expect("there is one");
        return store.device.write(at, piece).await;
    }
    let mut writes = Vec::with_capacity(data.len());
    for piece in data {
        let len = piece.len() as u64;
        writes.push(Box::pin(store.device.write(at, piece)));
        at += len;
    }
    all(writes).await
}

/// Ends when all have ended, with the first error seen.
async fn all<F: Future<Output = Result<(), StoreError>>>(
    mut writes: Vec<Pin<Box<F>>>,
) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    std::future::poll_fn(move |cx| {
        writes.retain_mut(|write| match write.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                if outcome.is_ok() {
                    outcome = ended;
                }
                false
            }
        });
        if writes.is_empty() { Poll::Ready(outcome.clone()) } else { Poll::Pending }
    })
    .await
}

async fn write_seal<E, D: Disk>(
    store: &Inner<E, D>,
    held: &Held,
    seal: Seal,
    before: State,
) -> Result<(), StoreError> {
    held.changed.until(&store.carrier, || !held.is_appending()).await;
    let written = store.write_header(held.slot, Content::Sealed(held.label, seal)).await;
    match written {
        Ok(()) => {
            held.state.set(State::Sealed(seal));
            // A copy was not subject to it so far.
            held.fence.set(store.fences.get(held.label.id.lane.group));
        }
        Err(_) => {
            // The store has failed: the chunk is read on, and not appended to.
            held.end.set(None);
            held.state.set(before);
        }
    }
    held.writing_header.set(false);
    held.changed.wake();
    written
}

/// Waits for an equal seal that is under way.
async fn await_seal<E, D: Disk>(store: &Inner<E, D>, held: &Held, seal: Seal) -> Result<(), StoreError> {
    held.changed
        .until(&store.carrier, || !held.writing_header.get() || held.state.get() == State::Sealed(seal))
        .await;
    match held.state.get() {
        State::Sealed(_) => Ok(()),
        State::Deleting | State::Deleted => Err(StoreError::NotFound),
        _ => store.device.check().and(Err(StoreError::Sealed)),
    }
}
