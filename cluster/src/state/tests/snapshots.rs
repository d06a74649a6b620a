//! Snapshots, restores and clones.

use crate::state::testing::*;
use crate::state::*;

fn cut(text: &str, id: u64) -> Action {
    Action::CreateSnapshot { snapshot: snapshot_name(text), id: Some(id) }
}

fn uncut(text: &str) -> Action {
    Action::DeleteSnapshot { snapshot: snapshot_name(text) }
}

fn restore(text: &str, force: bool) -> Action {
    Action::RestoreSnapshot { snapshot: snapshot_name(text), force }
}

fn clone(from: &str, to: &str) -> Action {
    Action::CloneVolume(NewClone {
        id: VolumeId(id_of(to)),
        from: from.parse().unwrap(),
        name: volume_name(to),
    })
}

fn delete(text: &str) -> Action {
    Action::DeleteVolume { volume: volume_name(text) }
}

fn resize(text: &str, size_bytes: u64) -> Action {
    Action::ResizeVolume { volume: volume_name(text), size_bytes, allow_shrink: true }
}

fn id(text: &str) -> VolumeId {
    VolumeId(id_of(text))
}

/// Group `vm` of two log-structured volumes, and group `db` of one.
fn volumes() -> State {
    let mut state = State::default();
    let create = |text: &str| Action::CreateVolume(log_volume(text));
    run(
        &mut state,
        [Action::AddDevice(new_device("/d")), create("vm/boot"), create("vm/data"), create("db")],
    );
    state
}

#[track_caller]
fn assert_refused(state: &mut State, action: Action, kind: RefusalKind, why: &str, next: &str) {
    let refusal = refused(state, action);
    assert_eq!(refusal.kind, kind, "{refusal:?}");
    assert!(refusal.why.contains(why) && refusal.next.contains(next), "{refusal:?}");
}

#[test]
fn a_snapshot_holds_the_whole_group() {
    let mut state = volumes();
    let events = run(&mut state, [resize("vm/data", 2 << 20), cut("vm@a", 5)]);
    assert_eq!(events, [Event::SnapshotCreated { group: name("vm"), snapshot: 5 }]);
    let snapshot = state.groups()[&name("vm")].snapshot(&name("a")).unwrap();
    let expected = Snapshot {
        id: 5,
        name: name("a"),
        created_ms: 1_790_000_000_000,
        volumes: [(id("vm/boot"), 1 << 20), (id("vm/data"), 2 << 20)].into(),
    };
    assert_eq!(*snapshot, expected);
    assert!(state.groups()[&name("db")].snapshots.is_empty());
}

#[test]
fn creating_is_refused_for_what_is_there_and_what_cannot_be() {
    let mut state = volumes();
    run(&mut state, [cut("vm@a", 5), Action::CreateVolume(new_volume("mixed/ram"))]);
    run(&mut state, [Action::CreateVolume(log_volume("mixed/log"))]);
    use RefusalKind::*;
    assert_refused(&mut state, cut("vm@a", 6), Exists, "of that name exists", "another name");
    assert_refused(&mut state, cut("vn@a", 6), NotFound, "no group vn", "did you mean vm?");
    assert_refused(&mut state, cut("mixed@a", 6), Conflict, "volume mixed/ram is served as it is", "");
    for number in [Some(5), Some(4), None] {
        let action = Action::CreateSnapshot { snapshot: snapshot_name("vm@b"), id: number };
        assert_refused(&mut state, action, Failed, "not above 5", "");
    }
    run(&mut state, [cut("vm@b", 6)]);
}

#[test]
fn a_group_has_a_limit_of_snapshots() {
    let mut state = volumes();
    // Put in at once: one command for each would take long.
    let base = Snapshot { id: 0, name: name("x"), created_ms: 0, volumes: [(id("db"), 1 << 20)].into() };
    let group = state.groups.get_mut(&name("db")).unwrap();
    for number in 1..=SNAPSHOTS_PER_GROUP_MAX as u64 {
        let snapshot = Snapshot { id: number, name: name(&format!("s{number}")), ..base.clone() };
        group.snapshots.insert(number, snapshot);
    }
    assert_refused(&mut state, cut("db@last", 1 << 40), RefusalKind::Limit, "4096 snapshots", "delete");
}

#[test]
fn what_a_snapshot_holds_cannot_be_deleted() {
    let mut state = volumes();
    run(&mut state, [cut("vm@a", 1), cut("vm@b", 2), Action::CreateVolume(log_volume("vm/later"))]);
    assert_refused(
        &mut state,
        delete("vm/boot"),
        RefusalKind::InUse,
        "snapshots hold it: vm@a, vm@b",
        "ashlar snapshot delete vm@a",
    );
    run(&mut state, [delete("vm/later"), uncut("vm@a")]);
    refused(&mut state, delete("vm/boot"));
    let events = run(&mut state, [uncut("vm@b")]);
    let group_id = state.groups()[&name("vm")].id;
    assert_eq!(events, [Event::SnapshotDeleted { group: name("vm"), group_id, snapshot: 2 }]);
    run(&mut state, [delete("vm/boot"), delete("vm/data")]);
    assert_refused(&mut state, uncut("vm@b"), RefusalKind::NotFound, "no group vm", "");
    assert_refused(&mut state, uncut("db@b"), RefusalKind::NotFound, "no snapshot db@b", "snapshot list");
    run(&mut state, [cut("db@before", 3)]);
    assert_refused(&mut state, uncut("db@befor"), RefusalKind::NotFound, "", "did you mean db@before?");
}

#[test]
fn only_the_latest_snapshot_is_restored() {
    let mut state = volumes();
    run(&mut state, [cut("vm@a", 1), resize("vm/data", 2 << 20), resize("vm/boot", 4 << 20)]);
    run(&mut state, [Action::CreateVolume(log_volume("vm/later")), resize("vm/later", 8 << 20)]);
    let events = run(&mut state, [restore("vm@a", false)]);
    let volumes = vec![id("vm/boot"), id("vm/data")];
    let mut restored = volumes.clone();
    restored.sort();
    assert_eq!(events, [Event::SnapshotRestored { group: name("vm"), snapshot: 1, volumes: restored }]);
    assert!(volumes.iter().all(|volume| state.volumes()[volume].size_bytes == 1 << 20));
    assert_eq!(state.volumes()[&id("vm/later")].size_bytes, 8 << 20, "it is not in the snapshot");

    for (number, text) in (2..).zip(["vm@b", "vm@c", "vm@d", "vm@e", "vm@f", "vm@g"]) {
        run(&mut state, [cut(text, number)]);
    }
    assert_refused(
        &mut state,
        restore("vm@a", true),
        RefusalKind::Conflict,
        "later snapshots are in the way: vm@b, vm@c, vm@d, vm@e, vm@f and 1 more",
        "ashlar volume clone vm@a/VOLUME",
    );
    assert_refused(&mut state, restore("vm@x", true), RefusalKind::NotFound, "no snapshot vm@x", "");
    run(&mut state, [restore("vm@g", false)]);
}

#[test]
fn volumes_in_use_are_restored_only_when_told() {
    let mut state = volumes();
    let attach =
        |volume: &str| Action::AttachVolume { target: name("t"), volume: volume_name(volume), nsid: None };
    run(&mut state, [Action::CreateTarget(new_target("t")), attach("db"), cut("vm@a", 1), attach("vm/data")]);
    assert_refused(
        &mut state,
        restore("vm@a", false),
        RefusalKind::InUse,
        "volume vm/data is attached to target t",
        "ashlar target detach t vm/data",
    );
    run(&mut state, [restore("vm@a", true)]);
}

#[test]
fn a_clone_stays_in_its_group_and_holds_its_snapshot() {
    let mut state = volumes();
    run(&mut state, [cut("vm@a", 1), resize("vm/boot", 4 << 20)]);
    let events = run(&mut state, [clone("vm@a/boot", "vm/test")]);
    assert_eq!(events, [Event::VolumeCreated { volume: id("vm/test") }]);
    let made = state.volume(&volume_name("vm/test")).unwrap();
    assert_eq!(made.origin, Some(Origin { snapshot: 1, volume: id("vm/boot") }));
    assert_eq!((made.size_bytes, &made.backing), (1 << 20, &Backing::Log { thick: false }));
    assert_eq!(state.clones_of(&name("vm"), 1).count(), 1);

    use RefusalKind::*;
    assert_refused(&mut state, clone("vm@a/boot", "test"), Conflict, "stays in group vm", "vm/test");
    assert_refused(&mut state, clone("vm@a/boot", "vm/data"), Exists, "of that name", "");
    assert_refused(&mut state, clone("vm@a/none", "vm/x"), NotFound, "no such volume", "it holds ");
    assert_refused(&mut state, clone("vm@a", "vm/x"), Invalid, "holds 2 volumes", "vm@a/boot");
    assert_refused(&mut state, clone("vm@b/boot", "vm/x"), NotFound, "no snapshot vm@b", "vm@a");
    assert_refused(
        &mut state,
        uncut("vm@a"),
        InUse,
        "volumes were cloned from it: vm/test",
        "ashlar volume delete vm/test",
    );
    // A clone is a volume like any other: it is cut with its group, and cloned.
    run(&mut state, [cut("vm@b", 2), clone("vm@b/test", "vm/again")]);
    run(&mut state, [delete("vm/again"), uncut("vm@b"), delete("vm/test"), uncut("vm@a")]);
}

#[test]
fn a_volume_alone_in_its_group_needs_no_name_in_a_snapshot() {
    let mut state = volumes();
    run(&mut state, [cut("db@a", 1), clone("db@a", "db/one"), clone("db@a/db", "db/two")]);
    let rename =
        |from: &str, to: &str| Action::RenameVolume { volume: volume_name(from), to: volume_name(to) };
    run(&mut state, [delete("db/one"), delete("db/two")]);
    // Alone again, it takes the group and its snapshots along.
    run(&mut state, [rename("db", "prod"), clone("prod@a/prod", "prod/one")]);
    assert_refused(&mut state, cut("db@b", 2), RefusalKind::NotFound, "no group db", "");
    run(&mut state, [cut("prod@b", 2), rename("prod/one", "prod/uno"), clone("prod@b/uno", "prod/due")]);
    assert_refused(&mut state, clone("prod@b/one", "prod/x"), RefusalKind::NotFound, "no such volume", "uno");
}

#[test]
fn what_snapshots_contradict_is_refused_when_read() {
    let mut state = volumes();
    run(&mut state, [cut("vm@a", 1), clone("vm@a/boot", "vm/test")]);
    let text = String::from_utf8(state.encode()).unwrap();
    for (from, to, why) in [
        ("\"snapshots\":{\"1\":{\"id\":1", "\"snapshots\":{\"1\":{\"id\":2", "is filed under 1"),
        ("\"origin\":{\"snapshot\":1", "\"origin\":{\"snapshot\":2", "cloned from what is not there"),
        ("\"state\":\"active\"", "\"state\":\"draining\"", "drained by another number"),
        ("\"state\":\"active\"", "\"state\":\"failed\"", "has a failure: false"),
        ("\"path\":\"/d\"", "\"path\":\"d\"", "absolute"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        match State::decode(changed.as_bytes()) {
            Err(DecodeError::Inconsistent(found)) => assert!(found.contains(why), "{to}: {found}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}
