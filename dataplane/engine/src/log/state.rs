//! What the log knows at a moment.

use std::collections::VecDeque;
use std::task::Waker;

use ashlar_env::Instant;

use crate::ids::SegmentId;
use crate::segment::{Replicas, SHARDS_MAX, ShardError, ShardSet, no_answer};

use super::assemble::Assembler;
use super::latency::Latency;
use super::op::{LogError, Op, Position};
use super::waiters::WaiterId;

/// What waits in line.
pub(super) enum Item {
    Op(Op),
    /// A new segment begins here.
    Roll,
}

pub(super) struct Queued {
    pub item: Item,
    pub waiter: WaiterId,
}

/// A record that is not applied yet.
pub(super) struct InFlight {
    pub sequence: u64,
    pub segment: SegmentId,
    /// Where its payload begins and where it ends, in bytes of the segment.
    pub payload_at: u32,
    pub end: u32,
    /// Its header's CRC.
    pub crc: u32,
    pub ops: Vec<Queued>,
    /// Where the log continues, if it is the segment's last.
    pub next: Option<SegmentId>,
    /// The replicas it is sent to, and those of them that do not have it yet.
    pub shards: ShardSet,
    pub pending: ShardSet,
    /// When it was sent.
    pub begun: Instant,
}

/// A segment that records go to, or will.
pub(super) struct Open<K> {
    pub segment: SegmentId,
    pub replicas: Replicas<K>,
    pub end: u32,
}

impl<K> Open<K> {
    pub fn shards(&self) -> ShardSet {
        self.replicas.iter().map(|replica| replica.shard).collect()
    }
}

/// The segment made ahead.
pub(super) enum Spare<K> {
    /// There is none, and none is being made: the last try failed.
    Missing,
    /// One is being made; the number tells the tries apart.
    Making(u64),
    Ready(Open<K>),
}

pub(super) struct State<K> {
    pub queue: VecDeque<Queued>,
    pub in_flight: VecDeque<InFlight>,
    pub current: Open<K>,
    pub spare: Spare<K>,
    /// A segment on more stores than the present one, to go on in.
    pub wider: Option<Open<K>>,
    pub tries: u64,
    /// The last try to make a segment found no space.
    pub full: bool,
    /// The next record's.
    pub sequence: u64,
    /// The last record's header CRC.
    pub previous: u32,
    /// Where the first record lies that is not applied.
    pub applied: Position,
    /// Latched: every operation fails from now on.
    pub failed: Option<LogError>,
    /// Replicas that failed or are too slow, and why the last one is.
    pub broken: ShardSet,
    pub breakage: Option<ShardError>,
    /// Segments before that of `applied` that are not sealed yet, and who waits for there to be none.
    pub unsealed: usize,
    pub settlers: Vec<Waker>,
    /// The driver is to end when all is done.
    pub closed: bool,
    pub latency: [Latency; SHARDS_MAX],
    pub assembler: Assembler,
    /// Room that is used again.
    pub header: Vec<u8>,
    pub batches: Vec<Vec<Queued>>,
}

impl<K> State<K> {
    /// The replicas written to that have not failed.
    pub fn healthy(&self) -> ShardSet {
        self.current.shards().without(self.broken)
    }

    /// Whether the log has to go on in a segment on other stores: a replica that is written to is to be left behind, or
    /// another is to come back.
    pub fn must_leave(&self) -> bool {
        let leaves = !self.current.shards().and(self.broken).is_empty();
        self.failed.is_none() && (leaves || self.wider.is_some())
    }

    /// Takes note that `failed.shard` does not count any more.
    pub fn break_shard(&mut self, failed: ShardError) {
        let wider = self.wider.as_ref().map_or(ShardSet::EMPTY, Open::shards);
        // One that was left behind already has no part in anything that is to come.
        let has_part = self.current.shards().with(wider).contains(failed.shard);
        // And the last one is waited for, however long it takes.
        let is_last = self.healthy().without(ShardSet::of(failed.shard)).is_empty();
        if has_part && !(is_last && failed.error == no_answer()) {
            self.broken = self.broken.with(ShardSet::of(failed.shard));
            self.breakage = Some(failed);
        }
    }

    pub fn batch(&mut self) -> Vec<Queued> {
        self.batches.pop().unwrap_or_default()
    }
}
