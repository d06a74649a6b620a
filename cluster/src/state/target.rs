//! Rules for targets: names, namespaces, path states.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::apply::{Outcome, no_such};
use super::model::{
    Access, AnaState, LISTEN_PER_TARGET_MAX, NAMESPACES_PER_TARGET_MAX, SERIAL_CHARS, TARGETS_MAX, Target,
};
use super::name::{DISCOVERY_NQN, Iqn, Nqn, VolumeName};
use super::{Event, Name, NewTarget, Reason, RefusalKind, State};

/// The serial number of a target: the first 20 hexadecimal digits of its identity.
fn serial(id: Uuid) -> String {
    let mut serial = id.simple().to_string().to_ascii_uppercase();
    serial.truncate(SERIAL_CHARS);
    serial
}

fn check_listen(listen: &BTreeSet<SocketAddr>) -> Result<(), Reason> {
    if listen.len() > LISTEN_PER_TARGET_MAX {
        return Err(Reason::new(
            RefusalKind::Limit,
            format!("{} listen addresses were given, the most is {LISTEN_PER_TARGET_MAX}", listen.len()),
        ));
    }
    if let Some(bad) = listen.iter().find(|addr| addr.port() == 0) {
        return Err(Reason::new(RefusalKind::Invalid, format!("listen address {bad} has no port"))
            .next("NVMe/TCP's port is 4420, iSCSI's 3260"));
    }
    Ok(())
}

impl State {
    pub(crate) fn find_target(&self, name: &Name) -> Result<&Target, Reason> {
        self.targets
            .get(name)
            .ok_or_else(|| no_such("target", name.as_str(), self.targets.keys().map(Name::as_str)))
    }

    /// The target to change, after `find_target` has found it.
    pub(super) fn target_mut(&mut self, name: &Name) -> &mut Target {
        self.targets.get_mut(name).expect("the caller has looked it up")
    }

    pub(super) fn create_target(&mut self, new: &NewTarget, time_ms: u64) -> Outcome {
        let exists = |why: String| Err(Reason::new(RefusalKind::Exists, why));
        if self.targets.contains_key(&new.name) {
            return exists("a target of that name exists".into());
        }
        if self.targets.len() >= TARGETS_MAX {
            return Err(Reason::new(
                RefusalKind::Limit,
                format!("there are {TARGETS_MAX} targets, the most there can be"),
            ));
        }
        let nqn = new.nqn.clone().unwrap_or_else(|| Nqn::of_target(&new.name));
        let iqn = new.iqn.clone().unwrap_or_else(|| Iqn::of_target(&new.name));
        if nqn.as_str() == DISCOVERY_NQN {
            return Err(Reason::new(RefusalKind::Invalid, "that NQN belongs to every discovery subsystem"));
        }
        if new.id.is_nil() {
            return Err(Reason::new(RefusalKind::Invalid, "the nil UUID is no identity"));
        }
        let serial = serial(new.id);
        for other in self.targets.values() {
            if other.nqn == nqn {
                return exists(format!("target {} has the NQN {nqn}", other.name));
            }
            if other.iqn == iqn {
                return exists(format!("target {} has the IQN {iqn}", other.name));
            }
            if other.id == new.id || other.serial == serial {
                return exists(format!("target {} has that identity", other.name));
            }
        }
        check_listen(&new.listen)?;

        self.targets.insert(
            new.name.clone(),
            Target {
                id: new.id,
                name: new.name.clone(),
                nqn,
                iqn,
                serial,
                namespaces: BTreeMap::new(),
                access: Access { any_host: new.any_host, hosts: BTreeSet::new() },
                listen: new.listen.clone(),
                ana: BTreeMap::new(),
                created_ms: time_ms,
            },
        );
        Ok(vec![Event::TargetCreated { target: new.name.clone() }, self.discovery_changed()])
    }

    pub(super) fn delete_target(&mut self, name: &Name, force: bool) -> Outcome {
        let target = self.find_target(name)?;
        if !force && let Some(volume) = target.namespaces.values().next() {
            let volume = &self.volumes[volume].name;
            let others = target.namespaces.len() - 1;
            let which = if others == 0 {
                format!("volume {volume} is")
            } else {
                format!("volume {volume} and {others} more are")
            };
            return Err(Reason::new(RefusalKind::InUse, format!("{which} attached to it"))
                .next(format!("ashlar target detach {name} {volume}, or delete with --force")));
        }
        let target = self.targets.remove(name).expect("found above");
        let mut events: Vec<Event> = target
            .namespaces
            .iter()
            .map(|(nsid, volume)| Event::NamespaceDetached {
                target: name.clone(),
                nsid: *nsid,
                volume: *volume,
            })
            .collect();
        events.push(Event::TargetDeleted { target: name.clone(), nqn: target.nqn });
        events.push(self.discovery_changed());
        Ok(events)
    }

    pub(super) fn attach_volume(
        &mut self,
        target_name: &Name,
        name: &VolumeName,
        nsid: Option<u32>,
    ) -> Outcome {
        let volume = self.find_volume(name)?.id;
        let target = self.find_target(target_name)?;
        if let Some(present) = target.nsid_of(volume) {
            return if nsid.is_none_or(|wanted| wanted == present) {
                Err(Reason::new(RefusalKind::Exists, format!("it is attached already, as number {present}")))
            } else {
                Err(Reason::new(RefusalKind::InUse, format!("it is attached already, as number {present}"))
                    .next("detach it first to give it another number"))
            };
        }
        let nsid = match nsid {
            Some(wanted) if !(1..=NAMESPACES_PER_TARGET_MAX).contains(&wanted) => {
                return Err(Reason::new(
                    RefusalKind::Invalid,
                    format!("the number must be from 1 to {NAMESPACES_PER_TARGET_MAX}, not {wanted}"),
                ));
            }
            Some(wanted) => {
                if let Some(other) = target.namespaces.get(&wanted) {
                    let other = &self.volumes[other].name;
                    return Err(Reason::new(
                        RefusalKind::InUse,
                        format!("number {wanted} is volume {other}"),
                    )
                    .next("choose another number, or leave it out for the lowest free one"));
                }
                wanted
            }
            None => lowest_free(target).ok_or_else(|| {
                Reason::new(
                    RefusalKind::Limit,
                    format!("the target has {NAMESPACES_PER_TARGET_MAX} volumes, the most there can be"),
                )
            })?,
        };
        self.target_mut(target_name).namespaces.insert(nsid, volume);
        Ok(vec![Event::NamespaceAttached { target: target_name.clone(), nsid, volume }])
    }

    pub(super) fn detach_volume(&mut self, target_name: &Name, name: &VolumeName) -> Outcome {
        let volume = self.find_volume(name)?.id;
        let Some(nsid) = self.find_target(target_name)?.nsid_of(volume) else {
            return Err(Reason::new(
                RefusalKind::NotFound,
                format!("volume {name} is not attached to target {target_name}"),
            )
            .next(format!("ashlar target show {target_name}")));
        };
        self.target_mut(target_name).namespaces.remove(&nsid);
        let group = name.group();
        if !self.has_group(&self.targets[target_name], &group) {
            self.target_mut(target_name).ana.remove(&group);
        }
        Ok(vec![Event::NamespaceDetached { target: target_name.clone(), nsid, volume }])
    }

    pub(super) fn set_ana_state(&mut self, target_name: &Name, group: &Name, state: AnaState) -> Outcome {
        let target = self.find_target(target_name)?;
        if !self.has_group(target, group) {
            return Err(Reason::new(
                RefusalKind::NotFound,
                format!("target {target_name} has no volume of group {group}"),
            )
            .next(format!("ashlar target show {target_name}")));
        }
        if target.ana_state(group) == state {
            return Ok(Vec::new());
        }
        let ana_group_id = self.groups[group].ana_group_id;
        let ana = &mut self.target_mut(target_name).ana;
        if state == AnaState::default() {
            ana.remove(group);
        } else {
            ana.insert(group.clone(), state);
        }
        Ok(vec![Event::AnaStateChanged {
            target: target_name.clone(),
            group: group.clone(),
            ana_group_id,
            state,
        }])
    }

    pub(super) fn set_listen(&mut self, target_name: &Name, listen: &BTreeSet<SocketAddr>) -> Outcome {
        let target = self.find_target(target_name)?;
        check_listen(listen)?;
        if target.listen == *listen {
            return Ok(Vec::new());
        }
        self.target_mut(target_name).listen = listen.clone();
        Ok(vec![Event::TargetMoved { target: target_name.clone() }, self.discovery_changed()])
    }

    /// Whether a volume of `group` is attached to `target`.
    pub(super) fn has_group(&self, target: &Target, group: &Name) -> bool {
        target.namespaces.values().any(|volume| self.volumes[volume].group() == *group)
    }
}

/// The lowest namespace id that `target` does not use.
fn lowest_free(target: &Target) -> Option<u32> {
    let mut free = 1;
    for nsid in target.namespaces.keys() {
        if *nsid != free {
            break;
        }
        free += 1;
    }
    (free <= NAMESPACES_PER_TARGET_MAX).then_some(free)
}
