//! Seeds that once failed, each with what it showed.

use super::random::{Tally, run};

const KEPT: [(u64, &str); 1] = [(
    0x1b0_984a_bffd,
    "a checkpoint from an earlier life of the slot, behind the last one of its present life, was taken for the newest",
)];

#[test]
fn seeds_that_failed_do_not_fail_again() {
    for (seed, what) in KEPT {
        run(seed, |_| {}, &mut Tally::default()).unwrap_or_else(|failure| panic!("{what}: {failure}"));
    }
}
