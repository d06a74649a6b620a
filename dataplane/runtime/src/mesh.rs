//! Links between reactors: one bounded single-producer queue for each ordered pair.
//!
//! A reactor that is awake looks at its queues in every turn; only one that sleeps is woken by its doorbell.
//! A sender that found a link full waits for room the same way: it marks the link, and the receiver that takes
//! a message from a marked link rings the sender's bell.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll, Waker};

use ashlar_env::{Mesh, ReactorId};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::doorbell::Doorbell;
use crate::stats::ReactorStats;

/// The smallest link. With at least two messages in a full one, the receiver takes another after it may have
/// missed the sender's mark, and sees it then.
const CAPACITY_MIN: usize = 2;

/// Set while the sender of a link waits for room.
type Mark = Arc<AtomicBool>;

/// One reactor's ends of all its links, before they are brought to its thread.
pub(crate) struct Ends<M> {
    here: ReactorId,
    senders: Vec<(Producer<M>, Mark)>,
    receivers: Vec<(Consumer<M>, Mark)>,
    bells: Arc<[Arc<Doorbell>]>,
}

/// Makes the links of `bells.len()` reactors, each for `capacity` messages.
pub(crate) fn links<M>(bells: Vec<Arc<Doorbell>>, capacity: usize) -> Vec<Ends<M>> {
    let bells: Arc<[Arc<Doorbell>]> = bells.into();
    let count = bells.len();
    let mut ends: Vec<Ends<M>> = (0..count)
        .map(|here| Ends {
            here: ReactorId(here as u16),
            senders: Vec::with_capacity(count),
            receivers: Vec::with_capacity(count),
            bells: Arc::clone(&bells),
        })
        .collect();
    for from in 0..count {
        for to in 0..count {
            let (producer, consumer) = RingBuffer::new(capacity.max(CAPACITY_MIN));
            let mark = Mark::default();
            ends[from].senders.push((producer, Arc::clone(&mark)));
            ends[to].receivers.push((consumer, mark));
        }
    }
    ends
}

/// One reactor's end of the links to all reactors.
pub struct MeshEnd<M> {
    inner: Rc<Inner<M>>,
}

impl<M> Clone for MeshEnd<M> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

struct Inner<M> {
    here: ReactorId,
    senders: Vec<Sender<M>>,
    receivers: RefCell<Vec<(Consumer<M>, Mark)>>,
    /// The link to look at first, so that none starves the others.
    next: Cell<usize>,
    receiver: RefCell<Option<Waker>>,
    waiters: Cell<usize>,
    bells: Arc<[Arc<Doorbell>]>,
    stats: Arc<ReactorStats>,
}

struct Sender<M> {
    queue: RefCell<Producer<M>>,
    mark: Mark,
    waiting: RefCell<Vec<Waker>>,
}

impl<M> MeshEnd<M> {
    pub(crate) fn new(ends: Ends<M>, stats: Arc<ReactorStats>) -> Self {
        let senders = ends
            .senders
            .into_iter()
            .map(|(queue, mark)| Sender { queue: queue.into(), mark, waiting: RefCell::default() })
            .collect();
        Self {
            inner: Rc::new(Inner {
                here: ends.here,
                senders,
                receivers: ends.receivers.into(),
                next: Cell::new(0),
                receiver: RefCell::default(),
                waiters: Cell::new(0),
                bells: ends.bells,
                stats,
            }),
        }
    }

    /// Whether a message waits while a task waits for one, or room has come that a task waits for.
    pub(crate) fn has_work(&self) -> bool {
        let inner = &*self.inner;
        let messages = inner.receiver.borrow().is_some()
            && inner.receivers.borrow().iter().any(|(queue, _)| !queue.is_empty());
        messages
            || inner.waiters.get() > 0
                && inner.senders.iter().any(|s| !s.waiting.borrow().is_empty() && !s.queue.borrow().is_full())
    }

    /// Wakes who can go on; `true` if there was anybody.
    pub(crate) fn turn(&self) -> bool {
        if !self.has_work() {
            return false;
        }
        let inner = &*self.inner;
        if inner.receivers.borrow().iter().any(|(queue, _)| !queue.is_empty())
            && let Some(waker) = inner.receiver.borrow_mut().take()
        {
            waker.wake();
        }
        for sender in &inner.senders {
            if sender.waiting.borrow().is_empty() || sender.queue.borrow().is_full() {
                continue;
            }
            for waker in sender.waiting.take() {
                inner.waiters.set(inner.waiters.get() - 1);
                waker.wake();
            }
        }
        true
    }
}

impl<M: Send + 'static> Mesh<M> for MeshEnd<M> {
    fn here(&self) -> ReactorId {
        self.inner.here
    }

    fn reactors(&self) -> u16 {
        self.inner.senders.len() as u16
    }

    fn try_send(&self, to: ReactorId, message: M) -> Result<(), M> {
        let inner = &*self.inner;
        let at = usize::from(to.0);
        if let Err(rtrb::PushError::Full(message)) = inner.senders[at].queue.borrow_mut().push(message) {
            inner.stats.mesh_full.add(1);
            return Err(message);
        }
        inner.stats.mesh_sent.add(1);
        if to == inner.here {
            // The task that runs now keeps this reactor awake, but perhaps not for another turn.
            if let Some(waker) = inner.receiver.borrow_mut().take() {
                waker.wake();
            }
        } else {
            inner.bells[at].ring();
        }
        Ok(())
    }

    fn poll_room(&self, cx: &mut Context<'_>, to: ReactorId) -> Poll<()> {
        let inner = &*self.inner;
        let sender = &inner.senders[usize::from(to.0)];
        if !sender.queue.borrow().is_full() {
            return Poll::Ready(());
        }
        sender.mark.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !sender.queue.borrow().is_full() {
            return Poll::Ready(());
        }
        let mut waiting = sender.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
            inner.waiters.set(inner.waiters.get() + 1);
        }
        Poll::Pending
    }

    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<(ReactorId, M)> {
        let inner = &*self.inner;
        let mut receivers = inner.receivers.borrow_mut();
        let count = receivers.len();
        for step in 0..count {
            let from = (inner.next.get() + step) % count;
            let (queue, mark) = &mut receivers[from];
            let Ok(message) = queue.pop() else { continue };
            inner.next.set((from + 1) % count);
            if mark.load(Ordering::Relaxed) && mark.swap(false, Ordering::Relaxed) {
                inner.bells[from].ring();
            }
            return Poll::Ready((ReactorId(from as u16), message));
        }
        *inner.receiver.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}
