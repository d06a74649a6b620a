//! Scrubbing: sealed segments are read at a given rate and held against their checksums, so that rot is found before
//! somebody needs the block, and while other copies may still be there.
//!
//! All that is in a segment is verified, live or not, since its own records and batches hold every checksum: no map is
//! read and no cached leaf is driven out. Only for what is damaged the maps are asked whether any version still holds
//! it. A pass takes one record or batch at a time, and reads it in pieces of [`PIECE_BYTES`]; what hosts ask for goes
//! between any two. Segments that compaction takes away meanwhile are left out: their blocks were verified as they
//! moved.
//!
//! Where a segment has several replicas, each is verified, and one that is damaged is made again from the others.

use std::collections::BTreeMap;
use std::time::Duration;

use ashlar_codec::crc32c;
use ashlar_env::Env;
use ashlar_env::spawn::yield_now;
use ashlar_env::units::VolumeId;

use crate::chunks::{Chunks, StoreError};
use crate::debug::scan::{Flaw, scan};
use crate::ids::{GRANULE_BYTES, SegmentId, SegmentKind};
use crate::log::record::{FIXED_BYTES, RecordError, decode_header, verify_payload};

use super::batch::{self, HEADER_BYTES};
use super::core::VolumeNumber;
use super::{Inner, Lane};

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// The most damages that are remembered of a lane; of what is found further only the number counts.
const DAMAGES_MAX: usize = 1000;

/// Something that scrubbing found damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubDamage {
    /// The volume, where it is known and still there.
    pub volume: Option<VolumeId>,
    /// Its number in the lane, where it is known.
    pub number: Option<VolumeNumber>,
    /// The volume's block of 4 KiB, where it is one.
    pub block: Option<u64>,
    /// The segment.
    pub segment: SegmentId,
    /// The store of the replica, from 0.
    pub replica: u8,
    /// Where in it, in bytes.
    pub byte: u32,
    /// What is wrong.
    pub what: String,
}

/// How far scrubbing has come, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Passes that were completed since the lane was opened.
    pub passes: u64,
    /// Segments of the present or last pass, and how many of these are done.
    pub segments: u64,
    /// See `segments`.
    pub segments_done: u64,
    /// Bytes read since the lane was opened.
    pub bytes: u64,
    /// What is damaged, as far as is known: found in this pass or the last one, and not gone since.
    pub damages: Vec<ScrubDamage>,
}

/// What is known of a lane's scrubbing.
#[derive(Default)]
pub(super) struct Scrub {
    passes: u64,
    segments: u64,
    segments_done: u64,
    bytes: u64,
    damages: BTreeMap<(SegmentId, u8, u32), ScrubDamage>,
}

/// Why a segment was not verified to its end.
enum Stop {
    /// It is not there any more, or the lane has ended.
    Gone,
    /// Something in it is not what was written.
    Flawed,
}

type Step<T> = Result<T, Stop>;

impl<E: Env, C: Chunks> Lane<E, C> {
    /// Verifies every sealed segment once, reading `bytes_per_second` at most, and ends early when the lane is closed.
    /// What is found is in [`Self::report`].
    pub async fn scrub(&self, bytes_per_second: u64) {
        let inner = &*self.0;
        let segments = inner.to_scrub();
        {
            let mut scrub = inner.scrub.borrow_mut();
            (scrub.segments, scrub.segments_done) = (segments.len() as u64, 0);
        }
        for (segment, kind, len) in segments {
            for shard in inner.segments.shards(segment).iter() {
                let pass = Pass { inner, segment, kind, len, shard, bytes_per_second };
                pass.run().await;
            }
            if inner.check().is_err() {
                return;
            }
            inner.scrub.borrow_mut().segments_done += 1;
            yield_now().await;
        }
        let mut scrub = inner.scrub.borrow_mut();
        scrub.damages.retain(|(segment, ..), _| inner.core().table.is_here(*segment));
        scrub.passes += 1;
    }

    /// Bytes that scrubbing has read since the lane was opened, and how much of what is there it found damaged.
    #[must_use]
    pub fn scrub_totals(&self) -> (u64, u64) {
        let scrub = self.0.scrub.borrow();
        (scrub.bytes, scrub.damages.len() as u64)
    }
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// The segments that are to be read: number, kind and length in bytes.
    fn to_scrub(&self) -> Vec<(SegmentId, SegmentKind, usize)> {
        let core = self.core();
        let sealed = |(id, segment): (SegmentId, &super::table::Segment)| {
            let len = segment.sealed.filter(|_| core.table.is_here(id))?;
            Some((id, segment.kind, len as usize))
        };
        core.table.sorted().into_iter().filter_map(sealed).collect()
    }

    pub(super) fn scrub_report(&self) -> ScrubReport {
        let scrub = self.scrub.borrow();
        ScrubReport {
            passes: scrub.passes,
            segments: scrub.segments,
            segments_done: scrub.segments_done,
            bytes: scrub.bytes,
            damages: scrub.damages.values().cloned().collect(),
        }
    }
}

/// A replica of a segment that is being verified.
struct Pass<'a, E: Env, C: Chunks> {
    inner: &'a Inner<E, C>,
    segment: SegmentId,
    kind: SegmentKind,
    len: usize,
    shard: u8,
    bytes_per_second: u64,
}

impl<E: Env, C: Chunks> Pass<'_, E, C> {
    async fn run(&self) {
        let sound = match self.kind {
            SegmentKind::Log => self.records().await,
            SegmentKind::Map | SegmentKind::Moved => self.batches().await,
            // These are replaced at every checkpoint.
            SegmentKind::Checkpoint => Ok(()),
        };
        let flaws = match sound {
            Ok(()) => Vec::new(),
            Err(Stop::Gone) => return,
            Err(Stop::Flawed) => match self.damages().await {
                Ok(damages) => damages,
                Err(_) => return,
            },
        };
        // What another replica has is put right at once, and no damage any more.
        let mended = !flaws.is_empty() && self.inner.mend(self.segment, self.shard).await;
        let flaws = if mended { Vec::new() } else { flaws };
        let mut scrub = self.inner.scrub.borrow_mut();
        let replica = self.shard;
        scrub.damages.retain(|(segment, other, _), _| (*segment, *other) != (self.segment, replica));
        for damage in flaws {
            if scrub.damages.len() < DAMAGES_MAX {
                scrub.damages.insert((damage.segment, replica, damage.byte), damage);
            }
        }
    }

    fn align(&self) -> usize {
        self.inner.segments.align_bytes() as usize
    }

    /// Verifies a segment of the log, record by record.
    async fn records(&self) -> Step<()> {
        let (mut at, mut bytes) = (0, Vec::new());
        while at < self.len {
            bytes.clear();
            let mut need = FIXED_BYTES;
            let total = loop {
                self.fill(at, need, &mut bytes).await?;
                match decode_header(&bytes) {
                    Ok(record) if record.header.segment != self.segment => return Err(Stop::Flawed),
                    Ok(record) if record.total_bytes() > bytes.len() => need = record.total_bytes(),
                    Ok(record) => match verify_payload(&record, &bytes) {
                        Ok(()) => break record.total_bytes(),
                        Err(_) => return Err(Stop::Flawed),
                    },
                    Err(RecordError::Short { need: more }) => need = more,
                    Err(_) => return Err(Stop::Flawed),
                }
            };
            at += total;
            yield_now().await;
        }
        Ok(())
    }

    /// Verifies a segment of batches, one by one.
    async fn batches(&self) -> Step<()> {
        let (mut at, mut bytes) = (0, Vec::new());
        while at < self.len {
            bytes.clear();
            self.fill(at, HEADER_BYTES, &mut bytes).await?;
            let header = batch::peek(&bytes).filter(|header| header.segment == self.segment);
            let header = header.ok_or(Stop::Flawed)?;
            self.fill(at, header.bytes(), &mut bytes).await?;
            let items = batch::decode(&bytes[..HEADER_BYTES], &bytes[header.items_at()..]);
            for item in items.ok_or(Stop::Flawed)? {
                let start = (item.position as usize * GRANULE_BYTES).checked_sub(at).ok_or(Stop::Flawed)?;
                let stored = bytes.get(start..start + usize::from(item.granules) * GRANULE_BYTES);
                if stored.is_none_or(|stored| crc32c(stored) != item.crc) {
                    return Err(Stop::Flawed);
                }
            }
            at += header.bytes().next_multiple_of(self.align());
            yield_now().await;
        }
        Ok(())
    }

    /// Reads on until `bytes`, which begin at `at`, are `need` at least.
    async fn fill(&self, at: usize, need: usize, bytes: &mut Vec<u8>) -> Step<()> {
        while bytes.len() < need {
            let from = at + bytes.len();
            if at + need > self.len {
                return Err(Stop::Flawed);
            }
            let len =
                (self.len - from).min(PIECE_BYTES.min((need - bytes.len()).next_multiple_of(self.align())));
            if !self.piece(from, len, bytes).await? {
                return Err(Stop::Flawed);
            }
        }
        Ok(())
    }

    /// Reads a piece and appends it to `bytes`, at the rate. `false` where it cannot be read.
    async fn piece(&self, from: usize, len: usize, bytes: &mut Vec<u8>) -> Step<bool> {
        let inner = self.inner;
        let began = inner.env.now();
        let buf = inner.scratch.alloc(len).await;
        let read = inner.segments.read_shard(self.segment, self.shard, from as u32, buf).await;
        inner.scrub.borrow_mut().bytes += len as u64;
        let nanos = (len as u128 * 1_000_000_000 / u128::from(self.bytes_per_second.max(1))) as u64;
        inner.env.sleep_until(began.plus(Duration::from_nanos(nanos))).await;
        if inner.check().is_err() || !inner.core().table.is_here(self.segment) {
            return Err(Stop::Gone);
        }
        match read {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(StoreError::NotFound) => return Err(Stop::Gone),
            Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// What exactly is damaged, of all that some version still holds: reads the segment as a whole.
    async fn damages(&self) -> Step<Vec<ScrubDamage>> {
        let mut bytes = Vec::with_capacity(self.len);
        while bytes.len() < self.len {
            let len = (self.len - bytes.len()).min(PIECE_BYTES);
            if self.piece(bytes.len(), len, &mut bytes).await? {
                continue;
            }
            let end = bytes.len() + len;
            while bytes.len() < end {
                let len = (end - bytes.len()).min(self.align());
                if !self.piece(bytes.len(), len, &mut bytes).await? {
                    // What is there is found by its checksum.
                    bytes.resize(bytes.len() + len, 0);
                }
            }
        }
        let id = self.inner.segments.chunk_id(self.segment, self.kind, 0);
        let found = scan(id, true, self.align(), &bytes);
        let items = self.inner.items(self.segment, &bytes).unwrap_or_default();
        let mut versions = BTreeMap::new();
        let mut damages = Vec::new();
        for flaw in found.flaws {
            let item = items.iter().find(|item| item.position as usize * GRANULE_BYTES == flaw.byte as usize);
            if let Some(item) = item
                && let Ok(false) = self.inner.is_live(item, &mut versions).await
            {
                continue;
            }
            damages.push(self.damage(flaw));
        }
        if self.inner.core().table.is_here(self.segment) { Ok(damages) } else { Err(Stop::Gone) }
    }

    fn damage(&self, flaw: Flaw) -> ScrubDamage {
        let core = self.inner.core();
        let volume = flaw.volume.and_then(|number| core.volumes.get(&number)).map(|volume| volume.id);
        ScrubDamage {
            volume,
            number: flaw.volume,
            block: flaw.block,
            segment: self.segment,
            replica: self.shard,
            byte: flaw.byte,
            what: flaw.what,
        }
    }
}
