//! What a run measured.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Options;

/// The longest latency told apart, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Latencies and count of one kind of command.
pub(super) struct Tally {
    histogram: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Self { histogram: histogram.expect("the bounds are in order") }
    }

    #[inline]
    pub(super) fn record(&mut self, latency_ns: u64) {
        self.histogram.saturating_record(latency_ns);
    }

    fn latency(&self, seconds: f64) -> Option<Latency> {
        let histogram = &self.histogram;
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(Latency {
            count: histogram.len(),
            per_second: histogram.len() as f64 / seconds,
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        })
    }
}

/// Rate and latencies of one kind of command.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Commands finished.
    pub count: u64,
    /// Commands finished in a second.
    pub per_second: f64,
    /// Mean latency in microseconds.
    pub mean_us: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile in microseconds.
    pub p99_9_us: f64,
    /// Longest latency in microseconds.
    pub max_us: f64,
}

/// What a run measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Connections.
    pub connections: u16,
    /// Commands in flight on each.
    pub depth: u16,
    /// Bytes of each access.
    pub block_bytes: u64,
    /// Reads, in percent.
    pub read_percent: u8,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Reads and writes finished in a second.
    pub iops: f64,
    /// Bytes of data moved in a second.
    pub bytes_per_second: f64,
    /// Reads.
    pub read: Option<Latency>,
    /// Writes, Write Zeroes and Flushes.
    pub write: Option<Latency>,
    /// CPU seconds of the target per million reads and writes.
    pub target_cpu_seconds_per_million: Option<f64>,
    /// How much of one core the target used.
    pub target_cores: Option<f64>,
    /// Polls that found something, in percent. Near 100: this generator may be what limits.
    pub busy_polls_percent: f64,
    /// Sectors read and found to be right.
    pub sectors_verified: u64,
    /// Times the connection was lost and made again.
    pub reconnects: u64,
}

/// What a report is made of.
pub(super) struct Measured {
    pub(super) elapsed: Duration,
    pub(super) read: Tally,
    pub(super) write: Tally,
    pub(super) bytes: u64,
    pub(super) target_cpu: Option<Duration>,
    pub(super) polls: u64,
    pub(super) busy_polls: u64,
    pub(super) sectors_verified: u64,
    pub(super) reconnects: u64,
}

impl Report {
    pub(super) fn new(options: &Options, measured: &Measured) -> Self {
        let seconds = measured.elapsed.as_secs_f64().max(1e-9);
        let (read, write) = (measured.read.latency(seconds), measured.write.latency(seconds));
        let count = [&read, &write].into_iter().flatten().map(|kind| kind.count).sum::<u64>() as f64;
        let cpu = measured.target_cpu.map(|time| time.as_secs_f64());
        Self {
            connections: options.connections,
            depth: options.depth,
            block_bytes: options.block_size.get(),
            read_percent: options.mix,
            seconds,
            iops: count / seconds,
            bytes_per_second: measured.bytes as f64 / seconds,
            read,
            write,
            target_cpu_seconds_per_million: cpu.filter(|_| count > 0.0).map(|cpu| cpu / count * 1e6),
            target_cores: cpu.map(|cpu| cpu / seconds),
            busy_polls_percent: 100.0 * measured.busy_polls as f64 / (measured.polls.max(1)) as f64,
            sectors_verified: measured.sectors_verified,
            reconnects: measured.reconnects,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} connections, depth {}, {} bytes, {} % reads, {:.1} s: {:.0} IOPS, {:.3} GB/s",
            self.connections,
            self.depth,
            self.block_bytes,
            self.read_percent,
            self.seconds,
            self.iops,
            self.bytes_per_second / 1e9
        )?;
        writeln!(
            f,
            "{:8} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "", "IOPS", "mean us", "p50 us", "p99 us", "p99.9 us", "max us"
        )?;
        for (name, kind) in [("read", &self.read), ("write", &self.write)] {
            let Some(kind) = kind else { continue };
            writeln!(
                f,
                "{name:8} {:>12.0} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>10.1}",
                kind.per_second, kind.mean_us, kind.p50_us, kind.p99_us, kind.p99_9_us, kind.max_us
            )?;
        }
        if let (Some(cpu), Some(cores)) = (self.target_cpu_seconds_per_million, self.target_cores) {
            writeln!(f, "target: {cpu:.3} CPU seconds per million I/O, {:.1} % of a core", cores * 100.0)?;
        }
        write!(f, "generator: {:.1} % of the polls found something", self.busy_polls_percent)?;
        if self.sectors_verified > 0 {
            write!(f, "\nverified: {} sectors of 512 bytes, no fault", self.sectors_verified)?;
        }
        if self.reconnects > 0 {
            write!(f, "\nreconnected {} times", self.reconnects)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut tally = Tally::new();
        (1..=1000).for_each(|us| tally.record(us * 1000));
        let latency = tally.latency(2.0).unwrap();
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 2e-3;
        assert_eq!(latency.count, 1000);
        assert!(near(latency.per_second, 500.0));
        assert!(near(latency.p50_us, 500.0), "{}", latency.p50_us);
        assert!(near(latency.p99_us, 990.0), "{}", latency.p99_us);
        assert!(near(latency.p99_9_us, 999.0), "{}", latency.p99_9_us);
        assert!(near(latency.max_us, 1000.0), "{}", latency.max_us);
        assert!(near(latency.mean_us, 500.5), "{}", latency.mean_us);
    }

    #[test]
    fn a_latency_beyond_the_range_is_kept_as_the_longest() {
        let mut tally = Tally::new();
        tally.record(u64::MAX);
        assert!(tally.latency(1.0).unwrap().max_us >= LATENCY_NS_MAX as f64 / 1e3);
        assert!(Tally::new().latency(1.0).is_none());
    }
}
