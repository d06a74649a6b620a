//! A connection that the load's commands go over, in either protocol.

use std::fmt;

use ashlar_nvmeof::wire::{Sqe, Status};

use super::lanes::{Extent, Kind, Op};
use crate::client::{self, ClientError, Queue, Result, io};
use crate::iscsi::{self, Outcome, Session, cdb};

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Status of an NVMe completion.
    Nvme(Status),
    /// End of a SCSI command.
    Scsi(Outcome),
}

impl Failure {
    /// The same as an error of the client.
    pub(super) fn of(self, what: &'static str) -> ClientError {
        match self {
            Self::Nvme(status) => ClientError::Status { what, status, dw0: 0 },
            Self::Scsi(outcome) => ClientError::Scsi { what, outcome },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nvme(status) => write!(f, "status {status:?}"),
            Self::Scsi(outcome) => outcome.fmt(f),
        }
    }
}

/// A finished command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    /// The slot it had, free again.
    pub(super) slot: u16,
    pub(super) failure: Option<Failure>,
}

/// The units of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// The size in bytes.
    bytes: u32,
    /// The same in blocks of the volume.
    blocks: u32,
    /// The size of such a block in bytes.
    block_bytes: u32,
}

impl Unit {
    pub(super) fn new(bytes: u64, extent: Extent) -> Self {
        let (bytes, block_bytes) = (bytes as u32, extent.block_bytes);
        Self { bytes, blocks: bytes / block_bytes, block_bytes }
    }
}

/// A connection.
pub(super) enum Port {
    Nvme(Box<NvmePort>),
    Iscsi(Box<IscsiPort>),
}

impl Port {
    /// How many commands may be issued now.
    #[inline]
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Nvme(port) => port.queue.free_slots(),
            Self::Iscsi(port) => port.session.room(),
        }
    }

    /// Commands issued and not finished.
    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::Nvme(port) => usize::from(port.depth) - port.queue.free_slots(),
            Self::Iscsi(port) => port.session.in_flight(),
        }
    }

    /// The slot that the next command will get, if any is free.
    #[inline]
    pub(super) fn next_slot(&self) -> Option<u16> {
        match self {
            Self::Nvme(port) => port.queue.next_slot(),
            Self::Iscsi(port) => port.session.next_slot(),
        }
    }

    pub(super) fn payload(&self, slot: u16) -> &[u8] {
        match self {
            Self::Nvme(port) => port.queue.payload(slot),
            Self::Iscsi(port) => port.session.payload(slot),
        }
    }

    pub(super) fn payload_mut(&mut self, slot: u16) -> &mut [u8] {
        match self {
            Self::Nvme(port) => port.queue.payload_mut(slot),
            Self::Iscsi(port) => port.session.payload_mut(slot),
        }
    }

    /// Lays `op` ready to be sent. None if there is no room. Returns its slot.
    #[inline]
    pub(super) fn issue(&mut self, op: &Op) -> Option<u16> {
        match self {
            Self::Nvme(port) => port.issue(op),
            Self::Iscsi(port) => port.issue(op),
        }
    }

    /// Sends what lies ready.
    #[inline]
    pub(super) fn flush(&mut self) -> Result<bool> {
        match self {
            Self::Nvme(port) => port.queue.flush(),
            Self::Iscsi(port) => port.session.flush(),
        }
    }

    /// Receives once into `buffer` and appends what finished to `done`. Returns the bytes received.
    #[inline]
    pub(super) fn poll(&mut self, buffer: &mut [u8], done: &mut Vec<Finished>) -> Result<usize> {
        match self {
            Self::Nvme(port) => port.poll(buffer, done),
            Self::Iscsi(port) => port.poll(buffer, done),
        }
    }

    /// Ends the connection in order, where the protocol has one.
    pub(super) fn close(self) {
        if let Self::Iscsi(port) = self {
            // Whoever does not answer a logout loses nothing: the connection closes either way.
            let _ = port.session.log_out();
        }
    }
}

/// An NVMe/TCP queue.
pub(super) struct NvmePort {
    queue: Queue,
    depth: u16,
    unit: Unit,
    templates: [Sqe; 4],
    done: Vec<client::Completion>,
}

impl NvmePort {
    pub(super) fn new(queue: Queue, depth: u16, nsid: u32, unit: Unit) -> Self {
        let templates = [
            io::read(nsid, 0, unit.blocks),
            io::write(nsid, 0, unit.blocks, false),
            io::write_zeroes(nsid, 0, unit.blocks),
            io::flush(nsid),
        ];
        Self { queue, depth, unit, templates, done: Vec::with_capacity(usize::from(depth)) }
    }

    #[inline]
    fn issue(&mut self, op: &Op) -> Option<u16> {
        let mut sqe = self.templates[op.kind as usize];
        let data = match op.kind {
            Kind::Read => client::Data::FromController(self.unit.bytes),
            Kind::Write => client::Data::ToController(self.unit.bytes),
            Kind::Zero | Kind::Flush => client::Data::None,
        };
        if op.kind != Kind::Flush {
            io::set_range(&mut sqe, op.unit * u64::from(self.unit.blocks), self.unit.blocks);
        }
        self.queue.submit(sqe, data)
    }

    #[inline]
    fn poll(&mut self, buffer: &mut [u8], done: &mut Vec<Finished>) -> Result<usize> {
        let received = self.queue.poll(buffer, &mut self.done)?;
        done.extend(self.done.drain(..).map(|ended| Finished {
            slot: ended.slot,
            failure: (!ended.status.is_success()).then_some(Failure::Nvme(ended.status)),
        }));
        Ok(received)
    }
}

/// An iSCSI session.
pub(super) struct IscsiPort {
    session: Session,
    unit: Unit,
    done: Vec<iscsi::Completion>,
}

impl IscsiPort {
    pub(super) fn new(session: Session, depth: u16, unit: Unit) -> Self {
        Self { session, unit, done: Vec::with_capacity(usize::from(depth)) }
    }

    #[inline]
    fn issue(&mut self, op: &Op) -> Option<u16> {
        let (lba, blocks) = (op.unit * u64::from(self.unit.blocks), self.unit.blocks);
        match op.kind {
            Kind::Read => self.session.submit(&cdb::read(lba, blocks), iscsi::Data::In(self.unit.bytes)),
            Kind::Write => self.session.submit(&cdb::write(lba, blocks), iscsi::Data::Out(self.unit.bytes)),
            Kind::Zero => self.zero(lba, blocks),
            Kind::Flush => self.session.submit(&cdb::synchronize_cache(), iscsi::Data::None),
        }
    }

    fn zero(&mut self, lba: u64, blocks: u32) -> Option<u16> {
        let block = self.unit.block_bytes;
        let slot = self.session.next_slot()?;
        self.session.payload_mut(slot)[..block as usize].fill(0);
        self.session.submit(&cdb::write_same(lba, blocks), iscsi::Data::Out(block))
    }

    #[inline]
    fn poll(&mut self, buffer: &mut [u8], done: &mut Vec<Finished>) -> Result<usize> {
        let received = self.session.poll(buffer, &mut self.done)?;
        done.extend(self.done.drain(..).map(|ended| Finished {
            slot: ended.slot,
            failure: (ended.outcome != Outcome::SUCCESS).then_some(Failure::Scsi(ended.outcome)),
        }));
        Ok(received)
    }
}
