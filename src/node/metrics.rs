//! The node's metrics: what its reactors count, read when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// The registry that `/metrics` shows.
pub(crate) struct NodeMetrics {
    registry: Registry,
}

impl NodeMetrics {
    /// Adds the counters of the reactors and of scrubbing to `registry`.
    pub fn new(mut registry: Registry, stats: Vec<ReactorStats>, scrub: Arc<ScrubCounts>) -> Self {
        registry.register_collector(Box::new(Reactors { stats }));
        registry.register_collector(Box::new(Scrub { counts: scrub }));
        Self { registry }
    }

    pub fn render(&self) -> String {
        ashlar_cluster::metrics::render(&self.registry)
    }
}

/// The counters of one reactor.
#[derive(Clone, Debug)]
pub(crate) struct ReactorStats {
    pub nvme: Arc<ashlar_nvmeof::server::stats::IoStats>,
    pub iscsi: Arc<ashlar_iscsi::server::stats::IoStats>,
}

/// What scrubbing has done, brought up to date every few seconds.
#[derive(Debug, Default)]
pub(crate) struct ScrubCounts {
    /// Bytes that were read and verified since the node was started.
    pub bytes: AtomicU64,
    /// Blocks, pages and records that are damaged, as far as is known.
    pub damaged: AtomicU64,
}

#[derive(Debug)]
struct Scrub {
    counts: Arc<ScrubCounts>,
}

impl Collector for Scrub {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bytes = ConstCounter::new(self.counts.bytes.load(Ordering::Relaxed));
        let help = "Bytes that scrubbing has read and verified";
        let metric =
            encoder.encode_descriptor("ashlar_scrub_read", help, Some(&Unit::Bytes), bytes.metric_type())?;
        bytes.encode(metric)?;
        let damaged = ConstGauge::new(self.counts.damaged.load(Ordering::Relaxed));
        let help = "Blocks and metadata that scrubbing found damaged and that still are";
        let metric = encoder.encode_descriptor("ashlar_scrub_damaged", help, None, damaged.metric_type())?;
        damaged.encode(metric)
    }
}

struct Reactors {
    stats: Vec<ReactorStats>,
}

impl std::fmt::Debug for Reactors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} reactors", self.stats.len())
    }
}

/// Name, help, unit and value of a counter.
type Row<C> = (&'static str, &'static str, Option<Unit>, fn(&C) -> u64);

const NVME: [Row<ashlar_nvmeof::server::stats::IoCounts>; 8] = [
    ("ashlar_nvme_reads", "Read commands completed", None, |c| c.reads),
    ("ashlar_nvme_writes", "Write commands completed", None, |c| c.writes),
    ("ashlar_nvme_other_commands", "Other I/O commands completed", None, |c| c.others),
    ("ashlar_nvme_read", "Bytes sent to hosts by reads", Some(Unit::Bytes), |c| c.read_bytes),
    ("ashlar_nvme_written", "Bytes taken from hosts by writes", Some(Unit::Bytes), |c| c.written_bytes),
    ("ashlar_nvme_failed_commands", "I/O commands that failed", None, |c| c.failed),
    ("ashlar_nvme_connections", "Connections accepted", None, |c| c.connections),
    ("ashlar_nvme_refused_connections", "Connections refused by a limit", None, |c| c.refused),
];

const ISCSI: [Row<ashlar_iscsi::server::stats::IoCounts>; 8] = [
    ("ashlar_iscsi_reads", "Commands that read, completed", None, |c| c.reads),
    ("ashlar_iscsi_writes", "Commands that wrote, completed", None, |c| c.writes),
    ("ashlar_iscsi_other_commands", "Other SCSI commands completed", None, |c| c.others),
    ("ashlar_iscsi_read", "Bytes sent to initiators by reads", Some(Unit::Bytes), |c| c.read_bytes),
    ("ashlar_iscsi_written", "Bytes taken from initiators by writes", Some(Unit::Bytes), |c| c.written_bytes),
    ("ashlar_iscsi_failed_commands", "SCSI commands that did not end well", None, |c| c.failed),
    ("ashlar_iscsi_connections", "Connections accepted", None, |c| c.connections),
    ("ashlar_iscsi_refused_connections", "Connections refused by a limit", None, |c| c.refused),
];

/// Encodes the sum over the reactors of each row.
fn encode<C>(
    encoder: &mut DescriptorEncoder<'_>,
    rows: &[Row<C>],
    counts: &[C],
) -> Result<(), std::fmt::Error> {
    for (name, help, unit, value) in rows {
        let sum = ConstCounter::new(counts.iter().map(value).sum::<u64>());
        let metric = encoder.encode_descriptor(name, help, unit.as_ref(), sum.metric_type())?;
        sum.encode(metric)?;
    }
    Ok(())
}

impl Collector for Reactors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let nvme: Vec<_> = self.stats.iter().map(|stats| stats.nvme.snapshot()).collect();
        encode(&mut encoder, &NVME, &nvme)?;
        let iscsi: Vec<_> = self.stats.iter().map(|stats| stats.iscsi.snapshot()).collect();
        encode(&mut encoder, &ISCSI, &iscsi)
    }
}
