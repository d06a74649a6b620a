//! Following the log from a position to its end.

use crate::chunks::{ChunkStat, Chunks, Seal};
use crate::ids::{Epoch, SegmentId, SegmentKind};
use crate::segment::ShardSet;

use super::super::op::Position;
use super::scan::{Chain, Scan, replay};
use super::{Event, RecoverError, Recovery};

/// A segment that was passed.
#[derive(Clone, Debug)]
pub(super) struct Walked {
    pub segment: SegmentId,
    /// The replicas it was made with, and those of them that count.
    pub shards: ShardSet,
    pub members: ShardSet,
    /// Those of them that count no more from this recovery on: out of reach, or gone with no device for another.
    pub lost: ShardSet,
    /// The chain at the place where the walk entered it.
    pub entered: Chain,
    /// The agreed end, in bytes.
    pub end: u32,
    /// Whether a decision or a seal says so.
    pub is_sealed: bool,
    /// The epoch of its records; `None` where it has none.
    pub epoch: Option<Epoch>,
    /// The segment after it, and its replicas.
    pub next: Option<(SegmentId, ShardSet)>,
}

impl Walked {
    /// How it is sealed.
    pub fn seal(&self) -> Seal {
        Seal { length: self.end, next: self.next.map(|(next, _)| next) }
    }

    /// The chain from the segment's beginning to its agreed end. Where the walk entered it later, its first record is
    /// taken as it is: it was acknowledged, and what follows is bound to it.
    pub fn whole(&self) -> Chain {
        let previous = self.entered.previous.filter(|_| self.entered.offset == 0);
        Chain { offset: 0, limit: self.end, previous, ..self.entered }
    }
}

impl<C: Chunks> Recovery<'_, C> {
    /// Follows the log from `from` and tells `each` of all there is. The segments passed, and the end.
    pub async fn walk(
        &self,
        from: Position,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<(Vec<Walked>, Position), RecoverError> {
        let mut walked: Vec<Walked> = Vec::new();
        let mut at = from;
        loop {
            each(Event::Opened(at.segment));
            let (one, end) = self.segment(at, each).await?;
            let next = one.next;
            walked.push(one);
            let Some((segment, shards)) = next else { return Ok((walked, end)) };
            if walked.iter().any(|one| one.segment == segment) {
                let damaged = walked.last().expect("one was just put in");
                let (segment, length) = (damaged.segment, damaged.end);
                return Err(RecoverError::Damaged { segment, at: length, length });
            }
            at = Position { segment, offset: 0, shards, ..end };
        }
    }

    /// Reads one segment from `at` to its end.
    async fn segment(
        &self,
        at: Position,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<(Walked, Position), RecoverError> {
        let segment = at.segment;
        let decision = self.coordinator.decision(self.segments.lane(), segment);
        let members = at.shards.without(decision.map_or(ShardSet::EMPTY, |decision| decision.without));
        let in_reach = members.and(self.reachable);
        if self.segments.open(segment, SegmentKind::Log, in_reach) == 0 {
            return Err(RecoverError::Missing { segment });
        }
        let seal = match decision {
            Some(decision) => Some(Seal { length: decision.length, next: Some(decision.next) }),
            None => self.seal(segment, in_reach)?,
        };
        let mut chain = self.chain(at, seal);
        let entered = chain;
        let mut next = None;
        let mut scan = Scan::new(self.segments.replicas(segment));
        let mut sums = Vec::new();
        let mut offset = at.offset;
        scan.run(&mut chain, |record, bytes| {
            replay(record, bytes, offset, &mut sums, |op| each(Event::Applied(op)));
            offset += record.total_bytes() as u32;
            next = record.next();
        })
        .await;
        if let Some(Seal { length, .. }) = seal
            && chain.offset != length
        {
            return Err(RecoverError::Damaged { segment, at: chain.offset, length });
        }
        let next = seal.and_then(|seal| seal.next).or(next);
        let shards = decision.map_or(at.shards, |decision| decision.next_shards);
        let walked = Walked {
            segment,
            shards: at.shards,
            members,
            lost: ShardSet::EMPTY,
            entered,
            end: chain.offset,
            is_sealed: seal.is_some(),
            epoch: chain.epoch,
            next: next.map(|next| (next, shards)),
        };
        let (sequence, previous) = (chain.sequence, chain.previous.unwrap_or(at.previous));
        Ok((walked, Position { offset: chain.offset, sequence, previous, ..at }))
    }

    fn chain(&self, at: Position, seal: Option<Seal>) -> Chain {
        let stores = self.segments.stores().iter();
        let limit = stores.map(|store| store.info().chunk_bytes).min().expect("there is a store");
        Chain {
            lane: self.segments.lane(),
            segment: at.segment,
            offset: at.offset,
            sequence: at.sequence,
            previous: Some(at.previous),
            epoch: None,
            epoch_max: self.epoch,
            limit: seal.map_or(limit, |seal| seal.length),
            align_shift: self.segments.align_bytes().trailing_zeros() as u8,
            planted: self.planted,
        }
    }

    /// How the segment was sealed, if it was on some replica that counts.
    fn seal(&self, segment: SegmentId, shards: ShardSet) -> Result<Option<Seal>, RecoverError> {
        let mut agreed: Option<Seal> = None;
        for shard in shards.iter() {
            let Some(seal) = self.stat(segment, shard).and_then(|stat| stat.sealed) else { continue };
            if agreed.is_some_and(|agreed| agreed != seal) {
                return Err(RecoverError::Conflict { segment });
            }
            agreed = Some(seal);
        }
        Ok(agreed)
    }

    /// What the store of `shard` knows of its replica.
    pub fn stat(&self, segment: SegmentId, shard: u8) -> Option<ChunkStat> {
        let id = self.segments.find(segment, SegmentKind::Log, shard);
        self.segments.store(shard).stat(id)
    }
}
