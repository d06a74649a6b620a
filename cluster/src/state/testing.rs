//! Shorthand for tests of the state machine.

use super::*;

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub fn volume_name(text: &str) -> VolumeName {
    VolumeName::parse(text).unwrap()
}

pub fn command(action: Action) -> Command {
    Command { time_ms: 1_790_000_000_000, action }
}

/// A memory volume of 1 MiB whose identity is made from its name.
pub fn new_volume(text: &str) -> NewVolume {
    NewVolume {
        id: VolumeId(id_of(text)),
        name: volume_name(text),
        backing: Backing::Memory,
        size_bytes: Some(1 << 20),
        block_size_bytes: None,
        read_only: false,
        compression: None,
        copies: None,
    }
}

/// A thin log-structured volume of 1 MiB.
pub fn log_volume(text: &str) -> NewVolume {
    NewVolume { backing: Backing::Log { thick: false }, ..new_volume(text) }
}

/// A device of 1 TiB whose identity is made from its path.
pub fn new_device(path: &str) -> NewDevice {
    NewDevice { id: id_of(path), path: path.into(), size_bytes: Some(1 << 40), force: false }
}

pub fn snapshot_name(text: &str) -> SnapshotName {
    SnapshotName::parse(text).unwrap()
}

pub fn new_target(text: &str) -> NewTarget {
    NewTarget {
        id: id_of(text),
        name: name(text),
        nqn: None,
        iqn: None,
        listen: Default::default(),
        any_host: false,
    }
}

pub fn new_host(text: &str) -> NewHost {
    let nqn = Nqn::parse(&format!("nqn.2014-08.org.example:{text}")).unwrap();
    NewHost { id: id_of(text), name: name(text), nqn: Some(nqn), iqn: None, chap: None }
}

/// A host with an IQN only, and one-way CHAP.
pub fn chap_host(text: &str, secret: &str) -> NewHost {
    let iqn = Iqn::parse(&format!("iqn.1998-01.com.vmware:{text}")).unwrap();
    let chap = Chap { secret: ChapSecret::parse(secret).unwrap(), mutual: None };
    NewHost { id: id_of(text), name: name(text), nqn: None, iqn: Some(iqn), chap: Some(chap) }
}

pub fn id_of(text: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
}

/// Applies actions that must succeed; yields the events of the last.
pub fn run(state: &mut State, actions: impl IntoIterator<Item = Action>) -> Vec<Event> {
    let mut events = Vec::new();
    for action in actions {
        events = state.apply(&command(action.clone())).unwrap_or_else(|e| panic!("{action:?}: {e:?}"));
    }
    events
}

/// Applies an action that must be refused, and checks that the state is untouched.
pub fn refused(state: &mut State, action: Action) -> Refusal {
    let before = state.clone();
    let refusal = state.apply(&command(action.clone())).expect_err("must be refused");
    assert_eq!(*state, before, "{action:?} was refused and changed the state");
    assert_eq!(refusal.what, action.describe());
    assert!(!refusal.why.is_empty());
    refusal
}

pub use uuid::Uuid;
