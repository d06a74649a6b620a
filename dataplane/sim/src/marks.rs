//! `sometimes!` marks: states that a night of seeds must reach.
//!
//! An assertion says what must not be; a mark proves that the test went where it matters. Marks are kept per
//! run, not in statics, because many nodes share the process.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// How often each mark was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    counts: RefCell<BTreeMap<String, u64>>,
}

impl Marks {
    /// Counts the mark `name` once.
    pub fn hit(&self, name: &str) {
        let mut counts = self.counts.borrow_mut();
        if let Some(count) = counts.get_mut(name) {
            *count += 1;
        } else {
            counts.insert(name.to_owned(), 1);
        }
    }

    /// How often `name` was reached.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.borrow().get(name).copied().unwrap_or(0)
    }

    /// Adds the counts of another run.
    pub fn merge(&self, other: &Self) {
        let mut counts = self.counts.borrow_mut();
        for (name, count) in other.counts.borrow().iter() {
            *counts.entry(name.clone()).or_default() += count;
        }
    }

    /// Those of `wanted` that were never reached.
    #[must_use]
    pub fn missing<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        wanted.iter().copied().filter(|name| self.count(name) == 0).collect()
    }

    /// All marks with their counts, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, u64)> {
        self.counts.borrow().iter().map(|(name, count)| (name.clone(), *count)).collect()
    }
}

/// Counts the mark `$name` in `$marks` (a [`Marks`](crate::marks::Marks)) where `$condition` holds; without a
/// condition, always.
#[macro_export]
macro_rules! sometimes {
    ($marks:expr, $name:expr) => {
        $marks.hit($name)
    };
    ($marks:expr, $condition:expr, $name:expr) => {
        if $condition {
            $marks.hit($name);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_counted_merged_and_missed() {
        let (a, b) = (Marks::default(), Marks::default());
        sometimes!(a, "seen");
        sometimes!(b, 1 + 1 == 2, "seen");
        sometimes!(b, 1 + 1 == 3, "impossible");
        a.merge(&b);
        assert_eq!(a.count("seen"), 2);
        assert_eq!(a.missing(&["seen", "impossible"]), ["impossible"]);
    }
}
