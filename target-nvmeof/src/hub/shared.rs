//! What a controller shares with the connections of its queues, on whatever reactors they are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// State and counters of one controller. All accesses are relaxed but for
/// [`Self::dead`] and [`Self::ready`].
#[derive(Debug, Default)]
pub struct ControllerShared {
    /// CC.EN = 1 and CSTS.RDY = 1, no shutdown asked for: I/O commands may run. Else: 0/0Ch.
    pub ready: AtomicBool,
    /// The controller has ended. Nothing of it may take effect any more.
    pub dead: AtomicBool,
    /// Set by connections when commands arrive, taken by the keep-alive timer (CTRATT.TBKAS).
    pub traffic: AtomicBool,
    /// The host was told of a volatile write cache (VWC) when it first asked. Else it sends no flushes, so writes
    /// to a volume with such a cache must be made durable before they complete.
    pub volatile_cache_announced: AtomicBool,
    /// Read commands (and Compare) completed.
    pub read_commands: AtomicU64,
    /// Write commands completed.
    pub write_commands: AtomicU64,
    /// Bytes read.
    pub bytes_read: AtomicU64,
    /// Bytes written.
    pub bytes_written: AtomicU64,
}

impl ControllerShared {
    /// Whether I/O commands may run.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether the controller has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Commands arrived.
    pub fn note_traffic(&self) {
        self.traffic.store(true, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        // In this order: who sees that it is not ready sees why.
        self.dead.store(true, Ordering::Release);
        self.ready.store(false, Ordering::Release);
    }
}

/// Sums of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub read_commands: u64,
    pub write_commands: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

impl Traffic {
    pub fn add(&mut self, shared: &ControllerShared) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.read_commands = self.read_commands.wrapping_add(get(&shared.read_commands));
        self.write_commands = self.write_commands.wrapping_add(get(&shared.write_commands));
        self.bytes_read = self.bytes_read.wrapping_add(get(&shared.bytes_read));
        self.bytes_written = self.bytes_written.wrapping_add(get(&shared.bytes_written));
    }
}
