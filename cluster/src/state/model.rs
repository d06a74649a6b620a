//! The objects of the control state and the rules that always hold between them.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::chap::Chap;
use super::name::{Iqn, Name, Nqn, VolumeName};
use super::snapshot::Origin;

/// Version of the state's serialized form. A state of an unknown version is refused, never guessed at.
///
/// | Version | Change |
/// |---|---|
/// | 1 | first form |
/// | 2 | devices, operations; identity, policy and snapshots of groups; origin of volumes; CHAP of hosts |
///
/// Version 1 is read and brought up to date; an earlier release refuses version 2 by its number.
pub const FORMAT_VERSION: u32 = 2;
/// The oldest version that is read.
pub const FORMAT_VERSION_MIN: u32 = 1;

/// Most volumes of a cluster.
pub const VOLUMES_MAX: usize = 1_000_000;
/// Most targets of a cluster.
pub const TARGETS_MAX: usize = 10_000;
/// Most hosts of a cluster.
pub const HOSTS_MAX: usize = 100_000;
/// Most volumes attached to one target; also the largest namespace id and LUN.
pub const NAMESPACES_PER_TARGET_MAX: u32 = 1024;
/// Most listen addresses of one target.
pub const LISTEN_PER_TARGET_MAX: usize = 32;
/// Largest volume, in bytes: 1 EiB.
pub const VOLUME_BYTES_MAX: u64 = 1 << 60;
/// Largest saved reservation state of one volume, in bytes.
pub const RESERVATION_BYTES_MAX: usize = 256 * 1024;
/// Longest path of an image, in bytes (Linux `PATH_MAX`).
pub const IMAGE_PATH_BYTES_MAX: usize = 4096;
/// Characters of a target's serial number (NVMe Base Specification, Identify Controller, SN).
pub const SERIAL_CHARS: usize = 20;

/// Identity of a volume for as long as it exists, under whatever name. Namespace identifiers (NGUID,
/// EUI64, VPD page 83h) are derived from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(pub Uuid);

impl std::fmt::Display for VolumeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What holds a volume's data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Backing {
    /// An existing file or block device, served as it is.
    Image {
        /// Absolute path on the node, at most 4096 bytes.
        path: String,
    },
    /// The log-structured engine, on the node's devices: snapshots, clones, space that comes back.
    Log {
        /// Whether its whole size is reserved when it is made.
        #[serde(default)]
        thick: bool,
    },
    /// The node's memory: lost when the node stops. For tests and measurements.
    Memory,
    /// Nothing: writes are thrown away, reads return zeros. For measurements.
    Null,
}

impl Backing {
    /// Whether the data lies on the node's devices, in the log-structured engine.
    pub fn is_log(&self) -> bool {
        matches!(self, Backing::Log { .. })
    }
}

/// Whether and how a group's volumes can be reached through a path (NVMe Asymmetric Namespace
/// Access, SCSI ALUA).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum AnaState {
    /// The best path.
    #[default]
    Optimized,
    /// A path that works but costs more.
    NonOptimized,
    /// No I/O through this path for now.
    Inaccessible,
    /// No I/O through this path ever again.
    PersistentLoss,
    /// The state is about to change; the host asks again.
    Change,
}

impl AnaState {
    /// Every state, in the order of the specification's codes.
    pub const ALL: [AnaState; 5] = [
        AnaState::Optimized,
        AnaState::NonOptimized,
        AnaState::Inaccessible,
        AnaState::PersistentLoss,
        AnaState::Change,
    ];

    /// The state as it is written on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            AnaState::Optimized => "optimized",
            AnaState::NonOptimized => "non-optimized",
            AnaState::Inaccessible => "inaccessible",
            AnaState::PersistentLoss => "persistent-loss",
            AnaState::Change => "change",
        }
    }
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeIdentity {
    /// Never changes.
    pub id: Uuid,
    /// Name in the cluster.
    pub name: Name,
    /// When it was first started, in milliseconds since 1970 UTC.
    pub created_ms: u64,
}

/// The saved persistent reservation state of a volume, so that it survives a power loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// Counts up with each change, so that a late save cannot undo a later one.
    pub generation: u64,
    /// The target's own encoding; opaque here. At most [`RESERVATION_BYTES_MAX`].
    #[serde(with = "super::hex")]
    pub blob: Vec<u8>,
}

/// A virtual disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Identity.
    pub id: VolumeId,
    /// Current name.
    pub name: VolumeName,
    /// Size in bytes; a positive multiple of `block_size_bytes`.
    pub size_bytes: u64,
    /// Logical block size in bytes: 512 or 4096.
    pub block_size_bytes: u32,
    /// What holds its data.
    pub backing: Backing,
    /// Whether hosts may only read.
    pub read_only: bool,
    /// When it was created, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// Saved reservation state, once a host has registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Reservation>,
    /// What it was cloned from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

impl Volume {
    /// The volume group it belongs to.
    pub fn group(&self) -> Name {
        self.name.group()
    }
}

/// Which hosts may connect to a target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Whether every host may, listed or not.
    pub any_host: bool,
    /// Names of the hosts that may.
    pub hosts: BTreeSet<Name>,
}

/// What hosts connect to: one NVMe subsystem and one iSCSI target of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Identity.
    pub id: Uuid,
    /// Name.
    pub name: Name,
    /// Subsystem NQN.
    pub nqn: Nqn,
    /// iSCSI target name.
    pub iqn: Iqn,
    /// Serial number: exactly [`SERIAL_CHARS`] ASCII letters and digits.
    pub serial: String,
    /// Attached volumes by namespace id and LUN, from 1.
    pub namespaces: BTreeMap<u32, VolumeId>,
    /// Who may connect.
    pub access: Access,
    /// Where this target may be reached; empty means every address the node listens on.
    pub listen: BTreeSet<SocketAddr>,
    /// ANA state by volume group, where it is not [`AnaState::Optimized`].
    #[serde(default)]
    pub ana: BTreeMap<Name, AnaState>,
    /// When it was created, in milliseconds since 1970 UTC.
    pub created_ms: u64,
}

impl Target {
    /// The namespace id under which `volume` is attached.
    pub fn nsid_of(&self, volume: VolumeId) -> Option<u32> {
        self.namespaces.iter().find(|(_, id)| **id == volume).map(|(nsid, _)| *nsid)
    }

    /// The ANA state of `group` in this target.
    pub fn ana_state(&self, group: &Name) -> AnaState {
        self.ana.get(group).copied().unwrap_or_default()
    }
}

/// An initiator that may be allowed to connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Identity.
    pub id: Uuid,
    /// Name.
    pub name: Name,
    /// NVMe host NQN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nqn: Option<Nqn>,
    /// iSCSI initiator name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iqn: Option<Iqn>,
    /// What is asked of it when it logs in over iSCSI; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<Chap>,
    /// When it was added, in milliseconds since 1970 UTC.
    pub created_ms: u64,
}
