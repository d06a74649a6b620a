//! An engine without data: it knows what there is, and refuses what an engine would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use ashlar_cluster::api::{DeviceSpaceView, ExtentView, SpaceView};
use ashlar_cluster::service::{
    BoxFuture, Diff, DiffQuery, LiveStorage, LogVolume, Progress, SnapshotSpace, Storage,
};
use ashlar_cluster::state::{GroupId, NewDevice, Policy, Reason, RefusalKind, VolumeId};
use uuid::Uuid;

/// What the engine holds.
#[derive(Debug, Default)]
pub struct Engine {
    /// Sizes of the disks that exist, by path.
    pub disks: BTreeMap<String, u64>,
    pub devices: BTreeSet<Uuid>,
    pub draining: BTreeMap<Uuid, u64>,
    pub volumes: BTreeSet<(GroupId, VolumeId)>,
    pub snapshots: BTreeSet<(GroupId, u64)>,
    pub policies: BTreeMap<GroupId, Policy>,
    pub restored: Vec<u64>,
    pub diffs: Vec<DiffQuery>,
    /// Whether its devices are full.
    pub full: bool,
    /// How long it takes to find out what snapshots take.
    pub space_delay: Duration,
}

#[derive(Default)]
pub struct FakeStorage {
    pub engine: Mutex<Engine>,
}

fn full() -> Reason {
    Reason::new(RefusalKind::NoSpace, "the devices are full").next("ashlar device add PATH")
}

impl FakeStorage {
    fn act<'a, T: Send + 'a>(&'a self, act: impl FnOnce(&mut Engine) -> T + Send + 'a) -> BoxFuture<'a, T> {
        Box::pin(async move { act(&mut self.engine.lock().unwrap()) })
    }
}

impl Storage for FakeStorage {
    fn add_device<'a>(&'a self, new: &'a mut NewDevice) -> BoxFuture<'a, Result<(), Reason>> {
        self.act(|engine| {
            let size = engine.disks.get(&new.path).copied().or(new.size_bytes);
            let Some(size) = size else {
                return Err(Reason::new(RefusalKind::NotFound, format!("there is no file {}", new.path)));
            };
            new.size_bytes = Some(size);
            engine.devices.insert(new.id);
            Ok(())
        })
    }

    fn close_device(&self, device: Uuid) -> BoxFuture<'_, ()> {
        self.act(move |engine| {
            engine.draining.remove(&device);
            assert!(engine.devices.remove(&device), "{device} is open");
        })
    }

    fn check_drain(&self, _: Uuid) -> BoxFuture<'_, Result<(), Reason>> {
        self.act(|engine| if engine.full { Err(full()) } else { Ok(()) })
    }

    fn drain_device(&self, device: Uuid, operation: u64) -> BoxFuture<'_, ()> {
        self.act(move |engine| assert_eq!(engine.draining.insert(device, operation), None))
    }

    fn create_volume(&self, new: LogVolume) -> BoxFuture<'_, Result<(), Reason>> {
        self.act(move |engine| {
            if engine.full && new.thick {
                return Err(full());
            }
            engine.policies.entry(new.group).or_insert(new.policy);
            assert!(engine.volumes.insert((new.group, new.volume)));
            Ok(())
        })
    }

    fn delete_volume(&self, group: GroupId, volume: VolumeId) -> BoxFuture<'_, ()> {
        self.act(move |engine| assert!(engine.volumes.remove(&(group, volume))))
    }

    fn set_policy(&self, group: GroupId, policy: Policy) -> BoxFuture<'_, ()> {
        self.act(move |engine| assert!(engine.policies.insert(group, policy).is_some()))
    }

    fn create_snapshot(&self, group: GroupId) -> BoxFuture<'_, Result<u64, Reason>> {
        self.act(move |engine| {
            if engine.full {
                return Err(full());
            }
            let id = engine.snapshots.iter().map(|(_, id)| *id).max().unwrap_or(0) + 7;
            engine.snapshots.insert((group, id));
            Ok(id)
        })
    }

    fn delete_snapshot(&self, group: GroupId, snapshot: u64) -> BoxFuture<'_, ()> {
        self.act(move |engine| assert!(engine.snapshots.remove(&(group, snapshot))))
    }

    fn restore_snapshot(&self, group: GroupId, snapshot: u64) -> BoxFuture<'_, Result<(), Reason>> {
        self.act(move |engine| {
            assert!(engine.snapshots.contains(&(group, snapshot)));
            engine.restored.push(snapshot);
            Ok(())
        })
    }

    fn clone_volume(
        &self,
        group: GroupId,
        snapshot: u64,
        from: VolumeId,
        to: VolumeId,
    ) -> BoxFuture<'_, Result<(), Reason>> {
        self.act(move |engine| {
            assert!(engine.snapshots.contains(&(group, snapshot)));
            assert!(engine.volumes.contains(&(group, from)));
            assert!(engine.volumes.insert((group, to)));
            Ok(())
        })
    }

    /// Everything changed, in one extent of 4 KiB for each 64 KiB of a volume of 1 MiB.
    fn diff(&self, query: DiffQuery) -> BoxFuture<'_, Result<Diff, Reason>> {
        self.act(move |engine| {
            engine.diffs.push(query);
            let all = (0..16).map(|n| ExtentView { offset_bytes: n << 16, length_bytes: 4096 });
            let mut rest = all.filter(|extent| extent.offset_bytes >= query.offset_bytes);
            // As if no more than four fitted at a time.
            let extents = rest.by_ref().take(query.extents_max.min(4)).collect();
            Ok(Diff { extents, next_offset_bytes: rest.next().map(|extent| extent.offset_bytes) })
        })
    }

    fn snapshot_space(
        &self,
        group: GroupId,
        snapshots: Vec<u64>,
    ) -> BoxFuture<'_, BTreeMap<u64, SnapshotSpace>> {
        Box::pin(async move {
            let delay = self.engine.lock().unwrap().space_delay;
            tokio::time::sleep(delay).await;
            let engine = self.engine.lock().unwrap();
            let known = snapshots.into_iter().filter(|id| engine.snapshots.contains(&(group, *id)));
            known.map(|id| (id, SnapshotSpace { exclusive_bytes: 1, shared_bytes: 2 })).collect()
        })
    }

    fn report(&self) -> BoxFuture<'_, LiveStorage> {
        self.act(|engine| {
            let space = SpaceView { logical_bytes: Some(4096), ..SpaceView::default() };
            let device = DeviceSpaceView { used_bytes: Some(1 << 20), free_bytes: Some(1 << 30) };
            let progress = Progress { done_bytes: 1, total_bytes: 3 };
            LiveStorage {
                volumes: engine.volumes.iter().map(|(_, volume)| (*volume, space)).collect(),
                groups: engine.volumes.iter().map(|(group, _)| (*group, space)).collect(),
                devices: engine.devices.iter().map(|id| (*id, device)).collect(),
                faults: BTreeMap::new(),
                operations: engine.draining.values().map(|id| (*id, progress)).collect(),
                degraded: BTreeMap::new(),
            }
        })
    }
}
