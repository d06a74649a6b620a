//! What a session waits for, and for how long.

use std::time::Duration;

use ashlar_env::clock::Instant;

use super::reply::Reply;
use super::tasks::State;
use super::{Closed, Phase, Session};
use crate::wire::NO_TAG;

/// How long a PDU may take from its first byte to its last, how long an initiator may leave an R2T unanswered, and how
/// long it may leave our bytes unread.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last bytes may take to leave.
const LINGER: Duration = Duration::from_secs(5);
/// How long tasks may take to end at logout.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(60);
/// After so much silence the initiator is pinged.
const PING_AFTER: Duration = Duration::from_secs(30);
/// After so much silence an initiator is gone that has answered a ping before.
const SILENCE_MAX: Duration = Duration::from_secs(60 + 5);
/// The same for one that never has: some never do, and live.
const SILENCE_MAX_MUTE: Duration = Duration::from_secs(600);
/// How long a command may wait for memory.
const STARVING_MAX: Duration = Duration::from_secs(5);

/// The tag of our pings. There is one at a time.
const PING_TAG: u32 = 0xFFFF_0000;

/// Since when something is owed; `None` where nothing is.
pub(super) struct Times {
    /// By when login must be done, or the last bytes be sent.
    step_deadline: Option<Instant>,
    /// When a wrong secret is to be told of.
    pub refuse_at: Option<Instant>,
    /// When the unfinished PDU began.
    pub pdu_since: Option<Instant>,
    /// When data last came that were owed.
    pub data_since: Option<Instant>,
    /// When the initiator last took bytes while there were some.
    pub unread_since: Option<Instant>,
    /// Since when the oldest command waits for memory.
    pub starving_since: Option<Instant>,
    /// When the initiator was last heard of; in full feature phase.
    heard: Option<Instant>,
    pinged: bool,
    /// The initiator is one that answers pings.
    pub ping_answered: bool,
}

impl Times {
    pub fn new(now: Instant, login: Duration) -> Self {
        Self {
            step_deadline: Some(now.plus(login)),
            refuse_at: None,
            pdu_since: None,
            data_since: None,
            unread_since: None,
            starving_since: None,
            heard: None,
            pinged: false,
            ping_answered: false,
        }
    }

    pub fn established(&mut self, now: Instant) {
        self.step_deadline = None;
        self.heard = Some(now);
    }

    pub fn heard(&mut self, now: Instant) {
        if self.heard.is_some() {
            self.heard = Some(now);
            self.pinged = false;
        }
    }

    pub fn logging_out(&mut self, now: Instant) {
        let login = Self::new(now, LOGOUT_TIMEOUT);
        *self = Self { unread_since: self.unread_since, ..login };
    }

    pub fn closing(&mut self, now: Instant) {
        *self = Self::new(now, LINGER);
    }

    fn stall(&self) -> Option<Instant> {
        let since = [self.pdu_since, self.data_since, self.unread_since];
        since.into_iter().flatten().min().map(|since| since.plus(STALL_TIMEOUT))
    }

    fn silence(&self) -> Option<Instant> {
        let most = if self.ping_answered { SILENCE_MAX } else { SILENCE_MAX_MUTE };
        self.heard.map(|heard| heard.plus(if self.pinged { most } else { PING_AFTER }))
    }

    fn next(&self) -> Instant {
        let starving = self.starving_since.map(|since| since.plus(STARVING_MAX));
        let all = [self.step_deadline, self.refuse_at, self.stall(), self.silence(), starving];
        all.into_iter().flatten().min().unwrap_or(Instant::FAR_FUTURE)
    }
}

impl Session {
    /// When [`Self::handle_timeout`] must be called next. Changes after any call.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.times.next()
    }

    /// Does what is due: ends a login, a ping, a wait for memory, or the connection of an initiator that is late.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if due(self.times.refuse_at) {
            self.times.refuse_at = None;
            return self.refuse_now(now);
        }
        if due(self.times.starving_since.map(|since| since.plus(STARVING_MAX))) {
            self.give_up_waiting(now);
        }
        if due(self.times.data_since.map(|since| since.plus(STALL_TIMEOUT))) && !self.is_owed_data() {
            self.times.data_since = None;
        }
        if due(self.times.step_deadline) || due(self.times.stall()) {
            return self.give_up(now);
        }
        if due(self.times.silence()) {
            if self.times.pinged {
                return self.give_up(now);
            }
            self.times.pinged = true;
            if self.phase == Phase::Full {
                self.push(Reply::Nop { tag: NO_TAG, ttt: PING_TAG, data: Box::default() }, now);
            }
        }
    }

    fn is_owed_data(&self) -> bool {
        self.tasks
            .iter()
            .any(|(_, task)| matches!(&task.state, State::Incoming(incoming) if incoming.is_open()))
    }

    /// The initiator is late, or gone: nothing more is said to it.
    fn give_up(&mut self, now: Instant) {
        self.sender.clear();
        self.close(Closed::TimedOut, now);
        self.times.unread_since = None;
    }
}
