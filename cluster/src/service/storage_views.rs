//! Replies about devices, groups, snapshots and operations.

use super::{Live, SnapshotSpace};
use crate::api::{
    DeviceView, OperationState, OperationView, SnapshotView, SnapshotVolumeView, VolumeGroupView,
};
use crate::state::{Device, Group, Name, Operation, OperationKind, Snapshot, State};

/// The reply about one device.
pub fn device_view(state: &State, live: &Live, device: &Device) -> DeviceView {
    let drains =
        |operation: &&Operation| operation.is_running() && operation.kind.drained() == Some(device.id);
    DeviceView {
        id: device.id,
        path: device.path.clone(),
        size_bytes: device.size_bytes,
        state: device.state,
        added_ms: device.added_ms,
        space: live.storage.devices.get(&device.id).copied().unwrap_or_default(),
        fault: device.failure.clone().or_else(|| live.storage.faults.get(&device.id).cloned()),
        operation: state.operations().values().find(drains).map(|operation| operation.id),
    }
}

/// The reply about one group.
pub fn volume_group_view(state: &State, live: &Live, name: &Name, group: &Group) -> VolumeGroupView {
    let volumes: Vec<_> = state.volumes_of(name).collect();
    VolumeGroupView {
        name: name.to_string(),
        ana_group_id: group.ana_group_id,
        compression: group.policy.compression,
        copies: group.policy.copies,
        degraded: live.storage.degraded.contains_key(&group.id),
        volumes: volumes.iter().map(|volume| volume.name.to_string()).collect(),
        size_bytes: volumes.iter().fold(0, |sum, volume| volume.size_bytes.saturating_add(sum)),
        snapshots: group.snapshots.len() as u64,
        space: live.storage.groups.get(&group.id).copied().unwrap_or_default(),
    }
}

/// The reply about one snapshot.
pub fn snapshot_view(
    state: &State,
    name: &Name,
    snapshot: &Snapshot,
    space: Option<&SnapshotSpace>,
) -> SnapshotView {
    let volumes = snapshot.volumes.iter().map(|(id, size_bytes)| SnapshotVolumeView {
        volume: state.volumes()[id].name.to_string(),
        volume_id: id.0,
        size_bytes: *size_bytes,
    });
    let mut volumes: Vec<_> = volumes.collect();
    volumes.sort_by(|a, b| a.volume.cmp(&b.volume));
    SnapshotView {
        name: format!("{name}@{}", snapshot.name),
        group: name.to_string(),
        id: snapshot.id,
        created_ms: snapshot.created_ms,
        volumes,
        clones: state.clones_of(name, snapshot.id).map(|volume| volume.name.to_string()).collect(),
        exclusive_bytes: space.map(|space| space.exclusive_bytes),
        shared_bytes: space.map(|space| space.shared_bytes),
    }
}

/// The reply about one operation.
pub fn operation_view(live: &Live, operation: &Operation) -> OperationView {
    let what = match &operation.kind {
        OperationKind::DrainDevice { path, .. } => format!("drain device {path}"),
        OperationKind::RebuildCopies {} => "make missing copies".to_owned(),
    };
    let progress = live.storage.operations.get(&operation.id);
    OperationView {
        id: operation.id,
        what,
        state: match (operation.is_running(), &operation.failure) {
            (true, _) => OperationState::Running,
            (false, None) => OperationState::Done,
            (false, Some(_)) => OperationState::Failed,
        },
        started_ms: operation.started_ms,
        ended_ms: operation.ended_ms,
        done_bytes: progress.map(|progress| progress.done_bytes),
        total_bytes: progress.map(|progress| progress.total_bytes),
        failure: operation.failure.clone(),
    }
}
