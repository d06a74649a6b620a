//! A lane's sizes and bounds.

use crate::log::LogConfig;
use crate::map::Shape;

/// Sizes and bounds of a lane. Tests make them tiny, so that rare turns become common.
#[derive(Clone, Copy, Debug)]
pub struct LaneConfig {
    /// The log's.
    pub log: LogConfig,
    /// The shape of the maps. Fixed when the lane is made.
    pub shape: Shape,
    /// A checkpoint begins when so many bytes have been logged since the last: it bounds the replay after a crash.
    pub checkpoint_bytes: u64,
    /// Writers wait when so many have been logged.
    pub checkpoint_bytes_max: u64,
    /// Leaves of maps in memory (8 KiB each).
    pub leaves_max: usize,
    /// Buffers of the lane's own, in bytes.
    pub scratch_bytes: usize,
    /// The size of a batch of pages or of moved blocks, in bytes.
    pub batch_bytes: usize,
    /// Compaction begins when fewer slots than this part (per 256) of the stores are free.
    pub free_part: u32,
    /// Segments compacted before a checkpoint lets go of them.
    pub victims_max: usize,
    /// What scrubbing reads, in bytes a second, of all groups of a node together; 0 turns it off.
    pub scrub_bytes_per_second: u64,
    /// Blocks that copies may refer to, beyond which a copy copies data: each takes memory (about 64 bytes) and 13 bytes of
    /// every checkpoint, which must fit a segment.
    pub shared_blocks_max: usize,
    /// Bugs for the tests to find.
    #[doc(hidden)]
    pub planted: Planted,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            log: LogConfig::default(),
            shape: Shape::DEFAULT,
            checkpoint_bytes: 256 << 20,
            checkpoint_bytes_max: 1 << 30,
            leaves_max: 64 << 10,
            scratch_bytes: 32 << 20,
            batch_bytes: 512 << 10,
            free_part: 12,
            victims_max: 12,
            scrub_bytes_per_second: 0,
            shared_blocks_max: 256 << 10,
            planted: Planted::default(),
        }
    }
}

/// Bugs planted on purpose: the tests must find them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// Chunks are deleted before the checkpoint that lets go of them is durable.
    pub delete_early: bool,
    /// Compaction takes what snapshots hold for dead.
    pub forget_snapshots: bool,
    /// Blocks are read without a look at their checksums.
    pub skip_checksums: bool,
    /// Compaction takes what only copies hold for dead.
    pub forget_copies: bool,
    /// A change whose future is dropped gives up its place while what it logged is under way.
    pub leave_early: bool,
    /// A checkpoint claims to have seen more of the log than it has.
    pub position_ahead: bool,
}
