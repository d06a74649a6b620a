//! The node's metrics: what its reactors count, read when somebody asks.

use std::sync::Arc;

use ashlar_nvmeof::server::stats::{IoCounts, IoStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::{Registry, Unit};

/// The registry that `/metrics` shows.
pub(crate) struct NodeMetrics {
    registry: Registry,
}

impl NodeMetrics {
    /// Adds the counters of the reactors to `registry`.
    pub fn new(mut registry: Registry, stats: Vec<Arc<IoStats>>) -> Self {
        registry.register_collector(Box::new(Reactors { stats }));
        Self { registry }
    }

    pub fn render(&self) -> String {
        ashlar_cluster::metrics::render(&self.registry)
    }
}

struct Reactors {
    stats: Vec<Arc<IoStats>>,
}

impl std::fmt::Debug for Reactors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} reactors", self.stats.len())
    }
}

/// Name, help, unit and value of a counter.
type Row = (&'static str, &'static str, Option<Unit>, fn(&IoCounts) -> u64);

const ROWS: [Row; 8] = [
    ("ashlar_nvme_reads", "Read commands completed", None, |c| c.reads),
    ("ashlar_nvme_writes", "Write commands completed", None, |c| c.writes),
    ("ashlar_nvme_other_commands", "Other I/O commands completed", None, |c| c.others),
    ("ashlar_nvme_read", "Bytes sent to hosts by reads", Some(Unit::Bytes), |c| c.read_bytes),
    ("ashlar_nvme_written", "Bytes taken from hosts by writes", Some(Unit::Bytes), |c| c.written_bytes),
    ("ashlar_nvme_failed_commands", "I/O commands that failed", None, |c| c.failed),
    ("ashlar_nvme_connections", "Connections accepted", None, |c| c.connections),
    ("ashlar_nvme_refused_connections", "Connections refused by a limit", None, |c| c.refused),
];

impl Collector for Reactors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts: Vec<IoCounts> = self.stats.iter().map(|stats| stats.snapshot()).collect();
        for (name, help, unit, value) in &ROWS {
            let sum = ConstCounter::new(counts.iter().map(value).sum::<u64>());
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), sum.metric_type())?;
            sum.encode(metric)?;
        }
        Ok(())
    }
}
