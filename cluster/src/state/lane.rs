//! What the storage engine must know of its logs whatever device is away: which replicas do not count, and how new a
//! checkpoint has to be. A group with one copy needs none of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::apply::Outcome;
use super::group::GroupId;
use super::{Event, Reason, RefusalKind, State};

/// Most ends of segments of one lane that are kept: a checkpoint lets go of those before it.
pub const LANE_SEALS_MAX: usize = 4096;

/// That a segment of a log ends, without which replicas, and where the log continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneSeal {
    /// The writer's epoch.
    pub epoch: u64,
    /// Its length in bytes.
    pub length: u32,
    /// The replicas that do not count, a bit each.
    pub without: u8,
    /// The segment in which the log continues.
    pub next: u32,
    /// The replicas of that, a bit each.
    pub next_shards: u8,
}

/// What is kept of a lane: a group's share on one reactor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneRecord {
    /// The epoch of the last writer that said something.
    pub epoch: u64,
    /// Checkpoints of lower numbers do not count.
    pub checkpoint: u64,
    /// The segment at which recovery from that checkpoint begins.
    pub begins: u32,
    /// Ends of segments from there on, by segment.
    #[serde(default)]
    pub seals: BTreeMap<u32, LaneSeal>,
}

/// What the engine says of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LaneNote {
    /// A segment ends. The last that is said of one counts.
    Seal {
        /// The segment.
        segment: u32,
        /// How.
        seal: LaneSeal,
    },
    /// Checkpoints before this one do not count any more.
    Checkpoint {
        /// The writer's epoch.
        epoch: u64,
        /// The checkpoint's number.
        checkpoint: u64,
        /// The segment at which recovery from it begins.
        begins: u32,
    },
    /// The lane is gone for good.
    Forget,
}

impl State {
    /// What is kept of lanes, by group and number.
    pub fn lanes(&self) -> &BTreeMap<GroupId, BTreeMap<u16, LaneRecord>> {
        &self.lanes
    }

    pub(super) fn note_lane(&mut self, group: GroupId, lane: u16, note: &LaneNote) -> Outcome {
        let before = self.lanes.get(&group).and_then(|lanes| lanes.get(&lane)).cloned();
        let mut record = before.clone().unwrap_or_default();
        let taken_over = |epoch: u64| {
            let why = format!("epoch {epoch} has taken over from {}", record.epoch);
            Err(Reason::new(RefusalKind::Conflict, why))
        };
        match note {
            LaneNote::Forget => {
                let Some(lanes) = self.lanes.get_mut(&group) else { return Ok(Vec::new()) };
                let known = lanes.remove(&lane).is_some();
                if lanes.is_empty() {
                    self.lanes.remove(&group);
                }
                return Ok(if known { vec![Event::LaneNoted { group, lane }] } else { Vec::new() });
            }
            LaneNote::Seal { seal, .. } if seal.epoch < record.epoch => return taken_over(seal.epoch),
            LaneNote::Checkpoint { epoch, .. } if *epoch < record.epoch => return taken_over(*epoch),
            LaneNote::Seal { segment, seal } => {
                if record.seals.len() >= LANE_SEALS_MAX && !record.seals.contains_key(segment) {
                    let why = format!("{LANE_SEALS_MAX} ends of segments wait for a checkpoint");
                    return Err(Reason::new(RefusalKind::Limit, why));
                }
                record.epoch = seal.epoch;
                record.seals.insert(*segment, *seal);
            }
            LaneNote::Checkpoint { epoch, checkpoint, begins } => {
                record.epoch = *epoch;
                record.checkpoint = record.checkpoint.max(*checkpoint);
                record.begins = *begins;
                record.seals.retain(|segment, _| segment >= begins);
            }
        }
        if before.as_ref() == Some(&record) {
            return Ok(Vec::new());
        }
        self.lanes.entry(group).or_default().insert(lane, record);
        Ok(vec![Event::LaneNoted { group, lane }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Action;
    use crate::state::testing::command;

    fn seal(epoch: u64) -> LaneSeal {
        LaneSeal { epoch, length: 4096, without: 2, next: 8, next_shards: 1 }
    }

    fn note(state: &mut State, note: LaneNote) -> Result<usize, RefusalKind> {
        let action = Action::NoteLane { group: GroupId(7), lane: 0, note };
        state.apply(&command(action)).map(|events| events.len()).map_err(|refusal| refusal.kind)
    }

    #[test]
    fn ends_of_segments_are_kept_until_a_checkpoint_and_survive_encoding() {
        let mut state = State::default();
        assert_eq!(note(&mut state, LaneNote::Seal { segment: 5, seal: seal(3) }), Ok(1));
        assert_eq!(note(&mut state, LaneNote::Seal { segment: 5, seal: seal(3) }), Ok(0));
        assert_eq!(note(&mut state, LaneNote::Seal { segment: 6, seal: seal(4) }), Ok(1));
        assert_eq!(
            note(&mut state, LaneNote::Seal { segment: 7, seal: seal(3) }),
            Err(RefusalKind::Conflict)
        );
        let checkpoint = LaneNote::Checkpoint { epoch: 4, checkpoint: 9, begins: 6 };
        assert_eq!(note(&mut state, checkpoint), Ok(1));
        let again = State::decode(&state.encode()).unwrap();
        assert_eq!(again, state);
        let record = &again.lanes()[&GroupId(7)][&0];
        assert_eq!((record.checkpoint, record.epoch, record.seals.len()), (9, 4, 1));
        assert_eq!(record.seals[&6], seal(4));
        assert_eq!(note(&mut state, LaneNote::Forget), Ok(1));
        assert!(state.lanes().is_empty());
        assert_eq!(note(&mut state, LaneNote::Forget), Ok(0));
    }
}
