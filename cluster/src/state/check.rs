//! What holds in every state, checked when one is read and, in debug builds, after every command.

use std::collections::BTreeSet;

use super::chap::check_chap;
use super::model::{AnaState, NAMESPACES_PER_TARGET_MAX, SERIAL_CHARS, Target};
use super::volume::{check_backing, check_geometry};
use super::{FORMAT_VERSION, State};

/// Turns a broken rule into the sentence that says so.
pub(super) fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule()) }
}

impl State {
    /// Checks every invariant; the error names the object and the rule.
    pub fn check(&self) -> Result<(), String> {
        ensure(self.format_version == FORMAT_VERSION, || format!("format version {}", self.format_version))?;
        self.check_volumes()?;
        self.check_groups()?;
        self.check_storage()?;
        self.check_hosts()?;
        for (name, target) in &self.targets {
            ensure(*name == target.name, || format!("target {} is filed as {name}", target.name))?;
            self.check_target(target).map_err(|rule| format!("target {name}: {rule}"))?;
        }
        self.check_unique_targets()
    }

    fn check_volumes(&self) -> Result<(), String> {
        ensure(self.volume_names.len() == self.volumes.len(), || "two volumes have one name".into())?;
        let mut images = BTreeSet::new();
        for (id, volume) in &self.volumes {
            let name = &volume.name;
            ensure(*id == volume.id, || format!("volume {name} is filed under another identity"))?;
            ensure(self.volume_names.get(name) == Some(id), || {
                format!("volume {name} is not found by name")
            })?;
            check_geometry(volume.size_bytes, volume.block_size_bytes)
                .and_then(|()| check_backing(&volume.backing))
                .map_err(|reason| format!("volume {name}: {}", reason.why))?;
            if let super::Backing::Image { path } = &volume.backing {
                ensure(images.insert(path), || format!("volume {name}: another volume serves {path}"))?;
            }
            ensure(self.groups.contains_key(&volume.group()), || format!("volume {name} has no group"))?;
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), String> {
        let members: BTreeSet<_> = self.volumes.values().map(|volume| volume.group()).collect();
        let mut numbers = BTreeSet::new();
        for (name, group) in &self.groups {
            ensure(members.contains(name), || format!("group {name} has no volume"))?;
            ensure(group.ana_group_id > 0, || format!("group {name} has ANA group id 0"))?;
            ensure(numbers.insert(group.ana_group_id), || format!("group {name} shares its ANA group id"))?;
        }
        Ok(())
    }

    fn check_hosts(&self) -> Result<(), String> {
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (name, host) in &self.hosts {
            ensure(*name == host.name, || format!("host {} is filed as {name}", host.name))?;
            ensure(ids.insert(host.id), || format!("host {name} shares its identity"))?;
            if let Some(chap) = &host.chap {
                check_chap(host.iqn.is_some(), chap)
                    .map_err(|reason| format!("host {name}: {}", reason.why))?;
            }
            let of_host = [host.nqn.as_ref().map(|n| n.as_str()), host.iqn.as_ref().map(|n| n.as_str())];
            ensure(of_host.iter().any(Option::is_some), || format!("host {name} has neither NQN nor IQN"))?;
            for qualified in of_host.into_iter().flatten() {
                ensure(names.insert(qualified), || format!("host {name} shares {qualified}"))?;
            }
        }
        Ok(())
    }

    fn check_target(&self, target: &Target) -> Result<(), String> {
        let serial_ok =
            target.serial.len() == SERIAL_CHARS && target.serial.bytes().all(|b| b.is_ascii_alphanumeric());
        ensure(serial_ok, || format!("serial number {:?}", target.serial))?;
        let mut attached = BTreeSet::new();
        for (nsid, volume) in &target.namespaces {
            ensure((1..=NAMESPACES_PER_TARGET_MAX).contains(nsid), || format!("number {nsid}"))?;
            ensure(self.volumes.contains_key(volume), || format!("number {nsid} is no volume"))?;
            ensure(attached.insert(volume), || {
                format!("number {nsid} is a volume that has another number, too")
            })?;
        }
        for host in &target.access.hosts {
            ensure(self.hosts.contains_key(host), || format!("allows {host}, which is no host"))?;
        }
        for (group, state) in &target.ana {
            ensure(*state != AnaState::Optimized, || format!("group {group} is listed as optimized"))?;
            ensure(self.has_group(target, group), || {
                format!("has a state for group {group} and no volume of it")
            })?;
        }
        Ok(())
    }

    fn check_unique_targets(&self) -> Result<(), String> {
        let (mut ids, mut serials, mut names) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (name, target) in &self.targets {
            ensure(ids.insert(target.id), || format!("target {name} shares its identity"))?;
            ensure(serials.insert(&target.serial), || format!("target {name} shares its serial number"))?;
            ensure(names.insert(target.nqn.as_str()), || format!("target {name} shares its NQN"))?;
            ensure(names.insert(target.iqn.as_str()), || format!("target {name} shares its IQN"))?;
        }
        Ok(())
    }
}
