//! Moving the chunks of a store to the others.
//!
//! One chunk after the other: a *copying* chunk is created on another store, the data are copied, read back and
//! compared, the copy is sealed, handles go over to it, and the original is deleted once nobody reads it any more. A
//! crash before the seal leaves a slot that is free at the next start; after it, two equal chunks, of which one is
//! deleted when its store is added to the pool.

use std::rc::Rc;

use ashlar_codec::crc32c_append;
use ashlar_env::{Disk, Spawn};
use uuid::Uuid;

use super::{Inner, Place, Pool, PoolError, Wish};
use crate::chunks::{Chunk, ChunkStat, Chunks, Seal, StoreError};
use crate::ids::ChunkId;
use crate::store::{ChunkStore, LocalChunk};

/// Bytes copied at a time: a buffer of this size class is all that a pool copies with.
const PIECE_BYTES: u32 = 256 << 10;

/// How far a drain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Chunks moved.
    pub chunks_moved: usize,
    /// Sealed chunks that were there when it began.
    pub chunks_total: usize,
    /// Bytes moved.
    pub bytes_moved: u64,
}

/// How a drain ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// What was moved.
    pub progress: Progress,
    /// Chunks that are still open, or being made: once their writers have sealed them, drain again.
    pub open: Vec<ChunkId>,
    /// Chunks that could not be read or did not read back as written: they stay, and are to be repaired from elsewhere.
    pub unreadable: Vec<ChunkId>,
}

/// What became of one chunk.
enum Moved {
    /// it is elsewhere
    Bytes(u32),
    /// it is not sealed, or not here any more
    Stays,
    Unreadable,
    NoPlace(StoreError),
}

/// Why a copy failed.
enum Trouble {
    Source,
    Target(StoreError),
}

impl<E: Spawn + Clone + 'static, D: Disk> Pool<E, D> {
    /// Moves all sealed chunks from a store to the others; it gets no new ones from now on. When nothing is left on it,
    /// the device can be removed. May be dropped and begun again at any time.
    ///
    /// # Errors
    /// [`PoolError::Unknown`], [`PoolError::NoPlace`]
    pub async fn drain(
        &self,
        device: Uuid,
        mut progress: impl FnMut(Progress),
    ) -> Result<Drained, PoolError> {
        let member = self.inner.member(device)?;
        member.closed.set(true);
        let sealed: Vec<_> = self.inner.on(device).into_iter().filter(|place| is_sealed(place)).collect();
        let mut drained = Drained::default();
        drained.progress.chunks_total = sealed.len();
        for (index, place) in sealed.iter().enumerate() {
            let inner = Rc::clone(&self.inner);
            let at = Rc::clone(place);
            // Begun, it goes to its end, also when this future is dropped.
            let moved = self.inner.carrier.run(async move { inner.relocate(&at, device).await });
            match moved.await {
                Moved::Bytes(bytes) => {
                    drained.progress.chunks_moved += 1;
                    drained.progress.bytes_moved += u64::from(bytes);
                }
                Moved::Stays => {}
                Moved::Unreadable => drained.unreadable.push(place.id),
                Moved::NoPlace(error) => {
                    return Err(PoolError::NoPlace { device, left: sealed.len() - index, error });
                }
            }
            progress(drained.progress);
        }
        let left = self.inner.on(device).into_iter().map(|place| place.id);
        drained.open = left.filter(|id| !drained.unreadable.contains(id)).collect();
        Ok(drained)
    }

    /// Lets a store get new chunks again, after a drain that was given up.
    ///
    /// # Errors
    /// [`PoolError::Unknown`]
    pub fn reopen(&self, device: Uuid) -> Result<(), PoolError> {
        self.inner.member(device)?.closed.set(false);
        Ok(())
    }
}

fn is_sealed<E: Spawn + Clone + 'static, D: Disk>(place: &Place<E, D>) -> bool {
    Inner::stat(place).is_some_and(|stat| stat.sealed.is_some())
}

impl<E: Spawn + Clone + 'static, D: Disk> Inner<E, D> {
    async fn relocate(&self, place: &Place<E, D>, from: Uuid) -> Moved {
        self.rested.until(&self.carrier, || !place.busy.replace(true)).await;
        let moved = self.relocate_resting(place, from).await;
        place.coming.set(None);
        place.busy.set(false);
        self.rested.wake();
        moved
    }

    async fn relocate_resting(&self, place: &Place<E, D>, from: Uuid) -> Moved {
        let (Some(chunk), Some(stat)) = (place.chunk(), Self::stat(place)) else { return Moved::Stays };
        let Some(seal) = stat.sealed.filter(|_| place.device.get() == from) else { return Moved::Stays };
        let begin = |store: ChunkStore<E, D>| store.begin_copy(stat);
        loop {
            let copy = match self.try_stores(place, Some(from), false, &Wish::default(), begin).await {
                Ok(copy) => copy,
                Err(error) => return Moved::NoPlace(error),
            };
            match self.copy(&chunk, &copy, stat, seal).await {
                Ok(()) => {
                    place.device.set(copy.store().device());
                    *place.chunk.borrow_mut() = Some(copy);
                    // If that fails the store has: what is left on it is found when it is added again.
                    let _ = chunk.store().give_up(stat.id).await;
                    return Moved::Bytes(seal.length);
                }
                Err(Trouble::Source) => {
                    let _ = copy.store().give_up(stat.id).await;
                    return Moved::Unreadable;
                }
                // The target has failed, and is not tried again.
                Err(Trouble::Target(_)) if copy.store().info().failed => {}
                Err(Trouble::Target(error)) => {
                    let _ = copy.store().give_up(stat.id).await;
                    return Moved::NoPlace(error);
                }
            }
        }
    }

    /// Copies, compares, seals.
    async fn copy(
        &self,
        chunk: &LocalChunk<E, D>,
        copy: &LocalChunk<E, D>,
        stat: ChunkStat,
        seal: Seal,
    ) -> Result<(), Trouble> {
        let written = self.transfer(chunk, copy, stat, seal).await?;
        let read = self.checksum(copy, seal).await.map_err(Trouble::Target)?;
        if read != written {
            return Err(Trouble::Source);
        }
        copy.seal_now(Ok(()), seal).await.map_err(Trouble::Target)
    }

    /// Copies the data. Their checksum.
    async fn transfer(
        &self,
        chunk: &LocalChunk<E, D>,
        copy: &LocalChunk<E, D>,
        stat: ChunkStat,
        seal: Seal,
    ) -> Result<u32, Trouble> {
        let (from_align, to_align) = (chunk.align_bytes(), copy.align_bytes());
        let mut crc = 0;
        for at in (0..seal.length).step_by(PIECE_BYTES as usize) {
            let len = PIECE_BYTES.min(seal.length - at);
            let (there, here) = (len.next_multiple_of(from_align), len.next_multiple_of(to_align));
            let buf = self.scratch.alloc(there as usize).await;
            let data = chunk.read(at, buf).await.map_err(|_| Trouble::Source)?;
            crc = crc32c_append(crc, &data[..len as usize]);
            let data = data.freeze();
            // The tail's memory is of another size, and whoever has the piece is alone: it never waits for it. Devices
            // with larger granules get zeros after the end.
            let pieces = if here <= there {
                vec![data.slice(0, here as usize)]
            } else {
                let whole = there / to_align * to_align;
                let mut tail = self.scratch.alloc((here - whole) as usize).await;
                tail.fill(0);
                tail[..(there - whole) as usize].copy_from_slice(&data[whole as usize..]);
                vec![data.slice(0, whole as usize), tail.freeze()]
            };
            copy.append_now(stat.epoch, at, &pieces).await.map_err(Trouble::Target)?;
        }
        Ok(crc)
    }

    async fn checksum(&self, chunk: &LocalChunk<E, D>, seal: Seal) -> Result<u32, StoreError> {
        let align = chunk.align_bytes();
        let mut crc = 0;
        for at in (0..seal.length).step_by(PIECE_BYTES as usize) {
            let len = PIECE_BYTES.min(seal.length - at);
            let buf = self.scratch.alloc(len.next_multiple_of(align) as usize).await;
            let data = chunk.read(at, buf).await?;
            crc = crc32c_append(crc, &data[..len as usize]);
        }
        Ok(crc)
    }
}
