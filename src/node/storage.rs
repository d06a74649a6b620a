//! The seam between the node and the log-structured engine.
//!
//! The control plane asks through [`Storage`]; its documentation says what each method promises, and when it is called.
//! The node itself asks three things more: to open what the control state knows when it starts
//! ([`NodeStorage::start`]), to serve a volume ([`NodeStorage::open_volume`]), and to make all durable at its end
//! ([`NodeStorage::stop`]). Nothing else of the node knows the engine.
//!
//! In this release nothing stands behind the seam: no device can be added, so that no log-structured volume can come to
//! be, and whatever needs one is refused.

use std::path::{Path, PathBuf};

use ashlar_cluster::service::{BoxFuture, Diff, DiffQuery, LiveStorage, LogVolume, Storage};
use ashlar_cluster::state::{
    Group, GroupId, NewDevice, Policy, Reason, RefusalKind, State, Volume, VolumeId, no_device,
};
use ashlar_env::mesh::ReactorId;
use ashlar_env::volume::VolumeInfo;
use uuid::Uuid;

/// The node's devices and what lies on them.
pub(crate) struct NodeStorage {}

impl NodeStorage {
    /// Whether devices can be added. Without, an embedded node does not ask for its own.
    pub const HAS_ENGINE: bool = false;

    pub fn new() -> Self {
        Self {}
    }

    /// Opens the devices that `state` knows, each but those that were removed, and recovers the groups on them. What
    /// the state does not know is dropped: volumes and snapshots of actions that were not kept. Policies are set to
    /// the state's, and drains go on. A device that cannot be opened is a fault in the report; the others are used.
    pub fn start(&self, state: &State) {
        for device in state.devices().values().filter(|device| device.is_open()) {
            tracing::error!(path = device.path, "a device cannot be used: {}", no_engine().why);
        }
    }

    /// Serves a log-structured volume: puts its handle on its home reactor, and yields that and what it is. A volume
    /// whose size differs from the state's is resized to it.
    ///
    /// # Errors
    /// Why it cannot be served, for people.
    pub async fn open_volume(
        &self,
        _volume: &Volume,
        _group: &Group,
    ) -> Result<(ReactorId, VolumeInfo), String> {
        Err(no_device().why)
    }

    /// Makes all that was completed durable, and closes the devices.
    pub fn stop(&self) {}
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

fn no_engine() -> Reason {
    Reason::new(RefusalKind::Unavailable, "this release has no engine for log-structured volumes yet")
        .next("serve an existing disk as it is: ashlar volume create NAME --image PATH")
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Storage for NodeStorage {
    fn add_device<'a>(&'a self, _new: &'a mut NewDevice) -> BoxFuture<'a, Result<(), Reason>> {
        ready(Err(no_engine()))
    }

    fn close_device(&self, _device: Uuid) -> BoxFuture<'_, ()> {
        ready(())
    }

    fn check_drain(&self, _device: Uuid) -> BoxFuture<'_, Result<(), Reason>> {
        ready(Err(no_engine()))
    }

    fn drain_device(&self, _device: Uuid, _operation: u64) -> BoxFuture<'_, ()> {
        ready(())
    }

    fn create_volume(&self, _new: LogVolume) -> BoxFuture<'_, Result<(), Reason>> {
        ready(Err(no_device()))
    }

    fn delete_volume(&self, _group: GroupId, _volume: VolumeId) -> BoxFuture<'_, ()> {
        ready(())
    }

    fn set_policy(&self, _group: GroupId, _policy: Policy) -> BoxFuture<'_, ()> {
        ready(())
    }

    fn create_snapshot(&self, _group: GroupId) -> BoxFuture<'_, Result<u64, Reason>> {
        ready(Err(no_device()))
    }

    fn delete_snapshot(&self, _group: GroupId, _snapshot: u64) -> BoxFuture<'_, ()> {
        ready(())
    }

    fn restore_snapshot(&self, _group: GroupId, _snapshot: u64) -> BoxFuture<'_, Result<(), Reason>> {
        ready(Err(no_device()))
    }

    fn clone_volume(
        &self,
        _group: GroupId,
        _snapshot: u64,
        _from: VolumeId,
        _to: VolumeId,
    ) -> BoxFuture<'_, Result<(), Reason>> {
        ready(Err(no_device()))
    }

    fn diff(&self, _query: DiffQuery) -> BoxFuture<'_, Result<Diff, Reason>> {
        ready(Err(no_device()))
    }

    fn report(&self) -> BoxFuture<'_, LiveStorage> {
        ready(LiveStorage::default())
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
