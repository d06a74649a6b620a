//! The control state as a pure state machine.
//!
//! [`State::apply`] turns a state and a [`Command`] into the next state and the [`Event`]s that say
//! what changed, or into a [`Refusal`] and the very same state. There is no clock, no randomness, no
//! I/O and no unordered map in here, so equal commands in equal order give equal states on every
//! machine; [`State::hash`] shows it.

mod apply;
mod chap;
mod check;
mod check_storage;
mod command;
mod device;
mod event;
mod group;
mod hex;
mod host;
mod lane;
mod model;
mod name;
mod operation;
mod refusal;
mod snapshot;
mod snapshot_name;
mod target;
mod volume;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::VERSION_1;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use chap::{
    CHAP_SECRET_CHARS_MAX, CHAP_SECRET_CHARS_MIN, CHAP_SECRET_CHARS_USUAL_MAX, Chap, ChapSecret,
    ChapSecretError,
};
pub use command::{Action, Command, NewClone, NewDevice, NewHost, NewTarget, NewVolume};
pub use device::{DEVICE_BYTES_MIN, DEVICES_MAX, Device, DeviceState, FAILURE_BYTES_MAX};
pub use event::Event;
pub use group::{COPIES_MAX, Compression, Group, GroupId, Policy};
pub use lane::{LANE_SEALS_MAX, LaneNote, LaneRecord, LaneSeal};
pub use model::{
    Access, AnaState, Backing, FORMAT_VERSION, FORMAT_VERSION_MIN, HOSTS_MAX, Host, IMAGE_PATH_BYTES_MAX,
    LISTEN_PER_TARGET_MAX, NAMESPACES_PER_TARGET_MAX, NodeIdentity, RESERVATION_BYTES_MAX, Reservation,
    SERIAL_CHARS, TARGETS_MAX, Target, VOLUME_BYTES_MAX, VOLUMES_MAX, Volume, VolumeId,
};
pub use name::{
    DISCOVERY_NQN, IQN_BYTES_MAX, IQN_PREFIX, Iqn, NAME_CHARS_MAX, NQN_BYTES_MAX, NQN_PREFIX, Name,
    NameError, Nqn, VolumeName,
};
pub use operation::{OPERATIONS_ENDED_MAX, Operation, OperationKind};
pub use refusal::{Reason, Refusal, RefusalKind};
pub use snapshot::{Origin, SNAPSHOTS_PER_GROUP_MAX, Snapshot, in_group};
pub use snapshot_name::{SnapshotName, SnapshotVolumeName};
pub use volume::no_device;

/// SHA-256 over the canonical serialized form of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateHash(pub [u8; 32]);

impl std::fmt::Display for StateHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// Everything a node or cluster knows about itself apart from data.
///
/// The maps can be read; they change through [`State::apply`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format_version: u32,
    applied: u64,
    node: Option<NodeIdentity>,
    volumes: BTreeMap<VolumeId, Volume>,
    groups: BTreeMap<Name, Group>,
    targets: BTreeMap<Name, Target>,
    hosts: BTreeMap<Name, Host>,
    discovery_generation: u64,
    #[serde(default)]
    devices: BTreeMap<Uuid, Device>,
    #[serde(default)]
    operations: BTreeMap<u64, Operation>,
    /// The number of the operation that began last.
    #[serde(default)]
    last_operation: u64,
    /// What the engine must know of its logs whatever device is away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lanes: BTreeMap<GroupId, BTreeMap<u16, LaneRecord>>,
    /// Derived from `volumes`.
    #[serde(skip)]
    volume_names: BTreeMap<VolumeName, VolumeId>,
}

impl Default for State {
    fn default() -> Self {
        State {
            format_version: FORMAT_VERSION,
            applied: 0,
            node: None,
            volumes: BTreeMap::new(),
            groups: BTreeMap::new(),
            targets: BTreeMap::new(),
            hosts: BTreeMap::new(),
            discovery_generation: 0,
            devices: BTreeMap::new(),
            operations: BTreeMap::new(),
            last_operation: 0,
            lanes: BTreeMap::new(),
            volume_names: BTreeMap::new(),
        }
    }
}

/// Why serialized bytes are no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It was written by another release.
    #[error(
        "it has format version {found}, and this release reads versions {FORMAT_VERSION_MIN} to {FORMAT_VERSION}"
    )]
    Version {
        /// The version found.
        found: u64,
    },
    /// The bytes are damaged or were never a state.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// It can be read but contradicts itself.
    #[error("it contradicts itself: {0}")]
    Inconsistent(String),
}

impl State {
    /// Number of commands that led to this state.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// This node's identity, once given.
    pub fn node(&self) -> Option<&NodeIdentity> {
        self.node.as_ref()
    }

    /// Volumes by identity.
    pub fn volumes(&self) -> &BTreeMap<VolumeId, Volume> {
        &self.volumes
    }

    /// Identities of volumes by name, in the order of names.
    pub fn volume_names(&self) -> &BTreeMap<VolumeName, VolumeId> {
        &self.volume_names
    }

    /// The volume of this name.
    pub fn volume(&self, name: &VolumeName) -> Option<&Volume> {
        self.volumes.get(self.volume_names.get(name)?)
    }

    /// Volume groups by name.
    pub fn groups(&self) -> &BTreeMap<Name, Group> {
        &self.groups
    }

    /// Targets by name.
    pub fn targets(&self) -> &BTreeMap<Name, Target> {
        &self.targets
    }

    /// Hosts by name.
    pub fn hosts(&self) -> &BTreeMap<Name, Host> {
        &self.hosts
    }

    /// Devices by identity.
    pub fn devices(&self) -> &BTreeMap<Uuid, Device> {
        &self.devices
    }

    /// Operations that run, and those that ended last, by number.
    pub fn operations(&self) -> &BTreeMap<u64, Operation> {
        &self.operations
    }

    /// Generation counter of the discovery log: grows whenever what a host would be told may differ.
    pub fn discovery_generation(&self) -> u64 {
        self.discovery_generation
    }

    /// The hosts that `target` lists.
    pub fn hosts_of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a Host> {
        target.access.hosts.iter().map(|name| &self.hosts[name])
    }

    /// Whether a host with this NQN may connect to `target`.
    pub fn may_connect(&self, target: &Target, host_nqn: &str) -> bool {
        let listed = |host: &Host| host.nqn.as_ref().is_some_and(|nqn| nqn.as_str() == host_nqn);
        target.access.any_host || self.hosts_of(target).any(listed)
    }

    /// Whether an initiator of this name, in lower case, may log in to `target`.
    pub fn may_log_in(&self, target: &Target, iqn: &str) -> bool {
        let listed = |host: &Host| host.iqn.as_ref().is_some_and(|own| own.as_str() == iqn);
        target.access.any_host || self.hosts_of(target).any(listed)
    }

    /// Targets and namespace ids through which `volume` is exported.
    pub fn attachments(&self, volume: VolumeId) -> Vec<(&Name, u32)> {
        self.targets.values().filter_map(|target| Some((&target.name, target.nsid_of(volume)?))).collect()
    }

    /// The canonical serialized form: JSON with fields and keys in one fixed order.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the state has string keys and no fallible values")
    }

    /// Reads what [`State::encode`] wrote, and checks every invariant. A state of an earlier version is brought up to
    /// date.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let malformed = |e: serde_json::Error| DecodeError::Malformed(e.to_string());
        let format_version = version_of(bytes).map_err(malformed)?;
        if !(u64::from(FORMAT_VERSION_MIN)..=u64::from(FORMAT_VERSION)).contains(&format_version) {
            return Err(DecodeError::Version { found: format_version });
        }
        let mut state: State = serde_json::from_slice(bytes).map_err(malformed)?;
        state.volume_names = state.volumes.values().map(|volume| (volume.name.clone(), volume.id)).collect();
        if format_version == 1 {
            state.identify_groups();
            state.format_version = FORMAT_VERSION;
        }
        state.check().map_err(DecodeError::Inconsistent)?;
        Ok(state)
    }

    /// Whether `bytes`, which can be decoded, are of an earlier version.
    pub fn is_outdated(bytes: &[u8]) -> bool {
        version_of(bytes).is_ok_and(|version| version < u64::from(FORMAT_VERSION))
    }

    /// A hash that is equal for equal states on every machine and in every process.
    pub fn hash(&self) -> StateHash {
        StateHash(Sha256::digest(self.encode()).into())
    }
}

/// The version of a serialized state, whatever else it holds.
fn version_of(bytes: &[u8]) -> serde_json::Result<u64> {
    #[derive(Deserialize)]
    struct Versioned {
        format_version: u64,
    }
    serde_json::from_slice::<Versioned>(bytes).map(|versioned| versioned.format_version)
}
