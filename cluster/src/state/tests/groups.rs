//! Identity and policy of volume groups.

use std::collections::BTreeSet;

use crate::state::testing::*;
use crate::state::*;

fn compressed(text: &str, compression: Compression) -> Action {
    Action::CreateVolume(NewVolume { compression: Some(compression), ..log_volume(text) })
}

fn set(group: &str, compression: Option<Compression>) -> Action {
    Action::SetGroupPolicy { group: name(group), compression }
}

#[test]
fn a_policy_comes_with_the_first_volume_and_changes_online() {
    let mut state = State::default();
    run(&mut state, [Action::AddDevice(new_device("/d")), compressed("vm/boot", Compression::Lz4)]);
    let compression = |state: &State, group: &str| state.groups()[&name(group)].policy.compression;
    assert_eq!(compression(&state, "vm"), Compression::Lz4);
    let refusal = refused(&mut state, compressed("vm/data", Compression::None));
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(refusal.next, "`ashlar group set vm --compress none` changes it");
    run(&mut state, [compressed("vm/data", Compression::Lz4), Action::CreateVolume(log_volume("vm/more"))]);

    assert_eq!(run(&mut state, [set("vm", Some(Compression::Lz4))]), []);
    assert_eq!(run(&mut state, [set("vm", None)]), []);
    let events = run(&mut state, [set("vm", Some(Compression::None))]);
    assert_eq!(events, [Event::GroupPolicyChanged { group: name("vm") }]);
    assert_eq!(compression(&state, "vm"), Compression::None);
    assert_eq!(refused(&mut state, set("vn", None)).next, "did you mean vm?");
}

#[test]
fn only_log_structured_volumes_have_a_policy() {
    let mut state = State::default();
    let memory = NewVolume { compression: Some(Compression::None), ..new_volume("ram") };
    assert_eq!(refused(&mut state, Action::CreateVolume(memory)).kind, RefusalKind::Invalid);
    run(&mut state, [Action::CreateVolume(new_volume("ram"))]);
    let refusal = refused(&mut state, set("ram", Some(Compression::Lz4)));
    assert!(
        refusal.kind == RefusalKind::Conflict && refusal.why.contains("no log-structured"),
        "{refusal:?}"
    );
}

#[test]
fn a_group_has_an_identity_of_its_own() {
    let mut state = State::default();
    run(&mut state, [Action::CreateVolume(new_volume("a/x")), Action::CreateVolume(new_volume("b"))]);
    let id = |state: &State, group: &str| state.groups()[&name(group)].id;
    let (a, b) = (id(&state, "a"), id(&state, "b"));
    assert!(a != b && a.0 != 0 && b.0 != 0);
    let rename =
        |from: &str, to: &str| Action::RenameVolume { volume: volume_name(from), to: volume_name(to) };
    run(&mut state, [rename("b", "c"), Action::CreateVolume(new_volume("a/y"))]);
    assert_eq!((id(&state, "a"), id(&state, "c")), (a, b), "it outlives names and first volumes");
    let delete = |text: &str| Action::DeleteVolume { volume: volume_name(text) };
    run(&mut state, [delete("a/x"), delete("c"), Action::CreateVolume(new_volume("b2/x"))]);
    let ids: BTreeSet<GroupId> = [a, b, id(&state, "b2")].into();
    assert_eq!((ids.len(), id(&state, "a")), (3, a));
}

#[test]
fn copies_come_with_the_first_volume_and_need_devices() {
    let copied =
        |text: &str, copies: u8| Action::CreateVolume(NewVolume { copies: Some(copies), ..log_volume(text) });
    let mut state = State::default();
    run(&mut state, [Action::AddDevice(new_device("/d"))]);
    let refusal = refused(&mut state, copied("vm/boot", 2));
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert!(refusal.why.contains("2 copies need as many devices, and 1 can be used"), "{refusal:?}");
    run(&mut state, [Action::AddDevice(new_device("/e")), copied("vm/boot", 2)]);
    assert_eq!(state.groups()[&name("vm")].policy.copies, 2);
    for copies in [0, 4] {
        assert_eq!(refused(&mut state, copied("x", copies)).kind, RefusalKind::Invalid);
    }
    assert_eq!(refused(&mut state, copied("vm/data", 1)).kind, RefusalKind::Conflict);
    // A device less keeps nothing from a group that is there.
    run(&mut state, [Action::FailDevice { device: id_of("/e"), why: "it burns".into() }]);
    run(&mut state, [copied("vm/data", 2), Action::CreateVolume(log_volume("vm/more"))]);
    run(&mut state, [set("vm", Some(Compression::Lz4))]);
    assert_eq!(state.groups()[&name("vm")].policy, Policy { compression: Compression::Lz4, copies: 2 });
    let memory = NewVolume { copies: Some(1), ..new_volume("ram") };
    assert_eq!(refused(&mut state, Action::CreateVolume(memory)).kind, RefusalKind::Invalid);
    run(&mut state, [Action::CreateVolume(log_volume("one"))]);
    assert_eq!(state.groups()[&name("one")].policy, Policy::default());
    assert!(!String::from_utf8(serde_json::to_vec(&Policy::default()).unwrap()).unwrap().contains("copies"));
}

#[test]
fn missing_copies_are_made_by_one_operation_at_a_time() {
    let mut state = State::default();
    let began = run(&mut state, [Action::RebuildCopies]);
    assert_eq!(began, [Event::RebuildBegan { operation: 1 }]);
    assert_eq!(run(&mut state, [Action::RebuildCopies]), []);
    let ended = run(&mut state, [Action::FinishOperation { operation: 1, failure: None }]);
    assert_eq!(ended, [Event::OperationEnded { operation: 1 }]);
    assert_eq!(run(&mut state, [Action::RebuildCopies]), [Event::RebuildBegan { operation: 2 }]);
}
