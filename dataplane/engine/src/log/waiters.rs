//! Those who wait for their operations, in places that are used again.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::op::LogError;

/// A waiter's place.
pub(super) type WaiterId = u32;

enum Waiter {
    /// Nobody's.
    Free,
    /// The operation is under way.
    Waiting(Option<Waker>),
    /// The operation has ended; its future has not been told.
    Done(Result<(), LogError>),
    /// The operation is under way, its future is gone.
    Gone,
}

/// The places.
#[derive(Default)]
pub(super) struct Waiters {
    places: Vec<Waiter>,
    free: Vec<WaiterId>,
}

impl Waiters {
    pub fn add(&mut self) -> WaiterId {
        if let Some(id) = self.free.pop() {
            self.places[id as usize] = Waiter::Waiting(None);
            return id;
        }
        self.places.push(Waiter::Waiting(None));
        (self.places.len() - 1) as WaiterId
    }

    /// The operation has ended: who is to be woken.
    pub fn end(&mut self, id: WaiterId, result: Result<(), LogError>) -> Option<Waker> {
        let place = &mut self.places[id as usize];
        match std::mem::replace(place, Waiter::Done(result)) {
            Waiter::Waiting(waker) => waker,
            Waiter::Gone => {
                self.release(id);
                None
            }
            Waiter::Free | Waiter::Done(_) => unreachable!("an operation ends once"),
        }
    }

    fn release(&mut self, id: WaiterId) {
        self.places[id as usize] = Waiter::Free;
        self.free.push(id);
    }

    fn poll(&mut self, id: WaiterId, cx: &Context<'_>) -> Poll<Result<(), LogError>> {
        match &mut self.places[id as usize] {
            Waiter::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => Poll::Pending,
            Waiter::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            place @ Waiter::Done(_) => {
                let Waiter::Done(result) = std::mem::replace(place, Waiter::Free) else {
                    unreachable!("it was looked at")
                };
                self.free.push(id);
                Poll::Ready(result)
            }
            Waiter::Free | Waiter::Gone => unreachable!("a future is polled until it ends"),
        }
    }

    /// The future is gone.
    fn leave(&mut self, id: WaiterId) {
        match &self.places[id as usize] {
            Waiter::Waiting(_) => self.places[id as usize] = Waiter::Gone,
            Waiter::Done(_) => self.release(id),
            Waiter::Free | Waiter::Gone => unreachable!("a future goes once"),
        }
    }
}

/// An operation's future: ready when it is durable on every replica and applied. The operation goes on when this is
/// dropped.
pub struct Append {
    waiters: Rc<RefCell<Waiters>>,
    /// `None` once it has ended.
    id: Option<WaiterId>,
}

impl Append {
    pub(super) fn new(waiters: &Rc<RefCell<Waiters>>, id: WaiterId) -> Self {
        Self { waiters: Rc::clone(waiters), id: Some(id) }
    }
}

impl Future for Append {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let id = self.id.expect("a future is not polled after its end");
        let polled = self.waiters.borrow_mut().poll(id, cx);
        if polled.is_ready() {
            self.id = None;
        }
        polled
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.waiters.borrow_mut().leave(id);
        }
    }
}
