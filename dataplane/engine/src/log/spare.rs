//! The segment made ahead.

use std::rc::Rc;

use ashlar_env::Env;

use crate::chunks::{Chunks, StoreError};
use crate::ids::{SegmentId, SegmentKind};
use crate::segment::{Replicas, ShardError, ShardSet};

use super::op::{LogError, Sink};
use super::state::{Open, Spare};
use super::writer::{Log, Shared};

impl<E: Env, C: Chunks, S: Sink> Log<E, C, S> {
    /// Goes on with more replicas, where the present segment has fewer than there are devices for. Whether it will.
    pub async fn widen(&self) -> bool {
        let shared = self.shared();
        let current = {
            let state = shared.state.borrow();
            if state.failed.is_some() || state.closed || state.must_leave() {
                return false;
            }
            state.current.shards()
        };
        let shards = shared.segments.placeable(current);
        if !current.without(shards).is_empty() || shards == current {
            return false;
        }
        let Ok((segment, replicas)) = shared.make_segment(shards).await else { return false };
        let made = Open { segment, replicas, end: 0 };
        let mut state = shared.state.borrow_mut();
        let is_wider = state.current.shards().len() < shards.len() && state.wider.is_none();
        if state.failed.is_some() || state.closed || !is_wider {
            drop(state);
            shared.give_back(Spare::Ready(made));
            return false;
        }
        state.wider = Some(made);
        drop(state);
        shared.wake();
        true
    }

    /// The stores that the present segment is on.
    #[must_use]
    pub fn shards(&self) -> ShardSet {
        self.shared().state.borrow().current.shards()
    }
}

impl<E: Env, C: Chunks, S: Sink> Shared<E, C, S> {
    /// Begins to make the segment after the present one, unless it is there or being made.
    pub fn make_spare(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.failed.is_some() || !matches!(state.spare, Spare::Missing) {
            return;
        }
        state.tries += 1;
        let number = state.tries;
        state.spare = Spare::Making(number);
        let shards = state.healthy();
        drop(state);
        let shared = Rc::clone(self);
        self.env.spawn(async move {
            let made = shared.make_segment(shards).await;
            if let Some(segment) = shared.spare_made(number, made) {
                // What cannot be deleted now is found by the next recovery.
                let _ = shared.segments.delete(segment, shared.epoch).await;
            }
        });
    }

    /// Makes a segment on `shards`; a store that does not answer in time has failed if another has answered.
    pub async fn make_segment(
        &self,
        shards: ShardSet,
    ) -> Result<(SegmentId, Replicas<C::Chunk>), ShardError> {
        let over = self.env.sleep_until(self.env.now().plus(self.config.answer_max));
        self.segments.create_until(over, SegmentKind::Log, self.epoch, shards).await
    }

    /// Deletes a segment made ahead that is not used.
    pub fn give_back(self: &Rc<Self>, spare: Spare<C::Chunk>) {
        if let Spare::Ready(unused) = spare {
            let shared = Rc::clone(self);
            self.env.spawn(async move {
                // What cannot be deleted now is found by the next recovery.
                let _ = shared.segments.delete(unused.segment, shared.epoch).await;
            });
        }
    }

    /// Takes note of how a try to make a segment ended. The segment, where the log went on without it.
    fn spare_made(
        self: &Rc<Self>,
        number: u64,
        made: Result<(SegmentId, Replicas<C::Chunk>), ShardError>,
    ) -> Option<SegmentId> {
        let mut state = self.state.borrow_mut();
        if !matches!(state.spare, Spare::Making(wanted) if wanted == number) {
            return made.ok().map(|(segment, _)| segment);
        }
        state.spare = Spare::Missing;
        let mut fenced = None;
        match made {
            Ok((segment, replicas)) => {
                state.spare = Spare::Ready(Open { segment, replicas, end: 0 });
                state.full = false;
            }
            Err(ShardError { error: StoreError::Full, .. }) => state.full = true,
            Err(ShardError { error: StoreError::Fenced { fence }, .. }) => fenced = Some(fence),
            Err(failed) => state.break_shard(failed),
        }
        let again = matches!(state.spare, Spare::Missing) && !state.full && !state.must_leave();
        drop(state);
        if again && fenced.is_none() {
            self.make_spare();
        }
        match fenced {
            Some(fence) => self.fail(LogError::Fenced { fence }),
            None => self.wake(),
        }
        None
    }
}
