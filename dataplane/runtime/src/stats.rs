//! Counters of a reactor, written by it alone and read by any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number only its owner writes: no locked instruction is needed.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises it by `n`. Only for the thread that owns the counter.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Lowers it by one. Only for the thread that owns the counter.
    #[inline]
    pub(crate) fn sub_one(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }
}

/// What one reactor did since it started.
#[derive(Debug, Default)]
pub struct ReactorStats {
    /// Nanoseconds in turns that found work.
    pub busy_ns: Counter,
    /// Nanoseconds in turns that found none, and asleep.
    pub idle_ns: Counter,
    /// How often it went to sleep in the kernel.
    pub parks: Counter,
    /// Turns of the poller.
    pub turns: Counter,
    /// Tasks started.
    pub tasks_spawned: Counter,
    /// Tasks alive.
    pub tasks: Counter,
    /// Sockets open.
    pub sockets: Counter,
    /// Socket events seen.
    pub socket_events: Counter,
    /// Messages sent to reactors (itself included).
    pub mesh_sent: Counter,
    /// Messages refused because a link was full.
    pub mesh_full: Counter,
    /// Disk operations given to the kernel.
    pub disk_submitted: Counter,
    /// Disk operations that had to wait for a free slot.
    pub disk_waited: Counter,
    /// Disk operations that failed.
    pub disk_failed: Counter,
}
