//! One session over one connection.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::capacity::{CAPACITY_BYTES, Capacity};
use super::cdb::{self, Cdb};
use super::login::{self, Agreed};
use super::rx::{CARRY_BYTES_MAX, Rx};
use super::state::{Completion, Data, State};
use super::wire::lun_field;
use super::{InitiatorOptions, Outcome, Residual, SessionOptions};
use crate::client::{ClientError, Result, dial};

/// Unit attentions that a unit may report one after the other when a session begins.
const ATTENTIONS_MAX: u32 = 32;

/// What [`Session::call`] returns.
#[derive(Clone, Debug)]
pub struct Reply {
    /// How the command ended.
    pub outcome: Outcome,
    /// What the target sent, residual left out.
    pub data: Vec<u8>,
}

/// A session in the full feature phase.
pub struct Session {
    stream: TcpStream,
    rx: Rx,
    carry: Box<[u8]>,
    carry_len: usize,
    state: State,
    timeout: Duration,
}

impl Session {
    /// Connects, logs in, and takes the unit attentions that await a new session.
    ///
    /// # Errors
    /// The options are impossible, the connection or the login fails, or the unit does not become ready.
    pub fn log_in(initiator: &InitiatorOptions, options: SessionOptions) -> Result<Self> {
        let Some(lun) = lun_field(initiator.lun) else {
            return Err(ClientError::Setup(format!("LUN {} is not 0 to 16383", initiator.lun)));
        };
        let stream = dial(&initiator.addr, initiator.timeout)?;
        let (agreed, numbers) = login::log_in(&stream, initiator, options.index)?;
        stream.set_nonblocking(true)?;
        let mut session = Self {
            stream,
            rx: Rx::new(agreed.digests),
            carry: vec![0; CARRY_BYTES_MAX].into_boxed_slice(),
            carry_len: 0,
            state: State::new(options, initiator.data_segment_bytes, agreed, numbers, lun)?,
            timeout: initiator.timeout,
        };
        session.await_ready()?;
        Ok(session)
    }

    /// TEST UNIT READY until no unit attention is left.
    fn await_ready(&mut self) -> Result<()> {
        let mut outcome = Outcome::SUCCESS;
        for _ in 0..ATTENTIONS_MAX {
            outcome = self.call(&cdb::TEST_UNIT_READY, Data::None, &[])?.outcome;
            if !outcome.is_unit_attention() {
                break;
            }
        }
        expect("TEST UNIT READY", outcome)
    }

    /// What was agreed at login.
    #[must_use]
    pub fn agreed(&self) -> Agreed {
        self.state.agreed()
    }

    /// The size of the unit.
    ///
    /// # Errors
    /// As [`call`](Self::call), or the target refuses or says what cannot be.
    ///
    /// # Panics
    /// If the payload of a slot is smaller than 32 bytes.
    pub fn capacity(&mut self) -> Result<Capacity> {
        let reply = self.call(&cdb::read_capacity(CAPACITY_BYTES), Data::In(CAPACITY_BYTES), &[])?;
        let short = matches!(reply.outcome.residual, Residual::Underflow(_));
        expect("READ CAPACITY(16)", Outcome { residual: Residual::None, ..reply.outcome })?;
        // Older targets stop after 12 bytes.
        if short && reply.data.len() < 12 {
            return Err(ClientError::Scsi { what: "READ CAPACITY(16)", outcome: reply.outcome });
        }
        Capacity::parse(&reply.data)
    }

    /// How many commands may be submitted now: slots are free and the command window is open.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        self.state.room()
    }

    /// Commands submitted and not finished.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state.in_flight()
    }

    /// The slot that the next command will get, if any is free.
    #[inline]
    #[must_use]
    pub fn next_slot(&self) -> Option<u16> {
        self.state.next_slot()
    }

    /// The payload of `slot`: what a write sends, or what a read brought.
    #[must_use]
    pub fn payload(&self, slot: u16) -> &[u8] {
        &self.state.payloads[usize::from(slot)]
    }

    /// The payload of `slot`, to be filled before a write is submitted.
    pub fn payload_mut(&mut self, slot: u16) -> &mut [u8] {
        &mut self.state.payloads[usize::from(slot)]
    }

    /// Lays a command ready to be sent by the next [`flush`](Self::flush). None if there is no [`room`](Self::room).
    /// Returns the slot.
    ///
    /// # Panics
    /// If `data` are more than the payload of a slot.
    #[inline]
    pub fn submit(&mut self, cdb: &Cdb, data: Data) -> Option<u16> {
        self.state.submit(cdb, data)
    }

    /// Sends what lies ready. True if all of it went.
    ///
    /// # Errors
    /// The connection failed.
    #[inline]
    pub fn flush(&mut self) -> Result<bool> {
        self.state.flush(&self.stream)
    }

    /// Receives once into `buffer` (any contents, [`RX_BYTES`](crate::client::RX_BYTES) long for speed, 16 KiB at
    /// least) and appends what finished to `done`. Returns the bytes received, 0 if there are none now.
    ///
    /// # Errors
    /// The connection failed, the target wants the session to end, or broke the protocol.
    #[inline]
    pub fn poll(&mut self, buffer: &mut [u8], done: &mut Vec<Completion>) -> Result<usize> {
        let carried = self.carry_len;
        buffer[..carried].copy_from_slice(&self.carry[..carried]);
        let received = match (&self.stream).read(&mut buffer[carried..]) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = &buffer[..carried + received];
        let used = self.rx.parse(bytes, &mut self.state)?;
        let rest = &bytes[used..];
        self.carry[..rest.len()].copy_from_slice(rest);
        self.carry_len = rest.len();
        done.append(&mut self.state.done);
        Ok(received)
    }

    /// Sends one command with `payload` and waits for its end. Completions of other commands are dropped, so this
    /// is for sessions that do nothing else meanwhile.
    ///
    /// # Errors
    /// There is no room, the connection fails, or the time of the options passes. A status is not an error here.
    ///
    /// # Panics
    /// If `data` or `payload` are more than the payload of a slot.
    pub fn call(&mut self, cdb: &Cdb, data: Data, payload: &[u8]) -> Result<Reply> {
        if let Some(slot) = self.next_slot() {
            self.payload_mut(slot)[..payload.len()].copy_from_slice(payload);
        }
        let kept = self.state.keep_read_data(true);
        let reply = self.call_kept(cdb, data);
        self.state.keep_read_data(kept);
        reply
    }

    fn call_kept(&mut self, cdb: &Cdb, data: Data) -> Result<Reply> {
        let Some(slot) = self.submit(cdb, data) else {
            return Err(ClientError::Setup("the session has no room for another command".into()));
        };
        let mut done = Vec::new();
        self.wait("a command", |session, buffer| {
            session.poll(buffer, &mut done)?;
            let Some(ended) = done.drain(..).find(|completion| completion.slot == slot) else {
                return Ok(None);
            };
            let Data::In(expected) = data else {
                return Ok(Some(Reply { outcome: ended.outcome, data: Vec::new() }));
            };
            let moved = match ended.outcome.residual {
                Residual::Underflow(missing) => expected.saturating_sub(missing),
                Residual::None | Residual::Overflow(_) => expected,
            };
            let moved = if ended.outcome.is_good() { moved as usize } else { 0 };
            Ok(Some(Reply { outcome: ended.outcome, data: session.payload(slot)[..moved].to_vec() }))
        })
    }

    /// Ends the session in order. Commands in flight are given up.
    ///
    /// # Errors
    /// The connection fails, or the target does not answer in the time of the options.
    pub fn log_out(mut self) -> Result<()> {
        self.state.log_out();
        let mut done = Vec::new();
        self.wait("a logout", |session, buffer| match session.poll(buffer, &mut done) {
            Err(ClientError::Closed) => Ok(Some(())),
            Err(error) => Err(error),
            Ok(_) => Ok(session.state.is_logged_out().then_some(())),
        })
    }

    /// Flushes and calls `step` until it has a result.
    fn wait<T>(
        &mut self,
        what: &'static str,
        mut step: impl FnMut(&mut Self, &mut [u8]) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.timeout;
        let mut buffer = vec![0; 64 << 10];
        loop {
            self.flush()?;
            if let Some(result) = step(self, &mut buffer)? {
                return Ok(result);
            }
            if Instant::now() > deadline {
                return Err(ClientError::Timeout(what));
            }
            std::thread::yield_now();
        }
    }
}

/// An error unless the command succeeded with all its data.
fn expect(what: &'static str, outcome: Outcome) -> Result<()> {
    if outcome == Outcome::SUCCESS { Ok(()) } else { Err(ClientError::Scsi { what, outcome }) }
}
