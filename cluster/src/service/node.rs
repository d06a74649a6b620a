//! What the control plane needs from the node it controls.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{LiveStorage, Storage};
use crate::api::{IoCountersView, Phase};
use crate::state::{Action, Event, Name, Refusal, State, VolumeId};

/// A boxed future that may be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A controller that a host has created, as a target knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveController {
    /// Controller id (CNTLID).
    pub controller_id: u16,
    /// NQN the host gave at Connect.
    pub host_nqn: String,
    /// Number of I/O queues.
    pub io_queues: u32,
    /// Milliseconds since Connect.
    pub age_ms: u64,
}

/// A session that a host has, as the iSCSI target knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSession {
    /// Target session identifying handle (TSIH).
    pub tsih: u16,
    /// Initiator session identifier (ISID).
    pub isid: [u8; 6],
    /// iSCSI name the host gave, in lower case.
    pub initiator: String,
    /// Tag of the portal group it logged in at.
    pub portal: u16,
    /// Milliseconds since it logged in.
    pub age_ms: u64,
}

/// What goes on in one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveTarget {
    /// Transport connections of hosts.
    pub connections: u64,
    /// Controllers of hosts.
    pub controllers: Vec<LiveController>,
    /// Where it is reached over NVMe/TCP.
    pub nvme_addresses: Vec<SocketAddr>,
    /// Sessions of hosts.
    pub sessions: Vec<LiveSession>,
    /// Where it is reached over iSCSI.
    pub iscsi_addresses: Vec<SocketAddr>,
}

/// What goes on in a node, gathered when somebody asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Milliseconds since the node was started.
    pub uptime_ms: u64,
    /// Number of reactors.
    pub reactors: u32,
    /// Addresses that NVMe/TCP listens on.
    pub nvme_listen: Vec<SocketAddr>,
    /// Addresses that iSCSI listens on.
    pub iscsi_listen: Vec<SocketAddr>,
    /// All transport connections, those to discovery and those before Connect or login included.
    pub connections: u64,
    /// All controllers, discovery controllers included.
    pub controllers: u64,
    /// All iSCSI sessions, discovery sessions included.
    pub sessions: u64,
    /// By target. A target that is missing has no hosts.
    pub targets: BTreeMap<Name, LiveTarget>,
    /// What hosts did, by volume. A volume that is missing is not served.
    pub io: BTreeMap<VolumeId, IoCountersView>,
    /// Why a volume cannot be served, by volume.
    pub faults: BTreeMap<VolumeId, String>,
    /// What goes on in the storage engine.
    pub storage: LiveStorage,
    /// What else needs attention, one sentence each.
    pub attention: Vec<String>,
}

/// The node: devices, reactors, targets. Implemented by the binary.
///
/// `prepare`, `changed` and `abandoned` are called by one task, one after the other, never at once.
pub trait Node: Send + Sync + 'static {
    /// Makes sure that `action` can be carried out, and fills in what only the node knows.
    ///
    /// For a new image: opens it, sets its path to the canonical one, its size and block size to those
    /// asked for if they fit and to the image's own if none were, and `read_only` if it cannot be
    /// written. For a resize: makes a growing image grow; a shrinking one must keep its data until
    /// `changed`. What the storage engine does for an action is asked of [`Node::storage`] instead, after this.
    /// `state` is the state before the action. If this refuses, nothing follows. Otherwise
    /// the action may still be refused by the state machine or fail to be stored; then `abandoned`
    /// follows, else `changed`. Never called for [`Action::SetReservation`], which is carried out while
    /// any of these three is waiting.
    fn prepare<'a>(
        &'a self,
        state: &'a Arc<State>,
        action: &'a mut Action,
    ) -> BoxFuture<'a, Result<(), Refusal>>;

    /// A prepared action will not be carried out: whatever was opened for it can be closed.
    fn abandoned<'a>(&'a self, action: &'a Action) -> BoxFuture<'a, ()>;

    /// `state` is durable and now in force; `events` say how it differs from the one before.
    ///
    /// The caller is answered after this returns, so a client that is told of a new volume can
    /// connect to it. It cannot fail: what goes wrong shows as a fault in [`Live`]. It may wait for
    /// hosts' commands to end: reservations that those may be waiting for are saved meanwhile.
    fn changed<'a>(&'a self, state: &'a Arc<State>, events: &'a [Event]) -> BoxFuture<'a, ()>;

    /// The storage engine.
    fn storage(&self) -> &dyn Storage;

    /// What goes on now.
    fn live<'a>(&'a self, state: &'a Arc<State>) -> BoxFuture<'a, Live>;

    /// Where the node is in its life. `/readyz` and the refusal of changes follow it. Must not block.
    fn phase(&self) -> Phase;

    /// Metrics in the text format that `/metrics` serves; [`crate::metrics::render`] makes it from a
    /// registry. Must not block.
    fn metrics(&self) -> String;
}
