//! A volume as a disk: what the layers above serve to hosts.
//!
//! Every write is durable when it completes, so a flush has nothing to do. A write of up to 1 MiB of whole blocks (4 KiB) is
//! all or nothing; one that begins or ends within a block reads that block first, alone.

use std::future::Future;
use std::rc::Rc;

use ashlar_env::Env;
use ashlar_env::buf::{Buf, BufMut, MAX_BYTES};
use ashlar_env::disk::{Disk, DiskError, DiskExtent, DiskInfo, Durability};
use ashlar_env::units::ByteRange;

use crate::chunks::{Chunks, StoreError};
use crate::ids::{BLOCK_BYTES, BLOCK_SHIFT};
use crate::log::LogError;

use super::core::VolumeNumber;
use super::place::Place;
use super::write::Clear;
use super::{Inner, Lane, LaneError};

/// The largest write that is promised to be all or nothing, in bytes, of a volume with blocks of `block_bytes`: one record
/// of the log holds it, also where it begins and ends within blocks.
const fn atomic_bytes(block_bytes: u32) -> u32 {
    let whole = MAX_BYTES as u32;
    if block_bytes == BLOCK_BYTES as u32 { whole } else { whole / 2 }
}

// With the blocks in which it begins and ends it is still one operation of the log.
const _: () = assert!(atomic_bytes(512) as usize + 2 * BLOCK_BYTES <= MAX_BYTES);

/// A volume of a lane. Cloning gives the same volume.
pub struct VolumeDisk<E: Env, C: Chunks> {
    lane: Lane<E, C>,
    volume: VolumeNumber,
    block_bytes: u32,
}

impl<E: Env, C: Chunks> Clone for VolumeDisk<E, C> {
    fn clone(&self) -> Self {
        Self { lane: self.lane.clone(), volume: self.volume, block_bytes: self.block_bytes }
    }
}

impl<E: Env, C: Chunks> Lane<E, C> {
    /// A volume as a disk of blocks of `block_bytes`, 512 or 4096.
    #[must_use]
    pub fn disk(&self, volume: VolumeNumber, block_bytes: u32) -> VolumeDisk<E, C> {
        VolumeDisk { lane: self.clone(), volume, block_bytes }
    }
}

/// What a lane's error means for whoever uses a disk.
fn disk_error(error: LaneError) -> DiskError {
    match error {
        LaneError::Full => DiskError::NoSpace,
        LaneError::OutOfRange => DiskError::OutOfRange,
        LaneError::Closed | LaneError::NoVolume => DiskError::Gone,
        LaneError::Store(StoreError::Disk(error)) => error,
        LaneError::Log(LogError::Invalid) => DiskError::Unsupported,
        LaneError::Log(error) => DiskError::Latched(error.to_string()),
        error => DiskError::Medium(error.to_string()),
    }
}

impl<E: Env, C: Chunks> VolumeDisk<E, C> {
    fn size_bytes(&self) -> u64 {
        self.lane.0.core().volumes.get(&self.volume).map_or(0, |volume| volume.size_bytes)
    }

    fn check(&self, start: u64, len: u64) -> Result<(), LaneError> {
        let block = u64::from(self.block_bytes);
        let aligned = start.is_multiple_of(block) && len.is_multiple_of(block);
        let inside = start.checked_add(len).is_some_and(|end| end <= self.size_bytes());
        if aligned && inside { Ok(()) } else { Err(LaneError::OutOfRange) }
    }
}

const fn is_whole(start: u64, len: usize) -> bool {
    start.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES)
}

/// The blocks that the bytes from `start` to before `end` lie in: first, and the one after the last.
const fn blocks(start: u64, end: u64) -> (u64, u64) {
    (start >> BLOCK_SHIFT, end.div_ceil(BLOCK_BYTES as u64))
}

impl<E: Env, C: Chunks> Inner<E, C> {
    pub(super) async fn read_bytes(
        &self,
        volume: VolumeNumber,
        start: u64,
        mut buf: BufMut,
    ) -> Result<BufMut, LaneError> {
        if is_whole(start, buf.len()) {
            return self.read_blocks(volume, start >> BLOCK_SHIFT, buf).await;
        }
        let mut done = 0;
        while done < buf.len() {
            let from = start + done as u64;
            let (first, end) = blocks(from, from + (buf.len() - done).min(MAX_BYTES / 2) as u64);
            let len = ((end - first) as usize) << BLOCK_SHIFT;
            let cover = self.read_blocks(volume, first, self.scratch.alloc(len).await).await?;
            let skip = (from - (first << BLOCK_SHIFT)) as usize;
            let some = (len - skip).min(buf.len() - done);
            buf[done..done + some].copy_from_slice(&cover[skip..skip + some]);
            done += some;
        }
        Ok(buf)
    }

    /// Writes bytes: whole blocks together with others that write, parts of blocks alone.
    pub(super) async fn write_bytes(
        this: &Rc<Self>,
        volume: VolumeNumber,
        start: u64,
        data: Buf,
    ) -> Result<(), LaneError> {
        let (first, end) = blocks(start, start + data.len() as u64);
        if (end - first) << BLOCK_SHIFT > MAX_BYTES as u64 {
            // Too long for one operation with its edges: in two.
            let half = (((first + 1) << BLOCK_SHIFT) - start) as usize;
            let (head, tail) = (data.slice(0, half), data.slice(half, data.len() - half));
            Box::pin(Self::write_bytes(this, volume, start, head)).await?;
            return Box::pin(Self::write_bytes(this, volume, start + half as u64, tail)).await;
        }
        let part = !is_whole(start, data.len());
        let place = Place::of(this, volume, (first, end), part).await;
        let written = this.write_inside(volume, start, data).await;
        place.end(written)
    }

    /// Writes up to [`MAX_BYTES`] bytes of blocks for which the caller has a place.
    async fn write_inside(&self, volume: VolumeNumber, start: u64, data: Buf) -> Result<(), LaneError> {
        let _inside = self.admitted().await?;
        self.check_inside(volume, start, data.len() as u64)?;
        if is_whole(start, data.len()) {
            return self.write_blocks(volume, start >> BLOCK_SHIFT, data).await;
        }
        self.write_part(volume, start, &data).await
    }

    /// Writes what begins or ends within a block, for whoever is admitted and has a place alone.
    async fn write_part(&self, volume: VolumeNumber, start: u64, data: &[u8]) -> Result<(), LaneError> {
        let (first, end) = blocks(start, start + data.len() as u64);
        let cover = self.scratch.alloc(((end - first) as usize) << BLOCK_SHIFT).await;
        let mut cover = self.read_blocks(volume, first, cover).await?;
        let skip = (start - (first << BLOCK_SHIFT)) as usize;
        cover[skip..skip + data.len()].copy_from_slice(data);
        self.write_blocks(volume, first, cover.freeze()).await
    }

    /// Whether the volume has these bytes now.
    pub(super) fn check_inside(&self, volume: VolumeNumber, start: u64, len: u64) -> Result<(), LaneError> {
        let core = self.core();
        let size_bytes = core.volumes.get(&volume).ok_or(LaneError::NoVolume)?.size_bytes;
        let inside = start.checked_add(len).is_some_and(|end| end <= size_bytes);
        if inside { Ok(()) } else { Err(LaneError::OutOfRange) }
    }

    /// Makes the bytes from `start` to before `end` zero.
    async fn clear_bytes(
        this: &Rc<Self>,
        volume: VolumeNumber,
        start: u64,
        end: u64,
        how: Clear,
    ) -> Result<(), LaneError> {
        // Parts of blocks are changed alone, so whole blocks between them have a place of their own.
        let (whole, whole_end) = whole_blocks(start, end);
        for (start, end) in [(start, whole), (whole, whole_end), (whole_end, end)] {
            if start < end {
                let part = (start, end) != (whole, whole_end);
                let place = Place::of(this, volume, blocks(start, end), part).await;
                let cleared = this.clear_admitted(volume, start, end, how).await;
                place.end(cleared)?;
            }
        }
        Ok(())
    }

    async fn clear_admitted(
        &self,
        volume: VolumeNumber,
        start: u64,
        end: u64,
        how: Clear,
    ) -> Result<(), LaneError> {
        let _inside = self.admitted().await?;
        self.check_inside(volume, start, end - start)?;
        self.clear_inside(volume, start, end, how).await
    }

    /// The same as [`Self::clear_bytes`] for whoever is admitted and has a place alone.
    pub(super) async fn clear_inside(
        &self,
        volume: VolumeNumber,
        start: u64,
        end: u64,
        how: Clear,
    ) -> Result<(), LaneError> {
        let (whole, whole_end) = whole_blocks(start, end);
        for (start, end) in [(start, whole), (whole_end, end)] {
            if start < end {
                self.write_part(volume, start, &Buf::zeroes((end - start) as usize)).await?;
            }
        }
        self.clear_blocks(volume, whole >> BLOCK_SHIFT, whole_end >> BLOCK_SHIFT, how).await
    }
}

/// Where the whole blocks of the bytes from `start` to before `end` begin and end; both `end` where there are none.
const fn whole_blocks(start: u64, end: u64) -> (u64, u64) {
    let block = BLOCK_BYTES as u64;
    let (whole, whole_end) = (start.next_multiple_of(block), end / block * block);
    if whole < whole_end { (whole, whole_end) } else { (end, end) }
}

impl<E: Env, C: Chunks> Disk for VolumeDisk<E, C> {
    fn info(&self) -> DiskInfo {
        DiskInfo {
            size_bytes: self.size_bytes(),
            block_bytes: self.block_bytes,
            physical_block_bytes: BLOCK_BYTES as u32,
            volatile_cache: false,
            read_only: false,
            discard_granularity_bytes: BLOCK_BYTES as u32,
            discard_zeroes: true,
            atomic_write_bytes: atomic_bytes(self.block_bytes),
        }
    }

    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        let this = self.clone();
        async move {
            this.check(start, buf.len() as u64).map_err(disk_error)?;
            this.lane.0.read_bytes(this.volume, start, buf).await.map_err(disk_error)
        }
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        _durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let this = self.clone();
        async move {
            this.check(start, data.len() as u64).map_err(disk_error)?;
            Inner::write_bytes(&this.lane.0, this.volume, start, data).await.map_err(disk_error)
        }
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let this = self.clone();
        async move { this.lane.0.check().map_err(disk_error) }
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let this = self.clone();
        async move {
            this.check(range.start, range.len).map_err(disk_error)?;
            let cleared =
                Inner::clear_bytes(&this.lane.0, this.volume, range.start, range.end(), Clear::Unmap);
            cleared.await.map_err(disk_error)
        }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        _free: bool,
        _durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let this = self.clone();
        async move {
            this.check(range.start, range.len).map_err(disk_error)?;
            let cleared =
                Inner::clear_bytes(&this.lane.0, this.volume, range.start, range.end(), Clear::Zero);
            cleared.await.map_err(disk_error)
        }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Box<[DiskExtent]>, DiskError>> + 'static {
        let this = self.clone();
        async move {
            this.check(range.start, range.len).map_err(disk_error)?;
            this.lane.0.extents(this.volume, range).await.map_err(disk_error)
        }
    }

    fn copy(&self, from: ByteRange, to: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let this = self.clone();
        async move {
            this.check(from.start, from.len).map_err(disk_error)?;
            this.check(to, from.len).map_err(disk_error)?;
            this.lane.copy(this.volume, &[from], this.volume, to).await.map_err(disk_error)
        }
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let this = self.clone();
        async move { this.lane.resize_volume(this.volume, size_bytes).await.map_err(disk_error) }
    }
}
