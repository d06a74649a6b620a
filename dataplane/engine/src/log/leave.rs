//! Going on without a replica that failed or is too slow; and with one that has come back.
//!
//! Phases, one after the other; nothing is sent meanwhile and nothing acknowledged:
//!
//! 1. What is in flight on the other replicas ends.
//! 2. The log gets a new segment on the replicas that are left: the one made ahead, or another; or the one that was made
//!    on more stores.
//! 3. The coordinator commits, oldest first, for each segment that the replica may lack records of: where it ends,
//!    without whom, and where the log continues.
//! 4. All records in flight are durable on every replica that counts: they are applied. The segment they ended in is
//!    sealed in the background, and the log goes on in the new one.
//!
//! A crash before the last commit leaves what a crash of the writer leaves: records that were never acknowledged.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use ashlar_env::slots::Slots;
use ashlar_env::{Env, Instant};

use crate::chunks::{Chunks, Seal, StoreError};
use crate::segment::ShardSet;

use super::coordinator::Decision;
use super::op::{LogError, Position, Sink};
use super::state::{Open, Spare};
use super::writer::{Done, Shared};

impl<E: Env, C: Chunks, S: Sink> Shared<E, C, S> {
    /// Goes on without the broken replicas, or fails where none is left.
    pub async fn leave_behind<F: Future<Output = Done>, T: Future<Output = ()> + Unpin>(
        self: &Rc<Self>,
        slots: &mut Slots<F>,
        timer: &mut Option<T>,
        sleep: &impl Fn(Instant) -> T,
    ) {
        poll_fn(|cx| {
            self.take_ended(slots, cx);
            self.watch(timer, sleep, cx);
            if self.others_end() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let Some((next, broken)) = self.next_on_healthy().await else { return };
        if !self.config.planted.leave_uncommitted
            && let Err(error) = self.commit(&next, broken).await
        {
            return self.fail(error);
        }
        if self.state.borrow().failed.is_none() {
            self.go_on_in(next, broken);
        }
    }

    /// Whether every record in flight is durable on all replicas that are not broken.
    fn others_end(&self) -> bool {
        let state = self.state.borrow();
        let waits = |pending: ShardSet| !pending.without(state.broken).is_empty();
        state.failed.is_some() || !state.in_flight.iter().any(|record| waits(record.pending))
    }

    /// A new segment on the replicas that are left, and which are not; `None` where the log has failed.
    async fn next_on_healthy(self: &Rc<Self>) -> Option<(Open<C::Chunk>, ShardSet)> {
        loop {
            let (healthy, broken, spare, wider) = {
                let mut state = self.state.borrow_mut();
                if state.failed.is_some() {
                    return None;
                }
                // A segment being made is not waited for: the broken replica may never answer.
                let spare = std::mem::replace(&mut state.spare, Spare::Missing);
                // One that has failed meanwhile is no way out.
                let wider = state.wider.take();
                match wider.filter(|wider| !wider.shards().without(state.broken).is_empty()) {
                    Some(wider) => (wider.shards().without(state.broken), state.broken, spare, Some(wider)),
                    None => (state.healthy(), state.broken, spare, None),
                }
            };
            let spare = match wider {
                Some(wider) => {
                    self.give_back(spare);
                    Spare::Ready(wider)
                }
                None => spare,
            };
            if healthy.is_empty() {
                let why = self.state.borrow_mut().breakage.clone().expect("a replica broke for a reason");
                self.fail(why.into());
                return None;
            }
            if let Spare::Ready(mut next) = spare {
                next.replicas.retain(|replica| !broken.contains(replica.shard));
                self.segments.leave(next.segment, broken);
                return Some((next, broken));
            }
            match self.make_segment(healthy).await {
                Ok((segment, replicas)) => {
                    self.state.borrow_mut().full = false;
                    return Some((Open { segment, replicas, end: 0 }, broken));
                }
                Err(failed) => match failed.error {
                    StoreError::Full => {
                        let again = self.env.now().plus(self.config.create_again);
                        self.env.sleep_until(again).await;
                    }
                    StoreError::Fenced { fence } => self.fail(LogError::Fenced { fence }),
                    _ => self.state.borrow_mut().break_shard(failed),
                },
            }
        }
    }

    /// Commits where the segments with records in flight end, and the present one.
    async fn commit(&self, next: &Open<C::Chunk>, broken: ShardSet) -> Result<(), LogError> {
        let decisions = {
            let state = self.state.borrow();
            let decide = |segment, length, next, next_shards: ShardSet| Decision {
                lane: self.segments.lane(),
                epoch: self.epoch,
                segment,
                length,
                without: self.segments.shards(segment).and(broken),
                next,
                next_shards: next_shards.without(broken),
            };
            let mut decisions = Vec::new();
            for record in &state.in_flight {
                if let Some(next) = record.next {
                    let next_shards = self.segments.shards(next);
                    decisions.push(decide(record.segment, record.end, next, next_shards));
                }
            }
            let current = &state.current;
            decisions.push(decide(current.segment, current.end, next.segment, next.shards()));
            decisions
        };
        for decision in decisions {
            let committed = self.coordinator.commit_seal(decision).await;
            committed.map_err(|refused| LogError::Refused(refused.to_string()))?;
        }
        Ok(())
    }

    /// Goes on in `next` without those that the coordinator was told of; one that broke since has its turn after this.
    fn go_on_in(self: &Rc<Self>, next: Open<C::Chunk>, broken: ShardSet) {
        let (ended, length) = {
            let mut state = self.state.borrow_mut();
            for record in &mut state.in_flight {
                record.pending = record.pending.without(broken);
                self.segments.leave(record.segment, broken);
            }
            self.segments.leave(state.current.segment, broken);
            (state.current.segment, state.current.end)
        };
        self.apply();
        let (segment, shards) = (next.segment, next.shards());
        {
            let mut state = self.state.borrow_mut();
            state.current = next;
            // Whoever was left behind has no part in what is written from now on.
            state.broken = state.broken.without(broken);
            state.applied = Position { segment, offset: 0, shards, ..state.applied };
            state.unsealed += 1;
        }
        self.sink.segment_opened(segment);
        self.seal_behind(ended, Seal { length, next: Some(segment) });
        self.make_spare();
    }
}
