//! What a volume's data lie on: a device as it is, or a volume of the engine.

use std::future::Future;

use ashlar_engine::lane::VolumeDisk;
use ashlar_engine::store::pool::CopyStore;
use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, DiskExtent, DiskInfo, Durability};
use ashlar_env::units::ByteRange;
use ashlar_runtime::{Device, ReactorEnv};

/// A volume of the engine.
pub(crate) type LogDisk = VolumeDisk<ReactorEnv, CopyStore<ReactorEnv, Device>>;

/// A disk of either kind.
#[derive(Clone)]
pub(crate) enum NodeDisk {
    Device(Device),
    Log(LogDisk),
}

/// Passes an operation to the disk of the kind at hand. The engine's futures are five times as large as a device's, so
/// they are boxed: every command under way has room for the larger of the two.
macro_rules! pass {
    ($disk:expr, $it:ident => $operation:expr) => {{
        let disk = $disk.clone();
        async move {
            match &disk {
                NodeDisk::Device($it) => $operation.await,
                NodeDisk::Log($it) => Box::pin($operation).await,
            }
        }
    }};
}

impl Disk for NodeDisk {
    fn info(&self) -> DiskInfo {
        match self {
            Self::Device(device) => device.info(),
            Self::Log(volume) => volume.info(),
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

    fn copy(&self, from: ByteRange, to: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        pass!(self, disk => disk.copy(from, to))
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        pass!(self, disk => disk.resize(size_bytes))
    }
}
