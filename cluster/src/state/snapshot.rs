//! Snapshots of groups, and what is made from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::apply::{Outcome, no_such};
use super::group::Group;
use super::model::{Backing, Volume, VolumeId};
use super::name::{Name, VolumeName};
use super::snapshot_name::{SnapshotName, SnapshotVolumeName};
use super::{Event, NewClone, Reason, RefusalKind, State};

/// Most snapshots of one group.
pub const SNAPSHOTS_PER_GROUP_MAX: usize = 4096;

/// A cut of a group: all its volumes as they were at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The sequence number that the engine gave it, from 1.
    pub id: u64,
    /// Its name within the group.
    pub name: Name,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// The volumes it holds, with their sizes in bytes at that moment. They exist as long as it does.
    pub volumes: BTreeMap<VolumeId, u64>,
}

/// Where a clone comes from: a volume as a snapshot of the same group holds it. The snapshot exists as long as the
/// clone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The snapshot's sequence number.
    pub snapshot: u64,
    /// The volume that was cloned.
    pub volume: VolumeId,
}

impl Group {
    /// The snapshot of this name.
    pub fn snapshot(&self, name: &Name) -> Option<&Snapshot> {
        self.snapshots.values().find(|snapshot| snapshot.name == *name)
    }

    /// The snapshots that hold `volume`, the oldest first.
    pub fn snapshots_of(&self, volume: VolumeId) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.values().filter(move |snapshot| snapshot.volumes.contains_key(&volume))
    }
}

/// At most five names in a sentence.
fn some(names: Vec<String>) -> String {
    const SHOWN_MAX: usize = 5;
    let shown = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl State {
    /// The snapshot of this name, and its group.
    pub(crate) fn find_snapshot(&self, name: &SnapshotName) -> Result<(&Group, &Snapshot), Reason> {
        let group = self.find_group(&name.group)?;
        let found = group.snapshot(&name.snapshot);
        let snapshot = found.ok_or_else(|| {
            let all: Vec<String> =
                group.snapshots.values().map(|s| format!("{}@{}", name.group, s.name)).collect();
            no_such("snapshot", &name.to_string(), all.iter().map(String::as_str))
        })?;
        Ok((group, snapshot))
    }

    /// The volume that `from` names within its snapshot.
    pub(crate) fn find_in_snapshot(&self, from: &SnapshotVolumeName) -> Result<(&Snapshot, &Volume), Reason> {
        let (_, snapshot) = self.find_snapshot(&from.snapshot)?;
        let held = || snapshot.volumes.keys().map(|id| &self.volumes[id]);
        let group = &from.snapshot.group;
        let found = match &from.volume {
            Some(name) => {
                let whole = format!("{group}/{name}");
                let alone = if name == group { group.as_str() } else { whole.as_str() };
                let named = |text: &str| held().find(|volume| volume.name.as_str() == text);
                named(&whole).or_else(|| named(alone))
            }
            None if snapshot.volumes.len() == 1 => held().next(),
            None => {
                let names = held().map(|volume| format!("{}/{}", from.snapshot, in_group(&volume.name)));
                return Err(Reason::new(
                    RefusalKind::Invalid,
                    format!("the snapshot holds {} volumes", snapshot.volumes.len()),
                )
                .next(format!("name one of them: {}", some(names.collect()))));
            }
        };
        let volume = found.ok_or_else(|| {
            let names = held().map(|volume| in_group(&volume.name).to_owned()).collect();
            Reason::new(RefusalKind::NotFound, format!("{} holds no such volume", from.snapshot))
                .next(format!("it holds {}", some(names)))
        })?;
        Ok((snapshot, volume))
    }

    /// The clones that were made from a snapshot of `group`, in the order of their names.
    pub fn clones_of<'a>(&'a self, group: &'a Name, snapshot: u64) -> impl Iterator<Item = &'a Volume> {
        let is_clone =
            move |volume: &&Volume| volume.origin.is_some_and(|origin| origin.snapshot == snapshot);
        self.volumes_of(group).filter(is_clone)
    }

    pub(super) fn create_snapshot(&mut self, name: &SnapshotName, id: Option<u64>, time_ms: u64) -> Outcome {
        let group = self.find_group(&name.group)?;
        if group.snapshot(&name.snapshot).is_some() {
            return Err(Reason::new(RefusalKind::Exists, "a snapshot of that name exists")
                .next("choose another name, or delete the snapshot first"));
        }
        if group.snapshots.len() >= SNAPSHOTS_PER_GROUP_MAX {
            return Err(Reason::new(
                RefusalKind::Limit,
                format!("the group has {SNAPSHOTS_PER_GROUP_MAX} snapshots, the most there can be"),
            )
            .next("delete some that are no longer needed"));
        }
        if let Some(other) = self.volumes_of(&name.group).find(|volume| !volume.backing.is_log()) {
            return Err(Reason::new(
                RefusalKind::Conflict,
                format!(
                    "volume {} is served as it is, and only log-structured volumes have snapshots",
                    other.name
                ),
            )
            .next("keep such volumes in a group of their own"));
        }
        let last = group.snapshots.last_key_value().map_or(0, |(last, _)| *last);
        let Some(id) = id.filter(|id| *id > last) else {
            return Err(Reason::new(
                RefusalKind::Failed,
                format!("the engine numbered it {id:?}, which is not above {last}"),
            ));
        };
        let volumes = self.volumes_of(&name.group).map(|volume| (volume.id, volume.size_bytes)).collect();
        let snapshot = Snapshot { id, name: name.snapshot.clone(), created_ms: time_ms, volumes };
        self.groups.get_mut(&name.group).expect("found above").snapshots.insert(id, snapshot);
        Ok(vec![Event::SnapshotCreated { group: name.group.clone(), snapshot: id }])
    }

    pub(super) fn delete_snapshot(&mut self, name: &SnapshotName) -> Outcome {
        let (group, snapshot) = self.find_snapshot(name)?;
        let (group_id, id) = (group.id, snapshot.id);
        let clones: Vec<String> =
            self.clones_of(&name.group, id).map(|volume| volume.name.to_string()).collect();
        if let Some(first) = clones.first() {
            let next = format!("delete the clones first: ashlar volume delete {first}");
            return Err(Reason::new(
                RefusalKind::InUse,
                format!("volumes were cloned from it: {}", some(clones)),
            )
            .next(next));
        }
        self.groups.get_mut(&name.group).expect("found above").snapshots.remove(&id);
        Ok(vec![Event::SnapshotDeleted { group: name.group.clone(), group_id, snapshot: id }])
    }

    pub(super) fn restore_snapshot(&mut self, name: &SnapshotName, force: bool) -> Outcome {
        let (group, snapshot) = self.find_snapshot(name)?;
        let (id, volumes) = (snapshot.id, snapshot.volumes.clone());
        let later: Vec<String> = group
            .snapshots
            .range(id + 1..)
            .map(|(_, later)| format!("{}@{}", name.group, later.name))
            .collect();
        if !later.is_empty() {
            return Err(Reason::new(
                RefusalKind::Conflict,
                format!("later snapshots are in the way: {}", some(later)),
            )
            .next(format!("delete them first, or clone volumes: ashlar volume clone {name}/VOLUME NAME")));
        }
        let attached = volumes.keys().find_map(|volume| {
            let (target, _) = *self.attachments(*volume).first()?;
            Some((&self.volumes[volume].name, target))
        });
        if let Some((volume, target)) = attached
            && !force
        {
            return Err(Reason::new(
                RefusalKind::InUse,
                format!("volume {volume} is attached to target {target}, and hosts would see it change under them"),
            )
            .next(format!(
                "ashlar target detach {target} {volume}; or unmount it on every host and ask again with --force"
            )));
        }
        for (volume, size_bytes) in &volumes {
            self.volumes.get_mut(volume).expect("a snapshot's volumes exist").size_bytes = *size_bytes;
        }
        let volumes = volumes.into_keys().collect();
        Ok(vec![Event::SnapshotRestored { group: name.group.clone(), snapshot: id, volumes }])
    }

    pub(super) fn clone_volume(&mut self, new: &NewClone, time_ms: u64) -> Outcome {
        let (snapshot, source) = self.find_in_snapshot(&new.from)?;
        let group = &new.from.snapshot.group;
        if new.name.group() != *group {
            return Err(Reason::new(
                RefusalKind::Conflict,
                format!("a clone shares blocks with its snapshot, so it stays in group {group}"),
            )
            .next(format!("call it {group}/{}", in_group(&new.name))));
        }
        self.check_new(new.id, &new.name)?;
        let clone = Volume {
            id: new.id,
            name: new.name.clone(),
            size_bytes: snapshot.volumes[&source.id],
            block_size_bytes: source.block_size_bytes,
            // What a clone shares is reserved by its origin; what it writes is not.
            backing: Backing::Log { thick: false },
            read_only: false,
            created_ms: time_ms,
            reservation: None,
            origin: Some(Origin { snapshot: snapshot.id, volume: source.id }),
        };
        self.volume_names.insert(clone.name.clone(), clone.id);
        self.volumes.insert(clone.id, clone);
        Ok(vec![Event::VolumeCreated { volume: new.id }])
    }

    /// Checks that a volume may go as far as snapshots are concerned.
    pub(super) fn check_in_no_snapshot(&self, volume: &Volume) -> Result<(), Reason> {
        let group = volume.group();
        let snapshots = self.groups[&group].snapshots_of(volume.id);
        let names: Vec<String> = snapshots.map(|snapshot| format!("{group}@{}", snapshot.name)).collect();
        let Some(first) = names.first() else { return Ok(()) };
        let next = format!("delete them first: ashlar snapshot delete {first}");
        Err(Reason::new(RefusalKind::InUse, format!("snapshots hold it: {}", some(names))).next(next))
    }
}

/// The name of a volume within its group.
pub fn in_group(name: &VolumeName) -> &str {
    name.as_str().split_once('/').map_or(name.as_str(), |(_, name)| name)
}
