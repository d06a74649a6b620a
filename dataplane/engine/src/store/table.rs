//! The slots of a store: which chunk is where, and which slot comes next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::rc::Rc;

use super::chunk::Held;
use crate::ids::{ChunkId, Epoch, GroupId, LaneId, SegmentId, SegmentKind};

/// What became of the wish for a slot.
pub(crate) enum Taken {
    Slot(u32),
    /// there will be one, once its discard has ended
    Soon,
    None,
}

/// Slots and chunks.
#[derive(Default)]
pub(crate) struct Table {
    pub chunks: BTreeMap<ChunkId, Rc<Held>>,
    /// Chunks whose first header is being written, or that wait for a slot.
    pub creating: BTreeMap<ChunkId, Epoch>,
    pub free: BinaryHeap<Reverse<u32>>,
    /// Free slots whose data are being discarded, one after the other.
    pub discarding: VecDeque<u32>,
    /// Slots that hold nobody knows what.
    pub lost: BTreeSet<u32>,
    /// Slots whose second header copy is to be written first, because the first one is the only valid one, or the
    /// newer one.
    pub second_first: BTreeSet<u32>,
}

impl Table {
    /// Free slots, including those that are being discarded.
    pub fn available(&self) -> usize {
        self.free.len() + self.discarding.len()
    }

    /// Takes the lowest free slot, if more than `reserve` are left.
    pub fn take(&mut self, reserve: u32) -> Taken {
        if self.available() <= reserve as usize {
            return Taken::None;
        }
        self.free.pop().map_or(Taken::Soon, |Reverse(slot)| Taken::Slot(slot))
    }

    /// The chunks of a group, or all, in order.
    pub fn of(&self, group: Option<GroupId>) -> impl Iterator<Item = &Rc<Held>> {
        let from = first_of(group.unwrap_or(GroupId(0)));
        let all = self.chunks.range(from..).map(|(_, held)| held);
        all.take_while(move |held| group.is_none_or(|group| held.label.id.lane.group == group))
    }

    /// Whether a chunk of the group is being created by a writer below `epoch`.
    pub fn is_creating(&self, group: GroupId, epoch: Epoch) -> bool {
        let mut creating =
            self.creating.range(first_of(group)..).take_while(|(id, _)| id.lane.group == group);
        creating.any(|(_, &writer)| writer < epoch)
    }
}

/// The lowest name that a chunk of the group can have.
pub(crate) fn first_of(group: GroupId) -> ChunkId {
    let lane = LaneId { group, lane: 0 };
    ChunkId { lane, segment: SegmentId(0), kind: SegmentKind::Log, shard: 0 }
}
