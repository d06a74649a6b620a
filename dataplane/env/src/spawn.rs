//! Tasks.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Starts tasks on the reactor at hand.
pub trait Spawn {
    /// Runs `task` on this reactor until it ends. Nothing waits for it; a task that must be stopped watches
    /// for that itself. Tasks interleave only where they await.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}

/// Lets other tasks of the reactor run once. For long computation and for fairness between busy connections.
pub fn yield_now() -> impl Future<Output = ()> {
    YieldNow { yielded: false }
}

struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
