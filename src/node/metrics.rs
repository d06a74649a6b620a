//! The node's metrics: what its reactors count, read when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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
    /// Adds the counters of the reactors and of the engine to `registry`.
    pub fn new(mut registry: Registry, stats: Vec<ReactorStats>, engine: Arc<EngineCounts>) -> Self {
        registry.register_collector(Box::new(Reactors { stats }));
        registry.register_collector(Box::new(Engine { counts: engine }));
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

/// What the engine has done and what space it takes, brought up to date every few seconds.
#[derive(Debug, Default)]
pub(crate) struct EngineCounts {
    /// Bytes that were read and verified since the node was started.
    pub bytes: AtomicU64,
    /// Blocks, pages and records that are damaged, as far as is known.
    pub damaged: AtomicU64,
    /// Space by device, group and volume.
    pub space: Mutex<Vec<SpaceRow>>,
    /// Copies that were made again since the node was started.
    pub repaired: AtomicU64,
    /// How often a damaged copy could not be, since no other had what was missing.
    pub unrepaired: AtomicU64,
}

/// Space of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpaceRow {
    /// What is told of it, without `ashlar_` and the unit; see [`SPACE`].
    pub name: &'static str,
    /// The label: `device`, `group` or `volume`, and its identity.
    pub label: (&'static str, String),
    /// Bytes.
    pub bytes: u64,
}

/// Names and helps of what is told of space.
pub(crate) const SPACE: [(&str, &str); 9] = [
    ("ashlar_device_size", "What a device holds at most, as the engine divides it"),
    ("ashlar_device_used", "What is taken of a device, compaction's debt included"),
    ("ashlar_device_free", "What hosts can still take of a device"),
    ("ashlar_group_logical", "What is written to a group's volumes and not deallocated, as hosts see it"),
    (
        "ashlar_group_live",
        "What lives on the devices of a group, snapshots and maps included, each block once",
    ),
    ("ashlar_group_physical", "What a group takes on devices, what compaction has yet to give back included"),
    ("ashlar_volume_size", "The size of a log-structured volume as hosts see it"),
    ("ashlar_volume_logical", "What is written to a volume and not deallocated, as hosts see it"),
    ("ashlar_volume_stored", "What of that is stored, after compression, shared or not"),
];

#[derive(Debug)]
struct Engine {
    counts: Arc<EngineCounts>,
}

impl Engine {
    fn encode_space(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let rows = self.counts.space.lock().expect("no panic while held").clone();
        for (name, help) in SPACE {
            let gauge = |bytes| ConstGauge::new(bytes);
            let kind = gauge(0_u64).metric_type();
            let mut metrics = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), kind)?;
            for row in rows.iter().filter(|row| row.name == name) {
                let label = [(row.label.0, row.label.1.as_str())];
                gauge(row.bytes).encode(metrics.encode_family(&label)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for Engine {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bytes = ConstCounter::new(self.counts.bytes.load(Ordering::Relaxed));
        let help = "Bytes that scrubbing has read and verified";
        let metric =
            encoder.encode_descriptor("ashlar_scrub_read", help, Some(&Unit::Bytes), bytes.metric_type())?;
        bytes.encode(metric)?;
        let damaged = ConstGauge::new(self.counts.damaged.load(Ordering::Relaxed));
        let help = "Blocks and metadata that scrubbing found damaged and that still are";
        let metric = encoder.encode_descriptor("ashlar_scrub_damaged", help, None, damaged.metric_type())?;
        damaged.encode(metric)?;
        let help = "Copies of segments made again, because they were damaged or missing";
        counter(&mut encoder, "ashlar_repaired_copies", help, &self.counts.repaired)?;
        let help = "Damaged copies of segments that no other copy could mend";
        counter(&mut encoder, "ashlar_unrepaired_copies", help, &self.counts.unrepaired)?;
        self.encode_space(&mut encoder)
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    count: &AtomicU64,
) -> Result<(), std::fmt::Error> {
    let count = ConstCounter::new(count.load(Ordering::Relaxed));
    let metric = encoder.encode_descriptor(name, help, None, count.metric_type())?;
    count.encode(metric)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_told_with_labels() {
        let row =
            |name, kind, identity: &str, bytes| SpaceRow { name, label: (kind, identity.to_owned()), bytes };
        let counts = EngineCounts::default();
        *counts.space.lock().unwrap() = vec![
            row("ashlar_device_size", "device", "one", 4096),
            row("ashlar_device_size", "device", "two", 8192),
            row("ashlar_volume_stored", "volume", "v", 7),
        ];
        let text = NodeMetrics::new(Registry::default(), Vec::new(), Arc::new(counts)).render();
        assert!(text.contains("ashlar_device_size_bytes{device=\"one\"} 4096\n"), "{text}");
        assert!(text.contains("ashlar_device_size_bytes{device=\"two\"} 8192\n"), "{text}");
        assert!(text.contains("ashlar_volume_stored_bytes{volume=\"v\"} 7\n"), "{text}");
        assert!(
            SPACE.iter().all(|(name, _)| text.contains(&format!("# TYPE {name}_bytes gauge\n"))),
            "{text}"
        );
    }
}
