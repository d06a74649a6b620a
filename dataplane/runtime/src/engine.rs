//! What a reactor polls: its epoll set, its timers, its ring; one value shared by everything on the reactor.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crate::doorbell::Doorbell;
use crate::helper::Helper;
use crate::random::Random;
use crate::readiness::{Readiness, Registry};
use crate::ring::{Ring, SlabRange};
use crate::stats::ReactorStats;
use crate::sys;
use crate::task::{ForeignWakes, Tasks};
use crate::timers::Timers;

/// Tokens of the reactor's own descriptors; those of sockets are below.
const TOKEN_OWN: u64 = u64::MAX;

/// Events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 256;

const EDGE: u32 = libc::EPOLLET as u32;

/// How to make the ring.
#[derive(Clone, Debug)]
pub(crate) struct RingPlan {
    /// Operations at once.
    pub(crate) depth: u32,
    /// The memory to register, in the order of the slabs' numbers; empty for none.
    pub(crate) slabs: Arc<[SlabRange]>,
}

/// The reactor's engine.
pub(crate) struct Engine {
    epoll: OwnedFd,
    registry: RefCell<Registry>,
    events: RefCell<Vec<libc::epoll_event>>,
    timers: RefCell<Timers>,
    /// The soonest deadline; `u64::MAX` for none.
    next_timer_ns: Cell<u64>,
    now_ns: Cell<u64>,
    random: RefCell<Random>,
    /// Made for the first disk.
    ring: OnceCell<Ring>,
    ring_plan: RingPlan,
    /// Started for the first call that blocks.
    helper: OnceCell<Helper>,
    pub(crate) tasks: Tasks,
    pub(crate) foreign: Arc<ForeignWakes>,
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) stats: Arc<ReactorStats>,
}

impl Engine {
    pub(crate) fn new(
        doorbell: Arc<Doorbell>,
        stats: Arc<ReactorStats>,
        ring_plan: RingPlan,
    ) -> io::Result<Self> {
        let epoll = sys::epoll_create()?;
        // Edge-triggered, so that it needs not be read: each ring is an edge of its own.
        let events = libc::EPOLLIN as u32 | EDGE;
        sys::epoll_add(epoll.as_fd(), doorbell.event().as_raw_fd(), events, TOKEN_OWN)?;
        Ok(Self {
            epoll,
            registry: RefCell::default(),
            events: RefCell::new(vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_TURN]),
            timers: RefCell::default(),
            next_timer_ns: Cell::new(u64::MAX),
            now_ns: Cell::new(sys::monotonic_ns()),
            random: RefCell::new(Random::new()),
            ring: OnceCell::new(),
            ring_plan,
            helper: OnceCell::new(),
            tasks: Tasks::default(),
            foreign: Arc::new(ForeignWakes::new(Arc::clone(&doorbell))),
            doorbell,
            stats,
        })
    }

    /// The time of this turn, in nanoseconds.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// Reads the clock for this turn.
    pub(crate) fn read_clock(&self) -> u64 {
        let now = sys::monotonic_ns();
        self.now_ns.set(now);
        now
    }

    pub(crate) fn random_u64(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    // --- Sockets ---

    /// Watches a socket for everything.
    pub(crate) fn watch(&self, fd: RawFd, state: Rc<Readiness>) -> io::Result<u64> {
        let token = self.registry.borrow_mut().add(state);
        let events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP) as u32 | EDGE;
        if let Err(error) = sys::epoll_add(self.epoll.as_fd(), fd, events, token) {
            self.registry.borrow_mut().remove(token);
            return Err(error);
        }
        self.stats.sockets.add(1);
        Ok(token)
    }

    /// Ends the watch of a socket that is about to be closed.
    pub(crate) fn unwatch(&self, token: u64) {
        self.registry.borrow_mut().remove(token);
        self.stats.sockets.sub_one();
    }

    /// Takes the socket events there are; `true` if there were any.
    pub(crate) fn poll_sockets(&self) -> bool {
        let mut events = self.events.borrow_mut();
        let count = sys::epoll_poll(self.epoll.as_fd(), &mut events);
        self.note(&events, count)
    }

    /// Sleeps in the kernel until a socket, the ring or the doorbell has something, or a deadline comes.
    ///
    /// Only for a reactor with no runnable task, which has announced its sleep and found all queues empty since.
    pub(crate) fn sleep(&self) {
        let next = self.next_timer_ns.get();
        let timeout = if next == u64::MAX { None } else { Some(next.saturating_sub(sys::monotonic_ns())) };
        self.stats.parks.add(1);
        let mut events = self.events.borrow_mut();
        let count = sys::epoll_wait(self.epoll.as_fd(), &mut events, timeout);
        // What it wakes runs before the next turn.
        self.read_clock();
        self.note(&events, count);
    }

    /// Tells the sockets of their events; `true` if there were any.
    fn note(&self, events: &[libc::epoll_event], count: io::Result<usize>) -> bool {
        let events = match count {
            Ok(0) => return false,
            Ok(count) => &events[..count],
            Err(error) => panic!("a reactor cannot poll its sockets: {error}"),
        };
        self.stats.socket_events.add(events.len() as u64);
        let registry = self.registry.borrow();
        let mut worked = false;
        for event in events {
            let token = event.u64;
            if let Some(state) = registry.get(token) {
                state.note(event.events);
                worked = true;
            }
        }
        worked
    }

    // --- Timers ---

    pub(crate) fn add_timer(&self, deadline_ns: u64, waker: Waker) -> u64 {
        self.next_timer_ns.set(self.next_timer_ns.get().min(deadline_ns));
        self.timers.borrow_mut().add(deadline_ns, waker)
    }

    pub(crate) fn update_timer(&self, deadline_ns: u64, number: u64, waker: &Waker) -> bool {
        self.timers.borrow_mut().update(deadline_ns, number, waker)
    }

    /// Forgets a deadline. The soonest one is left to fire for nobody: that is one needless turn.
    pub(crate) fn remove_timer(&self, deadline_ns: u64, number: u64) {
        let waker = self.timers.borrow_mut().remove(deadline_ns, number);
        // Dropping a waker may drop a task, which may come back here.
        drop(waker);
    }

    /// Wakes the tasks whose deadline has come; `true` if there were any.
    pub(crate) fn fire_timers(&self) -> bool {
        let now = self.now_ns.get();
        if self.next_timer_ns.get() > now {
            return false;
        }
        let mut worked = false;
        loop {
            let Some(waker) = self.timers.borrow_mut().pop_due(now) else { break };
            waker.wake();
            worked = true;
        }
        self.next_timer_ns.set(self.timers.borrow().next_ns().unwrap_or(u64::MAX));
        worked
    }

    // --- Disks ---

    /// Makes the ring if there is none yet.
    pub(crate) fn attach_ring(&self) -> io::Result<()> {
        if self.ring.get().is_some() {
            return Ok(());
        }
        let ring = Ring::new(self.ring_plan.depth, &self.ring_plan.slabs, Arc::clone(&self.stats))?;
        let events = libc::EPOLLIN as u32 | EDGE;
        sys::epoll_add(self.epoll.as_fd(), ring.event().as_raw_fd(), events, TOKEN_OWN)?;
        assert!(self.ring.set(ring).is_ok(), "nothing else made a ring meanwhile");
        Ok(())
    }

    /// The ring, if there is one.
    pub(crate) fn ring(&self) -> Option<&Ring> {
        self.ring.get()
    }

    /// The ring of a reactor that has a disk.
    pub(crate) fn attached_ring(&self) -> &Ring {
        self.ring.get().expect("a disk is attached after the ring was made")
    }

    /// The thread for calls that block.
    pub(crate) fn helper(&self) -> io::Result<&Helper> {
        if self.helper.get().is_none() {
            assert!(self.helper.set(Helper::start()?).is_ok(), "nothing else started a helper meanwhile");
        }
        Ok(self.helper.get().expect("it has just been started"))
    }
}
