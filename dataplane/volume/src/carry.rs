//! Operations that go on when their future is dropped, without a task or an allocation for each.
//!
//! An operation lives in a box taken from a store of boxes and is polled in place by the [`Carried`] handed
//! out. When that is dropped before the end, the box moves to a task of the volume (the carrier) that polls it
//! to its end. So a connection that breaks in the middle of a read-modify-write leaves no lock behind and no
//! half of it undone, and what it overlaps goes on waiting for it.
//!
//! The type of an operation's future has no name, so the store is found by its type id; see
//! [`Carrier::start`].

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use ashlar_env::Spawn;

type Place<F> = Pin<Box<Option<F>>>;

/// The boxes of a volume and the task that carries on what was dropped.
#[derive(Default)]
pub(crate) struct Carrier {
    /// A `Store<F>`, for the one `F` of this volume.
    store: OnceCell<Rc<dyn Any>>,
}

struct Store<F> {
    idle: RefCell<Vec<Place<F>>>,
    /// Dropped before the end, not yet taken over by the carrier.
    orphans: RefCell<Vec<Place<F>>>,
    /// The carrier's.
    waker: Cell<Option<Waker>>,
    /// Whether the carrier exists still: not so once its reactor has ended or crashed.
    carrying: Cell<bool>,
}

impl Carrier {
    /// Makes `operation` ready to be polled; it starts with the first poll. Where `goes_on` is set it is
    /// carried on when the future is dropped after that.
    ///
    /// All calls on one carrier must be with the same type `F`: that of one `async` block.
    pub(crate) fn start<F>(&self, spawn: &impl Spawn, operation: F, goes_on: bool) -> Carried<F>
    where
        F: Future + 'static,
    {
        let store = self.store.get_or_init(|| {
            let store = Rc::new(Store::<F> {
                idle: RefCell::default(),
                orphans: RefCell::default(),
                waker: Cell::default(),
                carrying: Cell::new(true),
            });
            spawn.spawn(carry(Rc::downgrade(&store)));
            store
        });
        let store = Rc::clone(store).downcast::<Store<F>>().expect("one carrier, one type of operation");
        let idle = store.idle.borrow_mut().pop();
        let mut place = idle.unwrap_or_else(|| Box::pin(None));
        place.as_mut().set(Some(operation));
        Carried { place: Some(place), store, goes_on, started: false }
    }
}

impl<F> Store<F> {
    fn put_back(&self, mut place: Place<F>) {
        place.as_mut().set(None);
        self.idle.borrow_mut().push(place);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<F> Drop for Store<F> {
    fn drop(&mut self) {
        // The carrier ends when its store is gone.
        self.wake();
    }
}

/// An operation under way.
pub(crate) struct Carried<F: 'static> {
    /// `None` once it has ended.
    place: Option<Place<F>>,
    store: Rc<Store<F>>,
    goes_on: bool,
    started: bool,
}

impl<F: Future + 'static> Future for Carried<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.started = true;
        let place = this.place.as_mut().expect("not polled after its end");
        let operation = place.as_mut().as_pin_mut().expect("a place in use holds an operation");
        let output = operation.poll(cx);
        if output.is_ready() {
            let place = this.place.take().expect("it was there");
            this.store.put_back(place);
        }
        output
    }
}

impl<F> Drop for Carried<F> {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        if self.goes_on && self.started && self.store.carrying.get() {
            self.store.orphans.borrow_mut().push(place);
            self.store.wake();
        } else {
            self.store.put_back(place);
        }
    }
}

/// Marks the store when the carrier goes, and drops what nobody will carry on.
struct Alive<F>(Weak<Store<F>>);

impl<F> Drop for Alive<F> {
    fn drop(&mut self) {
        if let Some(store) = self.0.upgrade() {
            store.carrying.set(false);
            let orphans = std::mem::take(&mut *store.orphans.borrow_mut());
            drop(orphans);
        }
    }
}

/// Polls the orphans to their ends. They are rare, so each wake polls all of them.
async fn carry<F: Future + 'static>(store: Weak<Store<F>>) {
    let alive = Alive(store);
    let mut carried: Vec<Place<F>> = Vec::new();
    poll_fn(|cx| {
        let Some(store) = alive.0.upgrade() else { return Poll::Ready(()) };
        store.waker.set(Some(cx.waker().clone()));
        carried.append(&mut store.orphans.borrow_mut());
        let mut at = 0;
        while at < carried.len() {
            let operation = carried[at].as_mut().as_pin_mut().expect("an orphan holds an operation");
            if operation.poll(cx).is_ready() {
                store.put_back(carried.swap_remove(at));
            } else {
                at += 1;
            }
        }
        Poll::Pending
    })
    .await;
}
