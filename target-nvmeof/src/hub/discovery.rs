//! The discovery log (Base, section 5.16.1.23): which subsystems a host may connect to, and where.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

use zerocopy::{FromZeros, IntoBytes};

use crate::limits::ADMIN_QUEUE_ENTRIES_MAX;
use crate::view::{Access, DISCOVERY_NQN, Port, Targets, canonical};
use crate::wire::fabrics::CONTROLLER_ANY;
use crate::wire::log::{DiscoveryHeader, DiscoveryRecord};

use super::error_log::TRTYPE_TCP;

/// The port number assigned to discovery. Hosts are sent elsewhere for I/O where there is an elsewhere, or
/// they would make two paths of one.
const DISCOVERY_PORT: u16 = 8009;
/// TREQ: nothing is specified of a secure channel; flow control may be off. SECTYPE already says that there
/// is no secure channel, and nvme-cli 2.3 asks for TLS wherever TREQ says "required" or "not required".
const TREQ: u8 = 1 << 2;
/// EFLAGS: the discovery controller keeps connections and tells of changes (EPCSD).
const EFLAGS_PERSISTENT: u16 = 1 << 1;
const RECORD_BYTES: u64 = size_of::<DiscoveryRecord>() as u64;

/// SUBTYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// Another discovery service.
    Referral = 1,
    /// A subsystem with namespaces.
    Nvm = 2,
    /// This discovery service.
    Current = 3,
}

/// A record to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    kind: Kind,
    nqn: &'a str,
    address: SocketAddr,
    port_id: u16,
}

/// Whether any host's records may differ between the two.
pub(super) fn differs(before: &Targets, after: &Targets) -> bool {
    fn shown(targets: &Targets) -> impl Iterator<Item = (&str, &Access, &BTreeSet<SocketAddr>)> {
        targets.subsystems.iter().map(|(nqn, subsystem)| (nqn.as_str(), &subsystem.access, &subsystem.listen))
    }
    before.ports != after.ports || before.referrals != after.referrals || !shown(before).eq(shown(after))
}

/// The records for a host that connected to `local`.
pub(super) fn records<'a>(targets: &'a Targets, host_nqn: &str, local: SocketAddr) -> Vec<Record<'a>> {
    let reachable: Vec<_> = (targets.ports.iter())
        .filter_map(|port| address_for(port, port.listen, local).map(|address| (port, address)))
        .collect();
    let elsewhere = reachable.iter().any(|(port, _)| port.listen.port() != DISCOVERY_PORT);
    let for_io = |port: &&Port| !elsewhere || port.listen.port() != DISCOVERY_PORT;

    let mut records = Vec::new();
    for (nqn, subsystem) in &targets.subsystems {
        if nqn != DISCOVERY_NQN && subsystem.access.allows(host_nqn) {
            for port in targets.ports.iter().filter(for_io) {
                let first = records.len();
                for listen in subsystem.addresses_on(port.listen) {
                    let Some(address) = address_for(port, listen, local) else { continue };
                    let record = Record { kind: Kind::Nvm, nqn, address, port_id: port.id };
                    // All addresses of a port may be advertised as one.
                    if !records[first..].contains(&record) {
                        records.push(record);
                    }
                }
            }
        }
    }
    let referral = |&address| Record { kind: Kind::Referral, nqn: DISCOVERY_NQN, address, port_id: 0 };
    records.extend(targets.referrals.iter().map(referral));
    let current = reachable.iter().find(|(_, address)| *address == canonical(local));
    records.extend(current.map(|&(port, address)| Record {
        kind: Kind::Current,
        nqn: DISCOVERY_NQN,
        address,
        port_id: port.id,
    }));
    records
}

/// The address to tell a host that connected to `local` for `listen` on `port`; `None` where it cannot reach that.
fn address_for(port: &Port, listen: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
    if let Some(advertised) = port.advertise {
        return Some(advertised);
    }
    let (listen, local) = (canonical(listen), canonical(local));
    if listen.ip().is_unspecified() {
        // A wildcard of one family does not serve the other, but where the host came in by it just now.
        let reached = listen.is_ipv4() == local.is_ipv4() || listen.port() == local.port();
        return reached.then(|| SocketAddr::new(local.ip(), listen.port()));
    }
    (!listen.ip().is_loopback() || local.ip().is_loopback()).then_some(listen)
}

/// The size of the log with so many records.
pub(super) const fn log_bytes(records: usize) -> u64 {
    (records as u64 + 1) * RECORD_BYTES
}

/// At most `len` bytes of the log from `offset`; only the records in that window are made.
pub(super) fn window(records: &[Record<'_>], generation: u64, offset: u64, len: u32) -> Vec<u8> {
    let first = offset / RECORD_BYTES;
    let end = (offset + u64::from(len)).div_ceil(RECORD_BYTES).min(records.len() as u64 + 1);
    let mut bytes = Vec::with_capacity((end.saturating_sub(first) * RECORD_BYTES) as usize);
    for index in first..end {
        match index {
            0 => bytes.extend_from_slice(header(records.len(), generation).as_bytes()),
            _ => bytes.extend_from_slice(records[index as usize - 1].entry().as_bytes()),
        }
    }
    bytes.drain(..((offset % RECORD_BYTES) as usize).min(bytes.len()));
    bytes.truncate(len as usize);
    bytes
}

fn header(records: usize, generation: u64) -> DiscoveryHeader {
    DiscoveryHeader {
        generation: generation.into(),
        records: (records as u64).into(),
        ..DiscoveryHeader::new_zeroed()
    }
}

impl Record<'_> {
    fn entry(&self) -> DiscoveryRecord {
        let mut entry = DiscoveryRecord {
            transport: TRTYPE_TCP,
            family: if self.address.is_ipv4() { 1 } else { 2 },
            subtype: self.kind as u8,
            requirements: TREQ,
            port_id: self.port_id.into(),
            controller_id: CONTROLLER_ANY.into(),
            admin_queue_size: ADMIN_QUEUE_ENTRIES_MAX.into(),
            flags: (if self.kind == Kind::Current { EFLAGS_PERSISTENT } else { 0 }).into(),
            service: [b' '; 32],
            address: [b' '; 256],
            ..DiscoveryRecord::new_zeroed()
        };
        let address = match self.address.ip() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => v6.to_string(),
        };
        put(&mut entry.service, &self.address.port().to_string());
        put(&mut entry.address, &address);
        put(&mut entry.nqn, self.nqn);
        entry
    }
}

/// Puts text at the front of a field, cut to leave at least one byte of padding.
fn put(field: &mut [u8], text: &str) {
    let len = text.len().min(field.len() - 1);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
}
