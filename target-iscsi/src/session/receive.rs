//! The receiving half: PDUs out of bytes.

use std::io::IoSliceMut;

use ashlar_codec::{crc32c, crc32c_append};
use ashlar_env::clock::Instant;
use zerocopy::FromBytes;

use super::{Closed, Event, Phase, Session, TaskId};
use crate::limits::{PING_BYTES_MAX, RECV_SEGMENT_BYTES, TEXT_BYTES_MAX};
use crate::wire::response::RejectReason;
use crate::wire::{BHS_BYTES, Bhs, DIGEST_BYTES, LoginStatus, opcode, padding};

/// Where in the stream of PDUs the connection is.
pub(super) enum Receive {
    /// At the start of a PDU.
    Header,
    /// Behind the header of a command that was announced; `len` bytes of data follow.
    Command { id: TaskId, len: u32 },
    /// In a data segment: `remaining` of `len` bytes; `crc` is that of those before.
    Payload { sink: Sink, len: u32, remaining: u32, crc: u32 },
    /// Before padding and digest of a data segment of `len` bytes.
    Trailer { sink: Sink, len: u32, crc: u32 },
    /// Nothing more is received; whether [`Event::Closed`] was given.
    Over { told: bool },
}

/// Where the data of a PDU go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sink {
    /// To a command; `ends` says that no more of its sequence come.
    Task { id: TaskId, ends: bool },
    /// To whatever the PDU's opcode says, in memory: so many bytes of them.
    Collect { keep: u32 },
    /// Nowhere.
    Discard,
}

impl Receive {
    /// A command is gone: its data go nowhere.
    pub fn forget(&mut self, gone: TaskId) {
        match self {
            Self::Payload { sink, .. } | Self::Trailer { sink, .. } => {
                if matches!(sink, Sink::Task { id, .. } if *id == gone) {
                    *sink = Sink::Discard;
                }
            }
            Self::Command { id, len } if *id == gone => {
                *self = Self::payload(Sink::Discard, *len);
            }
            _ => {}
        }
    }

    /// At the start of a data segment of `len` bytes.
    pub const fn payload(sink: Sink, len: u32) -> Self {
        Self::Payload { sink, len, remaining: len, crc: 0 }
    }
}

/// From this on, what is left of a payload counts as large, in bytes.
const DIRECT_BYTES_LARGE: usize = 16 << 10;
/// Bytes staged behind a large payload, at most.
const STAGED_BEHIND_LARGE: usize = 2048;

impl Session {
    /// Where the next bytes received belong, in order: into a command's buffer, then into the staging buffer. Both
    /// empty when nothing is to be received now.
    pub fn recv_slices(&mut self) -> [IoSliceMut<'_>; 2] {
        let mut direct: &mut [u8] = &mut [];
        match self.receive {
            Receive::Over { .. } => return [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])],
            Receive::Payload { sink: Sink::Task { id, .. }, remaining, .. } => {
                assert_eq!(self.staging.len(), 0, "staged bytes are taken before more are received");
                if let Some(incoming) = self.tasks.incoming(id) {
                    let room = incoming.store.from(incoming.at as usize);
                    let len = room.len().min(remaining as usize);
                    direct = &mut room[..len];
                }
            }
            _ => {}
        }
        // Behind a large payload comes another, as a rule: only its header is to be staged, not its data.
        let behind = if direct.len() >= DIRECT_BYTES_LARGE { STAGED_BEHIND_LARGE } else { usize::MAX };
        let spare = self.staging.spare();
        let behind = behind.min(spare.len());
        [IoSliceMut::new(direct), IoSliceMut::new(&mut spare[..behind])]
    }

    /// `n` bytes were received into [`Self::recv_slices`]; none means that the initiator has finished sending.
    pub fn received(&mut self, n: usize, now: Instant) {
        if self.closed.is_some() {
            return;
        }
        if n == 0 {
            return self.close(Closed::ByInitiator, now);
        }
        self.times.heard(now);
        let mut direct = 0;
        if let Receive::Payload { sink: Sink::Task { id, .. }, remaining, .. } = self.receive
            && let Some(incoming) = self.tasks.incoming(id)
        {
            let room = incoming.store.from(incoming.at as usize).len();
            direct = n.min(remaining as usize).min(room);
        }
        if direct > 0 {
            self.payload_arrived(direct, now);
        }
        self.staging.filled(n - direct);
    }

    /// The next event. `None` means: receive more, or hand over the buffer asked for, or settle the login.
    pub fn next_event(&mut self, now: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let goes_on = match self.receive {
                Receive::Over { told } => {
                    self.receive = Receive::Over { told: true };
                    return self.closed.filter(|_| !told).map(Event::Closed);
                }
                Receive::Command { .. } => false,
                Receive::Payload { sink, remaining, .. } => self.take_payload(sink, remaining, now),
                Receive::Trailer { sink, len, crc } => self.take_trailer(sink, len, crc, now),
                Receive::Header => self.phase != Phase::Held && self.next_pdu(now),
            };
            if !goes_on && self.events.is_empty() && !matches!(self.receive, Receive::Over { told: false }) {
                return None;
            }
        }
    }

    /// Moves staged bytes of a payload to where they belong. Whether there were any.
    fn take_payload(&mut self, sink: Sink, remaining: u32, now: Instant) -> bool {
        let staged = self.staging.len().min(remaining as usize);
        if staged == 0 && remaining > 0 {
            return false;
        }
        let mut n = staged;
        if let Sink::Task { id, .. } = sink
            && let Some(incoming) = self.tasks.incoming(id)
        {
            let room = incoming.store.from(incoming.at as usize);
            if !room.is_empty() {
                n = staged.min(room.len());
                room[..n].copy_from_slice(self.staging.front(n));
                self.staging.consume(n);
                self.payload_arrived(n, now);
                return true;
            }
        }
        let (data, crc) = (self.staging.front(n), self.has_data_digest());
        if let Sink::Collect { keep } = sink {
            let room = (keep as usize).saturating_sub(self.collected.len());
            self.collected.extend_from_slice(&data[..room.min(n)]);
        }
        if let Receive::Payload { crc: sum, .. } = &mut self.receive
            && crc
        {
            *sum = crc32c_append(*sum, data);
        }
        self.staging.consume(n);
        self.payload_passed(n, now);
        true
    }

    fn has_data_digest(&self) -> bool {
        self.parameters.data_digest && self.phase != Phase::Login
    }

    /// `n` bytes of a payload are in the command's store.
    fn payload_arrived(&mut self, n: usize, now: Instant) {
        let digest = self.has_data_digest();
        if let Receive::Payload { sink: Sink::Task { id, .. }, crc, .. } = &mut self.receive
            && let Some(incoming) = self.tasks.incoming(*id)
            && digest
        {
            *crc = crc32c_append(*crc, &incoming.store.from(incoming.at as usize)[..n]);
        }
        self.payload_passed(n, now);
    }

    /// `n` bytes of a payload are dealt with.
    fn payload_passed(&mut self, n: usize, now: Instant) {
        let Receive::Payload { sink, len, remaining, crc } = self.receive else {
            unreachable!("payload passes inside a data segment")
        };
        if let Sink::Task { id, .. } = sink
            && let Some(incoming) = self.tasks.incoming(id)
        {
            incoming.at += n as u32;
            self.times.data_since = Some(now);
        }
        let remaining = remaining - n as u32;
        self.receive = match remaining {
            0 => Receive::Trailer { sink, len, crc },
            _ => Receive::Payload { sink, len, remaining, crc },
        };
    }

    /// Behind the data of a PDU: whether all of it is here now.
    fn take_trailer(&mut self, sink: Sink, len: u32, crc: u32, now: Instant) -> bool {
        let pad = padding(len as usize);
        let digest = if self.has_data_digest() && len > 0 { DIGEST_BYTES } else { 0 };
        if self.staging.len() < pad + digest {
            return false;
        }
        let trailer = self.staging.front(pad + digest);
        let crc = if pad > 0 && digest > 0 { crc32c_append(crc, &trailer[..pad]) } else { crc };
        let right = trailer[pad..] == crc.to_le_bytes()[..digest];
        self.staging.consume(pad + digest);
        self.receive = Receive::Header;
        self.times.pdu_since = None;
        if !right {
            // Nothing can be recovered at ErrorRecoveryLevel 0 (section 7.8).
            self.reject_and_close(RejectReason::DataDigest, now);
            return true;
        }
        match sink {
            Sink::Task { id, ends } => self.data_pdu_ended(id, ends, now),
            Sink::Collect { .. } => {
                let data = std::mem::take(&mut self.collected);
                self.pdu(&data, now);
            }
            Sink::Discard => {}
        }
        true
    }

    /// Takes one PDU's header off the staging buffer. Whether it was whole.
    fn next_pdu(&mut self, now: Instant) -> bool {
        let digest =
            if self.parameters.header_digest && self.phase != Phase::Login { DIGEST_BYTES } else { 0 };
        let Ok((header, _)) = Bhs::read_from_prefix(self.staging.staged()) else {
            self.note_partial(now);
            return false;
        };
        let head = BHS_BYTES + header.length.ahs_bytes();
        if self.staging.len() < head + digest {
            self.note_partial(now);
            return false;
        }
        let (staged, len) = (self.staging.front(head + digest), header.length.data_bytes());
        if digest > 0 && staged[head..] != crc32c(&staged[..head]).to_le_bytes() {
            self.close(Closed::ProtocolError, now);
            return true;
        }
        let segments = if head > BHS_BYTES { staged[BHS_BYTES..head].to_vec() } else { Vec::new() };
        self.staging.consume(head + digest);
        self.current = header;
        self.times.pdu_since = (self.staging.len() > 0 || len > 0).then_some(now);
        if self.phase == Phase::Login {
            self.login_header(len, &segments, now);
        } else if len > RECV_SEGMENT_BYTES {
            self.reject_and_close(RejectReason::ProtocolError, now);
        } else {
            self.header(len, &segments, now);
        }
        true
    }

    fn note_partial(&mut self, now: Instant) {
        if self.staging.len() == 0 {
            self.times.pdu_since = None;
        } else {
            self.times.pdu_since.get_or_insert(now);
        }
    }

    /// Before full feature phase there is nothing but login.
    fn login_header(&mut self, len: u32, segments: &[u8], now: Instant) {
        if self.current.kind() != opcode::LOGIN {
            return self.refuse(LoginStatus::InvalidDuringLogin, now);
        }
        if len as usize > TEXT_BYTES_MAX || !segments.is_empty() {
            return self.refuse(LoginStatus::InitiatorError, now);
        }
        self.collect(len, now);
    }

    /// Waits for `len` bytes of data, and keeps them for [`Self::pdu`].
    pub(super) fn collect(&mut self, len: u32, now: Instant) {
        self.collected.clear();
        if len == 0 {
            self.times.pdu_since = None;
            return self.pdu(&[], now);
        }
        let keep = if self.current.kind() == opcode::NOP_OUT { PING_BYTES_MAX } else { TEXT_BYTES_MAX };
        self.receive = Receive::payload(Sink::Collect { keep: keep as u32 }, len);
    }

    /// Lets `len` bytes of data pass.
    pub(super) fn discard(&mut self, len: u32) {
        if self.closed.is_none() && len > 0 {
            self.receive = Receive::payload(Sink::Discard, len);
        }
    }
}
