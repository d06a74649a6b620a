//! SCSI Command PDUs (RFC 7143, section 11.3).

use ashlar_env::clock::Instant;
use zerocopy::{FromBytes, IntoBytes};

use super::tasks::{State, Task};
use super::{Event, Receive, Session};
use crate::limits::IMMEDIATE_COMMANDS_MAX;
use crate::scsi::{Attribute, Cdb, Request};
use crate::wire::NO_TAG;
use crate::wire::ahs::{AhsError, extended_cdb};
use crate::wire::bhs::FINAL;
use crate::wire::request::ScsiCommand;
use crate::wire::response::RejectReason;

impl Session {
    /// The header of a command, and its additional `segments`; `len` bytes of data follow.
    pub(super) fn command(&mut self, len: u32, segments: &[u8], now: Instant) {
        let pdu = ScsiCommand::read_from_bytes(self.current.as_bytes()).expect("headers have one size");
        if !self.in_window(pdu.cmd_sn.get()) {
            return self.discard(len);
        }
        if let Err(reason) = self.take_command(&pdu, len, segments) {
            self.reject_numbered(pdu.cmd_sn.get(), reason, now);
            self.discard(len);
        }
    }

    fn take_command(&mut self, pdu: &ScsiCommand, len: u32, segments: &[u8]) -> Result<(), RejectReason> {
        let rest = extended_cdb(segments).map_err(|error| match error {
            AhsError::Malformed => RejectReason::InvalidField,
            AhsError::Unsupported => RejectReason::NotSupported,
        })?;
        let (reads, writes) = (pdu.flags & ScsiCommand::READ != 0, pdu.flags & ScsiCommand::WRITE != 0);
        let (expected, goes_on) = (pdu.expected_bytes.get(), pdu.flags & FINAL == 0);
        let tag = pdu.itt.get();
        // A command that reads and one that moves nothing may not be followed by data.
        if tag == NO_TAG || reads && writes || expected > 0 && !reads && !writes || goes_on && !writes {
            return Err(RejectReason::InvalidField);
        }
        self.check_immediate_data(len, expected, writes)?;
        if self.tasks.find(tag).is_some() {
            return Err(RejectReason::TaskInProgress);
        }
        let immediate = self.current.is_immediate();
        if immediate && self.tasks.immediate() >= IMMEDIATE_COMMANDS_MAX {
            return Err(RejectReason::ImmediateRejected);
        }
        let request = Request {
            lun: pdu.lun.get(),
            cdb: Cdb { head: pdu.cdb, rest: rest.into() },
            attribute: attribute(pdu.flags),
            out_bytes: if writes { expected } else { 0 },
            in_bytes: if reads { expected } else { 0 },
        };
        let task = Task {
            request,
            state: State::Arrived,
            immediate,
            unsolicited: goes_on && !self.parameters.initial_r2t && len < self.first_burst(expected),
            wanted: 0,
            begun: false,
            aborted: false,
            cleared: false,
        };
        let unsolicited = task.unsolicited;
        let id = self.tasks.insert(tag, task).ok_or(RejectReason::NoResources)?;
        if !immediate {
            self.window.begins();
        }
        if len > 0 || unsolicited {
            self.receive = Receive::Command { id, len };
        } else {
            self.times.pdu_since = None;
        }
        self.events.push_back(Event::Command(id));
        Ok(())
    }

    /// How much of a command's data may come unasked.
    pub(super) fn first_burst(&self, expected: u32) -> u32 {
        self.parameters.first_burst_bytes.min(expected)
    }

    /// Sections 11.3.4 and 13.11: data that come with a command.
    fn check_immediate_data(&self, len: u32, expected: u32, writes: bool) -> Result<(), RejectReason> {
        let allowed = if writes && self.parameters.immediate_data { self.first_burst(expected) } else { 0 };
        if len > allowed { Err(RejectReason::ProtocolError) } else { Ok(()) }
    }
}

fn attribute(flags: u8) -> Attribute {
    match flags & 7 {
        0 => Attribute::Untagged,
        2 => Attribute::Ordered,
        3 => Attribute::HeadOfQueue,
        4 => Attribute::Aca,
        _ => Attribute::Simple,
    }
}
