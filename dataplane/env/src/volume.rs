//! What the targets serve.
//!
//! One method takes every operation as a typed value. So a volume that lives on another reactor is a queue of
//! the very same values, and a connection holds the operations of all kinds as one type of future, in slots
//! made once: nothing is allocated per I/O.

use std::future::Future;

use crate::buf::Buf;
use crate::disk::{DiskError, Durability};
use crate::reservation::{Access, HostId, NexusAction, Notice, ReservationAction, ReservationReport};
use crate::units::{BlockRange, BlockSize, Lba, VolumeId};

/// Who issues an operation. Reservations are checked against the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Issuer {
    /// The host, as reservations know it.
    pub host: HostId,
    /// The session (NVMe: controller) the command came by, unique in the node's life.
    pub session: u64,
}

/// What a volume is, as a host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// The volume's identity.
    pub id: VolumeId,
    /// The unit of addressing and of atomicity.
    pub block_size: BlockSize,
    /// The number of blocks.
    pub blocks: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether completed writes may be lost on power failure until a flush.
    pub volatile_cache: bool,
    /// Whether unmapped space is given back.
    pub thin: bool,
    /// The granule in which unmap frees, in blocks; 0 where it frees nothing.
    pub unmap_granularity_blocks: u32,
    /// The granule that writes without a read-modify-write below, in blocks.
    pub preferred_write_blocks: u32,
    /// The largest write that is all or nothing, concurrent commands and power failure alike, in blocks; at
    /// least 1.
    pub atomic_write_blocks: u32,
}

/// An operation on a volume. Lengths of data must be those of the range. No range may be empty.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Read; answered by [`Outcome::Data`].
    Read {
        /// what to read, at most [`crate::buf::MAX_BYTES`]
        range: BlockRange,
    },
    /// Write.
    Write {
        /// where
        range: BlockRange,
        /// what
        data: Buf,
        /// durable before completion or by the next flush
        durability: Durability,
    },
    /// Make every write that completed before this durable.
    Flush,
    /// Make the range read as zeros.
    WriteZeroes {
        /// where
        range: BlockRange,
        /// also free the space
        free: bool,
        /// durable before completion or by the next flush
        durability: Durability,
    },
    /// Free the ranges; they read as zeros afterwards.
    Unmap {
        /// what to free
        ranges: Box<[BlockRange]>,
    },
    /// Compare with the data; [`VolumeError::Miscompare`] where they differ.
    Compare {
        /// where
        range: BlockRange,
        /// what is expected
        expected: Buf,
    },
    /// Compare, and write only where equal; atomic against every other operation on the range.
    CompareAndWrite {
        /// where
        range: BlockRange,
        /// what is expected
        expected: Buf,
        /// what to write
        data: Buf,
        /// durable before completion or by the next flush
        durability: Durability,
    },
    /// Read without transfer: errors of the medium show.
    Verify {
        /// what to verify
        range: BlockRange,
    },
    /// Copy the sources, one after the other, to where the destination begins; as if all were read first.
    Copy {
        /// what to copy
        sources: Box<[BlockRange]>,
        /// where to
        to: Lba,
        /// durable before completion or by the next flush
        durability: Durability,
    },
    /// Tell which blocks have space below; answered by [`Outcome::Extents`].
    Allocation {
        /// which blocks, as many as one likes
        range: BlockRange,
    },
    /// Change or report the reservation state; answered by [`Outcome::Reservation`].
    Reserve(ReservationAction),
    /// Change the reservation state as SCSI has it; answered by [`Outcome::Reservation`].
    ReserveNexus(Box<NexusAction>),
    /// Do nothing, but fail where reservations forbid the issuer a command of this kind.
    Permit(Access),
}

/// The most extents that one [`Operation::Allocation`] is answered with.
pub const EXTENTS_MAX: usize = 256;

/// A run of blocks that have space below, or have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which blocks; never empty.
    pub range: BlockRange,
    /// Whether space is taken for them. True where it cannot be known; where it is false they read as zeros.
    pub allocated: bool,
}

/// How an operation ended well.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// done
    Done,
    /// the data read
    Data(Buf),
    /// what has space below: extents one after the other from the first block asked for, at least one and at most
    /// [`EXTENTS_MAX`]. They may end before the range does, where more would take too long.
    Extents(Box<[Extent]>),
    /// the reservation state afterwards, and who must be told
    Reservation {
        /// the state, where a report was asked for
        report: Option<Box<ReservationReport>>,
        /// whom to tell what
        notices: Box<[Notice]>,
    },
}

/// Why an operation failed. Each target maps these to its protocol's status in one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// the range reaches beyond the end
    #[error("the range reaches beyond the end of the volume")]
    OutOfRange,
    /// the volume cannot be written
    #[error("the volume is read-only")]
    ReadOnly,
    /// no space is left below
    #[error("no space is left for this volume")]
    NoSpace,
    /// the data differ
    #[error("the data differ at byte {at_bytes}")]
    Miscompare {
        /// the first byte that differs
        at_bytes: u64,
    },
    /// another host's reservation forbids it
    #[error("another host's reservation forbids it")]
    ReservationConflict,
    /// the operation's parameters are not allowed here
    #[error("invalid operation")]
    Invalid,
    /// the registrants' table is full
    #[error("no room for another registrant")]
    TooManyRegistrants,
    /// the volume does not know the operation
    #[error("not supported by this volume")]
    Unsupported,
    /// the operation was ended before it took effect
    #[error("aborted")]
    Aborted,
    /// the volume is not (or no longer) served here; another path may have it
    #[error("the volume is not served here")]
    NotHere,
    /// the medium failed to give the data
    #[error("unrecovered read error")]
    ReadFault,
    /// the medium failed to take the data
    #[error("write fault")]
    WriteFault,
}

impl VolumeError {
    /// What a disk's failure to write (or flush) means for the volume.
    #[must_use]
    pub fn from_write(error: &DiskError) -> Self {
        match error {
            DiskError::OutOfRange => Self::OutOfRange,
            DiskError::NoSpace => Self::NoSpace,
            DiskError::ReadOnly => Self::ReadOnly,
            DiskError::Gone => Self::NotHere,
            DiskError::Unsupported => Self::Unsupported,
            DiskError::Medium(_) | DiskError::Latched(_) => Self::WriteFault,
        }
    }

    /// What a disk's failure to read means for the volume.
    #[must_use]
    pub fn from_read(error: &DiskError) -> Self {
        match error {
            DiskError::Medium(_) | DiskError::Latched(_) => Self::ReadFault,
            other => Self::from_write(other),
        }
    }
}

/// A virtual disk, as one reactor reaches it. Cloning is cheap and gives the same volume.
pub trait Volume: Clone + 'static {
    /// What it is now; changes by a resize.
    fn info(&self) -> VolumeInfo;

    /// Executes `operation` for `issuer`, checking reservations and ranges first.
    ///
    /// Each block is a linearizable register over all paths; a flush covers every write that completed before
    /// it was issued, by whichever path. The operation goes on when the future is dropped.
    fn execute(
        &self,
        issuer: Issuer,
        operation: Operation,
    ) -> impl Future<Output = Result<Outcome, VolumeError>> + 'static;
}
