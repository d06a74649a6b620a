//! The receiving half: PDUs out of bytes. Every header is checked field by field before anything is done with it;
//! a violation ends the connection with the fatal error status and the offset of the field.

use std::io::IoSliceMut;

use ashlar_codec::{crc32c, crc32c_append};
use ashlar_env::clock::Instant;
use ashlar_env::{Buf, BufMut};
use zerocopy::{FromBytes, little_endian::U16, little_endian::U32};

use super::commands::{Refused, State};
use super::send::Reply;
use super::{Admission, Closed, Event, Phase, Slot, Transport};
use crate::limits::{IN_CAPSULE_BYTES, MAX_H2C_DATA_BYTES};
use crate::wire::pdu::{CapsuleCmd, DataPdu, FatalError, Header, IcReq, IcResp, flags, kind};
use crate::wire::{Cqe, Status};

/// Where in the stream of PDUs the connection is.
#[derive(Clone, Copy)]
pub(super) enum Receive {
    /// At the start of a PDU.
    Header,
    /// At the start of a staged capsule, `plen` bytes long, which was announced; its `len` bytes of data lie `at`.
    /// It stays until its data have a buffer, if they need one (`wants_buffer`).
    Capsule { slot: Slot, at: usize, len: usize, plen: usize, wants_buffer: bool },
    /// In the data of an H2CData PDU; `crc` is that of the data so far.
    Payload { slot: Slot, remaining: u32, crc: u32 },
    /// Before the data digest of an H2CData PDU whose data have the CRC `crc`.
    DataDigest { slot: Slot, crc: u32 },
    /// Behind an H2CData PDU.
    PayloadEnd { slot: Slot },
    /// Nothing more is received; whether [`Event::Closed`] was given.
    Over { told: bool },
}

enum Step {
    Event(Event),
    /// The PDU was dealt with.
    Again,
    /// The PDU is not whole yet.
    More,
}

/// A header that breaks a rule: the fatal error status and information to send.
struct Violation(FatalError, u32);

const fn field(offset: u32) -> Violation {
    Violation(FatalError::InvalidHeader, offset)
}

const DIGEST_BYTES: usize = 4;

/// From this on, what is left of a payload counts as large, in bytes.
const DIRECT_BYTES_LARGE: usize = 16 << 10;
/// Bytes staged behind a large payload, at most.
const STAGED_BEHIND_LARGE: usize = 2048;

impl Transport {
    /// Where the next bytes received belong, in order: into a command's buffer, then into the staging buffer.
    /// Both empty when nothing is to be received now.
    pub fn recv_slices(&mut self) -> [IoSliceMut<'_>; 2] {
        let mut direct: &mut [u8] = &mut [];
        match self.receive {
            Receive::Over { .. } => return [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])],
            Receive::Payload { slot, remaining, .. } => {
                assert_eq!(self.staging.len(), 0, "staged bytes are taken before more are received");
                if let State::Receiving { buf, received, .. } = &mut self.commands.get_mut(slot).state {
                    let at = *received as usize;
                    direct = &mut buf[at..at + remaining as usize];
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

    /// `n` bytes were received into [`Self::recv_slices`]; none means that the host has finished sending.
    pub fn received(&mut self, n: usize, now: Instant) {
        if self.closed.is_some() {
            return;
        }
        if n == 0 {
            return self.close(Closed::ByHost, now);
        }
        let direct = match self.receive {
            Receive::Payload { remaining, .. } => n.min(remaining as usize),
            _ => 0,
        };
        if direct > 0 {
            self.payload_arrived(direct, now);
        }
        self.staging.filled(n - direct);
    }

    /// The next event. `None` means: receive more, or hand over the buffer asked for.
    pub fn next_event(&mut self, now: Instant) -> Option<Event> {
        loop {
            if let Some((slot, data)) = self.inline_ready.take() {
                return Some(Event::Data(slot, data));
            }
            match self.receive {
                Receive::Over { told } => {
                    self.receive = Receive::Over { told: true };
                    return self.closed.filter(|_| !told).map(Event::Closed);
                }
                Receive::Capsule { wants_buffer: true, .. } => return None,
                Receive::Capsule { plen, .. } => {
                    self.staging.consume(plen);
                    self.receive = Receive::Header;
                }
                Receive::Payload { slot, remaining, .. } => {
                    let staged = self.staging.len().min(remaining as usize);
                    if staged == 0 {
                        return None;
                    }
                    if let State::Receiving { buf, received, .. } = &mut self.commands.get_mut(slot).state {
                        let at = *received as usize;
                        buf[at..at + staged].copy_from_slice(self.staging.front(staged));
                    }
                    self.staging.consume(staged);
                    self.payload_arrived(staged, now);
                }
                Receive::DataDigest { slot, crc } => {
                    if self.staging.len() < DIGEST_BYTES {
                        return None;
                    }
                    let right = read_u32(self.staging.staged(), 0) == crc;
                    self.staging.consume(DIGEST_BYTES);
                    if let State::Receiving { digest_ok, .. } = &mut self.commands.get_mut(slot).state {
                        *digest_ok &= right;
                    }
                    self.receive = Receive::PayloadEnd { slot };
                }
                Receive::PayloadEnd { slot } => {
                    self.receive = Receive::Header;
                    self.times.pdu_since = None;
                    if let Some(event) = self.transfer_progress(slot, now) {
                        return Some(event);
                    }
                }
                Receive::Header => match self.next_pdu(now) {
                    Ok(Step::Event(event)) => return Some(event),
                    Ok(Step::Again) => {}
                    Ok(Step::More) => {
                        self.note_partial(now);
                        return None;
                    }
                    Err(Violation(fatal, fei)) => self.terminate(fatal, fei, now),
                },
            }
        }
    }

    fn note_partial(&mut self, now: Instant) {
        if self.staging.len() == 0 {
            self.times.pdu_since = None;
        } else {
            self.times.pdu_since.get_or_insert(now);
        }
    }

    /// `n` bytes of an H2CData PDU are in the command's buffer.
    fn payload_arrived(&mut self, n: usize, now: Instant) {
        let Receive::Payload { slot, remaining, mut crc } = self.receive else {
            unreachable!("payload arrives inside an H2CData PDU")
        };
        if let State::Receiving { buf, received, .. } = &mut self.commands.get_mut(slot).state {
            let at = *received as usize;
            *received += n as u32;
            if self.data_digest {
                crc = crc32c_append(crc, &buf[at..at + n]);
            }
        }
        self.times.data_since = Some(now);
        let remaining = remaining - n as u32;
        self.receive = match remaining {
            0 if self.data_digest => Receive::DataDigest { slot, crc },
            0 => Receive::PayloadEnd { slot },
            _ => Receive::Payload { slot, remaining, crc },
        };
    }

    /// After an H2CData PDU: the event, if the command now has all its data.
    fn transfer_progress(&mut self, slot: Slot, now: Instant) -> Option<Event> {
        let entry = self.commands.get_mut(slot);
        let State::Receiving { buf, received, digest_ok } = &entry.state else {
            unreachable!("data arrive for a command that receives")
        };
        let (len, digest_ok) = (buf.len() as u32, *digest_ok);
        if *received < len {
            return None;
        }
        let State::Receiving { buf, .. } = std::mem::replace(&mut entry.state, State::Executing) else {
            unreachable!("seen above")
        };
        self.receiving_bytes -= len;
        self.times.data_since = (self.receiving_bytes > 0).then_some(now);
        self.request_waiting(now);
        Some(if digest_ok { Event::Data(slot, buf.freeze()) } else { Event::BadData(slot) })
    }

    /// The data of the capsule at hand go into a buffer, as soon as there is one.
    pub(super) fn take_inline(&mut self) -> Admission {
        let Receive::Capsule { slot, len, wants_buffer, .. } = &mut self.receive else {
            unreachable!("a capsule is at hand while its command is admitted")
        };
        let slot = *slot;
        let Some(buf) = self.buffers.try_alloc(*len) else {
            *wants_buffer = true;
            self.commands.get_mut(slot).state = State::WaitInline;
            return Admission::Waiting;
        };
        Admission::Ready(Some(self.fill_inline(buf)))
    }

    pub(super) fn fill_inline(&mut self, mut buf: BufMut) -> Buf {
        let Receive::Capsule { slot, at, len, wants_buffer, .. } = &mut self.receive else {
            unreachable!("a capsule is at hand while it wants a buffer")
        };
        *wants_buffer = false;
        buf.copy_from_slice(&self.staging.staged()[*at..*at + *len]);
        self.commands.get_mut(*slot).state = State::Executing;
        buf.freeze()
    }

    /// Takes one PDU's header, and all of it unless it is H2CData, off the staging buffer.
    fn next_pdu(&mut self, now: Instant) -> Result<Step, Violation> {
        let Ok((header, _)) = Header::read_from_prefix(self.staging.staged()) else { return Ok(Step::More) };
        match header.kind {
            kind::IC_REQ => self.ic_req(&header, now),
            kind::H2C_TERM => {
                // Whatever it says, the host is going; a terminate request is never answered, nor read to its end.
                self.close(Closed::HostTerminated, now);
                Ok(Step::Again)
            }
            kind::CAPSULE_CMD | kind::H2C_DATA if self.phase == Phase::Initial => {
                Err(Violation(FatalError::Sequence, 0))
            }
            kind::CAPSULE_CMD => self.capsule(&header, now),
            kind::H2C_DATA => self.h2c_data(&header, now),
            _ => Err(field(0)),
        }
    }

    /// TCP, sections 3.1 and 3.6.2.1: the host opens the connection.
    fn ic_req(&mut self, header: &Header, now: Instant) -> Result<Step, Violation> {
        const BYTES: usize = size_of::<IcReq>();
        if self.phase != Phase::Initial {
            return Err(Violation(FatalError::Sequence, 0));
        }
        if header.plen.get() as usize != BYTES {
            return Err(field(4));
        }
        if usize::from(header.hlen) != BYTES {
            return Err(field(2));
        }
        if header.flags != 0 {
            return Err(field(1));
        }
        let Ok((request, _)) = IcReq::read_from_prefix(self.staging.staged()) else { return Ok(Step::More) };
        if request.pfv.get() != 0 {
            return Err(field(8));
        }
        if request.hpda > 31 {
            return Err(field(10));
        }
        self.staging.consume(BYTES);
        self.header_digest = request.dgst & 1 != 0;
        self.data_digest = request.dgst & 2 != 0;
        self.sender.negotiated(self.header_digest, self.data_digest, request.hpda);
        let response = IcResp {
            header: Header {
                kind: kind::IC_RESP,
                flags: 0,
                hlen: BYTES as u8,
                pdo: 0,
                plen: U32::new(BYTES as u32),
            },
            pfv: U16::ZERO,
            cpda: 0,
            dgst: request.dgst & 3,
            max_h2c_data: U32::new(MAX_H2C_DATA_BYTES),
            reserved: [0; 112],
        };
        self.push(Reply::Initialize(Box::new(response)), now);
        self.phase = Phase::Connecting;
        self.times.step_deadline = Some(now.plus(self.step_timeout));
        self.times.pdu_since = None;
        Ok(Step::Again)
    }

    /// The digest flags must say what was negotiated (TCP, section 3.6.1).
    fn check_flags(&self, header: &Header, data_len: u32, allowed: u8) -> Result<(), Violation> {
        let header_digest = header.flags & flags::HDGST != 0;
        let data_digest = header.flags & flags::DDGST != 0;
        let unknown = header.flags & !(flags::HDGST | flags::DDGST | allowed) != 0;
        let data_digest_wrong =
            if data_len > 0 { data_digest != self.data_digest } else { data_digest && !self.data_digest };
        if unknown || header_digest != self.header_digest || data_digest_wrong {
            Err(field(1))
        } else {
            Ok(())
        }
    }

    fn check_header_digest(&self, hlen: usize) -> Result<(), Violation> {
        if self.header_digest {
            let given = read_u32(self.staging.staged(), hlen);
            if given != crc32c(&self.staging.staged()[..hlen]) {
                return Err(Violation(FatalError::HeaderDigest, given));
            }
        }
        Ok(())
    }

    /// How many bytes of data a PDU carries, from its lengths alone, and where they begin. The offset must be
    /// a multiple of 4 and lie behind header and digest.
    fn data_of(&self, header: &Header, hlen: usize) -> Result<(usize, u32), Violation> {
        let digest = if self.header_digest { DIGEST_BYTES } else { 0 };
        let (plen, first) = (header.plen.get() as usize, hlen + digest);
        if plen < first {
            return Err(field(4));
        }
        if plen == first {
            return Ok((first, 0));
        }
        let pdo = usize::from(header.pdo);
        if pdo < first || !pdo.is_multiple_of(4) {
            return Err(field(3));
        }
        let trailer = if self.data_digest { DIGEST_BYTES } else { 0 };
        match plen.checked_sub(pdo + trailer) {
            Some(len) if len > 0 => Ok((pdo, len as u32)),
            _ => Err(field(4)),
        }
    }

    /// TCP, section 3.6.2.5: a command, perhaps with data.
    fn capsule(&mut self, header: &Header, now: Instant) -> Result<Step, Violation> {
        const HLEN: usize = size_of::<CapsuleCmd>();
        if usize::from(header.hlen) != HLEN {
            return Err(field(2));
        }
        let (pdo, data_len) = self.data_of(header, HLEN)?;
        if data_len > IN_CAPSULE_BYTES {
            return Err(field(4));
        }
        self.check_flags(header, data_len, 0)?;
        let plen = header.plen.get() as usize;
        if self.staging.len() < plen {
            return Ok(Step::More);
        }
        self.check_header_digest(HLEN)?;
        let staged = self.staging.staged();
        let (capsule, _) = CapsuleCmd::ref_from_prefix(staged).expect("a whole capsule is staged");
        let data = &staged[pdo..pdo + data_len as usize];
        let digest_ok =
            data_len == 0 || !self.data_digest || crc32c(data) == read_u32(staged, pdo + data_len as usize);
        let arrived = self.commands.arrive(&capsule.sqe, data_len, digest_ok);
        self.sender.command_arrived();
        self.times.pdu_since = None;
        match arrived {
            Ok(slot) => {
                let (at, len) = (pdo, data_len as usize);
                self.receive = Receive::Capsule { slot, at, len, plen, wants_buffer: false };
                Ok(Step::Event(Event::Command(slot)))
            }
            Err(Refused::InUse) => {
                let cqe = Cqe::new(capsule.sqe.cid.get(), Status::COMMAND_ID_CONFLICT, 0, 0);
                self.staging.consume(plen);
                self.push(Reply::Done { cqe, data: None }, now);
                Ok(Step::Again)
            }
            Err(Refused::Full) => Err(Violation(FatalError::Sequence, 0)),
        }
    }

    /// TCP, section 3.6.2.7: data that an R2T asked for. Sums are safe from overflow: they are made in 64 bits.
    fn h2c_data(&mut self, header: &Header, now: Instant) -> Result<Step, Violation> {
        const HLEN: usize = size_of::<DataPdu>();
        if usize::from(header.hlen) != HLEN {
            return Err(field(2));
        }
        let (pdo, data_len) = self.data_of(header, HLEN)?;
        self.check_flags(header, data_len, flags::LAST)?;
        if self.staging.len() < pdo {
            return Ok(Step::More);
        }
        self.check_header_digest(HLEN)?;
        let (pdu, _) = DataPdu::read_from_prefix(self.staging.staged()).expect("a whole header is staged");
        let entry = self.commands.by_tag(pdu.ttag.get());
        let Some((entry, State::Receiving { buf, received, .. })) = entry.map(|entry| (entry, &entry.state))
        else {
            return Err(Violation(FatalError::Sequence, 0));
        };
        if entry.sqe.cid != pdu.cccid {
            return Err(Violation(FatalError::Sequence, 0));
        }
        let len = pdu.length.get();
        if len == 0 || len != data_len {
            return Err(field(16));
        }
        if len > MAX_H2C_DATA_BYTES {
            return Err(Violation(FatalError::LimitExceeded, 0));
        }
        let end = u64::from(pdu.offset.get()) + u64::from(len);
        if pdu.offset.get() != *received || end > buf.len() as u64 {
            return Err(Violation(FatalError::DataOutOfRange, 0));
        }
        if (header.flags & flags::LAST != 0) != (end == buf.len() as u64) {
            return Err(field(1));
        }
        self.staging.consume(pdo);
        self.times.pdu_since = Some(now);
        self.receive = Receive::Payload { slot: Slot(pdu.ttag.get()), remaining: len, crc: 0 };
        Ok(Step::Again)
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    U32::read_from_prefix(&bytes[at..]).expect("the digest is staged").0.get()
}
