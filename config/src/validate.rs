//! What several keys say together.

use std::net::SocketAddr;
use std::ops::Range;

use crate::section::{Problems, Section};
use crate::{Bytes, Config, IscsiLimits, Limits};

/// How many of the largest transfers must fit the buffers at a time: fewer, and one host with large
/// commands would stall all others.
const TRANSFERS_BUFFERED_MIN: u64 = 16;

/// The tables whose keys are checked against each other, to point at them.
pub(crate) struct Sections<'s, 'a> {
    pub(crate) memory: Section<'s, 'a>,
    pub(crate) nvmeof: Section<'s, 'a>,
    pub(crate) limits: Section<'s, 'a>,
    pub(crate) iscsi: Section<'s, 'a>,
    pub(crate) iscsi_limits: Section<'s, 'a>,
    pub(crate) api: Section<'s, 'a>,
}

/// Where the first of `keys` stands that the file sets. One of them is set, since the defaults agree.
fn first_set(keys: &[(&Section<'_, '_>, &str)]) -> Range<usize> {
    keys.iter().find_map(|(section, key)| section.span(key)).unwrap_or(0..0)
}

/// Reports every contradiction between keys that are each right by themselves.
pub(crate) fn check(config: &Config, sections: &Sections<'_, '_>, problems: &Problems<'_>) {
    check_limits(&config.nvmeof.limits, &sections.limits, problems);
    check_sessions(&config.iscsi.limits, &sections.iscsi_limits, problems);
    check_buffers(config, sections, problems);
    check_listeners(config, sections, problems);
}

fn check_sessions(limits: &IscsiLimits, section: &Section<'_, '_>, problems: &Problems<'_>) {
    let IscsiLimits { max_connections, max_sessions, max_sessions_per_host, .. } = limits;
    if max_sessions_per_host > max_sessions {
        problems.add(
            first_set(&[(section, "max_sessions_per_host"), (section, "max_sessions")]),
            format!(
                "one host may have {max_sessions_per_host} sessions (`max_sessions_per_host`) and all hosts together \
                 {max_sessions} (`max_sessions`)"
            ),
            Some("raise `max_sessions` or lower `max_sessions_per_host`".to_owned()),
        );
    }
    if u32::from(*max_sessions) > *max_connections {
        problems.add(
            first_set(&[(section, "max_sessions"), (section, "max_connections")]),
            format!(
                "{max_sessions} sessions (`max_sessions`) need as many connections, not {max_connections}"
            ),
            Some("raise `max_connections` or lower `max_sessions`".to_owned()),
        );
    }
}

fn check_limits(limits: &Limits, section: &Section<'_, '_>, problems: &Problems<'_>) {
    let Limits { max_connections, max_connections_per_host, io_queues, max_transfer, .. } = limits;
    if max_connections_per_host > max_connections {
        problems.add(
            first_set(&[(section, "max_connections_per_host"), (section, "max_connections")]),
            format!(
                "one host may have {max_connections_per_host} connections (`max_connections_per_host`) and all \
                 hosts together {max_connections} (`max_connections`)"
            ),
            Some("raise `max_connections` or lower `max_connections_per_host`".to_owned()),
        );
    }
    // A controller is one connection for its admin queue and one for each I/O queue.
    let per_controller = u32::from(*io_queues) + 1;
    if per_controller > *max_connections_per_host {
        problems.add(
            first_set(&[(section, "io_queues"), (section, "max_connections_per_host")]),
            format!(
                "a controller with {io_queues} I/O queues needs {per_controller} connections and a host may have \
                 {max_connections_per_host}"
            ),
            Some("lower `io_queues` or raise `max_connections_per_host`".to_owned()),
        );
    }
    if !max_transfer.get().is_power_of_two() {
        problems.add(
            first_set(&[(section, "max_transfer")]),
            format!("`nvmeof.limits.max_transfer` must be a power of two; this is {max_transfer}"),
            Some(format!("{} is the next smaller one", Bytes::new(1 << max_transfer.get().ilog2()))),
        );
    }
}

fn check_buffers(config: &Config, sections: &Sections<'_, '_>, problems: &Problems<'_>) {
    let (buffers, transfer) = (config.memory.buffers, config.nvmeof.limits.max_transfer);
    let least = Bytes::new(transfer.get() * TRANSFERS_BUFFERED_MIN);
    if buffers < least {
        problems.add(
            first_set(&[(&sections.memory, "buffers"), (&sections.limits, "max_transfer")]),
            format!("`memory.buffers` of {buffers} is too little for transfers of {transfer}"),
            Some(format!("give at least {least}, or lower `nvmeof.limits.max_transfer`")),
        );
    }
}

fn check_listeners(config: &Config, sections: &Sections<'_, '_>, problems: &Problems<'_>) {
    if config.nvmeof.listen.is_empty() {
        let help = "name an address, or remove the key for the default".to_owned();
        let span = first_set(&[(&sections.nvmeof, "listen")]);
        problems.add(
            span,
            "`nvmeof.listen` names no address, so no host could connect".to_owned(),
            Some(help),
        );
    }
    let keyed = |name, section, key, addresses: &[SocketAddr]| {
        addresses.iter().map(|address| (name, section, key, *address)).collect::<Vec<_>>()
    };
    let nvmeof = &config.nvmeof;
    let mut listeners = keyed("nvmeof.listen", &sections.nvmeof, "listen", &nvmeof.listen);
    listeners.extend(keyed("nvmeof.discovery", &sections.nvmeof, "discovery", &nvmeof.discovery));
    listeners.extend(keyed("iscsi.listen", &sections.iscsi, "listen", &config.iscsi.listen));
    listeners.extend(keyed("api.listen", &sections.api, "listen", &[config.api.listen]));
    for (index, (name, section, key, address)) in listeners.iter().enumerate() {
        let earlier = listeners[..index].iter().find(|(.., other)| overlap(*address, *other));
        if let Some((other_name, other_section, other_key, other)) = earlier {
            problems.add(
                first_set(&[(section, key), (other_section, other_key)]),
                format!(
                    "`{name}` {address}{} and `{other_name}` {other}{} are the same port",
                    by_default(section, key),
                    by_default(other_section, other_key)
                ),
                Some("give each its own port or its own address".to_owned()),
            );
        }
    }
}

fn by_default(section: &Section<'_, '_>, key: &str) -> &'static str {
    if section.span(key).is_some() { "" } else { " (the default)" }
}

/// Whether two listeners cannot both be opened. Port 0 means any free port, so it collides with nothing.
pub(crate) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    // [::] takes IPv4 connections too on Linux unless told otherwise, hence no look at the family.
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || any)
}
