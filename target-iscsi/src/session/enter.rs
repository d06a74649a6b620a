//! Login on the connection: requests to the login machine, its verdicts into responses.

use std::time::Duration;

use ashlar_env::clock::Instant;
use zerocopy::FromBytes;
use zerocopy::IntoBytes;
use zerocopy::big_endian::U16;

use super::reply::Reply;
use super::send::login_response;
use super::{Closed, Event, Phase, STAGING_BYTES, STAGING_BYTES_DISCOVERY, Session};
use crate::login::{Login, Response, Verdict};
use crate::wire::LoginStatus;
use crate::wire::request;

/// A login in progress.
pub(super) struct Entering {
    login: Login,
    failure_delay: Duration,
    begun: bool,
    /// The last response, which waits for the session to be registered, or for its time.
    held: Option<Response>,
    refused: LoginStatus,
}

impl Entering {
    pub fn new(login: Login, failure_delay: Duration) -> Self {
        Self { login, failure_delay, begun: false, held: None, refused: LoginStatus::InitiatorError }
    }
}

impl Session {
    /// A login request is here, with its data.
    pub(super) fn login_request(&mut self, data: &[u8], now: Instant) {
        let Some(mut entering) = self.entering.take() else { return };
        let header = request::Login::read_from_bytes(self.current.as_bytes()).expect("headers have one size");
        if !std::mem::replace(&mut entering.begun, true) {
            self.window = super::Window::new(header.cmd_sn.get(), self.depth);
        }
        let verdict = entering.login.request(&header, data);
        match verdict {
            Verdict::Answer(response) => self.push_login(response, 0, now),
            Verdict::Done(response, established) => {
                entering.held = Some(response);
                self.phase = Phase::Held;
                self.discovery = established.target.is_none();
                self.cid = established.cid;
                self.parameters = established.parameters;
                self.texts.set_session(&established);
                self.events.push_back(Event::LoggedIn(established));
            }
            Verdict::Refuse(status) => return self.refuse(status, now),
            Verdict::RefuseLater(status) => {
                entering.refused = status;
                self.phase = Phase::Held;
                self.times.refuse_at = Some(now.plus(entering.failure_delay));
            }
        }
        self.entering = Some(entering);
    }

    fn push_login(&mut self, response: Response, tsih: u16, now: Instant) {
        let request =
            request::Login::read_from_bytes(self.current.as_bytes()).expect("headers have one size");
        let mut header = login_response(&request);
        header.flags = response.flags;
        if tsih != 0 {
            header.tsih = U16::new(tsih);
        }
        self.push(Reply::Login { header, text: response.text }, now);
    }

    /// The session is registered under `tsih`, not 0: the initiator is told, and may send commands.
    ///
    /// # Panics
    /// If [`Event::LoggedIn`] did not come.
    pub fn establish(&mut self, tsih: u16, now: Instant) {
        if self.closed.is_some() {
            return;
        }
        let response = self.entering.take().and_then(|mut entering| entering.held.take());
        self.push_login(response.expect("a login waits for its session"), tsih, now);
        self.sender.established(&self.parameters, self.depth.into());
        self.staging.grow(if self.discovery { STAGING_BYTES_DISCOVERY } else { STAGING_BYTES });
        self.phase = Phase::Full;
        self.times.established(now);
    }

    /// Login fails with this status; the connection ends.
    pub fn refuse(&mut self, status: LoginStatus, now: Instant) {
        if self.closed.is_some() {
            return;
        }
        let request =
            request::Login::read_from_bytes(self.current.as_bytes()).expect("headers have one size");
        let mut header = login_response(&request);
        header.status = U16::new(status as u16);
        self.push(Reply::Login { header, text: Vec::new() }, now);
        self.close(Closed::Refused, now);
    }

    /// The time has come to tell of a wrong secret.
    pub(super) fn refuse_now(&mut self, now: Instant) {
        let status = self.entering.as_ref().map_or(LoginStatus::InitiatorError, |entering| entering.refused);
        self.refuse(status, now);
    }
}
