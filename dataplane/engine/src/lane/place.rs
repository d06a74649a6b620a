//! A change's place among those in flight, kept until what it has logged is applied, also when its future is dropped.

use std::rc::Rc;

use ashlar_env::Env;
use ashlar_env::buf::Buf;
use smallvec::{SmallVec, smallvec};

use crate::chunks::Chunks;
use crate::log::{Append, Op};

use super::Inner;
use super::control::Control;
use super::core::VolumeNumber;
use super::ranges::Range;

/// Places that were given up in the middle of a change, each with what is ready once all before it is applied.
pub(super) type Orphans = Vec<(u64, Append)>;

/// A place. A change that came to its end says so by [`Self::end`].
#[must_use = "the place is given up when this is dropped"]
pub(super) struct Place<E: Env, C: Chunks> {
    inner: Rc<Inner<E, C>>,
    ticket: u64,
    ended: bool,
}

impl<E: Env, C: Chunks> Place<E, C> {
    /// Waits for the blocks of `volume` from `first` to before `end`; see [`Range::alone`].
    pub async fn of(
        inner: &Rc<Inner<E, C>>,
        volume: VolumeNumber,
        (first, end): (u64, u64),
        alone: bool,
    ) -> Self {
        Self::of_all(inner, smallvec![Range { volume, first, end, alone }]).await
    }

    /// The same for several ranges.
    pub async fn of_all(inner: &Rc<Inner<E, C>>, ranges: SmallVec<[Range; 2]>) -> Self {
        let ticket = inner.ranges.enter(ranges).await.keep();
        Self { inner: Rc::clone(inner), ticket, ended: false }
    }

    /// The change has ended with `result`: nothing of it is under way.
    pub fn end<T>(mut self, result: T) -> T {
        self.ended = true;
        result
    }
}

impl<E: Env, C: Chunks> Drop for Place<E, C> {
    fn drop(&mut self) {
        let inner = &self.inner;
        if self.ended || inner.check().is_err() || inner.config.planted.leave_early {
            return inner.ranges.leave(self.ticket);
        }
        // What the change has logged may still come true: whoever reads a block to change a part of it must see it.
        let after = inner.log().append(Op::Control(Buf::from_heap(Control::Nothing.encode().into())));
        inner.orphans.borrow_mut().push((self.ticket, after));
        inner.orphaned.notify();
    }
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Gives up the places of changes whose futures were dropped, until the lane is closed or has failed.
    pub(super) async fn tend_orphans(self: Rc<Self>) {
        loop {
            let is_one = || !self.orphans.borrow().is_empty() || self.check().is_err();
            self.orphaned.wait_until(is_one).await;
            let next = self.orphans.borrow_mut().pop();
            match next {
                // Applied, or the log has failed: nothing comes any more.
                Some((ticket, after)) => {
                    let _ = after.await;
                    self.ranges.leave(ticket);
                }
                None => return,
            }
        }
    }
}
