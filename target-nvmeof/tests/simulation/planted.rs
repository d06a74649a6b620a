//! The simulation is tested, too: each planted bug is found within a stated number of seeds, by a check that should
//! find it.

use crate::flaw::Flaw;
use crate::scenario;

/// Runs seeds until one finds the flaw; `checks` are those that may.
fn found(flaw: Flaw, within: u64, checks: &[&str]) {
    for seed in 0..within {
        let Err(failure) = scenario::run(seed, flaw) else { continue };
        let text = failure.to_string();
        assert!(text.contains(&format!("ASHLAR_SEED={seed:#x} ")), "no line to reproduce: {text}");
        assert!(checks.contains(&failure.check.as_str()), "{flaw:?} was found by another check: {text}");
        println!("{flaw:?}: seed {seed}, {}", failure.message);
        return;
    }
    panic!("{flaw:?} was not found within {within} seeds");
}

#[test]
fn a_fua_write_that_is_not_durable_is_found() {
    found(Flaw::EarlyFua, 60, &["register"]);
}

#[test]
fn a_flush_that_does_nothing_is_found() {
    found(Flaw::NoFlush, 60, &["register"]);
}

#[test]
fn a_dropped_write_is_found() {
    found(Flaw::DroppedWrite, 10, &["register"]);
}

#[test]
fn swapped_blocks_are_found() {
    found(Flaw::SwappedBlocks, 10, &["stamp"]);
}

#[test]
fn a_stale_read_is_found() {
    found(Flaw::StaleRead, 40, &["register"]);
}

#[test]
fn a_compare_and_write_that_is_not_one_step_is_found() {
    found(Flaw::OpenCompareAndWrite, 60, &["compare-and-write", "register"]);
}

#[test]
fn a_foreign_buffer_is_found() {
    found(Flaw::ForeignBuffer, 10, &["stamp", "register"]);
}

#[test]
fn a_reply_that_never_comes_is_found() {
    found(Flaw::LostReply, 10, &["liveness", "left over"]);
}

#[test]
fn a_leaked_buffer_is_found() {
    found(Flaw::LeakedBuffer, 10, &["left over", "liveness"]);
}
