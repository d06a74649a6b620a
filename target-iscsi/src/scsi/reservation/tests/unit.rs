//! RESERVE and RELEASE of the whole unit (SPC-2), and what others may do meanwhile.

use super::*;

/// RESERVE or RELEASE, (6) or (10), of unit 1.
fn unit(bench: &Bench, host: &Host, opcode: u8) -> Verdict {
    verdict(&bench.send(host, 1, &[opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]))
}

const RESERVE_6: u8 = 0x16;
const RELEASE_6: u8 = 0x17;
const RESERVE_10: u8 = 0x56;
const RELEASE_10: u8 = 0x57;
const MODE_SENSE: [u8; 6] = [0x1A, 0, 0x3F, 0, 0xFF, 0];

#[test]
fn two_initiators() {
    for (reserve, release) in [(RESERVE_6, RELEASE_6), (RESERVE_10, RELEASE_10)] {
        let bench = Bench::new();
        let (one, two) = (bench.login("a"), bench.login("b"));
        assert_eq!(unit(&bench, &one, reserve), None);
        assert_eq!(unit(&bench, &one, reserve), None, "again");
        assert_eq!(unit(&bench, &two, reserve), CONFLICT);
        assert_eq!(unit(&bench, &two, release), None, "no effect");
        assert_eq!(verdict(&bench.send(&one, 1, &MODE_SENSE, &[])), None);
        assert_eq!(verdict(&bench.send(&two, 1, &MODE_SENSE, &[])), CONFLICT);
        assert_eq!(verdict(&bench.send(&two, 2, &MODE_SENSE, &[])), None, "another unit");
        assert_eq!(verdict(&bench.send(&two, 1, &[0; 6], &[])), CONFLICT, "TEST UNIT READY");
        assert_eq!(verdict(&bench.send(&two, 1, &[0x12, 0, 0, 0, 96, 0], &[])), None, "INQUIRY");
        assert_eq!((bench.try_read(&two), bench.try_write(&two)), (CONFLICT, CONFLICT));
        assert_eq!((bench.try_read(&one), bench.try_write(&one)), (None, None));
        assert_eq!(unit(&bench, &one, release), None);
        assert_eq!(unit(&bench, &two, reserve), None);
        assert_eq!(unit(&bench, &two, release), None);
        assert_eq!(bench.try_write(&one), None);
    }
}

#[test]
fn it_ends_with_the_session() {
    let bench = Bench::new();
    let (one, two) = (bench.login("a"), bench.login("b"));
    unit(&bench, &one, RESERVE_6);
    assert_eq!(unit(&bench, &two, RESERVE_6), CONFLICT);
    bench.logout(one);
    assert_eq!(unit(&bench, &two, RESERVE_6), None);
    // That of a session that ended before does not end with it.
    let again = bench.login("a");
    assert_eq!(unit(&bench, &again, RESERVE_6), CONFLICT);
    bench.logout(again);
    assert_eq!(bench.try_write(&bench.login("c")), CONFLICT);
}

#[test]
fn the_same_initiator_comes_back_before_its_old_session_ends() {
    let bench = Bench::new();
    let old = bench.login("a");
    unit(&bench, &old, RESERVE_6);
    let new = bench.login("a");
    assert_eq!(unit(&bench, &new, RESERVE_6), None);
    bench.logout(old);
    assert_eq!(bench.try_write(&bench.login("b")), CONFLICT, "the new session has it");
    bench.logout(new);
    assert_eq!(bench.try_write(&bench.login("b")), None);
}

#[test]
fn it_ends_with_a_reset() {
    let bench = Bench::new();
    let (one, two) = (bench.login("a"), bench.login("b"));
    unit(&bench, &one, RESERVE_10);
    bench.out(&two, REGISTER, 0, 0, 5);
    bench.reset(&two, 1);
    assert!(bench.attention(&one, 1).is_some());
    assert_eq!(unit(&bench, &two, RESERVE_6), None);
}

#[test]
fn persistent_reservations_and_those_of_the_unit_keep_out_of_each_others_way() {
    let bench = Bench::new();
    let (one, two) = (bench.login("a"), bench.login("b"));
    unit(&bench, &one, RESERVE_6);
    for host in [&one, &two] {
        assert_eq!(bench.out(host, REGISTER, 0, 0, 1), CONFLICT);
        assert_eq!(bench.read(host, 0, 100), Err(CONFLICT));
    }
    unit(&bench, &one, RELEASE_6);
    assert_eq!(bench.out(&one, REGISTER, 0, 0, 1), None);
    for host in [&one, &two] {
        assert_eq!(unit(&bench, host, RESERVE_6), CONFLICT);
    }
    bench.out(&one, RESERVE, WE_RO, 1, 0);
    // CRH: for those who share in the reservation nothing happens.
    assert_eq!((unit(&bench, &one, RESERVE_6), unit(&bench, &one, RELEASE_6)), (None, None));
    assert_eq!((unit(&bench, &two, RESERVE_6), unit(&bench, &two, RELEASE_6)), (CONFLICT, CONFLICT));
    bench.logout(one);
    assert_eq!(bench.held(&two), Some((1, WE_RO)), "a persistent one stays");
}

#[test]
fn third_parties_and_extents_are_refused() {
    let bench = Bench::new();
    let host = bench.login("a");
    for (opcode, bits) in [(RESERVE_6, 0x10), (RESERVE_6, 0x01), (RESERVE_10, 0x12), (RELEASE_10, 0x10)] {
        let answer = bench.send(&host, 1, &[opcode, bits, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
        assert_eq!(verdict(&answer), Some((5, 0x24, 0)));
    }
}

#[test]
fn mode_select_changes_nothing_where_it_is_not_permitted() {
    let bench = Bench::new();
    let (one, two) = (bench.login("a"), bench.login("b"));
    // The control mode page as it is, with SWP.
    let page = bench.send(&one, 1, &[0x1A, 8, 0x0A, 0, 0xFF, 0], &[]).data.gather().to_vec();
    let mut list = page.clone();
    list[..4].fill(0);
    list[4] &= 0x7F;
    list[8] |= 0x08;
    let select = [0x15, 0x10, 0, 0, list.len() as u8, 0];
    unit(&bench, &one, RESERVE_6);
    assert_eq!(verdict(&bench.send(&two, 1, &select, &list)), CONFLICT);
    assert_eq!(bench.try_write(&one), None);
    assert_eq!(verdict(&bench.send(&one, 1, &select, &list)), None);
    assert_eq!(bench.try_write(&one), Some((7, 0x27, 2)), "the page is taken now");
}
