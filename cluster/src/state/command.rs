//! What may be asked of the control state.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::chap::{Chap, ChapSecret};
use super::group::{Compression, GroupId};
use super::lane::LaneNote;
use super::model::{AnaState, Backing, VolumeId};
use super::name::{Iqn, Name, Nqn, VolumeName};
use super::snapshot_name::{SnapshotName, SnapshotVolumeName};

/// An action with the time it was asked at. It carries everything that is not in the state, so that
/// applying it twice to equal states gives equal states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Milliseconds since 1970 UTC.
    pub time_ms: u64,
    /// What to do.
    pub action: Action,
}

/// A volume to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVolume {
    /// Identity, drawn by whoever asks.
    pub id: VolumeId,
    /// Name; decides the group.
    pub name: VolumeName,
    /// What holds the data.
    pub backing: Backing,
    /// Size in bytes. May be left to the node for an image, which fills it in before the command is
    /// applied; `None` is refused.
    pub size_bytes: Option<u64>,
    /// Logical block size in bytes; left to the node like the size.
    pub block_size_bytes: Option<u32>,
    /// Whether hosts may only read. The node sets it for an image it may not write.
    pub read_only: bool,
    /// Compression of its group; by default the group's, or none. For log-structured volumes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// On how many devices its group keeps everything; by default as many as the group has, or one. For log-structured
    /// volumes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u8>,
}

/// A volume to be made from what a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewClone {
    /// Identity, drawn by whoever asks.
    pub id: VolumeId,
    /// What is cloned.
    pub from: SnapshotVolumeName,
    /// Name; in the group of the snapshot.
    pub name: VolumeName,
}

/// A disk to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// Identity, drawn by whoever asks.
    pub id: Uuid,
    /// Absolute path of a block device or a file. The node makes it canonical before the command is applied.
    pub path: String,
    /// Size in bytes. The node fills in that of a disk, or of a file that is there; a file that is not there is
    /// made in this size. `None` is refused.
    pub size_bytes: Option<u64>,
    /// Whether what the disk holds may be overwritten. Only the node looks at it.
    #[serde(default)]
    pub force: bool,
}

/// A target to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTarget {
    /// Identity, drawn by whoever asks. The serial number is made from it.
    pub id: Uuid,
    /// Name.
    pub name: Name,
    /// Subsystem NQN; by default `nqn.2026-11.io.ashlar:NAME`.
    pub nqn: Option<Nqn>,
    /// iSCSI target name; by default `iqn.2026-11.io.ashlar:NAME`.
    pub iqn: Option<Iqn>,
    /// Where it may be reached; empty means every address the node listens on.
    pub listen: BTreeSet<SocketAddr>,
    /// Whether every host may connect.
    pub any_host: bool,
}

/// A host to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewHost {
    /// Identity, drawn by whoever asks.
    pub id: Uuid,
    /// Name.
    pub name: Name,
    /// NVMe host NQN.
    pub nqn: Option<Nqn>,
    /// iSCSI initiator name.
    pub iqn: Option<Iqn>,
    /// What is asked of it when it logs in over iSCSI; the secrets are drawn by whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<Chap>,
}

/// One change of the control state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Add a disk.
    AddDevice(NewDevice),
    /// Let a host connect to a target.
    AllowHost {
        /// The target.
        target: Name,
        /// The host.
        host: Name,
    },
    /// Export a volume through a target.
    AttachVolume {
        /// The target.
        target: Name,
        /// The volume.
        volume: VolumeName,
        /// Namespace id and LUN, from 1; by default the lowest free one.
        nsid: Option<u32>,
    },
    /// Ask a host for no CHAP any more.
    ClearChap {
        /// The host.
        host: Name,
    },
    /// Make a volume from what a snapshot holds.
    CloneVolume(NewClone),
    /// Add a host.
    CreateHost(NewHost),
    /// Cut a group: all its volumes as they are at one moment.
    CreateSnapshot {
        /// The group, and the snapshot's name.
        snapshot: SnapshotName,
        /// The sequence number that the engine gave it. The node fills it in before the command is applied; `None`
        /// is refused.
        id: Option<u64>,
    },
    /// Create a target.
    CreateTarget(NewTarget),
    /// Create a volume.
    CreateVolume(NewVolume),
    /// Remove a host that no target allows.
    DeleteHost {
        /// The host.
        host: Name,
    },
    /// Delete a snapshot that no volume was cloned from.
    DeleteSnapshot {
        /// The snapshot.
        snapshot: SnapshotName,
    },
    /// Delete a target.
    DeleteTarget {
        /// The target.
        target: Name,
        /// Whether to detach its volumes first instead of refusing.
        force: bool,
    },
    /// Delete a volume that is not attached.
    DeleteVolume {
        /// The volume.
        volume: VolumeName,
    },
    /// No longer let a host connect to a target.
    DenyHost {
        /// The target.
        target: Name,
        /// The host.
        host: Name,
    },
    /// No longer export a volume through a target.
    DetachVolume {
        /// The target.
        target: Name,
        /// The volume.
        volume: VolumeName,
    },
    /// Begin to move what a device holds to others.
    DrainDevice {
        /// The device.
        device: Uuid,
    },
    /// A device has failed: nothing more is written to it. The node says so.
    FailDevice {
        /// The device.
        device: Uuid,
        /// Why, for people.
        why: String,
    },
    /// An operation has ended. The node says so.
    FinishOperation {
        /// Its number.
        operation: u64,
        /// Why it did not do what it was to do, if so.
        failure: Option<String>,
    },
    /// Give the node its identity, once.
    InitNode {
        /// Identity, drawn by whoever asks.
        id: Uuid,
        /// Name.
        name: Name,
    },
    /// Keep what the storage engine has to know of a lane. The node says so.
    NoteLane {
        /// The group.
        group: GroupId,
        /// The lane's number in it.
        lane: u16,
        /// What.
        note: LaneNote,
    },
    /// Begin to make copies that are missing. The node says so.
    RebuildCopies,
    /// Forget a device that is empty; or, with `force`, one that failed, and with it what is nowhere else.
    RemoveDevice {
        /// The device.
        device: Uuid,
        /// Whether data may be given up.
        force: bool,
    },
    /// Rename the node.
    RenameNode {
        /// The new name.
        name: Name,
    },
    /// Rename a volume within its group; one that is alone in a group of its own name takes the group
    /// along.
    RenameVolume {
        /// The volume.
        volume: VolumeName,
        /// Its new name.
        to: VolumeName,
    },
    /// Change a volume's size.
    ResizeVolume {
        /// The volume.
        volume: VolumeName,
        /// New size in bytes.
        size_bytes: u64,
        /// Whether it may become smaller, which loses what is beyond the new end.
        allow_shrink: bool,
    },
    /// Put the volumes of a group's latest snapshot back to what it holds.
    RestoreSnapshot {
        /// The snapshot.
        snapshot: SnapshotName,
        /// Whether volumes may be attached.
        force: bool,
    },
    /// Set the ANA state of a volume group in a target.
    SetAnaState {
        /// The target.
        target: Name,
        /// A group with a volume attached to the target.
        group: Name,
        /// The new state.
        state: AnaState,
    },
    /// Let every host connect to a target, or only the listed ones.
    SetAnyHost {
        /// The target.
        target: Name,
        /// Whether every host may connect.
        any_host: bool,
    },
    /// Give a host CHAP secrets; what is left out stays.
    SetChap {
        /// The host.
        host: Name,
        /// What the host has to know from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret: Option<ChapSecret>,
        /// What the target has to know from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mutual: Option<ChapSecret>,
    },
    /// Change what a group's storage is to be like; what is left out stays.
    SetGroupPolicy {
        /// The group.
        group: Name,
        /// How blocks are compressed from now on.
        compression: Option<Compression>,
    },
    /// Change where a target may be reached.
    SetListen {
        /// The target.
        target: Name,
        /// The addresses; empty means every address the node listens on.
        listen: BTreeSet<SocketAddr>,
    },
    /// Save a volume's persistent reservation state.
    SetReservation {
        /// The volume.
        volume: VolumeId,
        /// From 1. Must be larger than the saved one; equal is accepted when the blob is equal, too.
        generation: u64,
        /// The target's encoding.
        #[serde(with = "super::hex")]
        blob: Vec<u8>,
    },
}

impl Action {
    /// What is asked, as a person would say it; the `what` of a refusal.
    pub fn describe(&self) -> String {
        match self {
            Action::AddDevice(new) => format!("add device {}", new.path),
            Action::AllowHost { target, host } => format!("allow host {host} on target {target}"),
            Action::AttachVolume { target, volume, .. } => {
                format!("attach volume {volume} to target {target}")
            }
            Action::ClearChap { host } => format!("turn CHAP off for host {host}"),
            Action::CloneVolume(new) => format!("clone {} to volume {}", new.from, new.name),
            Action::CreateHost(new) => format!("add host {}", new.name),
            Action::CreateSnapshot { snapshot, .. } => format!("create snapshot {snapshot}"),
            Action::CreateTarget(new) => format!("create target {}", new.name),
            Action::CreateVolume(new) => format!("create volume {}", new.name),
            Action::DeleteHost { host } => format!("remove host {host}"),
            Action::DeleteSnapshot { snapshot } => format!("delete snapshot {snapshot}"),
            Action::DeleteTarget { target, .. } => format!("delete target {target}"),
            Action::DeleteVolume { volume } => format!("delete volume {volume}"),
            Action::DenyHost { target, host } => format!("deny host {host} on target {target}"),
            Action::DetachVolume { target, volume } => format!("detach volume {volume} from target {target}"),
            Action::DrainDevice { device } => format!("drain device {device}"),
            Action::FailDevice { device, .. } => format!("mark device {device} as failed"),
            Action::FinishOperation { operation, .. } => format!("end operation {operation}"),
            Action::InitNode { name, .. } => format!("initialise node {name}"),
            Action::NoteLane { group, .. } => format!("keep the state of the log of group {:016x}", group.0),
            Action::RebuildCopies => "make the copies that are missing".to_owned(),
            Action::RemoveDevice { device, .. } => format!("remove device {device}"),
            Action::RenameNode { name } => format!("rename the node to {name}"),
            Action::RenameVolume { volume, to } => format!("rename volume {volume} to {to}"),
            Action::ResizeVolume { volume, size_bytes, .. } => {
                format!("resize volume {volume} to {size_bytes} bytes")
            }
            Action::RestoreSnapshot { snapshot, .. } => format!("restore snapshot {snapshot}"),
            Action::SetAnaState { target, group, state } => {
                format!("set group {group} of target {target} to {}", state.as_str())
            }
            Action::SetAnyHost { target, any_host: true } => format!("allow any host on target {target}"),
            Action::SetAnyHost { target, any_host: false } => {
                format!("allow only listed hosts on target {target}")
            }
            Action::SetChap { host, .. } => format!("give host {host} CHAP secrets"),
            Action::SetGroupPolicy { group, .. } => format!("change group {group}"),
            Action::SetListen { target, .. } => format!("change where target {target} listens"),
            Action::SetReservation { volume, .. } => format!("save the reservation state of volume {volume}"),
        }
    }

    /// A short word for logs and metrics; one per variant.
    pub fn label(&self) -> &'static str {
        match self {
            Action::AddDevice(_) => "add_device",
            Action::AllowHost { .. } => "allow_host",
            Action::AttachVolume { .. } => "attach_volume",
            Action::ClearChap { .. } => "clear_chap",
            Action::CloneVolume(_) => "clone_volume",
            Action::CreateHost(_) => "create_host",
            Action::CreateSnapshot { .. } => "create_snapshot",
            Action::CreateTarget(_) => "create_target",
            Action::CreateVolume(_) => "create_volume",
            Action::DeleteHost { .. } => "delete_host",
            Action::DeleteSnapshot { .. } => "delete_snapshot",
            Action::DeleteTarget { .. } => "delete_target",
            Action::DeleteVolume { .. } => "delete_volume",
            Action::DenyHost { .. } => "deny_host",
            Action::DetachVolume { .. } => "detach_volume",
            Action::DrainDevice { .. } => "drain_device",
            Action::FailDevice { .. } => "fail_device",
            Action::FinishOperation { .. } => "finish_operation",
            Action::InitNode { .. } => "init_node",
            Action::NoteLane { .. } => "note_lane",
            Action::RebuildCopies => "rebuild_copies",
            Action::RemoveDevice { .. } => "remove_device",
            Action::RenameNode { .. } => "rename_node",
            Action::RenameVolume { .. } => "rename_volume",
            Action::ResizeVolume { .. } => "resize_volume",
            Action::RestoreSnapshot { .. } => "restore_snapshot",
            Action::SetAnaState { .. } => "set_ana_state",
            Action::SetAnyHost { .. } => "set_any_host",
            Action::SetChap { .. } => "set_chap",
            Action::SetGroupPolicy { .. } => "set_group_policy",
            Action::SetListen { .. } => "set_listen",
            Action::SetReservation { .. } => "set_reservation",
        }
    }
}
