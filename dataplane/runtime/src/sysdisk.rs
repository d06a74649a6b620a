//! System calls on files and block devices, as thin safe functions.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::sys::check;

/// Switches direct I/O on.
pub(crate) fn set_direct(file: &File) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    let flags = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT) }).map(drop)
}

/// What direct I/O demands in memory and in the file, in bytes, 0 where there is no direct I/O; `None` where
/// the kernel does not tell.
pub(crate) fn direct_alignment(file: &File) -> io::Result<Option<(u32, u32)>> {
    // SAFETY: all zeros is a valid `statx`.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty C string, which names the descriptor itself; `stat` is valid for the write.
    check(unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_BASIC_STATS | libc::STATX_DIOALIGN,
            &raw mut stat,
        )
    })?;
    if stat.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(None);
    }
    Ok(Some((stat.stx_dio_mem_align, stat.stx_dio_offset_align)))
}

/// Frees a range of a file; the file keeps its size.
pub(crate) fn punch_hole(file: &File, start: u64, len: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (Ok(start), Ok(len)) = (libc::off_t::try_from(start), libc::off_t::try_from(len)) else {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    };
    // SAFETY: no pointers are passed.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, start, len) }).map(drop)
}

/// The runs of data and of holes of a file from `start` to before `end`, at most `most`: where each begins, where it
/// ends, and whether it is data.
pub(crate) fn runs(file: &File, start: u64, end: u64, most: usize) -> io::Result<Vec<(u64, u64, bool)>> {
    let mut runs = Vec::new();
    let mut at = start;
    while at < end && runs.len() < most {
        // Data begin here or further on; beyond the last there are none.
        let data = seek(file, at, libc::SEEK_DATA)?.unwrap_or(end).clamp(at, end);
        if data > at {
            runs.push((at, data, false));
        }
        if data >= end || runs.len() == most {
            break;
        }
        let hole = seek(file, data, libc::SEEK_HOLE)?.unwrap_or(end).clamp(data, end);
        if hole == data {
            // The file was punched meanwhile: what is known ends here.
            break;
        }
        runs.push((data, hole, true));
        at = hole;
    }
    Ok(runs)
}

/// The next place of a kind; `None` where there is none up to the end of the file.
fn seek(file: &File, from: u64, kind: libc::c_int) -> io::Result<Option<u64>> {
    let Ok(from) = libc::off_t::try_from(from) else { return Ok(None) };
    // SAFETY: no pointers are passed. The file's own position is of no interest to anybody.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, kind) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

/// Bytes that are free for ordinary users in the file system that holds `folder`.
///
/// # Errors
/// The directory cannot be opened or asked.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let folder = File::open(folder)?;
    // SAFETY: all zeros is a valid `statvfs`.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for the write.
    check(unsafe { libc::fstatvfs(folder.as_raw_fd(), &raw mut stat) })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The geometry of a block device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) logical_bytes: u32,
    pub(crate) physical_bytes: u32,
    pub(crate) read_only: bool,
}

/// `BLKGETSIZE64`, `BLKPBSZGET`, `BLKDISCARD`: not in the `libc` crate.
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
const BLKPBSZGET: libc::Ioctl = 0x127b;
const BLKDISCARD: libc::Ioctl = 0x1277;
const BLKROGET: libc::Ioctl = 0x125e;

/// Asks a block device for its geometry.
pub(crate) fn block_geometry(file: &File) -> io::Result<Geometry> {
    let mut logical: libc::c_int = 0;
    let mut physical: libc::c_uint = 0;
    let mut read_only: libc::c_int = 0;
    let fd = file.as_raw_fd();
    // SAFETY: the request writes an `int`.
    check(unsafe { libc::ioctl(fd, libc::BLKSSZGET, &raw mut logical) })?;
    // SAFETY: the request writes an `unsigned int`.
    check(unsafe { libc::ioctl(fd, BLKPBSZGET, &raw mut physical) })?;
    // SAFETY: the request writes an `int`.
    check(unsafe { libc::ioctl(fd, BLKROGET, &raw mut read_only) })?;
    Ok(Geometry { logical_bytes: logical as u32, physical_bytes: physical, read_only: read_only != 0 })
}

/// The size of a block device, in bytes.
pub(crate) fn block_size_bytes(file: &File) -> io::Result<u64> {
    let mut bytes = 0_u64;
    // SAFETY: the request writes 64 bits.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}

/// Tells a block device that a range is not needed. Blocks.
pub(crate) fn block_discard(file: &File, start: u64, len: u64) -> io::Result<()> {
    let range = [start, len];
    // SAFETY: the request reads two numbers of 64 bits.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKDISCARD, range.as_ptr()) }).map(drop)
}
