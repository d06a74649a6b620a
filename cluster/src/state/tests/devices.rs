//! Devices, and the operations that empty them.

use crate::state::testing::*;
use crate::state::*;

const TIME_MS: u64 = 1_790_000_000_000;

fn add(path: &str) -> Action {
    Action::AddDevice(new_device(path))
}

fn sized(path: &str, size_bytes: Option<u64>) -> Action {
    Action::AddDevice(NewDevice { size_bytes, ..new_device(path) })
}

fn drain(path: &str) -> Action {
    Action::DrainDevice { device: id_of(path) }
}

fn remove(path: &str, force: bool) -> Action {
    Action::RemoveDevice { device: id_of(path), force }
}

fn fail(path: &str) -> Action {
    Action::FailDevice { device: id_of(path), why: "it burns".into() }
}

fn finish(operation: u64, failure: Option<&str>) -> Action {
    Action::FinishOperation { operation, failure: failure.map(str::to_owned) }
}

fn state_of(state: &State, path: &str) -> Option<DeviceState> {
    Some(state.devices().get(&id_of(path))?.state)
}

#[test]
fn adding_fills_every_field() {
    let mut state = State::default();
    assert_eq!(run(&mut state, [add("/dev/x")]), [Event::DeviceAdded { device: id_of("/dev/x") }]);
    let expected = Device {
        id: id_of("/dev/x"),
        path: "/dev/x".into(),
        size_bytes: 1 << 40,
        added_ms: TIME_MS,
        state: DeviceState::Active,
        failure: None,
    };
    assert_eq!(state.device_at("/dev/x"), Some(&expected));
    assert_eq!(state.active_devices().count(), 1);
}

#[test]
fn adding_is_refused_for_what_is_used_or_impossible() {
    let mut state = State::default();
    let image = NewVolume { backing: Backing::Image { path: "/srv/a.raw".into() }, ..new_volume("img") };
    run(&mut state, [add("/dev/x"), Action::CreateVolume(image)]);
    let same_id = Action::AddDevice(NewDevice { path: "/dev/y".into(), ..new_device("/dev/x") });
    let same_path = Action::AddDevice(NewDevice { id: id_of("other"), ..new_device("/dev/x") });
    for (action, kind, why) in [
        (same_id, RefusalKind::Exists, "identity"),
        (same_path, RefusalKind::Exists, "/dev/x is a device of this node already"),
        (add("/srv/a.raw"), RefusalKind::InUse, "volume img serves /srv/a.raw"),
        (add("dev/y"), RefusalKind::Invalid, "absolute"),
        (add("/dev/\0"), RefusalKind::Invalid, "zero byte"),
        (sized("/dev/y", None), RefusalKind::Invalid, "no size"),
        (sized("/dev/y", Some(DEVICE_BYTES_MIN - 1)), RefusalKind::Invalid, "the least is"),
    ] {
        let refusal = refused(&mut state, action);
        assert_eq!(refusal.kind, kind, "{refusal:?}");
        assert!(refusal.why.contains(why), "{refusal:?}");
    }
    let image = NewVolume { backing: Backing::Image { path: "/dev/x".into() }, ..new_volume("img2") };
    let refusal = refused(&mut state, Action::CreateVolume(image));
    assert_eq!(refusal.kind, RefusalKind::InUse, "{refusal:?}");
}

#[test]
fn log_structured_volumes_need_a_device() {
    let mut state = State::default();
    let create = || Action::CreateVolume(log_volume("db"));
    let refusal = refused(&mut state, create());
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(refusal.why, "this node has no device for log-structured volumes");
    assert!(refusal.next.contains("ashlar device add"), "{refusal:?}");
    // One that takes no new data is none.
    run(&mut state, [add("/d"), drain("/d")]);
    refused(&mut state, create());
    run(&mut state, [finish(1, Some("stopped"))]);
    run(&mut state, [create()]);
}

#[test]
fn a_device_is_drained_before_it_goes() {
    let mut state = State::default();
    run(&mut state, [add("/a"), add("/b"), Action::CreateVolume(log_volume("db"))]);
    let refusal = refused(&mut state, remove("/a", true));
    assert!(
        refusal.kind == RefusalKind::InUse && refusal.next.contains("ashlar device remove"),
        "{refusal:?}"
    );
    let events = run(&mut state, [drain("/a")]);
    assert_eq!(events, [Event::DeviceDraining { device: id_of("/a"), operation: 1 }]);
    assert_eq!(run(&mut state, [drain("/a")]), [], "it is being drained already");
    let refusal = refused(&mut state, drain("/b"));
    assert!(refusal.kind == RefusalKind::InUse && refusal.why.contains("no other device"), "{refusal:?}");
    refused(&mut state, remove("/a", false));

    let events = run(&mut state, [finish(1, None)]);
    let ended = Event::OperationEnded { operation: 1 };
    assert_eq!(events, [Event::DeviceClosed { device: id_of("/a") }, ended]);
    assert_eq!(state_of(&state, "/a"), Some(DeviceState::Removed));
    assert_eq!(run(&mut state, [finish(1, Some("late"))]), [], "it has ended");
    refused(&mut state, drain("/a"));
    let events = run(&mut state, [remove("/a", false)]);
    assert_eq!(events, [Event::DeviceForgotten { device: id_of("/a") }]);
    assert_eq!(refused(&mut state, remove("/a", false)).kind, RefusalKind::NotFound);
    assert_eq!(refused(&mut state, drain("/a")).kind, RefusalKind::NotFound);
    let operation = &state.operations()[&1];
    assert_eq!((operation.started_ms, operation.ended_ms), (TIME_MS, Some(TIME_MS)));
    assert_eq!(operation.failure, None);
}

#[test]
fn a_removed_disk_can_come_back() {
    let mut state = State::default();
    run(&mut state, [add("/a"), drain("/a"), finish(1, None)]);
    let again = Action::AddDevice(NewDevice { id: id_of("again"), ..new_device("/a") });
    run(&mut state, [again]);
    assert_eq!(state.devices().keys().copied().collect::<Vec<_>>(), [id_of("again")]);
}

#[test]
fn a_drain_that_fails_leaves_the_device_as_it_was() {
    let mut state = State::default();
    run(&mut state, [add("/a"), add("/b"), Action::CreateVolume(log_volume("db")), drain("/a")]);
    let events = run(&mut state, [finish(1, Some("the others are full"))]);
    assert_eq!(events, [Event::OperationEnded { operation: 1 }]);
    assert_eq!(state_of(&state, "/a"), Some(DeviceState::Active));
    assert_eq!(state.operations()[&1].failure.as_deref(), Some("the others are full"));
    // One that fails meanwhile is a failed one afterwards.
    run(&mut state, [drain("/a"), fail("/a")]);
    assert_eq!(state_of(&state, "/a"), Some(DeviceState::Draining));
    run(&mut state, [finish(2, Some("it burns"))]);
    assert_eq!(state_of(&state, "/a"), Some(DeviceState::Failed));
}

#[test]
fn a_failed_device_is_given_up_only_when_told() {
    let mut state = State::default();
    run(&mut state, [add("/a"), add("/b"), Action::CreateVolume(log_volume("db"))]);
    assert_eq!(run(&mut state, [fail("/a")]), [Event::DeviceFailed { device: id_of("/a") }]);
    assert_eq!(run(&mut state, [fail("/a")]), []);
    assert_eq!(state.devices()[&id_of("/a")].failure.as_deref(), Some("it burns"));
    let refusal = refused(&mut state, remove("/a", false));
    assert!(refusal.kind == RefusalKind::InUse && refusal.next.contains("--force"), "{refusal:?}");
    let events = run(&mut state, [remove("/a", true)]);
    let (closed, forgotten) = (id_of("/a"), id_of("/a"));
    assert_eq!(
        events,
        [Event::DeviceClosed { device: closed }, Event::DeviceForgotten { device: forgotten }]
    );
    assert_eq!(refused(&mut state, fail("/a")).kind, RefusalKind::NotFound);

    let long = Action::FailDevice { device: id_of("/b"), why: "\u{e4}".repeat(FAILURE_BYTES_MAX) };
    run(&mut state, [long]);
    assert_eq!(state.devices()[&id_of("/b")].failure.as_ref().unwrap().len(), FAILURE_BYTES_MAX);
}

#[test]
fn the_last_operations_are_kept() {
    let mut state = State::default();
    run(&mut state, [add("/a"), add("/b")]);
    let ended = OPERATIONS_ENDED_MAX as u64 + 5;
    run(&mut state, [drain("/b")]);
    for operation in 2..=ended + 1 {
        run(&mut state, [drain("/a"), finish(operation, Some("stopped"))]);
    }
    let kept: Vec<u64> = state.operations().keys().copied().collect();
    assert_eq!((kept[0], kept[1], kept.len()), (1, 7, OPERATIONS_ENDED_MAX + 1), "those that run stay");
    let refusal = refused(&mut state, finish(3, None));
    assert!(refusal.why.contains("ended long ago"), "{refusal:?}");
    let refusal = refused(&mut state, finish(1000, None));
    assert!(
        refusal.kind == RefusalKind::NotFound && refusal.why.contains("no operation 1000"),
        "{refusal:?}"
    );
}
