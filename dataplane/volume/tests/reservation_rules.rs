//! The rules of reservations, one by one.

mod common;

use ashlar_env::VolumeError::{Invalid, ReservationConflict, TooManyRegistrants};
use std::sync::Arc;

use ashlar_env::reservation::{
    HostId, Nexus, NexusAction, NoticeKind, ReservationAction as Action, ReservationType as Type,
};
use ashlar_env::volume::Issuer;
use ashlar_volume::Reservations;
use ashlar_volume::reservation::{Access, Effect, REGISTRANTS_MAX};
use common::host;

const TYPES: [Type; 6] = [
    Type::WriteExclusive,
    Type::ExclusiveAccess,
    Type::WriteExclusiveRegistrantsOnly,
    Type::ExclusiveAccessRegistrantsOnly,
    Type::WriteExclusiveAllRegistrants,
    Type::ExclusiveAccessAllRegistrants,
];

fn register(key: u64) -> Action {
    Action::Register { key, persist: None }
}

fn preempt(key: u64, victim: u64, kind: Type) -> Action {
    Action::Preempt { key, victim, kind, abort: false }
}

fn unregister(key: u64) -> Action {
    Action::Unregister { key, ignore_key: false, persist: None }
}

fn replace(key: u64, new_key: u64, ignore_key: bool) -> Action {
    Action::Replace { key, new_key, ignore_key, persist: None }
}

/// Hosts 1 to 3 registered under keys 11 to 13; host 1 holds where a type is given.
fn three(kind: Option<Type>) -> Reservations {
    let mut state = Reservations::default();
    for n in 1..=3 {
        state.apply(host(n), register(10 + u64::from(n))).unwrap();
    }
    if let Some(kind) = kind {
        state.apply(host(1), Action::Acquire { key: 11, kind }).unwrap();
    }
    state
}

fn holders(state: &Reservations) -> Vec<HostId> {
    state.report().registrants.into_iter().filter(|r| r.holder).map(|r| r.host).collect()
}

fn hosts(state: &Reservations) -> Vec<HostId> {
    state.report().registrants.into_iter().map(|r| r.host).collect()
}

/// Applies what must fail, and sees that the state stays.
fn refuse(state: &mut Reservations, by: u8, action: Action, error: ashlar_env::VolumeError) {
    let before = state.clone();
    assert_eq!(state.apply(host(by), action), Err(error), "{action:?}");
    assert_eq!(*state, before);
}

#[test]
fn who_may_do_what() {
    // Per type: may the holder, another registrant, a stranger read and write?
    let table = [
        (Type::WriteExclusive, [(true, true), (true, false), (true, false)]),
        (Type::ExclusiveAccess, [(true, true), (false, false), (false, false)]),
        (Type::WriteExclusiveRegistrantsOnly, [(true, true), (true, true), (true, false)]),
        (Type::ExclusiveAccessRegistrantsOnly, [(true, true), (true, true), (false, false)]),
        (Type::WriteExclusiveAllRegistrants, [(true, true), (true, true), (true, false)]),
        (Type::ExclusiveAccessAllRegistrants, [(true, true), (true, true), (false, false)]),
    ];
    for (kind, rows) in table {
        let state = three(Some(kind));
        for (by, (reads, writes)) in [1, 2, 9].into_iter().zip(rows) {
            assert_eq!(state.allows(host(by), Access::Read), reads, "{kind:?} {by}");
            assert_eq!(state.allows(host(by), Access::Write), writes, "{kind:?} {by}");
        }
    }
    let free = three(None);
    assert!(free.allows(host(9), Access::Write) && free.allows(host(9), Access::Read));
}

#[test]
fn registering() {
    let mut state = Reservations::default();
    state.apply(host(1), register(11)).unwrap();
    state.apply(host(1), register(11)).unwrap();
    assert_eq!(state.report().generation, 2);
    refuse(&mut state, 1, register(12), ReservationConflict);
    refuse(&mut state, 2, register(0), Invalid);
    refuse(&mut state, 1, replace(99, 12, false), ReservationConflict);
    refuse(&mut state, 2, replace(99, 12, false), ReservationConflict);
    refuse(&mut state, 1, replace(11, 0, false), Invalid);
    state.apply(host(1), replace(11, 12, false)).unwrap();
    state.apply(host(1), replace(99, 13, true)).unwrap();
    state.apply(host(2), replace(99, 13, true)).unwrap();
    assert_eq!(state.report().registrants.iter().map(|r| r.key).collect::<Vec<_>>(), [13, 13]);
    refuse(&mut state, 3, unregister(13), ReservationConflict);
    refuse(&mut state, 2, unregister(99), ReservationConflict);
    state.apply(host(2), unregister(13)).unwrap();
    state.apply(host(1), Action::Unregister { key: 99, ignore_key: true, persist: None }).unwrap();
    assert!(hosts(&state).is_empty());
    assert_eq!(state.report().generation, 7);
}

#[test]
fn persistence_changes_with_the_registration_or_by_itself() {
    let mut state = Reservations::default();
    state.apply(host(1), Action::Register { key: 1, persist: Some(true) }).unwrap();
    state.apply(host(1), register(1)).unwrap();
    assert!(state.persists());
    assert_eq!(state.clone().after_power_loss(), state);
    assert!(state.apply(host(2), Action::SetPersist(false)).unwrap().changed);
    assert!(!state.apply(host(2), Action::SetPersist(false)).unwrap().changed);
    assert_eq!(state.after_power_loss(), Reservations::default());
}

#[test]
fn acquiring() {
    for kind in TYPES {
        let mut state = three(None);
        refuse(&mut state, 9, Action::Acquire { key: 11, kind }, ReservationConflict);
        refuse(&mut state, 1, Action::Acquire { key: 12, kind }, ReservationConflict);
        state.apply(host(1), Action::Acquire { key: 11, kind }).unwrap();
        let all = matches!(kind, Type::WriteExclusiveAllRegistrants | Type::ExclusiveAccessAllRegistrants);
        assert_eq!(holders(&state).len(), if all { 3 } else { 1 });
        // Again by the holder, and by another registrant.
        let again = state.apply(host(1), Action::Acquire { key: 11, kind }).unwrap();
        assert_eq!(again, Effect::default());
        let other = Action::Acquire { key: 12, kind };
        if all {
            assert_eq!(state.apply(host(2), other).unwrap(), Effect::default());
        } else {
            refuse(&mut state, 2, other, ReservationConflict);
        }
        for another in TYPES.into_iter().filter(|&another| another != kind) {
            refuse(&mut state, 1, Action::Acquire { key: 11, kind: another }, ReservationConflict);
        }
        assert_eq!(state.report().generation, 3, "acquiring does not count");
    }
}

#[test]
fn releasing() {
    for kind in TYPES {
        let mut state = three(Some(kind));
        refuse(&mut state, 1, Action::Release { key: 12, kind }, ReservationConflict);
        refuse(&mut state, 9, Action::Release { key: 11, kind }, ReservationConflict);
        for another in TYPES.into_iter().filter(|&another| another != kind) {
            refuse(&mut state, 1, Action::Release { key: 11, kind: another }, Invalid);
        }
        let all = matches!(kind, Type::WriteExclusiveAllRegistrants | Type::ExclusiveAccessAllRegistrants);
        if !all {
            let effect = state.apply(host(2), Action::Release { key: 12, kind }).unwrap();
            assert_eq!(effect, Effect::default(), "a registrant that does not hold");
        }
        let told = if matches!(kind, Type::WriteExclusive | Type::ExclusiveAccess) { 0 } else { 2 };
        let effect = state.apply(host(1), Action::Release { key: 11, kind }).unwrap();
        assert!(effect.notices.iter().all(|n| n.1 == NoticeKind::ReservationReleased));
        assert_eq!(effect.notices.len(), told);
        assert!(holders(&state).is_empty() && state.report().kind.is_none());
        assert_eq!(state.report().generation, 3, "releasing does not count");
        assert_eq!(state.apply(host(1), Action::Release { key: 11, kind }).unwrap(), Effect::default());
    }
}

#[test]
fn unregistering_gives_the_reservation_up() {
    for kind in TYPES {
        let mut state = three(Some(kind));
        let effect = state.apply(host(1), unregister(11)).unwrap();
        let all = matches!(kind, Type::WriteExclusiveAllRegistrants | Type::ExclusiveAccessAllRegistrants);
        let shared = !all && !matches!(kind, Type::WriteExclusive | Type::ExclusiveAccess);
        assert_eq!(state.report().kind.is_some(), all);
        assert_eq!(effect.notices.len(), if shared { 2 } else { 0 });
        if all {
            state.apply(host(2), unregister(12)).unwrap();
            assert_eq!(holders(&state), [host(3)]);
            state.apply(host(3), unregister(13)).unwrap();
            assert!(state.report().kind.is_none(), "the last one has gone");
        }
    }
}

#[test]
fn one_who_registers_later_holds_where_all_do() {
    let mut state = three(Some(Type::ExclusiveAccessAllRegistrants));
    assert!(!state.allows(host(4), Access::Read));
    state.apply(host(4), register(14)).unwrap();
    assert!(state.allows(host(4), Access::Write));
    assert_eq!(holders(&state).len(), 4);
}

#[test]
fn preempting_the_holder() {
    for kind in &TYPES[..4] {
        for to in TYPES {
            let mut state = three(Some(*kind));
            refuse(&mut state, 2, preempt(99, 11, to), ReservationConflict);
            refuse(&mut state, 9, preempt(12, 11, to), ReservationConflict);
            refuse(&mut state, 2, preempt(12, 0, to), Invalid);
            refuse(&mut state, 2, preempt(12, 77, to), ReservationConflict);
            let effect = state.apply(host(2), preempt(12, 11, to)).unwrap();
            assert_eq!(hosts(&state), [host(2), host(3)]);
            assert!(holders(&state).contains(&host(2)));
            assert_eq!(state.report().kind, Some(to));
            let mut told = vec![(host(1), NoticeKind::RegistrationPreempted)];
            if to != *kind {
                told.push((host(3), NoticeKind::ReservationReleased));
            }
            assert_eq!(effect.notices, told);
            assert_eq!(state.report().generation, 4);
        }
    }
}

#[test]
fn preempting_registrants_leaves_the_reservation() {
    let mut state = three(Some(Type::WriteExclusive));
    let effect = state.apply(host(2), preempt(12, 13, Type::ExclusiveAccess)).unwrap();
    assert_eq!(effect.notices, [(host(3), NoticeKind::RegistrationPreempted)]);
    assert_eq!(hosts(&state), [host(1), host(2)]);
    assert_eq!((holders(&state), state.report().kind), (vec![host(1)], Some(Type::WriteExclusive)));
    // Oneself, too, and also without a reservation.
    let mut state = three(None);
    let effect = state.apply(host(2), preempt(12, 12, Type::WriteExclusive)).unwrap();
    assert!(effect.notices.is_empty());
    assert_eq!(hosts(&state), [host(1), host(3)]);
    refuse(&mut state, 1, preempt(11, 0, Type::WriteExclusive), Invalid);
}

#[test]
fn a_holder_that_preempts_itself_changes_the_type() {
    let mut state = three(Some(Type::WriteExclusive));
    state.apply(host(3), replace(13, 11, false)).unwrap();
    let effect = state.apply(host(1), preempt(11, 11, Type::ExclusiveAccess)).unwrap();
    assert_eq!(hosts(&state), [host(1), host(2)], "the other one under the key is removed");
    assert_eq!(holders(&state), [host(1)]);
    let told = [(host(2), NoticeKind::ReservationReleased), (host(3), NoticeKind::RegistrationPreempted)];
    assert_eq!(effect.notices, told);
}

#[test]
fn preempting_where_all_hold() {
    for kind in &TYPES[4..] {
        let mut state = three(Some(*kind));
        let action = Action::Preempt { key: 12, victim: 0, kind: Type::WriteExclusive, abort: true };
        let effect = state.apply(host(2), action).unwrap();
        assert_eq!((hosts(&state), holders(&state)), (vec![host(2)], vec![host(2)]));
        assert_eq!(effect.to_abort, [host(1), host(3)]);
        let mut state = three(Some(*kind));
        state.apply(host(2), preempt(12, 13, Type::WriteExclusive)).unwrap();
        assert_eq!((hosts(&state).len(), state.report().kind), (2, Some(*kind)));
        // Whoever removes everyone, itself included, ends the reservation.
        state.apply(host(1), replace(11, 12, false)).unwrap();
        state.apply(host(1), preempt(12, 12, Type::WriteExclusive)).unwrap();
        assert_eq!((hosts(&state).len(), state.report().kind), (0, None));
    }
}

#[test]
fn clearing() {
    let mut state = three(Some(Type::WriteExclusive));
    refuse(&mut state, 2, Action::Clear { key: 11 }, ReservationConflict);
    let effect = state.apply(host(2), Action::Clear { key: 12 }).unwrap();
    let told = [(host(1), NoticeKind::ReservationPreempted), (host(3), NoticeKind::ReservationPreempted)];
    assert_eq!(effect.notices, told);
    assert!(hosts(&state).is_empty() && state.report().kind.is_none());
    assert_eq!(state.report().generation, 4);
}

#[test]
fn as_many_as_fit_and_no_more() {
    let mut state = Reservations::default();
    let id = |n: usize| HostId((n as u128 + 1).to_be_bytes());
    for n in 0..REGISTRANTS_MAX {
        state.apply(id(n), Action::Register { key: 5, persist: Some(true) }).unwrap();
        if n == 17 {
            let kind = Type::WriteExclusiveAllRegistrants;
            state.apply(id(n), Action::Acquire { key: 5, kind }).unwrap();
        }
    }
    for n in REGISTRANTS_MAX..300 {
        let before = state.clone();
        assert_eq!(state.apply(id(n), register(5)), Err(TooManyRegistrants));
        assert_eq!(state.apply(id(n), replace(0, 5, true)), Err(TooManyRegistrants));
        assert_eq!(state, before);
    }
    // One who is in may go on, and the stored form holds them all.
    state.apply(id(3), register(5)).unwrap();
    let text = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<Reservations>(&text).unwrap(), state);
    let everyone = Action::Preempt { key: 5, victim: 0, kind: Type::WriteExclusive, abort: true };
    assert_eq!(state.apply(id(0), everyone).unwrap().to_abort.len(), REGISTRANTS_MAX - 1);
}

fn nexus(n: u8) -> Arc<Nexus> {
    Arc::new(Nexus::new(&format!("iqn.2026-01.test:{n}"), [n; 6], 1).unwrap())
}

fn issuer(n: u8) -> Issuer {
    Issuer { host: nexus(n).host(), session: u64::from(n) }
}

fn scsi_register(n: u8, key: u64, new_key: u64) -> NexusAction {
    NexusAction::Register { nexus: nexus(n), key, new_key, ignore_key: false, persist: false }
}

fn scsi_ignore(n: u8, new_key: u64) -> NexusAction {
    NexusAction::Register { nexus: nexus(n), key: 99, new_key, ignore_key: true, persist: false }
}

#[test]
fn a_scsi_register_follows_its_table() {
    // Registered under which key, the action, the generations it counts, registered afterwards; or a conflict.
    let table = [
        (0, scsi_register(1, 0, 0), Some((0, 0))),
        (0, scsi_register(1, 0, 5), Some((1, 5))),
        (0, scsi_register(1, 7, 5), None),
        (0, scsi_register(1, 7, 0), None),
        (5, scsi_register(1, 5, 6), Some((1, 6))),
        (5, scsi_register(1, 5, 0), Some((1, 0))),
        (5, scsi_register(1, 0, 6), None),
        (5, scsi_register(1, 7, 0), None),
        (0, scsi_ignore(1, 0), Some((0, 0))),
        (0, scsi_ignore(1, 5), Some((1, 5))),
        (5, scsi_ignore(1, 6), Some((1, 6))),
        (5, scsi_ignore(1, 0), Some((1, 0))),
    ];
    for (before, action, expected) in table {
        let mut state = Reservations::default();
        if before != 0 {
            state.apply_nexus(issuer(1), &scsi_register(1, 0, before)).unwrap();
        }
        let generation = state.report().generation;
        let done = state.apply_nexus(issuer(1), &action);
        let report = state.report();
        let key = report.registrants.first().map_or(0, |one| one.key);
        match expected {
            Some((counts, after)) => {
                assert!(done.is_ok(), "{action:?}");
                assert_eq!((report.generation - generation, key), (counts, after), "{action:?}");
            }
            None => {
                assert_eq!(done, Err(ReservationConflict), "{action:?}");
                assert_eq!((report.generation, key), (generation, before), "{action:?}");
            }
        }
    }
}

#[test]
fn nobody_registers_for_another() {
    let mut state = Reservations::default();
    assert_eq!(state.apply_nexus(issuer(1), &scsi_register(2, 0, 5)), Err(Invalid));
    assert_eq!(state, Reservations::default());
}

#[test]
fn scsi_and_nvme_exclude_each_other() {
    let mut state = Reservations::default();
    state.apply_nexus(issuer(1), &scsi_register(1, 0, 5)).unwrap();
    state.apply(host(2), register(6)).unwrap();
    state.apply(issuer(1).host, Action::Acquire { key: 5, kind: Type::WriteExclusive }).unwrap();
    assert!(!state.allows(host(2), Access::Write));
    assert!(state.allows(host(2), Access::Attend));
    let effect = state.apply(host(2), preempt(6, 5, Type::ExclusiveAccess)).unwrap();
    assert_eq!(effect.notices, [(issuer(1).host, NoticeKind::RegistrationPreempted)]);
    assert!(!state.allows(issuer(1).host, Access::Read));
}

#[test]
fn a_move_takes_the_reservation_along() {
    let mut state = Reservations::default();
    state.apply_nexus(issuer(1), &scsi_register(1, 0, 5)).unwrap();
    let moves =
        |unregister| NexusAction::Move { to: nexus(2), key: 5, new_key: 8, unregister, persist: true };
    assert_eq!(state.apply_nexus(issuer(1), &moves(false)), Err(ReservationConflict), "it holds nothing");
    state
        .apply(issuer(1).host, Action::Acquire { key: 5, kind: Type::WriteExclusiveRegistrantsOnly })
        .unwrap();
    let generation = state.report().generation;
    let effect = state.apply_nexus(issuer(1), &moves(true)).unwrap();
    assert_eq!(effect.notices, []);
    let report = state.report();
    assert_eq!((report.generation, report.persist), (generation + 1, true));
    assert_eq!(holders(&state), [issuer(2).host]);
    assert_eq!((report.registrants.len(), report.registrants[0].key), (1, 8));
    assert_eq!(report.registrants[0].nexus, Some(nexus(2)));
}

#[test]
fn the_unit_is_reserved_by_one_session_of_one_host() {
    let mut state = Reservations::default();
    let (reserve, release) = (NexusAction::ReserveUnit, NexusAction::ReleaseUnit);
    for _ in 0..2 {
        state.apply_nexus(issuer(1), &reserve).unwrap();
    }
    assert_eq!(state.apply_nexus(issuer(2), &reserve), Err(ReservationConflict));
    assert!(!state.apply_nexus(issuer(2), &release).unwrap().changed);
    for other in [issuer(2).host, host(3)] {
        for access in [Access::Read, Access::Write, Access::Attend] {
            assert!(!state.allows(other, access));
            assert!(state.allows(issuer(1).host, access));
        }
    }
    // Nobody registers meanwhile, not even the holder, by either protocol.
    assert_eq!(state.apply_nexus(issuer(1), &scsi_register(1, 0, 5)), Err(ReservationConflict));
    refuse(&mut state, 3, register(5), ReservationConflict);
    // Another session of the same host comes, reserves, and only its end counts.
    let newer = Issuer { session: 77, ..issuer(1) };
    state.apply_nexus(newer, &reserve).unwrap();
    assert!(!state.apply_nexus(issuer(1), &release).unwrap().changed);
    assert!(state.apply_nexus(newer, &release).unwrap().changed);
    assert_eq!(state, Reservations::default());
    state.apply_nexus(issuer(1), &reserve).unwrap();
    assert!(state.apply_nexus(issuer(2), &NexusAction::ResetUnit).unwrap().changed);
    assert_eq!(state, Reservations::default());
}

#[test]
fn beside_registrants_a_reserve_is_tolerated_or_a_conflict() {
    for (kind, holder, registrant) in [
        (None, false, false),
        (Some(Type::WriteExclusive), true, false),
        (Some(Type::ExclusiveAccessRegistrantsOnly), true, true),
        (Some(Type::WriteExclusiveAllRegistrants), true, true),
    ] {
        let mut state = three(kind);
        for (by, tolerated) in [(1, holder), (2, registrant), (9, false)] {
            let issuer = Issuer { host: host(by), session: 1 };
            let expected = if tolerated { Ok(Effect::default()) } else { Err(ReservationConflict) };
            for action in [NexusAction::ReserveUnit, NexusAction::ReleaseUnit] {
                assert_eq!(state.apply_nexus(issuer, &action), expected, "{kind:?} {by}");
            }
        }
        assert_eq!(state.report().unit, None);
    }
}
