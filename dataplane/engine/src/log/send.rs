//! Packing what waits into records, and sending them.

use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll};

use ashlar_codec::crc32c;
use ashlar_env::Env;
use ashlar_env::slots::{SlotId, Slots};
use smallvec::SmallVec;

use crate::chunks::Chunks;
use crate::ids::GRANULE_BYTES;

use super::assemble::Pieces;
use super::op::{LogError, Op, Sink};
use super::record::{
    EXTENT_BYTES, Extent, FIXED_BYTES, HEADER_BYTES_MAX, Header, PAYLOAD_BYTES_MAX, SUM_BYTES, encode_header,
};
use super::state::{InFlight, Item, Queued, Spare, State};
use super::writer::{Attempt, Done, Shared};

/// What comes next.
enum Step {
    /// These operations make a record.
    Record(Vec<Queued>),
    /// The log goes on in the segment made ahead. Who asked for that, if somebody did.
    Next(Option<Queued>),
    /// These cannot be taken: there is no space.
    Refuse(Vec<Queued>),
    /// Nothing can be sent now.
    Wait,
}

/// What a record takes, in bytes, before padding.
#[derive(Clone, Copy)]
struct Size {
    header: usize,
    payload: usize,
}

impl Size {
    const EMPTY: Self = Self { header: FIXED_BYTES, payload: 0 };

    fn plus(self, op: &Op) -> Self {
        let (sums, payload) = match op {
            Op::Data { payload, sums, .. } => (sums.len(), payload.len()),
            Op::Control(bytes) => (0, bytes.len().next_multiple_of(GRANULE_BYTES)),
            Op::Zero { .. } | Op::Unmap { .. } => (0, 0),
        };
        Self { header: self.header + EXTENT_BYTES + sums * SUM_BYTES, payload: self.payload + payload }
    }

    fn total(self, align: u32) -> usize {
        let align = align as usize;
        self.header.next_multiple_of(align) + self.payload.next_multiple_of(align)
    }

    fn is_record(self) -> bool {
        self.header <= HEADER_BYTES_MAX && self.payload <= PAYLOAD_BYTES_MAX
    }
}

impl<E: Env, C: Chunks, S: Sink> Shared<E, C, S> {
    /// Whether `op` is sound and fits into an empty segment.
    pub fn fits(&self, op: &Op) -> bool {
        op.is_valid() && Size::EMPTY.plus(op).total(self.align) <= self.limit as usize
    }

    /// Sends what may be sent. Whether anything moved.
    pub fn send<F: Future<Output = Done>>(
        self: &Rc<Self>,
        slots: &mut Slots<F>,
        attempt: &impl Fn(Attempt<C::Chunk>) -> F,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut moved = false;
        loop {
            let step = self.step();
            let ids = match step {
                Step::Wait => return moved,
                Step::Refuse(mut refused) => {
                    self.make_spare();
                    self.end(&mut refused, &Err(LogError::Full));
                    self.state.borrow_mut().batches.push(refused);
                    moved = true;
                    continue;
                }
                Step::Record(ops) => self.send_record(ops, slots, attempt),
                Step::Next(asked) => {
                    let ids = self.send_next(asked, slots, attempt);
                    self.make_spare();
                    ids
                }
            };
            // Polled in the order of the calls: a store may begin an append with its first poll.
            for id in ids {
                if let Poll::Ready(done) = slots.poll_one(id, cx) {
                    self.ended(done);
                }
            }
            moved = true;
        }
    }

    fn step(&self) -> Step {
        let mut state = self.state.borrow_mut();
        if state.failed.is_some() || state.must_leave() || state.in_flight.len() >= self.config.window {
            return Step::Wait;
        }
        let Some(front) = state.queue.front() else { return Step::Wait };
        let rolls = match &front.item {
            Item::Roll => true,
            Item::Op(op) if op.takes_space() && state.full => return refuse(&mut state),
            Item::Op(op) => {
                let total = Size::EMPTY.plus(op).total(self.align);
                state.current.end as usize + total > self.limit as usize
            }
        };
        if !rolls {
            return Step::Record(self.collect(&mut state));
        }
        match &state.spare {
            Spare::Ready(_) => {
                let asked = state.queue.pop_front_if(|queued| matches!(queued.item, Item::Roll));
                Step::Next(asked)
            }
            Spare::Missing if state.full => refuse(&mut state),
            Spare::Missing | Spare::Making(_) => Step::Wait,
        }
    }

    /// Takes operations from the queue that make one record in the present segment: at least the first.
    fn collect(&self, state: &mut State<C::Chunk>) -> Vec<Queued> {
        let mut batch = state.batch();
        let room = (self.limit - state.current.end) as usize;
        let mut size = Size::EMPTY;
        while let Some(Queued { item: Item::Op(op), .. }) = state.queue.front() {
            let with = size.plus(op);
            let total = with.total(self.align);
            let joins = with.is_record() && total <= self.config.record_bytes_max.min(room);
            if !batch.is_empty() && (!joins || (op.takes_space() && state.full)) {
                break;
            }
            size = with;
            batch.push(state.queue.pop_front().expect("it was looked at"));
        }
        batch
    }

    fn send_record<F: Future<Output = Done>>(
        &self,
        mut ops: Vec<Queued>,
        slots: &mut Slots<F>,
        attempt: &impl Fn(Attempt<C::Chunk>) -> F,
    ) -> SmallVec<[SlotId; 4]> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let size = ops.iter().fold(Size::EMPTY, |size, queued| match &queued.item {
            Item::Op(op) => size.plus(op),
            Item::Roll => size,
        });
        state.header.clear();
        let header = self.header(state, size.payload);
        let extents = ops.iter().filter_map(|queued| match &queued.item {
            Item::Op(op) => Some(extent(op)),
            Item::Roll => None,
        });
        let crc = encode_header(&header, extents, &mut state.header);
        let pieces = state.assembler.assemble(&state.header, &mut ops);
        let ids = start(state, pieces, slots, attempt);
        let (sequence, offset) = (state.sequence, state.current.end);
        let payload_at = offset + size.header.next_multiple_of(self.align as usize) as u32;
        let end = offset + size.total(self.align) as u32;
        let shards = state.healthy();
        let segment = state.current.segment;
        let record = InFlight {
            sequence,
            segment,
            payload_at,
            end,
            crc,
            ops,
            next: None,
            shards,
            pending: shards,
            begun: self.env.now(),
        };
        state.in_flight.push_back(record);
        state.current.end = end;
        state.sequence += 1;
        state.previous = crc;
        ids
    }

    /// Ends the present segment with a record that names the one made ahead, which then is the present one.
    fn send_next<F: Future<Output = Done>>(
        &self,
        asked: Option<Queued>,
        slots: &mut Slots<F>,
        attempt: &impl Fn(Attempt<C::Chunk>) -> F,
    ) -> SmallVec<[SlotId; 4]> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Spare::Ready(next) = std::mem::replace(&mut state.spare, Spare::Missing) else {
            unreachable!("the step was chosen because there is a segment made ahead")
        };
        state.header.clear();
        let header = self.header(state, 0);
        let crc = encode_header(&header, [Extent::Next(next.segment)].into_iter(), &mut state.header);
        let mut ops = state.batch();
        ops.extend(asked);
        let pieces = state.assembler.assemble(&state.header, &mut ops);
        let ids = start(state, pieces, slots, attempt);
        let (sequence, shards, end) = (state.sequence, state.healthy(), state.current.end + self.align);
        state.in_flight.push_back(InFlight {
            sequence,
            segment: state.current.segment,
            payload_at: end,
            end,
            crc,
            ops,
            next: Some(next.segment),
            shards,
            pending: shards,
            begun: self.env.now(),
        });
        state.current = next;
        state.sequence += 1;
        state.previous = crc;
        ids
    }

    fn header(&self, state: &State<C::Chunk>, payload: usize) -> Header {
        Header {
            lane: self.segments.lane(),
            segment: state.current.segment,
            epoch: self.epoch,
            sequence: state.sequence,
            previous: state.previous,
            in_flight: state.in_flight.len() as u16,
            payload_bytes: payload as u32,
            align_shift: self.align.trailing_zeros() as u8,
        }
    }
}

/// Starts the appends of a record to all replicas that are not broken.
fn start<K: Clone, F: Future<Output = Done>>(
    state: &State<K>,
    pieces: Pieces,
    slots: &mut Slots<F>,
    attempt: &impl Fn(Attempt<K>) -> F,
) -> SmallVec<[SlotId; 4]> {
    let broken = state.broken;
    let healthy = state.current.replicas.iter().filter(|replica| !broken.contains(replica.shard));
    healthy
        .map(|replica| {
            let (replica, pieces) = (replica.clone(), pieces.clone());
            let (sequence, offset) = (state.sequence, state.current.end);
            let sent = attempt(Attempt { sequence, replica, offset, pieces });
            slots.insert(sent).ok().expect("there are slots for every replica")
        })
        .collect()
}

fn refuse<K>(state: &mut State<K>) -> Step {
    let mut refused = state.batch();
    refused.extend(state.queue.pop_front());
    Step::Refuse(refused)
}

fn extent(op: &Op) -> Extent<'_> {
    match op {
        Op::Data { volume, first, sums, .. } => Extent::Data { volume: *volume, first: *first, sums },
        &Op::Zero { volume, first, count } => Extent::Zero { volume, first, count },
        &Op::Unmap { volume, first, count } => Extent::Unmap { volume, first, count },
        Op::Control(bytes) => Extent::Control { bytes: bytes.len() as u32, crc: crc32c(bytes) },
    }
}
