//! A disk that crashes its node, or fails, at a chosen operation, and sees whether anybody goes on writing afterwards.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::units::ByteRange;
use ashlar_sim::{Control, Crash, NodeId, SimDisk};

/// What happens at the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// the node crashes while it is under way
    Crash(Crash),
    /// it fails, though it may have been done
    Fail {
        /// whether it was
        done: bool,
    },
}

/// The operations of a disk that change it, counted from 1.
#[derive(Default)]
pub struct Count {
    pub issued: Cell<u64>,
    /// An operation has failed, and somebody has been told.
    pub told: Cell<bool>,
    /// Writes and flushes issued after that.
    pub after: Cell<u64>,
}

#[derive(Clone)]
pub struct Tap {
    pub disk: SimDisk,
    pub control: Control,
    pub node: NodeId,
    pub count: Rc<Count>,
    pub blow: Option<(u64, Blow)>,
    pub is_dead: Rc<Cell<bool>>,
}

impl Tap {
    /// Runs an operation that changes the disk.
    fn run<F: Future<Output = Result<(), DiskError>> + 'static>(
        &self,
        operation: impl FnOnce() -> F,
    ) -> Pin<Box<dyn Future<Output = Result<(), DiskError>>>> {
        let count = Rc::clone(&self.count);
        if self.is_dead.get() {
            // The rest of the poll in which the node crashed.
            return Box::pin(std::future::pending());
        }
        count.issued.set(count.issued.get() + 1);
        if count.told.get() {
            count.after.set(count.after.get() + 1);
        }
        let blow = self.blow.filter(|&(at, _)| at == count.issued.get()).map(|(_, blow)| blow);
        let operation = if blow == Some(Blow::Fail { done: false }) { None } else { Some(operation()) };
        if let Some(Blow::Crash(how)) = blow {
            self.is_dead.set(true);
            self.control.crash(self.node, how);
        }
        Box::pin(async move {
            let outcome = match operation {
                Some(operation) => operation.await,
                None => Ok(()),
            };
            if let Some(Blow::Fail { .. }) = blow {
                count.told.set(true);
                return Err(DiskError::Medium("made to fail".into()));
            }
            outcome
        })
    }
}

impl Disk for Tap {
    fn info(&self) -> DiskInfo {
        self.disk.info()
    }

    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        self.disk.read(start, buf)
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.run(|| self.disk.write(start, data, durability))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.run(|| self.disk.flush())
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.disk.discard(range)
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        free: bool,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.run(|| self.disk.write_zeroes(range, free, durability))
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.disk.resize(size_bytes)
    }
}
