//! Changes in flight, as far as they must keep out of each other's way: one that changes only part of a block reads the
//! block first, so no other change of the block may come between; a copy refers to what its source holds, which must not
//! be let go of before; and what is beyond a new end must not be written behind the back of a resize.
//!
//! Whoever comes first goes first: each waits only for those that asked before it, so nobody waits for ever, and whoever
//! asks for several ranges asks for all of them at once.

use std::cell::{Cell, RefCell};

use smallvec::SmallVec;

use super::core::VolumeNumber;
use super::signal::Signal;

/// The changes in flight, and those that wait.
#[derive(Default)]
pub struct Ranges {
    table: RefCell<Vec<Entry>>,
    next: Cell<u64>,
    left: Signal,
}

/// Blocks of a volume from `first` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The volume.
    pub volume: VolumeNumber,
    /// The first block.
    pub first: u64,
    /// The one after the last.
    pub end: u64,
    /// Nobody else may change any of them meanwhile. Changes of whole blocks go on together with others: the log orders
    /// them.
    pub alone: bool,
}

struct Entry {
    ticket: u64,
    range: Range,
}

impl Range {
    fn conflicts(&self, other: &Self) -> bool {
        (self.alone || other.alone)
            && self.volume == other.volume
            && self.first < other.end
            && other.first < self.end
    }
}

/// A place in the table, given up when dropped.
pub struct Held<'a> {
    ranges: &'a Ranges,
    ticket: u64,
}

impl Held<'_> {
    /// Keeps the place beyond the life of this: [`Ranges::leave`] gives it up.
    pub fn keep(self) -> u64 {
        let ticket = self.ticket;
        std::mem::forget(self);
        ticket
    }
}

impl Ranges {
    /// Waits until nothing that came before forbids to change the `ranges`.
    pub async fn enter(&self, ranges: SmallVec<[Range; 2]>) -> Held<'_> {
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        self.table.borrow_mut().extend(ranges.iter().map(|range| Entry { ticket, range: *range }));
        let held = Held { ranges: self, ticket };
        let is_free = || {
            let table = self.table.borrow();
            let mut before = table.iter().filter(|entry| entry.ticket < ticket);
            !before.any(|entry| ranges.iter().any(|range| range.conflicts(&entry.range)))
        };
        self.left.wait_until(is_free).await;
        held
    }

    /// Gives up the place of `ticket`.
    pub fn leave(&self, ticket: u64) {
        self.table.borrow_mut().retain(|entry| entry.ticket != ticket);
        self.left.notify();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.ranges.leave(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use smallvec::smallvec;

    use super::*;

    fn range(first: u64, end: u64, alone: bool) -> Range {
        Range { volume: 1, first, end, alone }
    }

    #[test]
    fn each_waits_for_those_that_came_before_and_for_no_others() {
        let ranges = Ranges::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut writer = pin!(ranges.enter(smallvec![range(0, 8, false)]));
        let mut beside = pin!(ranges.enter(smallvec![range(4, 9, false)]));
        let mut part = pin!(ranges.enter(smallvec![range(8, 9, true)]));
        let mut after = pin!(ranges.enter(smallvec![range(8, 10, false)]));
        let mut other = pin!(ranges.enter(smallvec![Range { volume: 2, ..range(0, 9, true) }]));
        let std::task::Poll::Ready(writer) = writer.as_mut().poll(&mut cx) else { panic!("nobody is there") };
        let std::task::Poll::Ready(beside) = beside.as_mut().poll(&mut cx) else { panic!("whole blocks") };
        assert!(other.as_mut().poll(&mut cx).is_ready(), "another volume");
        assert!(part.as_mut().poll(&mut cx).is_pending());
        assert!(after.as_mut().poll(&mut cx).is_pending(), "the one before waits");
        drop(writer);
        assert!(part.as_mut().poll(&mut cx).is_pending());
        let ticket = beside.keep();
        assert!(part.as_mut().poll(&mut cx).is_pending(), "kept");
        ranges.leave(ticket);
        let std::task::Poll::Ready(part) = part.as_mut().poll(&mut cx) else { panic!("nobody is before") };
        assert!(after.as_mut().poll(&mut cx).is_pending());
        drop(part);
        assert!(after.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn who_goes_while_it_waits_is_in_nobodys_way() {
        let ranges = Ranges::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = pin!(ranges.enter(smallvec![range(0, 8, true)]));
        let std::task::Poll::Ready(_first) = first.as_mut().poll(&mut cx) else { panic!("nobody is there") };
        {
            let mut goes = pin!(ranges.enter(smallvec![range(0, 1, true), range(20, 30, true)]));
            assert!(goes.as_mut().poll(&mut cx).is_pending());
        }
        assert!(pin!(ranges.enter(smallvec![range(20, 21, false)])).as_mut().poll(&mut cx).is_ready());
    }
}
