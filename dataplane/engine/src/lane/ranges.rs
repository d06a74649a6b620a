//! Writes in flight, as far as they must keep out of each other's way: one that changes only part of a
//! block reads the block first, so no other write of the block may come between.

use std::cell::RefCell;

use super::signal::Signal;

/// The writes in flight.
#[derive(Default)]
pub struct Ranges {
    table: RefCell<Vec<Range>>,
    left: Signal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Range {
    volume: u32,
    first: u64,
    end: u64,
    /// Whether it changes only part of a block.
    partial: bool,
}

/// A place in the table, given up when dropped.
pub struct Held<'a> {
    ranges: &'a Ranges,
    range: Range,
}

impl Ranges {
    /// Waits until nothing in flight forbids to write the blocks of `volume` from `first` to before `end`. Whole blocks may be
    /// written together with others; part of a block (`partial`) only alone.
    pub async fn enter(&self, volume: u32, first: u64, end: u64, partial: bool) -> Held<'_> {
        let range = Range { volume, first, end, partial };
        let conflicts = |other: &Range| {
            (partial || other.partial)
                && volume == other.volume
                && range.first < other.end
                && other.first < range.end
        };
        self.left.wait_until(|| !self.table.borrow().iter().any(conflicts)).await;
        self.table.borrow_mut().push(range);
        Held { ranges: self, range }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut table = self.ranges.table.borrow_mut();
        if let Some(at) = table.iter().position(|range| *range == self.range) {
            table.swap_remove(at);
        }
        drop(table);
        self.ranges.left.notify();
    }
}
