//! Counters of a reactor's I/O: written by the reactor once per batch, read by whoever makes metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sums since the start.
#[derive(Debug, Default)]
pub struct IoStats {
    reads: AtomicU64,
    writes: AtomicU64,
    others: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    failed: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
}

/// The counters at one moment, or the counts of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// Read commands completed.
    pub reads: u64,
    /// Write commands completed.
    pub writes: u64,
    /// Other commands completed.
    pub others: u64,
    /// Bytes sent to initiators by reads.
    pub read_bytes: u64,
    /// Bytes taken from initiators by writes.
    pub written_bytes: u64,
    /// Commands that did not end with GOOD.
    pub failed: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections refused by a limit.
    pub refused: u64,
}

fn add(counter: &AtomicU64, n: u64) {
    if n > 0 {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

impl IoStats {
    /// Adds the counts of a batch.
    pub fn add(&self, batch: &IoCounts) {
        add(&self.reads, batch.reads);
        add(&self.writes, batch.writes);
        add(&self.others, batch.others);
        add(&self.read_bytes, batch.read_bytes);
        add(&self.written_bytes, batch.written_bytes);
        add(&self.failed, batch.failed);
        add(&self.connections, batch.connections);
        add(&self.refused, batch.refused);
    }

    /// Counts accepted connections.
    pub fn accepted_connections(&self, n: u64) {
        add(&self.connections, n);
    }

    /// Counts refused connections.
    pub fn refused_connections(&self, n: u64) {
        add(&self.refused, n);
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> IoCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IoCounts {
            reads: get(&self.reads),
            writes: get(&self.writes),
            others: get(&self.others),
            read_bytes: get(&self.read_bytes),
            written_bytes: get(&self.written_bytes),
            failed: get(&self.failed),
            connections: get(&self.connections),
            refused: get(&self.refused),
        }
    }
}

/// What initiators did to a volume since the start, through one reactor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeCounts {
    /// Commands that read.
    pub reads: u64,
    /// Commands that wrote.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Commands that flushed.
    pub flushes: u64,
    /// Commands that unmapped or wrote zeros.
    pub deallocates: u64,
    /// Commands that failed.
    pub errors: u64,
}
