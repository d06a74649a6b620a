//! Who decides that a replica no longer counts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::rc::Rc;

use crate::ids::{Epoch, LaneId, SegmentId};
use crate::segment::ShardSet;

/// That a segment ends, on which replicas, and where the log continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The lane.
    pub lane: LaneId,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// The segment that ends.
    pub segment: SegmentId,
    /// At which byte.
    pub length: u32,
    /// The replicas that do not count any more: they may lack acknowledged records.
    pub without: ShardSet,
    /// The segment in which the log continues.
    pub next: SegmentId,
    /// The replicas of the next segment.
    pub next_shards: ShardSet,
}

/// The coordinator did not commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// A durable register of decisions, one for each segment that ended with a failure. Of one segment the last decision
/// counts.
///
/// Epochs are taken from it, too, in whatever way it has: once an epoch is taken, decisions of older ones are refused, and
/// none that was not refused appears any more. Otherwise a writer that was overtaken in the middle of its recovery could
/// name a segment that its successor has deleted.
pub trait Coordinator: 'static {
    /// Commits `decision`. Ready when it survives any crash.
    ///
    /// # Errors
    /// [`Refused`]: it may have been committed all the same.
    fn commit_seal(&self, decision: Decision) -> Pin<Box<dyn Future<Output = Result<(), Refused>>>>;

    /// What was committed for a segment. A recovery asks after it has got its epoch, so that no older writer commits
    /// any more.
    fn decision(&self, lane: LaneId, segment: SegmentId) -> Option<Decision>;

    /// Commits that checkpoints of a lane before number `sequence` do not count any more, whatever device one turns up on:
    /// what they need may be gone from now on. Recovery never begins before `segment` again, so decisions of segments
    /// before it may be forgotten. Ready when it survives any crash.
    ///
    /// # Errors
    /// [`Refused`]: it may have been committed all the same.
    fn commit_checkpoint(
        &self,
        checkpoint: CheckpointMin,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refused>>>> {
        let _ = checkpoint;
        Box::pin(ready(Ok(())))
    }

    /// The lane is gone for good: nothing of it is asked for again.
    fn forget(&self, lane: LaneId) {
        let _ = lane;
    }

    /// The last that was committed so, if any was.
    fn checkpoint(&self, lane: LaneId) -> Option<CheckpointMin> {
        let _ = lane;
        None
    }
}

/// The first checkpoint of a lane that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointMin {
    /// The lane.
    pub lane: LaneId,
    /// The writer's epoch: the next writer's is above it.
    pub epoch: Epoch,
    /// The checkpoint's number.
    pub sequence: u64,
    /// The segment of the log at which recovery from it begins.
    pub segment: SegmentId,
}

/// A coordinator in memory, for one replica (which never needs a decision) and for tests. Cloning shares it.
#[derive(Clone, Default)]
pub struct LocalCoordinator {
    decisions: Rc<RefCell<Vec<Decision>>>,
    checkpoints: Rc<RefCell<BTreeMap<LaneId, CheckpointMin>>>,
    epoch: Rc<Cell<u64>>,
}

impl LocalCoordinator {
    /// From now on refuses decisions of epochs below `epoch`.
    pub fn take(&self, epoch: Epoch) {
        self.epoch.set(self.epoch.get().max(epoch.0));
    }

    /// All decisions, in the order of their commits.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.decisions.borrow().clone()
    }
}

impl Coordinator for LocalCoordinator {
    fn commit_seal(&self, decision: Decision) -> Pin<Box<dyn Future<Output = Result<(), Refused>>>> {
        if decision.epoch.0 < self.epoch.get() {
            let refused = Refused(format!("epoch {} has taken over", self.epoch.get()));
            return Box::pin(ready(Err(refused)));
        }
        self.take(decision.epoch);
        self.decisions.borrow_mut().push(decision);
        Box::pin(ready(Ok(())))
    }

    fn decision(&self, lane: LaneId, segment: SegmentId) -> Option<Decision> {
        let decisions = self.decisions.borrow();
        decisions.iter().rev().find(|d| d.lane == lane && d.segment == segment).copied()
    }
    fn commit_checkpoint(
        &self,
        checkpoint: CheckpointMin,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refused>>>> {
        self.checkpoints.borrow_mut().insert(checkpoint.lane, checkpoint);
        let is_needed =
            |decision: &Decision| decision.lane != checkpoint.lane || decision.segment >= checkpoint.segment;
        self.decisions.borrow_mut().retain(is_needed);
        Box::pin(ready(Ok(())))
    }

    fn checkpoint(&self, lane: LaneId) -> Option<CheckpointMin> {
        self.checkpoints.borrow().get(&lane).copied()
    }
}
