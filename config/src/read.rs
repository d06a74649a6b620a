//! From text to a [`Config`]: parse, read every key, then check what keys say together.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeTable;

use crate::device;
use crate::keys;
use crate::schema::{API_PORT, DISCOVERY_PORT, ISCSI_PORT, NVME_TCP_PORT};
use crate::section::{Problems, Section};
use crate::{
    Api, Bytes, Config, ConfigError, Iscsi, IscsiLimits, Limits, Log, Memory, Node, Nvmeof, Reactors, Scrub,
    validate, value,
};

/// The most text that is read; a configuration is a few kilobytes.
pub(crate) const TEXT_LEN_MAX: usize = 1 << 20;

impl Config {
    /// Reads a configuration. `file` is only used to name the file in errors.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with everything that could be found wrong, in the order of the lines. What several
    /// keys say together is checked only when each of them is right by itself.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let problems = Problems::new(text);
        let config = match check_size(text) {
            Ok(()) => read_all(text, &problems),
            Err(message) => {
                problems.add(0..0, message, None);
                Self::default()
            }
        };
        if problems.is_empty() {
            return Ok(config);
        }
        Err(ConfigError { file: file.to_owned(), diagnostics: problems.into_diagnostics() })
    }
}

fn check_size(text: &str) -> Result<(), String> {
    if text.len() <= TEXT_LEN_MAX {
        return Ok(());
    }
    let (found, most) = (Bytes::new(text.len() as u64), Bytes::new(TEXT_LEN_MAX as u64));
    Err(format!("the file is {found} long and a configuration is at most {most}; is it the right file?"))
}

fn read_all<'a>(text: &'a str, problems: &Problems<'a>) -> Config {
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    // One mistake in the syntax often makes the parser stumble several times on the same line.
    let mut lines = BTreeSet::new();
    for error in &syntax_errors {
        let span = error.span().unwrap_or(0..0);
        let line = text.as_bytes()[..span.start.min(text.len())].iter().filter(|b| **b == b'\n').count();
        if lines.insert(line) {
            let message = error.message().trim().lines().collect::<Vec<_>>().join("; ");
            problems.add(span, format!("not valid TOML: {message}"), None);
        }
    }
    if !syntax_errors.is_empty() {
        // What the parser guessed around its errors must not raise more errors.
        let keys_only = Problems::new(text);
        keys::report_unknown(document.get_ref(), &keys_only);
        keys_only.drain_into(problems, |line| !lines.contains(&line));
        return Config::default();
    }
    let root = document.get_ref();
    keys::report_unknown(root, problems);
    read_tables(root, problems)
}

fn read_tables<'a>(root: &DeTable<'a>, problems: &Problems<'a>) -> Config {
    let open = |path| Section::open(root, path, problems);
    let (reactors, memory, api, log) = (open("reactors"), open("memory"), open("api"), open("log"));
    let (nvmeof, limits, scrub) = (open("nvmeof"), open("nvmeof.limits"), open("scrub"));
    let (iscsi, iscsi_limits) = (open("iscsi"), open("iscsi.limits"));
    let default = Config::default();
    let config = Config {
        node: read_node(&open("node"), default.node),
        reactors: Reactors {
            cores: reactors.read("cores", default.reactors.cores, value::cores),
            spin: reactors.read("spin", default.reactors.spin, value::spin),
        },
        memory: Memory {
            buffers: memory.read(
                "buffers",
                default.memory.buffers,
                value::size(Bytes::from_mib(4)..=Bytes::from_mib(1 << 20)),
            ),
            map_cache: memory.read(
                "map_cache",
                default.memory.map_cache,
                value::size(Bytes::from_mib(4)..=Bytes::from_mib(1 << 20)),
            ),
        },
        devices: device::read_all(root, problems),
        scrub: Scrub { rate: scrub.read("rate", default.scrub.rate, value::rate) },
        nvmeof: read_nvmeof(&nvmeof, read_limits(&limits, default.nvmeof.limits.clone()), default.nvmeof),
        iscsi: read_iscsi(
            &iscsi,
            read_iscsi_limits(&iscsi_limits, default.iscsi.limits),
            default.iscsi.listen,
        ),
        api: Api { listen: api.read("listen", default.api.listen, value::address(API_PORT)) },
        log: Log {
            format: log.read("format", default.log.format, value::log_format),
            level: log.read("level", default.log.level, value::log_level),
        },
    };
    if problems.is_empty() {
        let sections = validate::Sections { memory, nvmeof, limits, iscsi, iscsi_limits, api };
        validate::check(&config, &sections, problems);
    }
    config
}

fn read_node(section: &Section<'_, '_>, default: Node) -> Node {
    Node {
        name: section.read("name", default.name, value::name),
        data: section.read("data", default.data, value::directory),
        labels: section.read("labels", default.labels, value::labels),
    }
}

fn read_nvmeof(section: &Section<'_, '_>, limits: Limits, default: Nvmeof) -> Nvmeof {
    let listen = section.read_list("listen", default.listen, value::addresses(NVME_TCP_PORT));
    let discovery = default_discovery(&listen);
    Nvmeof {
        discovery: section.read_list("discovery", discovery, value::addresses(DISCOVERY_PORT)),
        advertise: read_advertised(section, &listen, NVME_TCP_PORT),
        referrals: section.read_list("referrals", default.referrals, value::referrals(DISCOVERY_PORT)),
        listen,
        limits,
    }
}

fn read_iscsi(section: &Section<'_, '_>, limits: IscsiLimits, default: Vec<SocketAddr>) -> Iscsi {
    let listen = section.read_list("listen", default, value::addresses(ISCSI_PORT));
    Iscsi { advertise: read_advertised(section, &listen, ISCSI_PORT), listen, limits }
}

/// Addresses to tell hosts of; those without a port get the first one of `listen`.
fn read_advertised(section: &Section<'_, '_>, listen: &[SocketAddr], default: u16) -> Vec<SocketAddr> {
    let advertised = section.read_list("advertise", Vec::new(), value::advertised(default));
    let port = listen.first().map_or(default, SocketAddr::port);
    advertised.iter().map(|(ip, own)| SocketAddr::new(*ip, own.unwrap_or(port))).collect()
}

/// Discovery on its own port wherever I/O listens, and nowhere else: who narrows `listen` to one network must
/// not find discovery open on all of them. Listeners on any free port are for tests and get none.
fn default_discovery(listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut discovery: Vec<SocketAddr> = Vec::new();
    for address in listen.iter().filter(|address| address.port() != 0) {
        let wanted = SocketAddr::new(address.ip(), DISCOVERY_PORT);
        let taken = listen.iter().chain(&discovery).any(|other| validate::overlap(wanted, *other));
        if !taken {
            discovery.push(wanted);
        }
    }
    discovery
}

fn read_limits(section: &Section<'_, '_>, default: Limits) -> Limits {
    let handshake = Duration::from_secs(1)..=Duration::from_secs(300);
    Limits {
        max_connections: section.read("max_connections", default.max_connections, value::number(2..=65536)),
        max_connections_per_host: section.read(
            "max_connections_per_host",
            default.max_connections_per_host,
            value::number(2..=65536),
        ),
        max_controllers: section.read("max_controllers", default.max_controllers, value::number(1..=65519)),
        max_handshakes_per_address: section.read(
            "max_handshakes_per_address",
            default.max_handshakes_per_address,
            value::number(1..=65536),
        ),
        handshake_timeout: section.read(
            "handshake_timeout",
            default.handshake_timeout,
            value::time(handshake),
        ),
        io_queues: section.read("io_queues", default.io_queues, value::number(1..=128)),
        queue_depth: section.read("queue_depth", default.queue_depth, value::number(128..=1024)),
        max_transfer: section.read(
            "max_transfer",
            default.max_transfer,
            value::size(Bytes::from_kib(128)..=Bytes::from_mib(1)),
        ),
    }
}

fn read_iscsi_limits(section: &Section<'_, '_>, default: IscsiLimits) -> IscsiLimits {
    let login = Duration::from_secs(1)..=Duration::from_secs(300);
    IscsiLimits {
        max_connections: section.read("max_connections", default.max_connections, value::number(2..=65536)),
        max_sessions: section.read("max_sessions", default.max_sessions, value::number(1..=65534)),
        max_sessions_per_host: section.read(
            "max_sessions_per_host",
            default.max_sessions_per_host,
            value::number(1..=65534),
        ),
        max_logins_per_address: section.read(
            "max_logins_per_address",
            default.max_logins_per_address,
            value::number(1..=65536),
        ),
        login_timeout: section.read("login_timeout", default.login_timeout, value::time(login)),
        queue_depth: section.read("queue_depth", default.queue_depth, value::number(32..=1024)),
    }
}
