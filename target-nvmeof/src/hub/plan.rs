//! How many bytes a command moves, and which way: known from the command alone, before any data is taken.

use crate::limits::Limits;
use crate::transport::Transfer;
use crate::wire::fabrics::CONNECT_DATA_BYTES;
use crate::wire::feature::{HOST_BEHAVIOR_BYTES, HOST_ID_BYTES, Select, TIMESTAMP_BYTES, fid};
use crate::wire::identify::IDENTIFY_BYTES;
use crate::wire::sqe::{SGL_IN_CAPSULE, SGL_TRANSPORT};
use crate::wire::{Sqe, Status, sqe};

/// What a connection is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Before Connect.
    Unconnected,
    /// An admin queue.
    Admin,
    /// An I/O queue, of which the hub sees Fabrics commands only.
    Io,
}

/// What data an admin or Fabrics command moves. The length its SGL gives is checked against the command and
/// the largest transfer.
///
/// # Errors
/// The status to complete the command with, without taking its data.
pub fn data_plan(sqe: &Sqe, queue: QueueKind, limits: &Limits) -> Result<Transfer, Status> {
    let plan = match sqe.opcode {
        sqe::admin::FABRICS => fabrics(sqe)?,
        _ if queue != QueueKind::Admin => return Err(Status::INVALID_OPCODE),
        sqe::admin::IDENTIFY => Transfer::ToHost(IDENTIFY_BYTES),
        sqe::admin::GET_LOG_PAGE => {
            let bytes = sqe.as_get_log_page().bytes;
            if bytes > u64::from(limits.max_transfer_bytes) {
                return Err(Status::INVALID_FIELD);
            }
            Transfer::ToHost(bytes as u32)
        }
        sqe::admin::GET_FEATURES => get_features(sqe),
        sqe::admin::SET_FEATURES => set_features(sqe),
        sqe::admin::ABORT | sqe::admin::ASYNC_EVENT | sqe::admin::KEEP_ALIVE => Transfer::None,
        _ => return Err(Status::INVALID_OPCODE),
    };
    if queue == QueueKind::Unconnected && sqe.fabrics_type() != sqe::fabrics::CONNECT {
        return Err(Status::INVALID_OPCODE);
    }
    check_sgl(sqe, plan)?;
    Ok(plan)
}

fn check_sgl(sqe: &Sqe, plan: Transfer) -> Result<(), Status> {
    if !matches!(sqe.psdt(), 0b01 | 0b10) {
        return Err(Status::INVALID_FIELD);
    }
    let (want, to_host) = match plan {
        Transfer::None => (0, false),
        Transfer::ToHost(bytes) => (bytes, true),
        Transfer::FromHost(bytes) => (bytes, false),
    };
    if sqe.sgl.length.get() != want {
        return Err(Status::DATA_SGL_LENGTH_INVALID);
    }
    match sqe.sgl.identifier {
        SGL_TRANSPORT => Ok(()),
        SGL_IN_CAPSULE if to_host => Err(Status::INVALID_FIELD),
        SGL_IN_CAPSULE if sqe.sgl.address.get() != 0 => Err(Status::SGL_OFFSET_INVALID),
        SGL_IN_CAPSULE => Ok(()),
        // A command without data needs no descriptor.
        _ if want == 0 => Ok(()),
        _ => Err(Status::SGL_TYPE_INVALID),
    }
}

fn fabrics(sqe: &Sqe) -> Result<Transfer, Status> {
    match sqe.fabrics_type() {
        sqe::fabrics::CONNECT => Ok(Transfer::FromHost(CONNECT_DATA_BYTES)),
        sqe::fabrics::PROPERTY_GET | sqe::fabrics::PROPERTY_SET => Ok(Transfer::None),
        _ => Err(Status::INVALID_OPCODE),
    }
}

/// Bytes of the feature's data; 0 where its value is in the command or completion.
fn feature_bytes(sqe: &Sqe) -> u32 {
    match sqe.cdw10.get() as u8 {
        fid::TIMESTAMP => TIMESTAMP_BYTES,
        fid::HOST_BEHAVIOR => HOST_BEHAVIOR_BYTES,
        fid::HOST_ID if sqe.cdw11.get() & 1 != 0 => HOST_ID_BYTES,
        fid::HOST_ID => HOST_ID_BYTES / 2,
        _ => 0,
    }
}

fn get_features(sqe: &Sqe) -> Transfer {
    let bytes = feature_bytes(sqe);
    // What can be done with a feature is told in DW0 alone; the host may give a buffer all the same.
    let unasked = Select::of(sqe.cdw10.get()) == Some(Select::Capabilities) && sqe.sgl.length.get() == 0;
    if bytes == 0 || unasked { Transfer::None } else { Transfer::ToHost(bytes) }
}

fn set_features(sqe: &Sqe) -> Transfer {
    match feature_bytes(sqe) {
        0 => Transfer::None,
        bytes => Transfer::FromHost(bytes),
    }
}
