//! The simulator is tested, too: each planted bug is found within a stated number of seeds, by the checker that
//! should find it; and without a bug nothing is found.

use ashlar_sim::{Marks, Planted, scenario};

/// The first seed below `within` that finds the bug, and what it says.
fn hunt(planted: Planted, within: u64) -> (u64, String) {
    for seed in 0..within {
        if let Err(failure) = scenario::run(seed, planted) {
            let text = failure.to_string();
            assert!(text.contains(&format!("--seed {seed:#x}")), "no line to reproduce: {text}");

            return (seed, failure.check);
        }
    }
    panic!("{planted:?} was not found within {within} seeds");
}

#[test]
fn a_fua_write_that_stays_in_the_cache_is_found() {
    let (_, check) = hunt(Planted { fua_stays_cached: true, ..Planted::default() }, 100);
    assert_eq!(check, "register");
}

#[test]
fn a_flush_that_does_nothing_is_found() {
    let (_, check) = hunt(Planted { flush_does_nothing: true, ..Planted::default() }, 100);
    assert_eq!(check, "register");
}

#[test]
fn bytes_that_change_places_are_found() {
    let (_, check) = hunt(Planted { net_swaps_bytes: true, ..Planted::default() }, 100);
    assert!(["stamp", "wire"].contains(&check.as_str()), "{check}");
}

#[test]
fn a_stale_read_is_found() {
    let (_, check) = hunt(Planted { disk_reads_stale: true, ..Planted::default() }, 100);
    assert_eq!(check, "register");
}

#[test]
fn a_write_that_happens_twice_is_found() {
    let (_, check) = hunt(Planted { disk_repeats_write: true, ..Planted::default() }, 100);
    assert_eq!(check, "register");
}

#[test]
fn without_a_bug_nothing_is_found_and_every_state_is_reached() {
    let marks = Marks::default();
    for seed in 0..300 {
        match scenario::run(seed, Planted::default()) {
            Ok(report) => marks.merge(&report.marks),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert_eq!(marks.missing(scenario::MARKS), Vec::<&str>::new());
}
