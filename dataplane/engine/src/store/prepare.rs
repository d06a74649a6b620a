//! Formatting a device.
//!
//! First both superblocks are made blank, durably; then come the fence pages and a free header for each slot, side by
//! side, and a flush; the superblocks last. A crash leaves the device either not formatted or completely so.

use std::future::poll_fn;

use ashlar_env::buf::{BufMut, BufPool, PoolPlan};
use ashlar_env::disk::{DiskError, Durability};
use ashlar_env::slots::Slots;
use ashlar_env::{Disk, Spawn};
use uuid::Uuid;

use super::ChunkStore;
use super::error::{FormatError, OpenError};
use super::format::{
    Content, FENCE_PAGE_ENTRIES, FencePage, Geometry, HEADER_BYTES, PAGE_BYTES, SLOT_HEADERS_BYTES,
    SUPERBLOCK_BYTES, SlotHeader, Superblock,
};
use super::open::superblock;

/// Structures written at a time.
const WRITES_MAX: usize = 32;

const PAGE: usize = PAGE_BYTES as usize;
const PAIR: usize = SLOT_HEADERS_BYTES as usize;

/// What a device is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    /// Its identity: drawn anew for each formatting.
    pub device: Uuid,
    /// The cluster it will belong to.
    pub cluster: Uuid,
    /// A slot with its headers, in bytes: a power of two, 16 KiB to 16 MiB.
    pub slot_bytes: u32,
    /// The least granule of appends and reads, in bytes: devices of one pool have the same. The device's physical block
    /// is taken where that is larger, up to 4096.
    pub align_bytes_min: u32,
    /// How many groups can have a fence at least.
    pub fence_entries: u32,
    /// Whether to go on where the device is not blank.
    pub overwrite: bool,
}

impl FormatOptions {
    /// Slots of 16 MiB, fences for 4032 groups (128 KiB), and nothing overwritten.
    #[must_use]
    pub const fn new(device: Uuid, cluster: Uuid) -> Self {
        Self {
            device,
            cluster,
            slot_bytes: 16 << 20,
            align_bytes_min: 512,
            fence_entries: 16 * FENCE_PAGE_ENTRIES as u32,
            overwrite: false,
        }
    }
}

fn plan<D: Disk>(disk: &D, options: &FormatOptions) -> Result<Superblock, FormatError> {
    let info = disk.info();
    let &FormatOptions { device, cluster, slot_bytes, align_bytes_min, .. } = options;
    let align_bytes =
        info.physical_block_bytes.clamp(512, PAGE_BYTES).max(info.block_bytes).max(align_bytes_min);
    let fence_pages = options.fence_entries.div_ceil(FENCE_PAGE_ENTRIES as u32).max(1);
    let plan = |size_bytes| Geometry::plan(size_bytes, slot_bytes, align_bytes, fence_pages);
    let Some(geometry) = plan(info.size_bytes) else {
        let fits_a_large_one = plan(1 << 40).is_some();
        return Err(if fits_a_large_one {
            FormatError::TooSmall { size_bytes: info.size_bytes, slot_bytes }
        } else {
            FormatError::Sizes { slot_bytes, align_bytes }
        });
    };
    Ok(Superblock { device, cluster, compatible: 0, geometry })
}

/// Whether something is there that one might miss.
async fn look<D: Disk>(disk: &D) -> Result<(), FormatError> {
    match superblock(disk).await {
        Err(OpenError::NotFormatted) => Ok(()),
        Err(other) => Err(FormatError::Occupied(other)),
        Ok((it, _)) => Err(FormatError::AlreadyFormatted { device: it.device, cluster: it.cluster }),
    }
}

/// A device while it is formatted.
struct Writer<'a, D> {
    disk: &'a D,
    pool: BufPool,
}

impl<D: Disk> Writer<'_, D> {
    async fn zeroed(&self, len: usize) -> BufMut {
        let mut buf = self.pool.alloc(len).await;
        buf.fill(0);
        buf
    }

    /// Writes a structure into a page of its own, durably.
    async fn durably(&self, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut page = self.zeroed(PAGE).await;
        page[..bytes.len()].copy_from_slice(bytes);
        self.disk.write(at, page.freeze(), Durability::Fua).await
    }

    /// Writes both copies of a structure of `len` bytes at once, to be flushed later.
    async fn pair(&self, at: u64, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), DiskError> {
        let mut pages = self.zeroed(PAIR).await;
        fill(&mut pages[..len]);
        pages.copy_within(..len, PAGE);
        self.disk.write(at, pages.freeze(), Durability::Cached).await
    }

    /// Fence page or slot number `index`: the pages come first.
    async fn structure(&self, it: &Superblock, index: u64) -> Result<(), DiskError> {
        let device = it.device;
        let pages = u64::from(it.geometry.fence_pages);
        if index < pages {
            let entries = vec![None; FENCE_PAGE_ENTRIES];
            let page = FencePage { device, page: index as u32, sequence: 1, entries };
            let fill = |bytes: &mut [u8]| page.encode(bytes.try_into().expect("a page is a page"));
            return self.pair(it.geometry.fence_page_start(page.page), PAGE, fill).await;
        }
        let slot = (index - pages) as u32;
        let header = SlotHeader { device, slot, sequence: 1, content: Content::Free }.encode();
        let fill = |bytes: &mut [u8]| bytes.copy_from_slice(&header);
        self.pair(it.geometry.slot_start(slot), HEADER_BYTES, fill).await
    }

    async fn structures(&self, it: &Superblock) -> Result<(), DiskError> {
        let count = u64::from(it.geometry.fence_pages) + u64::from(it.geometry.slots);
        let mut flying = Slots::new(WRITES_MAX);
        let mut next = 0;
        loop {
            while next < count && !flying.is_full() {
                let _ = flying.insert(self.structure(it, next));
                next += 1;
            }
            let Some((_, written)) = poll_fn(|cx| flying.poll_next(cx)).await else { return Ok(()) };
            written?;
        }
    }

    async fn run(&self, it: &Superblock) -> Result<(), DiskError> {
        let last = it.geometry.size_bytes - PAGE as u64;
        self.durably(0, &[]).await?;
        self.durably(last, &[]).await?;
        self.structures(it).await?;
        self.disk.flush().await?;
        let bytes: [u8; SUPERBLOCK_BYTES] = it.encode();
        self.durably(last, &bytes).await?;
        self.durably(0, &bytes).await
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> ChunkStore<E, D> {
    /// Makes `disk` an empty store, and opens it.
    ///
    /// # Errors
    /// [`FormatError`]
    pub async fn format(env: E, disk: D, options: FormatOptions) -> Result<Self, FormatError> {
        let superblock = plan(&disk, &options)?;
        if !options.overwrite {
            look(&disk).await?;
        }
        let pool = BufPool::on_heap(PoolPlan { limits: [1, WRITES_MAX, 0, 0, 0] });
        Writer { disk: &disk, pool }.run(&superblock).await?;
        Self::open(env, disk).await.map_err(FormatError::Reopen)
    }
}
