//! A disk served as it is: a raw image, a block device, or memory.
//!
//! Every command has the range it works on to itself while it changes it, and shares it while it reads
//! ([`crate::range_lock`]). So commands that overlap have one order, a command's range is one register to every
//! other command (long zeroing, verifying and copying excepted: those work piece by piece, and each piece is),
//! and a volume whose blocks are smaller than the disk's can be written by reading the disk's block, changing
//! it and writing it back.
//!
//! Reads and writes that the disk's blocks suit take the short way: one look at ranges and reservations, one
//! place in the range table, one call of the disk, no allocation. Everything else is in `windows` (what does
//! not suit the blocks) and `long` (what has more than one step).
//!
//! Buffers: a read takes its buffer from the reactor's pool before it asks for its range, because a write that
//! waits for that range holds one, too. Whatever needs memory of its own while it has a range takes it from a
//! separate scratch pool, one buffer at a time, and never waits for a range while it has it.
//!
//! An operation whose future is dropped after it was first polled goes on in the background (module `carry`),
//! reads excepted, which nobody misses.

mod allocation;
mod long;
mod windows;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use ashlar_env::buf::{Buf, BufPool, PoolPlan};
use ashlar_env::disk::{Disk, DiskError, Durability};
use ashlar_env::reservation::HostId;
use ashlar_env::units::{BlockRange, BlockSize, Lba, VolumeId};
use ashlar_env::volume::{Issuer, Operation, Outcome, VolumeInfo};
use ashlar_env::{Env, Volume, VolumeError};

use crate::carry::Carrier;
use crate::check::{access, check, within};
use crate::persist::{Desk, NoStore, ReservationStore};
use crate::range_lock::{Held, Hold, RangeLocks};
use crate::reservation::{Access, Reservations};

/// The largest scratch buffer, in bytes.
pub(crate) const SCRATCH_BYTES: u64 = 256 << 10;

/// The host under which the node itself has ranges.
const NOBODY: HostId = HostId([0; 16]);

/// A pool of scratch memory for all pass-through volumes of one reactor: at most 1.2 MiB, made when first
/// needed.
#[must_use]
pub fn scratch_pool() -> BufPool {
    BufPool::on_heap(PoolPlan { limits: [16, 8, 0, 4, 0] })
}

/// What a pass-through volume is to be.
pub struct Settings {
    /// Its identity.
    pub id: VolumeId,
    /// Its blocks; may be smaller or larger than the disk's.
    pub block_size: BlockSize,
    /// Whether to refuse writes to a disk that could be written.
    pub read_only: bool,
    /// The reservations it starts with: those stored, after [`Reservations::after_power_loss`].
    pub reservations: Reservations,
    /// See [`scratch_pool`].
    pub scratch: BufPool,
}

/// Why a disk cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// not even one block fits
    #[error("the disk has {size_bytes} bytes, less than one block of {block_bytes}")]
    TooSmall {
        /// the disk's size
        size_bytes: u64,
        /// the volume's block
        block_bytes: u32,
    },
    /// the disk's own block is not a power of two up to 4096
    #[error("the disk has blocks of {block_bytes} bytes, which cannot be served")]
    DiskBlock {
        /// the disk's block
        block_bytes: u32,
    },
}

/// Why a volume could not be resized. It is then as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResizeError {
    /// not a multiple of the blocks, or nothing
    #[error("a size must be a multiple of {granule_bytes} bytes and above 0")]
    Granule {
        /// what it must be a multiple of
        granule_bytes: u32,
    },
    /// smaller than now, and that was not asked for
    #[error("the volume has {size_bytes} bytes; to make it smaller loses what lies beyond the new end")]
    WouldShrink {
        /// the size now
        size_bytes: u64,
    },
    /// the disk has a size of its own
    #[error("the disk below has {size_bytes} bytes and does not change its size")]
    Fixed {
        /// the disk's size now
        size_bytes: u64,
    },
    /// the disk failed
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A pass-through volume. Cloning gives the same volume.
pub struct PassThrough<E, D, S = NoStore> {
    inner: Rc<Inner<E, D, S>>,
}

impl<E, D, S> Clone for PassThrough<E, D, S> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

pub(crate) struct Inner<E, D, S> {
    env: E,
    disk: D,
    info: Cell<VolumeInfo>,
    /// The disk's block in bytes.
    disk_block: u32,
    /// How many of the volume's blocks make one of the disk's; 1 where the volume's are no smaller.
    blocks_per_disk_block: u64,
    locks: RangeLocks,
    desk: Desk<S>,
    scratch: BufPool,
    carrier: Carrier,
    /// One resize at a time.
    resizing: RangeLocks,
}

fn describe(settings: &Settings, disk: &impl Disk) -> VolumeInfo {
    let disk = disk.info();
    let block = settings.block_size;
    let in_blocks = |bytes: u32| bytes >> block.shift();
    let frees = disk.discard_granularity_bytes > 0;
    VolumeInfo {
        id: settings.id,
        block_size: block,
        blocks: disk.size_bytes >> block.shift(),
        read_only: settings.read_only || disk.read_only,
        volatile_cache: disk.volatile_cache,
        thin: frees,
        unmap_granularity_blocks: if frees { in_blocks(disk.discard_granularity_bytes).max(1) } else { 0 },
        preferred_write_blocks: in_blocks(disk.physical_block_bytes.max(disk.block_bytes)).max(1),
        // Commands keep out of each other's way in any case: what they write is bounded by the disk alone.
        atomic_write_blocks: in_blocks(disk.atomic_write_bytes).max(1),
    }
}

impl<E: Env, D: Disk, S: ReservationStore> PassThrough<E, D, S> {
    /// Serves `disk`. Reservations that are to survive power loss go to `store`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn new(env: E, disk: D, settings: Settings, store: S) -> Result<Self, OpenError> {
        let info = describe(&settings, &disk);
        let disk_block = disk.info().block_bytes;
        if !disk_block.is_power_of_two() || disk_block > 4096 {
            return Err(OpenError::DiskBlock { block_bytes: disk_block });
        }
        if info.blocks == 0 {
            let (size_bytes, block_bytes) = (disk.info().size_bytes, info.block_size.bytes());
            return Err(OpenError::TooSmall { size_bytes, block_bytes });
        }
        let inner = Inner {
            env,
            disk,
            info: Cell::new(info),
            disk_block,
            blocks_per_disk_block: u64::from((disk_block / info.block_size.bytes()).max(1)),
            locks: RangeLocks::default(),
            desk: Desk::new(info.id, settings.reservations, store),
            scratch: settings.scratch,
            carrier: Carrier::default(),
            resizing: RangeLocks::default(),
        };
        Ok(Self { inner: Rc::new(inner) })
    }

    /// The reservation state now.
    #[must_use]
    pub fn reservations(&self) -> Reservations {
        self.inner.desk.state().clone()
    }

    /// How many commands hold a range of the volume or wait for one. For metrics and tests.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.locks.in_flight()
    }

    /// Gives the volume the size of `size_bytes`, the disk along with it. Making it smaller needs `shrink`, and
    /// waits for the commands beyond the new end. A block device is not resized, but its new size is taken note
    /// of when it is the one asked for. Hosts learn of it from [`Volume::info`].
    ///
    /// # Errors
    /// See [`ResizeError`].
    pub async fn resize(&self, size_bytes: u64, shrink: bool) -> Result<VolumeInfo, ResizeError> {
        let inner = &self.inner;
        let one = BlockRange::new(Lba(0), 1).expect("it is short");
        let _turn = inner.resizing.request(one, Hold::Exclusive, NOBODY).granted().await;
        let before = inner.info.get();
        let granule_bytes = before.block_size.bytes().max(inner.disk_block);
        if size_bytes == 0 || !size_bytes.is_multiple_of(u64::from(granule_bytes)) {
            return Err(ResizeError::Granule { granule_bytes });
        }
        let blocks = size_bytes >> before.block_size.shift();
        if blocks < before.blocks && !shrink {
            return Err(ResizeError::WouldShrink { size_bytes: before.blocks << before.block_size.shift() });
        }
        let size = SizeChange { info: &inner.info, before: before.blocks };
        if blocks < before.blocks {
            size.set(blocks);
            let tail = BlockRange::new(Lba(blocks), before.blocks - blocks).expect("it lies in the volume");
            drop(inner.locks.request(tail, Hold::Exclusive, NOBODY).granted().await);
        }
        let resized = inner.disk.resize(size_bytes).await;
        let disk_bytes = inner.disk.info().size_bytes;
        if let Err(DiskError::OutOfRange | DiskError::Unsupported) = resized {
            return Err(ResizeError::Fixed { size_bytes: disk_bytes });
        }
        resized?;
        if disk_bytes != size_bytes {
            return Err(ResizeError::Fixed { size_bytes: disk_bytes });
        }
        size.keep(blocks);
        Ok(inner.info.get())
    }
}

/// A change of size under way; undone when dropped before [`Self::keep`].
struct SizeChange<'a> {
    info: &'a Cell<VolumeInfo>,
    before: u64,
}

impl SizeChange<'_> {
    fn set(&self, blocks: u64) {
        self.info.set(VolumeInfo { blocks, ..self.info.get() });
    }

    fn keep(mut self, blocks: u64) {
        self.before = blocks;
    }
}

impl Drop for SizeChange<'_> {
    fn drop(&mut self) {
        self.set(self.before);
    }
}

impl<E: Env, D: Disk, S: ReservationStore> Volume for PassThrough<E, D, S> {
    fn info(&self) -> VolumeInfo {
        self.inner.info.get()
    }

    fn execute(
        &self,
        issuer: Issuer,
        operation: Operation,
    ) -> impl Future<Output = Result<Outcome, VolumeError>> + 'static {
        let goes_on = !matches!(operation, Operation::Read { .. });
        let run = Rc::clone(&self.inner).run(issuer, operation);
        self.inner.carrier.start(&self.inner.env, run, goes_on)
    }
}

impl<E: Env, D: Disk, S: ReservationStore> Inner<E, D, S> {
    /// One operation, from its checks to its end.
    async fn run(self: Rc<Self>, issuer: Issuer, operation: Operation) -> Result<Outcome, VolumeError> {
        check(&self.info.get(), &operation)?;
        if let Some(access) = access(&operation) {
            self.desk.check(issuer.host, access)?;
        }
        match operation {
            Operation::Read { range } if self.suits_disk(range) => {
                let pool = self.env.buffers();
                let len = self.byte_len(range) as usize;
                let buf = match pool.try_alloc(len) {
                    Some(buf) => buf,
                    None => pool.alloc(len).await,
                };
                let _held = self.enter(issuer, range, Hold::Shared, Access::Read).await?;
                let read = self.disk.read(self.byte_start(range), buf).await;
                Ok(Outcome::Data(read.map_err(|error| VolumeError::from_read(&error))?.freeze()))
            }
            Operation::Write { range, data, durability } if self.suits_disk(range) => {
                let _held = self.enter(issuer, range, Hold::Exclusive, Access::Write).await?;
                self.write_disk(self.byte_start(range), data, durability).await?;
                Ok(Outcome::Done)
            }
            Operation::Flush => self.flush().await,
            Operation::Permit(_) => Ok(Outcome::Done),
            other => Box::pin(self.run_rare(issuer, other)).await,
        }
    }

    async fn run_rare(&self, issuer: Issuer, operation: Operation) -> Result<Outcome, VolumeError> {
        use Operation as O;
        match operation {
            O::Read { range } => return self.read_windows(issuer, range).await,
            O::Write { range, data, durability } => {
                let _held = self.enter(issuer, range, Hold::Exclusive, Access::Write).await?;
                self.overlay(self.bytes(range), Some(&data), durability).await?;
            }
            O::Flush => return self.flush().await,
            O::WriteZeroes { range, free, durability } => {
                self.write_zeroes(issuer, range, free, durability).await?;
            }
            O::Unmap { ranges } => {
                for range in ranges {
                    self.unmap(issuer, range).await?;
                }
            }
            O::Compare { range, expected } => {
                let _held = self.enter(issuer, range, Hold::Shared, Access::Read).await?;
                self.compare(self.bytes(range), &expected).await?;
            }
            O::CompareAndWrite { range, expected, data, durability } => {
                let _held = self.enter(issuer, range, Hold::Exclusive, Access::Write).await?;
                self.compare(self.bytes(range), &expected).await?;
                if self.suits_disk(range) {
                    self.write_disk(self.byte_start(range), data, durability).await?;
                } else {
                    self.overlay(self.bytes(range), Some(&data), durability).await?;
                }
            }
            O::Verify { range } => self.verify(issuer, range).await?,
            O::Copy { sources, to, durability } => self.copy(issuer, &sources, to, durability).await?,
            O::Allocation { range } => return self.allocation(range).await,
            O::Reserve(action) => return self.desk.act(issuer.host, action, &self.locks).await,
            O::ReserveNexus(action) => return self.desk.act_nexus(issuer, &action, &self.locks).await,
            O::Permit(_) => {}
        }
        Ok(Outcome::Done)
    }

    async fn flush(&self) -> Result<Outcome, VolumeError> {
        let info = self.info.get();
        if info.volatile_cache && !info.read_only {
            self.disk.flush().await.map_err(|error| VolumeError::from_write(&error))?;
        }
        Ok(Outcome::Done)
    }

    async fn write_disk(&self, start: u64, data: Buf, durability: Durability) -> Result<(), VolumeError> {
        self.disk.write(start, data, durability).await.map_err(|error| VolumeError::from_write(&error))
    }

    /// Waits for the range, widened to whole blocks of the disk. What was checked before may have changed
    /// meanwhile and is checked again.
    async fn enter(
        &self,
        issuer: Issuer,
        range: BlockRange,
        hold: Hold,
        access: Access,
    ) -> Result<Held<'_>, VolumeError> {
        let mut held = self.locks.request(self.widen(range), hold, issuer.host);
        if !held.is_granted() {
            held = held.granted().await;
        }
        self.check_again(issuer, range, access)?;
        Ok(held)
    }

    fn check_again(&self, issuer: Issuer, range: BlockRange, access: Access) -> Result<(), VolumeError> {
        within(&self.info.get(), range)?;
        self.desk.check(issuer.host, access)
    }

    /// Whether the disk can transfer the range as it is.
    fn suits_disk(&self, range: BlockRange) -> bool {
        (range.first().0 | range.blocks()) & (self.blocks_per_disk_block - 1) == 0
    }

    /// The range in whole blocks of the disk.
    fn widen(&self, range: BlockRange) -> BlockRange {
        let mask = self.blocks_per_disk_block - 1;
        let first = range.first().0 & !mask;
        let end = range.end().0.checked_add(mask).map_or(u64::MAX, |end| end & !mask);
        BlockRange::new(Lba(first), end - first).expect("a range within 64 bits")
    }

    fn byte_start(&self, range: BlockRange) -> u64 {
        range.first().0 << self.info.get().block_size.shift()
    }

    fn byte_len(&self, range: BlockRange) -> u64 {
        range.blocks() << self.info.get().block_size.shift()
    }
}
