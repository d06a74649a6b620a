//! Bringing the replicas of a segment to its agreed end, and sealing them.

use ashlar_env::BufPool;
use ashlar_env::buf::PoolPlan;

use crate::chunks::{Chunk, Chunks, Seal, StoreError};
use crate::ids::SegmentKind;
use crate::segment::{Replica, Replicas, ShardError, ShardSet};

use super::super::record::decode_header;
use super::scan::{Chain, Scan};
use super::table::{Action, Content, EpochIs, ReplicaState, SealIs, action};
use super::walk::Walked;
use super::{RecoverError, Recovery};

/// Copies go through buffers of at most this many bytes.
const COPY_BYTES_MAX: usize = 256 << 10;

impl<C: Chunks> Recovery<'_, C> {
    /// Brings every replica in reach that counts to the end of `one`, and seals it.
    pub async fn mend(&self, one: &Walked) -> Result<(), RecoverError> {
        let seal = Seal { length: one.end, next: one.next.map(|(next, _)| next) };
        let in_reach = one.members.and(self.reachable);
        let mut remake = ShardSet::EMPTY;
        for shard in in_reach.iter() {
            match action(&self.look(one, shard, &seal).await) {
                Action::Ignore | Action::Keep => {}
                Action::Seal => self.seal_one(one, shard, seal).await?,
                Action::Remake => remake = remake.with(ShardSet::of(shard)),
                Action::YieldTo => return Err(RecoverError::Fenced { fence: self.epoch.0 + 1 }),
                Action::Conflict => return Err(RecoverError::Conflict { segment: one.segment }),
            }
        }
        for shard in remake.iter() {
            self.remake(one, shard).await?;
            self.seal_one(one, shard, seal).await?;
        }
        self.segments.open(one.segment, SegmentKind::Log, in_reach);
        Ok(())
    }

    /// What is known of a replica.
    async fn look(&self, one: &Walked, shard: u8, seal: &Seal) -> ReplicaState {
        let mut state = ReplicaState {
            excluded: !one.members.contains(shard),
            missing: true,
            epoch: EpochIs::Sound,
            seal: SealIs::Open,
            content: Content::Equal,
        };
        let id = self.segments.chunk_id(one.segment, SegmentKind::Log, shard);
        let Some(stat) = self.stat(one.segment, shard) else { return state };
        let Some(chunk) = self.segments.store(shard).open(id) else { return state };
        state.missing = false;
        if stat.epoch > self.epoch {
            state.epoch = EpochIs::Newer;
        } else if one.epoch.is_some_and(|epoch| stat.epoch < epoch) {
            state.epoch = EpochIs::Older;
        }
        match stat.sealed {
            // Complete when it was sealed: whether it still is, the scrubber finds out.
            Some(sealed) if sealed == *seal => state.seal = SealIs::Agreeing,
            Some(_) => state.seal = SealIs::Differing,
            None => state.content = self.content(one, chunk).await,
        }
        state
    }

    /// How far the records of one replica go.
    async fn content(&self, one: &Walked, chunk: C::Chunk) -> Content {
        let mut chain = Chain { limit: one.end, ..one.entered };
        let replica = Replica { shard: 0, chunk };
        Scan::new(Replicas::from_iter([replica])).run(&mut chain, |_, _| {}).await;
        if chain.offset == one.end { Content::Equal } else { Content::Shorter }
    }

    async fn seal_one(&self, one: &Walked, shard: u8, seal: Seal) -> Result<(), RecoverError> {
        let id = self.segments.chunk_id(one.segment, SegmentKind::Log, shard);
        let sealed = match self.segments.store(shard).open(id) {
            Some(chunk) => chunk.seal(self.epoch, seal).await,
            None => Err(StoreError::NotFound),
        };
        Ok(sealed.map_err(|error| ShardError { shard, error })?)
    }

    /// Makes the replica on `shard` again from those that are complete, each record checked on the way.
    async fn remake(&self, one: &Walked, shard: u8) -> Result<(), RecoverError> {
        let fail = |error| RecoverError::from(ShardError { shard, error });
        let id = self.segments.chunk_id(one.segment, SegmentKind::Log, shard);
        let store = self.segments.store(shard);
        match store.delete(id, self.epoch).await {
            Ok(()) | Err(StoreError::NotFound) => {}
            Err(error) => return Err(fail(error)),
        }
        let target = store.create(id, self.epoch).await.map_err(fail)?;
        let mut sources = self.segments.replicas(one.segment);
        sources.retain(|replica| replica.shard != shard);
        let mut scan = Scan::new(sources);
        // What lies before the place of entry is acknowledged: its first record is followed from the beginning.
        let mut chain = Chain { offset: 0, limit: one.end, ..one.entered };
        if one.entered.offset > 0 {
            chain.previous = None;
        }
        let pool = BufPool::on_heap(PoolPlan { limits: [0, 0, 0, 1, 0] });
        while chain.offset < one.end {
            let Some(bytes) = scan.next(&chain).await else {
                let (segment, at, length) = (one.segment, chain.offset, one.end);
                return Err(RecoverError::Damaged { segment, at, length });
            };
            let record = decode_header(bytes).expect("it was just decoded");
            let mut offset = chain.offset;
            for part in bytes[..record.total_bytes()].chunks(COPY_BYTES_MAX) {
                let mut buf = pool.alloc(part.len()).await;
                buf.copy_from_slice(part);
                target.append(self.epoch, offset, &[buf.freeze()]).await.map_err(fail)?;
                offset += part.len() as u32;
            }
            chain.pass(&record);
        }
        Ok(())
    }
}
