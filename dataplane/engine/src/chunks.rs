//! What a store of chunks offers its writers, wherever it is.
//!
//! The engine above knows chunks only through these traits. The store of a local device implements them; that of
//! another node will. Futures may be dropped at any await: what was begun goes on.

use std::future::Future;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::DiskError;

use crate::ids::{ChunkId, Epoch, GroupId, SegmentId};

/// Why a chunk store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// the store has no such chunk
    #[error("no such chunk")]
    NotFound,
    /// the chunk exists already
    #[error("the chunk exists already")]
    Exists,
    /// a newer writer has fenced this one off
    #[error("fenced: epoch {fence} has taken over")]
    Fenced {
        /// the epoch below which the store refuses
        fence: u64,
    },
    /// an append that does not begin at the chunk's end, or differs from what is there
    #[error("the chunk ends at byte {end}, not at {asked}")]
    NotAtEnd {
        /// where it ends
        end: u32,
        /// where the append began
        asked: u32,
    },
    /// the chunk is sealed
    #[error("the chunk is sealed")]
    Sealed,
    /// the range is not aligned or does not lie in the chunk
    #[error("the chunk does not have this range")]
    OutOfRange,
    /// no slot is free
    #[error("no space is left in the store")]
    Full,
    /// every device that works has a copy of the segment
    #[error("no device is left that could take another copy")]
    NoDevice,
    /// the device failed
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl StoreError {
    /// Whether it is the device's, and another device might have done it.
    #[must_use]
    pub fn is_of_device(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::NoDevice)
    }
}

/// What a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// The device's identity.
    pub device: uuid::Uuid,
    /// What a chunk holds at most, in bytes; a multiple of `align_bytes`.
    pub chunk_bytes: u32,
    /// The granule of appends and reads, in bytes: 512 or 4096 (or the device's block). Data that is durable is never in
    /// the same granule as data that is not.
    pub align_bytes: u32,
    /// All chunks the store may hold.
    pub slots: u32,
    /// How many more it may take now.
    pub free: u32,
    /// The device failed a write or a flush: nothing more is written to it.
    pub failed: bool,
}

/// What is known of a chunk without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkStat {
    /// Its name.
    pub id: ChunkId,
    /// The epoch of the writer that made it.
    pub epoch: Epoch,
    /// Its length and successor, once sealed. The length of an open chunk is not on the device: whoever recovers finds
    /// it by reading.
    pub sealed: Option<Seal>,
}

/// How a chunk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Its length in bytes.
    pub length: u32,
    /// Where the log continues, if it was a segment of a log.
    pub next: Option<SegmentId>,
}

/// An open handle of a chunk: no look-up per operation.
pub trait Chunk: Clone + 'static {
    /// Appends `data`, one after the other, at `offset` (bytes), which must be the end of what was appended before
    /// (completed or not: appends may be in flight together and complete in any order). Each piece is a multiple of
    /// [`StoreInfo::align_bytes`]. Ready when durable.
    ///
    /// # Errors
    /// [`StoreError`]; after a failed append the store is failed, and what it holds there is unknown.
    fn append(
        &self,
        epoch: Epoch,
        offset: u32,
        data: &[Buf],
    ) -> impl Future<Output = Result<(), StoreError>> + 'static;

    /// Fills `buf` from `offset`. Beyond the end of an open chunk, within its capacity, anything may be read.
    fn read(&self, offset: u32, buf: BufMut) -> impl Future<Output = Result<BufMut, StoreError>> + 'static;

    /// Whether its device takes no more writes: it is read last, and better made again elsewhere.
    fn is_failing(&self) -> bool {
        false
    }

    /// Ends the chunk at `seal.length`, durably. Sealing again with the same is done already.
    fn seal(&self, epoch: Epoch, seal: Seal) -> impl Future<Output = Result<(), StoreError>> + 'static;
}

/// A store of chunks. Cloning is cheap and gives the same store.
pub trait Chunks: Clone + 'static {
    /// A handle of one of its chunks.
    type Chunk: Chunk;

    /// What it is now.
    fn info(&self) -> StoreInfo;

    /// Whether a device would take a new chunk of a segment that `beside` other stores have chunks of. Space is not asked
    /// for.
    fn can_hold(&self, beside: usize) -> bool {
        let _ = beside;
        !self.info().failed
    }

    /// Takes a free slot for a new chunk, durably.
    fn create(
        &self,
        id: ChunkId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<Self::Chunk, StoreError>> + 'static;

    /// The same from the slots kept in reserve as well, if the store keeps any: for what makes space.
    fn create_reserved(
        &self,
        id: ChunkId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<Self::Chunk, StoreError>> + 'static {
        self.create(id, epoch)
    }

    /// The chunk, if it is there.
    fn open(&self, id: ChunkId) -> Option<Self::Chunk>;

    /// What is known of the chunk.
    fn stat(&self, id: ChunkId) -> Option<ChunkStat>;

    /// All chunks of a group, or of all groups, in order.
    fn list(&self, group: Option<GroupId>) -> Vec<ChunkStat>;

    /// Frees the chunk's slot. Ready when that is durable; only then may the slot be taken again.
    fn delete(&self, id: ChunkId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static;

    /// From now on refuses writers of `group` with an epoch below `epoch`, durably. A lower fence than the present is
    /// refused with [`StoreError::Fenced`].
    fn fence(&self, group: GroupId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static;
}
