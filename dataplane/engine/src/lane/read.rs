//! Reading blocks of a volume.

use ashlar_codec::crc32c;
use ashlar_env::Env;
use ashlar_env::buf::BufMut;
use smallvec::SmallVec;

use crate::chunks::{Chunks, StoreError};
use crate::ids::{BLOCK_BYTES, BLOCK_GRANULES, GRANULE_BYTES, SegmentId};
use crate::map::{Entry, Missing, Tree};
use crate::segment::join;

use super::core::VolumeNumber;
use super::pack::decompress;
use super::{Inner, LaneError};

/// How often a read looks again where data was, before it takes what it finds for damage: in between it may be moved by
/// compaction, and its old place be used again.
const TRIES: usize = 8;

/// Pages loaded together.
const TOGETHER: usize = 16;

type Entries = SmallVec<[Entry; 16]>;

/// Blocks that lie one after the other in one segment.
struct Run {
    /// Which blocks of the read.
    first: usize,
    count: usize,
    segment: SegmentId,
    /// Where they begin and end in it, in bytes.
    start: usize,
    end: usize,
}

/// Why the stored bytes of a block were not to be had.
enum Fault {
    Store(StoreError),
    Checksum,
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Fills `buf`, which is whole blocks, from block `first` of `volume` on.
    pub(super) async fn read_blocks(
        &self,
        volume: VolumeNumber,
        first: u64,
        mut buf: BufMut,
    ) -> Result<BufMut, LaneError> {
        let mut tries = 0;
        loop {
            let entries = self.find(volume, first, buf.len() / BLOCK_BYTES).await?;
            let replica = tries % self.segments.all().len().max(1);
            let (back, fault) = self.fetch(&entries, buf, replica).await;
            buf = back;
            let Some(fault) = fault else { return Ok(buf) };
            self.suspect_all(&entries, replica);
            tries += 1;
            let replicas_tried = tries >= self.tries_enough(&fault);
            let again = self.find(volume, first, entries.len()).await?;
            if (again == entries && replicas_tried && !self.was_moved(&entries)) || tries >= TRIES {
                return Err(self.describe(&fault, volume, first));
            }
        }
    }

    /// How many tries tell that data are damaged. Which replica is tried first may change on the way, and one that is made
    /// again goes while it is read.
    fn tries_enough(&self, fault: &Fault) -> usize {
        match fault {
            _ if !self.segments.is_replicated() => 1,
            Fault::Store(StoreError::NotFound) => TRIES,
            _ => 2 * self.segments.all().len(),
        }
    }

    /// What holds these blocks gave something else, or nothing, as replica `nth`.
    fn suspect_all(&self, entries: &[Entry], nth: usize) {
        if self.segments.is_replicated() {
            let runs = self.runs(entries).unwrap_or_default();
            runs.iter().for_each(|run| self.suspect(run.segment, nth));
        }
    }

    fn was_moved(&self, entries: &[Entry]) -> bool {
        let core = self.core();
        let here =
            |entry: &&Entry| entry.is_empty() || core.table.resolve(entry.address()) == Some(entry.address());
        entries.iter().filter(here).count() != entries.len()
    }

    fn describe(&self, fault: &Fault, volume: VolumeNumber, first: u64) -> LaneError {
        match fault {
            Fault::Store(error) => LaneError::Store(error.clone()),
            Fault::Checksum => {
                LaneError::Damaged(format!("volume {volume}, near block {first}: wrong checksum"))
            }
        }
    }

    /// The entries of `count` blocks.
    pub(super) async fn find(
        &self,
        volume: VolumeNumber,
        first: u64,
        count: usize,
    ) -> Result<Entries, LaneError> {
        let mut entries = Entries::new();
        while entries.len() < count {
            let block = first + entries.len() as u64;
            let found = {
                let core = self.core();
                let found = core.volumes.get(&volume).ok_or(LaneError::NoVolume)?;
                if block >= super::core::blocks_of(found.size_bytes) {
                    return Err(LaneError::OutOfRange);
                }
                found.tree.find(block)
            };
            match found {
                Ok(entry) => entries.push(entry),
                Err(missing) => self.load(volume, missing).await?,
            }
        }
        Ok(entries)
    }

    /// Loads a page that the map of `volume` misses.
    pub(super) async fn load(&self, volume: VolumeNumber, missing: Missing) -> Result<(), LaneError> {
        let page = match self.page(missing.page).await {
            Ok(page) => page,
            Err(error) => {
                // A checkpoint may have written the page anew, and its old place be gone.
                let still = {
                    let core = self.core();
                    core.volumes.get(&volume).map(|volume| volume.tree.find(missing.block))
                };
                return if still == Some(Err(missing)) { Err(error) } else { Ok(()) };
            }
        };
        let mut core = self.core();
        // Room is made before: the page that comes must stay until whoever misses it has looked.
        core.shrink(self.leaves_max.get());
        if core.install(volume, missing, &page) {
            return Ok(());
        }
        Err(LaneError::Damaged(format!("a page of the map of volume {volume}")))
    }

    /// Loads all inner pages of the map of `volume`: what the log applies never waits for them.
    pub(super) async fn load_inner(&self, volume: VolumeNumber) -> Result<(), LaneError> {
        loop {
            let missing = {
                let core = self.core();
                core.volumes.get(&volume).map_or(Vec::new(), |volume| volume.tree.missing_inner(TOGETHER))
            };
            if missing.is_empty() {
                return Ok(());
            }
            for loaded in join(missing.into_iter().map(|missing| self.load(volume, missing))).await {
                loaded?;
            }
        }
    }

    /// The same for a version that nobody changes any more.
    pub(super) async fn load_version(
        &self,
        volume: VolumeNumber,
        tree: &mut Tree,
        missing: Missing,
    ) -> Result<(), LaneError> {
        let page = self.page(missing.page).await?;
        let mut core = self.core();
        let installed = tree.install(missing, &page, &mut core.quiet(volume));
        installed.map_err(|_| LaneError::Damaged(format!("a page of the map of volume {volume}")))
    }

    /// The bytes of a page of a map.
    pub(super) async fn page(&self, page: Entry) -> Result<BufMut, LaneError> {
        let mut last = Fault::Checksum;
        for tries in 0..TRIES {
            let replica = tries % self.segments.all().len().max(1);
            match self.stored(page, replica).await {
                Ok(bytes) => return Ok(bytes),
                Err(fault) => {
                    self.suspect_all(&[page], replica);
                    last = fault;
                }
            }
        }
        Err(match last {
            Fault::Store(error) => LaneError::Store(error),
            Fault::Checksum => LaneError::Damaged("a page of the map has a wrong checksum".into()),
        })
    }

    /// What is stored for `entry`, verified.
    async fn stored(&self, entry: Entry, replica: usize) -> Result<BufMut, Fault> {
        let place = self.core().table.resolve(entry.address()).ok_or(Fault::Store(StoreError::NotFound))?;
        let start = place.position as usize * GRANULE_BYTES;
        let len = usize::from(entry.granules()) * GRANULE_BYTES;
        let (from, to) = self.cover(start, start + len);
        let cover = self.scratch.alloc(to - from).await;
        let read = self.segments.read_from(place.segment, replica, from as u32, cover).await;
        let mut bytes = read.map_err(Fault::Store)?;
        bytes.copy_within(start - from..start - from + len, 0);
        bytes.truncate(len);
        if crc32c(&bytes) == entry.crc() { Ok(bytes) } else { Err(Fault::Checksum) }
    }

    /// The aligned range around `start..end`, in bytes.
    pub(super) fn cover(&self, start: usize, end: usize) -> (usize, usize) {
        let align = self.segments.align_bytes() as usize;
        (start / align * align, end.next_multiple_of(align))
    }

    /// Fills `buf` with the blocks of `entries`.
    async fn fetch(&self, entries: &[Entry], mut buf: BufMut, replica: usize) -> (BufMut, Option<Fault>) {
        let Some(runs) = self.runs(entries) else { return (buf, Some(Fault::Store(StoreError::NotFound))) };
        if let [run] = &runs[..]
            && run.count == entries.len()
            && run.end - run.start == buf.len()
            && self.cover(run.start, run.end) == (run.start, run.end)
        {
            return self.fetch_into(entries, run, buf, replica).await;
        }
        for (entry, block) in entries.iter().zip(buf.chunks_exact_mut(BLOCK_BYTES)) {
            if entry.is_empty() {
                block.fill(0);
            }
        }
        for run in &runs {
            let out = &mut buf[run.first * BLOCK_BYTES..(run.first + run.count) * BLOCK_BYTES];
            let entries = &entries[run.first..run.first + run.count];
            let mut fetched = self.fetch_run(entries, run, out, replica).await;
            // Each run may have another replica that is sound.
            for nth in 1..self.segments.all().len() {
                if fetched.is_ok() {
                    break;
                }
                self.suspect(run.segment, replica + nth - 1);
                fetched = self.fetch_run(entries, run, out, replica + nth).await;
            }
            if let Err(fault) = fetched {
                return (buf, Some(fault));
            }
        }
        (buf, None)
    }

    /// Fills `out` with the blocks of one run, from one replica.
    async fn fetch_run(
        &self,
        entries: &[Entry],
        run: &Run,
        out: &mut [u8],
        replica: usize,
    ) -> Result<(), Fault> {
        let (from, to) = self.cover(run.start, run.end);
        let cover = self.scratch.alloc(to - from).await;
        let read = self.segments.read_from(run.segment, replica, from as u32, cover).await;
        let stored = read.map_err(Fault::Store)?;
        let stored = &stored[run.start - from..run.end - from];
        unpack(entries, stored, out, self.skips()).ok_or(Fault::Checksum)
    }

    /// The whole read is one run of blocks stored as they are: no copy.
    async fn fetch_into(
        &self,
        entries: &[Entry],
        run: &Run,
        buf: BufMut,
        replica: usize,
    ) -> (BufMut, Option<Fault>) {
        let len = buf.len();
        match self.segments.read_from(run.segment, replica, run.start as u32, buf).await {
            Ok(buf) => {
                let good = |(entry, block): (&Entry, &[u8])| crc32c(block) == entry.crc();
                let all = self.skips() || entries.iter().zip(buf.chunks_exact(BLOCK_BYTES)).all(good);
                (buf, (!all).then_some(Fault::Checksum))
            }
            Err(error) => (self.env.buffers().alloc(len).await, Some(Fault::Store(error))),
        }
    }

    fn skips(&self) -> bool {
        self.config.planted.skip_checksums
    }

    /// Blocks that lie together, of those that are anywhere. `None` where the table does not know a segment.
    fn runs(&self, entries: &[Entry]) -> Option<SmallVec<[Run; 4]>> {
        let core = self.core();
        let mut runs = SmallVec::<[Run; 4]>::new();
        for (at, entry) in entries.iter().enumerate() {
            if entry.is_empty() {
                continue;
            }
            let place = core.table.resolve(entry.address())?;
            let start = place.position as usize * GRANULE_BYTES;
            let end = start + usize::from(entry.granules()) * GRANULE_BYTES;
            match runs.last_mut() {
                Some(run)
                    if run.segment == place.segment && run.end == start && run.first + run.count == at =>
                {
                    run.count += 1;
                    run.end = end;
                }
                _ => runs.push(Run { first: at, count: 1, segment: place.segment, start, end }),
            }
        }
        Some(runs)
    }
}

/// The blocks of `entries` from their stored bytes, one after the other.
fn unpack(entries: &[Entry], mut stored: &[u8], out: &mut [u8], trusting: bool) -> Option<()> {
    for (entry, block) in entries.iter().zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let (bytes, rest) = stored.split_at_checked(usize::from(entry.granules()) * GRANULE_BYTES)?;
        stored = rest;
        if crc32c(bytes) != entry.crc() && !trusting {
            return None;
        }
        if entry.granules() == BLOCK_GRANULES {
            block.copy_from_slice(bytes);
        } else if decompress(bytes, block).is_none() && !trusting {
            return None;
        }
    }
    Some(())
}
