//! EXTENDED COPY and RECEIVE COPY RESULTS through the whole device server, as libiscsi's suite and ESXi ask for them.

use std::sync::Arc;

use ashlar_env::reservation::{ReservationAction, ReservationType};
use ashlar_env::volume::Operation;
use ashlar_env::{Volume, VolumeError};

use super::list::tests::{block_segment, list, naa_cscd};
use crate::scsi::testing::bench::{CONFLICT, verdict};
use crate::scsi::testing::{Bench, Host, block_on, issuer};
use crate::scsi::{Step, vpd};

type Verdict = Option<(u8, u8, u8)>;

const REACHES_NOT: Verdict = Some((0xA, 0x0D, 0x02));
const ABORTED: Verdict = Some((0xA, 0x00, 0x00));

fn copy_cdb(len: usize) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = 0x83;
    cdb[10..14].copy_from_slice(&(len as u32).to_be_bytes());
    cdb
}

/// EXTENDED COPY to a unit.
fn extended(bench: &Bench, host: &Host, lun: u16, list: &[u8]) -> Verdict {
    verdict(&bench.send(host, lun, &copy_cdb(list.len()), list))
}

/// RECEIVE COPY RESULTS of unit 1.
fn results(bench: &Bench, host: &Host, action: u8, id: u8) -> Result<Vec<u8>, Verdict> {
    let cdb = [0x84, action, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
    let answer = bench.send(host, 1, &cdb, &[]);
    verdict(&answer).map_or_else(|| Ok(answer.data.gather().to_vec()), |why| Err(Some(why)))
}

fn cscd(bench: &Bench, lun: usize) -> Vec<u8> {
    let mut cscd = naa_cscd(&vpd::naa(bench.stores[lun - 1].info().id));
    let size = bench.stores[lun - 1].info().block_size.bytes().to_be_bytes();
    cscd[29..32].copy_from_slice(&size[1..]);
    cscd
}

/// One segment within unit 1.
fn within(bench: &Bench, id: u8, usage: u8, blocks: u16, from: u64, to: u64) -> Vec<u8> {
    list(id, usage, &[cscd(bench, 1)], &[block_segment(0, 0, blocks, from, to)])
}

fn fill(bench: &Bench, lun: usize) -> Vec<u8> {
    bench.stores[lun - 1].fill(|at| (at / 512 * 31 + at) as u8);
    bench.stores[lun - 1].bytes()
}

#[test]
fn from_the_start_to_the_end_of_the_unit() {
    let bench = Bench::new();
    let host = bench.login("a");
    let before = fill(&bench, 1);
    assert_eq!(extended(&bench, &host, 1, &within(&bench, 1, 2, 2048, 0, 8192 - 2048)), None);
    let after = bench.stores[0].bytes();
    assert!(after[(8192 - 2048) * 512..] == before[..2048 * 512]);
    assert_eq!(bench.stores[0].count("read"), 0, "the volume copies by itself");
}

#[test]
fn parameter_lists_that_are_cut() {
    let bench = Bench::new();
    let host = bench.login("a");
    let whole = within(&bench, 1, 0, 8, 0, 100);
    for len in 1..whole.len() {
        assert_eq!(extended(&bench, &host, 1, &whole[..len]), Some((5, 0x1A, 0)), "{len}");
        // The CDB says more than is sent.
        let answer = bench.send(&host, 1, &copy_cdb(whole.len()), &whole[..len]);
        assert_eq!(verdict(&answer), Some((5, 0x1A, 0)), "{len}");
    }
    assert_eq!(verdict(&bench.send(&host, 1, &copy_cdb(0), &[])), None);
    assert_eq!(extended(&bench, &host, 1, &whole), None);
}

#[test]
fn limits_are_those_of_the_operating_parameters() {
    let bench = Bench::new();
    let host = bench.login("a");
    let parameters = results(&bench, &host, 3, 0).unwrap();
    let word = |at: usize| u32::from_be_bytes(parameters[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(word(0), parameters.len() - 4);
    let (cscds, segments, bytes) = (word(8) >> 16, word(8) & 0xFFFF, word(12));
    assert_eq!(&parameters[43..], &[2, 0x02, 0xE4]);
    let send = |cscds: usize, segments: usize| {
        let cscds = vec![cscd(&bench, 1); cscds];
        let segments = vec![block_segment(0, 0, 8, 0, 100); segments];
        extended(&bench, &host, 1, &list(1, 0, &cscds, &segments))
    };
    assert_eq!(send(cscds, segments), None);
    assert_eq!(send(cscds + 1, 1), Some((5, 0x26, 6)));
    assert_eq!(send(1, segments + 1), Some((5, 0x26, 8)));
    let too_many = (bytes - (cscds + 1) * 32) / 28 + 1;
    assert_eq!(send(cscds + 1, too_many), Some((5, 0x1A, 0)));
}

#[test]
fn unsupported_descriptors() {
    let bench = Bench::new();
    let host = bench.login("a");
    let mut fibre_channel = cscd(&bench, 1);
    fibre_channel[0] = 0xE0;
    let segment = block_segment(0, 0, 8, 0, 100);
    assert_eq!(
        extended(&bench, &host, 1, &list(1, 0, &[fibre_channel], std::slice::from_ref(&segment))),
        Some((5, 0x26, 7))
    );
    let stream = vec![0x03, 0, 0, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(extended(&bench, &host, 1, &list(1, 0, &[cscd(&bench, 1)], &[stream])), Some((5, 0x26, 9)));
    let mut lu_id_type = cscd(&bench, 1);
    lu_id_type[1] = 0xC0;
    assert_eq!(extended(&bench, &host, 1, &list(1, 0, &[lu_id_type], &[segment])), None);
}

#[test]
fn segments_that_lead_nowhere() {
    let bench = Bench::new();
    let host = bench.login("a");
    let before = fill(&bench, 1);
    let one = || cscd(&bench, 1);
    let send = |segment| extended(&bench, &host, 1, &list(1, 0, &[one()], &[segment]));
    assert_eq!(send(block_segment(0, 1, 8, 0, 100)), REACHES_NOT);
    assert_eq!(send(block_segment(0, 0, 8, 0, 8191)), ABORTED);
    assert_eq!(send(block_segment(0, 0, 8, 8191, 0)), ABORTED);
    assert_eq!(send(block_segment(0, 0, 8, u64::MAX, 0)), ABORTED);
    assert_eq!(send(block_segment(0, 0, 8, 0, u64::MAX - 3)), ABORTED);
    let mut other_size = one();
    other_size[30] = 16;
    let list = list(1, 0, &[other_size], &[block_segment(0, 0, 8, 0, 100)]);
    assert_eq!(extended(&bench, &host, 1, &list), Some((5, 0x26, 0)));
    assert!(bench.stores[0].bytes() == before, "nothing was written");
}

#[test]
fn units_of_other_targets_are_out_of_reach() {
    let bench = Bench::new();
    let foreign = crate::scsi::testing::Store::new(77, ashlar_env::units::BlockSize::B512, 8192);
    foreign.fill(|_| 0x55);
    let other = Bench::of(Arc::clone(&bench.shared), vec![foreign.clone()]);
    let host = bench.login("a");
    let by_name = naa_cscd(&vpd::naa(foreign.info().id));
    let steal = list(1, 0, &[by_name, cscd(&bench, 1)], &[block_segment(0, 1, 8, 0, 0)]);
    assert_eq!(extended(&bench, &host, 1, &steal), REACHES_NOT);
    assert!(bench.stores[0].bytes().iter().all(|&byte| byte == 0));
    drop(other);
}

#[test]
fn a_clone_from_one_unit_to_another() {
    let bench = Bench::new();
    let host = bench.login("esx1");
    let before = fill(&bench, 1);
    // 4 MiB in two segments to a unit with larger blocks; the second counts the destination's blocks.
    let mut by_destination = block_segment(0, 1, 256, 2048, 256);
    by_destination[1] = 0x02;
    let clone =
        list(0, 3, &[cscd(&bench, 1), cscd(&bench, 3)], &[block_segment(0, 1, 2048, 0, 0), by_destination]);
    assert_eq!(extended(&bench, &host, 1, &clone), None);
    assert!(bench.stores[2].bytes()[..2 << 20] == before[..2 << 20]);
    // A number of blocks that is no multiple of the destination's.
    let odd = list(0, 3, &[cscd(&bench, 1), cscd(&bench, 3)], &[block_segment(0, 1, 9, 0, 0)]);
    assert_eq!(extended(&bench, &host, 1, &odd), Some((5, 0x26, 0)));
    // By the unit that the command is for, and by a T10 designator's beginning.
    let mut by_t10 = naa_cscd(&[0; 16]);
    by_t10[4..8].copy_from_slice(&[2, 1, 0, 20]);
    let id = bench.stores[1].info().id;
    let whole = [&crate::scsi::inquiry::VENDOR[..], vpd::vendor_specific(id).as_bytes()].concat();
    by_t10[8..28].copy_from_slice(&whole[..20]);
    let to_self = list(0, 3, &[by_t10], &[block_segment(0xFFFF, 0, 8, 16, 32)]);
    assert_eq!(extended(&bench, &host, 1, &to_self), None);
    assert!(bench.stores[1].bytes()[32 * 512..40 * 512] == before[16 * 512..24 * 512]);
}

#[test]
fn overlapping_segments_copy_right() {
    let bench = Bench::new();
    let host = bench.login("a");
    let before = fill(&bench, 1);
    assert_eq!(extended(&bench, &host, 1, &within(&bench, 1, 0, 4000, 0, 7)), None);
    assert!(bench.stores[0].bytes()[7 * 512..4007 * 512] == before[..4000 * 512]);
}

#[test]
fn reservations_of_both_units_hold() {
    for (unit, kind, want) in [
        (1, ReservationType::WriteExclusive, CONFLICT),
        (2, ReservationType::WriteExclusive, Some((0xA, 0x0D, 0x01))),
        (2, ReservationType::ExclusiveAccess, Some((0xA, 0x0D, 0x01))),
    ] {
        let bench = Bench::new();
        let host = bench.login("a");
        for action in [
            ReservationAction::Register { key: 1, persist: None },
            ReservationAction::Acquire { key: 1, kind },
        ] {
            block_on(bench.stores[unit - 1].execute(issuer(9), Operation::Reserve(action))).unwrap();
        }
        let to_two = list(0, 3, &[cscd(&bench, 1), cscd(&bench, 2)], &[block_segment(0, 1, 8, 0, 0)]);
        assert_eq!(extended(&bench, &host, 1, &to_two), want);
    }
}

#[test]
fn out_of_space_and_read_only_are_told_as_such() {
    let bench = Bench::new();
    let host = bench.login("a");
    let to_two = list(0, 3, &[cscd(&bench, 1), cscd(&bench, 2)], &[block_segment(0, 1, 8, 0, 0)]);
    for (error, want) in [
        (VolumeError::NoSpace, (7, 0x27, 7)),
        (VolumeError::ReadOnly, (7, 0x27, 0)),
        (VolumeError::WriteFault, (0xA, 0x0D, 1)),
        (VolumeError::NotHere, (0xA, 0x0D, 2)),
    ] {
        bench.stores[1].fail(Some(error));
        assert_eq!(extended(&bench, &host, 1, &to_two), Some(want));
    }
    bench.stores[1].fail(None);
    assert_eq!(extended(&bench, &host, 1, &to_two), None);
}

#[test]
fn copy_status_is_told_once_and_failures_in_detail() {
    let bench = Bench::new();
    let (host, other) = (bench.login("a"), bench.login("b"));
    let unknown = Err(Some((5, 0x24, 0)));
    assert_eq!(results(&bench, &host, 0, 1), unknown);
    assert_eq!(extended(&bench, &host, 1, &within(&bench, 1, 0, 2048, 0, 4096)), None);
    assert_eq!(results(&bench, &other, 0, 1), unknown, "list identifiers are the nexus' own");
    let status = results(&bench, &host, 0, 1).unwrap();
    assert_eq!(status, [0, 0, 0, 8, 1, 0, 1, 0, 0, 16, 0, 0]);
    assert_eq!(results(&bench, &host, 0, 1), unknown);
    // LIST ID USAGE: discarded.
    extended(&bench, &host, 1, &within(&bench, 4, 2, 8, 0, 4096));
    assert_eq!(results(&bench, &host, 0, 4), unknown);
    // One that failed.
    assert_eq!(extended(&bench, &host, 1, &within(&bench, 5, 0, 8, 0, 8191)), ABORTED);
    let status = results(&bench, &host, 0, 5).unwrap();
    assert_eq!((status[4], &status[5..7]), (2, &[0, 0][..]));
    let details = results(&bench, &host, 4, 5).unwrap();
    assert_eq!((details[56], details[59], details[62]), (2, 18, 0xA));
    assert_eq!(details.len(), 60 + 18);
    assert_eq!(u32::from_be_bytes(details[..4].try_into().unwrap()) as usize, details.len() - 4);
    assert_eq!(results(&bench, &host, 4, 5), unknown);
    assert_eq!(bench.shared.copies.counts(), (0, 0));
}

#[test]
fn a_list_identifier_in_use_and_one_that_ends_with_its_session() {
    let bench = Bench::new();
    let host = bench.login("a");
    let Step::Long(running) = bench.start(&host, 1, &copy_cdb(76), &within(&bench, 1, 0, 8, 0, 100)) else {
        panic!("a copy takes its time")
    };
    assert_eq!(extended(&bench, &host, 1, &within(&bench, 1, 0, 8, 0, 100)), Some((5, 0x26, 0)));
    assert_eq!(results(&bench, &host, 0, 1).unwrap()[4], 0, "under way");
    drop(running);
    assert_eq!(bench.shared.copies.counts().0, 0);
    assert_eq!(extended(&bench, &host, 1, &within(&bench, 1, 0, 8, 0, 100)), None);
    bench.logout(host);
    assert_eq!(bench.shared.copies.counts(), (0, 0));
}
