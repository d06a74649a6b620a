//! Devices: the disks that were given to the node for log-structured volumes.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::apply::Outcome;
use super::model::{Backing, IMAGE_PATH_BYTES_MAX};
use super::operation::OperationKind;
use super::{Event, NewDevice, Reason, RefusalKind, State};

/// Most devices of a cluster.
pub const DEVICES_MAX: usize = 4096;
/// Smallest device, in bytes: room for a few chunks and their headers.
pub const DEVICE_BYTES_MIN: u64 = 1 << 30;
/// Longest reason that is kept of a failure, in bytes.
pub const FAILURE_BYTES_MAX: usize = 1024;

/// What a device is used for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// It takes data.
    Active,
    /// What it holds is being moved to other devices.
    Draining,
    /// It failed a write: nothing more is written to it. What it held is repaired elsewhere where there is a copy.
    Failed,
    /// It holds nothing any more and is closed: it may be pulled.
    Removed,
}

impl DeviceState {
    /// The word on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            DeviceState::Active => "active",
            DeviceState::Draining => "draining",
            DeviceState::Failed => "failed",
            DeviceState::Removed => "removed",
        }
    }
}

/// A disk of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Identity; also stands on the disk itself.
    pub id: Uuid,
    /// Absolute path on the node: a block device or a file.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was added, in milliseconds since 1970 UTC.
    pub added_ms: u64,
    /// What it is used for.
    pub state: DeviceState,
    /// Why it failed, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Device {
    /// Whether the node has it open.
    pub fn is_open(&self) -> bool {
        self.state != DeviceState::Removed
    }
}

/// Checks a device's path and size as far as that is possible without looking at it.
pub(super) fn check_device(path: &str, size_bytes: u64) -> Result<(), Reason> {
    let invalid = |why: String| Err(Reason::new(RefusalKind::Invalid, why));
    if !path.starts_with('/') || path.len() > IMAGE_PATH_BYTES_MAX || path.contains('\0') {
        return invalid(
            "the path of a device must be absolute, of at most 4096 bytes, and without a zero byte".into(),
        );
    }
    if size_bytes < DEVICE_BYTES_MIN {
        return invalid(format!("the device has {size_bytes} bytes, the least is {DEVICE_BYTES_MIN}"));
    }
    Ok(())
}

/// The first characters of a reason, as many as are kept.
pub(super) fn shortened(why: &str) -> String {
    let end = (0..=why.len().min(FAILURE_BYTES_MAX)).rev().find(|end| why.is_char_boundary(*end));
    why[..end.unwrap_or(0)].to_owned()
}

impl State {
    pub(crate) fn find_device(&self, id: Uuid) -> Result<&Device, Reason> {
        self.devices.get(&id).ok_or_else(|| {
            Reason::new(RefusalKind::NotFound, format!("there is no device {id}"))
                .next("`ashlar device list` shows what there is")
        })
    }

    /// The device at `path`; one that was removed only where there is no other.
    pub fn device_at(&self, path: &str) -> Option<&Device> {
        let at = self.devices.values().filter(|device| device.path == path);
        at.min_by_key(|device| !device.is_open())
    }

    /// Devices that take data.
    pub fn active_devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().filter(|device| device.state == DeviceState::Active)
    }

    /// Volumes whose data lies on devices.
    pub fn log_volumes(&self) -> impl Iterator<Item = &super::Volume> {
        self.volumes.values().filter(|volume| volume.backing.is_log())
    }

    pub(super) fn add_device(&mut self, new: &NewDevice, time_ms: u64) -> Outcome {
        if self.devices.contains_key(&new.id) {
            let why = format!("a device with the identity {} exists", new.id);
            return Err(Reason::new(RefusalKind::Exists, why));
        }
        if self.devices.len() >= DEVICES_MAX {
            let why = format!("there are {DEVICES_MAX} devices, the most there can be");
            return Err(Reason::new(RefusalKind::Limit, why));
        }
        let Some(size_bytes) = new.size_bytes else {
            return Err(Reason::new(RefusalKind::Invalid, "no size was given")
                .next("say how large the file is to be, e.g. --size 100GiB"));
        };
        check_device(&new.path, size_bytes)?;
        let before = self.device_at(&new.path).map(|device| (device.id, device.is_open()));
        if let Some((_, true)) = before {
            return Err(Reason::new(
                RefusalKind::Exists,
                format!("{} is a device of this node already", new.path),
            ));
        }
        if let Some(volume) = self.image_at(&new.path) {
            return Err(Reason::new(
                RefusalKind::InUse,
                format!("volume {} serves {} as it is", volume.name, new.path),
            )
            .next("a disk is either a device or an image; choose another one"));
        }
        if let Some((removed, false)) = before {
            self.devices.remove(&removed);
        }
        let device = Device {
            id: new.id,
            path: new.path.clone(),
            size_bytes,
            added_ms: time_ms,
            state: DeviceState::Active,
            failure: None,
        };
        self.devices.insert(new.id, device);
        Ok(vec![Event::DeviceAdded { device: new.id }])
    }

    /// The volume that serves `path` as it is.
    pub(super) fn image_at(&self, path: &str) -> Option<&super::Volume> {
        self.volumes
            .values()
            .find(|volume| matches!(&volume.backing, Backing::Image { path: own } if own == path))
    }

    pub(super) fn drain_device(&mut self, id: Uuid, time_ms: u64) -> Outcome {
        let device = self.find_device(id)?;
        let path = device.path.clone();
        match device.state {
            DeviceState::Draining => return Ok(Vec::new()),
            DeviceState::Removed => {
                return Err(Reason::new(RefusalKind::Conflict, "it holds nothing any more"));
            }
            DeviceState::Active | DeviceState::Failed => {}
        }
        let others = self.active_devices().filter(|other| other.id != id).count();
        let volumes = self.log_volumes().count();
        if others == 0 && volumes > 0 {
            return Err(Reason::new(
                RefusalKind::InUse,
                format!("no other device could take what it holds of {volumes} volumes"),
            )
            .next("add another device first: ashlar device add PATH"));
        }
        let operation = self.begin(OperationKind::DrainDevice { device: id, path }, time_ms);
        self.devices.get_mut(&id).expect("found above").state = DeviceState::Draining;
        Ok(vec![Event::DeviceDraining { device: id, operation }])
    }

    /// The end of a drain: the device is empty, or stays what it was.
    pub(super) fn drained(&mut self, id: Uuid, failed: bool) -> Option<Event> {
        let device = self.devices.get_mut(&id).filter(|device| device.state == DeviceState::Draining)?;
        device.state = match (failed, &device.failure) {
            (false, _) => DeviceState::Removed,
            (true, None) => DeviceState::Active,
            (true, Some(_)) => DeviceState::Failed,
        };
        (!failed).then_some(Event::DeviceClosed { device: id })
    }

    pub(super) fn fail_device(&mut self, id: Uuid, why: &str) -> Outcome {
        self.find_device(id)?;
        let device = self.devices.get_mut(&id).expect("found above");
        if device.failure.is_some() || !device.is_open() {
            return Ok(Vec::new());
        }
        device.failure = Some(shortened(why));
        if device.state == DeviceState::Active {
            device.state = DeviceState::Failed;
        }
        Ok(vec![Event::DeviceFailed { device: id }])
    }

    pub(super) fn remove_device(&mut self, id: Uuid, force: bool) -> Outcome {
        let state = self.find_device(id)?.state;
        let volumes = self.log_volumes().count();
        match state {
            DeviceState::Removed => {
                self.devices.remove(&id);
                Ok(vec![Event::DeviceForgotten { device: id }])
            }
            DeviceState::Failed if force || volumes == 0 => {
                self.devices.remove(&id);
                Ok(vec![Event::DeviceClosed { device: id }, Event::DeviceForgotten { device: id }])
            }
            DeviceState::Failed => Err(Reason::new(
                RefusalKind::InUse,
                format!("it failed, and what it held of {volumes} volumes may be nowhere else"),
            )
            .next("--force gives that up for lost")),
            DeviceState::Active | DeviceState::Draining => Err(Reason::new(
                RefusalKind::InUse,
                format!("it is {}, and what it holds must be moved first", state.as_str()),
            )
            .next("`ashlar device remove` moves it; `ashlar operation list` shows how far it is")),
        }
    }
}
