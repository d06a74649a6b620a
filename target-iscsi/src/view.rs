//! The configuration as the target sees it: an immutable snapshot, replaced whole when something changes.

use core::fmt;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use ashlar_env::volume::VolumeInfo;

/// All iSCSI targets of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The targets, by iSCSI name in lower case (names compare without regard to case: RFC 7143, section 4.2.7).
    pub targets: BTreeMap<String, Target>,
    /// Where this node listens, as initiators reach it.
    pub portals: Vec<Portal>,
}

impl Targets {
    /// The portal that an initiator reached which connected to `local`.
    #[must_use]
    pub fn portal_at(&self, local: SocketAddr) -> Option<&Portal> {
        let local = canonical(local);
        self.portals.iter().find(|portal| covers(portal.listen, local))
    }

    /// The target of this name, however it is written, with the name in lower case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(&str, &Target)> {
        let found = self.targets.get_key_value(&name.to_lowercase());
        found.map(|(name, target)| (name.as_str(), target))
    }
}

/// One network portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Its portal group tag (TPGT), 1 to 65535; one for each portal, because sessions do not span portals. It is the
    /// relative target port identifier in SCSI, too, so it must be unique among all nodes that serve the target.
    pub tag: u16,
    /// The address bound; unspecified (0.0.0.0) where it is all of them.
    pub listen: SocketAddr,
    /// The address to tell initiators instead of the one they connected to.
    pub advertise: Option<SocketAddr>,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its iSCSI name as it was given.
    pub name: String,
    /// What people call it (TargetAlias): printable ASCII.
    pub alias: String,
    /// Who may log in.
    pub access: Access,
    /// Where initiators may log in, among the portals; an unspecified address is any with that port. Empty means at
    /// all portals.
    pub listen: BTreeSet<SocketAddr>,
    /// The logical units, by LUN, from 1; at most 16383.
    pub units: BTreeMap<u16, Unit>,
    /// The target port groups (ALUA), by number, from 1.
    pub port_groups: BTreeMap<u16, AluaState>,
}

impl Target {
    /// Whether an initiator that connected to `local` may log in to this target there.
    #[must_use]
    pub fn is_reached_at(&self, local: SocketAddr) -> bool {
        let local = canonical(local);
        self.listen.is_empty() || self.listen.iter().any(|address| covers(*address, local))
    }
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

/// One logical unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The volume behind it and its present geometry. What hosts know the unit by derives from the id.
    pub volume: VolumeInfo,
    /// What people call the volume: for the serial number's neighbours only, never for identity.
    pub name: String,
    /// Its target port group.
    pub port_group: u16,
}

/// Who may log in to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// any initiator, without authentication
    AnyHost,
    /// these, by initiator name in lower case
    Hosts(BTreeMap<String, Host>),
}

impl Access {
    /// What is asked of the initiator of this name, in lower case; `None` where it may not log in.
    #[must_use]
    pub fn of(&self, initiator: &str) -> Option<Host> {
        match self {
            Self::AnyHost => Some(Host::default()),
            Self::Hosts(hosts) => hosts.get(initiator).cloned(),
        }
    }
}

/// What is asked of an initiator that may log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// CHAP, where it is required: the initiator's name and secret.
    pub chap: Option<Credentials>,
    /// Mutual CHAP: the target's own name and secret towards this initiator.
    pub mutual: Option<Credentials>,
}

/// A CHAP name and its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// CHAP_N.
    pub user: String,
    /// The secret.
    pub secret: Secret,
}

/// A CHAP secret. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The secret of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes, for the digest alone.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Asymmetric access states, with their codes (SPC-4, section 6.37).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AluaState {
    /// served here, the best path
    #[default]
    Optimized = 0x0,
    /// served here, at a cost
    NonOptimized = 0x1,
    /// not served here now
    Unavailable = 0x3,
    /// about to change
    Transitioning = 0xF,
}
