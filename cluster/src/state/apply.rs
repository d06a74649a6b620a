//! The one entry through which the state changes.

use super::{Action, Command, Event, Name, NodeIdentity, Reason, Refusal, RefusalKind, State};

/// What a rule yields: the events of the change it made, or why it made none.
///
/// Every rule checks first and changes afterwards, so a refusal leaves the state as it was.
pub(super) type Outcome = Result<Vec<Event>, Reason>;

impl State {
    /// Carries `command` out.
    ///
    /// A command that asks for what already holds succeeds without events. On a refusal the state is
    /// unchanged, [`State::applied`] included.
    pub fn apply(&mut self, command: &Command) -> Result<Vec<Event>, Refusal> {
        let events = self.dispatch(command).map_err(|reason| reason.refuse(command.action.describe()))?;
        self.applied += 1;
        debug_assert_eq!(self.check(), Ok(()), "after {command:?}");
        Ok(events)
    }

    fn dispatch(&mut self, command: &Command) -> Outcome {
        let time_ms = command.time_ms;
        match &command.action {
            Action::AddDevice(new) => self.add_device(new, time_ms),
            Action::AllowHost { target, host } => self.allow_host(target, host),
            Action::AttachVolume { target, volume, nsid } => self.attach_volume(target, volume, *nsid),
            Action::ClearChap { host } => self.clear_chap(host),
            Action::CloneVolume(new) => self.clone_volume(new, time_ms),
            Action::CreateSnapshot { snapshot, id } => self.create_snapshot(snapshot, *id, time_ms),
            Action::CreateHost(new) => self.create_host(new, time_ms),
            Action::CreateTarget(new) => self.create_target(new, time_ms),
            Action::CreateVolume(new) => self.create_volume(new, time_ms),
            Action::DeleteHost { host } => self.delete_host(host),
            Action::DeleteSnapshot { snapshot } => self.delete_snapshot(snapshot),
            Action::DeleteTarget { target, force } => self.delete_target(target, *force),
            Action::DeleteVolume { volume } => self.delete_volume(volume),
            Action::DenyHost { target, host } => self.deny_host(target, host),
            Action::DetachVolume { target, volume } => self.detach_volume(target, volume),
            Action::DrainDevice { device } => self.drain_device(*device, time_ms),
            Action::FailDevice { device, why } => self.fail_device(*device, why),
            Action::FinishOperation { operation, failure } => {
                self.finish_operation(*operation, failure.as_deref(), time_ms)
            }
            Action::InitNode { id, name } => {
                if let Some(node) = &self.node {
                    return Err(Reason::new(
                        RefusalKind::Exists,
                        format!("the node has an identity: {}", node.name),
                    ));
                }
                self.node = Some(NodeIdentity { id: *id, name: name.clone(), created_ms: time_ms });
                Ok(vec![Event::NodeNamed { name: name.clone() }])
            }
            Action::NoteLane { group, lane, note } => self.note_lane(*group, *lane, note),
            Action::RebuildCopies => self.rebuild_copies(time_ms),
            Action::RemoveDevice { device, force } => self.remove_device(*device, *force),
            Action::RenameNode { name } => self.rename_node(name),
            Action::RenameVolume { volume, to } => self.rename_volume(volume, to),
            Action::ResizeVolume { volume, size_bytes, allow_shrink } => {
                self.resize_volume(volume, *size_bytes, *allow_shrink)
            }
            Action::RestoreSnapshot { snapshot, force } => self.restore_snapshot(snapshot, *force),
            Action::SetAnaState { target, group, state } => self.set_ana_state(target, group, *state),
            Action::SetAnyHost { target, any_host } => self.set_any_host(target, *any_host),
            Action::SetChap { host, secret, mutual } => self.set_chap(host, secret.as_ref(), mutual.as_ref()),
            Action::SetGroupPolicy { group, compression } => self.set_group_policy(group, *compression),
            Action::SetListen { target, listen } => self.set_listen(target, listen),
            Action::SetReservation { volume, generation, blob } => {
                self.set_reservation(*volume, *generation, blob)
            }
        }
    }

    fn rename_node(&mut self, name: &Name) -> Outcome {
        let Some(node) = &mut self.node else {
            return Err(Reason::new(RefusalKind::NotFound, "the node has no identity yet"));
        };
        if node.name == *name {
            return Ok(Vec::new());
        }
        node.name = name.clone();
        Ok(vec![Event::NodeNamed { name: name.clone() }])
    }

    /// Counts a change that discovery may show, and says so.
    pub(super) fn discovery_changed(&mut self) -> Event {
        self.discovery_generation += 1;
        Event::DiscoveryChanged { generation: self.discovery_generation }
    }
}

/// The refusal that an object does not exist, with the nearest existing name as advice.
pub(super) fn no_such<'a>(what: &str, name: &str, existing: impl Iterator<Item = &'a str>) -> Reason {
    let reason = Reason::new(RefusalKind::NotFound, format!("there is no {what} {name}"));
    match nearest(name, existing) {
        Some(near) => reason.next(format!("did you mean {near}?")),
        None => reason.next(format!("`ashlar {what} list` shows what there is")),
    }
}

/// The existing name that differs from `name` in the fewest letters, if that is at most a third of it.
fn nearest<'a>(name: &str, existing: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const COMPARED_MAX: usize = 10_000;
    let limit = name.len().div_ceil(3);
    existing
        .take(COMPARED_MAX)
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace to turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter_a) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, letter_b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(letter_a != letter_b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::{command, name};

    #[test]
    fn a_node_gets_its_identity_once() {
        let mut state = State::default();
        let init = command(Action::InitNode { id: uuid::Uuid::from_u128(1), name: name("a") });
        let refusal = state.apply(&command(Action::RenameNode { name: name("b") })).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NotFound);
        assert_eq!(state.apply(&init).unwrap(), [Event::NodeNamed { name: name("a") }]);
        assert_eq!(state.apply(&init).unwrap_err().kind, RefusalKind::Exists);
        assert_eq!(state.apply(&command(Action::RenameNode { name: name("b") })).unwrap().len(), 1);
        assert_eq!(state.apply(&command(Action::RenameNode { name: name("b") })).unwrap(), []);
        assert_eq!(state.node().unwrap().id, uuid::Uuid::from_u128(1));
        assert_eq!(state.node().unwrap().name, name("b"));
        assert_eq!(state.applied(), 3);
    }

    #[test]
    fn advice_names_the_nearest_object() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(nearest("vmwrae", ["vmware", "lab"].into_iter()), Some("vmware"));
        assert_eq!(nearest("db", ["vmware"].into_iter()), None);
        assert!(no_such("volume", "dbb", ["db"].into_iter()).next.contains("did you mean db?"));
    }
}
