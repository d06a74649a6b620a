//! What the engine's logs must know whatever device is away, kept in the control state.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ashlar_cluster::state::{self, Action, LaneNote, LaneRecord, LaneSeal, RefusalKind};
use ashlar_engine::ids::{Epoch, GroupId, LaneId, SegmentId};
use ashlar_engine::log::{CheckpointMin, Coordinator, Decision, Refused};
use ashlar_engine::segment::ShardSet;
use ashlar_env::{Clock, Spawn};
use ashlar_runtime::ReactorEnv;

use crate::node::reservations::Control;

/// How long to wait before the control state is tried again: its disk may be full for a while. Writes wait meanwhile.
const AGAIN: Duration = Duration::from_millis(200);

/// How long it is tried.
const TRIED_MAX: Duration = Duration::from_secs(30);

/// The engine's coordinator on a node: decisions are in force when the control state has them on disk.
pub(super) struct KeptDecisions {
    env: ReactorEnv,
    control: Control,
}

impl KeptDecisions {
    pub fn new(env: ReactorEnv, control: Control) -> Self {
        Self { env, control }
    }

    fn record<T>(&self, lane: LaneId, look: impl FnOnce(&LaneRecord) -> T) -> Option<T> {
        let state = self.control.get()?.state();
        state.lanes().get(&state::GroupId(lane.group.0))?.get(&lane.lane).map(look)
    }

    fn keep(&self, lane: LaneId, note: LaneNote) -> impl Future<Output = Result<(), Refused>> + 'static {
        let (env, control) = (self.env.clone(), Control::clone(&self.control));
        let end = env.now().plus(TRIED_MAX);
        let action = Action::NoteLane { group: state::GroupId(lane.group.0), lane: lane.lane, note };
        async move {
            loop {
                let Some(control) = control.get() else {
                    return Err(Refused("the control plane is not there yet".into()));
                };
                match control.submit(action.clone()).await {
                    Ok(_) => return Ok(()),
                    Err(refusal) => {
                        let passes = matches!(refusal.kind, RefusalKind::NoSpace | RefusalKind::Failed);
                        if !passes || env.now() >= end {
                            return Err(Refused(refusal.why));
                        }
                        tracing::warn!("the control state cannot be written, writes wait: {}", refusal.why);
                    }
                }
                env.sleep_until(env.now().plus(AGAIN)).await;
            }
        }
    }
}

type Committed = Pin<Box<dyn Future<Output = Result<(), Refused>>>>;

impl Coordinator for KeptDecisions {
    fn commit_seal(&self, decision: Decision) -> Committed {
        let seal = LaneSeal {
            epoch: decision.epoch.0,
            length: decision.length,
            without: decision.without.0,
            next: decision.next.0,
            next_shards: decision.next_shards.0,
        };
        Box::pin(self.keep(decision.lane, LaneNote::Seal { segment: decision.segment.0, seal }))
    }

    fn decision(&self, lane: LaneId, segment: SegmentId) -> Option<Decision> {
        let seal = self.record(lane, |record| record.seals.get(&segment.0).copied())??;
        Some(Decision {
            lane,
            epoch: Epoch(seal.epoch),
            segment,
            length: seal.length,
            without: ShardSet(seal.without),
            next: SegmentId(seal.next),
            next_shards: ShardSet(seal.next_shards),
        })
    }

    fn commit_checkpoint(&self, checkpoint: CheckpointMin) -> Committed {
        let CheckpointMin { lane, epoch, sequence, segment } = checkpoint;
        let note = LaneNote::Checkpoint { epoch: epoch.0, checkpoint: sequence, begins: segment.0 };
        Box::pin(self.keep(lane, note))
    }

    fn checkpoint(&self, lane: LaneId) -> Option<CheckpointMin> {
        self.record(lane, |record| CheckpointMin {
            lane,
            epoch: Epoch(record.epoch),
            sequence: record.checkpoint,
            segment: SegmentId(record.begins),
        })
    }

    fn forget(&self, lane: LaneId) {
        if self.record(lane, |_| ()).is_some() {
            let forgotten = self.keep(lane, LaneNote::Forget);
            self.env.spawn(async move {
                if let Err(refused) = forgotten.await {
                    tracing::warn!(group = ?GroupId(lane.group.0), "what was kept of a log stays: {refused}");
                }
            });
        }
    }
}
