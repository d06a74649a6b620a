//! How operations end, in NVMe's words: the one place where volume errors become status codes.

use ashlar_env::volume::VolumeError;

use crate::view::AnaState;
use crate::wire::{Cqe, Status};

/// The status of a failed operation.
#[must_use]
pub fn status(error: &VolumeError) -> Status {
    match error {
        VolumeError::OutOfRange => Status::LBA_OUT_OF_RANGE,
        VolumeError::ReadOnly => Status::WRITE_PROTECTED,
        VolumeError::NoSpace => Status::CAPACITY_EXCEEDED,
        VolumeError::Miscompare { .. } => Status::COMPARE_FAILURE,
        VolumeError::ReservationConflict => Status::RESERVATION_CONFLICT,
        VolumeError::Invalid | VolumeError::TooManyRegistrants => Status::INVALID_FIELD,
        VolumeError::Unsupported => Status::INVALID_OPCODE,
        VolumeError::Aborted => Status::ABORTED_PREEMPT,
        // A generic error on a path the host thinks healthy would reach its file system.
        VolumeError::NotHere => Status::ANA_INACCESSIBLE,
        VolumeError::ReadFault => Status::UNRECOVERED_READ,
        VolumeError::WriteFault => Status::WRITE_FAULT,
    }
}

/// A completion without results; the transport fills in the identifier.
#[must_use]
pub fn completion(status: Status) -> Cqe {
    Cqe::new(0, status, 0, 0)
}

/// Whether a namespace in this state takes I/O on this path, else the status to refuse it with.
///
/// # Errors
/// A path-related status, which makes the host use another path.
pub fn check_path(state: AnaState) -> Result<(), Status> {
    match state {
        AnaState::Optimized | AnaState::NonOptimized => Ok(()),
        AnaState::Inaccessible => Err(Status::ANA_INACCESSIBLE),
        AnaState::PersistentLoss => Err(Status::ANA_PERSISTENT_LOSS),
        AnaState::Change => Err(Status::ANA_TRANSITION),
    }
}
