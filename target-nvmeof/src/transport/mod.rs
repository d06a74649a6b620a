//! One TCP connection, sans-IO (TCP specification, section 3): bytes in, command and data events out; completions
//! in, bytes out. It knows PDUs, digests and transfers, not what a command means.
//!
//! The caller loops: fill [`Transport::recv_slices`] and say so by [`Transport::received`]; drain
//! [`Transport::next_event`]; for each command call [`Transport::admit`] with what it transfers, or
//! [`Transport::complete`] it at once; hand over buffers while [`Transport::wants_buffer`] asks; send
//! [`Transport::send_slices`] and say so by [`Transport::sent`]; call [`Transport::handle_timeout`] at
//! [`Transport::deadline`].
//!
//! **Memory.** Before Connect succeeds a connection holds [`STAGING_BYTES_BEFORE_CONNECT`] for received bytes, one
//! buffer of 4 KiB at most, and under 2 KiB beside. Afterwards: its staging buffer, about 150 bytes per queue
//! entry, 8 KiB to recognise command identifiers in use, and pool buffers: at most [`RECEIVING_BYTES_MAX`] for data
//! that the host still owes, and those of its commands in execution or waiting to be sent; the caller sees to it that
//! reads in execution and replies together have no more than [`SENDING_BYTES_MAX`].
//!
//! ```text
//! command:  Free -> Arrived -+-> Executing -> Free            no data, or data to the host
//!                            +-> Executing                    in-capsule data, buffer at hand
//!                            +-> WaitBuffer -> Executing      in-capsule data, pool exhausted (reading stops)
//!                            +-> WaitBuffer -> Receiving -> Executing       R2T sent, H2CData arriving
//! ```

mod commands;
mod receive;
mod send;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use ashlar_env::clock::Instant;
use ashlar_env::{Buf, BufMut, BufPool};

use crate::limits::{IN_CAPSULE_BYTES, Limits};
use crate::wire::pdu::FatalError;
use crate::wire::{Cqe, Sqe, Status};
use commands::{Commands, State};
use receive::Receive;
pub use send::BATCH_SLICES as SEND_SLICES_MAX;
use send::{Reply, Sender};
use staging::Staging;

/// Bytes that may be staged before Connect succeeds: the largest capsule and its digests.
pub const STAGING_BYTES_BEFORE_CONNECT: usize = 8704;
/// Bytes staged on an admin queue.
pub const STAGING_BYTES_ADMIN: usize = 16 << 10;
/// Bytes staged on an I/O queue: some 30 writes of 4 KiB by one system call.
pub const STAGING_BYTES_IO: usize = 128 << 10;
/// Buffer bytes of commands whose data the host has been asked for, at most.
pub const RECEIVING_BYTES_MAX: u32 = 8 << 20;
/// While more reply bytes than this wait to be sent, no further command is taken. No read is started that would
/// bring in more than this, beside what waits, unless it is the only one.
pub const SENDING_BYTES_MAX: usize = 4 << 20;
/// How long a PDU may take from its first byte to its last, how long a host may leave an R2T unanswered, and
/// how long it may leave our bytes unread.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a terminate request may take to leave.
const LINGER: Duration = Duration::from_secs(5);

const _: () = assert!(STAGING_BYTES_BEFORE_CONNECT > 72 + 4 + 256 + IN_CAPSULE_BYTES as usize + 4);

/// The number of a command of this connection, from its arrival to its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// What a command transfers, by its own fields; the SGL must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// nothing
    None,
    /// so many bytes to the host
    ToHost(u32),
    /// so many bytes from the host
    FromHost(u32),
}

/// What happened on the connection.
#[derive(Debug)]
pub enum Event {
    /// A command arrived, in the order the host sent it. Its SQE is [`Transport::sqe`].
    Command(Slot),
    /// The data of an admitted command are here.
    Data(Slot, Buf),
    /// The data of an admitted command came with a wrong digest: complete it with 0/22h.
    BadData(Slot),
    /// Nothing more will be received. Send what is left, then close.
    Closed(Closed),
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// the host closed it
    ByHost,
    /// the host sent a terminate request
    HostTerminated,
    /// the host broke the protocol; a terminate request tells it so
    ProtocolError(FatalError),
    /// the host was too slow
    TimedOut,
}

/// Whether an admitted command may start.
#[derive(Debug)]
pub enum Admission {
    /// now; with its data, if it takes any
    Ready(Option<Buf>),
    /// when [`Event::Data`] comes
    Waiting,
    /// never: complete it with this status
    Refused(Status),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the ICReq.
    Initial,
    /// Waiting for Connect to succeed.
    Connecting,
    Running,
    /// Nothing is received any more.
    Closing,
}

/// See the module.
pub struct Transport {
    phase: Phase,
    buffers: BufPool,
    staging: Staging,
    receive: Receive,
    commands: Commands,
    sender: Sender,
    /// Commands that wait for a buffer before their R2T, oldest first.
    waiting: VecDeque<Slot>,
    /// A command whose in-capsule data just got their buffer.
    inline_ready: Option<(Slot, Buf)>,
    /// Buffer bytes of commands in `Receiving`.
    receiving_bytes: u32,
    header_digest: bool,
    data_digest: bool,
    max_transfer_bytes: u32,
    step_timeout: Duration,
    closed: Option<Closed>,
    times: Times,
}

/// Since when something is owed; `None` where nothing is.
#[derive(Default)]
struct Times {
    /// By when the present step before Connect must be done, or the last bytes be sent.
    step_deadline: Option<Instant>,
    /// When the unfinished PDU began.
    pdu_since: Option<Instant>,
    /// When the host last sent data it owes.
    data_since: Option<Instant>,
    /// When the host last took bytes while there were some.
    unread_since: Option<Instant>,
}

impl Transport {
    /// A connection just accepted.
    #[must_use]
    pub fn new(limits: &Limits, buffers: BufPool, now: Instant) -> Self {
        let step_deadline = Some(now.plus(limits.handshake_timeout));
        Self {
            phase: Phase::Initial,
            buffers,
            staging: Staging::new(STAGING_BYTES_BEFORE_CONNECT),
            receive: Receive::Header,
            commands: Commands::before_connect(),
            sender: Sender::default(),
            waiting: VecDeque::new(),
            inline_ready: None,
            receiving_bytes: 0,
            header_digest: false,
            data_digest: false,
            max_transfer_bytes: limits.max_transfer_bytes,
            step_timeout: limits.handshake_timeout,
            closed: None,
            times: Times { step_deadline, ..Times::default() },
        }
    }

    /// Connect succeeded: room for a queue of `entries`, and, where the host turned flow control of the submission
    /// queue off (`no_flow_control`), completions say so and successful reads need none. `io` tells I/O from admin
    /// queues.
    pub fn connected(&mut self, entries: u16, no_flow_control: bool, io: bool) {
        if self.phase == Phase::Connecting {
            self.phase = Phase::Running;
            self.times.step_deadline = None;
        }
        self.commands.resize(entries);
        self.staging.grow(if io { STAGING_BYTES_IO } else { STAGING_BYTES_ADMIN });
        self.sender.connected(entries, no_flow_control);
    }

    /// The command in `slot`.
    #[must_use]
    pub fn sqe(&self, slot: Slot) -> &Sqe {
        &self.commands.get(slot).sqe
    }

    /// The command that the host numbered `cid`.
    #[must_use]
    pub fn find(&self, cid: u16) -> Option<Slot> {
        self.commands.find(cid)
    }

    /// How many commands have arrived and are not completed.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.commands.outstanding()
    }

    /// Whether the connection takes no more commands for now because replies wait to be sent.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.pending_bytes() > SENDING_BYTES_MAX
    }

    /// Bytes of replies that wait to be sent.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.sender.pending_bytes()
    }

    /// Decides how the data of a command that just arrived travel, and begins the transfer.
    ///
    /// # Panics
    /// If the command is not the one that [`Event::Command`] named last.
    pub fn admit(&mut self, slot: Slot, transfer: Transfer, now: Instant) -> Admission {
        let entry = self.commands.get(slot);
        let State::Arrived { inline, digest_ok } = entry.state else { panic!("a command is admitted once") };
        let transfer = match self.check_sgl(&entry.sqe, inline, transfer) {
            Ok(checked) => checked,
            Err(Refusal::Status(status)) => return Admission::Refused(status),
            Err(Refusal::Fatal(fatal, fei)) => {
                self.terminate(fatal, fei, now);
                return Admission::Waiting;
            }
        };
        if !digest_ok {
            return Admission::Refused(Status::TRANSIENT_TRANSPORT);
        }
        let Transfer::FromHost(len) = transfer else {
            self.commands.get_mut(slot).state = State::Executing;
            return Admission::Ready(None);
        };
        if inline > 0 {
            return self.take_inline();
        }
        self.commands.get_mut(slot).state = State::WaitBuffer { len };
        self.waiting.push_back(slot);
        self.request_waiting(now);
        Admission::Waiting
    }

    /// Sends the R2Ts for which there are buffers.
    fn request_waiting(&mut self, now: Instant) {
        while let Some(len) = self.wants_r2t_buffer()
            && let Some(buf) = self.buffers.try_alloc(len)
        {
            self.request_data(buf, now);
        }
    }

    /// Base, section 4.1.2 and TCP, section 3.4.1: which SGL goes with which transfer.
    fn check_sgl(&self, sqe: &Sqe, inline: u32, transfer: Transfer) -> Result<Transfer, Refusal> {
        use crate::wire::sqe::{SGL_IN_CAPSULE, SGL_TRANSPORT};
        let refuse = |status| Err(Refusal::Status(status));
        match sqe.psdt() {
            1 => {}
            // Metadata by a segment of descriptors: SGLS does not offer it, and there is no metadata.
            2 if sqe.mptr.get() == 0 => {}
            _ => return refuse(Status::INVALID_FIELD),
        }
        let (wanted, from_host) = match transfer {
            Transfer::None | Transfer::ToHost(0) | Transfer::FromHost(0) => return Ok(Transfer::None),
            Transfer::ToHost(len) => (len, false),
            Transfer::FromHost(len) => (len, true),
        };
        let given = sqe.sgl.length.get();
        match sqe.sgl.identifier {
            SGL_IN_CAPSULE if !from_host => refuse(Status::INVALID_FIELD),
            SGL_IN_CAPSULE if sqe.sgl.address.get() != 0 => refuse(Status::SGL_OFFSET_INVALID),
            SGL_IN_CAPSULE if given > inline => refuse(Status::DATA_SGL_LENGTH_INVALID),
            // The capsule carries more than its SGL describes: the PDU's length is wrong.
            SGL_IN_CAPSULE if given < inline => Err(Refusal::Fatal(FatalError::InvalidHeader, 4)),
            SGL_TRANSPORT if inline > 0 => Err(Refusal::Fatal(FatalError::InvalidHeader, 4)),
            SGL_IN_CAPSULE | SGL_TRANSPORT if given > self.max_transfer_bytes || given != wanted => {
                refuse(Status::DATA_SGL_LENGTH_INVALID)
            }
            SGL_IN_CAPSULE | SGL_TRANSPORT => Ok(transfer),
            _ => refuse(Status::SGL_TYPE_INVALID),
        }
    }

    /// The size of the buffer that the oldest waiting command needs, while reading or an R2T depends on it.
    #[must_use]
    pub fn wants_buffer(&self) -> Option<usize> {
        match self.receive {
            Receive::Capsule { len, wants_buffer: true, .. } => Some(len),
            _ => self.wants_r2t_buffer(),
        }
    }

    fn wants_r2t_buffer(&self) -> Option<usize> {
        let State::WaitBuffer { len } = self.commands.get(*self.waiting.front()?).state else {
            unreachable!("commands wait in one state")
        };
        let fits = self.receiving_bytes == 0 || self.receiving_bytes + len <= RECEIVING_BYTES_MAX;
        (fits && self.phase != Phase::Closing).then_some(len as usize)
    }

    /// Hands over the buffer that [`Self::wants_buffer`] asked for.
    pub fn give_buffer(&mut self, buf: BufMut, now: Instant) {
        if let Receive::Capsule { slot, len, wants_buffer: true, .. } = self.receive {
            if buf.len() == len {
                self.inline_ready = Some((slot, self.fill_inline(buf)));
            }
        } else if self.wants_r2t_buffer() == Some(buf.len()) {
            self.request_data(buf, now);
        }
    }

    /// TCP, section 3.4.4: asks for all of a command's data by one R2T.
    fn request_data(&mut self, buf: BufMut, now: Instant) {
        let slot = self.waiting.pop_front().expect("a command waits for the buffer");
        let len = buf.len() as u32;
        let entry = self.commands.get_mut(slot);
        entry.state = State::Receiving { buf, received: 0, digest_ok: true };
        let cid = entry.sqe.cid.get();
        if self.receiving_bytes == 0 {
            self.times.data_since = Some(now);
        }
        self.receiving_bytes += len;
        self.push(Reply::R2t { cid, slot: slot.0, len }, now);
    }

    /// Completes a command; `data` goes to the host first and must be as long as its SGL.
    pub fn complete(&mut self, slot: Slot, mut cqe: Cqe, data: Option<Buf>, now: Instant) {
        let entry = self.commands.release(slot);
        match entry.state {
            State::WaitBuffer { .. } => self.waiting.retain(|waiting| *waiting != slot),
            State::WaitInline => {
                if let Receive::Capsule { wants_buffer, .. } = &mut self.receive {
                    *wants_buffer = false;
                }
            }
            _ => {}
        }
        cqe.cid = entry.sqe.cid;
        if self.closed.is_none() {
            self.push(Reply::Done { cqe, data }, now);
        }
    }

    fn push(&mut self, reply: Reply, now: Instant) {
        if !self.sender.has_pending() {
            self.times.unread_since = Some(now);
        }
        self.sender.push(reply);
    }

    /// Ends the connection with a terminate request (TCP, section 3.5).
    fn terminate(&mut self, fatal: FatalError, fei: u32, now: Instant) {
        if self.closed.is_none() {
            let offending = self.staging.front(128).to_vec();
            self.push(Reply::Terminate { fatal, fei, offending }, now);
            self.close(Closed::ProtocolError(fatal), now);
        }
    }

    fn close(&mut self, why: Closed, now: Instant) {
        self.phase = Phase::Closing;
        self.closed = Some(why);
        self.receive = Receive::Over { told: false };
        self.staging.clear();
        self.times = Times { step_deadline: Some(now.plus(LINGER)), ..Times::default() };
    }

    /// The bytes to send next, gathered into `slices`; returns how many slices. None are left when it is 0.
    pub fn send_slices<'a>(&'a mut self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        self.sender.gather(slices)
    }

    /// Whether bytes wait to be sent.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.sender.has_pending()
    }

    /// `n` bytes of [`Self::send_slices`] were sent.
    pub fn sent(&mut self, n: usize, now: Instant) {
        self.sender.advance(n);
        self.times.unread_since = self.sender.has_pending().then_some(now);
    }

    /// When [`Self::handle_timeout`] must be called next. Changes after any call.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let times = &self.times;
        let stalls = [times.pdu_since, times.data_since, times.unread_since];
        let stall = stalls.into_iter().flatten().min().map(|since| since.plus(STALL_TIMEOUT));
        stall.into_iter().chain(times.step_deadline).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Closes the connection if the host is late.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.deadline() {
            self.sender.clear();
            if self.closed.is_none() {
                self.close(Closed::TimedOut, now);
            }
        }
    }

    /// Whether all is over: nothing more is received and nothing is left to send.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed.is_some() && !self.sender.has_pending()
    }
}

/// Why a transfer is not admitted.
enum Refusal {
    Status(Status),
    Fatal(FatalError, u32),
}
