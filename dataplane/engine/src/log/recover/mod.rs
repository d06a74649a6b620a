//! Finding the log again.
//!
//! # Overview
//!
//! A new owner with a new epoch fences every store it reaches, so that no older writer changes anything any more. It
//! then follows the chain of records from a given position, through the next pointers, to the end: the longest chain of
//! valid records found on any replica that counts. Whatever was acknowledged is on all of them, so it is in that chain.
//! Every record is handed to the caller on the way. Replicas are then brought to that end, every segment passed is sealed,
//! and the log goes on in a new segment.
//!
//! # Where a segment ends, and what is next
//!
//! 1. A [`Decision`] of the coordinator says both, and which replicas do not count.
//! 2. Else a sealed replica says both.
//! 3. Else the segment ends with the last valid record; if that is a *next* record, it says what is next. If not, this
//!    is the end of the log.
//!
//! Where the end is only where valid records end, damage could look like a crash. It cannot hide for long: each record
//! says below which sequence all was acknowledged when it was sent. If any record is found behind the end, in the last
//! segment or in one that the chain does not reach, that shows the missing record to have been acknowledged, the recovery
//! stops ([`RecoverError::Damaged`]) before it changes anything.
//!
//! At each place any replica that counts may give the record: it is bound by sequence, chain and checksum, so there is
//! only one it can be.
//!
//! # Phases
//!
//! 1. Fence. 2. Walk and replay (`walk.rs`), and check the end (`end.rs`). 3. Delete segments that were made ahead and never used. 4. Make the new
//!    segment. 5. Commit the end of each segment that has a replica out of reach, or gone with no device for another,
//!    without that one. 6. Bring each replica
//!    in reach to its segment's end, as the table in `table.rs` says, and seal it. One that has to be made again is written
//!    beside what there is of it, which counts until the new one is sealed.
//!
//! Nothing is appended to the new segment before all of this is durable. A crash on the way leaves a log that the next
//! recovery finds just the same: each phase only adds what the next run agrees with. (A new segment that was made and
//! named by a seal is found empty, and passed.)

mod end;
mod mend;
mod scan;
mod table;
mod walk;

use std::future::Future;

use ashlar_env::Env;

use crate::chunks::{Chunk, Chunks, StoreError};
use crate::ids::{Epoch, SegmentId, SegmentKind};
use crate::segment::{Replicas, SHARDS_MAX, Segments, ShardError, ShardSet, join_until};

use super::config::{LogConfig, Planted};
use super::coordinator::{Coordinator, Decision};
use super::op::{AppliedOp, Position};
use walk::Walked;

pub use table::{Action, Content, EpochIs, ROWS, ReplicaState, Row, SealIs, action};

/// What the recovery tells its caller, in log order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// What follows is in this segment. Comes first for the segment of the position from which the recovery starts.
    Opened(SegmentId),
    /// An operation.
    Applied(AppliedOp<'a>),
    /// The segment is sealed at so many bytes. Comes after all operations.
    Sealed(SegmentId, u32),
}

/// Where the log goes on: what [`super::Log::resume`] takes.
pub struct Recovered<K> {
    /// The position of the first new record, at the beginning of a new segment.
    pub position: Position,
    pub(super) replicas: Replicas<K>,
}

/// Why a log was not recovered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// another writer has taken over
    #[error("another writer has taken over the lane at epoch {fence}")]
    Fenced {
        /// its epoch
        fence: u64,
    },
    /// no store that counts has the segment
    #[error(
        "segment {segment:?} is on no store in reach; nothing was changed. Bring back a store that has it"
    )]
    Missing {
        /// the segment
        segment: SegmentId,
    },
    /// a segment's records end before it does, on every replica
    #[error(
        "segment {segment:?} is damaged at byte {at} of {length} on every replica in reach; nothing was changed"
    )]
    Damaged {
        /// the segment
        segment: SegmentId,
        /// where no replica has a valid record
        at: u32,
        /// where the segment should end
        length: u32,
    },
    /// records that were there when the log was read cannot be read any more
    #[error("a store failed while segment {segment:?} was being recovered; try again")]
    Interrupted {
        /// the segment
        segment: SegmentId,
    },
    /// replicas were sealed differently
    #[error("the replicas of segment {segment:?} were sealed at different lengths; nothing was changed")]
    Conflict {
        /// the segment
        segment: SegmentId,
    },
    /// no space for the new segment
    #[error("no space is left for a segment of the log; nothing was lost. Add a device")]
    Full,
    /// a store failed on the way
    #[error("the log was not recovered, nothing of it was lost: {0}")]
    Store(ShardError),
    /// the coordinator did not commit
    #[error("the log was not recovered, nothing of it was lost: {0}")]
    Refused(String),
}

impl From<ShardError> for RecoverError {
    fn from(failed: ShardError) -> Self {
        match failed.error {
            StoreError::Fenced { fence } => Self::Fenced { fence },
            StoreError::Full => Self::Full,
            _ => Self::Store(failed),
        }
    }
}

/// Recovers the log of `segments`' lane from position `from`, which a writer gave
/// ([`super::Log::settled`], or [`super::Log::position`] right after its creation), under `epoch`, which is above all
/// earlier ones. `each` gets every operation from there on.
///
/// All of the lane's log segments on the stores that are not sealed and are not found on the way are deleted: they were
/// made ahead and never used.
///
/// # Errors
/// [`RecoverError`]. It may be called again, with a higher epoch.
pub async fn recover<E: Env, C: Chunks>(
    env: &E,
    segments: &Segments<C>,
    coordinator: &dyn Coordinator,
    epoch: Epoch,
    from: Position,
    config: &LogConfig,
    mut each: impl FnMut(Event<'_>),
) -> Result<Recovered<C::Chunk>, RecoverError> {
    let over = env.sleep_until(env.now().plus(config.answer_max));
    let reachable = fence(segments, epoch, over).await?;
    let planted = config.planted;
    let recovery = Recovery { segments, coordinator, epoch, reachable, planted };
    let (walked, end) = recovery.walk(from, &mut each).await?;
    recovery.check_end(&walked, &end).await?;
    recovery.delete_unused(&walked).await?;
    let (segment, replicas) = segments.create_some(true, SegmentKind::Log, epoch, reachable).await?;
    let shards = replicas.iter().map(|replica| replica.shard).collect();
    let position = Position { segment, offset: 0, shards, ..end };
    let mut walked = link(walked, &position);
    walked.iter_mut().for_each(|one| one.lost = recovery.lost(one));
    recovery.commit(&walked).await?;
    for one in &walked {
        let plan = recovery.plan(one).await?;
        recovery.mend(one, &plan).await?;
        each(Event::Sealed(one.segment, one.end));
    }
    Ok(Recovered { position, replicas })
}

/// What the phases share.
struct Recovery<'a, C: Chunks> {
    segments: &'a Segments<C>,
    coordinator: &'a dyn Coordinator,
    epoch: Epoch,
    reachable: ShardSet,
    planted: Planted,
}

/// Fences the stores; those that can be.
async fn fence<C: Chunks>(
    segments: &Segments<C>,
    epoch: Epoch,
    over: impl Future<Output = ()>,
) -> Result<ShardSet, RecoverError> {
    let group = segments.lane().group;
    let fences =
        segments.stores().iter().cloned().map(|store| async move { store.fence(group, epoch).await });
    let mut reachable = ShardSet::EMPTY;
    let mut failed = None;
    for (shard, fenced) in (0..).zip(join_until(over, fences).await) {
        match fenced {
            Some(Ok(())) => reachable = reachable.with(ShardSet::of(shard)),
            Some(Err(StoreError::Fenced { fence })) => return Err(RecoverError::Fenced { fence }),
            None => {}
            Some(Err(error)) => failed = Some(ShardError { shard, error }),
        }
    }
    match failed {
        Some(failed) if reachable.is_empty() => Err(RecoverError::Store(failed)),
        _ => Ok(reachable),
    }
}

/// Says of each segment what comes after it; after the last, the new one.
fn link(mut walked: Vec<Walked>, new: &Position) -> Vec<Walked> {
    let last = walked.last_mut().expect("the walk has at least one segment");
    last.next = Some((new.segment, new.shards));
    walked
}

impl<C: Chunks> Recovery<'_, C> {
    /// Deletes log segments that nothing refers to, where they are in reach.
    async fn delete_unused(&self, walked: &[Walked]) -> Result<(), RecoverError> {
        for (shard, stat) in self.segments.list() {
            let is_passed = walked.iter().any(|one| one.segment == stat.id.segment);
            let is_copy = usize::from(stat.id.shard) >= SHARDS_MAX;
            let is_unused = if is_passed {
                // A copy that was not completed, or what a complete one replaces. A replica that does not count is kept:
                // what it has may be wanted yet.
                let counts = self.segments.find(stat.id.segment, SegmentKind::Log, shard);
                counts != stat.id && (is_copy || stat.sealed.is_none())
            } else {
                stat.sealed.is_none()
            };
            if stat.id.kind != SegmentKind::Log || !is_unused || !self.reachable.contains(shard) {
                continue;
            }
            if stat.epoch > self.epoch {
                return Err(RecoverError::Fenced { fence: stat.epoch.0 });
            }
            match self.delete(shard, stat.id).await {
                // It is in nobody's way, and found again by the next recovery.
                Err(RecoverError::Store(failed))
                    if self.segments.is_replicated() && failed.error.is_of_device() => {}
                deleted => deleted?,
            }
        }
        Ok(())
    }

    /// The replicas of `one` that are not to count any more: on stores out of reach; on devices that take no seal; and those
    /// that are not there, where no device could take another. Never all of them.
    fn lost(&self, one: &Walked) -> ShardSet {
        let away = one.members.without(self.reachable);
        if !self.segments.is_replicated() {
            return away;
        }
        let (mut lost, mut kept) = (away, 0);
        let mut missing = ShardSet::EMPTY;
        for shard in one.members.without(away).iter() {
            let id = self.segments.find(one.segment, SegmentKind::Log, shard);
            match self.segments.store(shard).open(id) {
                Some(chunk) if chunk.is_failing() => lost = lost.with(ShardSet::of(shard)),
                Some(_) => kept += 1,
                None => missing = missing.with(ShardSet::of(shard)),
            }
        }
        if kept == 0 {
            return away;
        }
        for shard in missing.iter() {
            match self.segments.store(shard).can_hold(kept) {
                true => kept += 1,
                false => lost = lost.with(ShardSet::of(shard)),
            }
        }
        lost
    }

    /// Commits, oldest first, where a segment ends and which of its replicas do not count any more: where one is lost, and where the next segment has other replicas.
    async fn commit(&self, walked: &[Walked]) -> Result<(), RecoverError> {
        for one in walked {
            let lost = one.lost;
            let (next, next_shards) = one.next.expect("the segments are linked");
            if lost.is_empty() && next_shards == one.shards {
                continue;
            }
            let decision = Decision {
                lane: self.segments.lane(),
                epoch: self.epoch,
                segment: one.segment,
                length: one.end,
                without: one.shards.without(one.members).with(lost),
                next,
                next_shards,
            };
            let committed = self.coordinator.commit_seal(decision).await;
            committed.map_err(|refused| RecoverError::Refused(refused.to_string()))?;
        }
        Ok(())
    }
}
