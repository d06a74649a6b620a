//! One disk operation: how it is put to the kernel, and what its result means.
//!
//! The kernel hands syncs and allocations to worker threads of its own at once, and reads and writes where they
//! would block, so that none of them holds up the reactor.

use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{DiskError, Durability};
use io_uring::{opcode, squeue, types};

use crate::disk::kernel::Target;

/// The buffer an operation owns.
#[derive(Debug)]
pub(crate) enum Held {
    Nothing,
    Fills(BufMut),
    Carries(Buf),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write(Durability),
    Sync,
    /// `fallocate` of `len` bytes with this mode.
    Allocate {
        mode: i32,
        len: u64,
    },
}

/// An operation on an open file or device.
#[derive(Debug)]
pub(crate) struct Op {
    target: Rc<Target>,
    kind: Kind,
    start: u64,
    /// How much of the buffer is done.
    done: usize,
    held: Held,
}

/// What follows a completion.
pub(crate) enum Step {
    /// The rest is to be queued again.
    Again,
    Ended(Result<(), DiskError>),
}

impl Op {
    pub(crate) fn new(target: Rc<Target>, kind: Kind, start: u64, held: Held) -> Self {
        Self { target, kind, start, done: 0, held }
    }

    pub(crate) fn into_held(self) -> Held {
        self.held
    }

    /// The entry for what is still to do. Slabs with a number below `registered` are known to the kernel.
    pub(crate) fn entry(&mut self, registered: u16) -> squeue::Entry {
        let fd: RawFd = self.target.file.as_raw_fd();
        let fd = types::Fd(fd);
        let offset = self.start + self.done as u64;
        let known = |slab: Option<u16>| slab.filter(|&slab| slab < registered);
        match (self.kind, &mut self.held) {
            (Kind::Read, Held::Fills(buf)) => {
                let slab = known(buf.slab());
                let rest = &mut buf[self.done..];
                let (at, len) = (rest.as_mut_ptr(), rest.len() as u32);
                match slab {
                    Some(slab) => opcode::ReadFixed::new(fd, at, len, slab).offset(offset).build(),
                    None => opcode::Read::new(fd, at, len).offset(offset).build(),
                }
            }
            (Kind::Write(durability), Held::Carries(buf)) => {
                let flags = if durability == Durability::Fua { libc::RWF_DSYNC } else { 0 };
                let slab = known(buf.slab());
                let rest = &buf[self.done..];
                let (at, len) = (rest.as_ptr(), rest.len() as u32);
                match slab {
                    Some(slab) => {
                        opcode::WriteFixed::new(fd, at, len, slab).offset(offset).rw_flags(flags).build()
                    }
                    None => opcode::Write::new(fd, at, len).offset(offset).rw_flags(flags).build(),
                }
            }
            (Kind::Sync, _) => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
            (Kind::Allocate { mode, len }, _) => {
                opcode::Fallocate::new(fd, len).offset(self.start).mode(mode).build()
            }
            (kind, held) => panic!("{kind:?} does not go with {held:?}"),
        }
    }

    /// Takes the kernel's result of the entry queued last.
    pub(crate) fn advance(&mut self, result: i32) -> Step {
        if result < 0 {
            return self.failed(-result);
        }
        let len = match &self.held {
            Held::Fills(buf) => buf.len(),
            Held::Carries(buf) => buf.len(),
            Held::Nothing => return Step::Ended(Ok(())),
        };
        self.done += result as usize;
        if self.done >= len {
            return Step::Ended(Ok(()));
        }
        // A part was done. The rest must still be a whole number of blocks, or it is the end of a file that
        // somebody cut.
        if result > 0 && self.done.is_multiple_of(self.target.block_bytes as usize) {
            return Step::Again;
        }
        let at = self.start + self.done as u64;
        let what = format!("{} ends at byte {at}, before its size: it was cut short", self.target.name);
        Step::Ended(Err(match self.kind {
            Kind::Read => DiskError::Medium(what),
            _ => self.target.latch(what),
        }))
    }

    fn failed(&self, errno: i32) -> Step {
        if matches!(errno, libc::EINTR | libc::EAGAIN) {
            return Step::Again;
        }
        let target = &*self.target;
        let error = std::io::Error::from_raw_os_error(errno);
        let what = |action: &str| format!("{action} {} at byte {}: {error}", target.name, self.start);
        Step::Ended(Err(match (self.kind, errno) {
            (_, libc::ECANCELED | libc::EBADF) => DiskError::Gone,
            (Kind::Read, _) => DiskError::Medium(what("reading")),
            // What a failed sync leaves behind is unknown, whatever the reason.
            (Kind::Sync, _) => target.latch(what("flushing")),
            (_, libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => DiskError::NoSpace,
            (_, libc::EROFS | libc::EPERM) => DiskError::ReadOnly,
            (Kind::Allocate { .. }, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV) => {
                DiskError::Unsupported
            }
            (Kind::Allocate { .. }, _) => target.latch(what("freeing")),
            (Kind::Write(_), _) => target.latch(what("writing")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, AtomicU64};
    use std::sync::{Arc, OnceLock};

    use ashlar_env::BufPool;
    use ashlar_env::buf::PoolPlan;

    use super::*;
    use crate::disk::kernel::Shared;

    fn target() -> Rc<Target> {
        Target::new(Arc::new(Shared {
            file: tempfile::tempfile().unwrap(),
            name: "disk".into(),
            is_block: false,
            block_bytes: 512,
            memory_align_bytes: 512,
            physical_block_bytes: 4096,
            volatile_cache: true,
            read_only: false,
            discard_granularity_bytes: 4096,
            discard_zeroes: true,
            size_bytes: AtomicU64::new(1 << 20),
            lacks: AtomicU8::new(0),
            failure: OnceLock::new(),
        }))
    }

    fn op(target: &Rc<Target>, kind: Kind) -> Op {
        let buf = BufPool::on_heap(PoolPlan { limits: [1, 0, 0, 0, 0] }).try_alloc(4096).unwrap();
        let held = match kind {
            Kind::Read => Held::Fills(buf),
            Kind::Write(_) => Held::Carries(buf.freeze()),
            Kind::Sync | Kind::Allocate { .. } => Held::Nothing,
        };
        Op::new(Rc::clone(target), kind, 8192, held)
    }

    fn end(target: &Rc<Target>, kind: Kind, errno: i32) -> Result<(), DiskError> {
        match op(target, kind).advance(-errno) {
            Step::Ended(result) => result,
            Step::Again => panic!("tried again"),
        }
    }

    const WRITE: Kind = Kind::Write(Durability::Cached);
    const PUNCH: Kind = Kind::Allocate { mode: libc::FALLOC_FL_PUNCH_HOLE, len: 4096 };

    #[test]
    fn a_failed_write_or_flush_latches_and_a_failed_read_does_not() {
        for (kind, errno) in [(WRITE, libc::EIO), (Kind::Sync, libc::EIO), (Kind::Sync, libc::ENOSPC)] {
            let target = target();
            assert!(matches!(end(&target, Kind::Read, libc::EIO), Err(DiskError::Medium(_))));
            assert_eq!(target.check_writable(), Ok(()));
            assert!(matches!(end(&target, kind, errno), Err(DiskError::Medium(_))));
            let Err(DiskError::Latched(what)) = target.check_writable() else { panic!("not latched") };
            assert!(what.contains("disk at byte 8192"), "{what}");
        }
    }

    #[test]
    fn what_the_device_answers_is_no_failure_of_it() {
        let target = target();
        assert_eq!(end(&target, WRITE, libc::ENOSPC), Err(DiskError::NoSpace));
        assert_eq!(end(&target, WRITE, libc::EROFS), Err(DiskError::ReadOnly));
        assert_eq!(end(&target, PUNCH, libc::EOPNOTSUPP), Err(DiskError::Unsupported));
        assert!(matches!(op(&target, WRITE).advance(-libc::EAGAIN), Step::Again));
        assert_eq!(target.check_writable(), Ok(()));
    }

    #[test]
    fn a_part_done_goes_on_where_it_ended() {
        let target = target();
        let mut read = op(&target, Kind::Read);
        assert!(matches!(read.advance(1024), Step::Again));
        assert_eq!(read.done, 1024);
        assert!(matches!(read.advance(3072), Step::Ended(Ok(()))));
        // Not a whole block, or nothing: the file is shorter than it was.
        assert!(matches!(op(&target, Kind::Read).advance(100), Step::Ended(Err(DiskError::Medium(_)))));
        assert!(matches!(op(&target, Kind::Read).advance(0), Step::Ended(Err(DiskError::Medium(_)))));
    }
}
