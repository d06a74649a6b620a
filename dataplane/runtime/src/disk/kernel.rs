//! Files and block devices of the kernel, through the reactor's ring.

use std::fs::File;
use std::future::Future;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ashlar_env::buf::{Buf, BufMut, BufPool, MAX_BYTES, PoolPlan};
use ashlar_env::disk::{Disk, DiskError, DiskExtent, DiskInfo, Durability};
use ashlar_env::units::ByteRange;
use ashlar_env::volume::EXTENTS_MAX;

use super::check_range;
use super::open::OpenDevice;
use crate::engine::Engine;
use crate::helper;
use crate::op::{Held, Kind, Op};
use crate::ring::Run;
use crate::sysdisk;

/// How many buffers of each size a device may copy data into that is not aligned for it.
const BOUNCE: PoolPlan = PoolPlan { limits: [16, 8, 4, 4, 4] };

/// An open file or device, as all reactors share it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) file: File,
    /// What to call it in messages.
    pub(crate) name: String,
    pub(crate) is_block: bool,
    /// Alignment of transfers on the device, in bytes.
    pub(crate) block_bytes: u32,
    /// Alignment of transfers in memory, in bytes.
    pub(crate) memory_align_bytes: u32,
    pub(crate) physical_block_bytes: u32,
    pub(crate) volatile_cache: bool,
    pub(crate) read_only: bool,
    pub(crate) discard_granularity_bytes: u32,
    /// Whether punching a hole is certain to leave zeros.
    pub(crate) discard_zeroes: bool,
    pub(crate) size_bytes: AtomicU64,
    /// What the device was found not to know: [`NO_PUNCH`], [`NO_ZERO_RANGE`].
    pub(crate) lacks: AtomicU8,
    /// The first failure to write or flush.
    pub(crate) failure: OnceLock<String>,
}

const NO_PUNCH: u8 = 1;
const NO_ZERO_RANGE: u8 = 2;

impl Shared {
    /// Takes the device out of use for writing, for good: what it holds is unknown.
    pub(crate) fn latch(&self, what: String) -> DiskError {
        if self.failure.set(what.clone()).is_ok() {
            tracing::error!(device = self.name, failure = what, "a device failed; no more writes go to it");
        }
        DiskError::Medium(what)
    }

    pub(crate) fn check_writable(&self) -> Result<(), DiskError> {
        if let Some(what) = self.failure.get() {
            return Err(DiskError::Latched(what.clone()));
        }
        if self.read_only { Err(DiskError::ReadOnly) } else { Ok(()) }
    }

    fn check_range(&self, start: u64, len: u64) -> Result<(), DiskError> {
        check_range(start, len, self.block_bytes, self.size_bytes.load(Ordering::Relaxed))
    }
}

/// A share in the device, counted without atomics on its reactor: once per operation.
#[derive(Debug)]
pub(crate) struct Target(Arc<Shared>);

impl Target {
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self(shared))
    }
}

impl Deref for Target {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// A file or block device, as one reactor uses it.
#[derive(Clone)]
pub(crate) struct KernelDisk {
    engine: Rc<Engine>,
    shared: Rc<Target>,
    bounce: BufPool,
}

impl KernelDisk {
    pub(crate) fn new(engine: Rc<Engine>, shared: Arc<Shared>) -> Self {
        Self { engine, shared: Target::new(shared), bounce: BufPool::on_heap(BOUNCE) }
    }

    pub(crate) fn share(&self) -> OpenDevice {
        OpenDevice::shared(Arc::clone(&self.shared.0))
    }

    async fn run(&self, kind: Kind, start: u64, held: Held) -> (Held, Result<(), DiskError>) {
        Run::new(Rc::clone(&self.engine), Op::new(Rc::clone(&self.shared), kind, start, held)).await
    }

    async fn write_aligned(&self, start: u64, data: Buf, durability: Durability) -> Result<(), DiskError> {
        let data = if data.as_ptr().addr().is_multiple_of(self.shared.memory_align_bytes as usize) {
            data
        } else {
            // Waiting here while holding `data` is safe: who holds one of these waits for the device alone.
            let mut copy = self.bounce.alloc(data.len()).await;
            copy.copy_from_slice(&data);
            copy.freeze()
        };
        self.run(Kind::Write(durability), start, Held::Carries(data)).await.1
    }

    /// Applies `fallocate`; [`DiskError::Unsupported`] once and for ever where the device does not know `mode`.
    async fn allocate(&self, mode: i32, lack: u8, range: ByteRange) -> Result<(), DiskError> {
        if self.shared.lacks.load(Ordering::Relaxed) & lack != 0 {
            return Err(DiskError::Unsupported);
        }
        let mode = mode | libc::FALLOC_FL_KEEP_SIZE;
        let kind = Kind::Allocate { mode, len: range.len };
        let (_, result) = self.run(kind, range.start, Held::Nothing).await;
        if result == Err(DiskError::Unsupported) {
            self.shared.lacks.fetch_or(lack, Ordering::Relaxed);
        }
        result
    }

    async fn punch(&self, range: ByteRange) -> Result<(), DiskError> {
        self.allocate(libc::FALLOC_FL_PUNCH_HOLE, NO_PUNCH, range).await
    }

    /// Makes a range zeros by the cheapest way the device knows.
    async fn zero(&self, range: ByteRange, free: bool) -> Result<(), DiskError> {
        if free {
            match self.punch(range).await {
                Err(DiskError::Unsupported) => {}
                result => return result,
            }
        }
        match self.allocate(libc::FALLOC_FL_ZERO_RANGE, NO_ZERO_RANGE, range).await {
            Err(DiskError::Unsupported) => {}
            result => return result,
        }
        let end = range.end();
        let mut at = range.start;
        while at < end {
            let len = (end - at).min(MAX_BYTES as u64);
            self.write_aligned(at, Buf::zeroes(len as usize), Durability::Cached).await?;
            at += len;
        }
        Ok(())
    }

    async fn sync(&self) -> Result<(), DiskError> {
        self.shared.check_writable()?;
        self.run(Kind::Sync, 0, Held::Nothing).await.1
    }
}

/// A file's runs as extents of a range. What nothing was found about has space, as far as is known.
fn extents(range: ByteRange, runs: &[(u64, u64, bool)]) -> Box<[DiskExtent]> {
    if runs.is_empty() {
        return Box::from([DiskExtent { range, allocated: true }]);
    }
    let extent = |&(start, end, allocated): &(u64, u64, bool)| DiskExtent {
        range: ByteRange { start, len: end - start },
        allocated,
    };
    runs.iter().map(extent).collect()
}

/// What a failure of a helper's system call means.
fn refused(shared: &Shared, error: &std::io::Error) -> DiskError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => DiskError::NoSpace,
        Some(libc::EROFS | libc::EPERM | libc::EACCES) => DiskError::ReadOnly,
        Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL) => DiskError::Unsupported,
        _ => DiskError::Medium(format!("{}: {error}", shared.name)),
    }
}

impl Disk for KernelDisk {
    fn info(&self) -> DiskInfo {
        let shared = &*self.shared;
        DiskInfo {
            size_bytes: shared.size_bytes.load(Ordering::Relaxed),
            block_bytes: shared.block_bytes,
            physical_block_bytes: shared.physical_block_bytes,
            volatile_cache: shared.volatile_cache,
            read_only: shared.read_only,
            discard_granularity_bytes: shared.discard_granularity_bytes,
            discard_zeroes: shared.discard_zeroes,
            atomic_write_bytes: 0,
        }
    }

    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        let disk = self.clone();
        async move {
            disk.shared.check_range(start, buf.len() as u64)?;
            if buf.is_empty() {
                return Ok(buf);
            }
            let (held, result) = disk.run(Kind::Read, start, Held::Fills(buf)).await;
            result?;
            let Held::Fills(buf) = held else { panic!("a read gives its buffer back") };
            Ok(buf)
        }
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let disk = self.clone();
        async move {
            disk.shared.check_writable()?;
            disk.shared.check_range(start, data.len() as u64)?;
            if data.is_empty() {
                return Ok(());
            }
            disk.write_aligned(start, data, durability).await
        }
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let disk = self.clone();
        async move {
            // Nothing was ever written through a read-only device.
            if disk.shared.read_only {
                return Ok(());
            }
            // What completed on a device without a cache is durable; so says whoever opened it.
            if !disk.shared.volatile_cache {
                return disk.shared.check_writable();
            }
            disk.sync().await
        }
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let disk = self.clone();
        async move {
            disk.shared.check_writable()?;
            disk.shared.check_range(range.start, range.len)?;
            if range.len == 0 || disk.shared.discard_granularity_bytes == 0 {
                return Ok(());
            }
            if disk.shared.discard_zeroes {
                return disk.zero(range, true).await;
            }
            let shared = Arc::clone(&disk.shared.0);
            let done = helper::run(&disk.engine, move || {
                sysdisk::block_discard(&shared.file, range.start, range.len)
                    .map_err(|error| refused(&shared, &error))
            });
            done.await
        }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        free: bool,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let disk = self.clone();
        async move {
            disk.shared.check_writable()?;
            disk.shared.check_range(range.start, range.len)?;
            if range.len == 0 {
                return Ok(());
            }
            disk.zero(range, free).await?;
            if durability == Durability::Fua { disk.sync().await } else { Ok(()) }
        }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Box<[DiskExtent]>, DiskError>> + 'static {
        let disk = self.clone();
        async move {
            disk.shared.check_range(range.start, range.len)?;
            let shared = Arc::clone(&disk.shared.0);
            if shared.is_block {
                return Ok(Box::from([DiskExtent { range, allocated: true }]));
            }
            let found = helper::run(&disk.engine, move || {
                sysdisk::runs(&shared.file, range.start, range.end(), EXTENTS_MAX)
                    .map_err(|error| refused(&shared, &error))
            });
            Ok(extents(range, &found.await?))
        }
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let disk = self.clone();
        async move {
            disk.shared.check_writable()?;
            check_range(0, size_bytes, disk.shared.block_bytes, u64::MAX)?;
            let shared = Arc::clone(&disk.shared.0);
            let done = helper::run(&disk.engine, move || {
                let failed = |error: std::io::Error| refused(&shared, &error);
                if shared.is_block {
                    let there = super::block::size_bytes(&shared.file).map_err(failed)?;
                    if size_bytes > there {
                        return Err(DiskError::OutOfRange);
                    }
                } else {
                    shared.file.set_len(size_bytes).map_err(failed)?;
                    shared.file.sync_all().map_err(|error| {
                        shared.latch(format!("flushing {} after a resize: {error}", shared.name))
                    })?;
                }
                shared.size_bytes.store(size_bytes, Ordering::Relaxed);
                Ok(())
            });
            done.await
        }
    }
}
