//! The commands of a session between the session and the volumes.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ashlar_env::clock::Instant;
use ashlar_env::slots::{SlotId, Slots};
use ashlar_env::volume::{Issuer, Operation, Outcome, Volume, VolumeError};

use super::exports::{Counter, Export, note};
use super::stats::{IoCounts, IoStats, VolumeCounts};
use crate::scsi::{Answer, Attribute, Data, Finish, Nexus, Status, Step};
use crate::session::{Admission, Management, SENDING_BYTES_MAX, Session, TaskId};

/// How an operation on a volume ends.
pub(super) type Ended = Result<Outcome, VolumeError>;
/// A command of several operations.
pub(super) type Long = Pin<Box<dyn Future<Output = Answer>>>;

/// The session's commands, and what they wait for.
pub(super) struct Commands<V> {
    pub nexus: Nexus,
    pub export: Rc<Export<V>>,
    /// Commands to be started when there is room for what they bring, or when those before them have ended; with their
    /// data, oldest first.
    deferred: VecDeque<(TaskId, Data)>,
    /// Bytes that the commands in execution may bring.
    reading_bytes: usize,
    /// What executes in each place of the slots of operations, and of the long commands.
    owners: Vec<Option<Owner>>,
    long_owners: Vec<Option<Owner>>,
    running: usize,
    /// An ordered command executes: nothing begins before it has ended.
    barrier: Option<TaskId>,
    /// Task management functions that wait for other sessions.
    pub managing: Vec<Management>,
    counts: IoCounts,
}

/// A command in execution.
struct Owner {
    id: TaskId,
    finish: Option<Finish>,
    kind: Kind,
    counter: Option<Counter>,
}

#[derive(Clone, Copy)]
enum Kind {
    Read,
    Write { bytes: u64 },
    Other,
}

/// What the commands travel by.
pub(super) struct Link<'a, 'b, 'c, F> {
    pub session: &'a mut Session,
    pub slots: &'a mut Slots<F>,
    pub longs: &'a mut Slots<Long>,
    pub cx: &'b mut Context<'c>,
    pub now: Instant,
}

impl<V: Volume> Commands<V> {
    pub fn new(nexus: Nexus, export: Rc<Export<V>>) -> Self {
        Self {
            nexus,
            export,
            deferred: VecDeque::new(),
            reading_bytes: 0,
            owners: Vec::new(),
            long_owners: Vec::new(),
            running: 0,
            barrier: None,
            managing: Vec::new(),
            counts: IoCounts::default(),
        }
    }

    /// A command arrived.
    pub fn arrive<F: Future<Output = Ended>>(
        &mut self,
        id: TaskId,
        link: &mut Link<'_, '_, '_, F>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) {
        let wanted = self.export.units.borrow().wanted_bytes(link.session.request(id));
        if matches!(link.session.admit(id, wanted, link.now), Admission::Ready) {
            self.ready(id, Data::None, link, execute);
        }
    }

    /// A command has what it needs.
    pub fn ready<F: Future<Output = Ended>>(
        &mut self,
        id: TaskId,
        data: Data,
        link: &mut Link<'_, '_, '_, F>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) {
        let first = link.session.request(id).attribute == Attribute::HeadOfQueue;
        if (first || self.deferred.is_empty()) && self.may_start(id, link.session) {
            self.start(id, data, link, execute);
        } else if first {
            self.deferred.push_front((id, data));
        } else {
            self.deferred.push_back((id, data));
        }
    }

    /// Whether a command may begin now. What reads bring lies in buffers of the reactor that other initiators need, too,
    /// until this one has taken it: one that is slow to take its share has no more than that.
    fn may_start(&self, id: TaskId, session: &Session) -> bool {
        let request = session.request(id);
        let held = self.reading_bytes + session.pending_bytes();
        let has_room =
            request.in_bytes == 0 || held == 0 || held + request.in_bytes as usize <= SENDING_BYTES_MAX;
        let in_turn = match request.attribute {
            Attribute::HeadOfQueue => true,
            Attribute::Ordered => self.running == 0,
            _ => self.barrier.is_none(),
        };
        has_room && in_turn
    }

    /// Starts the commands whose turn it is now. True if there were any.
    pub fn start_deferred<F: Future<Output = Ended>>(
        &mut self,
        link: &mut Link<'_, '_, '_, F>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) -> bool {
        let mut any = self.drop_halted(link);
        while let Some((id, _)) = self.deferred.front()
            && self.may_start(*id, link.session)
            && let Some((id, data)) = self.deferred.pop_front()
        {
            self.start(id, data, link, execute);
            any = true;
        }
        any
    }

    /// Ends the commands that wait and must not begin any more. True if there were any.
    fn drop_halted<F>(&mut self, link: &mut Link<'_, '_, '_, F>) -> bool {
        let before = self.deferred.len();
        self.deferred.retain(|(id, _)| match link.session.halted(*id) {
            Some(answer) => {
                link.session.complete(*id, answer, link.now);
                false
            }
            None => true,
        });
        self.deferred.len() < before
    }

    fn start<F: Future<Output = Ended>>(
        &mut self,
        id: TaskId,
        data: Data,
        link: &mut Link<'_, '_, '_, F>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) {
        if let Some(answer) = link.session.halted(id) {
            return link.session.complete(id, answer, link.now);
        }
        link.session.begin(id);
        let request = link.session.request(id);
        let step = self.export.units.borrow().start(&self.nexus, request, data);
        let counter = self.export.counter(request.lun);
        if request.attribute == Attribute::Ordered {
            self.barrier = Some(id);
        }
        self.running += 1;
        self.reading_bytes += request.in_bytes as usize;
        match step {
            Step::Done(answer) => {
                self.end(Owner { id, finish: None, kind: Kind::Other, counter }, answer, link);
            }
            Step::Operate { volume, operation, finish } => {
                if let Some(counter) = &counter {
                    note(counter, &operation);
                }
                let owner = Owner { id, finish: Some(finish), kind: kind(&operation), counter };
                let future = execute(&volume, self.nexus.issuer(), operation);
                let Ok(slot) = link.slots.insert(future) else {
                    unreachable!("there are as many slots as tasks")
                };
                put(&mut self.owners, slot, owner);
                if let Poll::Ready(ended) = link.slots.poll_one(slot, link.cx) {
                    self.operation_ended(slot, ended, link);
                }
            }
            Step::Long(future) => {
                let Ok(slot) = link.longs.insert(future) else {
                    unreachable!("there are as many slots as tasks")
                };
                put(&mut self.long_owners, slot, Owner { id, finish: None, kind: Kind::Other, counter });
                if let Poll::Ready(answer) = link.longs.poll_one(slot, link.cx) {
                    self.long_ended(slot, answer, link);
                }
            }
        }
    }

    /// Takes what the volumes have finished.
    pub fn poll_ended<F: Future<Output = Ended>>(&mut self, link: &mut Link<'_, '_, '_, F>) {
        while let Poll::Ready(Some((slot, ended))) = link.slots.poll_next(link.cx) {
            self.operation_ended(slot, ended, link);
        }
        while let Poll::Ready(Some((slot, answer))) = link.longs.poll_next(link.cx) {
            self.long_ended(slot, answer, link);
        }
    }

    fn operation_ended<F>(&mut self, slot: SlotId, ended: Ended, link: &mut Link<'_, '_, '_, F>) {
        let mut owner = take(&mut self.owners, slot);
        let finish = owner.finish.take().expect("an operation has what makes its answer");
        self.end(owner, finish.answer(ended), link);
    }

    fn long_ended<F>(&mut self, slot: SlotId, answer: Answer, link: &mut Link<'_, '_, '_, F>) {
        let owner = take(&mut self.long_owners, slot);
        self.end(owner, answer, link);
    }

    fn end<F>(&mut self, owner: Owner, answer: Answer, link: &mut Link<'_, '_, '_, F>) {
        self.count(&owner, &answer);
        self.running -= 1;
        self.reading_bytes -= link.session.request(owner.id).in_bytes as usize;
        if self.barrier == Some(owner.id) {
            self.barrier = None;
        }
        link.session.complete(owner.id, answer, link.now);
    }

    fn count(&mut self, owner: &Owner, answer: &Answer) {
        let good = answer.status == Status::Good;
        let mut of_volume = owner.counter.as_ref().map(|counter| counter.get()).unwrap_or_default();
        match owner.kind {
            Kind::Read => {
                let bytes = answer.data.bytes() as u64;
                self.counts.reads += 1;
                self.counts.read_bytes += bytes;
                of_volume.read_bytes += bytes;
            }
            Kind::Write { bytes } => {
                self.counts.writes += 1;
                self.counts.written_bytes += if good { bytes } else { 0 };
            }
            Kind::Other => self.counts.others += 1,
        }
        if !good {
            self.counts.failed += 1;
            of_volume = VolumeCounts { errors: of_volume.errors + 1, ..of_volume };
        }
        if let Some(counter) = &owner.counter {
            counter.set(of_volume);
        }
    }

    /// Writes the counts of this turn where they are summed.
    pub fn flush_counts(&mut self, stats: &IoStats) {
        let counts = std::mem::take(&mut self.counts);
        if counts != IoCounts::default() {
            stats.add(&counts);
        }
    }
}

fn kind(operation: &Operation) -> Kind {
    match operation {
        Operation::Read { .. } => Kind::Read,
        Operation::Write { data, .. } => Kind::Write { bytes: data.len() as u64 },
        _ => Kind::Other,
    }
}

fn put(owners: &mut Vec<Option<Owner>>, slot: SlotId, owner: Owner) {
    if owners.len() <= slot.index() {
        owners.resize_with(slot.index() + 1, || None);
    }
    owners[slot.index()] = Some(owner);
}

fn take(owners: &mut [Option<Owner>], slot: SlotId) -> Owner {
    owners[slot.index()].take().expect("what ends has begun")
}
