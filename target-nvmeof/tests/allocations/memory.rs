//! A disk in memory that allocates nothing.

use std::cell::RefCell;
use std::future::{Future, ready};
use std::rc::Rc;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::spawn::yield_now;
use ashlar_env::units::ByteRange;

/// Answers at once, or after one turn.
#[derive(Clone)]
pub struct Memory {
    bytes: Rc<RefCell<Vec<u8>>>,
    late: bool,
}

impl Memory {
    pub fn new(size_bytes: u64, late: bool) -> Self {
        Self { bytes: Rc::new(RefCell::new(vec![1; size_bytes as usize])), late }
    }
}

impl Disk for Memory {
    fn info(&self) -> DiskInfo {
        DiskInfo {
            size_bytes: self.bytes.borrow().len() as u64,
            block_bytes: 512,
            physical_block_bytes: 4096,
            volatile_cache: true,
            read_only: false,
            discard_granularity_bytes: 4096,
            discard_zeroes: true,
            atomic_write_bytes: 0,
        }
    }

    fn read(&self, start: u64, mut buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        let this = self.clone();
        async move {
            if this.late {
                yield_now().await;
            }
            let len = buf.len();
            buf.copy_from_slice(&this.bytes.borrow()[start as usize..][..len]);
            Ok(buf)
        }
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let this = self.clone();
        async move {
            if this.late {
                yield_now().await;
            }
            this.bytes.borrow_mut()[start as usize..][..data.len()].copy_from_slice(&data);
            Ok(())
        }
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Ok(()))
    }

    fn discard(&self, _: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Err(DiskError::Unsupported))
    }

    fn write_zeroes(
        &self,
        _: ByteRange,
        _: bool,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Err(DiskError::Unsupported))
    }

    fn resize(&self, _: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Err(DiskError::Unsupported))
    }
}
