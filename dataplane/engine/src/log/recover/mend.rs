//! Bringing the replicas of a segment to its agreed end, and sealing them.

use ashlar_env::BufPool;
use ashlar_env::buf::PoolPlan;

use crate::chunks::{Chunk, Chunks, Seal, StoreError};
use crate::ids::{ChunkId, SegmentKind};
use crate::segment::{Replica, Replicas, ShardError, ShardSet};

use super::scan::Scan;
use super::table::{Action, Content, EpochIs, ReplicaState, SealIs, action};
use super::walk::Walked;
use super::{RecoverError, Recovery};

/// Copies go through buffers of at most this many bytes.
const COPY_BYTES_MAX: usize = 256 << 10;

/// What is to be done with the replicas of a segment; nothing with those that are in neither set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// They are sealed.
    pub seal: ShardSet,
    /// They are made again from others, and sealed.
    pub remake: ShardSet,
}

impl<C: Chunks> Recovery<'_, C> {
    /// Decides what becomes of each replica of `one` that counts and is in reach.
    pub async fn plan(&self, one: &Walked) -> Result<Plan, RecoverError> {
        let seal = one.seal();
        let mut plan = Plan::default();
        for shard in one.members.without(one.lost).iter() {
            match action(&self.look(one, shard, &seal).await) {
                Action::Ignore | Action::Keep => {}
                Action::Seal => plan.seal = plan.seal.with(ShardSet::of(shard)),
                Action::Remake => plan.remake = plan.remake.with(ShardSet::of(shard)),
                Action::YieldTo => return Err(RecoverError::Fenced { fence: self.epoch.0 + 1 }),
                Action::Conflict => return Err(RecoverError::Conflict { segment: one.segment }),
            }
        }
        Ok(plan)
    }

    /// Brings every replica in reach that counts to the end of `one`, and seals it.
    pub async fn mend(&self, one: &Walked, plan: &Plan) -> Result<(), RecoverError> {
        let seal = one.seal();
        let whole = if plan.remake.is_empty() { Vec::new() } else { self.whole(one).await? };
        for shard in plan.seal.iter() {
            self.seal_one(one, shard, seal).await?;
        }
        for shard in plan.remake.iter() {
            self.remake(one, shard, &whole).await?;
        }
        self.segments.open(one.segment, SegmentKind::Log, one.members.without(one.lost));
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
        let id = self.segments.find(one.segment, SegmentKind::Log, shard);
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

    /// How far the records of one replica go: from its beginning, since it is about to be sealed as sound.
    async fn content(&self, one: &Walked, chunk: C::Chunk) -> Content {
        if one.members.and(self.reachable).len() == 1 {
            // The agreed end is where its own records end.
            return Content::Equal;
        }
        let mut chain = one.whole();
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

    /// The whole segment up to its agreed end, each record from any replica that has it.
    async fn whole(&self, one: &Walked) -> Result<Vec<u8>, RecoverError> {
        let mut scan = Scan::new(self.segments.replicas(one.segment));
        let mut chain = one.whole();
        let mut whole = Vec::with_capacity(one.end as usize);
        scan.run(&mut chain, |record, bytes| whole.extend_from_slice(&bytes[..record.total_bytes()])).await;
        if chain.offset == one.end {
            return Ok(whole);
        }
        Err(RecoverError::Interrupted { segment: one.segment })
    }

    /// Makes the replica on `shard` again with these bytes, under its other name. What it had is deleted when the new one
    /// is complete and sealed: until then it counts, and may have records that no other has.
    async fn remake(&self, one: &Walked, shard: u8, bytes: &[u8]) -> Result<(), RecoverError> {
        let fail = |error| RecoverError::from(ShardError { shard, error });
        let store = self.segments.store(shard);
        let id = self.segments.copy_id(one.segment, SegmentKind::Log, shard);
        let old = self.segments.chunk_id(one.segment, SegmentKind::Log, shard);
        self.delete(shard, id).await?;
        let target = store.create(id, self.epoch).await.map_err(fail)?;
        let pool = BufPool::on_heap(PoolPlan { limits: [0, 0, 0, 1, 0] });
        let mut offset = 0;
        for part in bytes.chunks(COPY_BYTES_MAX) {
            let mut buf = pool.alloc(part.len()).await;
            buf.copy_from_slice(part);
            target.append(self.epoch, offset, &[buf.freeze()]).await.map_err(fail)?;
            offset += part.len() as u32;
        }
        target.seal(self.epoch, one.seal()).await.map_err(fail)?;
        self.delete(shard, old).await
    }

    /// Deletes a chunk, if it is there.
    pub async fn delete(&self, shard: u8, id: ChunkId) -> Result<(), RecoverError> {
        match self.segments.store(shard).delete(id, self.epoch).await {
            Ok(()) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(ShardError { shard, error }.into()),
        }
    }
}
