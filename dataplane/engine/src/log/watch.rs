//! Noticing replicas that are too slow.
//!
//! A replica is slow when its oldest append has taken longer than a multiple of its own recent 99.9th percentile, and
//! longer than a floor. A slow one counts as failed, as long as another is not slow: time decides about speed, never about
//! what is durable. One timer is armed at a time, for the earliest moment at which somebody could be late, so that nothing
//! is done per record.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use ashlar_env::disk::DiskError;
use ashlar_env::{Env, Instant};

use crate::chunks::{Chunks, StoreError};
use crate::segment::{ShardError, ShardSet};

use super::op::Sink;
use super::writer::Shared;

impl<E: Env, C: Chunks, S: Sink> Shared<E, C, S> {
    /// Keeps `timer` armed while there is somebody to watch, and breaks who is late.
    pub fn watch<T: Future<Output = ()> + Unpin>(
        &self,
        timer: &mut Option<T>,
        sleep: &impl Fn(Instant) -> T,
        cx: &mut Context<'_>,
    ) {
        loop {
            if timer.is_none() {
                let Some(deadline) = self.earliest_deadline() else { return };
                *timer = Some(sleep(deadline));
            }
            let armed = timer.as_mut().expect("it was just armed");
            if Pin::new(armed).poll(cx).is_pending() {
                return;
            }
            *timer = None;
            self.break_late();
        }
    }

    /// When the next replica may be late; `None` where nobody can be left behind.
    fn earliest_deadline(&self) -> Option<Instant> {
        let state = self.state.borrow();
        let healthy = state.healthy();
        if healthy.len() < 2 {
            return None;
        }
        let pending = state.in_flight.iter().flat_map(|record| {
            let shards = record.pending.and(healthy);
            shards.iter().map(|shard| record.begun.plus(self.bound(&state.latency[usize::from(shard)])))
        });
        pending.min()
    }

    /// Breaks the replicas that are late now, unless all of them are.
    fn break_late(&self) {
        let now = self.env.now();
        let mut state = self.state.borrow_mut();
        let healthy = state.healthy();
        let mut late = ShardSet::EMPTY;
        for record in &state.in_flight {
            for shard in record.pending.and(healthy).iter() {
                if now >= record.begun.plus(self.bound(&state.latency[usize::from(shard)])) {
                    late = late.with(ShardSet::of(shard));
                }
            }
        }
        if late == healthy {
            // Everybody's clock starts anew: the one who then answers first stays.
            state.in_flight.iter_mut().for_each(|record| record.begun = now);
            return;
        }
        for shard in late.iter() {
            let bound = self.bound(&state.latency[usize::from(shard)]);
            let error = StoreError::Disk(DiskError::Medium(format!("no answer within {bound:?}")));
            state.break_shard(ShardError { shard, error });
        }
    }

    fn bound(&self, latency: &super::latency::Latency) -> Duration {
        latency.bound(self.config.latency_multiple, self.config.latency_floor)
    }
}
