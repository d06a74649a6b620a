//! Block devices: their geometry and cache, as the kernel tells them.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Arc, OnceLock};

use super::kernel::Shared;
use super::open::{OpenDevice, OpenError, OpenOptions, open_file};
use crate::sysdisk;

/// What the kernel's queue says of a device.
#[derive(Debug, Default, PartialEq, Eq)]
struct Queue {
    /// `None` where it does not say.
    write_back: Option<bool>,
    discard_granularity_bytes: u32,
    discard_max_bytes: u64,
    write_zeroes_max_bytes: u64,
}

/// Opens a block device for this process alone: not one that is mounted or part of an array.
pub(super) fn open(path: &Path, options: OpenOptions) -> Result<OpenDevice, OpenError> {
    let alone = if options.read_only { 0 } else { libc::O_EXCL };
    let direct = if options.direct { libc::O_DIRECT } else { 0 };
    let file = open_file(path, options, alone | direct)?;
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.file_type().is_block_device() {
        return Err(OpenError::NotADisk { path: path.to_owned() });
    }
    let geometry = sysdisk::block_geometry(&file).map_err(io)?;
    let block_bytes = geometry.logical_bytes;
    if block_bytes > options.block_bytes_max || !block_bytes.is_power_of_two() {
        return Err(OpenError::BlockTooLarge { path: path.to_owned(), block_bytes });
    }
    if geometry.read_only && !options.read_only {
        let source = io::Error::from_raw_os_error(libc::EROFS);
        return Err(OpenError::NotWritable { path: path.to_owned(), source });
    }
    let size_bytes = size_bytes(&file).map_err(io)?;
    if size_bytes < u64::from(block_bytes) {
        return Err(OpenError::TooSmall { path: path.to_owned(), size_bytes, block_bytes });
    }
    let queue = Queue::read(&sysfs(metadata.rdev()));
    let frees = !options.read_only && queue.discard_max_bytes > 0;
    Ok(OpenDevice::shared(Arc::new(Shared {
        file,
        name: path.display().to_string(),
        is_block: true,
        block_bytes,
        // Buffers and windows of them are at least that aligned when their data is of whole blocks.
        memory_align_bytes: block_bytes,
        physical_block_bytes: geometry.physical_bytes.max(block_bytes),
        volatile_cache: queue.write_back.unwrap_or(true) || !options.direct,
        read_only: options.read_only,
        discard_granularity_bytes: if frees { queue.discard_granularity_bytes.max(block_bytes) } else { 0 },
        // A hole in a block device is a write of zeros that may unmap, and fails where the device has none.
        discard_zeroes: frees && queue.write_zeroes_max_bytes > 0,
        size_bytes: AtomicU64::new(size_bytes - size_bytes % u64::from(block_bytes)),
        lacks: AtomicU8::new(0),
        failure: OnceLock::new(),
    })))
}

/// The size of the device now, in bytes.
pub(super) fn size_bytes(file: &File) -> io::Result<u64> {
    sysdisk::block_size_bytes(file)
}

/// Where the kernel describes the device with number `rdev`.
fn sysfs(rdev: u64) -> PathBuf {
    let device = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(rdev), libc::minor(rdev)));
    let own = device.join("queue");
    // A partition has the queue of its disk, the folder above (of where the link leads).
    if own.exists() { own } else { device.join("../queue") }
}

impl Queue {
    fn read(folder: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| text(name).and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        Self {
            write_back: text("write_cache").map(|text| text.trim() != "write through"),
            discard_granularity_bytes: u32::try_from(number("discard_granularity")).unwrap_or(u32::MAX),
            discard_max_bytes: number("discard_max_bytes"),
            write_zeroes_max_bytes: number("write_zeroes_max_bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_read_and_a_missing_one_promises_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Queue::read(folder.path()), Queue::default());
        for (name, text) in [
            ("write_cache", "write through\n"),
            ("discard_granularity", "4096\n"),
            ("discard_max_bytes", "2147450880\n"),
            ("write_zeroes_max_bytes", "0\n"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let queue = Queue::read(folder.path());
        assert_eq!(queue.write_back, Some(false));
        assert_eq!(queue.discard_granularity_bytes, 4096);
        assert_eq!((queue.discard_max_bytes, queue.write_zeroes_max_bytes), (2_147_450_880, 0));
        std::fs::write(folder.path().join("write_cache"), "write back\n").unwrap();
        assert_eq!(Queue::read(folder.path()).write_back, Some(true));
    }
}
