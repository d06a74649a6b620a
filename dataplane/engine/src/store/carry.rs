//! Operations that go on, whoever polls them.
//!
//! What changes the store is begun by the call itself: an append has taken its place, a seal has closed the chunk. So
//! it has to end, also when the future handed out is dropped, and also when it is kept and not polled: a writer that
//! waits for a seal may not be polling its own appends at that moment, which the seal waits for. As long as nobody else
//! depends on it, an operation is polled in place by its future. When that is dropped, or somebody in the store begins
//! to wait, a task of the store (the carrier) takes over.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use ashlar_env::Spawn;

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// An operation under way, whatever comes of it.
trait Step {
    /// Goes on with it. Whether it has ended.
    fn step(&self, cx: &mut Context<'_>) -> bool;

    /// The carrier polls it from now on. Whether it did before.
    fn adopt(&self) -> bool;
}

struct Operation<T> {
    /// `None` while it is polled, and once it has ended.
    future: Cell<Option<Boxed<T>>>,
    output: Cell<Option<T>>,
    adopted: Cell<bool>,
    /// Whoever holds the operation's future.
    waker: Cell<Option<Waker>>,
}

impl<T> Step for Operation<T> {
    fn step(&self, cx: &mut Context<'_>) -> bool {
        let Some(mut future) = self.future.take() else { return true };
        match future.as_mut().poll(cx) {
            Poll::Pending => {
                self.future.set(Some(future));
                false
            }
            Poll::Ready(output) => {
                self.output.set(Some(output));
                if let Some(waker) = self.waker.take() {
                    waker.wake();
                }
                true
            }
        }
    }

    fn adopt(&self) -> bool {
        self.adopted.replace(true)
    }
}

/// Knows all operations under way, and polls some.
#[derive(Default)]
pub(crate) struct Carrier {
    /// By the number of their place.
    live: RefCell<Vec<Option<Weak<dyn Step>>>>,
    /// Places not in use.
    free: RefCell<Vec<usize>>,
    /// Adopted, and not yet seen by the task.
    adopted: RefCell<Vec<Rc<dyn Step>>>,
    waker: Cell<Option<Waker>>,
    /// The task is gone, with its reactor: nothing goes on any more.
    gone: Cell<bool>,
}

impl Carrier {
    /// A carrier, and the task that it is.
    pub fn start(spawn: &impl Spawn) -> Rc<Self> {
        let carrier = Rc::new(Self::default());
        spawn.spawn(carry(Rc::downgrade(&carrier)));
        carrier
    }

    /// Hands out `operation`, which is polled to its end in any case.
    pub fn run<T: 'static>(self: &Rc<Self>, operation: impl Future<Output = T> + 'static) -> Carried<T> {
        let operation = Rc::new(Operation {
            future: Cell::new(Some(Box::pin(operation))),
            output: Cell::default(),
            adopted: Cell::default(),
            waker: Cell::default(),
        });
        let step: Rc<dyn Step> = Rc::<Operation<T>>::clone(&operation);
        let mut live = self.live.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            live.push(None);
            live.len() - 1
        });
        live[place] = Some(Rc::downgrade(&step));
        Carried { operation, place, carrier: Rc::clone(self) }
    }

    /// Somebody waits for what others have begun: all of it goes on by itself from now on.
    pub fn adopt_all(&self) {
        let live = self.live.borrow();
        let steps = live.iter().flatten().filter_map(Weak::upgrade).filter(|step| !step.adopt());
        let before = self.adopted.borrow().len();
        self.adopted.borrow_mut().extend(steps);
        if self.adopted.borrow().len() > before {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.wake();
    }
}

/// The future of an operation.
pub(crate) struct Carried<T: 'static> {
    operation: Rc<Operation<T>>,
    place: usize,
    carrier: Rc<Carrier>,
}

impl<T> Future for Carried<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let operation = &self.operation;
        if !operation.adopted.get() {
            operation.step(cx);
        }
        if let Some(output) = operation.output.take() {
            return Poll::Ready(output);
        }
        // Also while it is polled here: it may be adopted and end before the next poll.
        operation.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl<T> Drop for Carried<T> {
    fn drop(&mut self) {
        self.carrier.live.borrow_mut()[self.place] = None;
        self.carrier.free.borrow_mut().push(self.place);
        let future = self.operation.future.take();
        let goes_on = future.is_some();
        self.operation.future.set(future);
        if goes_on && !self.carrier.gone.get() && !self.operation.adopt() {
            let step: Rc<dyn Step> = Rc::<Operation<T>>::clone(&self.operation);
            self.carrier.adopted.borrow_mut().push(step);
            self.carrier.wake();
        }
    }
}

/// Drops what nobody will carry on when the task goes: operations hold the store, which holds them.
struct Alive(Weak<Carrier>);

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(carrier) = self.0.upgrade() {
            carrier.gone.set(true);
            let adopted = std::mem::take(&mut *carrier.adopted.borrow_mut());
            drop(adopted);
        }
    }
}

/// Polls what was adopted to its end; ends when that and the store are gone. It is little and rare, so each wake polls
/// all of it. What ends meanwhile may drop further operations, and the store: both wake this task again.
async fn carry(carrier: Weak<Carrier>) {
    let alive = Alive(carrier);
    let mut carried: Vec<Rc<dyn Step>> = Vec::new();
    poll_fn(|cx| {
        let carrier = alive.0.upgrade();
        if let Some(carrier) = &carrier {
            carrier.waker.set(Some(cx.waker().clone()));
            carried.append(&mut carrier.adopted.borrow_mut());
        }
        carried.retain(|operation| !operation.step(cx));
        if carrier.is_none() && carried.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
