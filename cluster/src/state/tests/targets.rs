//! Targets: names, namespaces, path states, addresses.

use crate::state::testing::*;
use crate::state::*;

fn create(text: &str) -> Action {
    Action::CreateTarget(new_target(text))
}

fn with(text: &str, change: impl FnOnce(&mut NewTarget)) -> Action {
    let mut new = new_target(text);
    change(&mut new);
    Action::CreateTarget(new)
}

fn attach(target: &str, volume: &str, nsid: Option<u32>) -> Action {
    Action::AttachVolume { target: name(target), volume: volume_name(volume), nsid }
}

fn detach(target: &str, volume: &str) -> Action {
    Action::DetachVolume { target: name(target), volume: volume_name(volume) }
}

fn ana(target: &str, group: &str, state: AnaState) -> Action {
    Action::SetAnaState { target: name(target), group: name(group), state }
}

fn listen(target: &str, addresses: &[&str]) -> Action {
    let listen = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Action::SetListen { target: name(target), listen }
}

fn volumes(names: &[&str]) -> Vec<Action> {
    names.iter().map(|text| Action::CreateVolume(new_volume(text))).collect()
}

/// A state with target `t` and volumes `a`, `b`, `c`.
fn bench() -> State {
    let mut state = State::default();
    run(&mut state, volumes(&["a", "b", "c"]));
    run(&mut state, [create("t")]);
    state
}

#[test]
fn a_fresh_target_has_its_names_and_lets_no_one_in() {
    let mut state = State::default();
    let events = run(&mut state, [create("vmware")]);
    assert_eq!(
        events,
        [Event::TargetCreated { target: name("vmware") }, Event::DiscoveryChanged { generation: 1 }]
    );
    let target = &state.targets()[&name("vmware")];
    assert_eq!(target.nqn.as_str(), "nqn.2026-11.io.ashlar:vmware");
    assert_eq!(target.iqn.as_str(), "iqn.2026-11.io.ashlar:vmware");
    assert_eq!(target.serial.len(), SERIAL_CHARS);
    assert!(!target.access.any_host);
    assert!(!state.may_connect(target, "nqn.2014-08.org.example:esx1"));
}

#[test]
fn names_of_targets_are_unique_in_every_form() {
    let mut state = State::default();
    let nqn = Nqn::parse("nqn.2014-08.org.example:own").unwrap();
    let iqn = Iqn::parse("iqn.2014-08.org.example:own").unwrap();
    run(
        &mut state,
        [with("t", |new| {
            new.nqn = Some(nqn.clone());
            new.iqn = Some(iqn.clone());
        })],
    );
    for action in [
        create("t"),
        with("u", |new| new.nqn = Some(nqn.clone())),
        with("u", |new| new.iqn = Some(iqn.clone())),
        with("u", |new| new.id = id_of("t")),
    ] {
        assert_eq!(refused(&mut state, action).kind, RefusalKind::Exists);
    }
    // Names that differ in case alone give one IQN, because those are compared without regard to it.
    run(&mut state, [create("Lab")]);
    assert_eq!(refused(&mut state, create("lab")).kind, RefusalKind::Exists);
    let discovery = with("d", |new| new.nqn = Some(Nqn::parse(DISCOVERY_NQN).unwrap()));
    assert_eq!(refused(&mut state, discovery).kind, RefusalKind::Invalid);
    assert_eq!(refused(&mut state, with("d", |new| new.id = Uuid::nil())).kind, RefusalKind::Invalid);
}

#[test]
fn numbers_are_the_lowest_free_and_stay() {
    let mut state = bench();
    run(&mut state, [attach("t", "a", None), attach("t", "b", None), attach("t", "c", Some(7))]);
    let numbers = |state: &State| state.targets()[&name("t")].namespaces.keys().copied().collect::<Vec<_>>();
    assert_eq!(numbers(&state), [1, 2, 7]);
    let events = run(&mut state, [detach("t", "a")]);
    let volume = VolumeId(id_of("a"));
    assert_eq!(events, [Event::NamespaceDetached { target: name("t"), nsid: 1, volume }]);
    assert_eq!(numbers(&state), [2, 7]);
    let events = run(&mut state, [attach("t", "a", None)]);
    assert_eq!(events, [Event::NamespaceAttached { target: name("t"), nsid: 1, volume }]);
    assert_eq!(state.attachments(volume), [(&name("t"), 1)]);
}

#[test]
fn attaching_is_refused_when_it_cannot_be() {
    let mut state = bench();
    run(&mut state, [attach("t", "a", Some(3))]);
    assert_eq!(refused(&mut state, attach("t", "a", None)).kind, RefusalKind::Exists);
    assert_eq!(refused(&mut state, attach("t", "a", Some(4))).kind, RefusalKind::InUse);
    let taken = refused(&mut state, attach("t", "b", Some(3)));
    assert_eq!(taken.kind, RefusalKind::InUse);
    assert!(taken.why.contains("number 3 is volume a"), "{taken:?}");
    for nsid in [0, NAMESPACES_PER_TARGET_MAX + 1, u32::MAX] {
        assert_eq!(refused(&mut state, attach("t", "b", Some(nsid))).kind, RefusalKind::Invalid);
    }
    assert_eq!(refused(&mut state, attach("t", "none", None)).kind, RefusalKind::NotFound);
    let typo = refused(&mut state, attach("tt", "b", None));
    assert_eq!((typo.kind, typo.next.as_str()), (RefusalKind::NotFound, "did you mean t?"));
    run(&mut state, [attach("t", "b", Some(NAMESPACES_PER_TARGET_MAX))]);
    assert_eq!(refused(&mut state, detach("t", "c")).kind, RefusalKind::NotFound);
}

#[test]
fn deleting_a_target_is_refused_while_it_has_volumes() {
    let mut state = bench();
    run(&mut state, [attach("t", "a", None), attach("t", "b", None)]);
    let refusal = refused(&mut state, Action::DeleteTarget { target: name("t"), force: false });
    assert_eq!(refusal.kind, RefusalKind::InUse);
    assert!(refusal.why.contains("volume a and 1 more are"), "{refusal:?}");
    let nqn = state.targets()[&name("t")].nqn.clone();
    let before = state.discovery_generation();
    let events = run(&mut state, [Action::DeleteTarget { target: name("t"), force: true }]);
    assert_eq!(
        events,
        [
            Event::NamespaceDetached { target: name("t"), nsid: 1, volume: VolumeId(id_of("a")) },
            Event::NamespaceDetached { target: name("t"), nsid: 2, volume: VolumeId(id_of("b")) },
            Event::TargetDeleted { target: name("t"), nqn },
            Event::DiscoveryChanged { generation: before + 1 },
        ]
    );
    let refusal = refused(&mut state, Action::DeleteTarget { target: name("t"), force: true });
    assert_eq!(refusal.kind, RefusalKind::NotFound);
}

#[test]
fn path_states_belong_to_groups_that_are_attached() {
    let mut state = bench();
    assert_eq!(refused(&mut state, ana("t", "a", AnaState::Inaccessible)).kind, RefusalKind::NotFound);
    run(&mut state, [attach("t", "a", None)]);
    for ana_state in AnaState::ALL.into_iter().rev() {
        let events = run(&mut state, [ana("t", "a", ana_state)]);
        assert_eq!(
            events,
            [Event::AnaStateChanged {
                target: name("t"),
                group: name("a"),
                ana_group_id: 1,
                state: ana_state
            }]
        );
        assert_eq!(state.targets()[&name("t")].ana_state(&name("a")), ana_state);
    }
    assert_eq!(run(&mut state, [ana("t", "a", AnaState::Optimized)]), []);
    // It goes with the last volume of the group.
    run(&mut state, [ana("t", "a", AnaState::Change), detach("t", "a"), attach("t", "a", None)]);
    assert_eq!(state.targets()[&name("t")].ana_state(&name("a")), AnaState::Optimized);
}

#[test]
fn addresses_are_checked_and_change_what_discovery_says() {
    let mut state = bench();
    let events = run(&mut state, [listen("t", &["10.0.0.1:4420", "[fd00::1]:4420"])]);
    assert_eq!(events, [Event::TargetMoved { target: name("t") }, Event::DiscoveryChanged { generation: 2 }]);
    assert_eq!(run(&mut state, [listen("t", &["[fd00::1]:4420", "10.0.0.1:4420"])]), []);
    assert_eq!(refused(&mut state, listen("t", &["10.0.0.1:0"])).kind, RefusalKind::Invalid);
    let many: Vec<String> = (0..=LISTEN_PER_TARGET_MAX).map(|i| format!("10.0.0.{i}:4420")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(refused(&mut state, listen("t", &many)).kind, RefusalKind::Limit);
    run(&mut state, [listen("t", &many[1..])]);
    let bad = with("u", |new| new.listen = ["10.0.0.1:0".parse().unwrap()].into());
    assert_eq!(refused(&mut state, bad).kind, RefusalKind::Invalid);
}
