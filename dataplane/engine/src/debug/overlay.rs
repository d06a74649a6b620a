//! A disk on top of another: what is written stays in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::rc::Rc;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::units::ByteRange;

/// A disk that reads from another and never writes to it. What is written is kept in memory, for as long as the overlay
/// lives, and read from there. Cloning gives the same overlay.
pub struct Overlay<D> {
    inner: Rc<Inner<D>>,
}

struct Inner<D> {
    below: D,
    /// Written blocks, by their number; each of the disk's block size.
    written: RefCell<BTreeMap<u64, Box<[u8]>>>,
}

impl<D> Clone for Overlay<D> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<D: Disk> Overlay<D> {
    /// An overlay over `below`, with nothing written.
    #[must_use]
    pub fn new(below: D) -> Self {
        Self { inner: Rc::new(Inner { below, written: RefCell::default() }) }
    }

    /// How much was written and is kept in memory, in bytes.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.inner.written.borrow().len() as u64 * u64::from(self.inner.below.info().block_bytes)
    }
}

impl<D: Disk> Inner<D> {
    fn block(&self) -> usize {
        self.below.info().block_bytes as usize
    }

    /// Puts over `buf`, read from `start`, what was written there.
    fn cover(&self, start: u64, buf: &mut [u8]) {
        let block = self.block();
        let first = start / block as u64;
        let end = first + (buf.len() / block) as u64;
        for (number, bytes) in self.written.borrow().range(first..end) {
            let at = (number - first) as usize * block;
            buf[at..at + block].copy_from_slice(bytes);
        }
    }

    fn put(&self, start: u64, len: u64, data: Option<&[u8]>) -> Result<(), DiskError> {
        let (info, block) = (self.below.info(), self.block());
        let aligned = start.is_multiple_of(block as u64) && len.is_multiple_of(block as u64);
        if !aligned || start.checked_add(len).is_none_or(|end| end > info.size_bytes) {
            return Err(DiskError::OutOfRange);
        }
        let mut written = self.written.borrow_mut();
        for at in 0..len / block as u64 {
            let from = at as usize * block;
            let bytes = data.map_or_else(|| vec![0; block], |data| data[from..from + block].to_vec());
            written.insert(start / block as u64 + at, bytes.into());
        }
        Ok(())
    }
}

impl<D: Disk> Disk for Overlay<D> {
    fn info(&self) -> DiskInfo {
        // What is in memory needs no flush; and there is nothing to discard.
        DiskInfo {
            volatile_cache: false,
            read_only: false,
            discard_granularity_bytes: 0,
            discard_zeroes: false,
            ..self.inner.below.info()
        }
    }

    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        let (inner, read) = (Rc::clone(&self.inner), self.inner.below.read(start, buf));
        async move {
            let mut buf = read.await?;
            inner.cover(start, &mut buf);
            Ok(buf)
        }
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(self.inner.put(start, data.len() as u64, Some(&data)))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Ok(()))
    }

    fn discard(&self, _: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Err(DiskError::Unsupported))
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        _: bool,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(self.inner.put(range.start, range.len, None))
    }

    fn resize(&self, _: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Err(DiskError::Unsupported))
    }
}
