//! Block devices.

use std::future::{Future, ready};

use crate::buf::{Buf, BufMut};
use crate::units::ByteRange;

/// Whether a write may rest in the device's volatile cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Durable by the next flush that follows.
    Cached,
    /// Durable before the write completes (force unit access).
    Fua,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Alignment and granule of every transfer, in bytes: a power of two, at most 4096.
    pub block_bytes: u32,
    /// What the device writes without reading first, in bytes (physical block).
    pub physical_block_bytes: u32,
    /// Whether completed writes may be lost on power failure until a flush. True where it cannot be known.
    pub volatile_cache: bool,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether [`Disk::discard`] frees space, and in which granule (bytes); 0 where it does not.
    pub discard_granularity_bytes: u32,
    /// Whether a discarded range is certain to read as zeros.
    pub discard_zeroes: bool,
    /// The largest write, wherever it begins, that is there whole or not at all after a power failure, in bytes; 0 where
    /// no more than a block is.
    pub atomic_write_bytes: u32,
}

/// Why a disk operation failed. Nothing is retried below this line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// the range is not aligned to the device's block, or lies beyond its end
    #[error("the device does not have this range")]
    OutOfRange,
    /// the file system or thin pool below is full
    #[error("no space left below the device")]
    NoSpace,
    /// the device cannot be written
    #[error("the device is read-only")]
    ReadOnly,
    /// the medium failed to give or take the data
    #[error("medium error: {0}")]
    Medium(String),
    /// an earlier write or flush failed: the device is latched as failed, because what it holds is unknown
    #[error("latched after an earlier failure: {0}")]
    Latched(String),
    /// the device is gone, or was closed
    #[error("the device is gone")]
    Gone,
    /// the device does not know the operation
    #[error("not supported by the device")]
    Unsupported,
}

/// A run of bytes that have space below, or have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskExtent {
    /// Which bytes; never empty.
    pub range: ByteRange,
    /// Whether space is taken for them. True where it cannot be known; where it is false they read as zeros.
    pub allocated: bool,
}

/// A block device, owned by one reactor.
///
/// The operation owns the buffer until it completes: a future dropped early does not stop a write. Operations
/// issued together may take effect in any order. Ranges must be multiples of [`DiskInfo::block_bytes`].
pub trait Disk: 'static {
    /// The device's present properties. The size changes by [`Self::resize`].
    fn info(&self) -> DiskInfo;

    /// Fills `buf` (its whole length) from `start`.
    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static;

    /// Writes `data` at `start`.
    fn write(
        &self,
        start: u64,
        data: Buf,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static;

    /// Makes every write that completed before this call durable.
    ///
    /// # Errors
    /// A failure is final: the device latches, and this and all later writes and flushes fail.
    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static;

    /// Frees the range where the device can. It then reads as zeros where
    /// [`DiskInfo::discard_zeroes`] holds, else as anything.
    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static;

    /// Makes the range read as zeros, freeing it where `free` is set and the device can.
    fn write_zeroes(
        &self,
        range: ByteRange,
        free: bool,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static;

    /// What of `range` has space below: extents one after the other from its start, at least one, at most
    /// [`crate::volume::EXTENTS_MAX`]. They may end before the range does, where more would take too long. A device
    /// that cannot know says that all of it has.
    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Box<[DiskExtent]>, DiskError>> + 'static {
        ready(Ok(Box::from([DiskExtent { range, allocated: true }])))
    }

    /// Copies the range to `to` without moving its data, where the device can; durable when it completes. The two do not
    /// overlap, and nobody writes either meanwhile.
    ///
    /// # Errors
    /// [`DiskError::Unsupported`] where it cannot: the data are to be read and written then.
    fn copy(&self, from: ByteRange, to: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let _ = (from, to);
        async { Err(DiskError::Unsupported) }
    }

    /// Changes the size where the device can (files and memory; for a block device: takes note of its new
    /// size).
    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static;
}
