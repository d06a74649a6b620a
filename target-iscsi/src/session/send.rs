//! The sending half: replies into PDUs, many to a batch.

use std::collections::VecDeque;
use std::io::IoSlice;

use ashlar_codec::crc32c_append;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::batch::Batch;
use super::reply::{Done, Reply, Residual};
use crate::login::parameters::Parameters;
use crate::scsi::{Data, Status};
use crate::wire::bhs::{FINAL, Length};
use crate::wire::response::{
    Async, DataIn, LoginResponse, LogoutResponse, NopIn, Numbers, R2t, Reject, ScsiResponse,
    TaskManagementResponse, TextResponse,
};
use crate::wire::{BHS_BYTES, NO_TAG, opcode};

/// Replies of one batch, at most.
const BATCH_REPLIES: usize = 32;
/// With more replies than this waiting, batches are of [`BATCH_REPLIES_DEEP`]: large sends in a row run ahead of the
/// initiator and out of the processor's cache.
const DEEP_REPLIES: usize = 48;
/// See [`DEEP_REPLIES`].
const BATCH_REPLIES_DEEP: usize = 16;
/// Slices of a batch after which no PDU is added to it.
pub const BATCH_SLICES: usize = 3 * BATCH_REPLIES;

/// Data-In that is being cut into PDUs.
struct Outgoing {
    done: Done,
    /// Bytes that go to the initiator.
    total: u32,
    sent: u32,
    data_sn: u32,
    /// The piece of the data at hand, and how much of it is sent.
    piece: usize,
    piece_sent: usize,
}

#[derive(Default)]
pub(super) struct Sender {
    queue: VecDeque<Reply>,
    /// What the replies in `queue` hold, bytes.
    queued_bytes: usize,
    outgoing: Option<Outgoing>,
    batch: Batch,
    stat_sn: u32,
    header_digest: bool,
    data_digest: bool,
    segment_bytes: u32,
    burst_bytes: u32,
}

/// ExpCmdSN and MaxCmdSN at the moment.
#[derive(Clone, Copy, Default)]
pub(super) struct CommandNumbers {
    pub expected: u32,
    pub last: u32,
}

impl Sender {
    /// Login is over, and its last response is sent: what was agreed is in force.
    pub fn established(&mut self, parameters: &Parameters, depth: usize) {
        self.header_digest = parameters.header_digest;
        self.data_digest = parameters.data_digest;
        // Only the last PDU of a command may need padding.
        self.segment_bytes = parameters.send_segment_bytes & !3;
        self.burst_bytes = parameters.burst_bytes & !3;
        self.queue.reserve(depth);
        self.batch.reserve(BATCH_REPLIES * 64, BATCH_SLICES + 8);
    }

    pub fn push(&mut self, reply: Reply) {
        self.queued_bytes += reply.held_bytes();
        self.queue.push_back(reply);
    }

    pub fn has_pending(&self) -> bool {
        self.batch.bytes_left() > 0 || self.outgoing.is_some() || !self.queue.is_empty()
    }

    pub fn pending_bytes(&self) -> usize {
        let outgoing = self.outgoing.as_ref().map_or(0, |outgoing| (outgoing.total - outgoing.sent) as usize);
        self.batch.bytes_left() + outgoing + self.queued_bytes
    }

    pub fn clear(&mut self) {
        self.queue.clear();
        self.queued_bytes = 0;
        self.outgoing = None;
        self.batch.clear();
    }

    pub fn gather<'a>(&'a mut self, slices: &mut [IoSlice<'a>], numbers: CommandNumbers) -> usize {
        if self.batch.bytes_left() == 0 {
            self.encode_batch(numbers);
        }
        self.batch.gather(slices)
    }

    pub fn advance(&mut self, n: usize) {
        self.batch.advance(n);
    }

    fn encode_batch(&mut self, numbers: CommandNumbers) {
        self.batch.clear();
        let most = if self.queue.len() > DEEP_REPLIES { BATCH_REPLIES_DEEP } else { BATCH_REPLIES };
        let mut replies = 0;
        while self.batch.slices() < BATCH_SLICES {
            if self.outgoing.is_some() {
                self.data_in(numbers);
                continue;
            }
            if replies == most {
                return;
            }
            let Some(reply) = self.queue.pop_front() else { return };
            self.queued_bytes -= reply.held_bytes();
            replies += 1;
            self.encode(reply, numbers);
        }
    }

    /// The numbers of a PDU that has a status, or of one that has not.
    fn numbers(&mut self, numbers: CommandNumbers, counts: bool) -> Numbers {
        let stat_sn = U32::new(self.stat_sn);
        self.stat_sn = self.stat_sn.wrapping_add(counts.into());
        Numbers { stat_sn, exp_cmd_sn: U32::new(numbers.expected), max_cmd_sn: U32::new(numbers.last) }
    }

    fn pdu(&mut self, header: &impl PduHeader, data: &[u8]) {
        self.batch.header(header.as_bytes(), self.header_digest);
        self.batch.segment(data, self.data_digest);
    }

    fn encode(&mut self, reply: Reply, at: CommandNumbers) {
        match reply {
            Reply::Done(done) => self.done(done, at),
            Reply::R2t { lun, tag, ttt, number, offset, bytes } => {
                let mut header = R2t::new_zeroed();
                (header.opcode, header.flags, header.lun) = (opcode::R2T, FINAL, U64::new(lun));
                (header.itt, header.ttt, header.r2t_sn) = (U32::new(tag), U32::new(ttt), U32::new(number));
                (header.offset, header.wanted_bytes) = (U32::new(offset), U32::new(bytes));
                header.numbers = self.numbers(at, false);
                self.pdu(&header, &[]);
            }
            Reply::Login { mut header, text } => {
                header.numbers = self.numbers(at, true);
                header.length = Length::of_data(text.len() as u32);
                // What was agreed is in force behind it.
                self.batch.header(header.as_bytes(), false);
                self.batch.segment(&text, false);
            }
            Reply::Nop { tag, ttt, data } => {
                let mut header = NopIn::new_zeroed();
                (header.opcode, header.flags) = (opcode::NOP_IN, FINAL);
                (header.itt, header.ttt) = (U32::new(tag), U32::new(ttt));
                header.length = Length::of_data(data.len() as u32);
                header.numbers = self.numbers(at, tag != NO_TAG);
                self.pdu(&header, &data);
            }
            rare => self.rare(rare, at),
        }
    }

    /// What is seldom said.
    fn rare(&mut self, reply: Reply, at: CommandNumbers) {
        let numbers = self.numbers(at, true);
        match reply {
            Reply::TaskManagement { tag, status } => {
                let mut header = TaskManagementResponse { numbers, ..FromZeros::new_zeroed() };
                (header.opcode, header.flags) = (opcode::TASK_MANAGEMENT_RESPONSE, FINAL);
                (header.response, header.itt) = (status as u8, U32::new(tag));
                self.pdu(&header, &[]);
            }
            Reply::Text { tag, ttt, flags, text } => {
                let mut header = TextResponse { flags, numbers, ..FromZeros::new_zeroed() };
                (header.opcode, header.itt, header.ttt) =
                    (opcode::TEXT_RESPONSE, U32::new(tag), U32::new(ttt));
                header.length = Length::of_data(text.len() as u32);
                self.pdu(&header, &text);
            }
            Reply::Logout { tag, response, wait, retain } => {
                let mut header = LogoutResponse { response, numbers, ..FromZeros::new_zeroed() };
                (header.opcode, header.flags, header.itt) = (opcode::LOGOUT_RESPONSE, FINAL, U32::new(tag));
                (header.time_to_wait, header.time_to_retain) = (U16::new(wait), U16::new(retain));
                self.pdu(&header, &[]);
            }
            Reply::Async { event, seconds } => {
                let mut header = Async { event, numbers, ..FromZeros::new_zeroed() };
                (header.opcode, header.flags, header.itt) = (opcode::ASYNC, FINAL, U32::new(NO_TAG));
                header.parameter3 = U16::new(seconds);
                self.pdu(&header, &[]);
            }
            Reply::Reject { reason, header: rejected } => {
                let mut header = Reject { reason: reason as u8, numbers, ..FromZeros::new_zeroed() };
                (header.opcode, header.flags, header.itt) = (opcode::REJECT, FINAL, U32::new(NO_TAG));
                header.length = Length::of_data(BHS_BYTES as u32);
                self.pdu(&header, rejected.as_bytes());
            }
            Reply::Done(_) | Reply::R2t { .. } | Reply::Login { .. } | Reply::Nop { .. } => {
                unreachable!("said otherwise")
            }
        }
    }

    fn done(&mut self, done: Done, at: CommandNumbers) {
        let total = (done.data.bytes() as u32).min(done.in_bytes);
        if total == 0 {
            return self.response(&done, 0, at);
        }
        self.outgoing = Some(Outgoing { done, total, sent: 0, data_sn: 0, piece: 0, piece_sent: 0 });
    }

    /// One Data-In PDU of the outgoing data, and the response behind the last if it needs one.
    fn data_in(&mut self, at: CommandNumbers) {
        let Some(mut outgoing) = self.outgoing.take() else { return };
        let in_burst = outgoing.sent % self.burst_bytes;
        let len = self.segment_bytes.min(self.burst_bytes - in_burst).min(outgoing.total - outgoing.sent);
        let ends = outgoing.sent + len == outgoing.total;
        let ends_burst = ends || in_burst + len == self.burst_bytes;
        let done = &outgoing.done;
        // A status with the data where it is GOOD, and says nothing else.
        let with_status = ends && done.status == Status::Good && done.residual == Residual::None;
        let mut flags = if ends_burst { FINAL } else { 0 };
        let mut numbers = Numbers { stat_sn: U32::ZERO, ..self.numbers(at, false) };
        if with_status {
            flags |= DataIn::STATUS;
            numbers = self.numbers(at, true);
        }
        let header = DataIn {
            opcode: opcode::DATA_IN,
            flags,
            reserved: 0,
            status: 0,
            length: Length::of_data(len),
            lun: U64::ZERO,
            itt: U32::new(done.tag),
            ttt: U32::new(NO_TAG),
            numbers,
            data_sn: U32::new(outgoing.data_sn),
            offset: U32::new(outgoing.sent),
            residual: U32::ZERO,
        };
        self.batch.header(header.as_bytes(), self.header_digest);
        let crc = self.pieces(&mut outgoing, len as usize);
        self.batch.end_segment(len as usize, crc, self.data_digest);
        outgoing.sent += len;
        outgoing.data_sn += 1;
        match (ends, with_status) {
            (true, true) => {}
            (true, false) => self.response(&outgoing.done, outgoing.data_sn, at),
            (false, _) => self.outgoing = Some(outgoing),
        }
    }

    /// Adds the next `len` bytes of the data; their CRC where digests are on.
    fn pieces(&mut self, outgoing: &mut Outgoing, mut len: usize) -> u32 {
        let mut crc = 0;
        while len > 0 {
            let Some(piece) = outgoing.done.data.piece(outgoing.piece) else {
                unreachable!("counted before")
            };
            let n = len.min(piece.len() - outgoing.piece_sent);
            let part = piece.slice(outgoing.piece_sent, n);
            if self.data_digest {
                crc = crc32c_append(crc, &part);
            }
            outgoing.piece_sent += n;
            if outgoing.piece_sent == piece.len() {
                (outgoing.piece, outgoing.piece_sent) = (outgoing.piece + 1, 0);
            }
            if n > 0 {
                self.batch.data(part);
            }
            len -= n;
        }
        crc
    }

    fn response(&mut self, done: &Done, data_pdus: u32, at: CommandNumbers) {
        let mut header = ScsiResponse::new_zeroed();
        let (residual_flag, residual) = done.residual.fields();
        (header.opcode, header.flags) = (opcode::SCSI_RESPONSE, FINAL | residual_flag);
        (header.status, header.itt) = (done.status as u8, U32::new(done.tag));
        (header.residual, header.exp_data_sn) = (U32::new(residual), U32::new(done.r2ts + data_pdus));
        header.numbers = self.numbers(at, true);
        let Some(sense) = &done.sense else { return self.pdu(&header, &[]) };
        let mut data = [0; 2 + SENSE_BYTES_MAX];
        let len = sense.len().min(SENSE_BYTES_MAX);
        data[..2].copy_from_slice(&(len as u16).to_be_bytes());
        data[2..2 + len].copy_from_slice(&sense[..len]);
        header.length = Length::of_data(2 + len as u32);
        self.pdu(&header, &data[..2 + len]);
    }
}

/// Bytes of sense data, at most (SPC-4, section 4.5).
const SENSE_BYTES_MAX: usize = 252;

/// The header of a PDU that is not Data-In.
trait PduHeader: IntoBytes + zerocopy::Immutable {}

impl<T: IntoBytes + zerocopy::Immutable> PduHeader for T {}

impl Data {
    /// The piece with this number.
    fn piece(&self, number: usize) -> Option<&ashlar_env::Buf> {
        match self {
            Self::None => None,
            Self::One(buf) => (number == 0).then_some(buf),
            Self::Many(bufs) => bufs.get(number),
        }
    }
}

impl Done {
    /// Bytes of Data-In that wait in it.
    pub fn data_bytes(&self) -> usize {
        self.data.bytes().min(self.in_bytes as usize)
    }
}

impl Reply {
    /// What it holds in memory, bytes: nothing is free, or rejects without end would be.
    fn held_bytes(&self) -> usize {
        let data = match self {
            Self::Done(done) => done.data_bytes(),
            Self::Login { text, .. } | Self::Text { text, .. } => text.len(),
            Self::Nop { data, .. } => data.len(),
            _ => 0,
        };
        BHS_BYTES + data
    }
}

/// A login response that follows from its request.
pub(super) fn login_response(request: &crate::wire::request::Login) -> Box<LoginResponse> {
    let mut header = LoginResponse::new_zeroed();
    header.opcode = opcode::LOGIN_RESPONSE;
    (header.isid, header.itt) = (request.isid, request.itt);
    header.tsih = request.tsih;
    Box::new(header)
}
