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
