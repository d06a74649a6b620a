//! The SCSI device server: SAM-5, SPC-4 and SBC-3 for direct-access units.
//!
//! It knows nothing of iSCSI but the names of its ports. Between it and the session stand three steps:
//!
//! 1. A command arrives: [`Request`] says which, and how much the initiator is ready to send or to take. The device
//!    server answers how many bytes of Data-Out it wants; the session fetches them (or fewer, where the initiator
//!    expects to send fewer) and computes the residual from the two figures.
//! 2. With the data here, the device server gives a [`Step`].
//! 3. What ends the command is an [`Answer`]; the session cuts its data to what the initiator takes, and computes the
//!    residual.
//!
//! Beside commands, whoever serves sessions has to: give the environment to [`Units::set_world`], or there are no copies
//! by token; run [`reservation::end_session`] when a session ends, however it does, and wait for [`reservation::reset`]
//! with a reset of units, or what RESERVE reserved stays so; connect [`Shared::carry_notices`] and [`Shared::tell`] with
//! the other targets of the node, or hosts do not learn of what the others' commands did to their reservations.

mod alua;
mod block;
pub mod copy;
mod diagnostic;
mod finish;
mod inquiry;
mod long;
pub mod lun;
mod mode;
mod mode_select;
pub mod nexus;
mod opcodes;
mod report;
pub mod reservation;
pub mod sense;
pub mod shared;
pub mod table;
#[cfg(test)]
mod testing;
pub mod token;
pub mod units;
mod unmap;
mod vpd;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ashlar_env::Buf;
use ashlar_env::volume::Operation;

pub use finish::Finish;
pub use nexus::{Nexus, NexusName};
pub use shared::Shared;
pub use units::Units;

/// Takes a lock. A panic while it was held left nothing half done: every critical section is a few assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Status codes (SAM-5, section 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// done
    Good = 0x00,
    /// sense data tell why not
    CheckCondition = 0x02,
    /// not now; again at once
    Busy = 0x08,
    /// another's reservation forbids it
    ReservationConflict = 0x18,
    /// the initiator has too many commands here
    TaskSetFull = 0x28,
    /// ended by another nexus
    TaskAborted = 0x40,
}

/// Task attributes (SAM-5, section 8.9), with iSCSI's codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Attribute {
    /// none given
    Untagged = 0,
    /// in any order
    #[default]
    Simple = 1,
    /// after all before it, before all after it
    Ordered = 2,
    /// before all others
    HeadOfQueue = 3,
    /// ACA
    Aca = 4,
}

/// A command as the session has it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The logical unit number, as its eight bytes on the wire read big-endian (SAM-5, section 4.7).
    pub lun: u64,
    /// The command descriptor block: 16 bytes, or more with an additional header segment; at most 260.
    pub cdb: Cdb,
    /// The task attribute.
    pub attribute: Attribute,
    /// How many bytes the initiator is ready to send; 0 where it writes none.
    pub out_bytes: u32,
    /// How many bytes the initiator is ready to take; 0 where it reads none.
    pub in_bytes: u32,
}

/// A command descriptor block, at most 16 bytes in place and longer ones beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cdb {
    /// The first 16 bytes, zeros after a shorter one.
    pub head: [u8; 16],
    /// What follows them; empty but for variable length CDBs.
    pub rest: Box<[u8]>,
}

/// What a command came to with its data here.
pub enum Step<V> {
    /// Finished, without a volume.
    Done(Answer),
    /// One operation of a volume. Its outcome makes the answer, by `Finish`. Nothing is allocated for it: reads and
    /// writes take this way.
    Operate {
        /// the volume
        volume: V,
        /// what to do, for the nexus' issuer
        operation: Operation,
        /// what makes the answer of its outcome
        finish: Finish,
    },
    /// Several operations, or waiting: reservations, copies, patterns.
    Long(Pin<Box<dyn Future<Output = Answer>>>),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// Sense data in the format in force (fixed or descriptor), with CHECK CONDITION.
    pub sense: Option<Box<[u8]>>,
    /// Data-In, in order; the session cuts it to what the initiator takes.
    pub data: Data,
}

/// Data-In of an answer.
#[derive(Clone, Debug, Default)]
pub enum Data {
    /// none
    #[default]
    None,
    /// one buffer
    One(Buf),
    /// several, in order: reads beyond the largest buffer
    Many(Vec<Buf>),
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.pieces().flat_map(|piece| piece.iter()).eq(other.pieces().flat_map(|piece| piece.iter()))
    }
}

impl Eq for Data {}

impl Answer {
    /// Done, with these data.
    #[must_use]
    pub fn good(data: Data) -> Self {
        Self { status: Status::Good, sense: None, data }
    }
}

impl Cdb {
    /// A descriptor block of up to 16 bytes, or of more.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut head = [0; 16];
        let (first, rest) = bytes.split_at(bytes.len().min(16));
        head[..first.len()].copy_from_slice(first);
        Self { head, rest: rest.into() }
    }

    /// The 16 bits at byte `at` of the head.
    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.head[at], self.head[at + 1]])
    }

    /// The 32 bits at byte `at` of the head.
    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) << 16 | u32::from(self.u16(at + 2))
    }

    /// The 64 bits at byte `at` of the head.
    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) << 32 | u64::from(self.u32(at + 4))
    }
}

impl Data {
    /// The pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Buf> {
        let (one, many) = match self {
            Self::None => (None, &[][..]),
            Self::One(buf) => (Some(buf), &[][..]),
            Self::Many(bufs) => (None, &bufs[..]),
        };
        one.into_iter().chain(many)
    }

    /// These bytes.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() { Self::None } else { Self::One(Buf::from_heap(bytes.into())) }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// All of it in one piece of memory: a copy, but where it is one piece already.
    #[must_use]
    pub fn gather(&self) -> Buf {
        let mut pieces = self.pieces();
        match (pieces.next(), pieces.next()) {
            (None, _) => Buf::zeroes(0),
            (Some(one), None) => one.clone(),
            _ => Buf::from_heap(self.pieces().flat_map(|piece| piece.iter().copied()).collect()),
        }
    }

    /// All of it in one piece, unless it is in pieces of `piece_bytes` each, of which the last alone is shorter.
    fn gather_unless_cut(&self, piece_bytes: usize) -> Option<Buf> {
        let bytes = self.bytes();
        let fits = |(at, piece): (usize, &Buf)| piece.len() == piece_bytes.min(bytes - at * piece_bytes);
        let cut = self.pieces().count() == bytes.div_ceil(piece_bytes) && self.pieces().enumerate().all(fits);
        (!cut).then(|| self.gather())
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pieces().map(|piece| piece.len()).sum()
    }
}
