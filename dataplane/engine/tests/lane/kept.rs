//! Seeds that once failed, each with what it showed.

use super::random::{Acts, Tally, run};

const KEPT: [(u64, Acts, &str); 2] = [
    (
        0x1b0_984a_bffd,
        Acts::Few,
        "a checkpoint from an earlier life of the slot, behind the last one of its present life, was taken for the newest",
    ),
    (77053, Acts::All, "what nobody held any more was not in a checkpoint whose cut it was held at"),
];

#[test]
fn seeds_that_failed_do_not_fail_again() {
    for (seed, acts, what) in KEPT {
        run(seed, acts, |_| {}, &mut Tally::default()).unwrap_or_else(|failure| panic!("{what}: {failure}"));
    }
}
