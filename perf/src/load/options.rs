//! What the load generator is asked to do.

use std::net::ToSocketAddrs;
use std::time::Duration;

use ashlar_config::Bytes;
use clap::{Args, ValueEnum};

use crate::client::{Digests, HostOptions};

/// Where the accesses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// One after the other, each connection in a part of its own.
    Seq,
    /// Anywhere.
    Random,
}

/// The load to generate.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Address and port of the target.
    #[arg(long, default_value = "127.0.0.1:4420", value_parser = resolvable)]
    pub addr: String,
    /// NQN of the subsystem.
    #[arg(long, default_value = "", required_unless_present = "raw_echo")]
    pub nqn: String,
    /// NQN of this host.
    #[arg(long)]
    pub hostnqn: Option<String>,
    /// Namespace to use.
    #[arg(long, default_value_t = 1)]
    pub nsid: u32,
    /// Connections (I/O queues), all of one controller.
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
    /// Write Zeroes, in percent of the writes.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub zero_percent: u8,
    /// One Flush after so many writes; 0 for none.
    #[arg(long, default_value_t = 0)]
    pub flush_every: u32,
    /// Where the accesses go.
    #[arg(long, value_enum, default_value = "random")]
    pub pattern: Pattern,
    /// Use only so much of the namespace, from its start.
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
    /// How to connect.
    #[must_use]
    pub fn host(&self) -> HostOptions {
        let mut host = HostOptions::new(&self.addr, &self.nqn);
        if let Some(hostnqn) = &self.hostnqn {
            host.hostnqn.clone_from(hostnqn);
        }
        host.digests = if self.digest { Digests::BOTH } else { Digests::NONE };
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
