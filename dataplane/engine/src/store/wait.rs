//! Waiting for something to change.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};

use super::carry::Carrier;

/// Who waits. Every change wakes all of them, and each looks for itself: changes they wait for are rare.
#[derive(Default)]
pub(crate) struct Waiters(RefCell<Vec<Waker>>);

impl Waiters {
    /// Ends when `holds` is true; it is asked at once and after every [`Self::wake`]. What it claims by saying yes is
    /// claimed without another task between. `carrier` sees to it that what is waited for goes on.
    pub fn until(&self, carrier: &Carrier, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
        poll_fn(move |cx| {
            if holds() {
                return Poll::Ready(());
            }
            carrier.adopt_all();
            let mut waiting = self.0.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// Something changed.
    pub fn wake(&self) {
        let waiting = std::mem::take(&mut *self.0.borrow_mut());
        for waker in waiting {
            waker.wake();
        }
    }
}
