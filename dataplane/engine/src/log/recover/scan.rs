//! Reading records from the replicas of a segment.

use ashlar_env::BufPool;
use ashlar_env::buf::{MAX_BYTES, PoolPlan};

use crate::chunks::Chunk;
use crate::ids::{Epoch, GRANULE_BYTES, LaneId, SegmentId};
use crate::segment::Replicas;

use super::super::config::Planted;
use super::super::op::{Applied, AppliedOp, Place};
use super::super::record::{BlockSum, Extent, Record, decode_header, verify_payload};

/// The chain up to some place of a segment: what the next record has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub lane: LaneId,
    pub segment: SegmentId,
    /// Where the next record begins.
    pub offset: u32,
    pub sequence: u64,
    /// `None` where it is not known what came before: any first record will do.
    pub previous: Option<u32>,
    /// That of the segment's records so far.
    pub epoch: Option<Epoch>,
    /// No record has a higher one.
    pub epoch_max: Epoch,
    /// Where the segment ends at the latest.
    pub limit: u32,
    pub align_shift: u8,
    pub planted: Planted,
}

impl Chain {
    /// Whether `record`, found at `offset` with `bytes` from there on, is the next one.
    fn accepts(&self, record: &Record<'_>, bytes: &[u8]) -> bool {
        let header = &record.header;
        let chained = match self.previous {
            Some(previous) => header.previous == previous && header.sequence == self.sequence,
            None => true,
        };
        header.lane == self.lane
            && header.segment == self.segment
            && (chained || self.planted.skip_chain)
            && self.epoch.is_none_or(|epoch| epoch == header.epoch)
            && header.epoch <= self.epoch_max
            && header.align_shift == self.align_shift
            && record.total_bytes() <= (self.limit - self.offset) as usize
            && (self.planted.skip_payload || verify_payload(record, bytes).is_ok())
    }

    /// Goes past `record`.
    pub fn pass(&mut self, record: &Record<'_>) {
        self.offset += record.total_bytes() as u32;
        self.sequence = record.header.sequence + 1;
        self.previous = Some(record.crc);
        self.epoch = Some(record.header.epoch);
    }
}

/// Memory for reads: there is one at a time.
const PLAN: PoolPlan = PoolPlan { limits: [1, 1, 1, 1, 1] };

/// Reads one replica from some place on.
struct Reader<K> {
    chunk: K,
    /// Where in the segment `bytes` begin.
    start: u32,
    bytes: Vec<u8>,
}

impl<K: Chunk> Reader<K> {
    /// Makes at least `need` bytes from `offset` on available, as far as the segment goes. Whether they are.
    async fn fill(&mut self, pool: &BufPool, offset: u32, need: usize, limit: u32) -> bool {
        let end = self.start as usize + self.bytes.len();
        if offset < self.start || offset as usize > end {
            self.bytes.clear();
            self.start = offset;
        } else if (offset - self.start) as usize + need > self.bytes.len() {
            self.bytes.drain(..(offset - self.start) as usize);
            self.start = offset;
        }
        while ((self.start as usize + self.bytes.len()) - offset as usize) < need {
            let at = self.start + self.bytes.len() as u32;
            let length = (limit - at).min(MAX_BYTES as u32);
            if length == 0 {
                return false;
            }
            let buf = pool.alloc(length as usize).await;
            // A medium error ends this replica's part here; others may have the record.
            let Ok(buf) = self.chunk.read(at, buf).await else { return false };
            self.bytes.extend_from_slice(&buf);
        }
        true
    }

    fn at(&self, offset: u32) -> &[u8] {
        &self.bytes[(offset - self.start) as usize..]
    }

    /// Whether the next record of `chain` is here, with all its bytes at hand.
    async fn has(&mut self, pool: &BufPool, chain: &Chain) -> bool {
        let mut need = super::super::record::FIXED_BYTES;
        loop {
            if !self.fill(pool, chain.offset, need, chain.limit).await {
                return false;
            }
            let bytes = self.at(chain.offset);
            match decode_header(bytes) {
                Ok(record) if record.total_bytes() <= bytes.len() => return chain.accepts(&record, bytes),
                Ok(record) => need = record.total_bytes(),
                Err(super::super::record::RecordError::Short { need: more }) => need = more,
                Err(_) => return false,
            }
        }
    }
}

/// Reads the records of a segment, each from any replica that has it.
pub(super) struct Scan<K> {
    readers: Vec<Reader<K>>,
    /// The replica that had the last record.
    at: usize,
    pool: BufPool,
}

impl<K: Chunk> Scan<K> {
    pub fn new(replicas: Replicas<K>) -> Self {
        let reader = |chunk| Reader { chunk, start: 0, bytes: Vec::new() };
        let readers = replicas.into_iter().map(|replica| reader(replica.chunk)).collect();
        Self { readers, at: 0, pool: BufPool::on_heap(PLAN) }
    }

    /// The bytes from the next record of `chain` on; `None` where no replica has it.
    pub async fn next(&mut self, chain: &Chain) -> Option<&[u8]> {
        for _ in 0..self.readers.len() {
            if self.readers[self.at].has(&self.pool, chain).await {
                return Some(self.readers[self.at].at(chain.offset));
            }
            self.at = (self.at + 1) % self.readers.len();
        }
        None
    }

    /// Goes along `chain` to its end, and calls `each` with every record and its bytes.
    pub async fn run(&mut self, chain: &mut Chain, mut each: impl FnMut(&Record<'_>, &[u8])) {
        loop {
            let Some(bytes) = self.next(chain).await else { return };
            let record = decode_header(bytes).expect("it was just decoded");
            each(&record, bytes);
            chain.pass(&record);
            if record.next().is_some() {
                return;
            }
        }
    }
}

/// Calls `each` with the operations of `record`, which begins at byte `at` of its segment.
pub(super) fn replay(
    record: &Record<'_>,
    bytes: &[u8],
    at: u32,
    sums: &mut Vec<BlockSum>,
    mut each: impl FnMut(AppliedOp<'_>),
) {
    let segment = record.header.segment;
    record.for_each(sums, |extent, place| {
        let op = match extent {
            Extent::Data { volume, first, sums } => {
                let granule = (at + place as u32) / GRANULE_BYTES as u32;
                Applied::Data { volume, first, sums, place: Place { segment, granule } }
            }
            Extent::Zero { volume, first, count } => Applied::Zero { volume, first, count },
            Extent::Unmap { volume, first, count } => Applied::Unmap { volume, first, count },
            Extent::Control { bytes: length, .. } => Applied::Control(&bytes[place..place + length as usize]),
            Extent::Next(_) => return,
        };
        each(AppliedOp { sequence: record.header.sequence, op });
    });
}
