//! The node's log-structured storage: what the control plane asks of it, carried to the reactor that has the engine.
//!
//! The control plane asks through [`Storage`]; its documentation says what each method promises, and when it is called.
//! The node itself asks three things more: to open what the control state knows when it starts
//! ([`NodeStorage::start`]), to serve a volume ([`NodeStorage::open_volume`]), and to make all durable at its end
//! ([`NodeStorage::stop`]).
//!
//! `home` runs on the reactor; `drain` takes devices out; `keep` keeps what logs must know in the control state; `watch`
//! notices devices that fail and copies that are missing; `report` tells what is there.

mod drain;
mod home;
mod keep;
mod report;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ashlar_cluster::service::{BoxFuture, Diff, DiffQuery, LiveStorage, LogVolume, SnapshotSpace, Storage};
use ashlar_cluster::state::{
    Compression, DeviceState, Group, GroupId, NewDevice, OperationKind, Policy, Reason, RefusalKind, State,
    Volume, VolumeId,
};
use ashlar_engine::ids::GroupId as EngineGroup;
use ashlar_engine::lane::LaneConfig;
use ashlar_env::mesh::ReactorId;
use ashlar_env::units::VolumeId as EngineVolume;
use ashlar_env::volume::VolumeInfo;
use ashlar_runtime::{OpenDevice, OpenOptions, ReactorHandle};
use uuid::Uuid;

use super::message::NodeMessage;
use super::metrics::EngineCounts;
use super::reactor::{self, here};
use super::reservations::Control;
use home::{Home, home};
use report::Faults;

/// How long a device of a group with copies may take for an append before the log goes on without it. That costs a copy of
/// what is written until it is taken in again, so it is not done for the pauses that busy machines have.
const SLOW_DEVICE: Duration = Duration::from_secs(2);

/// How long it may take to make or to seal a chunk.
const SILENT_DEVICE: Duration = Duration::from_secs(5);

/// Names how many bytes are logged between two checkpoints, for tests that want many checkpoints.
const CHECKPOINT_BYTES: &str = "ASHLAR_TEST_CHECKPOINT_BYTES";

/// The node's devices and what lies on them.
pub(crate) struct NodeStorage {
    reactor: ReactorHandle<NodeMessage>,
    control: Control,
    faults: Mutex<Faults>,
    scrub: Arc<EngineCounts>,
}

impl NodeStorage {
    /// The engine on `reactor`. `leaves_max`: leaves of maps in memory, of all groups. `scrub`: bytes a second that are
    /// verified in the background, of all groups; 0 for none.
    pub fn new(reactor: ReactorHandle<NodeMessage>, control: Control, leaves_max: usize, scrub: u64) -> Self {
        Self { reactor, control, faults: Mutex::default(), scrub: Arc::default() }
            .with_engine(leaves_max, scrub)
    }

    fn with_engine(self, leaves_max: usize, scrub_bytes_per_second: u64) -> Self {
        let mut config = LaneConfig { leaves_max, scrub_bytes_per_second, ..LaneConfig::default() };
        config.log.latency_floor = SLOW_DEVICE;
        config.log.answer_max = SILENT_DEVICE;
        if let Some(bytes) = std::env::var(CHECKPOINT_BYTES).ok().and_then(|text| text.parse().ok()) {
            config.checkpoint_bytes = bytes;
        }
        // Pools are told apart by the cluster's identity; a node that stands alone is a cluster of its own.
        let counts = Arc::clone(&self.scrub);
        let control = Control::clone(&self.control);
        let set_up = self
            .reactor
            .call(move |env, _| async move { home::set_up(&env, Uuid::nil(), config, counts, control) });
        if let Err(error) = set_up.wait() {
            tracing::error!("the storage engine does not run: {error}");
        }
        self
    }

    /// What scrubbing has done.
    pub fn scrub_counts(&self) -> Arc<EngineCounts> {
        Arc::clone(&self.scrub)
    }

    /// What scrubbing found damaged, a sentence each.
    pub async fn damages(&self, state: &Arc<State>) -> Vec<String> {
        let state = Arc::clone(state);
        self.run(move |home| async move { home.damages(&state) }).await.unwrap_or_default()
    }

    /// Runs `act` where the engine is.
    async fn run<T, F>(&self, act: impl FnOnce(Rc<Home>) -> F + Send + 'static) -> Result<T, Reason>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let ran = self.reactor.call(move |_, _| async move { act(home()).await }).await;
        ran.map_err(|error| Reason::new(RefusalKind::Unavailable, error.to_string()))
    }

    /// Opens the devices that `state` knows, each but those that were removed, and recovers the groups on them. What
    /// the state does not know is dropped: volumes and snapshots of actions that were not kept. Policies are set to
    /// the state's, and drains go on. A device that cannot be opened is a fault in the report; the others are used. One
    /// that is in use is waited for until `deadline`.
    pub fn start(&self, state: &State, deadline: Instant) {
        futures_lite::future::block_on(async {
            for device in state.devices().values().filter(|device| device.is_open()) {
                let (id, failed) = (device.id, device.state == DeviceState::Failed);
                let open = || OpenDevice::open(Path::new(&device.path), OpenOptions::default());
                let opened = match super::once_free(deadline, open) {
                    Ok(opened) => {
                        self.run(move |home| async move { home.open(opened, id, failed).await }).await
                    }
                    Err(error) => Ok(Err(error.to_string())),
                };
                if let Err(why) = opened.unwrap_or_else(|reason| Err(reason.why)) {
                    tracing::error!(path = device.path, "a device cannot be used: {why}");
                    self.faults.lock().expect("no panic while held").insert(id, why);
                }
            }
            self.start_groups(state).await;
            for operation in state.operations().values().filter(|operation| operation.is_running()) {
                match operation.kind {
                    OperationKind::DrainDevice { device, .. } => {
                        self.drain_device(device, operation.id).await
                    }
                    OperationKind::RebuildCopies {} => self.rebuild_copies(operation.id).await,
                }
            }
        });
    }

    /// Recovers the groups of `state`, and brings them to what it says.
    async fn start_groups(&self, state: &State) {
        let known: BTreeMap<EngineGroup, u8> =
            state.groups().values().map(|group| (EngineGroup(group.id.0), group.policy.copies)).collect();
        // Of a group with one copy a checkpoint that is not the newest would be taken for the newest: with a device missing
        // none is opened. For the others the control state knows how new it has to be.
        let all_there = self.faults.lock().expect("no panic while held").is_empty();
        if !all_there {
            tracing::error!(
                "log-structured volumes with one copy are not served until all devices are there; nothing was changed"
            );
        }
        let found = self.run(|home| async move { home.groups.found() }).await.unwrap_or_default();
        for group in found {
            let Some(&copies) = known.get(&group) else {
                if all_there && let Err(error) = self.discard(group).await {
                    tracing::error!(?group, "what was left of a deleted group stays: {error}");
                }
                continue;
            };
            if !all_there && copies == 1 {
                continue;
            }
            let open =
                move |home: Rc<Home>| async move { home.groups.open_copies(group, copies.into()).await };
            let opened = self.run(open).await;
            match opened {
                Ok(Ok(recovery)) => {
                    tracing::info!(?group, replayed = recovery.replayed, "recovered a group");
                }
                Ok(Err(error)) => tracing::error!(?group, "a group cannot be opened: {error}"),
                Err(reason) => tracing::error!(?group, "a group cannot be opened: {}", reason.why),
            }
        }
        for group in state.groups().values() {
            let volumes =
                state.volumes().values().filter(|volume| state.groups()[&volume.group()].id == group.id);
            let volumes = volumes.map(|volume| EngineVolume(volume.id.0)).collect();
            let snapshots = group.snapshots.values().map(|snapshot| snapshot.id).collect();
            self.drop_unknown(group.id, volumes, snapshots).await;
            self.set_policy(group.id, group.policy).await;
        }
    }

    async fn discard(&self, group: EngineGroup) -> Result<(), String> {
        let discarded = self.run(move |home| async move { home.groups.discard(group).await }).await;
        discarded.map_err(|reason| reason.why)?.map_err(|error| error.to_string())
    }

    /// Deletes what the control state does not know of a group.
    async fn drop_unknown(&self, group: GroupId, volumes: BTreeSet<EngineVolume>, snapshots: BTreeSet<u64>) {
        let dropped =
            self.run(move |home| async move { home.drop_unknown(group, &volumes, &snapshots).await });
        if let Ok(Err(error)) = dropped.await {
            tracing::error!(?group, "what was not kept could not be deleted: {error}");
        }
    }

    /// Serves a log-structured volume: puts its handle on its home reactor, and yields that and what it is. A volume
    /// whose size differs from the state's is resized to it.
    ///
    /// # Errors
    /// Why it cannot be served, for people.
    pub async fn open_volume(
        &self,
        volume: &Volume,
        group: &Group,
    ) -> Result<(ReactorId, VolumeInfo), String> {
        let spec = super::spec_of(volume, reactor::Backing::Log(EngineGroup(group.id.0)));
        let control = Control::clone(&self.control);
        let open = move |_, _| async move {
            let disk = home().sized_disk(&spec).await?;
            here().open_log(spec, disk, control)
        };
        let opened = self.reactor.call(open).await;
        Ok((self.reactor.id(), opened.unwrap_or_else(|error| Err(error.to_string()))?))
    }

    /// Makes all that was completed durable, and closes the devices.
    pub fn stop(&self) {
        let closed = self.run(|home| async move { home.groups.close().await });
        let _ = futures_lite::future::block_on(closed);
    }
}

/// Opens a new device, or makes the file that it is to be.
fn open_new(new: &NewDevice) -> Result<OpenDevice, Reason> {
    let path = Path::new(&new.path);
    let opened = match (path.exists(), new.size_bytes) {
        (true, _) => OpenDevice::open(path, OpenOptions::default()),
        (false, Some(size_bytes)) => OpenDevice::create(path, size_bytes, OpenOptions::default()),
        (false, None) => {
            let why = format!("{} does not exist, and no size was given to make it", new.path);
            return Err(Reason::new(RefusalKind::NotFound, why).next("say how large, e.g. --size 100GiB"));
        }
    };
    opened.map_err(|error| Reason::new(super::kind_of(&error), error.to_string()))
}

/// A device's path as the control state keeps it: absolute, without links where they can be followed. A file that is
/// not there yet is named by the directory it will lie in.
///
/// # Errors
/// Why the path leads nowhere.
pub(crate) fn canonical(path: &Path) -> Result<PathBuf, std::io::Error> {
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(path)?;
            let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                return Err(error);
            };
            Ok(std::fs::canonicalize(folder)?.join(name))
        }
        found => found,
    }
}

impl Storage for NodeStorage {
    fn add_device<'a>(&'a self, new: &'a mut NewDevice) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(async move {
            let found = canonical(Path::new(&new.path));
            let path = found
                .map_err(|error| Reason::new(RefusalKind::NotFound, format!("{}: {error}", new.path)))?;
            let Some(text) = path.to_str() else {
                return Err(Reason::new(RefusalKind::Invalid, format!("{} is not UTF-8", path.display())));
            };
            new.path = text.to_owned();
            let made = !path.exists();
            let device = open_new(new)?;
            new.size_bytes = Some(device.size_bytes());
            let (id, force) = (new.id, new.force);
            let added = self.run(move |home| async move { home.format(device, id, force).await }).await;
            let added = added.and_then(|added| added);
            if added.is_err() && made {
                let _ = std::fs::remove_file(&path);
            }
            added
        })
    }

    fn close_device(&self, device: Uuid) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = self.run(move |home| async move { home.close(device).await }).await;
            self.faults.lock().expect("no panic while held").remove(&device);
        })
    }

    fn check_drain(&self, device: Uuid) -> BoxFuture<'_, Result<(), Reason>> {
        Box::pin(async move { self.run(move |home| async move { home.check_drain(device) }).await? })
    }

    fn drain_device(&self, device: Uuid, operation: u64) -> BoxFuture<'_, ()> {
        let control = Control::clone(&self.control);
        Box::pin(async move {
            let _ = self.run(move |home| async move { home.drain(device, operation, control) }).await;
        })
    }

    fn rebuild_copies(&self, operation: u64) -> BoxFuture<'_, ()> {
        let control = Control::clone(&self.control);
        Box::pin(async move {
            let _ = self.run(move |home| async move { home.rebuild(operation, control) }).await;
        })
    }

    fn create_volume(&self, new: LogVolume) -> BoxFuture<'_, Result<(), Reason>> {
        Box::pin(async move { self.run(move |home| async move { home.create_volume(&new).await }).await? })
    }

    fn delete_volume(&self, group: GroupId, volume: VolumeId) -> BoxFuture<'_, ()> {
        let (group, volume) = (EngineGroup(group.0), EngineVolume(volume.0));
        Box::pin(async move {
            let deleted = self.run(move |home| async move { home.groups.delete_volume(group, volume).await });
            if let Ok(Err(error)) = deleted.await {
                tracing::error!(
                    ?group,
                    ?volume,
                    "a volume was not deleted, the next start tries again: {error}"
                );
            }
        })
    }

    fn set_policy(&self, group: GroupId, policy: Policy) -> BoxFuture<'_, ()> {
        let (group, on) = (EngineGroup(group.0), policy.compression == Compression::Lz4);
        Box::pin(async move {
            let set = self.run(move |home| async move { home.set_compression(group, on).await });
            if let Ok(Err(error)) = set.await {
                tracing::error!(?group, "the policy was not set, the next start tries again: {error}");
            }
        })
    }

    fn create_snapshot(&self, group: GroupId) -> BoxFuture<'_, Result<u64, Reason>> {
        let group = EngineGroup(group.0);
        Box::pin(async move { self.run(move |home| async move { home.snapshot(group).await }).await? })
    }

    fn delete_snapshot(&self, group: GroupId, snapshot: u64) -> BoxFuture<'_, ()> {
        let group = EngineGroup(group.0);
        Box::pin(async move {
            let deleted = self.run(move |home| async move { home.delete_snapshot(group, snapshot).await });
            if let Ok(Err(error)) = deleted.await {
                tracing::error!(
                    ?group,
                    snapshot,
                    "a snapshot was not deleted, the next start tries again: {error}"
                );
            }
        })
    }

    fn restore_snapshot(&self, group: GroupId, snapshot: u64) -> BoxFuture<'_, Result<(), Reason>> {
        let group = EngineGroup(group.0);
        Box::pin(
            async move { self.run(move |home| async move { home.restore(group, snapshot).await }).await? },
        )
    }

    fn clone_volume(
        &self,
        group: GroupId,
        snapshot: u64,
        from: VolumeId,
        to: VolumeId,
    ) -> BoxFuture<'_, Result<(), Reason>> {
        let (group, from, to) = (EngineGroup(group.0), EngineVolume(from.0), EngineVolume(to.0));
        let clone = move |home: Rc<Home>| async move { home.clone_volume(group, snapshot, from, to).await };
        Box::pin(async move { self.run(clone).await? })
    }

    fn diff(&self, query: DiffQuery) -> BoxFuture<'_, Result<Diff, Reason>> {
        Box::pin(async move { self.run(move |home| async move { home.diff(query).await }).await? })
    }

    fn snapshot_space(
        &self,
        group: GroupId,
        snapshots: Vec<u64>,
    ) -> BoxFuture<'_, BTreeMap<u64, SnapshotSpace>> {
        let snapshots = BTreeSet::from_iter(snapshots);
        let space = move |home: Rc<Home>| async move { home.snapshot_space(group, &snapshots).await };
        Box::pin(async move { self.run(space).await.unwrap_or_default() })
    }

    fn report(&self) -> BoxFuture<'_, LiveStorage> {
        Box::pin(async move {
            let live = self.run(|home| async move { home.report() }).await;
            let mut live = live.unwrap_or_default();
            live.faults.extend(self.faults.lock().expect("no panic while held").clone());
            live
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_without_links() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        std::fs::write(folder.join("disk"), b"").unwrap();
        std::os::unix::fs::symlink(folder.join("disk"), folder.join("link")).unwrap();
        assert_eq!(canonical(&folder.join("link")).unwrap(), folder.join("disk"));
        assert_eq!(canonical(&folder.join(".//new")).unwrap(), folder.join("new"));
        assert!(canonical(&folder.join("none/new")).is_err());
    }
}
