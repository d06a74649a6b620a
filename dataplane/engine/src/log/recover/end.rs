//! Whether the end of the log is its end, and not a place where acknowledged records were damaged.

use ashlar_env::BufPool;
use ashlar_env::buf::{MAX_BYTES, PoolPlan};

use crate::chunks::{Chunk, Chunks};
use crate::ids::{ChunkId, SegmentKind};

use super::super::op::Position;
use super::super::record::{FIXED_BYTES, HEADER_BYTES_MAX, decode_header};
use super::walk::Walked;
use super::{RecoverError, Recovery};

/// Where to look for records.
struct Place {
    shard: u8,
    id: ChunkId,
    offset: u32,
    /// From there to the end of the chunk; else there only.
    whole: bool,
}

impl<C: Chunks> Recovery<'_, C> {
    /// Looks for records behind `end`, and refuses to go on if one shows that the record at `end` was acknowledged.
    pub async fn check_end(&self, walked: &[Walked], end: &Position) -> Result<(), RecoverError> {
        let last = walked.last().expect("the walk has at least one segment");
        for place in self.places_behind(walked, last) {
            if self.shows_loss(&place, end.sequence).await {
                let (segment, at) = (last.segment, last.end);
                return Err(RecoverError::Damaged { segment, at, length: at });
            }
        }
        Ok(())
    }

    fn places_behind(&self, walked: &[Walked], last: &Walked) -> Vec<Place> {
        let mut places = Vec::new();
        if !last.is_sealed {
            let (segment, offset) = (last.segment, last.end);
            let shards = last.members.and(self.reachable);
            places.extend(shards.iter().map(|shard| {
                let id = self.segments.find(segment, SegmentKind::Log, shard);
                Place { shard, id, offset, whole: true }
            }));
        }
        for (shard, stat) in self.segments.list() {
            let segment = stat.id.segment;
            let passed = walked.iter().any(|one| one.segment == segment);
            let later = stat.sealed.is_none() || segment > last.segment;
            if stat.id.kind == SegmentKind::Log && !passed && later && self.reachable.contains(shard) {
                places.push(Place { shard, id: stat.id, offset: 0, whole: false });
            }
        }
        places
    }

    /// Whether there is a record that was sent after that of `sequence` had been acknowledged.
    async fn shows_loss(&self, place: &Place, sequence: u64) -> bool {
        let store = self.segments.store(place.shard);
        let Some(chunk) = store.open(place.id) else { return false };
        let align = self.segments.align_bytes() as usize;
        let sealed = store.stat(place.id).and_then(|stat| stat.sealed);
        let limit = sealed.map_or(store.info().chunk_bytes, |seal| seal.length);
        let step = if place.whole { MAX_BYTES } else { HEADER_BYTES_MAX } as u32;
        let pool = BufPool::on_heap(PoolPlan { limits: [1, 1, 1, 1, 1] });
        let (mut at, mut bytes) = (place.offset, Vec::new());
        while at < limit {
            let length = step.min(limit - at);
            // What cannot be read shows nothing.
            let Ok(read) = chunk.read(at, pool.alloc(length as usize).await).await else { return false };
            // A header may begin in what was read before.
            let known = bytes.len();
            bytes.extend_from_slice(&read);
            at += length;
            let starts = (0..bytes.len().saturating_sub(FIXED_BYTES)).step_by(align);
            for from in starts.take(if place.whole { usize::MAX } else { 1 }) {
                if let Ok(record) = decode_header(&bytes[from..])
                    && record.header.lane == self.segments.lane()
                    && record.header.segment == place.id.segment
                    && record.acknowledged_below() > sequence
                {
                    return true;
                }
            }
            if !place.whole {
                return false;
            }
            bytes.drain(..known);
        }
        false
    }
}
