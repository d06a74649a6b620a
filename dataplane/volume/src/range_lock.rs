//! Which blocks are being worked on: a table of ranges in flight that keeps overlapping commands apart.
//!
//! Reads share a range, everything that changes it has it alone. Whoever conflicts with an earlier request
//! waits for exactly the earlier ones it overlaps, so the order is first come first served per block, nobody
//! starves, and because every wait points to an earlier request there is no cycle. A request counts the
//! earlier ones that stand in its way; the one that leaves lowers the counts of those after it.
//!
//! The steady state allocates nothing. Looking for conflicts is a scan over the requests in flight, which are
//! few (the sum of the queue depths) and lie side by side.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ashlar_env::reservation::HostId;
use ashlar_env::units::BlockRange;

/// How a range is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Together with others that share.
    Shared,
    /// Alone.
    Exclusive,
}

/// The ranges in flight of one volume.
#[derive(Default)]
pub struct RangeLocks {
    table: RefCell<Table>,
}

#[derive(Default)]
struct Table {
    /// Where each request lies; a vacant place is empty and so overlaps nothing. Apart from the rest because
    /// this is what every request scans.
    spans: Vec<Span>,
    requests: Vec<Request>,
    vacant: Vec<u32>,
    next_sequence: u64,
    /// How many requests are waiting.
    waiting: usize,
    /// Who waits for requests of certain hosts to end.
    drains: Vec<Waker>,
}

#[derive(Clone, Copy)]
struct Span {
    first: u64,
    end: u64,
}

struct Request {
    /// When it came, compared with the others.
    sequence: u64,
    /// How many earlier requests stand in its way; 0 means that it holds the range.
    blockers: u32,
    hold: Hold,
    host: HostId,
    waker: Option<Waker>,
}

const VACANT: Span = Span { first: 0, end: 0 };

impl Span {
    fn overlaps(self, other: Self) -> bool {
        self.first < other.end && other.first < self.end
    }
}

impl Table {
    /// Takes a place, and says how many stand in its way.
    fn enter(&mut self, span: Span, hold: Hold, host: HostId) -> (u32, u32) {
        let mut blockers = 0;
        for (other, request) in self.spans.iter().zip(&self.requests) {
            if span.overlaps(*other) && (hold == Hold::Exclusive || request.hold == Hold::Exclusive) {
                blockers += 1;
            }
        }
        self.waiting += usize::from(blockers > 0);
        let request = Request { sequence: self.next_sequence, blockers, hold, host, waker: None };
        self.next_sequence += 1;
        if let Some(at) = self.vacant.pop() {
            self.spans[at as usize] = span;
            self.requests[at as usize] = request;
            return (at, blockers);
        }
        let at = self.spans.len() as u32;
        self.spans.push(span);
        self.requests.push(request);
        self.vacant.reserve(self.spans.len());
        (at, blockers)
    }

    /// The next request from `*from` on that need not wait for the one that left any more.
    fn unblock_next(&mut self, left: Span, hold: Hold, sequence: u64, from: &mut usize) -> Option<Waker> {
        while *from < self.spans.len() {
            let at = *from;
            *from += 1;
            let request = &mut self.requests[at];
            let stood_in_way = left.overlaps(self.spans[at])
                && request.sequence > sequence
                && (hold == Hold::Exclusive || request.hold == Hold::Exclusive);
            if !stood_in_way {
                continue;
            }
            request.blockers -= 1;
            if request.blockers == 0 {
                self.waiting -= 1;
                if let Some(waker) = request.waker.take() {
                    return Some(waker);
                }
            }
        }
        None
    }
}

impl RangeLocks {
    /// Asks for `range`. The answer takes its place in the queue at once, before it is first polled; dropping
    /// it gives the place up.
    #[must_use]
    pub fn request(&self, range: BlockRange, hold: Hold, host: HostId) -> Held<'_> {
        let span = Span { first: range.first().0, end: range.end().0 };
        let (at, blockers) = self.table.borrow_mut().enter(span, hold, host);
        Held { locks: self, at, at_once: blockers == 0 }
    }

    /// Waits until every request of `hosts` (ascending) that is in the table now has left it.
    pub fn drain(&self, hosts: &[HostId]) -> impl Future<Output = ()> {
        let before = self.table.borrow().next_sequence;
        poll_fn(move |cx| {
            let mut table = self.table.borrow_mut();
            let busy = table.spans.iter().zip(&table.requests).any(|(span, request)| {
                span.first < span.end
                    && request.sequence < before
                    && hosts.binary_search(&request.host).is_ok()
            });
            if !busy {
                return Poll::Ready(());
            }
            if !table.drains.iter().any(|waker| waker.will_wake(cx.waker())) {
                table.drains.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// How many requests hold or wait. For tests and metrics.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let table = self.table.borrow();
        table.spans.len() - table.vacant.len()
    }

    fn leave(&self, at: u32) {
        let (span, hold, sequence, mut waiting) = {
            let mut table = self.table.borrow_mut();
            let span = std::mem::replace(&mut table.spans[at as usize], VACANT);
            table.vacant.push(at);
            let request = &mut table.requests[at as usize];
            request.waker = None;
            let (hold, sequence, blocked) = (request.hold, request.sequence, request.blockers > 0);
            table.waiting -= usize::from(blocked);
            if table.waiting == 0 && table.drains.is_empty() {
                return;
            }
            (span, hold, sequence, table.waiting > 0)
        };
        // No borrow is held while a waker runs: it may do as it likes.
        let mut from = 0;
        while waiting {
            let next = self.table.borrow_mut().unblock_next(span, hold, sequence, &mut from);
            match next {
                Some(waker) => waker.wake(),
                None => waiting = false,
            }
        }
        if !self.table.borrow().drains.is_empty() {
            let drains = std::mem::take(&mut self.table.borrow_mut().drains);
            drains.into_iter().for_each(Waker::wake);
        }
    }
}

/// A place in the table. As a future it ends when the range is held; the range is given up when it is dropped.
pub struct Held<'a> {
    locks: &'a RangeLocks,
    at: u32,
    /// Nothing stood in the way.
    at_once: bool,
}

impl Held<'_> {
    /// Whether the range is held already.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        self.at_once || self.locks.table.borrow().requests[self.at as usize].blockers == 0
    }

    /// Waits until the range is held.
    pub async fn granted(self) -> Self {
        Granted { held: &self }.await;
        self
    }
}

struct Granted<'h, 'a> {
    held: &'h Held<'a>,
}

impl Future for Granted<'_, '_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut table = self.held.locks.table.borrow_mut();
        let request = &mut table.requests[self.held.at as usize];
        if request.blockers == 0 {
            return Poll::Ready(());
        }
        match &mut request.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.locks.leave(self.at);
    }
}

#[cfg(test)]
mod tests {
    use ashlar_env::units::Lba;
    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, blocks: u64) -> BlockRange {
        BlockRange::new(Lba(first), blocks).unwrap()
    }

    const HOST: HostId = HostId([1; 16]);

    #[test]
    fn readers_share_and_a_writer_excludes() {
        let locks = RangeLocks::default();
        let a = locks.request(range(0, 8), Hold::Shared, HOST);
        let b = locks.request(range(4, 8), Hold::Shared, HOST);
        let writer = locks.request(range(7, 1), Hold::Exclusive, HOST);
        let apart = locks.request(range(100, 1), Hold::Exclusive, HOST);
        assert!(a.is_granted() && b.is_granted() && apart.is_granted() && !writer.is_granted());
        drop(a);
        assert!(!writer.is_granted());
        drop(b);
        assert!(writer.is_granted());
    }

    #[test]
    fn a_stream_of_readers_does_not_starve_a_writer() {
        let locks = RangeLocks::default();
        let first = locks.request(range(0, 8), Hold::Shared, HOST);
        let writer = locks.request(range(0, 8), Hold::Exclusive, HOST);
        let second = locks.request(range(0, 8), Hold::Shared, HOST);
        assert!(!second.is_granted(), "it came after the writer");
        drop(first);
        assert!(writer.is_granted() && !second.is_granted());
        drop(writer);
        assert!(second.is_granted());
    }

    #[test]
    fn one_that_gives_up_waiting_lets_the_next_pass() {
        let locks = RangeLocks::default();
        let reader = locks.request(range(0, 8), Hold::Shared, HOST);
        let writer = locks.request(range(0, 8), Hold::Exclusive, HOST);
        let next = locks.request(range(0, 8), Hold::Shared, HOST);
        drop(writer);
        assert!(next.is_granted());
        drop((reader, next));
        assert_eq!(locks.in_flight(), 0);
    }

    #[test]
    fn draining_waits_for_those_hosts_and_only_for_what_was_there() {
        let locks = RangeLocks::default();
        let victim = HostId([2; 16]);
        let other = locks.request(range(0, 1), Hold::Exclusive, HOST);
        let held = locks.request(range(8, 1), Hold::Exclusive, victim);
        let hosts = [victim];
        let mut drain = std::pin::pin!(locks.drain(&hosts));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(drain.as_mut().poll(&mut cx).is_pending());
        let later = locks.request(range(16, 1), Hold::Exclusive, victim);
        drop(held);
        assert!(drain.as_mut().poll(&mut cx).is_ready());
        drop((other, later));
    }

    proptest! {
        /// Against the definition: a request is granted exactly when no earlier live one conflicts.
        #[test]
        fn grants_follow_the_order_of_arrival(
            steps in proptest::collection::vec((any::<bool>(), 0..20_u64, 1..6_u64, any::<bool>(), any::<usize>()), 1..120)
        ) {
            let locks = RangeLocks::default();
            let mut live: Vec<(BlockRange, Hold, Held<'_>)> = Vec::new();
            for (arrive, first, blocks, shared, pick) in steps {
                if arrive || live.is_empty() {
                    let hold = if shared { Hold::Shared } else { Hold::Exclusive };
                    live.push((range(first, blocks), hold, locks.request(range(first, blocks), hold, HOST)));
                } else {
                    // Those that hold and those that wait leave alike.
                    let at = pick % live.len();
                    live.remove(at);
                }
                for (at, (span, hold, held)) in live.iter().enumerate() {
                    let blocked = live[..at].iter().any(|(earlier, other, _)| {
                        earlier.overlaps(*span) && (*hold == Hold::Exclusive || *other == Hold::Exclusive)
                    });
                    prop_assert_eq!(held.is_granted(), !blocked);
                }
            }
            live.clear();
            prop_assert_eq!(locks.in_flight(), 0);
        }
    }
}
