//! How often a lane has done what it does in the background.

use std::cell::Cell;

use ashlar_env::Env;

use crate::chunks::Chunks;

use super::Lane;

/// Counts since the lane was made or opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Checkpoints begun and given up.
    pub given_up: u64,
    /// Segments whose live blocks compaction moved elsewhere.
    pub victims: u64,
    /// Segments that compaction found without anything live.
    pub empty_victims: u64,
    /// Blocks and pages that it moved.
    pub moved: u64,
    /// Segments it moved that held what had been moved before.
    pub moved_again: u64,
    /// Snapshots let go of.
    pub departed: u64,
    /// Of these, those during which something they had held was replaced.
    pub departed_under_writes: u64,
    /// Volumes, or what they were before a restore, let go of.
    pub versions_left: u64,
    /// Segments whose chunks were deleted.
    pub segments_deleted: u64,
    /// Controls that the recovery replayed, by kind: clones, restores, deletes of volumes, deletes of snapshots, copies.
    pub replayed: [u64; 5],
    /// Copies made as references.
    pub references: u64,
    /// Copies that had to copy the data, since too many blocks had copies.
    pub unreferenced: u64,
    /// Blocks that compaction moved for copies alone.
    pub moved_for_copies: u64,
}

impl Activity {
    /// The counts with names for people.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 18] {
        [
            ("checkpoint made", self.checkpoints),
            ("checkpoint given up", self.given_up),
            ("compaction moved", self.victims),
            ("victim without live", self.empty_victims),
            ("block moved", self.moved),
            ("compaction moved what it had moved before", self.moved_again),
            ("snapshot let go", self.departed),
            ("snapshot let go while its blocks were overwritten", self.departed_under_writes),
            ("version let go", self.versions_left),
            ("segment deleted", self.segments_deleted),
            ("recovery replayed a clone", self.replayed[0]),
            ("recovery replayed a restore", self.replayed[1]),
            ("recovery replayed the delete of a volume", self.replayed[2]),
            ("recovery replayed the delete of a snapshot", self.replayed[3]),
            ("recovery replayed a copy", self.replayed[4]),
            ("blocks were copied as references", self.references),
            ("blocks were copied as data: too many had copies", self.unreferenced),
            ("compaction moved what copies alone held", self.moved_for_copies),
        ]
    }
}

/// Where the counts are kept.
#[derive(Default)]
pub(super) struct Counts(Cell<Activity>);

impl Counts {
    /// Changes the counts.
    pub fn note(&self, change: impl FnOnce(&mut Activity)) {
        let mut activity = self.0.get();
        change(&mut activity);
        self.0.set(activity);
    }
}

impl<E: Env, C: Chunks> Lane<E, C> {
    /// What it has done in the background since it was made or opened.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.0.activity.0.get()
    }
}
