//! What every environment must do: one suite for the simulator and for Linux.
//!
//! So the model cannot drift from the kernel. Each function is given an environment (and a disk or mesh) and
//! panics where a promise of `ashlar-env` is broken. All of them expect an environment without injected
//! failures, and finish within seconds.
//!
//! * [`clock`], [`spawn`], [`buffers`]: one reactor.
//! * [`net`]: one reactor and a loopback address.
//! * [`disk`]: one reactor and a disk of at least [`disk::BYTES_MIN`] whose contents may be destroyed.
//! * [`mesh`]: the same function on every reactor of a node at once.

pub mod buffers;
pub mod clock;
pub mod disk;
pub mod mesh;
pub mod net;
pub mod spawn;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{IoSlice, IoSliceMut};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ashlar_env::net::NetError;
use ashlar_env::{Clock, Stream};

/// Sleeps for `time`.
pub async fn sleep(clock: &impl Clock, time: Duration) {
    clock.sleep_until(clock.now().plus(time)).await;
}

/// Runs all `futures` at once and gives their results in order.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(move |cx| {
        for (future, result) in running.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *result = Some(value);
            }
        }
        if results.iter().any(Option::is_none) {
            return Poll::Pending;
        }
        Poll::Ready(results.iter_mut().map(|r| r.take().expect("all have ended")).collect())
    })
    .await
}

/// `future`'s result, or `None` where it takes longer than `time`.
pub async fn within<F: Future>(clock: &impl Clock, time: Duration, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut late = clock.sleep_until(clock.now().plus(time));
    poll_fn(move |cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        Pin::new(&mut late).poll(cx).map(|()| None)
    })
    .await
}

/// Sends all of `bytes`.
///
/// # Errors
/// What the stream says.
pub async fn send_all(stream: &impl Stream, mut bytes: &[u8]) -> Result<(), NetError> {
    while !bytes.is_empty() {
        let sent = poll_fn(|cx| stream.poll_send(cx, &[IoSlice::new(bytes)])).await?;
        assert!(sent >= 1 && sent <= bytes.len(), "a send takes from 1 byte to all");
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Receives until `bytes` is full or the peer has finished; gives the number of bytes.
///
/// # Errors
/// What the stream says.
pub async fn receive(stream: &impl Stream, bytes: &mut [u8]) -> Result<usize, NetError> {
    let mut full = 0;
    while full < bytes.len() {
        let rest = &mut bytes[full..];
        let received = poll_fn(|cx| stream.poll_recv(cx, &mut [IoSliceMut::new(rest)])).await?;
        if received == 0 {
            break;
        }
        full += received;
    }
    Ok(full)
}

/// A switch that one task throws and another waits for, on one reactor.
#[derive(Clone, Default)]
pub struct Signal {
    inner: Rc<SignalInner>,
}

#[derive(Default)]
struct SignalInner {
    set: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Signal {
    /// Throws the switch.
    pub fn set(&self) {
        self.inner.set.set(true);
        if let Some(waker) = self.inner.waker.take() {
            waker.wake();
        }
    }

    /// Whether it was thrown.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.inner.set.get()
    }

    /// Waits until it is thrown. One task waits.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.inner.set.get() {
                return Poll::Ready(());
            }
            self.inner.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Bytes that differ from place to place: what byte `at` of stream or disk region `salt` holds.
#[must_use]
pub fn pattern(salt: u64, at: u64) -> u8 {
    let mixed = (at ^ salt.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

/// Fills `bytes` with the [`pattern`] of `salt` from `start`.
pub fn fill(salt: u64, start: u64, bytes: &mut [u8]) {
    for (at, byte) in (start..).zip(bytes) {
        *byte = pattern(salt, at);
    }
}

/// Where `bytes` first differs from the [`pattern`] of `salt` from `start`.
#[must_use]
pub fn first_difference(salt: u64, start: u64, bytes: &[u8]) -> Option<u64> {
    (start..).zip(bytes).find(|&(at, &byte)| byte != pattern(salt, at)).map(|(at, _)| at)
}
