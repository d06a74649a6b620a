//! What the log is given, and what it says of it.

use ashlar_env::Buf;
use smallvec::SmallVec;

use crate::chunks::StoreError;
use crate::ids::SegmentId;
use crate::segment::{ShardError, ShardSet};

use super::record::{BlockSum, DATA_BLOCKS_MAX, PAYLOAD_BYTES_MAX, stored_bytes};

/// An operation to be logged.
#[derive(Debug)]
pub enum Op {
    /// Blocks with data, from `first` on.
    Data {
        /// the volume's number in the lane
        volume: u32,
        /// the first block
        first: u64,
        /// the blocks as stored, one right after the other at granules
        payload: Buf,
        /// one for each block
        sums: SmallVec<[BlockSum; 4]>,
    },
    /// Blocks of zeros.
    Zero {
        /// the volume's number in the lane
        volume: u32,
        /// the first block
        first: u64,
        /// how many
        count: u32,
    },
    /// Blocks without data.
    Unmap {
        /// the volume's number in the lane
        volume: u32,
        /// the first block
        first: u64,
        /// how many
        count: u32,
    },
    /// Bytes for the layer above, at most [`PAYLOAD_BYTES_MAX`].
    Control(Buf),
}

impl Op {
    /// Whether its lengths agree and are within bounds.
    pub(super) fn is_valid(&self) -> bool {
        let in_volume = |first: u64, count: u64| {
            count > 0 && first.checked_add(count).is_some_and(|end| end <= super::record::BLOCK_END_MAX)
        };
        match self {
            Self::Data { first, payload, sums, .. } => {
                in_volume(*first, sums.len() as u64)
                    && sums.len() <= DATA_BLOCKS_MAX
                    && sums.iter().all(|sum| (1..=64).contains(&sum.granules))
                    && payload.len() == stored_bytes(sums)
            }
            Self::Zero { first, count, .. } | Self::Unmap { first, count, .. } => {
                in_volume(*first, u64::from(*count))
            }
            Self::Control(bytes) => bytes.len() <= PAYLOAD_BYTES_MAX,
        }
    }

    /// Whether it takes space: refused when the pool is full.
    pub(super) fn takes_space(&self) -> bool {
        matches!(self, Self::Data { .. })
    }
}

/// Where a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment.
    pub segment: SegmentId,
    /// The granule of 64 bytes in the segment at which it begins.
    pub granule: u32,
}

/// What was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied<'a> {
    /// Blocks with data.
    Data {
        /// the volume's number in the lane
        volume: u32,
        /// the first block
        first: u64,
        /// one for each block
        sums: &'a [BlockSum],
        /// where the first block is; each further one begins where the one before it ends
        place: Place,
    },
    /// Blocks of zeros.
    Zero {
        /// the volume's number in the lane
        volume: u32,
        /// the first block
        first: u64,
        /// how many
        count: u32,
    },
    /// Blocks without data.
    Unmap {
        /// the volume's number in the lane
        volume: u32,
        /// the first block
        first: u64,
        /// how many
        count: u32,
    },
    /// Bytes for the layer above.
    Control(&'a [u8]),
}

/// An operation that is durable, with its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedOp<'a> {
    /// The record's sequence number. Operations of one record are atomic: all of them are found after a crash, or none.
    pub sequence: u64,
    /// What it is.
    pub op: Applied<'a>,
}

/// Who is told what the log has done: by the writer as it happens, by the recovery as it finds it.
///
/// Called in log order. Must not wait, and may call [`super::Log::append`].
pub trait Sink: 'static {
    /// `op` is durable on every replica, as is all before it. Who waits for it is woken afterwards.
    fn applied(&self, op: &AppliedOp<'_>);

    /// What follows is in `segment`.
    fn segment_opened(&self, segment: SegmentId);

    /// `segment` is sealed at `length` bytes on the stores that count. Comes some time after its last operation.
    fn segment_sealed(&self, segment: SegmentId, length: u32);
}

/// A place in the log: between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The segment.
    pub segment: SegmentId,
    /// The byte in it at which the next record begins.
    pub offset: u32,
    /// The next record's sequence number.
    pub sequence: u64,
    /// The header CRC of the last record before.
    pub previous: u32,
    /// The stores with replicas of the segment.
    pub shards: ShardSet,
}

impl Position {
    /// Where the log of a lane begins that has its first segment on `shards`.
    #[must_use]
    pub const fn origin(shards: ShardSet) -> Self {
        Self { segment: SegmentId(1), offset: 0, sequence: 1, previous: 0, shards }
    }
}

/// Why an operation was not logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// no space; the operation can be asked for again when there is
    #[error("no space is left for new data; nothing stored was lost. Delete or unmap data, or add a device")]
    Full,
    /// its lengths do not agree, or it does not fit into a record or a segment
    #[error("the operation cannot be logged: its lengths do not agree or are too large")]
    Invalid,
    /// another writer has taken over
    #[error("another writer has taken over the lane at epoch {fence}; nothing acknowledged was lost")]
    Fenced {
        /// its epoch
        fence: u64,
    },
    /// no replica is left to write to
    #[error("the log cannot be written any more: {0}; what was acknowledged can still be read")]
    Failed(ShardError),
    /// the coordinator did not commit that a replica is left behind
    #[error("the log cannot be written any more: {0}; what was acknowledged can still be read")]
    Refused(String),
}

impl From<ShardError> for LogError {
    fn from(failed: ShardError) -> Self {
        match failed.error {
            StoreError::Fenced { fence } => Self::Fenced { fence },
            _ => Self::Failed(failed),
        }
    }
}
