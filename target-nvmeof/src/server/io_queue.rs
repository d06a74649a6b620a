//! The commands of an I/O queue between the transport and the volumes.

use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use ashlar_env::Buf;
use ashlar_env::clock::Instant;
use ashlar_env::disk::Durability;
use ashlar_env::reservation::Notice;
use ashlar_env::slots::{SlotId, Slots};
use ashlar_env::volume::{Issuer, Operation, Outcome, Volume, VolumeError};

use super::exports::{Export, Namespaces};
use super::stats::IoCounts;
use crate::hub::{Granted, IoError};
use crate::io::fused::{Arrival, Fused, Half, Ready};
use crate::io::{command, completion, operation, reservation, status, transfer};
use crate::transport::{Admission, SENDING_BYTES_MAX, Slot, Transport};
use crate::wire::sqe::io;
use crate::wire::{Sqe, Status};

/// How an operation on a volume ends.
pub(super) type Ended = Result<Outcome, VolumeError>;

/// An I/O queue: what its commands wait for.
pub(super) struct IoQueue<V> {
    granted: Arc<Granted>,
    namespaces: Rc<Namespaces<V>>,
    max_transfer_bytes: u32,
    fused: Fused,
    /// Commands to be ended with a status as soon as their data are here.
    doomed: Vec<(Slot, Status)>,
    /// Reads to be started when there is room for what they bring, oldest first.
    deferred: VecDeque<Slot>,
    /// Bytes that the reads in execution will bring.
    reading_bytes: usize,
    /// What executes in each place of the slots of futures.
    owners: Vec<Owner>,
    /// What to tell the hub.
    pub notices: Vec<Notice>,
    pub errors: Vec<IoError>,
    pub counts: IoCounts,
}

#[derive(Clone, Copy)]
enum Owner {
    Single(Slot),
    Pair(Slot, Slot),
}

/// Bytes that an operation will bring, if it is a read.
fn read_bytes(owner: Owner, transport: &Transport) -> usize {
    match owner {
        Owner::Single(slot) => {
            let sqe = transport.sqe(slot);
            if sqe.opcode == io::READ { sqe.sgl.length.get() as usize } else { 0 }
        }
        Owner::Pair(..) => 0,
    }
}

impl<V: Volume> IoQueue<V> {
    pub fn new(granted: Arc<Granted>, namespaces: Rc<Namespaces<V>>, max_transfer_bytes: u32) -> Self {
        let entries = usize::from(granted.queue_entries);
        Self {
            granted,
            namespaces,
            max_transfer_bytes,
            fused: Fused::default(),
            doomed: Vec::new(),
            deferred: VecDeque::with_capacity(entries),
            reading_bytes: 0,
            owners: vec![Owner::Single(Slot(0)); entries],
            notices: Vec::new(),
            errors: Vec::new(),
            counts: IoCounts::default(),
        }
    }

    fn issuer(&self) -> Issuer {
        Issuer { host: self.granted.host, session: self.granted.session }
    }

    /// A command arrived.
    pub fn arrive<F: Future<Output = Ended>>(
        &mut self,
        slot: Slot,
        link: &mut Link<'_, '_, '_, F>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) {
        let sqe = *link.transport.sqe(slot);
        if let Some(first) = self.fused.orphan(&sqe) {
            self.end_half(first, Status::ABORTED_MISSING_FUSED, link);
        }
        if !self.granted.shared.ready.load(Ordering::Acquire) {
            // The controller has ended, and so is this connection about to: to hear nothing makes a host try again
            // elsewhere, or later; a status would tell it that the command has failed for good.
            if self.granted.shared.is_dead() {
                return;
            }
            return self.end(slot, Status::COMMAND_SEQUENCE_ERROR, link);
        }
        match self.fused.arrive(slot, &sqe, |first| link.transport.sqe(first)) {
            Arrival::Refused { status, first } => {
                if let Some(first) = first {
                    self.end_half(first, status, link);
                }
                return self.end(slot, status, link);
            }
            Arrival::Single | Arrival::Held => {}
        }
        let info = self.namespaces.with(sqe.nsid.get(), |export| export.volume.info());
        let planned = info.and_then(|info| {
            let planned = transfer(&sqe, &info, self.max_transfer_bytes)?;
            let refused = info.read_only && command::is_write(sqe.opcode);
            if refused { Err(Status::WRITE_PROTECTED) } else { Ok(planned) }
        });
        let admission = match planned {
            Ok(planned) => link.transport.admit(slot, planned, link.now),
            Err(status) => Admission::Refused(status),
        };
        match admission {
            Admission::Ready(_)
                if sqe.opcode == io::READ && (self.has_deferred() || !self.has_room(&sqe, link)) =>
            {
                self.deferred.push_back(slot);
            }
            Admission::Ready(data) => self.ready(slot, data, link, execute),
            Admission::Waiting => {}
            Admission::Refused(status) => self.fail(slot, status, link),
        }
    }

    /// Whether a read may be started. What reads bring lies in buffers of the reactor that other hosts need, too, until
    /// this host has taken it: one that is slow to take its share has no more than that.
    fn has_room<F>(&self, read: &Sqe, link: &Link<'_, '_, '_, F>) -> bool {
        let held = self.reading_bytes + link.transport.pending_bytes();
        held == 0 || held + read.sgl.length.get() as usize <= SENDING_BYTES_MAX
    }

    /// Starts the reads that there is room for now. True if there were any.
    pub fn start_deferred<F: Future<Output = Ended>>(
        &mut self,
        link: &mut Link<'_, '_, '_, F>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) -> bool {
        let mut any = false;
        while let Some(&slot) = self.deferred.front()
            && self.has_room(link.transport.sqe(slot), link)
        {
            self.deferred.pop_front();
            self.ready(slot, None, link, execute);
            any = true;
        }
        any
    }

    /// Whether reads wait for room.
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// The data of a command came with a wrong digest.
    pub fn bad_data<F>(&mut self, slot: Slot, link: &mut Link<'_, '_, '_, F>) {
        let doom = self.take_doom(slot);
        self.fail(slot, doom.unwrap_or(Status::TRANSIENT_TRANSPORT), link);
    }

    /// A command has what it needs.
    pub fn ready<F: Future<Output = Ended>>(
        &mut self,
        slot: Slot,
        data: Option<Buf>,
        link: &mut Link<'_, '_, '_, F>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) {
        if let Some(status) = self.take_doom(slot) {
            return self.end(slot, status, link);
        }
        // Nothing of a controller that has ended may take effect any more: its data came too late.
        if self.granted.shared.is_dead() {
            return;
        }
        if self.fused.holds(slot) {
            let Some(data) = data else { return self.fail(slot, Status::INVALID_FIELD, link) };
            if let Some(pair) = self.fused.data(slot, data) {
                self.start_pair(pair, link, execute);
            }
            return;
        }
        let sqe = *link.transport.sqe(slot);
        let made = self.namespaces.with(sqe.nsid.get(), |export| {
            let operation = self.harden(operation(&sqe, &export.volume.info(), data)?);
            export.note(&operation);
            Ok(execute(&export.volume, self.issuer(), operation))
        });
        match made.and_then(|made| made) {
            Ok(future) => self.start(Owner::Single(slot), future, link),
            Err(status) => self.end(slot, status, link),
        }
    }

    /// A host that was not told of the volatile cache will not flush it: its writes are durable at once.
    fn harden(&self, mut operation: Operation) -> Operation {
        if let Operation::Write { durability, .. }
        | Operation::WriteZeroes { durability, .. }
        | Operation::CompareAndWrite { durability, .. }
        | Operation::Copy { durability, .. } = &mut operation
            && !self.granted.shared.volatile_cache_announced.load(Ordering::Relaxed)
        {
            *durability = Durability::Fua;
        }
        operation
    }

    fn start_pair<F: Future<Output = Ended>>(
        &mut self,
        pair: Ready,
        link: &mut Link<'_, '_, '_, F>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) {
        let sqe = *link.transport.sqe(pair.second);
        let Ready { first, second, expected, data } = pair;
        let made = self.namespaces.with(sqe.nsid.get(), |export| {
            let write = operation(&sqe, &export.volume.info(), Some(data))?;
            let Operation::Write { range, data, durability } = write else {
                return Err(Status::INVALID_FIELD);
            };
            let fused = Operation::CompareAndWrite { range, expected, data, durability };
            export.note(&fused);
            Ok(execute(&export.volume, self.issuer(), self.harden(fused)))
        });
        match made.and_then(|made| made) {
            Ok(future) => self.start(Owner::Pair(first, second), future, link),
            Err(status) => {
                self.end(first, status, link);
                self.end(second, Status::ABORTED_FAILED_FUSED, link);
            }
        }
    }

    fn start<F: Future<Output = Ended>>(&mut self, owner: Owner, future: F, link: &mut Link<'_, '_, '_, F>) {
        let Ok(id) = link.slots.insert(future) else {
            unreachable!("there are as many slots as queue entries")
        };
        self.owners[id.index()] = owner;
        self.reading_bytes += read_bytes(owner, link.transport);
        if let Poll::Ready(ended) = link.slots.poll_one(id, link.cx) {
            self.ended(id, ended, link);
        }
    }

    /// Takes what the volumes have finished.
    pub fn poll_ended<F: Future<Output = Ended>>(&mut self, link: &mut Link<'_, '_, '_, F>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some((id, ended))) = link.slots.poll_next(link.cx) {
            self.ended(id, ended, link);
            any = true;
        }
        any
    }

    fn ended<F>(&mut self, id: SlotId, ended: Ended, link: &mut Link<'_, '_, '_, F>) {
        self.reading_bytes -= read_bytes(self.owners[id.index()], link.transport);
        match self.owners[id.index()] {
            Owner::Single(slot) => self.finish(slot, ended, link),
            Owner::Pair(first, second) => match ended {
                Ok(_) => {
                    self.end(first, Status::SUCCESS, link);
                    self.end(second, Status::SUCCESS, link);
                }
                Err(error) => {
                    self.end(first, status(&error), link);
                    self.end(second, Status::ABORTED_FAILED_FUSED, link);
                }
            },
        }
    }

    fn finish<F>(&mut self, slot: Slot, ended: Ended, link: &mut Link<'_, '_, '_, F>) {
        match ended {
            // No NVMe command asks for extents.
            Ok(Outcome::Done | Outcome::Extents(_)) => self.end(slot, Status::SUCCESS, link),
            Ok(Outcome::Data(data)) => {
                self.counts.reads += 1;
                self.counts.read_bytes += data.len() as u64;
                let nsid = link.transport.sqe(slot).nsid.get();
                // A namespace that was detached meanwhile counts no more.
                let _ = self.namespaces.with(nsid, |export| export.note_read(data.len() as u64));
                link.transport.complete(slot, completion(Status::SUCCESS), Some(data), link.now);
            }
            Ok(Outcome::Reservation { report, notices }) => {
                self.notices.extend_from_slice(&notices);
                let len = link.transport.sqe(slot).cdw10.get();
                let data = report.map(|report| {
                    let mut bytes = vec![0; (len as usize + 1) * 4];
                    reservation::write_report(&report, &mut bytes);
                    Buf::from_heap(bytes.into())
                });
                self.counts.others += 1;
                link.transport.complete(slot, completion(Status::SUCCESS), data, link.now);
            }
            Err(error) => self.end(slot, status(&error), link),
        }
    }

    /// Completes a command that brings nothing back.
    fn end<F>(&mut self, slot: Slot, status: Status, link: &mut Link<'_, '_, '_, F>) {
        let sqe = link.transport.sqe(slot);
        match sqe.opcode {
            io::WRITE if status.is_success() => {
                self.counts.writes += 1;
                self.counts.written_bytes += u64::from(sqe.sgl.length.get());
            }
            io::READ => self.counts.reads += 1,
            io::WRITE => self.counts.writes += 1,
            _ => self.counts.others += 1,
        }
        if !status.is_success() {
            let _ = self.namespaces.with(sqe.nsid.get(), Export::note_error);
            self.counts.failed += 1;
            self.note_error(slot, status, link);
        }
        link.transport.complete(slot, completion(status), None, link.now);
    }

    fn note_error<F>(&mut self, slot: Slot, status: Status, link: &Link<'_, '_, '_, F>) {
        // Misses of compare-and-write and reservation conflicts are how hosts take turns, not faults.
        let ordinary = matches!(
            status,
            Status::COMPARE_FAILURE | Status::ABORTED_FAILED_FUSED | Status::RESERVATION_CONFLICT
        );
        if !ordinary && self.errors.len() < ERRORS_PER_TURN {
            let sqe = link.transport.sqe(slot);
            self.errors.push(IoError {
                cid: sqe.cid.get(),
                status,
                lba: sqe.cdw10_11(),
                nsid: sqe.nsid.get(),
                sqid: self.granted.qid,
            });
        }
    }

    /// A command failed before it could execute; the other half of its pair, if it has one, falls with it.
    fn fail<F>(&mut self, slot: Slot, status: Status, link: &mut Link<'_, '_, '_, F>) {
        if self.fused.holds(slot)
            && let Some(other) = self.fused.fail(slot)
        {
            self.end_half(other, Status::ABORTED_FAILED_FUSED, link);
        }
        self.end(slot, status, link);
    }

    /// Ends a fused command now, or when its data are here.
    fn end_half<F>(&mut self, half: Half, status: Status, link: &mut Link<'_, '_, '_, F>) {
        if half.data.is_some() {
            self.end(half.slot, status, link);
        } else {
            self.doomed.push((half.slot, status));
        }
    }

    fn take_doom(&mut self, slot: Slot) -> Option<Status> {
        let at = self.doomed.iter().position(|(doomed, _)| *doomed == slot)?;
        Some(self.doomed.swap_remove(at).1)
    }

    /// Writes the counts of this turn where they are summed.
    pub fn flush_counts(&mut self, stats: &super::stats::IoStats) {
        let counts = std::mem::take(&mut self.counts);
        if counts == IoCounts::default() {
            return;
        }
        stats.add(&counts);
        let shared = &self.granted.shared;
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        add(&shared.read_commands, counts.reads);
        add(&shared.write_commands, counts.writes);
        add(&shared.bytes_read, counts.read_bytes);
        add(&shared.bytes_written, counts.written_bytes);
    }
}

/// Errors told to the hub per turn of a connection, at most: enough for the error log.
const ERRORS_PER_TURN: usize = 8;

/// What the commands of a queue travel by.
pub(super) struct Link<'a, 'b, 'c, F> {
    pub transport: &'a mut Transport,
    pub slots: &'a mut Slots<F>,
    pub cx: &'b mut Context<'c>,
    pub now: Instant,
}
