//! Opening files and block devices: what they are, whether they can be used as asked, and by nobody else.

use std::fs::{File, OpenOptions as FsOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Arc, OnceLock};

use super::Device;
use super::block;
use super::kernel::{KernelDisk, Shared};
use crate::env::ReactorEnv;
use crate::sysdisk;

/// The block of files whose data goes through the page cache, in bytes.
const CACHED_BLOCK_BYTES: u32 = 512;

/// The largest block there is, in bytes.
const BLOCK_MAX_BYTES: u32 = 4096;

/// How to open a file or block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Never write to it; then others may read it, too.
    pub read_only: bool,
    /// Go past the page cache where the device can (`O_DIRECT`).
    pub direct: bool,
    /// The largest block its user can work with, in bytes: 512 or 4096. A file with larger ones is used through
    /// the page cache; a block device with larger ones is refused.
    pub block_bytes_max: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { read_only: false, direct: true, block_bytes_max: BLOCK_MAX_BYTES }
    }
}

/// Why a file or block device cannot be opened or made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// there is no such file
    #[error("{path}: there is no such file or device; nothing was created")]
    NotFound {
        /// the path
        path: PathBuf,
    },
    /// a directory, socket, or such
    #[error("{path}: neither a regular file nor a block device")]
    NotADisk {
        /// the path
        path: PathBuf,
    },
    /// another process (or volume) has it
    #[error("{path}: in use by another process, a mount or another volume; stop that first")]
    InUse {
        /// the path
        path: PathBuf,
    },
    /// it cannot be written
    #[error("{path}: cannot be opened for writing ({source}); fix its permissions, or use it read-only")]
    NotWritable {
        /// the path
        path: PathBuf,
        /// what the kernel said
        source: io::Error,
    },
    /// no whole block fits
    #[error("{path}: holds {size_bytes} bytes, not one block of {block_bytes}")]
    TooSmall {
        /// the path
        path: PathBuf,
        /// its size
        size_bytes: u64,
        /// the block
        block_bytes: u32,
    },
    /// its blocks are larger than its user's
    #[error("{path}: has blocks of {block_bytes} bytes; use it with a block size no smaller than that")]
    BlockTooLarge {
        /// the path
        path: PathBuf,
        /// the block
        block_bytes: u32,
    },
    /// it is there already
    #[error("{path}: exists already; it was left as it is")]
    Exists {
        /// the path
        path: PathBuf,
    },
    /// anything else the kernel said
    #[error("{path}: {source}")]
    Io {
        /// the path
        path: PathBuf,
        /// what the kernel said
        source: io::Error,
    },
}

impl OpenError {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}

/// An open file or block device that no reactor owns yet.
#[derive(Clone, Debug)]
pub struct OpenDevice {
    shared: Arc<Shared>,
}

impl OpenDevice {
    /// Opens the file or block device at `path` and locks it against other processes. Blocks: not for reactors.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, OpenError> {
        let kind = std::fs::metadata(path).map_err(|source| refused(path, source))?.file_type();
        if kind.is_block_device() {
            block::open(path, options)
        } else if kind.is_file() {
            let file = open_file(path, options, 0)?;
            file_device(path, file, options)
        } else {
            Err(OpenError::NotADisk { path: path.to_owned() })
        }
    }

    /// Makes a file of `size_bytes` zeros that takes no space until it is written, durably, and opens it. Blocks.
    ///
    /// # Errors
    /// [`OpenError::Exists`] where something is at `path`, and others. A file that could not be finished is
    /// removed.
    pub fn create(path: &Path, size_bytes: u64, options: OpenOptions) -> Result<Self, OpenError> {
        let io = OpenError::io(path);
        let file = FsOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(
            |source| match source.kind() {
                ErrorKind::AlreadyExists => OpenError::Exists { path: path.to_owned() },
                _ => refused(path, source),
            },
        )?;
        let finish = || {
            lock(path, &file, options)?;
            file.set_len(size_bytes).and_then(|()| file.sync_all()).map_err(&io)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all()).map_err(&io)
        };
        let finished = finish();
        match finished.and_then(|()| file_device(path, file, options)) {
            Ok(device) => Ok(device),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    pub(crate) fn shared(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Gives the device to the reactor of `env`. Another reactor may be given a clone; then whatever must be
    /// ordered between them is theirs to order.
    ///
    /// # Errors
    /// Where the kernel refuses the reactor's ring.
    pub fn attach(self, env: &ReactorEnv) -> io::Result<Device> {
        env.engine().attach_ring()?;
        Ok(Device::kernel(KernelDisk::new(Rc::clone(env.engine()), self.shared)))
    }
}

/// Opens for reading and, unless that is not asked for, writing; locks it.
pub(super) fn open_file(path: &Path, options: OpenOptions, flags: i32) -> Result<File, OpenError> {
    let file = FsOptions::new()
        .read(true)
        .write(!options.read_only)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| refused(path, source))?;
    lock(path, &file, options)?;
    Ok(file)
}

fn refused(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => OpenError::NotFound { path },
        Some(libc::EACCES | libc::EROFS | libc::EPERM | libc::ETXTBSY) => {
            OpenError::NotWritable { path, source }
        }
        Some(libc::EBUSY) => OpenError::InUse { path },
        _ => OpenError::Io { path, source },
    }
}

/// Takes the advisory lock: alone for writing, with others for reading. It lasts until the file is closed.
fn lock(path: &Path, file: &File, options: OpenOptions) -> Result<(), OpenError> {
    let locked = if options.read_only { file.try_lock_shared() } else { file.try_lock() };
    locked.map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => OpenError::InUse { path: path.to_owned() },
        std::fs::TryLockError::Error(source) => OpenError::Io { path: path.to_owned(), source },
    })
}

/// Finds out what a regular file can do.
fn file_device(path: &Path, file: File, options: OpenOptions) -> Result<OpenDevice, OpenError> {
    let metadata = file.metadata().map_err(OpenError::io(path))?;
    let direct = if options.direct { direct_alignment(&file, &metadata) } else { None };
    let direct = direct.filter(|align| align.offset_bytes <= options.block_bytes_max);
    let direct = direct.filter(|_| sysdisk::set_direct(&file).is_ok());
    let (block_bytes, memory_align_bytes) = match direct {
        Some(align) => (align.offset_bytes, align.memory_bytes),
        None => (CACHED_BLOCK_BYTES, 1),
    };
    if direct.is_none() && options.direct {
        tracing::info!(path = %path.display(), "no direct I/O here: data goes through the page cache");
    }
    let size_bytes = metadata.len() - metadata.len() % u64::from(block_bytes);
    if size_bytes == 0 {
        return Err(OpenError::TooSmall { path: path.to_owned(), size_bytes: metadata.len(), block_bytes });
    }
    let unit = u32::try_from(metadata.blksize()).unwrap_or(BLOCK_MAX_BYTES).clamp(block_bytes, 1 << 20);
    // A hole beyond the end changes nothing, and tells whether there can be holes.
    let frees = !options.read_only && sysdisk::punch_hole(&file, metadata.len(), u64::from(unit)).is_ok();
    Ok(OpenDevice::shared(Arc::new(Shared {
        file,
        name: path.display().to_string(),
        is_block: false,
        block_bytes,
        memory_align_bytes,
        physical_block_bytes: unit.min(BLOCK_MAX_BYTES).max(block_bytes),
        // The file system's own data about the file waits in memory for a flush, whatever the disk does.
        volatile_cache: true,
        read_only: options.read_only,
        discard_granularity_bytes: if frees { unit } else { 0 },
        discard_zeroes: frees,
        size_bytes: AtomicU64::new(size_bytes),
        lacks: AtomicU8::new(0),
        failure: OnceLock::new(),
    })))
}

/// What direct I/O demands.
#[derive(Clone, Copy, Debug)]
struct Alignment {
    memory_bytes: u32,
    offset_bytes: u32,
}

/// What direct I/O on `file` demands; `None` where there is none that buffers and blocks of ours satisfy.
fn direct_alignment(file: &File, metadata: &std::fs::Metadata) -> Option<Alignment> {
    let fits = |bytes: u32| bytes.is_power_of_two() && bytes <= BLOCK_MAX_BYTES;
    match sysdisk::direct_alignment(file) {
        Ok(Some((memory_bytes, offset_bytes))) => {
            let align = Alignment { memory_bytes, offset_bytes: offset_bytes.max(CACHED_BLOCK_BYTES) };
            (memory_bytes > 0 && offset_bytes > 0 && fits(memory_bytes) && fits(offset_bytes))
                .then_some(align)
        }
        // Kernels before 6.1 do not tell; the file system's block is safe.
        Ok(None) | Err(_) => {
            let block = u32::try_from(metadata.blksize()).ok().filter(|&bytes| fits(bytes))?;
            Some(Alignment { memory_bytes: block, offset_bytes: block.max(CACHED_BLOCK_BYTES) })
        }
    }
}
