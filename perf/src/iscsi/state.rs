//! The tasks of a session and its numbers: what the parser reports to, and what fills the send side.

use std::net::TcpStream;

use ashlar_codec::{crc32c, crc32c_append};
use zerocopy::IntoBytes;
use zerocopy::big_endian::U32;

use super::cdb::Cdb;
use super::login::{Agreed, Numbers};
use super::rx::Sink;
use super::wire::{Answer, NO_TAG, Request, answer, flags, padding, request};
use super::{Outcome, Residual, Sense, SessionOptions};
use crate::client::error::protocol;
use crate::client::tx::Tx;
use crate::client::{ClientError, Result};

/// The bits of an ITT that number the slot; the others count its uses, so that an answer that comes twice or too
/// late is noticed.
const SLOT_BITS: u32 = 13;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
/// Commands in flight, at most; half the slot numbers, so that no slot ever has one of the two tags below.
const DEPTH_MAX: u16 = 4096;
/// The tag of the logout.
const LOGOUT_TAG: u32 = NO_TAG - 1;
/// The asynchronous event that concerns a logical unit only.
const SCSI_EVENT: u8 = 0;

/// What a command transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    None,
    /// So many bytes from the target.
    In(u32),
    /// The first so many bytes of the slot's payload, to the target.
    Out(u32),
}

/// A finished command.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The slot it had, free again.
    pub slot: u16,
    /// How it ended.
    pub outcome: Outcome,
}

#[derive(Clone, Copy)]
struct Slot {
    itt: u32,
    busy: bool,
    data: Data,
    /// Bytes received, sent unasked, or asked for with R2T so far.
    moved: u32,
    /// Bytes of the sequence of Data-In that is arriving.
    burst: u32,
    /// DataSN or R2TSN that comes next.
    sn: u32,
}

/// All of a session but its socket and parser.
pub(super) struct State {
    tx: Tx,
    agreed: Agreed,
    /// The largest data segment this side takes, in bytes.
    data_in_bytes_max: u32,
    keep_read_data: bool,
    lun: [u8; 8],
    numbers: Numbers,
    slots: Vec<Slot>,
    free: Vec<u16>,
    logged_out: bool,
    pub(super) payloads: Vec<Box<[u8]>>,
    pub(super) done: Vec<Completion>,
}

impl State {
    pub(super) fn new(
        options: SessionOptions,
        data_in_bytes_max: u32,
        agreed: Agreed,
        numbers: Numbers,
        lun: [u8; 8],
    ) -> Result<Self> {
        if options.depth == 0 || options.depth > DEPTH_MAX {
            return Err(ClientError::Setup(format!("a depth of {} is not 1 to {DEPTH_MAX}", options.depth)));
        }
        let depth = usize::from(options.depth);
        let slot = Slot { itt: 0, busy: false, data: Data::None, moved: 0, burst: 0, sn: 0 };
        Ok(Self {
            tx: Tx::default(),
            agreed,
            data_in_bytes_max,
            keep_read_data: options.keep_read_data,
            lun,
            numbers,
            slots: (0..u32::from(options.depth)).map(|itt| Slot { itt, ..slot }).collect(),
            free: (0..options.depth).rev().collect(),
            logged_out: false,
            payloads: vec![vec![0; options.payload_bytes].into_boxed_slice(); depth],
            done: Vec::with_capacity(depth),
        })
    }

    pub(super) fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// Sets whether read data are copied into the payloads; returns what was set before.
    pub(super) fn keep_read_data(&mut self, keep: bool) -> bool {
        std::mem::replace(&mut self.keep_read_data, keep)
    }

    #[inline]
    pub(super) fn room(&self) -> usize {
        self.free.len().min(self.window() as usize)
    }

    /// Commands that the target's window still takes (RFC 7143, section 4.2.2.1).
    #[inline]
    fn window(&self) -> u32 {
        let window = self.numbers.max_cmd_sn.wrapping_sub(self.numbers.cmd_sn).wrapping_add(1);
        if window > i32::MAX as u32 { 0 } else { window }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(super) fn next_slot(&self) -> Option<u16> {
        self.free.last().copied()
    }

    pub(super) fn is_logged_out(&self) -> bool {
        self.logged_out
    }

    #[inline]
    pub(super) fn flush(&mut self, stream: &TcpStream) -> Result<bool> {
        if self.tx.is_empty() {
            return Ok(true);
        }
        self.tx.flush(stream, &self.payloads)
    }

    #[inline]
    pub(super) fn submit(&mut self, cdb: &Cdb, data: Data) -> Option<u16> {
        if self.window() == 0 {
            return None;
        }
        let index = self.free.pop()?;
        let slot = &mut self.slots[usize::from(index)];
        slot.itt = slot.itt.wrapping_add(1 << SLOT_BITS);
        (slot.busy, slot.data, slot.moved, slot.burst, slot.sn) = (true, data, 0, 0, 0);
        let itt = slot.itt;
        let (bits, expected) = match data {
            Data::None => (0, 0),
            Data::In(bytes) => (flags::READ, bytes),
            Data::Out(bytes) => (flags::WRITE, bytes),
        };
        let (immediate, unsolicited) = match data {
            Data::Out(bytes) => self.unasked(bytes),
            Data::None | Data::In(_) => (0, 0),
        };
        let is_final = if unsolicited > immediate { 0 } else { flags::FINAL };
        let mut header = Request::new(request::COMMAND, is_final | bits | flags::SIMPLE);
        header.set_data_bytes(immediate);
        header.itt = U32::new(itt);
        header.tag = U32::new(expected);
        header.cmd_sn = U32::new(self.numbers.cmd_sn);
        header.cdb = *cdb;
        self.numbers.cmd_sn = self.numbers.cmd_sn.wrapping_add(1);
        self.send(header, index, 0, immediate);
        if unsolicited > 0 {
            self.slots[usize::from(index)].moved = unsolicited;
            self.send_sequence(index, itt, NO_TAG, immediate, unsolicited);
        }
        Some(index)
    }

    /// How many of the `bytes` of a write go with the command, and up to where data go unasked.
    #[inline]
    fn unasked(&self, bytes: u32) -> (u32, u32) {
        let agreed = &self.agreed;
        let burst = bytes.min(agreed.first_burst_bytes);
        let immediate = if agreed.immediate_data { burst.min(agreed.data_segment_bytes) } else { 0 };
        (immediate, if agreed.initial_r2t { immediate } else { burst })
    }

    /// Sends the payload of `slot` from `offset` to `end` in as many Data-Out as the target's limit asks for.
    fn send_sequence(&mut self, slot: u16, itt: u32, ttt: u32, mut offset: u32, end: u32) {
        let mut data_sn = 0;
        while offset < end {
            let length = (end - offset).min(self.agreed.data_segment_bytes);
            let is_final = if offset + length == end { flags::FINAL } else { 0 };
            let mut header = Request::new(request::DATA_OUT, is_final);
            header.set_data_bytes(length);
            (header.itt, header.tag) = (U32::new(itt), U32::new(ttt));
            header.set_data_place(data_sn, offset);
            self.send(header, slot, offset, length);
            data_sn += 1;
            offset += length;
        }
    }

    /// Lays `header` with `length` bytes from `offset` of the payload of `slot` ready to be sent.
    #[inline]
    fn send(&mut self, mut header: Request, slot: u16, offset: u32, length: u32) {
        header.lun = self.lun;
        self.send_header(&mut header);
        if length == 0 {
            return;
        }
        self.tx.payload(slot, offset, length);
        let data = &self.payloads[usize::from(slot)][offset as usize..(offset + length) as usize];
        send_trailer(&mut self.tx, self.agreed.digests.data, data);
    }

    #[inline]
    fn send_header(&mut self, header: &mut Request) {
        header.exp_stat_sn = U32::new(self.numbers.exp_stat_sn);
        self.tx.header(header.as_bytes());
        if self.agreed.digests.header {
            self.tx.header(&crc32c(header.as_bytes()).to_le_bytes());
        }
    }

    /// Lays a logout of the session ready to be sent.
    pub(super) fn log_out(&mut self) {
        let mut header = Request::new(request::LOGOUT | request::IMMEDIATE, flags::FINAL);
        header.itt = U32::new(LOGOUT_TAG);
        header.cmd_sn = U32::new(self.numbers.cmd_sn);
        self.send_header(&mut header);
    }

    /// Answers a ping of the target, with its data.
    fn pong(&mut self, ping: &Answer, data: &[u8]) {
        let mut header = Request::new(request::NOP_OUT | request::IMMEDIATE, flags::FINAL);
        header.set_data_bytes(data.len() as u32);
        header.lun = ping.lun;
        (header.itt, header.tag) = (U32::new(NO_TAG), ping.ttt);
        header.cmd_sn = U32::new(self.numbers.cmd_sn);
        self.send_header(&mut header);
        if !data.is_empty() {
            self.tx.header(data);
            send_trailer(&mut self.tx, self.agreed.digests.data, data);
        }
    }

    /// The slot of outstanding task `itt`.
    #[inline]
    fn slot_of(&self, itt: u32, what: &str) -> Result<u16> {
        let index = itt & SLOT_MASK;
        match self.slots.get(index as usize) {
            Some(slot) if slot.busy && slot.itt == itt => Ok(index as u16),
            _ => protocol(format!("{what} for task {itt:#010x}, which is not outstanding")),
        }
    }

    /// Takes StatSN of a PDU that carries a status.
    #[inline]
    fn count_status(&mut self, header: &Answer) -> Result<()> {
        let (found, next) = (header.stat_sn.get(), self.numbers.exp_stat_sn);
        if found != next {
            return protocol(format!("opcode {:#04x} with StatSN {found}, {next} is next", header.opcode));
        }
        self.numbers.exp_stat_sn = next.wrapping_add(1);
        Ok(())
    }

    /// Takes MaxCmdSN; an older one than known, or one below ExpCmdSN - 1, is ignored.
    #[inline]
    fn move_window(&mut self, header: &Answer) {
        let (least, most) = (header.exp_cmd_sn.get().wrapping_sub(1), header.max_cmd_sn.get());
        let ahead = |from: u32, to: u32| to.wrapping_sub(from) <= i32::MAX as u32;
        if ahead(least, most) && ahead(self.numbers.max_cmd_sn, most) {
            self.numbers.max_cmd_sn = most;
        }
    }

    #[inline]
    fn finish(&mut self, index: u16, outcome: Outcome) -> Result<()> {
        let slot = &mut self.slots[usize::from(index)];
        if let Data::In(expected) = slot.data
            && outcome.is_good()
        {
            let missing = match outcome.residual {
                Residual::Underflow(bytes) => bytes,
                Residual::None | Residual::Overflow(_) => 0,
            };
            if u64::from(slot.moved) + u64::from(missing) != u64::from(expected) {
                return protocol(format!(
                    "task {:#010x} is good with {} of {expected} bytes and a residual of {missing}",
                    slot.itt, slot.moved
                ));
            }
        }
        slot.busy = false;
        self.free.push(index);
        self.done.push(Completion { slot: index, outcome });
        Ok(())
    }
}

/// Padding and, if `digest`, the digest of `data` and padding.
#[inline]
fn send_trailer(tx: &mut Tx, digest: bool, data: &[u8]) {
    let padding = &[0; 3][..padding(data.len() as u32) as usize];
    if !padding.is_empty() {
        tx.header(padding);
    }
    if digest {
        tx.header(&crc32c_append(crc32c(data), padding).to_le_bytes());
    }
}

/// The residual of a SCSI Response or of a Data-In with status.
#[inline]
fn residual(header: &Answer) -> Result<Residual> {
    let bytes = header.length.get();
    match header.flags & (flags::OVERFLOW | flags::UNDERFLOW) {
        0 => Ok(Residual::None),
        flags::OVERFLOW => Ok(Residual::Overflow(bytes)),
        flags::UNDERFLOW => Ok(Residual::Underflow(bytes)),
        _ => protocol("overflow and underflow at once"),
    }
}

/// The sense data of a SCSI Response: a length of two bytes, then so many (section 11.4.7.2).
fn sense(data: &[u8]) -> Result<Sense> {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return Ok(Sense::default()) };
    let length = usize::from(u16::from_be_bytes(*length));
    match rest.get(..length) {
        Some(sense) => Ok(Sense::parse(sense).unwrap_or_default()),
        None => protocol(format!("sense data of {length} bytes in a segment of {}", data.len())),
    }
}

impl Sink for State {
    #[inline]
    fn data_begins(&mut self, header: &Answer) -> Result<u16> {
        let itt = header.itt.get();
        let index = self.slot_of(itt, "Data-In")?;
        let slot = &mut self.slots[usize::from(index)];
        let Data::In(total) = slot.data else {
            return protocol(format!("Data-In for task {itt:#010x}, which reads nothing"));
        };
        let (offset, length) = (header.offset.get(), header.data_bytes());
        let end = u64::from(offset) + u64::from(length);
        if (offset != slot.moved && length > 0) || end > u64::from(total) {
            return protocol(format!(
                "Data-In at {offset} of {length} bytes for task {itt:#010x} that has {} of {total}",
                slot.moved
            ));
        }
        if header.sn.get() != slot.sn {
            return protocol(format!("Data-In with DataSN {}, {} is next", header.sn, slot.sn));
        }
        if length > self.data_in_bytes_max {
            return protocol(format!("Data-In of {length} bytes, {} at most", self.data_in_bytes_max));
        }
        slot.burst += length;
        if slot.burst > self.agreed.max_burst_bytes {
            return protocol(format!("a sequence of Data-In of {} bytes", slot.burst));
        }
        let ends = header.flags & flags::FINAL != 0;
        if header.flags & flags::STATUS != 0 && !ends {
            return protocol("Data-In with a status that does not end its sequence");
        }
        if ends {
            slot.burst = 0;
        }
        slot.sn += 1;
        slot.moved += length;
        Ok(index)
    }

    #[inline]
    fn data(&mut self, slot: u16, offset: u32, bytes: &[u8]) {
        if self.keep_read_data {
            let at = offset as usize;
            self.payloads[usize::from(slot)][at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    #[inline]
    fn data_ends(&mut self, slot: u16, header: &Answer) -> Result<()> {
        self.move_window(header);
        if header.flags & flags::STATUS == 0 {
            return Ok(());
        }
        self.count_status(header)?;
        let outcome = Outcome { status: header.status, residual: residual(header)?, ..Outcome::SUCCESS };
        self.finish(slot, outcome)
    }

    #[inline]
    fn pdu(&mut self, header: &Answer, data: &[u8]) -> Result<()> {
        self.move_window(header);
        match header.opcode {
            answer::RESPONSE => self.response(header, data),
            answer::R2T => self.r2t(header),
            answer::NOP_IN if header.itt.get() == NO_TAG => {
                if header.ttt.get() != NO_TAG {
                    self.pong(header, data);
                }
                Ok(())
            }
            answer::LOGOUT if header.itt.get() == LOGOUT_TAG => {
                self.count_status(header)?;
                self.logged_out = true;
                Ok(())
            }
            answer::REJECT => protocol(format!("it rejects a PDU for reason {:#04x}", header.response)),
            answer::ASYNC => {
                self.count_status(header)?;
                let [event, ..] = header.sn.to_bytes();
                if event == SCSI_EVENT { Ok(()) } else { Err(ClientError::Asked { event }) }
            }
            other => protocol(format!("a PDU of opcode {other:#04x}")),
        }
    }
}

impl State {
    #[inline]
    fn response(&mut self, header: &Answer, data: &[u8]) -> Result<()> {
        let index = self.slot_of(header.itt.get(), "SCSI Response")?;
        self.count_status(header)?;
        let outcome = Outcome {
            response: header.response,
            status: header.status,
            sense: sense(data)?,
            residual: residual(header)?,
        };
        self.finish(index, outcome)
    }

    #[inline]
    fn r2t(&mut self, header: &Answer) -> Result<()> {
        let (itt, ttt) = (header.itt.get(), header.ttt.get());
        let index = self.slot_of(itt, "R2T")?;
        let slot = &mut self.slots[usize::from(index)];
        let Data::Out(total) = slot.data else {
            return protocol(format!("R2T for task {itt:#010x}, which writes nothing"));
        };
        let (offset, length) = (header.offset.get(), header.length.get());
        let end = u64::from(offset) + u64::from(length);
        if length == 0 || offset != slot.moved || end > u64::from(total) {
            return protocol(format!(
                "R2T at {offset} of {length} bytes for task {itt:#010x} that sent {} of {total}",
                slot.moved
            ));
        }
        if length > self.agreed.max_burst_bytes || ttt == NO_TAG || header.data_bytes() != 0 {
            return protocol(format!("R2T of {length} bytes with tag {ttt:#010x}"));
        }
        if header.sn.get() != slot.sn {
            return protocol(format!("R2T with R2TSN {}, {} is next", header.sn, slot.sn));
        }
        slot.sn += 1;
        slot.moved = end as u32;
        self.send_sequence(index, itt, ttt, offset, end as u32);
        Ok(())
    }
}
