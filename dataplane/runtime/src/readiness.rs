//! Whether a socket can be read or written, as the edge-triggered epoll set has told, and who waits for it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// The waker of one waiter. It is kept after it was used, as the same task comes back most of the time.
#[derive(Debug, Default)]
struct Waiter {
    waker: RefCell<Option<Waker>>,
    armed: Cell<bool>,
}

impl Waiter {
    fn arm(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.armed.set(true);
    }

    fn wake(&self) {
        if self.armed.replace(false)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}

/// The state of one socket.
#[derive(Debug)]
pub(crate) struct Readiness {
    readable: Cell<bool>,
    writable: Cell<bool>,
    /// The peer has finished or the connection broke: no further edge will tell of it, so reads go on until
    /// they have seen it.
    ended: Cell<bool>,
    receiver: Waiter,
    sender: Waiter,
}

const READ_EVENTS: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const WRITE_EVENTS: u32 = (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const END_EVENTS: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

impl Readiness {
    /// A socket of which nothing is known: the first try of each kind asks the kernel.
    pub(crate) fn new() -> Self {
        Self {
            readable: Cell::new(true),
            writable: Cell::new(true),
            ended: Cell::new(false),
            receiver: Waiter::default(),
            sender: Waiter::default(),
        }
    }

    /// Notes what epoll told, and wakes who waits for it.
    pub(crate) fn note(&self, events: u32) {
        if events & END_EVENTS != 0 {
            self.ended.set(true);
        }
        if events & READ_EVENTS != 0 {
            self.readable.set(true);
            self.receiver.wake();
        }
        if events & WRITE_EVENTS != 0 {
            self.writable.set(true);
            self.sender.wake();
        }
    }

    pub(crate) fn readable(&self) -> bool {
        self.readable.get()
    }

    pub(crate) fn writable(&self) -> bool {
        self.writable.get()
    }

    /// Notes that the kernel has nothing more to read. `certain` where it said so itself (`EAGAIN`), not so
    /// where a read came back short: then the end of the stream may be all that is left.
    pub(crate) fn drained(&self, certain: bool) {
        if certain || !self.ended.get() {
            self.readable.set(false);
        }
    }

    /// Notes that the kernel takes no more.
    pub(crate) fn filled(&self) {
        self.writable.set(false);
    }

    /// Forgets that it was writable: a socket that connects is not until epoll says so.
    pub(crate) fn await_connection(&self) {
        self.writable.set(false);
    }

    pub(crate) fn wait_readable(&self, cx: &Context<'_>) {
        self.receiver.arm(cx);
    }

    pub(crate) fn wait_writable(&self, cx: &Context<'_>) {
        self.sender.arm(cx);
    }

    /// Wakes everybody.
    pub(crate) fn wake_all(&self) {
        self.receiver.wake();
        self.sender.wake();
    }
}

/// The sockets of a reactor, by the token epoll reports them with.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    /// Raised when the entry is freed, so that a late event does not reach its next user.
    generation: u32,
    state: Option<Rc<Readiness>>,
}

impl Registry {
    /// Adds a socket; returns its token.
    pub(crate) fn add(&mut self, state: Rc<Readiness>) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, state: None });
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.state = Some(state);
        u64::from(entry.generation) << 32 | u64::from(index)
    }

    /// The socket of `token`, if it is still there.
    pub(crate) fn get(&self, token: u64) -> Option<&Readiness> {
        let entry = self.entries.get(token as u32 as usize)?;
        if u64::from(entry.generation) == token >> 32 { entry.state.as_deref() } else { None }
    }

    /// Removes a socket.
    pub(crate) fn remove(&mut self, token: u64) {
        let index = token as u32;
        let entry = &mut self.entries[index as usize];
        assert_eq!(u64::from(entry.generation), token >> 32, "a socket is removed once");
        // The upper quarter of the numbers is for the reactor's own descriptors.
        entry.generation = (entry.generation + 1) & 0x3fff_ffff;
        entry.state = None;
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_event_does_not_reach_the_next_user_of_an_entry() {
        let mut registry = Registry::default();
        let first = registry.add(Rc::new(Readiness::new()));
        registry.remove(first);
        let second = registry.add(Rc::new(Readiness::new()));
        assert_eq!(first as u32, second as u32);
        assert!(registry.get(first).is_none());
        assert!(registry.get(second).is_some());
        assert!(registry.get(u64::MAX).is_none());
    }

    #[test]
    fn a_short_read_ends_reading_unless_the_peer_has_finished() {
        let state = Readiness::new();
        state.drained(false);
        assert!(!state.readable());
        state.note(libc::EPOLLIN as u32);
        assert!(state.readable());
        state.note((libc::EPOLLIN | libc::EPOLLRDHUP) as u32);
        state.drained(false);
        assert!(state.readable(), "the end of the stream is still to be read");
        state.drained(true);
        assert!(!state.readable());
    }
}
