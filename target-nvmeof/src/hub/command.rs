//! Fabrics and admin commands: checks that concern all, and which goes where.

use ashlar_env::clock::Instant;

use crate::wire::sqe::{Fuse, admin, fabrics};
use crate::wire::{Cqe, Sqe, Status};

use super::answer::{Answer, Outcome, Reply};
use super::plan::{QueueKind, data_plan};
use super::{ConnectionId, Effect, Hub, Queue};
use crate::transport::Transfer;

impl Hub {
    /// A command of an admin queue, or a Fabrics command of an I/O queue; `data` is what the host sent with it,
    /// as long as [`data_plan`] said. The completion comes by [`Self::poll_effect`], at once or later.
    pub fn command(&mut self, connection: ConnectionId, sqe: &Sqe, data: &[u8], now: Instant) {
        let cid = sqe.cid.get();
        match self.execute(connection, sqe, data, now) {
            Ok(Reply::Now(answer)) => self.complete(connection, cid, Status::SUCCESS, answer),
            Ok(Reply::Later) => {}
            Err(status) => self.complete(connection, cid, status, Answer::DONE),
        }
        if let Some(queue) = self.queues.get(&connection) {
            self.deliver_events(queue.cntlid);
        }
    }

    pub(super) fn complete(&mut self, connection: ConnectionId, cid: u16, status: Status, answer: Answer) {
        let cqe = Cqe::new(cid, status, answer.dw0, answer.dw1);
        self.effects.push_back(Effect::Complete { connection, cid, cqe, data: answer.data });
    }

    fn execute(&mut self, connection: ConnectionId, sqe: &Sqe, data: &[u8], now: Instant) -> Outcome {
        let Queue { cntlid, qid } = *self.queues.get(&connection).ok_or(Status::INVALID_OPCODE)?;
        self.note_life(cntlid, now);
        if sqe.fuse() != Fuse::None {
            return Err(Status::INVALID_FIELD);
        }
        if sqe.opcode != admin::FABRICS && !self.controller(cntlid).shared.is_ready() {
            return Err(Status::COMMAND_SEQUENCE_ERROR);
        }
        let kind = if qid == 0 { QueueKind::Admin } else { QueueKind::Io };
        let from_host = match data_plan(sqe, kind, &self.config.limits)? {
            Transfer::FromHost(bytes) => bytes as usize,
            Transfer::None | Transfer::ToHost(_) => 0,
        };
        if data.len() != from_host {
            return Err(Status::DATA_SGL_LENGTH_INVALID);
        }
        match sqe.opcode {
            admin::FABRICS => self.fabrics(cntlid, qid, sqe, now),
            _ => self.admin(cntlid, sqe, data, now),
        }
    }

    fn fabrics(&mut self, cntlid: u16, qid: u16, sqe: &Sqe, now: Instant) -> Outcome {
        match sqe.fabrics_type() {
            // This connection has a queue already.
            fabrics::CONNECT => Err(Status::COMMAND_SEQUENCE_ERROR),
            // Properties belong to the admin queue.
            _ if qid != 0 => Err(Status::INVALID_OPCODE),
            fabrics::PROPERTY_GET => self.property_get(cntlid, sqe),
            fabrics::PROPERTY_SET => self.property_set(cntlid, sqe, now),
            // Authentication is never asked for, and OFCS does not offer Disconnect.
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    fn admin(&mut self, cntlid: u16, sqe: &Sqe, data: &[u8], now: Instant) -> Outcome {
        match sqe.opcode {
            admin::IDENTIFY => self.identify(cntlid, sqe),
            admin::GET_LOG_PAGE => self.get_log_page(cntlid, sqe, now),
            admin::GET_FEATURES => self.get_features(cntlid, sqe, now),
            admin::SET_FEATURES => self.set_features(cntlid, sqe, data, now),
            admin::ASYNC_EVENT => self.async_event_request(cntlid, sqe.cid.get()),
            admin::KEEP_ALIVE if self.controller(cntlid).keep_alive.timeout_ms == 0 => {
                Err(Status::KEEP_ALIVE_INVALID)
            }
            admin::KEEP_ALIVE => Ok(Answer::DONE.into()),
            admin::ABORT if !self.controller(cntlid).discovery => Ok(abort()),
            _ => Err(Status::INVALID_OPCODE),
        }
    }
}

/// Abort (Base, section 5.1): never ends a command, and says so in DW0 bit 0. Every command here ends by
/// itself, and one told to be aborted that then took effect would be a ghost. Being answered at once, no more
/// than one is ever outstanding.
fn abort() -> Reply {
    const NOT_ABORTED: u32 = 1;
    Answer::value(NOT_ABORTED).into()
}
