//! Copies by token through the whole device server.

use std::sync::Arc;

use ashlar_env::Volume;
use ashlar_env::reservation::{ReservationAction, ReservationType};
use ashlar_env::units::BlockSize;
use ashlar_env::volume::Operation;

use super::list::tests::{populate_list, write_list};
use super::rod;
use crate::scsi::testing::bench::{CONFLICT, verdict};
use crate::scsi::testing::{Bench, Host, Store, block_on, issuer};

type Verdict = Option<(u8, u8, u8)>;

fn cdb(action: u8, id: u32, len: usize) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, action);
    cdb[6..10].copy_from_slice(&id.to_be_bytes());
    cdb[10..14].copy_from_slice(&(len as u32).to_be_bytes());
    cdb
}

fn populate(bench: &Bench, host: &Host, lun: u16, id: u32, ranges: &[(u64, u32)]) -> Verdict {
    let list = populate_list(0, ranges);
    verdict(&bench.send(host, lun, &cdb(0x10, id, list.len()), &list))
}

fn write(bench: &Bench, host: &Host, lun: u16, id: u32, list: &[u8]) -> Verdict {
    verdict(&bench.send(host, lun, &cdb(0x11, id, list.len()), list))
}

/// RECEIVE ROD TOKEN INFORMATION.
fn information(bench: &Bench, host: &Host, lun: u16, id: u32) -> Result<Vec<u8>, Verdict> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x84, 0x07);
    cdb[2..6].copy_from_slice(&id.to_be_bytes());
    cdb[12] = 0x10;
    let answer = bench.send(host, lun, &cdb, &[]);
    verdict(&answer).map_or_else(|| Ok(answer.data.gather().to_vec()), |why| Err(Some(why)))
}

/// Makes a token and fetches it.
fn token(bench: &Bench, host: &Host, lun: u16, ranges: &[(u64, u32)]) -> Vec<u8> {
    assert_eq!(populate(bench, host, lun, 1, ranges), None);
    let told = information(bench, host, lun, 1).unwrap();
    assert_eq!(u32::from_be_bytes(told[..4].try_into().unwrap()) as usize + 4, told.len());
    assert_eq!((told[4], told[5], told[15]), (0x10, 0x01, 0xF1));
    let blocks: u64 = ranges.iter().map(|range| u64::from(range.1)).sum();
    assert_eq!(told[16..24], blocks.to_be_bytes());
    assert_eq!(told[32..36], 514_u32.to_be_bytes());
    told[38..].to_vec()
}

fn fill(bench: &Bench, lun: usize) -> Vec<u8> {
    bench.stores[lun - 1].fill(|at| (at / 512 * 31 + at) as u8);
    bench.stores[lun - 1].bytes()
}

#[test]
fn a_file_is_copied_as_windows_does() {
    let bench = Bench::new();
    let host = bench.login("win1");
    let before = fill(&bench, 1);
    let token = token(&bench, &host, 1, &[(100, 50), (10, 30), (4000, 3000)]);
    // In two commands, to pieces of another unit.
    let list = write_list(0, 0, &token, &[(0, 40), (500, 60)]);
    assert_eq!(write(&bench, &host, 2, 7, &list), None);
    let list = write_list(0, 100, &token, &[(1000, 2000)]);
    assert_eq!(write(&bench, &host, 2, 8, &list), None);
    let whole = [&before[100 * 512..150 * 512], &before[10 * 512..40 * 512], &before[4000 * 512..7000 * 512]]
        .concat();
    let after = bench.stores[1].bytes();
    assert!(after[..40 * 512] == whole[..40 * 512]);
    assert!(after[500 * 512..560 * 512] == whole[40 * 512..100 * 512]);
    assert!(after[1000 * 512..3000 * 512] == whole[100 * 512..2100 * 512]);
    let told = information(&bench, &host, 2, 8).unwrap();
    assert_eq!((told[4], told[5], told.len()), (0x11, 0x01, 36));
    assert_eq!(told[16..24], 2000_u64.to_be_bytes());
}

#[test]
fn within_a_unit_the_volume_copies_and_block_sizes_may_differ() {
    let bench = Bench::new();
    let host = bench.login("a");
    let before = fill(&bench, 1);
    let token = token(&bench, &host, 1, &[(0, 64)]);
    assert_eq!(write(&bench, &host, 1, 2, &write_list(0, 0, &token, &[(1000, 64)])), None);
    assert_eq!((bench.stores[0].count("copy"), bench.stores[0].count("read")), (1, 0));
    assert_eq!(write(&bench, &host, 3, 2, &write_list(0, 1, &token, &[(5, 7)])), None);
    assert!(bench.stores[2].bytes()[5 * 4096..12 * 4096] == before[4096..64 * 512]);
}

#[test]
fn zeros_need_no_token_of_ours() {
    let bench = Bench::new();
    let host = bench.login("a");
    let before = fill(&bench, 1);
    let list = write_list(0, 0, &rod::zeros()[..], &[(8, 8), (100, 1000)]);
    assert_eq!(write(&bench, &host, 1, 3, &list), None);
    let after = bench.stores[0].bytes();
    assert!(after[8 * 512..16 * 512].iter().chain(&after[100 * 512..1100 * 512]).all(|&byte| byte == 0));
    assert!(after[..8 * 512] == before[..8 * 512]);
}

#[test]
fn what_is_immediate_goes_on_by_itself() {
    let bench = Bench::new();
    let host = bench.login("a");
    let before = fill(&bench, 1);
    let token = token(&bench, &host, 1, &[(0, 4096)]);
    let list = write_list(1, 0, &token, &[(0, 4096)]);
    assert_eq!(write(&bench, &host, 2, 9, &list), None);
    assert_eq!(information(&bench, &host, 2, 9).unwrap()[5], 0x12, "under way");
    assert_eq!(write(&bench, &host, 2, 9, &list), Some((5, 0x26, 0)), "the identifier is in use");
    bench.run_tasks();
    assert_eq!(information(&bench, &host, 2, 9).unwrap()[5], 0x01);
    assert!(bench.stores[1].bytes()[..4096 * 512] == before[..4096 * 512]);
    // The end of the session ends what it began.
    assert_eq!(write(&bench, &host, 3, 9, &write_list(1, 0, &token, &[(0, 512)])), None);
    bench.logout(host);
    bench.run_tasks();
    assert_eq!(bench.stores[2].count("write"), 1, "one step was under way");
    assert_eq!(bench.shared.copies.counts(), (0, 0));
}

#[test]
fn tokens_that_are_none() {
    let bench = Bench::new();
    let host = bench.login("a");
    let good = token(&bench, &host, 1, &[(0, 64)]);
    let send = |token: &[u8]| write(&bench, &host, 2, 5, &write_list(0, 0, token, &[(0, 64)]));
    let changed = |at: usize, value: u8| {
        let mut token = good.clone();
        token[at] = value;
        token
    };
    assert_eq!(send(&changed(0, 0xFE)), Some((5, 0x23, 0x01)));
    assert_eq!(send(&changed(8, 0xFE)), Some((5, 0x23, 0x04)));
    assert_eq!(send(&changed(511, !good[511])), Some((5, 0x23, 0x05)));
    assert_eq!(send(&changed(7, 0xF7)), Some((5, 0x23, 0x0A)));
    assert_eq!(send(&good), None);
    bench.now_s.set(61);
    assert_eq!(send(&good), Some((5, 0x23, 0x07)));
    assert_eq!(send(&good), Some((5, 0x23, 0x06)));
    let deleted = token(&bench, &host, 1, &[(0, 64)]);
    assert_eq!(write(&bench, &host, 2, 5, &write_list(2, 0, &deleted, &[(0, 64)])), None);
    assert_eq!(send(&deleted), Some((5, 0x23, 0x06)));
    let shrunk = token(&bench, &host, 1, &[(8000, 64)]);
    bench.stores[0].change(|info| info.blocks = 8000);
    assert_eq!(send(&shrunk), Some((5, 0x23, 0x06)));
}

#[test]
fn a_token_is_worth_nothing_to_who_does_not_reach_its_source() {
    let bench = Bench::new();
    let tenant = Bench::of(Arc::clone(&bench.shared), vec![Store::new(77, BlockSize::B512, 8192)]);
    let (owner, stranger) = (bench.login("a"), tenant.login("b"));
    let token = token(&bench, &owner, 1, &[(0, 64)]);
    let list = write_list(0, 0, &token, &[(0, 64)]);
    assert_eq!(write(&tenant, &stranger, 1, 1, &list), Some((5, 0x23, 0x04)));
    // Another host of the same target may use it: that is what tokens are for.
    assert_eq!(write(&bench, &bench.login("c"), 2, 1, &list), None);
}

#[test]
fn ranges_beyond_the_token() {
    let bench = Bench::new();
    let host = bench.login("a");
    let token = token(&bench, &host, 1, &[(0, 64)]);
    for (offset, blocks) in [(0, 65), (1, 64), (64, 1), (u64::MAX, 1)] {
        let list = write_list(0, offset, &token, &[(0, blocks)]);
        assert_eq!(write(&bench, &host, 2, 5, &list), Some((5, 0x26, 0)), "{offset} {blocks}");
    }
    assert_eq!(write(&bench, &host, 2, 5, &write_list(0, 63, &token, &[(0, 1)])), None);
    assert_eq!(write(&bench, &host, 2, 5, &write_list(0, 0, &token, &[(8192, 1)])), Some((5, 0x21, 0)));
    // To larger blocks: what is no whole number of them.
    let odd = self::token(&bench, &host, 1, &[(0, 4), (100, 60)]);
    assert_eq!(write(&bench, &host, 3, 5, &write_list(0, 0, &odd, &[(0, 1)])), Some((5, 0x26, 0)));
}

#[test]
fn reservations_of_source_and_destination_hold() {
    let bench = Bench::new();
    let host = bench.login("a");
    let made = token(&bench, &host, 1, &[(0, 64)]);
    let kind = ReservationType::ExclusiveAccess;
    let reserve = |lun: usize| {
        for action in [
            ReservationAction::Register { key: 1, persist: None },
            ReservationAction::Acquire { key: 1, kind },
        ] {
            block_on(bench.stores[lun - 1].execute(issuer(9), Operation::Reserve(action))).unwrap();
        }
    };
    reserve(1);
    assert_eq!(populate(&bench, &host, 1, 2, &[(0, 64)]), CONFLICT);
    let list = write_list(0, 0, &made, &[(0, 64)]);
    assert_eq!(write(&bench, &host, 2, 5, &list), Some((0xA, 0x0D, 0x01)));
    let told = information(&bench, &host, 2, 5).unwrap();
    assert_eq!((told[5], told[12], told[13], told[34]), (0x02, 0x02, 18, 0xA));
    reserve(2);
    assert_eq!(write(&bench, &host, 2, 5, &list), CONFLICT);
}

#[test]
fn list_identifiers_are_the_nexus_own() {
    let bench = Bench::new();
    let (host, other) = (bench.login("a"), bench.login("b"));
    assert_eq!(populate(&bench, &host, 1, 0xFFFF_FFFF, &[(0, 1)]), None);
    assert_eq!(information(&bench, &other, 1, 0xFFFF_FFFF), Err(Some((5, 0x24, 0))));
    assert_eq!(information(&bench, &host, 2, 0xFFFF_FFFF), Err(Some((5, 0x24, 0))), "and the unit's");
    assert_eq!(information(&bench, &host, 1, 1), Err(Some((5, 0x24, 0))));
    assert!(information(&bench, &host, 1, 0xFFFF_FFFF).is_ok());
}

#[test]
fn the_page_says_what_is_enforced() {
    let bench = Bench::new();
    let host = bench.login("a");
    let page = bench.send(&host, 1, &[0x12, 1, 0x8F, 4, 0, 0], &[]).data.gather().to_vec();
    assert_eq!(u16::from_be_bytes([page[2], page[3]]) as usize, page.len() - 4);
    assert!(page.len() - 4 >= 0x24);
    // Block Device ROD Token Limits comes first.
    assert_eq!(page[4..8], [0, 0, 0, 32]);
    let ranges = u16::from_be_bytes([page[14], page[15]]);
    let many: Vec<_> = (0..u64::from(ranges)).map(|at| (at, 1)).collect();
    assert_eq!(populate(&bench, &host, 1, 1, &many), None);
    let more: Vec<_> = (0..=u64::from(ranges)).map(|at| (at, 1)).collect();
    assert_eq!(populate(&bench, &host, 1, 1, &more), Some((5, 0x26, 8)));
    let longest = u32::from_be_bytes(page[16..20].try_into().unwrap());
    for (timeout, want) in [(longest, None), (longest + 1, Some((5, 0x26, 0)))] {
        let list = populate_list(timeout, &[(0, 1)]);
        assert_eq!(verdict(&bench.send(&host, 1, &cdb(0x10, 3, list.len()), &list)), want);
    }
}
