//! What holds between devices, operations, snapshots and clones in every state.

use std::collections::BTreeSet;

use super::check::ensure;
use super::device::check_device;
use super::group::{COPIES_MAX, Group};
use super::operation::{OPERATIONS_ENDED_MAX, OperationKind};
use super::volume::check_geometry;
use super::{DeviceState, Name, Snapshot, State};

impl State {
    pub(super) fn check_storage(&self) -> Result<(), String> {
        self.check_devices()?;
        self.check_operations()?;
        let mut ids = BTreeSet::new();
        for (name, group) in &self.groups {
            ensure(group.id.0 != 0, || format!("group {name} has no identity"))?;
            ensure(ids.insert(group.id), || format!("group {name} shares its identity"))?;
            ensure((1..=COPIES_MAX).contains(&group.policy.copies), || {
                format!("group {name} has {} copies", group.policy.copies)
            })?;
            self.check_snapshots(name, group)?;
        }
        self.check_origins()
    }

    fn check_devices(&self) -> Result<(), String> {
        let mut paths = BTreeSet::new();
        for (id, device) in &self.devices {
            let path = &device.path;
            ensure(*id == device.id, || format!("device {path} is filed under another identity"))?;
            check_device(path, device.size_bytes)
                .map_err(|reason| format!("device {path}: {}", reason.why))?;
            ensure(paths.insert(path), || format!("two devices are {path}"))?;
            ensure(!device.is_open() || self.image_at(path).is_none(), || {
                format!("device {path} is served as an image, too")
            })?;
            let failed = device.failure.is_some();
            ensure(
                match device.state {
                    DeviceState::Active => !failed,
                    DeviceState::Failed => failed,
                    DeviceState::Draining | DeviceState::Removed => true,
                },
                || format!("device {path} is {} and has a failure: {failed}", device.state.as_str()),
            )?;
            let drains = self
                .operations
                .values()
                .filter(|operation| operation.is_running() && operation.kind.drained() == Some(*id));
            let draining = usize::from(device.state == DeviceState::Draining);
            ensure(drains.count() == draining, || format!("device {path} is drained by another number"))?;
        }
        Ok(())
    }

    fn check_operations(&self) -> Result<(), String> {
        for (id, operation) in &self.operations {
            ensure(*id == operation.id, || format!("operation {id} is filed under another number"))?;
            ensure((1..=self.last_operation).contains(id), || format!("operation {id} never began"))?;
            ensure(operation.failure.is_none() || !operation.is_running(), || {
                format!("operation {id} runs and has failed")
            })?;
            let OperationKind::DrainDevice { device, path } = &operation.kind else { continue };
            ensure(!operation.is_running() || self.devices.contains_key(device), || {
                format!("operation {id} drains {path}, which is no device")
            })?;
        }
        let ended = self.operations.values().filter(|operation| !operation.is_running()).count();
        ensure(ended <= OPERATIONS_ENDED_MAX, || format!("{ended} operations that ended are kept"))
    }

    fn check_snapshots(&self, name: &Name, group: &Group) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for (id, snapshot) in &group.snapshots {
            let what = || format!("snapshot {name}@{}", snapshot.name);
            ensure(*id == snapshot.id && *id > 0, || format!("{} is filed under {id}", what()))?;
            ensure(names.insert(&snapshot.name), || format!("{} is there twice", what()))?;
            ensure(!snapshot.volumes.is_empty(), || format!("{} holds no volume", what()))?;
            self.check_held(name, snapshot).map_err(|rule| format!("{}: {rule}", what()))?;
        }
        Ok(())
    }

    fn check_held(&self, group: &Name, snapshot: &Snapshot) -> Result<(), String> {
        for (id, size_bytes) in &snapshot.volumes {
            let Some(volume) = self.volumes.get(id) else { return Err(format!("{id} is no volume")) };
            ensure(volume.group() == *group && volume.backing.is_log(), || {
                format!("volume {} is no log-structured volume of the group", volume.name)
            })?;
            check_geometry(*size_bytes, volume.block_size_bytes).map_err(|reason| reason.why)?;
        }
        Ok(())
    }

    fn check_origins(&self) -> Result<(), String> {
        for volume in self.volumes.values() {
            let Some(origin) = volume.origin else { continue };
            let snapshot = self.groups[&volume.group()].snapshots.get(&origin.snapshot);
            let held = snapshot.is_some_and(|snapshot| snapshot.volumes.contains_key(&origin.volume));
            ensure(held && volume.backing.is_log(), || {
                format!("volume {} was cloned from what is not there", volume.name)
            })?;
        }
        Ok(())
    }
}
