//! Who learns of what, and who does not (SPC-4, section 5.13.11).

use std::sync::{Arc, Mutex};

use ashlar_env::reservation::{Notice, ReservationAction, ReservationType};

use super::*;
use crate::scsi::sense::Asc;

/// Three nexuses registered under keys 1 to 3, the first holds.
fn three(bench: &Bench, kind: u8) -> [Host; 3] {
    let hosts = ["a", "b", "c"].map(|name| bench.login(name));
    for (host, key) in hosts.iter().zip(1..) {
        assert_eq!(bench.out(host, REGISTER, 0, 0, key), None);
    }
    assert_eq!(bench.out(&hosts[0], RESERVE, kind, 1, 0), None);
    hosts
}

fn all(bench: &Bench, hosts: &[Host; 3]) -> [Option<Asc>; 3] {
    let first = hosts.each_ref().map(|host| bench.attention(host, 1));
    for host in hosts {
        assert_eq!(bench.attention(host, 1), None, "one is enough");
        assert_eq!(bench.attention(host, 2), None, "another unit");
    }
    first
}

#[test]
fn each_change_tells_those_concerned() {
    let (released, preempted, removed) = (
        Some(Asc::RESERVATIONS_RELEASED),
        Some(Asc::RESERVATIONS_PREEMPTED),
        Some(Asc::REGISTRATIONS_PREEMPTED),
    );
    // Type held; by whom, action, type, own key, second key; what each of the three learns.
    let table = [
        (1, (0, RELEASE, 1, 1, 0), [None, None, None]),
        (3, (0, RELEASE, 3, 1, 0), [None, None, None]),
        (5, (0, RELEASE, 5, 1, 0), [None, released, released]),
        (8, (1, RELEASE, 8, 2, 0), [released, None, released]),
        (5, (1, RELEASE, 5, 2, 0), [None, None, None]),
        (1, (0, REGISTER, 0, 1, 0), [None, None, None]),
        (6, (0, REGISTER, 0, 1, 0), [None, released, released]),
        (7, (0, REGISTER, 0, 1, 0), [None, None, None]),
        (6, (1, REGISTER, 0, 2, 0), [None, None, None]),
        (1, (1, CLEAR, 0, 2, 0), [preempted, None, preempted]),
        (1, (1, PREEMPT, 1, 2, 1), [removed, None, None]),
        (1, (1, PREEMPT, 3, 2, 1), [removed, None, released]),
        (5, (1, PREEMPT_AND_ABORT, 5, 2, 1), [removed, None, None]),
        (5, (1, PREEMPT, 5, 2, 3), [None, None, removed]),
        (7, (1, PREEMPT, 5, 2, 0), [removed, None, removed]),
        (7, (1, PREEMPT, 7, 2, 3), [None, None, removed]),
        (1, (0, PREEMPT, 5, 1, 1), [None, released, released]),
        (5, (1, REGISTER, 0, 2, 9), [None, None, None]),
    ];
    for (held, (by, action, kind, key, second), want) in table {
        let bench = Bench::new();
        let hosts = three(&bench, held);
        assert_eq!(bench.out(&hosts[by], action, kind, key, second), None, "{held} {action}");
        assert_eq!(all(&bench, &hosts), want, "{held} {by} {action} {kind} {second}");
    }
}

#[test]
fn what_is_refused_tells_nobody() {
    let bench = Bench::new();
    let hosts = three(&bench, 5);
    for (by, action, kind, key, second) in [
        (1, PREEMPT, 5, 9, 1),
        (1, PREEMPT, 5, 2, 77),
        (0, RELEASE, 6, 1, 0),
        (1, CLEAR, 0, 9, 0),
        (1, REGISTER, 0, 9, 0),
    ] {
        assert!(bench.out(&hosts[by], action, kind, key, second).is_some());
    }
    assert_eq!(all(&bench, &hosts), [None; 3]);
}

#[test]
fn both_protocols_tell_each_other() {
    let bench = Bench::new();
    let carried: Arc<Mutex<Vec<Notice>>> = Arc::default();
    let carrier = Arc::clone(&carried);
    bench.shared.carry_notices(move |notices| carrier.lock().unwrap().extend_from_slice(notices));
    let host = bench.login("a");
    let register = ReservationAction::Register { key: 7, persist: None };
    nvme(&bench, 9, Operation::Reserve(register)).unwrap();
    bench.out(&host, REGISTER, 0, 0, 1);
    bench.out(&host, RESERVE, WE_RO, 1, 0);
    assert_eq!(bench.out(&host, RELEASE, WE_RO, 1, 0), None);
    let seen = carried.lock().unwrap().clone();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].host, crate::scsi::testing::issuer(9).host);
    // And the other way round: NVMe's notices come to the nexus.
    let clear = Operation::Reserve(ReservationAction::Clear { key: 7 });
    let told = block_on(bench.stores[0].execute(crate::scsi::testing::issuer(9), clear)).unwrap();
    let ashlar_env::volume::Outcome::Reservation { notices, .. } = told else { panic!("{told:?}") };
    bench.shared.tell(&notices);
    assert_eq!(bench.attention(&host, 1), Some(Asc::RESERVATIONS_PREEMPTED));
}

#[test]
fn an_nvme_host_and_a_nexus_exclude_each_other() {
    let bench = Bench::new();
    let host = bench.login("a");
    let write = || {
        let range = ashlar_env::units::BlockRange::new(ashlar_env::units::Lba(0), 1).unwrap();
        let (data, durability) = (ashlar_env::Buf::zeroes(512), ashlar_env::disk::Durability::Cached);
        Operation::Write { range, data, durability }
    };
    bench.out(&host, REGISTER, 0, 0, 1);
    bench.out(&host, RESERVE, 1, 1, 0);
    assert!(nvme(&bench, 9, write()).is_err());
    nvme(&bench, 9, Operation::Reserve(ReservationAction::Register { key: 2, persist: None })).unwrap();
    let kind = ReservationType::ExclusiveAccess;
    let preempt = ReservationAction::Preempt { key: 2, victim: 1, kind, abort: true };
    nvme(&bench, 9, Operation::Reserve(preempt)).unwrap();
    nvme(&bench, 9, write()).unwrap();
    assert_eq!(bench.try_read(&host), CONFLICT);
    assert_eq!(bench.held(&host), Some((2, 3)));
}
