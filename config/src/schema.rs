//! What a node is configured with, as typed and validated values.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::{Bytes, Cores, Device};

/// Where a NVMe/TCP target listens unless told otherwise.
pub(crate) const NVME_TCP_PORT: u16 = 4420;
/// Where hosts look for an NVMe/TCP discovery service unless told otherwise.
pub(crate) const DISCOVERY_PORT: u16 = 8009;
/// Where an iSCSI target listens unless told otherwise.
pub(crate) const ISCSI_PORT: u16 = 3260;
/// Where the API listens unless told otherwise.
pub(crate) const API_PORT: u16 = 7070;

/// The file that holds the volumes of an embedded node, in its data directory.
const EMBEDDED_DISK: &str = "disk0";
/// Its size; the node makes it smaller where less fits.
const EMBEDDED_DISK_SIZE: Bytes = Bytes::from_mib(64 << 10);

/// The whole configuration of a node.
///
/// [`Default`] is what an empty file means; [`Config::embedded`] is what no file means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[node]`: who this node is and where it keeps its state.
    pub node: Node,
    /// `[reactors]`: the threads that do I/O.
    pub reactors: Reactors,
    /// `[memory]`: what is set aside at start.
    pub memory: Memory,
    /// `[[device]]`: the disks for log-structured volumes.
    pub devices: Vec<Device>,
    /// `[scrub]`: reading what rests on the disks, to find what has rotted.
    pub scrub: Scrub,
    /// `[nvmeof]`: the NVMe/TCP target.
    pub nvmeof: Nvmeof,
    /// `[iscsi]`: the iSCSI target.
    pub iscsi: Iscsi,
    /// `[api]`: the HTTP interface that the command line and other tools use.
    pub api: Api,
    /// `[log]`: what is written to standard error.
    pub log: Log,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `name`: how people call this node. `None` means the machine's host name.
    pub name: Option<String>,
    /// `data`: the directory of the control state.
    pub data: PathBuf,
    /// `labels`: free words about the node, such as its rack.
    pub labels: BTreeMap<String, String>,
}

/// `[reactors]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reactors {
    /// `cores`: which cores get a reactor.
    pub cores: Cores,
    /// `spin`: how long an idle reactor polls before it sleeps.
    pub spin: Spin,
}

/// What a reactor does when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// Poll for this long, then sleep in the kernel until something happens. Zero sleeps at once.
    For(Duration),
    /// Never sleep: lowest latency, one core busy all the time.
    Always,
}

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// `buffers`: all I/O buffers of the node together, shared out evenly between its reactors.
    pub buffers: Bytes,
    /// `map_cache`: what the leaves of the maps of log-structured volumes take in memory, shared out evenly between the
    /// groups.
    pub map_cache: Bytes,
}

/// `[scrub]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// `rate`: what is read in a second at most, all devices together; 0 turns scrubbing off.
    pub rate: Bytes,
}

/// `[nvmeof]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvmeof {
    /// `listen`: where hosts connect for I/O. Discovery is answered there too. Not empty.
    pub listen: Vec<SocketAddr>,
    /// `discovery`: further addresses, for discovery only. May be empty.
    pub discovery: Vec<SocketAddr>,
    /// `advertise`: the addresses that discovery records name, as hosts reach them. Empty means: the address
    /// that the asking host reached, with the ports of `listen`.
    pub advertise: Vec<SocketAddr>,
    /// `referrals`: other discovery services that the discovery log names. May be empty.
    pub referrals: Vec<SocketAddr>,
    /// `[nvmeof.limits]`
    pub limits: Limits,
}

/// `[nvmeof.limits]`: what one node grants to all hosts, and to each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `max_connections`: TCP connections at a time, all hosts together. Each queue of a host is one.
    pub max_connections: u32,
    /// `max_connections_per_host`: TCP connections at a time from one host NQN.
    pub max_connections_per_host: u32,
    /// `max_controllers`: controllers at a time, all targets and hosts together.
    pub max_controllers: u16,
    /// `max_handshakes_per_address`: connections from one address that have not come to their accepted Connect
    /// command.
    pub max_handshakes_per_address: u32,
    /// `handshake_timeout`: from a connection's start to its accepted Connect command.
    pub handshake_timeout: Duration,
    /// `io_queues`: I/O queues that one controller grants to its host; hosts ask for one per CPU.
    pub io_queues: u16,
    /// `queue_depth`: commands outstanding in one I/O queue (MQES + 1 in the standard's terms).
    pub queue_depth: u16,
    /// `max_transfer`: data of one command at most (MDTS). A power of two.
    pub max_transfer: Bytes,
}

/// `[iscsi]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iscsi {
    /// `listen`: the portals. Each is a portal group of its own, numbered from 1 in this order. Empty: no iSCSI.
    pub listen: Vec<SocketAddr>,
    /// `advertise`: the addresses that SendTargets names, as hosts reach them. Empty means: the address that the asking
    /// host reached, with the ports of `listen`.
    pub advertise: Vec<SocketAddr>,
    /// `[iscsi.limits]`
    pub limits: IscsiLimits,
}

/// `[iscsi.limits]`: what one node grants to all initiators, and to each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IscsiLimits {
    /// `max_connections`: TCP connections at a time, all initiators together, those that have not logged in included.
    pub max_connections: u32,
    /// `max_sessions`: sessions at a time, all initiators together. Each has one connection.
    pub max_sessions: u16,
    /// `max_sessions_per_host`: sessions at a time of one initiator name, all targets together.
    pub max_sessions_per_host: u16,
    /// `max_logins_per_address`: connections from one address that have not logged in.
    pub max_logins_per_address: u32,
    /// `login_timeout`: from a connection's start to the end of its login.
    pub login_timeout: Duration,
    /// `queue_depth`: commands outstanding in one session (the window from ExpCmdSN to MaxCmdSN).
    pub queue_depth: u16,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// `listen`: where the API is served.
    pub listen: SocketAddr,
}

/// `[log]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// `format`: lines for people or for machines.
    pub format: LogFormat,
    /// `level`: the least severe event that is written.
    pub level: LogLevel,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `"text"`: a line for people.
    #[default]
    Text,
    /// `"json"`: one JSON object per line.
    Json,
}

/// How severe an event has to be to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `"error"`: something failed that an operator must see.
    Error,
    /// `"warn"`: and what may need attention.
    Warn,
    /// `"info"`: and what an operator would want to know happened.
    #[default]
    Info,
    /// `"debug"`: and what a developer would.
    Debug,
    /// `"trace"`: everything.
    Trace,
}

impl LogLevel {
    /// The word in the file, which is also the word that `tracing` uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

const fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Config {
    /// The node that `ashlar serve` runs without a file: state and one sparse file for volumes in `data`, everything on
    /// loopback.
    pub fn embedded(data: impl Into<PathBuf>) -> Self {
        let node = Node { data: data.into(), ..Node::default() };
        let devices = vec![Device::File { path: node.data.join(EMBEDDED_DISK), size: EMBEDDED_DISK_SIZE }];
        let nvmeof =
            Nvmeof { listen: vec![loopback(NVME_TCP_PORT)], discovery: Vec::new(), ..Nvmeof::default() };
        let iscsi = Iscsi { listen: vec![loopback(ISCSI_PORT)], ..Iscsi::default() };
        Self { node, devices, nvmeof, iscsi, ..Self::default() }
    }

    /// What is allowed but an operator should know, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.api.listen.ip().is_loopback() {
            warnings.push(format!(
                "the API on {} can be reached from the network and asks nobody for a password: whoever reaches \
                 it can delete volumes; listen on 127.0.0.1 or keep the port behind a firewall",
                self.api.listen
            ));
        }
        warnings
    }

    /// Whether only processes of this machine can reach the targets, by any protocol.
    pub fn is_loopback_only(&self) -> bool {
        let nvmeof = self.nvmeof.listen.iter().chain(&self.nvmeof.discovery);
        nvmeof.chain(&self.iscsi.listen).all(|address| address.ip().is_loopback())
    }
}

impl Default for Node {
    fn default() -> Self {
        Self { name: None, data: PathBuf::from("/var/lib/ashlar"), labels: BTreeMap::new() }
    }
}

impl Default for Reactors {
    fn default() -> Self {
        Self { cores: Cores::All, spin: Spin::For(Duration::from_micros(50)) }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { buffers: Bytes::from_mib(512), map_cache: Bytes::from_mib(256) }
    }
}

impl Default for Scrub {
    fn default() -> Self {
        Self { rate: Bytes::from_mib(16) }
    }
}

impl Default for Nvmeof {
    fn default() -> Self {
        Self {
            listen: vec![any(NVME_TCP_PORT)],
            discovery: vec![any(DISCOVERY_PORT)],
            advertise: Vec::new(),
            referrals: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8192,
            max_connections_per_host: 1024,
            max_controllers: 4096,
            max_handshakes_per_address: 64,
            handshake_timeout: Duration::from_secs(10),
            io_queues: 64,
            queue_depth: 1024,
            max_transfer: Bytes::from_mib(1),
        }
    }
}

impl Default for Iscsi {
    fn default() -> Self {
        Self { listen: vec![any(ISCSI_PORT)], advertise: Vec::new(), limits: IscsiLimits::default() }
    }
}

impl Default for IscsiLimits {
    fn default() -> Self {
        Self {
            max_connections: 8192,
            max_sessions: 4096,
            max_sessions_per_host: 256,
            max_logins_per_address: 64,
            login_timeout: Duration::from_secs(15),
            queue_depth: 128,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: loopback(API_PORT) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_is_reached_from_this_machine_only() {
        let config = Config::embedded("ashlar-data");
        assert_eq!(config.node.data, PathBuf::from("ashlar-data"));
        let disk = Device::File { path: "ashlar-data/disk0".into(), size: Bytes::new(64 << 30) };
        assert_eq!(config.devices, [disk]);
        assert_eq!(Config::default().devices, []);
        assert_eq!(config.nvmeof.listen, ["127.0.0.1:4420".parse().unwrap()]);
        assert_eq!(config.api.listen, "127.0.0.1:7070".parse().unwrap());
        assert_eq!(config.iscsi.listen, ["127.0.0.1:3260".parse().unwrap()]);
        assert!(config.is_loopback_only());
        let open = Iscsi::default();
        assert!(!Config { iscsi: open, ..config }.is_loopback_only());
        assert!(!Config::default().is_loopback_only());
    }

    #[test]
    fn an_open_api_is_warned_about() {
        let mut config = Config::default();
        assert_eq!(config.warnings(), Vec::<String>::new());
        config.api.listen = "0.0.0.0:7070".parse().unwrap();
        assert!(config.warnings()[0].contains("0.0.0.0:7070"));
    }
}
