//! What has become durable: applied in order, acknowledged, and sealed behind.

use std::rc::Rc;
use std::task::Waker;

use ashlar_env::Env;

use crate::chunks::{Chunk, Chunks, Seal, StoreError};
use crate::ids::{GRANULE_BYTES, SegmentId};
use crate::segment::{Replica, ShardError, ShardSet, join_until, no_answer};

use super::op::{Applied, AppliedOp, LogError, Op, Place, Position, Sink};
use super::record::stored_bytes;
use super::state::{InFlight, Item, State};
use super::writer::{Done, Shared};

impl<E: Env, C: Chunks, S: Sink> Shared<E, C, S> {
    /// An append to one replica has ended.
    pub fn ended(&self, done: Done) {
        let mut state = self.state.borrow_mut();
        match done.result {
            Ok(()) => {
                let took = self.env.now().since(done.begun);
                state.latency[usize::from(done.shard)].add(took);
                let record = state.in_flight.iter_mut().find(|record| record.sequence == done.sequence);
                if let Some(record) = record {
                    record.pending = record.pending.without(ShardSet::of(done.shard));
                }
            }
            Err(StoreError::Fenced { fence }) => {
                drop(state);
                self.fail(LogError::Fenced { fence });
            }
            // A replica that was left behind may say so late, and its store have another replica by now.
            Err(error) if state.in_flight.iter().any(|record| record.sequence == done.sequence) => {
                state.break_shard(ShardError { shard: done.shard, error });
            }
            Err(_) => {}
        }
    }

    /// Applies the records at the head of the line that are durable on all their replicas. Whether there were any.
    pub fn apply(self: &Rc<Self>) -> bool {
        let mut any = false;
        while let Some(mut record) = self.durable() {
            any = true;
            self.tell(&record);
            let mut state = self.state.borrow_mut();
            let (sequence, previous) = (record.sequence + 1, record.crc);
            let position = Position { offset: record.end, sequence, previous, ..state.applied };
            state.applied = position;
            if let Some(next) = record.next {
                let shards = self.segments.shards(next);
                state.applied = Position { segment: next, offset: 0, shards, ..position };
                state.unsealed += 1;
            }
            drop(state);
            if let Some(next) = record.next {
                self.sink.segment_opened(next);
                self.seal_behind(record.segment, Seal { length: record.end, next: Some(next) });
            }
            self.end(&mut record.ops, &Ok(()));
            self.state.borrow_mut().batches.push(record.ops);
        }
        any
    }

    /// Takes the next record that is to be applied out of the line.
    fn durable(&self) -> Option<InFlight> {
        let mut state = self.state.borrow_mut();
        let planted = self.config.planted;
        let at = match state.in_flight.front() {
            Some(first) if first.pending.is_empty() => 0,
            Some(first) if planted.acknowledge_first && first.pending != first.shards => 0,
            Some(_) if planted.acknowledge_unordered => {
                state.in_flight.iter().position(|record| record.pending.is_empty())?
            }
            _ => return None,
        };
        state.in_flight.remove(at)
    }

    /// Tells the sink of each operation of `record`.
    fn tell(&self, record: &InFlight) {
        let mut at = record.payload_at;
        for queued in &record.ops {
            let Item::Op(op) = &queued.item else { continue };
            let (applied, bytes) = applied(op, record.segment, at);
            self.sink.applied(&AppliedOp { sequence: record.sequence, op: applied });
            at += bytes as u32;
        }
    }

    /// Seals a segment that is complete, in the background.
    pub fn seal_behind(self: &Rc<Self>, segment: SegmentId, seal: Seal) {
        let shared = Rc::clone(self);
        self.env.spawn(async move { shared.seal(segment, seal).await });
    }

    async fn seal(&self, segment: SegmentId, seal: Seal) {
        let (shards, epoch) = (self.segments.shards(segment), self.epoch);
        let replicas = self.segments.replicas(segment).into_iter();
        let seals = replicas.map(|replica| async move { replica.chunk.seal(epoch, seal).await });
        let over = self.env.sleep_until(self.env.now().plus(self.config.answer_max));
        let mut failures = Vec::new();
        for (shard, sealed) in shards.iter().zip(join_until(over, seals).await) {
            match sealed.unwrap_or_else(|| Err(no_answer())) {
                Ok(()) => {}
                Err(StoreError::Fenced { fence }) => return self.fail(LogError::Fenced { fence }),
                Err(error) => failures.push(ShardError { shard, error }),
            }
        }
        if failures.len() == shards.len() {
            // What is in it is only there: it can be read still, perhaps.
            return failures.pop().map_or((), |failed| self.fail(failed.into()));
        }
        let old = self.segments.replicas(segment);
        for failed in failures {
            self.segments.leave(segment, ShardSet::of(failed.shard));
            let fails =
                |replica: &Replica<C::Chunk>| replica.shard == failed.shard && replica.chunk.is_failing();
            let mut state = self.state.borrow_mut();
            // The device may have been replaced by another since.
            if !old.iter().any(fails) || state.current.replicas.iter().any(fails) {
                state.break_shard(failed);
            }
            drop(state);
            self.wake();
        }
        self.sink.segment_sealed(segment, seal.length);
        let settlers = {
            let mut state = self.state.borrow_mut();
            state.unsealed -= 1;
            take_settlers(&mut state)
        };
        settlers.into_iter().for_each(Waker::wake);
    }
}

fn take_settlers<K>(state: &mut State<K>) -> Vec<Waker> {
    if state.unsealed == 0 { std::mem::take(&mut state.settlers) } else { Vec::new() }
}

/// What the sink is told of `op` when its payload begins at byte `at`, and the payload's length there.
fn applied(op: &Op, segment: SegmentId, at: u32) -> (Applied<'_>, usize) {
    match op {
        Op::Data { volume, first, sums, .. } => {
            let place = Place { segment, granule: at / GRANULE_BYTES as u32 };
            (Applied::Data { volume: *volume, first: *first, sums, place }, stored_bytes(sums))
        }
        &Op::Zero { volume, first, count } => (Applied::Zero { volume, first, count }, 0),
        &Op::Unmap { volume, first, count } => (Applied::Unmap { volume, first, count }, 0),
        Op::Control(bytes) => (Applied::Control(bytes), bytes.len().next_multiple_of(GRANULE_BYTES)),
    }
}
