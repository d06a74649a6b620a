//! What the load generator is asked to do.

use std::net::ToSocketAddrs;
use std::time::Duration;

use ashlar_config::Bytes;
use clap::{Args, ValueEnum};

use crate::client::{Digests, HostOptions};
use crate::iscsi::InitiatorOptions;

/// Where the accesses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// One after the other, each connection in a part of its own.
    Seq,
    /// Anywhere.
    Random,
}

/// What is spoken to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// NVMe/TCP.
    Nvme,
    /// iSCSI.
    Iscsi,
    /// What `ashlar-echo` answers.
    Echo,
}

/// The load to generate. `--nqn`, `--iqn` or `--raw-echo` chooses the protocol.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Address and port of the target; without it 127.0.0.1 and the protocol's port.
    #[arg(long, value_parser = resolvable)]
    pub addr: Option<String>,
    /// NQN of the subsystem, to load by NVMe/TCP.
    #[arg(long, required_unless_present_any = ["iqn", "raw_echo"], conflicts_with = "iqn")]
    pub nqn: Option<String>,
    /// NQN of this host (NVMe/TCP).
    #[arg(long)]
    pub hostnqn: Option<String>,
    /// IQN of the target, to load by iSCSI.
    #[arg(long, conflicts_with = "raw_echo")]
    pub iqn: Option<String>,
    /// IQN of this initiator (iSCSI).
    #[arg(long)]
    pub initiator: Option<String>,
    /// Logical unit to use (iSCSI).
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..16_384))]
    pub lun: u16,
    /// Let data that their command does not carry wait for R2T (iSCSI).
    #[arg(long)]
    pub initial_r2t: bool,
    /// Send no data with a command (iSCSI).
    #[arg(long)]
    pub no_immediate_data: bool,
    /// Namespace to use (NVMe/TCP).
    #[arg(long, default_value_t = 1)]
    pub nsid: u32,
    /// Connections: I/O queues, all of one controller, or iSCSI sessions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
    /// Commands in flight on each connection.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub depth: u16,
    /// Bytes of each access.
    #[arg(long, default_value = "4KiB")]
    pub block_size: Bytes,
    /// Reads, in percent; the rest are writes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub mix: u8,
    /// Write Zeroes (SCSI: WRITE SAME of zeros), in percent of the writes.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub zero_percent: u8,
    /// One Flush (SCSI: SYNCHRONIZE CACHE) after so many writes; 0 for none.
    #[arg(long, default_value_t = 0)]
    pub flush_every: u32,
    /// Where the accesses go.
    #[arg(long, value_enum, default_value = "random")]
    pub pattern: Pattern,
    /// Use only so much of the namespace or unit, from its start.
    #[arg(long)]
    pub span: Option<Bytes>,
    /// Seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub seconds: f64,
    /// How long to run before measuring, in seconds.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub warm_up: f64,
    /// Write data that describe themselves, and check every read against what was last acknowledged. At the
    /// end everything written is read once more.
    #[arg(long)]
    pub verify: bool,
    /// When the connection is lost, connect again for up to so many seconds and go on.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    pub survive_reconnect: f64,
    /// Header and data digests.
    #[arg(long)]
    pub digest: bool,
    /// Keep submission queue flow control on (and so do without the SUCCESS flag).
    #[arg(long)]
    pub flow_control: bool,
    /// Keep-alive timeout in milliseconds; 0 for none.
    #[arg(long, default_value_t = 15_000)]
    pub kato_ms: u32,
    /// Core to run on.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Process whose CPU time to report.
    #[arg(long)]
    pub target_pid: Option<u32>,
    /// Talk to `ashlar-echo` instead of a target.
    #[arg(long, conflicts_with = "verify")]
    pub raw_echo: bool,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// What is spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match () {
            () if self.raw_echo => Protocol::Echo,
            () if self.iqn.is_some() => Protocol::Iscsi,
            () => Protocol::Nvme,
        }
    }

    /// Address and port of the target.
    #[must_use]
    pub fn address(&self) -> String {
        let default = match self.protocol() {
            Protocol::Iscsi => "127.0.0.1:3260",
            Protocol::Nvme | Protocol::Echo => "127.0.0.1:4420",
        };
        self.addr.clone().unwrap_or_else(|| default.into())
    }

    fn digests(&self) -> Digests {
        if self.digest { Digests::BOTH } else { Digests::NONE }
    }

    /// How to log in by iSCSI.
    #[must_use]
    pub fn initiator(&self) -> InitiatorOptions {
        let mut initiator = InitiatorOptions::new(&self.address(), self.iqn.as_deref().unwrap_or_default());
        if let Some(name) = &self.initiator {
            initiator.initiator.clone_from(name);
        }
        initiator.lun = self.lun;
        initiator.digests = self.digests();
        initiator.initial_r2t = self.initial_r2t;
        initiator.immediate_data = !self.no_immediate_data;
        initiator
    }

    /// How to connect by NVMe/TCP.
    #[must_use]
    pub fn host(&self) -> HostOptions {
        let mut host = HostOptions::new(&self.address(), self.nqn.as_deref().unwrap_or_default());
        if let Some(hostnqn) = &self.hostnqn {
            host.hostnqn.clone_from(hostnqn);
        }
        host.digests = self.digests();
        host.no_flow_control = !self.flow_control;
        host.kato_ms = self.kato_ms;
        host
    }

    /// How long to try to connect again.
    #[must_use]
    pub fn reconnect_for(&self) -> Duration {
        Duration::from_secs_f64(self.survive_reconnect)
    }
}

fn resolvable(text: &str) -> Result<String, String> {
    text.to_socket_addrs().map(|_| text.to_owned()).map_err(|error| format!("{error}; write HOST:PORT"))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e6).contains(&value) => Ok(value),
        _ => Err("not a number of seconds from 0 to 1000000".into()),
    }
}
