//! Volume groups: their identity, their policy, and the rules for both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::apply::{Outcome, no_such};
use super::model::VolumeId;
use super::name::{Name, VolumeName};
use super::snapshot::Snapshot;
use super::{Event, NewVolume, Reason, RefusalKind, State, Volume};

/// Identity of a group for as long as it exists, under whatever name; never used again. The storage engine knows the
/// group by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u64);

impl GroupId {
    /// The identity of a group whose first volume is `volume`: 64 bits of a UUID derived from the volume's.
    pub(super) fn of_first(volume: VolumeId) -> Self {
        // Drawn once; it keeps these identities apart from others that are derived from a volume's.
        const NAMESPACE: Uuid = Uuid::from_u128(0x6b1f_93d6_0c52_4ed4_9a35_c1f6_5c3b_7a10);
        GroupId(Uuid::new_v5(&NAMESPACE, volume.0.as_bytes()).as_u64_pair().1)
    }
}

/// How the blocks of a group are compressed.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4, block by block, where it saves at least an eighth.
    Lz4,
}

impl Compression {
    /// The word on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
        }
    }
}

/// What a group's storage is to be like. It holds for what is written from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// How blocks are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// On how many devices everything is kept, 1 to [`COPIES_MAX`]. Fixed when the group is made.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub copies: u8,
}

/// Most copies of a group.
pub const COPIES_MAX: u8 = 3;

fn one() -> u8 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(copies: &u8) -> bool {
    *copies == 1
}

impl Default for Policy {
    fn default() -> Self {
        Self { compression: Compression::default(), copies: 1 }
    }
}

/// A volume group. It comes with its first volume and goes with its last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Identity.
    #[serde(default = "no_identity")]
    pub id: GroupId,
    /// Its ANA group id (and ALUA target port group), from 1; the same in every target.
    pub ana_group_id: u32,
    /// What its storage is to be like.
    #[serde(default)]
    pub policy: Policy,
    /// Its snapshots by the sequence number that the engine gave them: a later one has a larger number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshots: BTreeMap<u64, Snapshot>,
}

/// States of version 1 had no identities of groups; an upgrade gives them.
fn no_identity() -> GroupId {
    GroupId(0)
}

impl State {
    pub(crate) fn find_group(&self, name: &Name) -> Result<&Group, Reason> {
        self.groups
            .get(name)
            .ok_or_else(|| no_such("group", name.as_str(), self.groups.keys().map(Name::as_str)))
    }

    /// The volumes of a group: that of the group's own name first, then the others in the order of their names.
    ///
    /// Names of one group are not neighbours in the map (`db`, `db-2`, `db/x`), so both places are looked at.
    pub fn volumes_of<'a>(&'a self, group: &'a Name) -> impl Iterator<Item = &'a Volume> {
        let alone = VolumeName::parse(group.as_str()).expect("a name is a volume name");
        let first = VolumeName::parse(&format!("{group}/0")).expect("a group and a name");
        let in_group = |(name, _): &(&VolumeName, &VolumeId)| {
            name.as_str().strip_prefix(group.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let inside = self.volume_names.range(first..).take_while(in_group).map(|(_, id)| id);
        self.volume_names.get(&alone).into_iter().chain(inside).map(|id| &self.volumes[id])
    }

    pub(super) fn set_group_policy(&mut self, name: &Name, compression: Option<Compression>) -> Outcome {
        let before = self.find_group(name)?.policy;
        let policy = Policy { compression: compression.unwrap_or(before.compression), ..before };
        if policy == before {
            return Ok(Vec::new());
        }
        if !self.volumes_of(name).any(|volume| volume.backing.is_log()) {
            return Err(no_log_volume(name));
        }
        self.groups.get_mut(name).expect("found above").policy = policy;
        Ok(vec![Event::GroupPolicyChanged { group: name.clone() }])
    }

    /// Checks that a new volume asks for nothing that its group does not have.
    pub(super) fn check_policy(&self, new: &NewVolume) -> Result<(), Reason> {
        self.check_copies(new)?;
        let Some(compression) = new.compression else { return Ok(()) };
        if !new.backing.is_log() {
            return Err(Reason::new(RefusalKind::Invalid, "only log-structured volumes can be compressed")
                .next("leave the compression out"));
        }
        let name = new.name.group();
        match self.groups.get(&name) {
            Some(group) if group.policy.compression != compression => Err(Reason::new(
                RefusalKind::Conflict,
                format!(
                    "group {name} is there, and its compression is {}",
                    group.policy.compression.as_str()
                ),
            )
            .next(format!("`ashlar group set {name} --compress {}` changes it", compression.as_str()))),
            _ => Ok(()),
        }
    }

    /// Checks that a new volume's group has, or can have, as many copies as are asked for.
    fn check_copies(&self, new: &NewVolume) -> Result<(), Reason> {
        let Some(copies) = new.copies else { return Ok(()) };
        if !new.backing.is_log() {
            return Err(Reason::new(RefusalKind::Invalid, "only log-structured volumes are kept in copies")
                .next("leave the number of copies out"));
        }
        if !(1..=COPIES_MAX).contains(&copies) {
            let why = format!("there can be 1 to {COPIES_MAX} copies, not {copies}");
            return Err(Reason::new(RefusalKind::Invalid, why));
        }
        let name = new.name.group();
        let has = self.groups.get(&name).map(|group| group.policy.copies);
        if let Some(has) = has.filter(|has| *has != copies) {
            return Err(Reason::new(
                RefusalKind::Conflict,
                format!("group {name} is there with {has} copies, and their number is fixed"),
            )
            .next("leave the number of copies out, or choose another group"));
        }
        let devices = self.active_devices().count();
        if has.is_none() && devices < usize::from(copies) {
            return Err(Reason::new(
                RefusalKind::Conflict,
                format!("{copies} copies need as many devices, and {devices} can be used"),
            )
            .next("add devices with `ashlar device add PATH`, or ask for fewer copies"));
        }
        Ok(())
    }

    /// Makes the group of the new volume `first` unless it is there.
    pub(super) fn join_group(&mut self, name: Name, first: VolumeId, policy: Policy) {
        if self.groups.contains_key(&name) {
            return;
        }
        let taken: std::collections::BTreeSet<u32> =
            self.groups.values().map(|group| group.ana_group_id).collect();
        let ana_group_id = (1..).find(|id| !taken.contains(id)).expect("fewer groups than numbers");
        let id = self.free_group_id(first);
        self.groups.insert(name, Group { id, ana_group_id, policy, snapshots: BTreeMap::new() });
    }

    /// The identity of a group whose first volume is `first`. Zero is no identity.
    fn free_group_id(&self, first: VolumeId) -> GroupId {
        let mut id = GroupId::of_first(first);
        while id.0 == 0 || self.groups.values().any(|group| group.id == id) {
            id.0 = id.0.wrapping_add(1);
        }
        id
    }

    /// Gives every group of a state of version 1 an identity.
    pub(super) fn identify_groups(&mut self) {
        let names: Vec<Name> = self.groups.keys().cloned().collect();
        for name in names {
            // A group without volumes contradicts the state, which the check after this says.
            let first = self.volumes_of(&name).map(|volume| volume.id).min();
            if let Some(first) = first {
                let id = self.free_group_id(first);
                self.groups.get_mut(&name).expect("it was listed").id = id;
            }
        }
    }

    pub(super) fn rename_group(&mut self, from: &Name, to: &Name) {
        let group = self.groups.remove(from).expect("a volume's group exists");
        self.groups.insert(to.clone(), group);
        for target in self.targets.values_mut() {
            if let Some(ana) = target.ana.remove(from) {
                target.ana.insert(to.clone(), ana);
            }
        }
    }
}

/// The refusal of what only the engine can do for a group.
fn no_log_volume(group: &Name) -> Reason {
    Reason::new(RefusalKind::Conflict, format!("group {group} has no log-structured volume"))
        .next("images, memory and null volumes are served as they are; `ashlar volume create NAME --size SIZE` makes a log-structured one")
}
