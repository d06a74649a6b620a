//! Messages to other reactors that must neither be lost nor overtake each other: what a full link does not take
//! waits here. It is bounded by what may be outstanding: a few messages per connection and command.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::spawn::Spawn;

/// See the module. Cloning shares it.
pub struct Outbox<M, X> {
    inner: Rc<Inner<M, X>>,
}

struct Inner<M, X> {
    mesh: X,
    waiting: RefCell<Vec<VecDeque<M>>>,
    pump: RefCell<Option<Waker>>,
}

impl<M, X> Clone for Outbox<M, X> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<M: Send + 'static, X: Mesh<M>> Outbox<M, X> {
    /// An outbox over `mesh`, and a task that empties it.
    pub fn new(mesh: X, spawn: &impl Spawn) -> Self {
        let waiting = (0..mesh.reactors()).map(|_| VecDeque::new()).collect();
        let inner = Rc::new(Inner { mesh, waiting: RefCell::new(waiting), pump: RefCell::new(None) });
        let outbox = Self { inner };
        spawn.spawn(outbox.clone().pump());
        outbox
    }

    /// The reactor this is on.
    pub fn here(&self) -> ReactorId {
        self.inner.mesh.here()
    }

    /// How many reactors there are.
    pub fn reactors(&self) -> u16 {
        self.inner.mesh.reactors()
    }

    /// Sends `message` to `to`, at once or as soon as the link has room.
    pub fn send(&self, to: ReactorId, message: M) {
        let queue = &mut self.inner.waiting.borrow_mut()[usize::from(to.0)];
        let message = if queue.is_empty() { self.inner.mesh.try_send(to, message) } else { Err(message) };
        if let Err(message) = message {
            queue.push_back(message);
            if let Some(waker) = self.inner.pump.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    async fn pump(self) {
        poll_fn(|cx| {
            *self.inner.pump.borrow_mut() = Some(cx.waker().clone());
            for (to, queue) in self.inner.waiting.borrow_mut().iter_mut().enumerate() {
                let to = ReactorId(to as u16);
                while let Some(message) = queue.pop_front() {
                    if let Err(message) = self.inner.mesh.try_send(to, message) {
                        queue.push_front(message);
                        if self.inner.mesh.poll_room(cx, to).is_ready() {
                            continue;
                        }
                        break;
                    }
                }
            }
            Poll::<()>::Pending
        })
        .await;
    }
}
