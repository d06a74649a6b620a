//! The engine on its reactor: devices, groups and volumes. The functions here run there, inside
//! [`ashlar_runtime::ReactorHandle::call`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ashlar_cluster::service::{Diff, DiffQuery, LogVolume, Progress};
use ashlar_cluster::state::{self, Compression, Reason, RefusalKind};
use ashlar_engine::chunks::StoreError;
use ashlar_engine::groups::Groups;
use ashlar_engine::ids::GroupId;
use ashlar_engine::lane::{Copies, LaneConfig, LaneError, SnapshotNumber, SnapshotReport};
use ashlar_engine::store::{ChunkStore, FormatOptions};
use ashlar_env::units::VolumeId;
use ashlar_env::{Clock, Disk, Instant, Spawn};
use ashlar_runtime::{Device, OpenDevice, ReactorEnv};
use uuid::Uuid;

use super::keep::KeptDecisions;
use super::watch::watch;
use crate::node::disk::NodeDisk;
use crate::node::metrics::EngineCounts;
use crate::node::reactor::{Backing, VolumeSpec};
use crate::node::reservations::Control;

/// How often what scrubbing did and what space is taken is told to others.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// The engine.
pub(super) struct Home {
    env: ReactorEnv,
    pub groups: Groups<ReactorEnv, Device>,
    cluster: Uuid,
    /// Drains and rebuilds under way, by operation.
    pub drains: RefCell<BTreeMap<u64, Progress>>,
    /// Copies are being made.
    pub rebuilding: Cell<bool>,
    /// Copies are not made before, unless there are other devices than so many.
    pub rebuild_from: Cell<Instant>,
    pub rebuilt_on: Cell<usize>,
    /// What snapshots alone hold, and when that was found out.
    pub exclusive: RefCell<BTreeMap<(GroupId, SnapshotNumber), (u64, Instant)>>,
    /// What volumes share, as far as that was found out.
    pub shares: super::report::Shares,
}

thread_local! {
    static HOME: RefCell<Option<Rc<Home>>> = const { RefCell::new(None) };
}

/// The engine, on its reactor.
pub(super) fn home() -> Rc<Home> {
    HOME.with_borrow(|home| home.clone().expect("the engine was set up when the node started"))
}

/// Sets the engine up; once. What scrubbing and repairs do and what space is taken is told in `counts`.
pub(super) fn set_up(
    env: &ReactorEnv,
    cluster: Uuid,
    config: LaneConfig,
    counts: Arc<EngineCounts>,
    control: Control,
) {
    let groups = Groups::new(env.clone(), cluster, config);
    groups.set_coordinator(Rc::new(KeptDecisions::new(env.clone(), Control::clone(&control))));
    env.spawn(count(env.clone(), groups.clone(), counts));
    let home = Rc::new(Home {
        env: env.clone(),
        groups,
        cluster,
        drains: RefCell::default(),
        rebuilding: Cell::new(false),
        rebuild_from: Cell::new(env.now()),
        rebuilt_on: Cell::new(0),
        exclusive: RefCell::default(),
        shares: super::report::Shares::default(),
    });
    HOME.set(Some(Rc::clone(&home)));
    env.spawn(watch(env.clone(), home, control));
}

/// Tells other threads now and then what scrubbing has done and what space is taken, for as long as the reactor runs.
async fn count(env: ReactorEnv, groups: Groups<ReactorEnv, Device>, counts: Arc<EngineCounts>) {
    let (mut before, mut all) = (0, 0);
    let (mut repaired, mut unrepaired) = (Sum::default(), Sum::default());
    loop {
        env.sleep_until(env.now().plus(COUNT_EVERY)).await;
        let (bytes, damaged) = groups.scrub_totals();
        // What was read of groups that are gone was read.
        all += bytes.saturating_sub(before);
        before = bytes;
        counts.bytes.store(all, Ordering::Relaxed);
        counts.damaged.store(damaged, Ordering::Relaxed);
        *counts.space.lock().expect("no panic while held") = super::report::space_rows(&groups);
        let copies = groups.copies();
        let sum = |count: fn(&Copies) -> u64| copies.values().map(count).sum::<u64>();
        repaired.add(sum(|copies| copies.repaired));
        unrepaired.add(sum(|copies| copies.unrepaired));
        counts.repaired.store(repaired.all, Ordering::Relaxed);
        counts.unrepaired.store(unrepaired.all, Ordering::Relaxed);
    }
}

/// A sum over groups, which keeps what those that are gone have brought.
#[derive(Default)]
struct Sum {
    before: u64,
    all: u64,
}

impl Sum {
    fn add(&mut self, now: u64) {
        self.all += now.saturating_sub(self.before);
        self.before = now;
    }
}

/// What a lane's error means for whoever asked.
pub(super) fn reason(error: &LaneError) -> Reason {
    if *error == LaneError::Store(StoreError::NoDevice) {
        return Reason::new(RefusalKind::Conflict, "fewer devices can be used than there are to be copies")
            .next("`ashlar device list` shows them; add one with `ashlar device add PATH`");
    }
    let kind = match error {
        LaneError::NoVolume | LaneError::NoSnapshot => RefusalKind::NotFound,
        LaneError::InUse(_) => RefusalKind::InUse,
        LaneError::Exists => RefusalKind::Exists,
        LaneError::Full => RefusalKind::NoSpace,
        LaneError::OutOfRange => RefusalKind::Invalid,
        _ => RefusalKind::Failed,
    };
    Reason::new(kind, error.to_string())
}

fn failed(error: impl std::fmt::Display) -> Reason {
    Reason::new(RefusalKind::Failed, error.to_string())
}

impl Home {
    /// Writes an empty store on a new device and takes it into the pool.
    pub async fn format(&self, device: OpenDevice, id: Uuid, force: bool) -> Result<(), Reason> {
        let device = device.attach(&self.env).map_err(failed)?;
        // One granule for all, so that any device can join the pool later.
        let options =
            FormatOptions { overwrite: force, align_bytes_min: 4096, ..FormatOptions::new(id, self.cluster) };
        let store = ChunkStore::format(self.env.clone(), device, options).await.map_err(|error| {
            Reason::new(RefusalKind::Invalid, error.to_string())
                .next("to use it all the same, and lose what is on it: --force")
        })?;
        self.groups.add(store).await.map_err(failed)?;
        Ok(())
    }

    /// Takes a device that is known into the pool; one that `failed` before is read only.
    pub async fn open(&self, device: OpenDevice, id: Uuid, failed: bool) -> Result<(), String> {
        let device = device.attach(&self.env).map_err(|error| error.to_string())?;
        let store = ChunkStore::open(self.env.clone(), device).await.map_err(|error| error.to_string())?;
        if store.device() != id {
            return Err(format!("it is device {}, not {id}: disks were exchanged", store.device()));
        }
        self.groups.add(store).await.map_err(|error| error.to_string())?;
        if failed {
            self.groups.pool().close(id).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Takes a device out that holds nothing any more, and makes it unknown to who opens it next.
    pub async fn close(&self, device: Uuid) {
        // What is on it is not needed any more, or is lost with it.
        if let Err(error) = self.groups.pool().remove(device, true) {
            tracing::warn!(%device, "the device was not closed: {error}");
        }
    }

    pub(super) fn env(&self) -> &ReactorEnv {
        &self.env
    }

    pub async fn create_volume(&self, new: &LogVolume) -> Result<(), Reason> {
        if new.thick {
            return Err(Reason::new(RefusalKind::Invalid, "space cannot be reserved for a volume yet")
                .next("leave --thick out; watch the free space with ashlar device list"));
        }
        let compress = new.policy.compression == Compression::Lz4;
        let (group, id) = (GroupId(new.group.0), VolumeId(new.volume.0));
        let copies = usize::from(new.policy.copies);
        let made = self.groups.create_volume_in(group, copies, id, new.size_bytes, compress).await;
        made.map_err(|error| reason(&error))
    }

    /// A volume for whoever serves it, of the size that the control plane knows.
    pub async fn sized_disk(&self, spec: &VolumeSpec) -> Result<NodeDisk, String> {
        let Backing::Log(group) = spec.backing else { return Err("it is not log-structured".into()) };
        let disk = self.groups.disk(group, spec.id, spec.block_size.bytes());
        let disk = disk.ok_or("its data are on no device of this node")?;
        if disk.info().size_bytes != spec.size_bytes {
            disk.resize(spec.size_bytes).await.map_err(|error| error.to_string())?;
        }
        Ok(NodeDisk::Log(disk))
    }

    /// Deletes volumes and snapshots of a group other than these.
    pub async fn drop_unknown(
        &self,
        group: state::GroupId,
        volumes: &BTreeSet<VolumeId>,
        snapshots: &BTreeSet<u64>,
    ) -> Result<(), LaneError> {
        let group = GroupId(group.0);
        let Some(lane) = self.groups.lane(group) else { return Ok(()) };
        let report = lane.report();
        for volume in report.volumes.iter().filter(|volume| !volumes.contains(&volume.id)) {
            self.groups.delete_volume(group, volume.id).await?;
        }
        let unknown = |snapshot: &&SnapshotReport| {
            !snapshot.leaving && !snapshots.contains(&u64::from(snapshot.number))
        };
        for snapshot in report.snapshots.iter().filter(unknown) {
            lane.delete_snapshot(snapshot.number).await?;
        }
        Ok(())
    }

    pub async fn set_compression(&self, group: GroupId, on: bool) -> Result<(), LaneError> {
        match self.groups.lane(group) {
            Some(lane) if lane.report().compresses != on => lane.set_compression(on).await,
            _ => Ok(()),
        }
    }

    pub async fn snapshot(&self, group: GroupId) -> Result<u64, Reason> {
        let lane = self.groups.lane(group).ok_or_else(|| reason(&LaneError::NoVolume))?;
        lane.snapshot().await.map(u64::from).map_err(|error| reason(&error))
    }

    pub async fn delete_snapshot(&self, group: GroupId, snapshot: u64) -> Result<(), LaneError> {
        match self.groups.lane(group) {
            Some(lane) => match lane.delete_snapshot(number(snapshot)).await {
                Err(LaneError::NoSnapshot) => Ok(()),
                result => result,
            },
            None => Ok(()),
        }
    }

    pub async fn restore(&self, group: GroupId, snapshot: u64) -> Result<(), Reason> {
        let lane = self.groups.lane(group).ok_or_else(|| reason(&LaneError::NoSnapshot))?;
        lane.restore(number(snapshot)).await.map_err(|error| reason(&error))
    }

    pub async fn clone_volume(
        &self,
        group: GroupId,
        snapshot: u64,
        from: VolumeId,
        to: VolumeId,
    ) -> Result<(), Reason> {
        let cloned = self.groups.clone_volume(group, number(snapshot), from, to).await;
        cloned.map_err(|error| reason(&error))
    }

    pub async fn diff(&self, query: DiffQuery) -> Result<Diff, Reason> {
        let lane = self.groups.lane(GroupId(query.group.0)).ok_or_else(|| reason(&LaneError::NoVolume))?;
        let volume = lane.number_of(VolumeId(query.volume.0)).ok_or_else(|| reason(&LaneError::NoVolume))?;
        let ranges = lane.diff(volume, number(query.from), query.to.map(number)).await;
        let ranges = ranges.map_err(|error| reason(&error))?;
        Ok(super::report::page_of(&ranges, &query))
    }
}

/// Numbers of snapshots are the engine's own, which have 32 bits.
fn number(snapshot: u64) -> SnapshotNumber {
    SnapshotNumber::try_from(snapshot).unwrap_or(SnapshotNumber::MAX)
}
