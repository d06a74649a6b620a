//! Bodies of replies.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::SpaceView;
use crate::state::{AnaState, Backing, Refusal};

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is opening what it had and takes no changes yet.
    Starting,
    /// It serves.
    Ready,
    /// It was told to stop and finishes what is in flight.
    Draining,
}

impl Phase {
    /// The phase as it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        }
    }
}

/// Health in one look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// The node that answers.
    pub node: NodeView,
    /// How many objects there are.
    pub counts: CountsView,
    /// Sum over all volumes.
    pub capacity: CapacityView,
    /// What needs attention, one sentence each; empty when all is well.
    pub attention: Vec<String>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Identity.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Release it runs.
    pub version: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Milliseconds since it was started.
    pub uptime_ms: u64,
    /// When it was first started, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// Number of reactors.
    pub reactors: u32,
    /// Addresses that NVMe/TCP listens on.
    #[schema(value_type = Vec<String>)]
    pub nvme_listen: Vec<SocketAddr>,
    /// Addresses that iSCSI listens on.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub iscsi_listen: Vec<SocketAddr>,
    /// Number of changes of the control state so far.
    pub changes: u64,
    /// SHA-256 of the control state, in hexadecimal; equal on nodes that agree.
    pub state_hash: String,
}

/// How many objects there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CountsView {
    /// Volumes.
    pub volumes: u64,
    /// Snapshots.
    #[serde(default)]
    pub snapshots: u64,
    /// Devices.
    #[serde(default)]
    pub devices: u64,
    /// Targets.
    pub targets: u64,
    /// Hosts.
    pub hosts: u64,
    /// Transport connections of hosts.
    pub connections: u64,
    /// Controllers (NVMe) of hosts, discovery controllers included.
    pub controllers: u64,
    /// Sessions (iSCSI) of hosts, discovery sessions included.
    #[serde(default)]
    pub sessions: u64,
}

/// Space.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapacityView {
    /// Bytes that hosts are promised: the sum of all volumes' sizes.
    pub provisioned_bytes: u64,
    /// Bytes of all devices that take data.
    #[serde(default)]
    pub device_bytes: u64,
    /// Bytes of them that are taken; null where not known.
    #[serde(default)]
    pub used_bytes: Option<u64>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Identity; stays when the volume is renamed.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// The volume group it belongs to.
    pub group: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical block size in bytes.
    pub block_size_bytes: u32,
    /// What holds the data.
    pub backing: Backing,
    /// Whether hosts may only read.
    pub read_only: bool,
    /// When it was created, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// The snapshot it was cloned from, `group@snapshot`; absent when it is no clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Number of snapshots that hold it.
    #[serde(default)]
    pub snapshots: u64,
    /// Space it takes.
    #[serde(default)]
    pub space: SpaceView,
    /// Where it is attached.
    pub attached: Vec<AttachmentView>,
    /// What hosts did to it since the node started; absent while the node does not serve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<IoCountersView>,
    /// Why the node cannot serve it; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// One place where a volume is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttachmentView {
    /// Name of the target.
    pub target: String,
    /// Namespace id and LUN.
    pub nsid: u32,
}

/// What hosts did to a volume since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IoCountersView {
    /// Commands that read.
    pub reads: u64,
    /// Commands that wrote.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flush commands.
    pub flushes: u64,
    /// Commands that deallocated or wrote zeroes.
    pub deallocates: u64,
    /// Commands that failed.
    pub errors: u64,
}

/// All volumes, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeList {
    /// The volumes.
    pub volumes: Vec<VolumeView>,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetView {
    /// Identity.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Subsystem NQN.
    pub nqn: String,
    /// iSCSI target name.
    pub iqn: String,
    /// Serial number, 20 characters.
    pub serial: String,
    /// Attached volumes, by number.
    pub namespaces: Vec<NamespaceView>,
    /// Whether every host may connect.
    pub any_host: bool,
    /// Names of the hosts that may connect.
    pub hosts: Vec<String>,
    /// Where it may be reached, as configured; empty means every address the node listens on.
    #[schema(value_type = Vec<String>)]
    pub listen: Vec<SocketAddr>,
    /// Where it is reached on this node over NVMe/TCP.
    #[schema(value_type = Vec<String>)]
    pub nvme_addresses: Vec<SocketAddr>,
    /// Where it is reached on this node over iSCSI.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub iscsi_addresses: Vec<SocketAddr>,
    /// Volume groups with a volume attached, and the state of their paths.
    pub groups: Vec<GroupView>,
    /// When it was created, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// Number of transport connections of hosts.
    pub connections: u64,
    /// Controllers of hosts that are connected.
    pub controllers: Vec<ControllerView>,
    /// iSCSI sessions of hosts that are logged in.
    #[serde(default)]
    pub sessions: Vec<SessionView>,
}

/// A volume attached to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceView {
    /// Namespace id and LUN.
    pub nsid: u32,
    /// Name of the volume.
    pub volume: String,
    /// The volume's identity.
    pub volume_id: Uuid,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// A volume group as hosts see it through a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    /// Name of the group.
    pub group: String,
    /// ANA group id.
    pub ana_group_id: u32,
    /// State of the paths.
    pub state: AnaState,
}

/// A controller that a host has created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControllerView {
    /// Controller id (CNTLID).
    pub controller_id: u16,
    /// NQN the host gave.
    pub host_nqn: String,
    /// Name of the host, if it is a known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Number of I/O queues.
    pub io_queues: u32,
    /// Milliseconds since it was created.
    pub age_ms: u64,
}

/// An iSCSI session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// Target session identifying handle (TSIH).
    pub tsih: u16,
    /// Initiator session identifier (ISID), 12 hexadecimal digits.
    pub isid: String,
    /// iSCSI name the host gave.
    pub initiator: String,
    /// Name of the host, if it is a known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Tag of the portal group it logged in at.
    pub portal: u16,
    /// Milliseconds since it logged in.
    pub age_ms: u64,
}

/// All targets, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetList {
    /// The targets.
    pub targets: Vec<TargetView>,
}

/// How a host and a target prove to each other who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChapMode {
    /// Not at all.
    #[default]
    None,
    /// The host proves it.
    OneWay,
    /// Both prove it.
    Mutual,
}

impl ChapMode {
    /// The mode as it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ChapMode::None => "none",
            ChapMode::OneWay => "one-way",
            ChapMode::Mutual => "mutual",
        }
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// Identity.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// NVMe host NQN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nqn: Option<String>,
    /// iSCSI initiator name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iqn: Option<String>,
    /// Names of the targets that list it.
    pub targets: Vec<String>,
    /// Number of its controllers that are connected now.
    pub controllers: u64,
    /// What is asked of it when it logs in over iSCSI.
    #[serde(default)]
    pub chap: ChapMode,
    /// Number of its iSCSI sessions now.
    #[serde(default)]
    pub sessions: u64,
    /// When it was added, in milliseconds since 1970 UTC.
    pub created_ms: u64,
}

/// All hosts, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostList {
    /// The hosts.
    pub hosts: Vec<HostView>,
}

/// Body of every reply that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorView,
}

/// What was asked, why not, what was not lost, what to do next.
pub type ErrorView = Refusal;
