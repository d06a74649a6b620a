//! Where compaction put what was live of a segment: runs of granules that moved together.

use smallvec::SmallVec;

use crate::ids::{GRANULE_BYTES, SegmentId};
use crate::map::Address;

/// A run: `granules` granules that began at `from` are in segment `host` from `to` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The old position.
    pub from: u32,
    /// How many granules.
    pub granules: u32,
    /// Where they are.
    pub host: SegmentId,
    /// The new position.
    pub to: u32,
}

/// The hosts of a segment, and how many granules each took.
pub type Parts = SmallVec<[(SegmentId, u32); 2]>;

/// The translation of a segment's positions, in granules. Positions that were not live when it was made translate to
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Ascending by `from`, not overlapping.
    runs: Box<[Run]>,
}

impl Runs {
    /// The translation by `moves`, in any order. Of two for one position the later counts.
    #[must_use]
    pub fn of(mut moves: Vec<Run>) -> Self {
        moves.sort_by_key(|run| run.from);
        let mut runs: Vec<Run> = Vec::new();
        for run in moves {
            match runs.last_mut() {
                Some(last) if last.from == run.from => *last = run,
                Some(last)
                    if last.host == run.host
                        && last.from + last.granules == run.from
                        && last.to + last.granules == run.to =>
                {
                    last.granules += run.granules;
                }
                _ => runs.push(run),
            }
        }
        Self { runs: runs.into() }
    }

    /// Where what was at `from` is now.
    #[must_use]
    pub fn translate(&self, from: u32) -> Option<Address> {
        let after = self.runs.partition_point(|run| run.from <= from);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let into = from - run.from;
        (into < run.granules).then_some(Address { segment: run.host, position: run.to + into })
    }

    /// The runs that did not move to `host`.
    pub fn elsewhere(&self, host: SegmentId) -> impl Iterator<Item = Run> {
        self.runs.iter().copied().filter(move |run| run.host != host)
    }

    /// The hosts, ascending.
    #[must_use]
    pub fn parts(&self) -> Parts {
        let mut parts = Parts::new();
        for run in &self.runs {
            match parts.iter_mut().find(|(host, _)| *host == run.host) {
                Some((_, granules)) => *granules += run.granules,
                None => parts.push((run.host, run.granules)),
            }
        }
        parts.sort_unstable();
        parts
    }
}

/// The granules of `bytes`, which are whole granules.
#[must_use]
pub const fn granules(bytes: usize) -> u32 {
    (bytes / GRANULE_BYTES) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_moved_is_found(blocks in proptest::collection::vec((1u32..70, any::<bool>(), 0u32..3, 1u32..4), 0..300)) {
            let (mut from, mut to) = (3, 40);
            let mut moves = Vec::new();
            let mut gaps = Vec::new();
            for (granules, live, gap, host) in blocks {
                if live {
                    to += gap * 8;
                    moves.push(Run { from, granules, host: SegmentId(host), to });
                    to += granules;
                } else {
                    gaps.push(from);
                }
                from += granules;
            }
            let runs = Runs::of(moves.iter().rev().copied().collect());
            for run in &moves {
                prop_assert_eq!(runs.translate(run.from), Some(Address { segment: run.host, position: run.to }));
            }
            for gap in gaps {
                prop_assert_eq!(runs.translate(gap), None);
            }
            prop_assert_eq!(runs.translate(2), None);
            let total: u32 = runs.parts().iter().map(|(_, granules)| granules).sum();
            prop_assert_eq!(total, moves.iter().map(|run| run.granules).sum::<u32>());
            let rest = Runs::of(runs.elsewhere(SegmentId(1)).collect());
            prop_assert!(rest.parts().iter().all(|(host, _)| host.0 != 1));
        }
    }

    #[test]
    fn neighbours_are_one_run() {
        let run = |from, granules, to| Run { from, granules, host: SegmentId(7), to };
        let runs = Runs::of(vec![run(8, 64, 100), run(72, 64, 164), run(200, 1, 228)]);
        assert_eq!(runs.runs.len(), 2);
        assert_eq!(runs.parts().as_slice(), [(SegmentId(7), 129)]);
    }
}
