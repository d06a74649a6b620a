//! What the initiator asks, PDU by PDU, but for login, commands and their data.

use ashlar_env::clock::Instant;
use zerocopy::{FromBytes, IntoBytes};

use super::reply::Reply;
use super::{Closed, Phase, Receive, Session};
use crate::limits::{PING_BYTES_MAX, TEXT_BYTES_MAX};
use crate::wire::bhs::FINAL;
use crate::wire::request::{Logout, NopOut};
use crate::wire::response::RejectReason;
use crate::wire::{NO_TAG, opcode};

impl Session {
    /// A header in full feature phase; `len` bytes of data follow.
    pub(super) fn header(&mut self, len: u32, segments: &[u8], now: Instant) {
        let kind = self.current.kind();
        let scsi = matches!(kind, opcode::SCSI_COMMAND | opcode::TASK_MANAGEMENT | opcode::DATA_OUT);
        if scsi && self.discovery {
            return self.reject_and_close(RejectReason::ProtocolError, now);
        }
        match kind {
            opcode::SCSI_COMMAND => return self.command(len, segments, now),
            opcode::DATA_OUT if segments.is_empty() => return self.data_out(len, now),
            _ => {}
        }
        let reason = match kind {
            opcode::NOP_OUT | opcode::TASK_MANAGEMENT | opcode::TEXT | opcode::LOGOUT
                if !segments.is_empty() =>
            {
                RejectReason::InvalidField
            }
            opcode::NOP_OUT => return self.collect(len, now),
            opcode::TEXT if len as usize <= TEXT_BYTES_MAX => return self.collect(len, now),
            opcode::TASK_MANAGEMENT | opcode::LOGOUT if len == 0 => return self.collect(0, now),
            opcode::SNACK => RejectReason::Snack,
            opcode::TASK_MANAGEMENT..=opcode::LOGOUT => RejectReason::ProtocolError,
            _ => RejectReason::NotSupported,
        };
        self.reject(reason, now);
        self.discard(len);
    }

    /// A whole PDU is here.
    pub(super) fn pdu(&mut self, data: &[u8], now: Instant) {
        match self.current.kind() {
            opcode::LOGIN => self.login_request(data, now),
            opcode::NOP_OUT => self.nop_out(data, now),
            opcode::TASK_MANAGEMENT => self.task_management(now),
            opcode::TEXT => self.text(data, now),
            opcode::LOGOUT => self.logout(now),
            _ => unreachable!("no other opcode is collected"),
        }
    }

    /// Whether the PDU at hand is to be dealt with, by its CmdSN.
    pub(super) fn in_window(&mut self, cmd_sn: u32) -> bool {
        self.current.is_immediate() || self.window.arrives(cmd_sn)
    }

    /// Rejects the PDU at hand, whose CmdSN is free again.
    pub(super) fn reject_numbered(&mut self, cmd_sn: u32, reason: RejectReason, now: Instant) {
        if !self.current.is_immediate() {
            self.window.rejected(cmd_sn);
        }
        self.reject(reason, now);
    }

    /// RFC 7143, section 11.18.
    fn nop_out(&mut self, data: &[u8], now: Instant) {
        let pdu = NopOut::read_from_bytes(self.current.as_bytes()).expect("headers have one size");
        if pdu.itt.get() == NO_TAG {
            // The answer to a ping, or a sign of life.
            if !self.current.is_immediate() || pdu.flags & FINAL == 0 {
                return self.reject(RejectReason::ProtocolError, now);
            }
            self.times.ping_answered |= pdu.ttt.get() != NO_TAG;
            return;
        }
        if !self.in_window(pdu.cmd_sn.get()) {
            return;
        }
        if pdu.flags & FINAL == 0 || pdu.ttt.get() != NO_TAG {
            return self.reject_numbered(pdu.cmd_sn.get(), RejectReason::ProtocolError, now);
        }
        let most = PING_BYTES_MAX.min(self.parameters.send_segment_bytes as usize);
        let data = data[..data.len().min(most)].into();
        self.push(Reply::Nop { tag: pdu.itt.get(), ttt: NO_TAG, data }, now);
    }

    /// Section 11.14: the session ends when its tasks have.
    fn logout(&mut self, now: Instant) {
        let pdu = Logout::read_from_bytes(self.current.as_bytes()).expect("headers have one size");
        if !self.in_window(pdu.cmd_sn.get()) {
            return;
        }
        let tag = pdu.itt.get();
        let refused = match pdu.reason & !FINAL {
            0 => None,
            1 if pdu.cid.get() == self.cid => None,
            1 => Some(1),
            2 => Some(2),
            _ => return self.reject_numbered(pdu.cmd_sn.get(), RejectReason::InvalidField, now),
        };
        if let Some(response) = refused {
            return self.push_logout(tag, response, now);
        }
        self.phase = Phase::LoggingOut { tag };
        self.receive = Receive::Over { told: true };
        self.staging.clear();
        self.times.logging_out(now);
        self.abort_unready(now);
        self.maybe_logged_out(now);
    }

    fn push_logout(&mut self, tag: u32, response: u8, now: Instant) {
        let (wait, retain) = (self.parameters.time_to_wait, self.parameters.time_to_retain);
        self.push(Reply::Logout { tag, response, wait, retain }, now);
    }

    /// Answers a logout when no task is left.
    pub(super) fn maybe_logged_out(&mut self, now: Instant) {
        if let Phase::LoggingOut { tag } = self.phase
            && self.tasks.len() == 0
        {
            self.push_logout(tag, 0, now);
            self.close(Closed::LoggedOut, now);
        }
    }
}
