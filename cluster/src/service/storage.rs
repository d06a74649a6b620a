//! What the control plane needs from the storage engine, and when it asks.
//!
//! | Action | before it is kept | when it is not kept after all | once it is in force |
//! |---|---|---|---|
//! | add a device | `add_device` | `close_device` | |
//! | drain a device | `check_drain` | | `drain_device` |
//! | a drain has ended, a device is removed | | | `close_device` |
//! | make missing copies | | | `rebuild_copies` |
//! | create a volume | `create_volume` | `delete_volume` | |
//! | delete a volume | | | `delete_volume`, after [`Node::changed`](super::Node::changed) has closed it |
//! | create a snapshot | `create_snapshot` | `delete_snapshot` | |
//! | delete a snapshot | | | `delete_snapshot` |
//! | restore a snapshot | `restore_snapshot` | | |
//! | clone a volume | `clone_volume` | `delete_volume` | |
//! | change a group's policy | | | `set_policy` |
//!
//! The control state decides what there is. A crash between two columns leaves the engine with more than the state
//! knows, never with less: what the state does not know is dropped when the node starts, and a policy that differs is
//! set again. A restore that was made and not kept stands; nobody was told that it was not.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::BoxFuture;
use crate::api::{DeviceSpaceView, ExtentView, SpaceView};
use crate::state::{Action, Event, GroupId, NewDevice, Policy, Reason, Refusal, State, Volume, VolumeId};

/// A log-structured volume to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogVolume {
    /// Identity.
    pub volume: VolumeId,
    /// The group; it is made with its first volume.
    pub group: GroupId,
    /// What the group's storage is to be like, if it is made.
    pub policy: Policy,
    /// Size in bytes, a multiple of `block_size_bytes`.
    pub size_bytes: u64,
    /// Logical block size in bytes: 512 or 4096.
    pub block_size_bytes: u32,
    /// Whether its whole size is reserved at once; refused with [`NoSpace`](crate::state::RefusalKind::NoSpace) where
    /// it does not fit.
    pub thick: bool,
}

/// A part of the difference between two moments of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffQuery {
    /// The group.
    pub group: GroupId,
    /// The volume.
    pub volume: VolumeId,
    /// The earlier moment: a snapshot that holds the volume.
    pub from: u64,
    /// The later moment: a later snapshot that holds it; `None` for now.
    pub to: Option<u64>,
    /// Where to begin in the volume, in bytes.
    pub offset_bytes: u64,
    /// Most extents to answer with, at least 1.
    pub extents_max: usize,
}

/// Where a volume changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Extents in which it may differ, in order, not touching each other.
    pub extents: Vec<ExtentView>,
    /// Where to go on, in bytes, if there is more.
    pub next_offset_bytes: Option<u64>,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes to be done in all, as far as is known.
    pub total_bytes: u64,
}

/// What goes on in the engine. What is missing is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveStorage {
    /// Space by volume.
    pub volumes: BTreeMap<VolumeId, SpaceView>,
    /// Space by group, snapshots included.
    pub groups: BTreeMap<GroupId, SpaceView>,
    /// Space by device.
    pub devices: BTreeMap<Uuid, DeviceSpaceView>,
    /// Why a device cannot be used, by device.
    pub faults: BTreeMap<Uuid, String>,
    /// Progress by operation.
    pub operations: BTreeMap<u64, Progress>,
    /// What is on fewer devices than it should be, by group, in bytes.
    pub degraded: BTreeMap<GroupId, u64>,
}

/// What a snapshot takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotSpace {
    /// Bytes that come back when it is deleted.
    pub exclusive_bytes: u64,
    /// Bytes that volumes or other snapshots hold as well.
    pub shared_bytes: u64,
}

/// The storage engine of a node. Implemented by the binary.
///
/// Methods that change something are called by one task, one after the other; that task carries out every other change
/// as well, so they must not wait for one (an operation's end is submitted by a task of the engine's own). They say why they did not do it as the
/// state machine does; what was asked is added by the caller. Those without a result cannot fail: what goes wrong
/// shows in [`Storage::report`], and is tried again when the node starts.
pub trait Storage: Send + Sync {
    /// Opens a new device and writes its identity to it; makes a file that is not there. Sets `path` to the canonical
    /// one and `size_bytes` to what the device has. Refuses a disk that holds something unless `force`.
    fn add_device<'a>(&'a self, new: &'a mut NewDevice) -> BoxFuture<'a, Result<(), Reason>>;

    /// Closes a device that holds nothing that is needed; whoever opens it next must not take it for one of this node.
    fn close_device(&self, device: Uuid) -> BoxFuture<'_, ()>;

    /// Whether the other devices can take what `device` holds.
    fn check_drain(&self, device: Uuid) -> BoxFuture<'_, Result<(), Reason>>;

    /// Begins to move what `device` holds; at its end submits [`Action::FinishOperation`]. Drains that the state knows
    /// when the node starts go on without being asked for.
    fn drain_device(&self, device: Uuid, operation: u64) -> BoxFuture<'_, ()>;

    /// Begins to make copies that are missing; at its end submits [`Action::FinishOperation`]. What the state knows as under
    /// way when the node starts goes on without being asked for.
    fn rebuild_copies(&self, operation: u64) -> BoxFuture<'_, ()> {
        let _ = operation;
        Box::pin(async {})
    }

    /// Makes a volume of zeros, durably.
    fn create_volume(&self, new: LogVolume) -> BoxFuture<'_, Result<(), Reason>>;

    /// Deletes a volume, and its group with the last one. One that is not there is deleted already.
    fn delete_volume(&self, group: GroupId, volume: VolumeId) -> BoxFuture<'_, ()>;

    /// From now on stores what is written to a group in this way.
    fn set_policy(&self, group: GroupId, policy: Policy) -> BoxFuture<'_, ()>;

    /// Cuts a group, durably; yields the snapshot's sequence number, larger than those before.
    fn create_snapshot(&self, group: GroupId) -> BoxFuture<'_, Result<u64, Reason>>;

    /// Deletes a snapshot. One that is not there is deleted already.
    fn delete_snapshot(&self, group: GroupId, snapshot: u64) -> BoxFuture<'_, ()>;

    /// Puts the volumes that the group's latest snapshot holds back to it, contents and sizes, durably.
    fn restore_snapshot(&self, group: GroupId, snapshot: u64) -> BoxFuture<'_, Result<(), Reason>>;

    /// Makes volume `to` of what `snapshot` holds of volume `from`, durably.
    fn clone_volume(
        &self,
        group: GroupId,
        snapshot: u64,
        from: VolumeId,
        to: VolumeId,
    ) -> BoxFuture<'_, Result<(), Reason>>;

    /// Where a volume changed between two moments. May be called at any time.
    fn diff(&self, query: DiffQuery) -> BoxFuture<'_, Result<Diff, Reason>>;

    /// What snapshots of a group take, as far as it is known. It may have to look through maps, so it is asked for only
    /// when somebody looks at snapshots, and given up after a while. May be called at any time.
    fn snapshot_space(
        &self,
        group: GroupId,
        snapshots: Vec<u64>,
    ) -> BoxFuture<'_, BTreeMap<u64, SnapshotSpace>>;

    /// What goes on now: asked for with almost every request, so it looks nothing up. May be called at any time.
    fn report(&self) -> BoxFuture<'_, LiveStorage>;
}

/// Has the engine do what must come before `action` is kept. `after` is the state that it would lead to, with
/// provisional values where the engine's are not known yet.
pub(super) async fn prepare(
    storage: &dyn Storage,
    after: &State,
    action: &mut Action,
) -> Result<(), Refusal> {
    let what = action.describe();
    let done = match action {
        Action::AddDevice(new) => storage.add_device(new).await,
        Action::DrainDevice { device } => storage.check_drain(*device).await,
        Action::CreateVolume(new) => match log_volume(after, new.id) {
            Some(volume) => storage.create_volume(volume).await,
            None => Ok(()),
        },
        Action::CreateSnapshot { snapshot, id } => {
            let group = after.groups()[&snapshot.group].id;
            storage.create_snapshot(group).await.map(|made| *id = Some(made))
        }
        Action::RestoreSnapshot { snapshot, .. } => match after.find_snapshot(snapshot) {
            Ok((group, found)) => storage.restore_snapshot(group.id, found.id).await,
            Err(reason) => Err(reason),
        },
        Action::CloneVolume(new) => {
            let clone = &after.volumes()[&new.id];
            let origin = clone.origin.expect("a clone has an origin");
            let group = after.groups()[&clone.group()].id;
            storage.clone_volume(group, origin.snapshot, origin.volume, new.id).await
        }
        _ => Ok(()),
    };
    done.map_err(|reason| reason.refuse(what))
}

fn log_volume(after: &State, id: VolumeId) -> Option<LogVolume> {
    let volume: &Volume = &after.volumes()[&id];
    let crate::state::Backing::Log { thick } = volume.backing else { return None };
    let group = &after.groups()[&volume.group()];
    Some(LogVolume {
        volume: id,
        group: group.id,
        policy: group.policy,
        size_bytes: volume.size_bytes,
        block_size_bytes: volume.block_size_bytes,
        thick,
    })
}

/// Has the engine take back what [`prepare`] had it do for an action that is not kept.
pub(super) async fn abandon(storage: &dyn Storage, after: &State, action: &Action) {
    match action {
        Action::AddDevice(new) => storage.close_device(new.id).await,
        Action::CreateVolume(new) => {
            if let Some(volume) = log_volume(after, new.id) {
                storage.delete_volume(volume.group, new.id).await;
            }
        }
        Action::CreateSnapshot { snapshot, id: Some(id) } => {
            storage.delete_snapshot(after.groups()[&snapshot.group].id, *id).await;
        }
        Action::CloneVolume(new) => {
            let group = after.volumes()[&new.id].group();
            storage.delete_volume(after.groups()[&group].id, new.id).await;
        }
        _ => {}
    }
}

/// Has the engine do what follows from `events`, after the node has.
pub(super) async fn follow(storage: &dyn Storage, state: &Arc<State>, events: &[Event]) {
    for event in events {
        match event {
            Event::DeviceClosed { device } => storage.close_device(*device).await,
            Event::DeviceDraining { device, operation } => storage.drain_device(*device, *operation).await,
            Event::RebuildBegan { operation } => storage.rebuild_copies(*operation).await,
            Event::GroupPolicyChanged { group } => {
                let group = &state.groups()[group];
                storage.set_policy(group.id, group.policy).await;
            }
            Event::SnapshotDeleted { group_id, snapshot, .. } => {
                storage.delete_snapshot(*group_id, *snapshot).await;
            }
            Event::VolumeDeleted { volume, group_id } if volume.backing.is_log() => {
                storage.delete_volume(*group_id, volume.id).await;
            }
            _ => {}
        }
    }
}
