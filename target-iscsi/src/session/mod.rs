//! One connection, which is one session, sans-IO (RFC 7143): bytes in, commands and data out; answers in, bytes out. It
//! knows login, PDUs, digests, numbers and transfers, not what a SCSI command means.
//!
//! The caller loops: fill [`Session::recv_slices`] and say so by [`Session::received`]; drain [`Session::next_event`];
//! for each command call [`Session::admit`] with what it wants of the initiator; execute it when its data are here, and
//! [`Session::complete`] it; hand over buffers while [`Session::wants_buffer`] asks; send [`Session::send_slices`] and
//! say so by [`Session::sent`]; call [`Session::handle_timeout`] at [`Session::deadline`].
//!
//! **Memory.** Before login has succeeded a connection holds [`STAGING_BYTES_BEFORE_LOGIN`] for received bytes, and a
//! text of 16 KiB at most. Afterwards: its staging buffer, about 300 bytes per command of the deepest queue seen, and
//! pool buffers: for data that come unasked at most FirstBurstLength per command of the window, for all data on their
//! way [`RECEIVING_BYTES_MAX`] (or one command's) beside these, and those of commands in execution or waiting to be sent; the caller sees to it that reads
//! in execution and replies together have no more than [`SENDING_BYTES_MAX`].
//!
//! **Room is made or refused, never waited for while the initiator's data are in the way.** Data that come unasked lie
//! in the stream before the data that other commands wait for. So if there is no buffer for them, reading stops only
//! where no command of this session waits for data; otherwise the command ends with BUSY, and its data are dropped.

mod admit;
mod batch;
mod command;
mod data_out;
mod enter;
mod incoming;
mod manage;
mod receive;
mod reply;
mod request;
mod send;
mod staging;
mod store;
mod tasks;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod timers;
mod window;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ashlar_env::clock::Instant;
use ashlar_env::{BufPool, Rng};

use crate::limits::{IMMEDIATE_COMMANDS_MAX, Limits, QUEUE_DEPTH_MAX};
use crate::login::chap::Challenge;
use crate::login::parameters::Parameters;
use crate::login::{Established, Login};
use crate::scsi::{Answer, Data, Request};
use crate::view::Targets;
use crate::wire::Bhs;
use crate::wire::response::RejectReason;
pub use admit::Admission;
use enter::Entering;
use manage::Drain;
use receive::Receive;
use reply::{Done, Reply, Residual};
pub use send::BATCH_SLICES as SEND_SLICES_MAX;
use send::{CommandNumbers, Sender};
use staging::Staging;
use tasks::{State, Tasks};
use text::Texts;
use timers::Times;
use window::Window;

/// Bytes that may be staged before login has succeeded: headers and some text.
pub const STAGING_BYTES_BEFORE_LOGIN: usize = 4096;
/// Bytes staged in a discovery session.
pub const STAGING_BYTES_DISCOVERY: usize = 8192;
/// Bytes staged in a normal session: some 30 writes of 4 KiB by one system call.
pub const STAGING_BYTES: usize = 128 << 10;
/// Buffer bytes of commands whose data are on their way, at which the initiator is asked for no more.
pub const RECEIVING_BYTES_MAX: usize = 16 << 20;
/// While more reply bytes than this wait to be sent, nothing further is taken. No read is started that would bring in
/// more than this, beside what waits, unless it is the only one.
pub const SENDING_BYTES_MAX: usize = 4 << 20;

/// The number of a command of this session, from its arrival to its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u16);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The initiator has logged in as far as the protocol goes: register the session, then call
    /// [`Session::establish`] or [`Session::refuse`].
    LoggedIn(Box<Established>),
    /// A command arrived, in the order of arrival: [`Session::request`].
    Command(TaskId),
    /// The data of an admitted command are here.
    Data(TaskId, Data),
    /// A task management function that concerns more than this session's tasks, which are dealt with: see
    /// [`Session::finish_management`].
    Manage(Management),
    /// What [`Session::quiet`] was asked for is done.
    Quiet(u64),
    /// Nothing more will be received. Send what is left, then close.
    Closed(Closed),
}

/// A task management function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Management {
    /// Its initiator task tag.
    pub tag: u32,
    /// Which: [`crate::wire::request::function`].
    pub function: u8,
    /// The logical unit.
    pub lun: u64,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// the initiator closed it
    ByInitiator,
    /// the initiator logged out
    LoggedOut,
    /// login was refused
    Refused,
    /// the initiator broke the protocol
    ProtocolError,
    /// the initiator was too slow, or is gone
    TimedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Requests of login are taken.
    Login,
    /// The last response of login, good or bad, waits.
    Held,
    Full,
    /// Tasks end before the logout is answered.
    LoggingOut {
        tag: u32,
    },
    /// Nothing is received any more.
    Closing,
}

/// See the module.
pub struct Session {
    phase: Phase,
    buffers: BufPool,
    depth: u16,
    staging: Staging,
    receive: Receive,
    /// The header of the PDU at hand.
    current: Bhs,
    /// Its data, where they are no command's.
    collected: Vec<u8>,
    events: VecDeque<Event>,
    entering: Option<Box<Entering>>,
    parameters: Parameters,
    discovery: bool,
    cid: u16,
    texts: Texts,
    window: Window,
    tasks: Tasks,
    /// Commands that wait for a buffer before their R2T, oldest first.
    waiting: VecDeque<TaskId>,
    /// The command whose unasked data have no room yet.
    starving: Option<TaskId>,
    /// Bytes of the stores of commands whose data are not all here.
    incoming_bytes: usize,
    drains: Vec<Drain>,
    sender: Sender,
    closed: Option<Closed>,
    times: Times,
}

impl Session {
    /// A connection just accepted, at `local`.
    #[must_use]
    pub fn new(
        limits: &Limits,
        targets: Arc<Targets>,
        local: SocketAddr,
        buffers: BufPool,
        rng: &impl Rng,
        now: Instant,
    ) -> Self {
        let depth = limits.queue_depth.clamp(1, QUEUE_DEPTH_MAX);
        let login = Login::new(Arc::clone(&targets), local, Challenge::draw(rng));
        Self {
            phase: Phase::Login,
            buffers,
            depth,
            staging: Staging::new(STAGING_BYTES_BEFORE_LOGIN),
            receive: Receive::Header,
            current: zerocopy::FromZeros::new_zeroed(),
            collected: Vec::new(),
            events: VecDeque::new(),
            entering: Some(Box::new(Entering::new(login, limits.chap_failure_delay))),
            parameters: Parameters::default(),
            discovery: false,
            cid: 0,
            texts: Texts::new(targets, local),
            window: Window::new(0, depth),
            tasks: Tasks::new(usize::from(depth + IMMEDIATE_COMMANDS_MAX)),
            waiting: VecDeque::new(),
            starving: None,
            incoming_bytes: 0,
            drains: Vec::new(),
            sender: Sender::default(),
            closed: None,
            times: Times::new(now, limits.login_timeout),
        }
    }

    /// The command in execution or on its way.
    #[must_use]
    pub fn request(&self, id: TaskId) -> &Request {
        &self.tasks.get(id).request
    }

    /// How many commands have arrived and are not completed.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.tasks.len()
    }

    /// The configuration changed.
    pub fn set_targets(&mut self, targets: Arc<Targets>) {
        self.texts.set_targets(targets);
    }

    /// Whether nothing more is taken for now because replies wait to be sent.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.pending_bytes() > SENDING_BYTES_MAX
    }

    /// Bytes of replies that wait to be sent.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.sender.pending_bytes()
    }

    /// Ends a command. One that was aborted gets no response.
    ///
    /// # Panics
    /// If its data are still on their way.
    pub fn complete(&mut self, id: TaskId, answer: Answer, now: Instant) {
        let state = &self.tasks.get(id).state;
        assert!(!matches!(state, State::Incoming(_)), "a command completes after its data");
        self.end(id, answer, 0, now);
    }

    fn end(&mut self, id: TaskId, answer: Answer, r2ts: u32, now: Instant) {
        let tag = self.tasks.tag(id);
        let task = self.tasks.get(id);
        let (aborted, in_bytes) = (task.aborted, task.request.in_bytes);
        let (needed, expected) = match task.request.out_bytes {
            0 if task.wanted > 0 && answer.data.is_none() => (task.wanted, in_bytes),
            0 => (answer.data.bytes() as u32, in_bytes),
            out_bytes => (task.wanted, out_bytes),
        };
        self.release(id);
        if !aborted && self.closed.is_none() {
            let residual = Residual::of(needed, expected);
            let Answer { status, sense, data } = answer;
            self.push(Reply::Done(Done { tag, status, sense, data, in_bytes, residual, r2ts }), now);
        }
        self.task_gone(id, now);
    }

    /// Frees a task and whatever it has.
    fn release(&mut self, id: TaskId) {
        self.receive.forget(id);
        if self.starving == Some(id) {
            self.starving = None;
        }
        if !self.tasks.get(id).immediate {
            self.window.ends();
        }
        if let State::Incoming(incoming) = self.tasks.release(id) {
            self.incoming_bytes -= incoming.store.len();
            self.waiting.retain(|waiting| *waiting != id);
        }
    }

    fn push(&mut self, reply: Reply, now: Instant) {
        if !self.sender.has_pending() {
            self.times.unread_since = Some(now);
        }
        self.sender.push(reply);
    }

    /// Refuses the PDU at hand.
    fn reject(&mut self, reason: RejectReason, now: Instant) {
        let header = Box::new(self.current);
        self.push(Reply::Reject { reason, header }, now);
    }

    /// Refuses the PDU at hand, and ends the connection.
    fn reject_and_close(&mut self, reason: RejectReason, now: Instant) {
        self.reject(reason, now);
        self.close(Closed::ProtocolError, now);
    }

    /// Nothing is received from now on; what is to be sent still goes.
    fn close(&mut self, why: Closed, now: Instant) {
        if self.closed.is_some() {
            return;
        }
        self.phase = Phase::Closing;
        self.closed = Some(why);
        self.receive = Receive::Over { told: false };
        self.staging.clear();
        self.times.closing(now);
    }

    /// Asks the initiator to log out within `seconds` (section 11.9.1, event 1).
    pub fn ask_for_logout(&mut self, seconds: u16, now: Instant) {
        if self.phase == Phase::Full {
            self.push(Reply::Async { event: 1, seconds }, now);
        }
    }

    /// Tells the initiator that the session ends (section 11.9.1, event 3), and receives nothing more.
    pub fn end_session(&mut self, now: Instant) {
        if self.phase == Phase::Full {
            self.push(Reply::Async { event: 3, seconds: 0 }, now);
        }
        self.close(Closed::ProtocolError, now);
    }

    /// The bytes to send next, gathered into `slices`; returns how many slices. None are left when it is 0.
    pub fn send_slices<'a>(&'a mut self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let numbers = CommandNumbers { expected: self.window.expected(), last: self.window.last() };
        self.sender.gather(slices, numbers)
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

    /// Whether all is over: nothing more is received and nothing is left to send.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed.is_some() && !self.sender.has_pending()
    }
}

impl Data {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}
