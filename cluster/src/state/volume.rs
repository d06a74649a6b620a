//! Rules for volumes and the groups they form.

use super::apply::{Outcome, no_such};
use super::group::Policy;
use super::model::{
    Backing, IMAGE_PATH_BYTES_MAX, RESERVATION_BYTES_MAX, Reservation, VOLUME_BYTES_MAX, VOLUMES_MAX, Volume,
    VolumeId,
};
use super::name::VolumeName;
use super::{Event, NewVolume, Reason, RefusalKind, State};

/// Logical block sizes in bytes that a volume may have.
pub const BLOCK_SIZES_BYTES: [u32; 2] = [512, 4096];

/// The refusal of a log-structured volume where there is no device.
pub fn no_device() -> Reason {
    Reason::new(RefusalKind::Conflict, "this node has no device for log-structured volumes")
        .next("add one with `ashlar device add PATH`, or serve an existing disk as it is with --image")
}

/// Checks a volume's geometry.
pub(super) fn check_geometry(size_bytes: u64, block_size_bytes: u32) -> Result<(), Reason> {
    let invalid = |why: String| Err(Reason::new(RefusalKind::Invalid, why));
    if !BLOCK_SIZES_BYTES.contains(&block_size_bytes) {
        return invalid(format!("the block size must be 512 or 4096 bytes, not {block_size_bytes}"));
    }
    if size_bytes == 0 {
        return invalid("the size must not be zero".into());
    }
    if size_bytes > VOLUME_BYTES_MAX {
        return invalid(format!("the size is {size_bytes} bytes, the most is {VOLUME_BYTES_MAX}"));
    }
    if !size_bytes.is_multiple_of(u64::from(block_size_bytes)) {
        return invalid(format!(
            "the size of {size_bytes} bytes is no multiple of the block size, {block_size_bytes}"
        ));
    }
    Ok(())
}

/// Checks an image's path as far as that is possible without looking at the disk.
pub(super) fn check_backing(backing: &Backing) -> Result<(), Reason> {
    let Backing::Image { path } = backing else { return Ok(()) };
    let invalid = |why: &str| Err(Reason::new(RefusalKind::Invalid, why));
    if !path.starts_with('/') {
        return invalid("the path of the image must be absolute: it is the node that opens it");
    }
    if path.len() > IMAGE_PATH_BYTES_MAX {
        return invalid("the path of the image is longer than 4096 bytes");
    }
    if path.contains('\0') {
        return invalid("the path of the image contains a zero byte");
    }
    Ok(())
}

impl State {
    pub(crate) fn find_volume(&self, name: &VolumeName) -> Result<&Volume, Reason> {
        self.volume(name)
            .ok_or_else(|| no_such("volume", name.as_str(), self.volume_names.keys().map(VolumeName::as_str)))
    }

    pub(super) fn create_volume(&mut self, new: &NewVolume, time_ms: u64) -> Outcome {
        self.check_new(new.id, &new.name)?;
        check_backing(&new.backing)?;
        self.check_place(&new.backing)?;
        let Some(size_bytes) = new.size_bytes else {
            return Err(Reason::new(RefusalKind::Invalid, "no size was given")
                .next("say how large, e.g. --size 1GiB"));
        };
        let block_size_bytes = new.block_size_bytes.unwrap_or(BLOCK_SIZES_BYTES[0]);
        check_geometry(size_bytes, block_size_bytes)?;
        self.check_policy(new)?;

        let policy = Policy {
            compression: new.compression.unwrap_or_default(),
            copies: new.copies.unwrap_or(Policy::default().copies),
        };
        self.join_group(new.name.group(), new.id, policy);
        self.volume_names.insert(new.name.clone(), new.id);
        self.volumes.insert(
            new.id,
            Volume {
                id: new.id,
                name: new.name.clone(),
                size_bytes,
                block_size_bytes,
                backing: new.backing.clone(),
                read_only: new.read_only,
                created_ms: time_ms,
                reservation: None,
                origin: None,
            },
        );
        Ok(vec![Event::VolumeCreated { volume: new.id }])
    }

    /// Checks that a volume of this name and identity can be added.
    pub(super) fn check_new(&self, id: VolumeId, name: &VolumeName) -> Result<(), Reason> {
        if self.volume_names.contains_key(name) {
            return Err(Reason::new(RefusalKind::Exists, "a volume of that name exists")
                .next("choose another name, or use the volume that is there"));
        }
        if self.volumes.contains_key(&id) {
            return Err(Reason::new(RefusalKind::Exists, format!("a volume with the identity {id} exists")));
        }
        if self.volumes.len() >= VOLUMES_MAX {
            return Err(Reason::new(
                RefusalKind::Limit,
                format!("there are {VOLUMES_MAX} volumes, the most there can be"),
            ));
        }
        Ok(())
    }

    /// Checks that nothing else uses what is to hold a volume's data, and that it is there.
    fn check_place(&self, backing: &Backing) -> Result<(), Reason> {
        match backing {
            Backing::Image { path } => {
                if let Some(other) = self.image_at(path) {
                    return Err(Reason::new(
                        RefusalKind::InUse,
                        format!("volume {} serves {path} already", other.name),
                    )
                    .next(
                        "two volumes on one image would overwrite each other; attach that volume instead",
                    ));
                }
                if self.device_at(path).is_some_and(|device| device.is_open()) {
                    return Err(Reason::new(RefusalKind::InUse, format!("{path} is a device of this node"))
                        .next("leave --image out: the volume is then kept on the devices"));
                }
                Ok(())
            }
            Backing::Log { .. } if self.active_devices().next().is_none() => Err(no_device()),
            Backing::Log { .. } | Backing::Memory | Backing::Null => Ok(()),
        }
    }

    pub(super) fn resize_volume(
        &mut self,
        name: &VolumeName,
        size_bytes: u64,
        allow_shrink: bool,
    ) -> Outcome {
        let volume = self.find_volume(name)?;
        check_geometry(size_bytes, volume.block_size_bytes)?;
        let (id, backing, size_bytes_before) = (volume.id, volume.backing.clone(), volume.size_bytes);
        if size_bytes == size_bytes_before {
            return Ok(Vec::new());
        }
        if size_bytes < size_bytes_before && !allow_shrink {
            return Err(Reason::new(
                RefusalKind::Conflict,
                format!("the volume has {size_bytes_before} bytes, and making it smaller would lose what is beyond the new end"),
            )
            .next("shrink the file system first, then ask again with --allow-shrink"));
        }
        self.volumes.get_mut(&id).expect("found above").size_bytes = size_bytes;
        Ok(vec![Event::VolumeResized { volume: id, backing, size_bytes_before, size_bytes }])
    }

    pub(super) fn rename_volume(&mut self, name: &VolumeName, to: &VolumeName) -> Outcome {
        let id = self.find_volume(name)?.id;
        if name == to {
            return Ok(Vec::new());
        }
        if self.volume_names.contains_key(to) {
            return Err(
                Reason::new(RefusalKind::Exists, "a volume of that name exists").next("choose another name")
            );
        }
        let (group, group_to) = (name.group(), to.group());
        if group != group_to {
            if self.volumes_of(&group).count() > 1 {
                return Err(Reason::new(
                    RefusalKind::Conflict,
                    format!("group {group} has other volumes, and a volume cannot leave its group"),
                )
                .next(format!("choose a name in the group: {group}/NAME")));
            }
            if self.groups.contains_key(&group_to) {
                return Err(Reason::new(
                    RefusalKind::Exists,
                    format!("there is a group {group_to}, and a volume cannot join another group"),
                )
                .next("choose another name"));
            }
            self.rename_group(&group, &group_to);
        }
        self.volume_names.remove(name);
        self.volume_names.insert(to.clone(), id);
        self.volumes.get_mut(&id).expect("found above").name = to.clone();
        Ok(vec![Event::VolumeRenamed { volume: id, from: name.clone() }])
    }

    pub(super) fn delete_volume(&mut self, name: &VolumeName) -> Outcome {
        let id = self.find_volume(name)?.id;
        if let Some((target, _)) = self.attachments(id).first() {
            return Err(Reason::new(RefusalKind::InUse, format!("it is attached to target {target}"))
                .next(format!("ashlar target detach {target} {name}")));
        }
        self.check_in_no_snapshot(&self.volumes[&id])?;
        self.volume_names.remove(name);
        let volume = self.volumes.remove(&id).expect("found above");
        let group = name.group();
        let group_id = self.groups[&group].id;
        if self.volumes_of(&group).next().is_none() {
            self.groups.remove(&group);
        }
        Ok(vec![Event::VolumeDeleted { volume: Box::new(volume), group_id }])
    }

    pub(super) fn set_reservation(&mut self, id: VolumeId, generation: u64, blob: &[u8]) -> Outcome {
        let Some(volume) = self.volumes.get_mut(&id) else {
            return Err(Reason::new(
                RefusalKind::NotFound,
                format!("there is no volume with the identity {id}"),
            ));
        };
        if blob.len() > RESERVATION_BYTES_MAX {
            return Err(Reason::new(
                RefusalKind::Limit,
                format!(
                    "the reservation state has {} bytes, the most is {RESERVATION_BYTES_MAX}",
                    blob.len()
                ),
            ));
        }
        if generation == 0 {
            return Err(Reason::new(
                RefusalKind::Invalid,
                "generations of the reservation state count from 1",
            ));
        }
        if let Some(saved) = &volume.reservation {
            if saved.generation == generation && saved.blob == blob {
                return Ok(Vec::new());
            }
            if saved.generation >= generation {
                return Err(Reason::new(
                    RefusalKind::Conflict,
                    format!("generation {} is saved, and {generation} is not later", saved.generation),
                ));
            }
        }
        volume.reservation = Some(Reservation { generation, blob: blob.to_vec() });
        Ok(vec![Event::ReservationSaved { volume: id, generation }])
    }
}
