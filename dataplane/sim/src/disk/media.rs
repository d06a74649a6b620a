//! What a medium holds, and how it may come to hold something else.

use std::collections::BTreeMap;
use std::rc::Rc;

use ashlar_env::disk::{DiskError, DiskInfo};

use super::{DiskGeometry, DiskImage};
use crate::executor::Crash;
use crate::faults::DiskFaults;
use crate::marks::Marks;
use crate::node::NodeId;
use crate::rng::{Prng, Rate};

/// A sector's content; `None` is all zeros.
pub(crate) type Content = Option<Rc<[u8]>>;

/// A state of a sector that has landed and is not durable.
struct Version {
    content: Content,
    operation: u64,
    /// When its operation completed, in the count of completions; `None` until then.
    completed: Option<u64>,
}

/// A write on its way: contents for sectors from `first`.
pub(crate) struct InFlight {
    pub first: u64,
    pub contents: Vec<Content>,
    pub fua: bool,
}

/// What a read finds in place of the right content.
enum Overlay {
    Unreadable,
    Shows(Content),
    Rotten { byte: usize, flip: u8 },
}

/// Faults of a write that the device does not admit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mischief {
    pub lost: bool,
    pub misdirected: bool,
    pub rotten: bool,
}

pub(crate) struct Media {
    pub name: String,
    geometry: DiskGeometry,
    pub(super) rng: Prng,
    /// The node that opened it last.
    pub holder: Option<NodeId>,
    /// Raised by every crash: what was on its way before is void.
    pub epoch: u32,
    durable: BTreeMap<u64, Rc<[u8]>>,
    pending: BTreeMap<u64, Vec<Version>>,
    overlay: BTreeMap<u64, Overlay>,
    in_flight: BTreeMap<u64, InFlight>,
    completions: u64,
    next_operation: u64,
    /// Why the medium takes no more writes.
    pub broken: Option<String>,
    limit_sectors: Option<u64>,
}

impl Media {
    pub fn new(name: &str, geometry: DiskGeometry, seed: u64, number: u64) -> Self {
        let it = geometry;
        assert!(it.block_bytes.is_power_of_two() && it.block_bytes <= 4096, "a block is at most 4096 bytes");
        assert!(it.block_bytes.is_multiple_of(it.sector_bytes), "a block is made of sectors");
        assert!(it.size_bytes.is_multiple_of(u64::from(it.block_bytes)), "a disk is made of blocks");
        Self {
            name: name.to_owned(),
            geometry,
            rng: Prng::split(seed, name, number),
            holder: None,
            epoch: 0,
            durable: BTreeMap::new(),
            pending: BTreeMap::new(),
            overlay: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            completions: 0,
            next_operation: 0,
            broken: None,
            limit_sectors: None,
        }
    }

    pub fn info(&self) -> DiskInfo {
        let it = &self.geometry;
        DiskInfo {
            size_bytes: it.size_bytes,
            block_bytes: it.block_bytes,
            physical_block_bytes: it.block_bytes,
            volatile_cache: it.volatile_cache,
            read_only: it.read_only,
            discard_granularity_bytes: it.discard_granularity_bytes,
            discard_zeroes: it.discard_zeroes,
            atomic_write_bytes: 0,
        }
    }

    pub fn sector_bytes(&self) -> u64 {
        u64::from(self.geometry.sector_bytes)
    }

    pub fn check(&self, start: u64, len: u64) -> Result<(), DiskError> {
        let block = u64::from(self.geometry.block_bytes);
        let end = start.checked_add(len).ok_or(DiskError::OutOfRange)?;
        let fits =
            start.is_multiple_of(block) && len.is_multiple_of(block) && end <= self.geometry.size_bytes;
        if fits { Ok(()) } else { Err(DiskError::OutOfRange) }
    }

    pub fn fresh_operation(&mut self) -> u64 {
        self.next_operation += 1;
        self.next_operation
    }

    fn content(&self, sector: u64) -> Content {
        match self.pending.get(&sector).and_then(|versions| versions.last()) {
            Some(version) => version.content.clone(),
            None => self.durable.get(&sector).cloned(),
        }
    }

    /// Reads into `buf` from `start`, as the overlay has it.
    pub fn read(&self, start: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let size = self.geometry.sector_bytes as usize;
        for (index, chunk) in buf.chunks_mut(size).enumerate() {
            let sector = start / size as u64 + index as u64;
            let over = self.overlay.get(&sector);
            let content = match over {
                Some(Overlay::Unreadable) => {
                    let at = sector * size as u64;
                    return Err(DiskError::Medium(format!("{}: sector at byte {at} unreadable", self.name)));
                }
                Some(Overlay::Shows(content)) => content.clone(),
                _ => self.content(sector),
            };
            match content {
                Some(bytes) => chunk.copy_from_slice(&bytes),
                None => chunk.fill(0),
            }
            if let Some(&Overlay::Rotten { byte, flip }) = over {
                chunk[byte] ^= flip;
            }
        }
        Ok(())
    }

    /// Draws whether a read of `len` bytes from `start` finds that a sector has become unreadable.
    pub fn decay(&mut self, start: u64, len: u64, rate: Rate) -> bool {
        let sectors = len / self.sector_bytes();
        let hit = self.rng.hits(rate);
        let sector = start / self.sector_bytes() + self.rng.below(sectors);
        if hit && sectors > 0 {
            self.overlay.insert(sector, Overlay::Unreadable);
        }
        hit
    }

    /// Cuts `data` into the contents of sectors.
    pub fn contents(&self, data: &[u8]) -> Vec<Content> {
        data.chunks(self.geometry.sector_bytes as usize).map(|chunk| Some(Rc::from(chunk))).collect()
    }

    /// Takes the space that these sectors need anew.
    pub fn reserve(&mut self, first: u64, count: u64) -> Result<(), DiskError> {
        let Some(limit) = self.limit_sectors else { return Ok(()) };
        let new = (first..first + count)
            .filter(|at| !self.durable.contains_key(at) && !self.pending.contains_key(at))
            .count() as u64;
        self.limit_sectors = Some(limit.checked_sub(new).ok_or(DiskError::NoSpace)?);
        Ok(())
    }

    pub fn take_off(&mut self, operation: u64, write: InFlight) {
        self.in_flight.insert(operation, write);
    }

    /// Lands the first `count` sectors of a write in flight; the rest stays in flight.
    pub fn land_part(&mut self, operation: u64, count: usize) {
        let Some(mut write) = self.in_flight.remove(&operation) else { return };
        let rest = write.contents.split_off(count.min(write.contents.len()));
        let first = write.first + write.contents.len() as u64;
        let fua = write.fua;
        self.apply(operation, write.first, write.contents, fua);
        self.in_flight.insert(operation, InFlight { first, contents: rest, fua });
    }

    /// Lands what is left of a write in flight.
    pub fn land(&mut self, operation: u64, mischief: Mischief) {
        let Some(write) = self.in_flight.remove(&operation) else { return };
        let (first, count) = (write.first, write.contents.len());
        let old = self.content(first);
        let new = write.contents.first().cloned().flatten();
        self.apply(operation, write.first, write.contents, write.fua);
        if count == 0 {
            return;
        }
        if mischief.lost || mischief.misdirected {
            self.overlay.insert(first, Overlay::Shows(old));
        }
        if mischief.misdirected {
            let elsewhere = self.rng.below(self.geometry.size_bytes / self.sector_bytes());
            if elsewhere != first {
                self.overlay.insert(elsewhere, Overlay::Shows(new));
            }
        }
        if mischief.rotten {
            let byte = self.rng.index(self.geometry.sector_bytes as usize);
            let flip = 1 << self.rng.below(8);
            self.overlay.insert(first + self.rng.below(count as u64), Overlay::Rotten { byte, flip });
        }
    }

    /// A write that fails: each sector of it may have landed.
    pub fn land_some(&mut self, operation: u64) {
        let Some(write) = self.in_flight.remove(&operation) else { return };
        for (index, content) in write.contents.into_iter().enumerate() {
            if self.rng.hits(Rate::percent(50)) {
                self.apply(operation, write.first + index as u64, vec![content], write.fua);
            }
        }
    }

    fn apply(&mut self, operation: u64, first: u64, contents: Vec<Content>, fua: bool) {
        for (sector, content) in (first..).zip(contents) {
            self.overlay.remove(&sector);
            if fua || !self.geometry.volatile_cache {
                self.pending.remove(&sector);
                self.settle(sector, content);
            } else {
                let version = Version { content, operation, completed: None };
                self.pending.entry(sector).or_default().push(version);
            }
        }
    }

    fn settle(&mut self, sector: u64, content: Content) {
        match content {
            Some(bytes) => self.durable.insert(sector, bytes),
            None => self.durable.remove(&sector),
        };
    }

    /// Notes that `operation` completed: from now on a flush covers it.
    pub fn complete(&mut self, operation: u64, first: u64, count: u64) {
        self.completions += 1;
        for (_, versions) in self.pending.range_mut(first..first + count) {
            for version in versions.iter_mut().filter(|v| v.operation == operation) {
                version.completed = Some(self.completions);
            }
        }
    }

    /// How many operations have completed: what a flush issued now covers.
    pub fn completions(&self) -> u64 {
        self.completions
    }

    /// Makes durable what had completed at `mark`, and what lies below it.
    pub fn flush(&mut self, mark: u64) {
        let sectors: Vec<u64> = self.pending.keys().copied().collect();
        for sector in sectors {
            let versions = self.pending.get_mut(&sector).expect("the key was there");
            let Some(last) = versions.iter().rposition(|v| v.completed.is_some_and(|c| c <= mark)) else {
                continue;
            };
            let settled = versions.drain(..=last).next_back().expect("the range is not empty");
            if versions.is_empty() {
                self.pending.remove(&sector);
            }
            self.settle(sector, settled.content);
        }
    }

    /// What the sectors read as after a discard that promises nothing.
    pub fn discarded(&mut self, first: u64, count: u64) -> Vec<Content> {
        if self.geometry.discard_zeroes {
            return vec![None; count as usize];
        }
        (first..first + count)
            .map(|sector| match self.rng.below(3) {
                0 => None,
                1 => self.content(sector),
                _ => {
                    let mut garbage = vec![0; self.geometry.sector_bytes as usize];
                    self.rng.fill(&mut garbage);
                    Some(Rc::from(garbage))
                }
            })
            .collect()
    }

    pub fn resize(&mut self, size_bytes: u64) {
        self.geometry.size_bytes = size_bytes;
        let end = size_bytes / self.sector_bytes();
        self.durable.retain(|&sector, _| sector < end);
        self.pending.retain(|&sector, _| sector < end);
        self.overlay.retain(|&sector, _| sector < end);
    }

    pub fn crash(&mut self, how: Crash, drop_rate: Rate, marks: &Marks) {
        self.epoch += 1;
        let mut flying: Vec<(u64, InFlight)> = std::mem::take(&mut self.in_flight).into_iter().collect();
        while !flying.is_empty() {
            let (operation, write) = flying.swap_remove(self.rng.index(flying.len()));
            let total = write.contents.len();
            let mut landed = 0;
            for (index, content) in write.contents.into_iter().enumerate() {
                if !self.rng.hits(drop_rate) {
                    landed += 1;
                    self.apply(operation, write.first + index as u64, vec![content], write.fua);
                }
            }
            let name = match landed {
                0 => "disk: write in flight lost at a crash",
                n if n == total => "disk: write in flight kept at a crash",
                _ => "disk: write in flight torn at a crash",
            };
            marks.hit(name);
        }
        if how == Crash::Process {
            return;
        }
        for (sector, mut versions) in std::mem::take(&mut self.pending) {
            if self.rng.hits(drop_rate) {
                marks.hit("disk: cached write lost at a crash");
                let kept = self.rng.index(versions.len());
                if kept == 0 {
                    continue;
                }
                versions.truncate(kept);
            }
            let last = versions.pop().expect("a pending sector has a version");
            self.settle(sector, last.content);
        }
    }

    pub fn image(&self) -> DiskImage {
        DiskImage {
            size_bytes: self.geometry.size_bytes,
            sector_bytes: self.geometry.sector_bytes,
            sectors: self.durable.clone(),
        }
    }

    pub fn load(&mut self, image: &DiskImage) {
        assert_eq!(image.sector_bytes, self.geometry.sector_bytes, "an image has the disk's sectors");
        self.geometry.size_bytes = image.size_bytes;
        self.durable = image.sectors.clone();
    }

    pub fn heal(&mut self) {
        self.overlay.clear();
        self.broken = None;
    }

    pub fn break_sectors(&mut self, start: u64, bytes: u64) {
        let size = self.sector_bytes();
        for sector in start / size..(start + bytes).div_ceil(size) {
            self.overlay.insert(sector, Overlay::Unreadable);
        }
    }

    pub fn limit(&mut self, bytes: Option<u64>) {
        self.limit_sectors = bytes.map(|bytes| bytes / self.sector_bytes());
    }

    /// Draws the faults that a write will have without telling.
    pub(super) fn mischief(&mut self, faults: &DiskFaults) -> Mischief {
        Mischief {
            lost: self.rng.hits(faults.lost_write),
            misdirected: self.rng.hits(faults.misdirected_write),
            rotten: self.rng.hits(faults.bit_rot),
        }
    }
}
