//! Counts that a checkpoint can write down as they were when it began, although they go on changing.

/// A count in two parts: what the checkpoint that runs (or, while none runs, the next one) sees, and what came after
/// its cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    within: i64,
    after: i64,
}

impl Counter {
    /// A count as a checkpoint wrote it.
    #[must_use]
    pub const fn of(value: i64) -> Self {
        Self { within: value, after: 0 }
    }

    /// Adds `by` on the one or the other side of the cut.
    pub const fn add(&mut self, by: i64, within: bool) {
        if within {
            self.within += by;
        } else {
            self.after += by;
        }
    }

    /// The count now.
    #[must_use]
    pub const fn now(self) -> i64 {
        self.within + self.after
    }

    /// The count at the cut, once all that belongs before it has been counted.
    #[must_use]
    pub const fn at_cut(self) -> i64 {
        self.within
    }

    /// The checkpoint is durable: what came after its cut belongs to the next one.
    pub const fn settle(&mut self) {
        *self = Self::of(self.within + self.after);
    }
}
