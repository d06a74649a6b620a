//! The tests are tested, too: each bug that can be planted in a lane is found within a few seeds.

use ashlar_engine::lane::Planted;

use super::random::{Tally, run};

/// The bugs, and within how many seeds each is found.
const BUGS: [(&str, Planted, u64); 3] = [
    ("chunks deleted before the checkpoint", Planted { delete_early: true, ..NONE }, 20),
    ("snapshots forgotten by compaction", Planted { forget_snapshots: true, ..NONE }, 20),
    ("a checkpoint that has not seen all it says", Planted { position_ahead: true, ..NONE }, 20),
];

const NONE: Planted =
    Planted { delete_early: false, forget_snapshots: false, skip_checksums: false, position_ahead: false };

#[test]
fn planted_bugs_are_found() {
    for (what, planted, seeds) in BUGS {
        let fails =
            |seed: &u64| run(*seed, |config| config.planted = planted, &mut Tally::default()).is_err();
        let found = (0..seeds).find(fails);
        assert!(found.is_some(), "{what}: not found in {seeds} seeds");
    }
}
