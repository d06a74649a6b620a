//! The log's sizes and bounds.

use std::time::Duration;

/// Sizes and bounds of a log. The defaults suit devices; tests make them tiny.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// How many records may be in flight, 1 to 1024. More hides the device's latency, fewer makes larger records.
    pub window: usize,
    /// What a record of several operations takes at most, in bytes, header included. A single operation may take more
    /// and then makes a record alone.
    pub record_bytes_max: usize,
    /// Payloads of at least so many bytes are handed to the stores without a copy, as far as they are aligned.
    pub own_bytes_min: usize,
    /// What a segment holds at most, in bytes; the stores' chunk size where that is less.
    pub segment_bytes_max: u32,
    /// A replica is slow when an append takes longer than so many times its recent 99.9th percentile...
    pub latency_multiple: u32,
    /// ... and longer than this.
    pub latency_floor: Duration,
    /// How long a store may take to answer a fence, or to make or seal a chunk, when another has answered.
    pub answer_max: Duration,
    /// How long to wait before trying again to make a segment that the log cannot go on without.
    pub create_again: Duration,
    /// Bugs for the tests to find.
    #[doc(hidden)]
    pub planted: Planted,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            window: 8,
            record_bytes_max: 256 << 10,
            own_bytes_min: 32 << 10,
            segment_bytes_max: u32::MAX,
            latency_multiple: 8,
            latency_floor: Duration::from_millis(20),
            answer_max: Duration::from_secs(1),
            create_again: Duration::from_millis(100),
            planted: Planted::default(),
        }
    }
}

/// Bugs planted on purpose: the tests must find them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// A record is acknowledged when the first replica has it.
    pub acknowledge_first: bool,
    /// Records are acknowledged as they complete, not in order.
    pub acknowledge_unordered: bool,
    /// A replica is left behind without the coordinator's word.
    pub leave_uncommitted: bool,
    /// Recovery takes any record for the next one, whatever the one before it was.
    pub skip_chain: bool,
    /// Recovery does not look at payloads.
    pub skip_payload: bool,
}
