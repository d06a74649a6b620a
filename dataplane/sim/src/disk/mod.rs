//! A model of a disk.
//!
//! **What is where.** The *medium* holds sectors: the pieces that the device writes all or nothing. A write is
//! *in flight* from its issue until it lands, at any time before its completion, whole or in two parts. What
//! has landed is visible to reads. With a volatile cache it is *pending* until it is durable; without one it is
//! durable at once. A FUA write is durable when it lands. A flush makes durable what had completed when the
//! flush was issued, and whatever lies below it on the same sector.
//!
//! **Crash.** Of the writes in flight each sector has landed or has not, each for itself, the writes in any
//! order. At a power failure each pending sector then falls back to any of its states since the last flush,
//! or is kept. So a write larger than a sector may be torn, in any pattern. The death of a process loses
//! nothing that has landed.
//!
//! **Dropped futures.** The operation owns the buffer and goes on without its future, as in the kernel.
//!
//! **Errors the device admits.** Unreadable sectors, until written again. A failing write, of which any part
//! may have happened, or a failing flush: the handle latches, and so does the medium, where the profile says
//! that it stays. A full disk. Slow operations.
//!
//! **Errors it does not admit.** Lost, misdirected and rotten writes lie over the right data as an overlay, so
//! that a test can heal them. A lying flush moves nothing. None of these is part of `Profile::swarm`: they are
//! for code that has checksums.
//!
//! **Discard** of a device that does not promise zeros leaves old data, zeros or garbage, sector by sector.

mod handle;
mod media;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::executor::Crash;
use crate::node::NodeId;
use crate::rng::digest;
use crate::world::World;

pub use handle::SimDisk;
use media::Media;

/// The number of a disk of the simulation, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub u16);

/// What a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskGeometry {
    /// Size in bytes, a multiple of `block_bytes`.
    pub size_bytes: u64,
    /// Granule of every transfer, in bytes.
    pub block_bytes: u32,
    /// What is written all or nothing, in bytes; divides `block_bytes`.
    pub sector_bytes: u32,
    /// Whether completed writes may be lost on power failure until a flush.
    pub volatile_cache: bool,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The granule in which discard frees, in bytes; 0 where it frees nothing.
    pub discard_granularity_bytes: u32,
    /// Whether a discarded range is certain to read as zeros.
    pub discard_zeroes: bool,
}

impl DiskGeometry {
    /// A disk of `size_bytes` with blocks and sectors of 512 bytes, a volatile cache, and discard that zeroes.
    #[must_use]
    pub fn of_bytes(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            block_bytes: 512,
            sector_bytes: 512,
            volatile_cache: true,
            read_only: false,
            discard_granularity_bytes: 4096,
            discard_zeroes: true,
        }
    }
}

/// What a medium holds: its sectors, without those that are all zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskImage {
    /// Size in bytes.
    pub size_bytes: u64,
    sector_bytes: u32,
    sectors: BTreeMap<u64, Rc<[u8]>>,
}

impl DiskImage {
    /// The digest of all contents.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hash = self.size_bytes;
        for (&at, bytes) in self.sectors.iter().filter(|(_, bytes)| bytes.iter().any(|&b| b != 0)) {
            hash = digest(&[hash.to_le_bytes(), at.to_le_bytes(), digest(bytes).to_le_bytes()].concat());
        }
        hash
    }

    /// `len` bytes from `start`; beyond the end, zeros.
    #[must_use]
    pub fn read(&self, start: u64, len: usize) -> Vec<u8> {
        let sector = u64::from(self.sector_bytes);
        let end = start + len as u64;
        let mut read = vec![0; len];
        for (&number, bytes) in self.sectors.range(start / sector..end.div_ceil(sector)) {
            let at = number * sector;
            let (from, to) = (start.max(at), end.min(at + sector));
            let part = &bytes[(from - at) as usize..(to - at) as usize];
            read[(from - start) as usize..(to - start) as usize].copy_from_slice(part);
        }
        read
    }
}

/// All disks.
#[derive(Default)]
pub(crate) struct Disks {
    all: Vec<Media>,
}

impl Disks {
    pub fn add(&mut self, name: &str, geometry: DiskGeometry, seed: u64) -> DiskId {
        let id = DiskId(u16::try_from(self.all.len()).expect("fewer than 65536 disks"));
        self.all.push(Media::new(name, geometry, seed, u64::from(id.0)));
        id
    }

    pub fn media(&mut self, id: DiskId) -> &mut Media {
        &mut self.all[usize::from(id.0)]
    }

    pub fn load(&mut self, id: DiskId, image: &DiskImage) {
        self.media(id).load(image);
    }

    pub fn image(&self, id: DiskId) -> DiskImage {
        self.all[usize::from(id.0)].image()
    }

    pub fn heal(&mut self, id: DiskId) {
        self.media(id).heal();
    }

    pub fn break_sectors(&mut self, id: DiskId, start: u64, bytes: u64) {
        self.media(id).break_sectors(start, bytes);
    }

    pub fn limit(&mut self, id: DiskId, bytes: Option<u64>) {
        self.media(id).limit(bytes);
    }

    pub fn hashes(&self) -> Vec<u64> {
        self.all.iter().map(|media| media.image().hash()).collect()
    }
}

/// What a node's crash does to the disks it had open.
pub(crate) fn crash(world: &World, node: NodeId, how: Crash) {
    let drop_rate = world.profile.disk.drop_at_crash;
    for media in &mut world.disks.borrow_mut().all {
        if media.holder == Some(node) {
            media.crash(how, drop_rate, &world.marks);
        }
    }
}
