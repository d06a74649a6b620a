//! How another thread wakes a reactor that sleeps in the kernel.
//!
//! A sender first makes its work visible (pushes to a queue), then rings. A sleeper first announces that it
//! sleeps, then looks at all queues once more. Each side puts a full fence between its two steps, so at least
//! one of them sees the other: either the sender finds the announcement and writes the eventfd, or the sleeper
//! finds the work. A reactor that is awake costs its senders no system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::sys;

/// The doorbell of one reactor.
#[derive(Debug)]
pub(crate) struct Doorbell {
    sleeping: AtomicBool,
    event: OwnedFd,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { sleeping: AtomicBool::new(false), event: sys::eventfd()? })
    }

    /// Wakes the reactor if it sleeps. Call after the work is visible.
    #[inline]
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            sys::raise_eventfd(self.event.as_fd());
        }
    }

    /// Announces that the reactor sleeps. It must look at all its queues again before it does.
    pub(crate) fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// What becomes readable when the bell rings.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
