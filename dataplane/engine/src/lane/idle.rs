//! A checkpoint some time after writers have begun, even if they wrote little: then a restart replays little, and what is
//! reported of space is exact.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ashlar_env::Env;

use crate::chunks::Chunks;

use super::Inner;
use super::background::Want;

/// How long after the first write that the last checkpoint has not seen.
const AFTER: Duration = Duration::from_secs(10);

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Asks for checkpoints until the lane is closed or has failed. Sleeps without a timer while nothing is written.
    pub(super) async fn keep_short(self: Rc<Self>) {
        loop {
            self.shared
                .grown
                .wait_until(|| self.shared.logged_bytes.get() > 0 || self.check().is_err())
                .await;
            self.rest().await;
            if self.check().is_err() {
                return;
            }
            if self.shared.logged_bytes.get() > 0 {
                // What it says, others are told as well.
                let _ = self.turn(Want::Checkpoint).await;
            }
        }
    }

    /// Waits [`AFTER`], or until the lane has ended.
    async fn rest(&self) {
        let mut over = pin!(self.env.sleep_until(self.env.now().plus(AFTER)));
        let mut ended = pin!(self.worked.wait_until(|| self.check().is_err()));
        poll_fn(|cx| {
            let ended = ended.as_mut().poll(cx).is_ready();
            if ended || over.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
