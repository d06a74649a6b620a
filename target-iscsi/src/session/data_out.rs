//! Data-Out PDUs (RFC 7143, section 11.7).

use ashlar_env::clock::Instant;
use zerocopy::{FromBytes, IntoBytes};

use super::incoming::Wrong;
use super::receive::Sink;
use super::tasks::State;
use super::{Receive, Session, TaskId};
use crate::scsi::{Answer, Data, Status};
use crate::wire::NO_TAG;
use crate::wire::request::DataOut;

impl Session {
    /// The header of a Data-Out PDU; `len` bytes of data follow. Data of a task that is not there, or has all it wants,
    /// pass: the initiator may have sent them before it heard of the task's end. The LUN field says nothing: Windows
    /// gets it wrong.
    pub(super) fn data_out(&mut self, len: u32, now: Instant) {
        let pdu = DataOut::read_from_bytes(self.current.as_bytes()).expect("headers have one size");
        let Some(id) = self.task_of(&pdu) else { return self.pass(len) };
        let Some(incoming) = self.tasks.incoming(id) else { return self.pass(len) };
        match incoming.check(&pdu) {
            Ok(ends) if len > 0 => self.receive = Receive::payload(Sink::Task { id, ends }, len),
            Ok(ends) => {
                self.times.pdu_since = None;
                self.data_pdu_ended(id, ends, now);
            }
            Err(wrong) => {
                self.fail(id, broken(wrong), now);
                self.pass(len);
            }
        }
    }

    fn pass(&mut self, len: u32) {
        if len == 0 {
            self.times.pdu_since = None;
        }
        self.discard(len);
    }

    fn task_of(&self, pdu: &DataOut) -> Option<TaskId> {
        let (tag, ttt) = (pdu.itt.get(), pdu.ttt.get());
        let id = if ttt == NO_TAG { self.tasks.find(tag) } else { self.tasks.at((ttt >> 16) as u16, tag) };
        // A transfer tag that was never given, for a task that is there: the task has to know.
        let id = id.or_else(|| self.tasks.find(tag))?;
        matches!(self.tasks.get(id).state, State::Incoming(_)).then_some(id)
    }
}

/// ABORTED COMMAND with the additional sense that section 11.4.7.2 gives, in fixed format.
fn broken(wrong: Wrong) -> Answer {
    let (asc, ascq) = match wrong {
        // WRITE ERROR - UNEXPECTED UNSOLICITED DATA
        Wrong::Unexpected => (0x0C, 0x0C),
        // DATA PHASE ERROR
        Wrong::Sequence => (0x4B, 0x00),
    };
    let mut sense = vec![0; 18];
    (sense[0], sense[2], sense[7], sense[12], sense[13]) = (0x70, 0x0B, 10, asc, ascq);
    Answer { status: Status::CheckCondition, sense: Some(sense.into()), data: Data::None }
}
