//! Devices: files and block devices through the reactor's ring, memory, and nothing at all.

pub(crate) mod block;
pub(crate) mod kernel;
pub(crate) mod memory;
pub(crate) mod open;

use std::future::Future;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, DiskExtent, DiskInfo, Durability};
use ashlar_env::units::ByteRange;

use kernel::KernelDisk;
use memory::{MemoryDisk, NullDisk};

/// A device of any kind, owned by one reactor. Cloning gives the same device.
#[derive(Clone)]
pub struct Device(Kind);

#[derive(Clone)]
enum Kind {
    Kernel(KernelDisk),
    Memory(MemoryDisk),
    Null(NullDisk),
}

impl Device {
    /// A disk in the memory of this process, of zeros; lost with the process. Memory is taken as it is written.
    /// `size_bytes` is rounded down to whole blocks.
    #[must_use]
    pub fn memory(size_bytes: u64) -> Self {
        Self(Kind::Memory(MemoryDisk::new(size_bytes)))
    }

    /// A disk that forgets what is written and reads as zeros: for measuring what lies above. `size_bytes` is
    /// rounded down to whole blocks.
    #[must_use]
    pub fn null(size_bytes: u64) -> Self {
        Self(Kind::Null(NullDisk::new(size_bytes)))
    }

    pub(crate) fn kernel(disk: KernelDisk) -> Self {
        Self(Kind::Kernel(disk))
    }

    /// The same open file or block device for another reactor; a failure seen by one is latched for both.
    /// `None` for a device that lives on this reactor alone.
    #[must_use]
    pub fn share(&self) -> Option<open::OpenDevice> {
        match &self.0 {
            Kind::Kernel(disk) => Some(disk.share()),
            Kind::Memory(_) | Kind::Null(_) => None,
        }
    }
}

/// Passes an operation to the device of the kind at hand.
macro_rules! pass {
    ($device:expr, $disk:ident => $operation:expr) => {{
        let device = $device.clone();
        async move {
            match &device.0 {
                Kind::Kernel($disk) => $operation.await,
                Kind::Memory($disk) => $operation.await,
                Kind::Null($disk) => $operation.await,
            }
        }
    }};
}

impl Disk for Device {
    fn info(&self) -> DiskInfo {
        match &self.0 {
            Kind::Kernel(disk) => disk.info(),
            Kind::Memory(disk) => disk.info(),
            Kind::Null(disk) => disk.info(),
        }
    }

    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        pass!(self, disk => disk.read(start, buf))
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        pass!(self, disk => disk.write(start, data, durability))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        pass!(self, disk => disk.flush())
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        pass!(self, disk => disk.discard(range))
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        free: bool,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        pass!(self, disk => disk.write_zeroes(range, free, durability))
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Box<[DiskExtent]>, DiskError>> + 'static {
        pass!(self, disk => disk.allocation(range))
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        pass!(self, disk => disk.resize(size_bytes))
    }
}

/// Whether `start` and `len` are whole blocks within `size_bytes`.
fn check_range(start: u64, len: u64, block_bytes: u32, size_bytes: u64) -> Result<(), DiskError> {
    let block = u64::from(block_bytes);
    let aligned = start.is_multiple_of(block) && len.is_multiple_of(block);
    let within = start.checked_add(len).is_some_and(|end| end <= size_bytes);
    if aligned && within { Ok(()) } else { Err(DiskError::OutOfRange) }
}
