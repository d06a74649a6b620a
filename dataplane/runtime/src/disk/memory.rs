//! Disks that are none: one in memory, and one that forgets everything.

use std::cell::{Cell, RefCell};
use std::future::{Future, ready};
use std::rc::Rc;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, DiskExtent, DiskInfo, Durability};
use ashlar_env::units::ByteRange;
use ashlar_env::volume::EXTENTS_MAX;

use super::check_range;

const BLOCK_BYTES: u32 = 512;

/// What memory is taken in, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks in one table: 256 MiB of them.
const TABLE_CHUNKS: usize = 4096;

/// How many chunks one question about allocation looks at: 4 GiB of them.
const CHUNKS_LOOKED_AT: usize = 65536;

const TABLE_BYTES: u64 = TABLE_CHUNKS as u64 * CHUNK_BYTES as u64;

type Chunk = Box<[u8; CHUNK_BYTES]>;

/// The chunks there are, in two levels, so that what lies at the end of a large disk takes no large table.
#[derive(Default)]
struct Chunks {
    tables: Vec<Option<Box<[Option<Chunk>]>>>,
}

impl Chunks {
    fn get(&self, at: usize) -> Option<&Chunk> {
        self.tables.get(at / TABLE_CHUNKS)?.as_ref()?[at % TABLE_CHUNKS].as_ref()
    }

    fn get_mut(&mut self, at: usize) -> Option<&mut Chunk> {
        self.tables.get_mut(at / TABLE_CHUNKS)?.as_mut()?[at % TABLE_CHUNKS].as_mut()
    }

    fn get_or_zeros(&mut self, at: usize) -> &mut Chunk {
        let table = at / TABLE_CHUNKS;
        if table >= self.tables.len() {
            self.tables.resize_with(table + 1, || None);
        }
        let table = self.tables[table].get_or_insert_with(|| (0..TABLE_CHUNKS).map(|_| None).collect());
        table[at % TABLE_CHUNKS].get_or_insert_with(zero_chunk)
    }

    fn remove(&mut self, at: usize) {
        if let Some(Some(table)) = self.tables.get_mut(at / TABLE_CHUNKS) {
            table[at % TABLE_CHUNKS] = None;
        }
    }

    /// Beyond this byte there is nothing.
    fn end_bytes(&self) -> u64 {
        self.tables.len() as u64 * TABLE_BYTES
    }
}

/// A disk in memory. It keeps nothing beyond the process, so a flush has nothing to add.
#[derive(Clone)]
pub(crate) struct MemoryDisk {
    inner: Rc<Memory>,
}

struct Memory {
    size_bytes: Cell<u64>,
    /// Those never written are zeros and take no memory.
    chunks: RefCell<Chunks>,
}

/// The parts of a run of bytes, chunk by chunk: chunk, offset in it, length.
fn parts(start: u64, len: u64) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = start + len;
    let mut at = start;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let offset = (at % CHUNK_BYTES as u64) as usize;
        let len = (CHUNK_BYTES - offset).min((end - at) as usize);
        let chunk = (at / CHUNK_BYTES as u64) as usize;
        at += len as u64;
        Some((chunk, offset, len))
    })
}

fn zero_chunk() -> Chunk {
    vec![0; CHUNK_BYTES].into_boxed_slice().try_into().expect("the length is that of a chunk")
}

impl MemoryDisk {
    pub(crate) fn new(size_bytes: u64) -> Self {
        let size_bytes = size_bytes - size_bytes % u64::from(BLOCK_BYTES);
        Self { inner: Rc::new(Memory { size_bytes: Cell::new(size_bytes), chunks: RefCell::default() }) }
    }

    fn check(&self, start: u64, len: u64) -> Result<(), DiskError> {
        check_range(start, len, BLOCK_BYTES, self.inner.size_bytes.get())
    }

    fn fill(&self, start: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.check(start, buf.len() as u64)?;
        let chunks = self.inner.chunks.borrow();
        let mut rest = buf;
        for (chunk, offset, len) in parts(start, rest.len() as u64) {
            let (part, tail) = rest.split_at_mut(len);
            match chunks.get(chunk) {
                Some(bytes) => part.copy_from_slice(&bytes[offset..offset + len]),
                None => part.fill(0),
            }
            rest = tail;
        }
        Ok(())
    }

    fn store(&self, start: u64, data: &[u8]) -> Result<(), DiskError> {
        self.check(start, data.len() as u64)?;
        let mut chunks = self.inner.chunks.borrow_mut();
        let mut rest = data;
        for (chunk, offset, len) in parts(start, data.len() as u64) {
            let (part, tail) = rest.split_at(len);
            chunks.get_or_zeros(chunk)[offset..offset + len].copy_from_slice(part);
            rest = tail;
        }
        Ok(())
    }

    fn clear(&self, start: u64, len: u64) {
        let mut chunks = self.inner.chunks.borrow_mut();
        let end = (start + len).min(chunks.end_bytes());
        let mut at = start;
        while at < end {
            // Where there is no table there is nothing to clear: on to the next.
            let table_end = (at / TABLE_BYTES + 1) * TABLE_BYTES;
            let here = at;
            at = table_end.min(end);
            if chunks.tables[(here / TABLE_BYTES) as usize].is_none() {
                continue;
            }
            for (chunk, offset, len) in parts(here, at - here) {
                if len == CHUNK_BYTES {
                    chunks.remove(chunk);
                } else if let Some(bytes) = chunks.get_mut(chunk) {
                    bytes[offset..offset + len].fill(0);
                }
            }
        }
    }

    fn zero(&self, range: ByteRange) -> Result<(), DiskError> {
        self.check(range.start, range.len)?;
        self.clear(range.start, range.len);
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Box<[DiskExtent]>, DiskError> {
        self.check(range.start, range.len)?;
        let chunks = self.inner.chunks.borrow();
        let mut extents = Vec::<DiskExtent>::new();
        for (chunk, offset, len) in parts(range.start, range.len).take(CHUNKS_LOOKED_AT) {
            let (allocated, len) = (chunks.get(chunk).is_some(), len as u64);
            if let Some(last) = extents.last_mut().filter(|last| last.allocated == allocated) {
                last.range.len += len;
                continue;
            }
            if extents.len() == EXTENTS_MAX {
                break;
            }
            let start = chunk as u64 * CHUNK_BYTES as u64 + offset as u64;
            extents.push(DiskExtent { range: ByteRange { start, len }, allocated });
        }
        Ok(extents.into())
    }

    fn set_size(&self, size_bytes: u64) -> Result<(), DiskError> {
        if !size_bytes.is_multiple_of(u64::from(BLOCK_BYTES)) {
            return Err(DiskError::OutOfRange);
        }
        let old = self.inner.size_bytes.replace(size_bytes);
        if size_bytes < old {
            self.clear(size_bytes, old - size_bytes);
        }
        Ok(())
    }
}

fn info(size_bytes: u64) -> DiskInfo {
    DiskInfo {
        size_bytes,
        block_bytes: BLOCK_BYTES,
        physical_block_bytes: 4096,
        volatile_cache: false,
        read_only: false,
        discard_granularity_bytes: CHUNK_BYTES as u32,
        discard_zeroes: true,
        atomic_write_bytes: 0,
    }
}

impl Disk for MemoryDisk {
    fn info(&self) -> DiskInfo {
        info(self.inner.size_bytes.get())
    }

    fn read(&self, start: u64, mut buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        ready(self.fill(start, &mut buf).map(|()| buf))
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(self.store(start, &data))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Ok(()))
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(self.zero(range))
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        _: bool,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(self.zero(range))
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Box<[DiskExtent]>, DiskError>> + 'static {
        ready(self.extents(range))
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(self.set_size(size_bytes))
    }
}

/// A disk of zeros that forgets what is written.
#[derive(Clone)]
pub(crate) struct NullDisk {
    size_bytes: Rc<Cell<u64>>,
}

impl NullDisk {
    pub(crate) fn new(size_bytes: u64) -> Self {
        Self { size_bytes: Rc::new(Cell::new(size_bytes - size_bytes % u64::from(BLOCK_BYTES))) }
    }

    fn check(&self, start: u64, len: u64) -> Result<(), DiskError> {
        check_range(start, len, BLOCK_BYTES, self.size_bytes.get())
    }
}

impl Disk for NullDisk {
    fn info(&self) -> DiskInfo {
        info(self.size_bytes.get())
    }

    fn read(&self, start: u64, mut buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        ready(self.check(start, buf.len() as u64).map(|()| {
            buf.fill(0);
            buf
        }))
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(self.check(start, data.len() as u64))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Ok(()))
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(self.check(range.start, range.len))
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        _: bool,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(self.check(range.start, range.len))
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        if size_bytes.is_multiple_of(u64::from(BLOCK_BYTES)) {
            self.size_bytes.set(size_bytes);
            return ready(Ok(()));
        }
        ready(Err(DiskError::OutOfRange))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = CHUNK_BYTES as u64;

    #[test]
    fn memory_keeps_what_is_written_across_chunks_and_zeros_elsewhere() {
        let disk = MemoryDisk::new(4 * CHUNK + 100);
        assert_eq!(disk.info().size_bytes, 4 * CHUNK);
        let data: Vec<u8> = (0..2048).map(|at| at as u8 | 1).collect();
        disk.store(CHUNK - 1024, &data).unwrap();
        let mut got = vec![9; 4096];
        disk.fill(CHUNK - 2048, &mut got).unwrap();
        assert!(got[..1024].iter().chain(&got[3072..]).all(|&byte| byte == 0));
        assert_eq!(&got[1024..3072], &data);
        assert_eq!(disk.store(4 * CHUNK - 512, &data[..1024]), Err(DiskError::OutOfRange));
        assert_eq!(disk.store(100, &data[..512]), Err(DiskError::OutOfRange));
    }

    #[test]
    fn freed_and_cut_space_reads_as_zeros_and_takes_no_memory() {
        let disk = MemoryDisk::new(4 * CHUNK);
        let ones = vec![1; 3 * CHUNK_BYTES];
        disk.store(0, &ones).unwrap();
        disk.zero(ByteRange { start: 512, len: 2 * CHUNK }).unwrap();
        let mut got = vec![9; 3 * CHUNK_BYTES];
        disk.fill(0, &mut got).unwrap();
        assert!(got[..512].iter().all(|&byte| byte == 1));
        assert!(got[512..512 + 2 * CHUNK_BYTES].iter().all(|&byte| byte == 0));
        assert!(got[512 + 2 * CHUNK_BYTES..].iter().all(|&byte| byte == 1));
        assert!(disk.inner.chunks.borrow().get(1).is_none());
        disk.set_size(512).unwrap();
        disk.set_size(4 * CHUNK).unwrap();
        disk.fill(0, &mut got).unwrap();
        assert!(got[512..].iter().all(|&byte| byte == 0));
        let kept = disk.inner.chunks.borrow().tables.iter().flatten().flatten().flatten().count();
        assert_eq!(kept, 1);
    }

    #[test]
    fn what_was_written_has_space_and_the_rest_has_none() {
        let disk = MemoryDisk::new(8 * CHUNK);
        disk.store(2 * CHUNK, &[1; 512]).unwrap();
        let extent = |start, len, allocated| DiskExtent { range: ByteRange { start, len }, allocated };
        let all = disk.extents(ByteRange { start: 512, len: 8 * CHUNK - 512 }).unwrap();
        let want = [
            extent(512, 2 * CHUNK - 512, false),
            extent(2 * CHUNK, CHUNK, true),
            extent(3 * CHUNK, 5 * CHUNK, false),
        ];
        assert_eq!(&all[..], &want);
        assert!(disk.extents(ByteRange { start: 8 * CHUNK, len: 512 }).is_err());
    }

    #[test]
    fn the_end_of_a_huge_disk_takes_little_memory() {
        let disk = MemoryDisk::new(1 << 50);
        disk.store((1 << 50) - 512, &[1; 512]).unwrap();
        let mut got = [0; 1024];
        disk.fill((1 << 50) - 1024, &mut got).unwrap();
        assert_eq!((got[511], got[512]), (0, 1));
        // Nor does it take long to clear it all.
        disk.zero(ByteRange { start: 512, len: (1 << 50) - 1024 }).unwrap();
        disk.fill((1 << 50) - 1024, &mut got).unwrap();
        assert_eq!((got[511], got[512]), (0, 1));
    }
}
