//! The answer of a reactor to another thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// the reactor has as many requests waiting as it takes; the request was not begun
    #[error("the reactor is busy: its inbox is full; nothing was begun, ask again later")]
    Busy,
    /// the reactor ended, or ended before it answered
    #[error("the reactor has ended")]
    Ended,
    /// the request panicked
    #[error("the request failed by a panic on its reactor")]
    Panicked,
}

enum State<T> {
    Waiting(Option<Waker>),
    Done(Result<T, NoReply>),
    Taken,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

/// An answer to come. Await it, or block on [`Self::wait`].
#[must_use = "an answer nobody looks at"]
pub struct Reply<T> {
    shared: Arc<Shared<T>>,
}

/// The obligation to answer; dropped without an answer, it answers [`NoReply::Ended`].
pub(crate) struct Promise<T> {
    shared: Arc<Shared<T>>,
}

pub(crate) fn reply<T>() -> (Promise<T>, Reply<T>) {
    let shared = Arc::new(Shared { state: Mutex::new(State::Waiting(None)), done: Condvar::new() });
    (Promise { shared: Arc::clone(&shared) }, Reply { shared })
}

impl<T> Promise<T> {
    pub(crate) fn settle(self, result: Result<T, NoReply>) {
        self.finish(result);
    }

    fn finish(&self, result: Result<T, NoReply>) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Waiting(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Done(result);
            drop(state);
            self.shared.done.notify_all();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.finish(Err(NoReply::Ended));
    }
}

impl<T> Reply<T> {
    /// Blocks the calling thread until the answer is there. Never to be called on a reactor.
    ///
    /// # Errors
    /// [`NoReply`].
    pub fn wait(self) -> Result<T, NoReply> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let State::Done(_) = &*state {
                return take(&mut state);
            }
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn take<T>(state: &mut State<T>) -> Result<T, NoReply> {
    match std::mem::replace(state, State::Taken) {
        State::Done(result) => result,
        State::Waiting(_) | State::Taken => Err(NoReply::Ended),
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, NoReply>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Waiting(waker) = &mut *state {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(take(&mut state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_arrives_and_a_broken_promise_shows() {
        let (promise, answer) = reply();
        std::thread::spawn(move || promise.settle(Ok(7)));
        assert_eq!(answer.wait(), Ok(7));
        let (promise, answer) = reply::<()>();
        drop(promise);
        assert_eq!(answer.wait(), Err(NoReply::Ended));
    }
}
