//! What becomes of a replica at recovery: a table, and nothing else decides.
//!
//! The *agreed end* is where the walk found the segment to end.

/// How the epoch of a replica's chunk relates to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochIs {
    /// Below that of the segment's records: it was made under this number by a writer that others superseded.
    Older,
    /// At least that of the records and at most the recovery's own. (A replica that an earlier recovery made again has
    /// that recovery's.)
    Sound,
    /// Above the recovery's own.
    Newer,
}

/// How a replica was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealIs {
    /// It was not.
    Open,
    /// At the agreed end.
    Agreeing,
    /// Elsewhere.
    Differing,
}

/// What a replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its valid records end before the agreed end.
    Shorter,
    /// Its valid records end there.
    Equal,
    /// It has more after the agreed end.
    Longer,
    /// A record before the agreed end is not the agreed one: damaged, or of another chain.
    Mismatch,
}

/// All that is known of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The coordinator has excluded it, or it never was one.
    pub excluded: bool,
    /// Its store has no chunk of it.
    pub missing: bool,
    /// Of its chunk.
    pub epoch: EpochIs,
    /// Of its chunk.
    pub seal: SealIs,
    /// Of its chunk.
    pub content: Content,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it does not count.
    Ignore,
    /// Nothing: it is as it should be.
    Keep,
    /// It is sealed at the agreed end, which cuts off what follows.
    Seal,
    /// It is made again from others, and sealed.
    Remake,
    /// The recovery ends: there is a newer owner.
    YieldTo,
    /// The recovery ends: replicas that count contradict each other.
    Conflict,
}

/// A row: a replica that fits every field that is given, and what is done with it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `None`: any.
    pub excluded: Option<bool>,
    /// `None`: any.
    pub missing: Option<bool>,
    /// Any of these.
    pub epoch: &'static [EpochIs],
    /// Any of these.
    pub seal: &'static [SealIs],
    /// Any of these.
    pub content: &'static [Content],
    /// What is done.
    pub action: Action,
    /// Why.
    pub why: &'static str,
}

use Content::{Equal, Longer, Mismatch, Shorter};
use EpochIs::{Newer, Older, Sound};
use SealIs::{Agreeing, Differing, Open};

const ANY_EPOCH: &[EpochIs] = &[Older, Sound, Newer];
const ANY_SEAL: &[SealIs] = &[Open, Agreeing, Differing];
const ANY_CONTENT: &[Content] = &[Shorter, Equal, Longer, Mismatch];

/// The table. Every replica fits exactly one row.
pub const ROWS: [Row; 9] = [
    Row {
        excluded: Some(true),
        missing: None,
        epoch: ANY_EPOCH,
        seal: ANY_SEAL,
        content: ANY_CONTENT,
        action: Action::Ignore,
        why: "it may lack acknowledged records",
    },
    Row {
        excluded: Some(false),
        missing: Some(true),
        epoch: ANY_EPOCH,
        seal: ANY_SEAL,
        content: ANY_CONTENT,
        action: Action::Remake,
        why: "a store was replaced, or an earlier recovery stopped while it made the replica again",
    },
    Row {
        excluded: Some(false),
        missing: Some(false),
        epoch: &[Newer],
        seal: ANY_SEAL,
        content: ANY_CONTENT,
        action: Action::YieldTo,
        why: "only a newer owner makes chunks of a newer epoch",
    },
    Row {
        excluded: Some(false),
        missing: Some(false),
        epoch: &[Older],
        seal: ANY_SEAL,
        content: ANY_CONTENT,
        action: Action::Remake,
        why: "it is a leftover of another segment of this number that was never used",
    },
    Row {
        excluded: Some(false),
        missing: Some(false),
        epoch: &[Sound],
        seal: &[Differing],
        content: ANY_CONTENT,
        action: Action::Conflict,
        why: "whoever seals at another length excludes this replica first; one of the two lost its memory",
    },
    Row {
        excluded: Some(false),
        missing: Some(false),
        epoch: &[Sound],
        seal: &[Agreeing],
        content: &[Equal, Longer],
        action: Action::Keep,
        why: "it is complete; what follows the seal is not part of it",
    },
    Row {
        excluded: Some(false),
        missing: Some(false),
        epoch: &[Sound],
        seal: &[Agreeing],
        content: &[Shorter, Mismatch],
        action: Action::Remake,
        why: "it was complete when it was sealed and has been damaged since",
    },
    Row {
        excluded: Some(false),
        missing: Some(false),
        epoch: &[Sound],
        seal: &[Open],
        content: &[Equal, Longer],
        action: Action::Seal,
        why: "it is complete",
    },
    Row {
        excluded: Some(false),
        missing: Some(false),
        epoch: &[Sound],
        seal: &[Open],
        content: &[Shorter, Mismatch],
        action: Action::Remake,
        why: "the crash kept its last records from it, or it has been damaged",
    },
];

impl Row {
    /// Whether `state` fits.
    #[must_use]
    pub fn fits(&self, state: &ReplicaState) -> bool {
        self.excluded.is_none_or(|excluded| excluded == state.excluded)
            && self.missing.is_none_or(|missing| missing == state.missing)
            && self.epoch.contains(&state.epoch)
            && self.seal.contains(&state.seal)
            && self.content.contains(&state.content)
    }
}

/// What is done with a replica.
#[must_use]
pub fn action(state: &ReplicaState) -> Action {
    ROWS.iter().find(|row| row.fits(state)).expect("every replica fits a row").action
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<ReplicaState> {
        let mut all = Vec::new();
        for excluded in [false, true] {
            for missing in [false, true] {
                for &epoch in ANY_EPOCH {
                    for &seal in ANY_SEAL {
                        for &content in ANY_CONTENT {
                            all.push(ReplicaState { excluded, missing, epoch, seal, content });
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn every_replica_fits_exactly_one_row_and_every_row_is_used() {
        assert_eq!(all().len(), 2 * 2 * 3 * 3 * 4);
        for state in all() {
            let rows: Vec<_> = ROWS.iter().filter(|row| row.fits(&state)).map(|row| row.why).collect();
            assert_eq!(rows.len(), 1, "{state:?} fits {rows:?}");
        }
        for row in &ROWS {
            assert!(all().iter().any(|state| row.fits(state)), "no replica fits: {}", row.why);
        }
    }

    #[test]
    fn nothing_incomplete_is_sealed_and_nothing_complete_is_thrown_away() {
        for state in all() {
            let complete = matches!(state.content, Equal | Longer);
            match action(&state) {
                Action::Seal | Action::Keep => {
                    assert!(complete && !state.missing && !state.excluded && state.epoch == Sound);
                }
                Action::Remake => assert!(state.missing || !complete || state.epoch == Older, "{state:?}"),
                Action::Ignore => assert!(state.excluded),
                Action::YieldTo => assert_eq!(state.epoch, Newer),
                Action::Conflict => assert_eq!(state.seal, Differing),
            }
        }
    }
}
