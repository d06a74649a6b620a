//! A new configuration: what changed, who must be told, who must go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ashlar_env::clock::Instant;

use crate::view::{Subsystem, Targets};

use super::events::Event;
use super::shared::Traffic;
use super::{Hub, ana, discovery};

/// What the hub keeps of a subsystem beyond its configuration.
#[derive(Debug, Default)]
pub(super) struct SubsystemState {
    /// Changes of ANA groups so far (CHGCNT of the ANA log).
    pub ana_changes: u64,
    /// The change count at which each group last changed; of groups that have namespaces.
    pub group_changes: BTreeMap<u32, u64>,
    /// What controllers that have ended moved.
    pub retired: Traffic,
    /// Errors of the medium that controllers that have ended met.
    pub retired_media_errors: u64,
}

/// What a new configuration changed in one subsystem.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    namespaces: BTreeSet<u32>,
    gone: BTreeSet<u32>,
    ana_groups: BTreeSet<u32>,
}

fn difference(before: &Subsystem, after: &Subsystem) -> Difference {
    let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (ana::shown(before).collect(), ana::shown(after).collect());
    let (old_groups, new_groups) = (ana::groups(before), ana::groups(after));
    Difference {
        namespaces: differing(&old, &new),
        gone: old.keys().filter(|nsid| !new.contains_key(nsid)).copied().collect(),
        ana_groups: differing(&old_groups, &new_groups),
    }
}

/// The keys whose values differ, or that only one has.
fn differing<V: PartialEq>(old: &BTreeMap<u32, V>, new: &BTreeMap<u32, V>) -> BTreeSet<u32> {
    old.keys().chain(new.keys()).filter(|key| old.get(key) != new.get(key)).copied().collect()
}

impl SubsystemState {
    fn note(&mut self, difference: &Difference, after: &Subsystem) {
        if difference.ana_groups.is_empty() {
            return;
        }
        self.ana_changes += 1;
        let groups = ana::groups(after);
        for &id in &difference.ana_groups {
            if groups.contains_key(&id) {
                self.group_changes.insert(id, self.ana_changes);
            } else {
                self.group_changes.remove(&id);
            }
        }
    }
}

impl Hub {
    /// Replaces the configuration. Controllers of subsystems that are gone or no longer served where their hosts
    /// connected, or of hosts that may no longer connect, end; the other hosts are told what changed.
    pub fn set_targets(&mut self, targets: Arc<Targets>, _now: Instant) {
        let before = std::mem::replace(&mut self.targets, Arc::clone(&targets));
        self.end_unwelcome(&targets);
        self.subsystems.retain(|nqn, _| targets.subsystems.contains_key(nqn));
        for (nqn, after) in &targets.subsystems {
            let state = self.subsystems.entry(nqn.clone()).or_default();
            let Some(before) = before.subsystems.get(nqn) else { continue };
            let difference = difference(before, after);
            if difference != Difference::default() {
                state.note(&difference, after);
                self.tell(nqn, &difference);
            }
        }
        self.tell_discovery(&before, &targets);
    }

    fn end_unwelcome(&mut self, targets: &Targets) {
        let unwelcome: Vec<u16> = (self.controllers.values())
            .filter(|controller| !controller.discovery)
            .filter(|controller| {
                let subsystem = targets.subsystems.get(&controller.subsystem);
                !subsystem.is_some_and(|subsystem| {
                    subsystem.access.allows(&controller.host_nqn) && subsystem.is_reached_at(controller.local)
                })
            })
            .map(|controller| controller.cntlid)
            .collect();
        for cntlid in unwelcome {
            self.end_controller(cntlid);
        }
    }

    fn tell(&mut self, nqn: &str, difference: &Difference) {
        let concerned: Vec<u16> =
            (self.controllers.values()).filter(|c| c.subsystem == nqn).map(|c| c.cntlid).collect();
        for cntlid in concerned {
            let controller = self.controller_mut(cntlid);
            for &nsid in &difference.namespaces {
                controller.events.changed.add(nsid);
            }
            for &nsid in &difference.gone {
                controller.notifications.forget(nsid);
            }
            if !difference.namespaces.is_empty() {
                controller.events.raise(Event::Namespaces);
            }
            if !difference.ana_groups.is_empty() {
                controller.events.raise(Event::Ana);
            }
            self.deliver_events(cntlid);
        }
    }

    fn tell_discovery(&mut self, before: &Targets, after: &Targets) {
        if !discovery::differs(before, after) {
            return;
        }
        self.discovery_generation += 1;
        let concerned: Vec<u16> = (self.controllers.values())
            .filter(|controller| controller.discovery)
            .filter(|controller| {
                let records = |targets| discovery::records(targets, &controller.host_nqn, controller.local);
                records(before) != records(after)
            })
            .map(|controller| controller.cntlid)
            .collect();
        for cntlid in concerned {
            self.controller_mut(cntlid).events.raise(Event::Discovery);
            self.deliver_events(cntlid);
        }
    }
}
