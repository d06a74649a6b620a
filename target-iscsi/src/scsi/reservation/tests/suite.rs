//! What libiscsi's suite expects of persistent reservations.

use super::*;

#[test]
fn register_and_read_it_back() {
    let bench = Bench::new();
    let host = bench.login("a");
    assert_eq!(bench.out(&host, REGISTER_AND_IGNORE, 0, 0, 0xABCD), None);
    assert_eq!(bench.keys(&host).1, [0xABCD]);
    // Again without the key that is registered.
    assert_eq!(bench.out(&host, REGISTER, 0, 0, 0xABCE), CONFLICT);
    assert_eq!(bench.out(&host, REGISTER, 0, 0xABCD, 0), None);
    assert_eq!(bench.keys(&host).1, []);
}

#[test]
fn data_are_cut_to_the_allocation_length_and_the_length_is_whole() {
    let bench = Bench::new();
    let host = bench.login("a");
    bench.out(&host, REGISTER, 0, 0, 1);
    for allocation in [0, 1, 4, 8, 15, 16] {
        let bytes = bench.read(&host, 0, allocation).unwrap();
        assert_eq!(bytes.len(), usize::from(allocation));
        assert!(bytes.len() < 8 || bytes[7] == 8);
    }
}

#[test]
fn service_actions_beyond_the_last_are_refused() {
    let bench = Bench::new();
    let host = bench.login("a");
    for action in 0..0x20 {
        assert_eq!(bench.read(&host, action, 0x4000).is_ok(), action < 4, "{action}");
    }
    for action in 8..0x20 {
        assert_eq!(bench.out(&host, action, 1, 0, 0), Some((5, 0x24, 0)));
    }
}

#[test]
fn every_type_in_the_mask_can_be_reserved_and_released() {
    let bench = Bench::new();
    let host = bench.login("a");
    bench.out(&host, REGISTER_AND_IGNORE, 0, 0, 7);
    let capabilities = bench.read(&host, 2, 0x4000).unwrap();
    assert_eq!((capabilities.len(), &capabilities[4..6]), (8, &[0xEA, 0x01][..]));
    for kind in TYPES {
        assert_eq!(bench.out(&host, RESERVE, kind, 7, 0), None);
        let key = if kind > 6 { 0 } else { 7 };
        assert_eq!(bench.held(&host), Some((key, kind)));
        assert_eq!(bench.out(&host, RELEASE, kind, 7, 0), None);
        assert_eq!(bench.held(&host), None);
    }
}

#[test]
fn who_may_do_what_with_each_type() {
    // Per type: a registered other reads, writes; one that is not registered reads, writes.
    for (kind, allowed) in [
        (1, [true, false, true, false]),
        (3, [false; 4]),
        (5, [true, true, true, false]),
        (6, [true, true, false, false]),
        (7, [true, true, true, false]),
        (8, [true, true, false, false]),
    ] {
        let bench = Bench::new();
        let (one, two) = (bench.login("a"), bench.login("b"));
        bench.out(&one, REGISTER_AND_IGNORE, 0, 0, 1);
        bench.out(&two, REGISTER_AND_IGNORE, 0, 0, 2);
        assert_eq!(bench.out(&one, RESERVE, kind, 1, 0), None);
        assert_eq!((bench.try_read(&one), bench.try_write(&one)), (None, None));
        assert_eq!(
            [bench.try_read(&two), bench.try_write(&two)],
            [may(allowed[0]), may(allowed[1])],
            "{kind}"
        );
        assert_eq!(bench.out(&two, REGISTER, 0, 2, 0), None);
        assert_eq!(
            [bench.try_read(&two), bench.try_write(&two)],
            [may(allowed[2]), may(allowed[3])],
            "{kind}"
        );
        assert_eq!(bench.out(&one, RELEASE, kind, 1, 0), None);
        assert_eq!(bench.out(&one, REGISTER, 0, 1, 0), None);
        for host in [&one, &two] {
            assert_eq!(bench.attention(host, 1), None, "{kind}");
        }
    }
}

#[test]
fn who_holds_when_the_one_that_reserved_leaves() {
    for kind in TYPES {
        let bench = Bench::new();
        let (one, two) = (bench.login("a"), bench.login("b"));
        bench.out(&one, REGISTER_AND_IGNORE, 0, 0, 1);
        bench.out(&two, REGISTER_AND_IGNORE, 0, 0, 2);
        assert_eq!(bench.out(&one, RESERVE, kind, 1, 0), None);
        assert_eq!(bench.out(&one, REGISTER, 0, 1, 0), None);
        if kind > 6 {
            assert_eq!(bench.held(&one), Some((0, kind)));
            assert_eq!(bench.out(&two, RELEASE, kind, 2, 0), None);
        } else {
            assert_eq!(bench.held(&one), None);
            bench.attention(&two, 1);
        }
        assert_eq!(bench.out(&two, REGISTER, 0, 2, 0), None);
        for host in [&one, &two] {
            assert_eq!(bench.attention(host, 1), None, "{kind}: nobody else is concerned");
        }
    }
}

#[test]
fn clear_counts_once() {
    let bench = Bench::new();
    let host = bench.login("a");
    bench.out(&host, REGISTER_AND_IGNORE, 0, 0, 9);
    let (generation, _) = bench.keys(&host);
    bench.out(&host, RESERVE, 3, 9, 0);
    assert_eq!(bench.out(&host, CLEAR, 0, 9, 0), None);
    assert_eq!(bench.held(&host), None);
    assert_eq!(bench.keys(&host), (generation + 1, vec![]));
}

#[test]
fn preempt_without_a_reservation_removes_registrations() {
    let bench = Bench::new();
    let (one, two) = (bench.login("a"), bench.login("b"));
    bench.out(&one, REGISTER_AND_IGNORE, 0, 0, 1);
    bench.out(&two, REGISTER_AND_IGNORE, 0, 0, 2);
    let (generation, _) = bench.keys(&one);
    assert_eq!(bench.out(&two, PREEMPT, 3, 2, 1), None);
    while bench.attention(&one, 1).is_some() {}
    assert_eq!(bench.keys(&one), (generation + 1, vec![2]));
    assert_eq!(bench.out(&two, PREEMPT, 3, 2, 99), CONFLICT, "nobody has that key");
    assert_eq!(bench.out(&two, PREEMPT, 3, 2, 0), Some((5, 0x26, 0)));
}

#[test]
fn a_release_of_another_type_is_told_apart() {
    let bench = Bench::new();
    let (one, two) = (bench.login("a"), bench.login("b"));
    bench.out(&one, REGISTER, 0, 0, 1);
    bench.out(&two, REGISTER, 0, 0, 2);
    bench.out(&one, RESERVE, 1, 1, 0);
    assert_eq!(bench.out(&one, RELEASE, 3, 1, 0), Some((5, 0x26, 4)));
    assert_eq!(bench.out(&two, RELEASE, 1, 2, 0), None, "no effect");
    assert_eq!(bench.out(&two, RESERVE, 1, 2, 0), CONFLICT);
    assert_eq!(bench.out(&one, RESERVE, 3, 1, 0), CONFLICT, "another type");
    assert_eq!(bench.out(&one, RESERVE, 1, 1, 0), None, "again");
    assert_eq!(bench.held(&two), Some((1, 1)));
}

#[test]
fn a_thousand_keys_are_capped() {
    let bench = Bench::new();
    let hosts: Vec<Host> = (0..300).map(|n| bench.login(&format!("h{n}"))).collect();
    let full = hosts.iter().filter(|host| bench.out(host, REGISTER, 0, 0, 5).is_some()).count();
    assert_eq!(full, 300 - 256);
    assert_eq!(bench.out(&hosts[299], REGISTER, 0, 0, 5), Some((5, 0x55, 4)));
    let status = bench.read(&hosts[0], 3, u16::MAX).unwrap();
    assert_eq!(u32::from_be_bytes(status[4..8].try_into().unwrap()) as usize + 8, status.len());
}
