//! The vocabulary: ids and units of the engine.

use std::fmt;

/// The unit of mapping and checksum, in bytes.
pub const BLOCK_BYTES: usize = 4096;

/// The binary logarithm of [`BLOCK_BYTES`].
pub const BLOCK_SHIFT: u32 = 12;

/// The unit in which the map addresses stored data, in bytes: compressed blocks are packed at it.
pub const GRANULE_BYTES: usize = 64;

/// Granules of a block that is stored as it is.
pub const BLOCK_GRANULES: u8 = (BLOCK_BYTES / GRANULE_BYTES) as u8;

/// The most granules a chunk may hold: 16 MiB. Positions take 18 bits of a map entry.
pub const CHUNK_GRANULES_MAX: u32 = 1 << 18;

/// A volume group's identity in the engine, drawn at random when it is made; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {:016x}", self.0)
    }
}

/// A reactor's share of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    /// The group.
    pub group: GroupId,
    /// The lane's number in its group.
    pub lane: u16,
}

/// A segment's number in its lane, from 1; never reused. At 16 MiB each, 32 bits last for 64 PiB of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

/// A writer's term of office. A chunk store refuses appends of an epoch below the group's fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// Records of the lane's log: replayed at recovery.
    Log = 1,
    /// Pages of the map.
    Map = 2,
    /// Blocks that compaction moved.
    Moved = 3,
    /// Checkpoints.
    Checkpoint = 4,
}

impl SegmentKind {
    /// The kind of code `code`.
    #[must_use]
    pub const fn of(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Log),
            2 => Some(Self::Map),
            3 => Some(Self::Moved),
            4 => Some(Self::Checkpoint),
            _ => None,
        }
    }
}

/// A chunk's name: a segment, and which of its shards. Replicas of one segment are shards 0, 1, ... on different stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId {
    /// The lane.
    pub lane: LaneId,
    /// The segment.
    pub segment: SegmentId,
    /// What the segment is for.
    pub kind: SegmentKind,
    /// Which replica.
    pub shard: u8,
}
