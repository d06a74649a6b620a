//! The configuration as the target sees it: an immutable snapshot, replaced whole when something changes.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use ashlar_env::units::VolumeId;
use ashlar_env::volume::VolumeInfo;

/// The name of the discovery subsystem on every target.
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// All subsystems of this node, by NQN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The subsystems.
    pub subsystems: BTreeMap<String, Subsystem>,
    /// Where this node listens for I/O, as hosts reach it. Discovery is answered at every port.
    pub ports: Vec<Port>,
    /// Other discovery services that the discovery log refers to.
    pub referrals: Vec<SocketAddr>,
}

impl Targets {
    /// Whether a host that connected to `local` may do I/O there: at one of the ports. What else the node may listen
    /// at is for discovery only.
    #[must_use]
    pub fn serve_io_at(&self, local: SocketAddr) -> bool {
        let local = canonical(local);
        self.ports.iter().any(|port| covers(port.listen, local))
    }
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port's number in discovery records and Identify (PORTID), unique in the node.
    pub id: u16,
    /// The address bound; unspecified (0.0.0.0) where it is all of them.
    pub listen: SocketAddr,
    /// The address to tell hosts instead of the one they connected to.
    pub advertise: Option<SocketAddr>,
}

/// One subsystem: what interface and documents call a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsystem {
    /// Its serial number: at most 20 printable ASCII characters.
    pub serial: String,
    /// Who may connect.
    pub access: Access,
    /// Where hosts may connect, among the node's ports; an unspecified address is any with that port. Empty means
    /// wherever the node listens.
    pub listen: BTreeSet<SocketAddr>,
    /// The namespaces, by NSID (from 1).
    pub namespaces: BTreeMap<u32, Namespace>,
    /// The ANA groups, by ANAGRPID (from 1).
    pub ana_groups: BTreeMap<u32, AnaState>,
}

impl Subsystem {
    /// Whether a host that connected to `local` may connect to this subsystem.
    #[must_use]
    pub fn is_reached_at(&self, local: SocketAddr) -> bool {
        let local = canonical(local);
        let is_it = |address: &SocketAddr| covers(*address, local);
        self.listen.is_empty() || self.listen.iter().any(is_it)
    }

    /// The addresses at which a port that is bound to `bound` serves this subsystem, as [`addresses_on`] has it.
    pub fn addresses_on(&self, bound: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        addresses_on(&self.listen, bound)
    }
}

/// Where a port that is bound to `bound` serves a subsystem that is to be reached at `listen`: at the port's own
/// address, or at those of the subsystem that lie on it.
pub fn addresses_on(listen: &BTreeSet<SocketAddr>, bound: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let whole = listen.is_empty() || listen.iter().any(|address| covers(*address, bound));
    let own = listen.iter().copied().filter(move |address| !whole && covers(bound, *address));
    whole.then_some(bound).into_iter().chain(own)
}

/// An IPv4 address in IPv6's clothes as what it is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether `address` is `listen` or, where that is unspecified, one of its family on its port; `::` takes both.
fn covers(listen: SocketAddr, address: SocketAddr) -> bool {
    let family = listen.is_ipv6() || address.is_ipv4();
    listen.port() == address.port()
        && (canonical(listen).ip() == canonical(address).ip() || listen.ip().is_unspecified() && family)
}

/// Who may connect to a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// any host
    AnyHost,
    /// the hosts with these NQNs
    Hosts(BTreeSet<String>),
}

impl Access {
    /// Whether the host of this NQN may connect.
    #[must_use]
    pub fn allows(&self, host_nqn: &str) -> bool {
        match self {
            Self::AnyHost => true,
            Self::Hosts(hosts) => hosts.contains(host_nqn),
        }
    }
}

/// One namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The volume behind it and its present geometry. The UUID and NGUID that hosts see derive from the id.
    pub volume: VolumeInfo,
    /// Its ANA group.
    pub ana_group: u32,
}

impl Namespace {
    /// The namespace's UUID: the volume's id.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        let VolumeId(uuid) = self.volume.id;
        *uuid.as_bytes()
    }

    /// The namespace's NGUID (Base, section 4.5.1): the volume's id with its bits as an identifier of 16 bytes.
    #[must_use]
    pub fn nguid(&self) -> [u8; 16] {
        self.uuid()
    }
}

/// Asymmetric namespace access states, with the codes of the ANA log page (Base, section 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AnaState {
    /// served here, the best path
    Optimized = 0x1,
    /// served here, at a cost
    NonOptimized = 0x2,
    /// not served here now
    Inaccessible = 0x3,
    /// never served here again
    PersistentLoss = 0x4,
    /// about to change
    Change = 0xF,
}
