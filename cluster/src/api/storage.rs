//! Devices, groups, snapshots and operations: bodies of requests and replies.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::state::{Compression, DeviceState};

/// Space, in bytes; null where it is not known, as for volumes that are served as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SpaceView {
    /// What is written and not deallocated, as hosts see it.
    pub logical_bytes: Option<u64>,
    /// What of that is stored, after compression; without what is counted as shared.
    pub stored_bytes: Option<u64>,
    /// What is stored and held by snapshots or clones as well.
    pub shared_bytes: Option<u64>,
    /// What compression saved.
    pub compressed_bytes: Option<u64>,
    /// What stored data takes on devices: all copies, with headers and what compaction has yet to give back.
    pub physical_bytes: Option<u64>,
}

/// Space of a device, in bytes; null where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DeviceSpaceView {
    /// What is taken, compaction's debt included.
    pub used_bytes: Option<u64>,
    /// What can still be taken.
    pub free_bytes: Option<u64>,
}

/// A run of bytes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExtentView {
    /// Where it begins, in bytes.
    pub offset_bytes: u64,
    /// How long it is, in bytes.
    pub length_bytes: u64,
}

/// A disk to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDeviceRequest {
    /// Absolute path of a block device or a file.
    pub path: String,
    /// Size in bytes, for a file that is not there and is to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether what the disk holds may be overwritten.
    #[serde(default)]
    pub force: bool,
}

/// A disk of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceView {
    /// Identity; also stands on the disk itself.
    pub id: Uuid,
    /// Absolute path on the node.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What it is used for.
    pub state: DeviceState,
    /// When it was added, in milliseconds since 1970 UTC.
    pub added_ms: u64,
    /// Space on it.
    #[serde(default)]
    pub space: DeviceSpaceView,
    /// Why it failed, or cannot be used now; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The operation that moves what it holds, while it is being drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<u64>,
}

/// All devices, in the order of their paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceList {
    /// The devices.
    pub devices: Vec<DeviceView>,
}

/// A change of a group's policy; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateGroupRequest {
    /// How blocks are compressed from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

fn one() -> u8 {
    1
}

/// A volume group: what snapshots are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeGroupView {
    /// Name.
    pub name: String,
    /// ANA group id.
    pub ana_group_id: u32,
    /// How blocks are compressed.
    pub compression: Compression,
    /// On how many devices everything is kept.
    #[serde(default = "one")]
    pub copies: u8,
    /// Whether some of it is on fewer devices for now.
    #[serde(default)]
    pub degraded: bool,
    /// Names of its volumes.
    pub volumes: Vec<String>,
    /// Sum of its volumes' sizes, in bytes.
    pub size_bytes: u64,
    /// Number of its snapshots.
    pub snapshots: u64,
    /// Space of the group, snapshots included.
    #[serde(default)]
    pub space: SpaceView,
}

/// All groups, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupList {
    /// The groups.
    pub groups: Vec<VolumeGroupView>,
}

/// A snapshot to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshotRequest {
    /// `group@snapshot`.
    pub name: String,
}

/// How a group is put back to its latest snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreSnapshotRequest {
    /// Whether volumes may be attached. Hosts must not have them in use.
    #[serde(default)]
    pub force: bool,
}

/// A volume to make from what a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneVolumeRequest {
    /// `group@snapshot/volume`, or `group@snapshot` where the snapshot holds one volume.
    pub from: String,
    /// Name of the clone: `group/name` in the snapshot's group, or `name` alone, which is put into that group.
    pub name: String,
}

/// A snapshot of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// `group@snapshot`.
    pub name: String,
    /// The group.
    pub group: String,
    /// Sequence number within the group: a later snapshot has a larger one.
    pub id: u64,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// The volumes it holds.
    pub volumes: Vec<SnapshotVolumeView>,
    /// Names of the volumes that were cloned from it.
    pub clones: Vec<String>,
    /// Bytes that come back when it is deleted; null where not known.
    #[serde(default)]
    pub exclusive_bytes: Option<u64>,
    /// Bytes that volumes or other snapshots hold as well; null where not known.
    #[serde(default)]
    pub shared_bytes: Option<u64>,
}

/// A volume as a snapshot holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotVolumeView {
    /// The volume's present name.
    pub volume: String,
    /// The volume's identity.
    pub volume_id: Uuid,
    /// Its size in bytes when the snapshot was made.
    pub size_bytes: u64,
}

/// Snapshots, in the order of their groups' names, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<SnapshotView>,
}

/// Where a volume changed between two moments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffView {
    /// The volume's present name.
    pub volume: String,
    /// The earlier moment, `group@snapshot`.
    pub from: String,
    /// The later moment, `group@snapshot`; null for now.
    pub to: Option<String>,
    /// Extents in which it may differ, in order.
    pub extents: Vec<ExtentView>,
    /// Where to go on, in bytes, if there is more.
    pub next_offset_bytes: Option<u64>,
}

/// What an operation has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It goes on.
    Running,
    /// It did what it was to do.
    Done,
    /// It did not.
    Failed,
}

impl OperationState {
    /// The word on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            OperationState::Running => "running",
            OperationState::Done => "done",
            OperationState::Failed => "failed",
        }
    }
}

/// Long work with progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    /// Number.
    pub id: u64,
    /// What it does, for people, e.g. `drain device /dev/nvme1n1`.
    pub what: String,
    /// What it has come to.
    pub state: OperationState,
    /// When it began, in milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// When it ended, in milliseconds since 1970 UTC; null while it runs.
    pub ended_ms: Option<u64>,
    /// Bytes done; null where not known.
    pub done_bytes: Option<u64>,
    /// Bytes to be done in all, as far as is known.
    pub total_bytes: Option<u64>,
    /// Why it failed; absent unless it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Operations that run, and those that ended last, by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationList {
    /// The operations.
    pub operations: Vec<OperationView>,
}
