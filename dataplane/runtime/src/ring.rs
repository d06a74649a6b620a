//! A reactor's own io_uring ring, for disks.
//!
//! The ring has as many slots as it may have operations in the kernel; an operation waits for a free one. A slot
//! owns the operation, its buffer included, until the kernel has completed it, also when the future that asked
//! for it is gone. Operations are queued by tasks and submitted once in each turn of the reactor, all with one
//! system call, which also collects what has completed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};

use ashlar_env::DiskError;
use io_uring::{IoUring, cqueue};

use crate::engine::Engine;
use crate::op::{Held, Op, Step};
use crate::stats::ReactorStats;
use crate::sys;

/// `IORING_ENTER_GETEVENTS`: also complete what waits to be completed in this thread.
const GET_EVENTS: u32 = 1;

/// Where an operation's slot stands.
enum Slot {
    Free,
    /// In the kernel. Without a waker, nobody will ask for its outcome.
    Running {
        op: Op,
        waker: Option<Waker>,
    },
    Done {
        held: Held,
        result: Result<(), DiskError>,
    },
}

struct Inner {
    uring: IoUring,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Tasks that wait for a free slot.
    waiting: VecDeque<Waker>,
    /// Operations queued that the kernel has not been told of.
    unsubmitted: u32,
}

/// The ring of one reactor.
pub(crate) struct Ring {
    inner: RefCell<Inner>,
    /// Operations queued or in the kernel.
    running: Cell<u32>,
    /// Slabs of buffers registered with the kernel: those with a number below.
    registered: u16,
    event: OwnedFd,
    stats: Arc<ReactorStats>,
}

/// A run of memory to register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlabRange {
    pub(crate) address: usize,
    pub(crate) bytes: usize,
}

impl Ring {
    /// A ring for `depth` operations at once, with `slabs` registered if the kernel lets it.
    pub(crate) fn new(depth: u32, slabs: &[SlabRange], stats: Arc<ReactorStats>) -> io::Result<Self> {
        let depth = depth.clamp(1, 4096).next_power_of_two();
        let mut uring = build(depth)?;
        // One look-up of the ring's descriptor less in each call; older kernels do without.
        let _ = uring.submitter().register_ring_fd();
        let event = sys::eventfd()?;
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        uring.completion().disable_eventfd();
        let registered = register(&uring, slabs);
        let inner = Inner {
            uring,
            slots: (0..depth).map(|_| Slot::Free).collect(),
            free: (0..depth).rev().collect(),
            waiting: VecDeque::with_capacity(depth as usize),
            unsubmitted: 0,
        };
        Ok(Self { inner: inner.into(), running: Cell::new(0), registered, event, stats })
    }

    /// What becomes readable when something completes while [`Self::prepare_sleep`] is in force.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Operations queued or in the kernel.
    pub(crate) fn running(&self) -> u32 {
        self.running.get()
    }

    /// Submits what is queued and collects what has completed; `true` if there was either.
    #[inline]
    pub(crate) fn turn(&self) -> bool {
        self.running.get() > 0 && self.turn_busy()
    }

    fn turn_busy(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        let submitted = inner.enter();
        self.stats.disk_submitted.add(u64::from(submitted));
        let mut completed = 0;
        loop {
            // One at a time: an operation that goes on is queued again.
            let Some(entry) = inner.uring.completion().next() else { break };
            if inner.complete(entry.user_data() as u32, entry.result(), self.registered) {
                completed += 1;
            }
        }
        self.running.set(self.running.get() - completed);
        submitted > 0 || completed > 0
    }

    /// Asks for the event on completion; `false` where there is something to do already.
    pub(crate) fn prepare_sleep(&self) -> bool {
        if self.running.get() == 0 {
            return true;
        }
        let mut inner = self.inner.borrow_mut();
        let uring = &mut inner.uring;
        uring.completion().enable_eventfd();
        fence(Ordering::SeqCst);
        let pending = !uring.completion().is_empty() || uring.submission().taskrun();
        if pending || inner.unsubmitted > 0 {
            inner.uring.completion().disable_eventfd();
            return false;
        }
        true
    }

    /// No event is needed any more.
    pub(crate) fn awake(&self) {
        if self.running.get() > 0 {
            self.inner.borrow_mut().uring.completion().disable_eventfd();
        }
    }

    /// Queues `op` in a free slot.
    fn start(&self, op: Op, waker: &Waker) -> Result<u32, Op> {
        let mut inner = self.inner.borrow_mut();
        let Some(slot) = inner.free.pop() else { return Err(op) };
        inner.slots[slot as usize] = Slot::Running { op, waker: Some(waker.clone()) };
        inner.queue(slot, self.registered);
        self.running.set(self.running.get() + 1);
        Ok(slot)
    }

    fn wait_for_slot(&self, waker: &Waker) {
        self.stats.disk_waited.add(1);
        self.inner.borrow_mut().waiting.push_back(waker.clone());
    }

    /// Takes the outcome of a slot's operation, or leaves the waker to be woken with.
    fn poll_done(&self, slot: u32, waker: &Waker) -> Poll<(Held, Result<(), DiskError>)> {
        let mut inner = self.inner.borrow_mut();
        let state = &mut inner.slots[slot as usize];
        if let Slot::Running { waker: old, .. } = state {
            match old {
                Some(old) => old.clone_from(waker),
                None => *old = Some(waker.clone()),
            }
            return Poll::Pending;
        }
        let Slot::Done { held, result } = std::mem::replace(state, Slot::Free) else {
            panic!("an outcome is taken once");
        };
        if result.is_err() {
            self.stats.disk_failed.add(1);
        }
        inner.release(slot);
        Poll::Ready((held, result))
    }

    /// Nobody asks for the outcome any more.
    fn abandon(&self, slot: u32) {
        let mut inner = self.inner.borrow_mut();
        let dropped = match &mut inner.slots[slot as usize] {
            Slot::Running { waker, .. } => {
                let waker = waker.take();
                drop(inner);
                drop(waker);
                return;
            }
            state => std::mem::replace(state, Slot::Free),
        };
        inner.release(slot);
        drop(inner);
        // The buffer goes back to its pool, which may wake a task.
        drop(dropped);
    }

    fn wake_one(&self) {
        let waker = self.inner.borrow_mut().waiting.pop_front();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.running.get() > 0 {
            // The kernel may still write to these buffers: they are never given back.
            std::mem::forget(std::mem::take(&mut self.inner.get_mut().slots));
        }
    }
}

impl Inner {
    /// Tells the kernel of the queue; returns how many operations it took.
    fn enter(&mut self) -> u32 {
        if self.unsubmitted == 0 && !self.uring.submission().taskrun() {
            return 0;
        }
        // SAFETY: no argument is passed; every queued entry points to a buffer that its slot owns until the
        // entry's completion is collected.
        let result =
            unsafe { self.uring.submitter().enter::<libc::sigset_t>(self.unsubmitted, 0, GET_EVENTS, None) };
        match result {
            Ok(taken) => {
                let taken = taken as u32;
                self.unsubmitted -= taken;
                taken
            }
            // The kernel lacks memory for now, or was interrupted: the next turn tries again.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
                ) =>
            {
                0
            }
            Err(error) => panic!("a reactor cannot submit disk operations: {error}"),
        }
    }

    /// Queues the operation of `slot`.
    fn queue(&mut self, slot: u32, registered: u16) {
        let Slot::Running { op, .. } = &mut self.slots[slot as usize] else {
            panic!("only a running operation is queued");
        };
        let entry = op.entry(registered).user_data(u64::from(slot));
        // SAFETY: what the entry points to is owned by the slot until its completion is collected.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        pushed.expect("the queue has room for as many operations as there are slots");
        self.unsubmitted += 1;
    }

    /// Notes a completion; `true` if that ends the operation.
    fn complete(&mut self, slot: u32, result: i32, registered: u16) -> bool {
        let state = &mut self.slots[slot as usize];
        let Slot::Running { op, .. } = state else { panic!("what completes was running") };
        let result = match op.advance(result) {
            Step::Again => {
                self.queue(slot, registered);
                return false;
            }
            Step::Ended(result) => result,
        };
        let Slot::Running { op, waker } = std::mem::replace(state, Slot::Free) else {
            panic!("what completes was running");
        };
        let held = op.into_held();
        if let Some(waker) = waker {
            *state = Slot::Done { held, result };
            waker.wake();
        } else {
            drop(held);
            self.release(slot);
        }
        true
    }

    /// Makes a slot free for the next who waits.
    fn release(&mut self, slot: u32) {
        self.free.push(slot);
        if let Some(waker) = self.waiting.pop_front() {
            waker.wake();
        }
    }
}

/// The best ring this kernel has: completions are worked off when the reactor asks, not by interrupting it.
fn build(depth: u32) -> io::Result<IoUring> {
    let deferred = IoUring::<io_uring::squeue::Entry, cqueue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(depth);
    deferred.or_else(|_| IoUring::builder().build(depth))
}

/// The largest slab the kernel registers as one, in bytes.
const REGISTERED_MAX_BYTES: usize = 1 << 30;

/// Registers all slabs or none; returns how many.
fn register(uring: &IoUring, slabs: &[SlabRange]) -> u16 {
    if slabs.is_empty() || slabs.iter().any(|slab| slab.bytes > REGISTERED_MAX_BYTES) {
        return 0;
    }
    let ranges: Vec<libc::iovec> = slabs
        .iter()
        .map(|slab| libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(slab.address),
            iov_len: slab.bytes,
        })
        .collect();
    // SAFETY: slabs are mapped for as long as the process lives. The kernel touches a part only by an operation
    // that owns the buffer there.
    match unsafe { uring.submitter().register_buffers(&ranges) } {
        Ok(()) => slabs.len() as u16,
        Err(error) => {
            tracing::info!(%error, "I/O buffers are not registered with the kernel; operations name them each time");
            0
        }
    }
}

/// An operation on its way; its output is the buffer and how it went.
pub(crate) struct Run {
    engine: Rc<Engine>,
    state: RunState,
}

enum RunState {
    Unstarted { op: Option<Op>, waited: bool },
    Running(u32),
    Ended,
}

impl Run {
    pub(crate) fn new(engine: Rc<Engine>, op: Op) -> Self {
        Self { engine, state: RunState::Unstarted { op: Some(op), waited: false } }
    }
}

impl Future for Run {
    type Output = (Held, Result<(), DiskError>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let ring = this.engine.attached_ring();
        match &mut this.state {
            RunState::Unstarted { op, waited } => {
                match ring.start(op.take().expect("it is there until it starts"), cx.waker()) {
                    Ok(slot) => this.state = RunState::Running(slot),
                    Err(back) => {
                        *op = Some(back);
                        *waited = true;
                        ring.wait_for_slot(cx.waker());
                    }
                }
                Poll::Pending
            }
            RunState::Running(slot) => {
                let outcome = std::task::ready!(ring.poll_done(*slot, cx.waker()));
                this.state = RunState::Ended;
                Poll::Ready(outcome)
            }
            RunState::Ended => panic!("an operation's outcome is taken once"),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let ring = self.engine.attached_ring();
        match self.state {
            RunState::Running(slot) => ring.abandon(slot),
            // The slot this one may have been woken for goes to the next.
            RunState::Unstarted { waited: true, .. } => ring.wake_one(),
            RunState::Unstarted { .. } | RunState::Ended => {}
        }
    }
}
