//! Where compaction put what was live of a segment: runs of granules that moved together.

use crate::ids::GRANULE_BYTES;

/// A run: what began at `from` begins at `to`, and so on up to the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    from: u32,
    to: u32,
}

/// The translation of a segment's positions, in granules. Positions that were not live when it was made translate to
/// nothing of use; nobody asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    runs: Vec<Run>,
    /// The end of the last run, in the old positions.
    end: u32,
}

impl Runs {
    /// Adds that `granules` granules moved `from` one position `to` another. Calls come in ascending order of `from`.
    ///
    /// # Panics
    /// If they do not.
    pub fn push(&mut self, from: u32, to: u32, granules: u32) {
        assert!(from >= self.end, "runs ascend");
        let continues =
            self.runs.last().is_some_and(|run| from == self.end && to == run.to + (from - run.from));
        if !continues {
            self.runs.push(Run { from, to });
        }
        self.end = from + granules;
    }

    /// The new position of what was at `from`; `None` before the first run.
    #[must_use]
    pub fn translate(&self, from: u32) -> Option<u32> {
        let after = self.runs.partition_point(|run| run.from <= from);
        let run = self.runs.get(after.checked_sub(1)?)?;
        Some(run.to + (from - run.from))
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
        fn what_moved_is_found(blocks in proptest::collection::vec((1u32..70, any::<bool>(), 0u32..3), 0..300)) {
            let mut runs = Runs::default();
            let (mut from, mut to) = (3, 40);
            let mut moved = Vec::new();
            for (granules, live, gap) in blocks {
                if live {
                    to += gap * 8;
                    runs.push(from, to, granules);
                    moved.push((from, to));
                    to += granules;
                }
                from += granules;
            }
            for (from, to) in moved {
                prop_assert_eq!(runs.translate(from), Some(to));
            }
            prop_assert_eq!(runs.translate(2), None);
        }
    }

    #[test]
    fn neighbours_are_one_run() {
        let mut runs = Runs::default();
        runs.push(8, 100, 64);
        runs.push(72, 164, 64);
        runs.push(200, 228, 1);
        assert_eq!(runs.runs.len(), 2);
    }
}
