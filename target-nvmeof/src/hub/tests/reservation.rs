//! Reservation notifications and persistence.

use ashlar_env::reservation::{HostId, Notice, NoticeKind, ReservationAction, ReservationReport};
use ashlar_env::volume::Outcome;

use super::*;

const EVENT: u32 = 0x80_0006;

fn notice(nsid: u32, kind: NoticeKind) -> Notice {
    Notice { volume: namespace(nsid, 1).volume.id, host: HostId(HOST_ID), kind }
}

/// LPCNT, type, available, NSID.
fn read(bench: &mut Bench, connection: ConnectionId) -> (u64, u8, u8, u32) {
    bench.hub.command(connection, &log(0x80, 0, 64), &[], bench.now);
    let data = bench.completion().unwrap().data.unwrap();
    let nsid = u32::from_le_bytes(data[12..16].try_into().unwrap());
    (u64::from_le_bytes(data[..8].try_into().unwrap()), data[8], data[9], nsid)
}

fn events(bench: &mut Bench) -> Vec<(ConnectionId, u16, u32)> {
    let done = std::iter::from_fn(|| bench.completion());
    done.map(|done| (done.connection, done.cid, done.dw0)).collect()
}

#[test]
fn notifications_reach_all_controllers_of_the_host() {
    let mut bench = Bench::new();
    let (first, _) = bench.enabled(&Wish::admin());
    let (second, _) = bench.enabled(&Wish::admin());
    let (other, _) = bench.enabled(&Wish { host_id: [9; 16], ..Wish::admin() });
    for connection in [first, second, other] {
        bench.hub.command(connection, &event_request(31), &[], bench.now);
        bench.hub.command(connection, &event_request(32), &[], bench.now);
    }
    let notices = [
        notice(2, NoticeKind::RegistrationPreempted),
        notice(1, NoticeKind::ReservationReleased),
        notice(77, NoticeKind::ReservationPreempted),
    ];
    bench.hub.reservation_notices(&notices, bench.now);
    assert_eq!(events(&mut bench), [(first, 31, EVENT), (second, 31, EVENT)]);
    assert_eq!(read(&mut bench, first), (1, 1, 1, 2));
    assert_eq!(events(&mut bench), [(first, 32, EVENT)], "another waits");
    assert_eq!(read(&mut bench, first), (2, 2, 0, 1));
    assert_eq!(read(&mut bench, first), (0, 0, 0, 0), "an empty page");
    assert_eq!(events(&mut bench), []);
}

#[test]
fn masks_hold_notifications_back() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let mask = |nsid: u32, value: u32| Sqe { nsid: nsid.into(), ..set_feature(0x82, value, 0) };
    let get = |nsid: u32| Sqe { nsid: nsid.into(), ..get_feature(0x82, 0, 0) };
    assert_eq!(bench.run(connection, &mask(1, 0b0010)).status, Status::SUCCESS);
    assert_eq!(bench.run(connection, &get(1)).dw0, 0b0010);
    assert_eq!(bench.run(connection, &get(2)).dw0, 0);
    bench.hub.reservation_notices(&[notice(1, NoticeKind::RegistrationPreempted)], bench.now);
    assert_eq!(read(&mut bench, connection).0, 0, "masked");
    bench.hub.reservation_notices(&[notice(1, NoticeKind::ReservationReleased)], bench.now);
    assert_eq!(read(&mut bench, connection), (1, 2, 0, 1));
    assert_eq!(bench.run(connection, &mask(u32::MAX, 0b1110)).status, Status::SUCCESS);
    assert_eq!(bench.run(connection, &get(3)).dw0, 0b1110);
    for nsid in [0, 77, 4097, 0xFFFF_FFFE] {
        assert_eq!(bench.run(connection, &mask(nsid, 2)).status, Status::INVALID_NAMESPACE);
        assert_eq!(bench.run(connection, &get(nsid)).status, Status::INVALID_NAMESPACE);
    }
}

#[test]
fn notifications_are_bounded_and_the_gap_shows() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    for _ in 0..100 {
        bench.hub.reservation_notices(&[notice(1, NoticeKind::ReservationReleased)], bench.now);
    }
    let counts: Vec<u64> =
        std::iter::from_fn(|| Some(read(&mut bench, connection).0).filter(|&count| count != 0)).collect();
    assert_eq!(counts, (1..=64).collect::<Vec<_>>());
    bench.hub.reservation_notices(&[notice(1, NoticeKind::ReservationReleased)], bench.now);
    assert_eq!(read(&mut bench, connection).0, 101);
}

#[test]
fn persistence_is_the_volumes() {
    let mut bench = Bench::new();
    let (connection, granted) = bench.enabled(&Wish::admin());
    let get = Sqe { nsid: 2.into(), ..get_feature(0x83, 0, 0) };
    let set = Sqe { nsid: 2.into(), cid: 78.into(), ..set_feature(0x83, 1, 0) };
    bench.hub.command(connection, &get, &[], bench.now);
    bench.hub.command(connection, &set, &[], bench.now);
    for (expected_cid, expected) in
        [(77, ReservationAction::Report), (78, ReservationAction::SetPersist(true))]
    {
        let Some(Effect::Reserve { connection: by, cid, volume, issuer, action }) = bench.hub.poll_effect()
        else {
            panic!("a reservation action");
        };
        assert_eq!(
            (by, cid, volume, action),
            (connection, expected_cid, namespace(2, 1).volume.id, expected)
        );
        assert_eq!((issuer.host, issuer.session), (HostId(HOST_ID), granted.session));
    }
    let report = Some(Box::new(ReservationReport { persist: true, ..ReservationReport::default() }));
    let outcome = Ok(Outcome::Reservation { report, notices: Box::new([]) });
    bench.hub.reserved(connection, 77, outcome.clone(), bench.now);
    assert_eq!(
        bench.completion().map(|done| (done.cid, done.status, done.dw0)),
        Some((77, Status::SUCCESS, 1))
    );
    bench.hub.reserved(connection, 78, Err(Status::ANA_INACCESSIBLE), bench.now);
    assert_eq!(bench.completion().map(|done| (done.cid, done.status)), Some((78, Status::ANA_INACCESSIBLE)));
    bench.hub.reserved(connection, 78, outcome.clone(), bench.now);
    assert_eq!(bench.completion(), None, "answered once");
    assert_eq!(bench.run(connection, &get_feature(0x83, 0, 0)).status, Status::INVALID_NAMESPACE);

    bench.hub.command(connection, &get, &[], bench.now);
    bench.disconnect(connection);
    bench.hub.poll_effect();
    bench.hub.reserved(connection, 77, outcome, bench.now);
    assert_eq!(bench.completion(), None, "the host is gone");
}
