//! Login (RFC 7143, section 6), sans-IO: requests in, verdicts out.
//!
//! ```text
//! security (CSG 0) --------------> full feature phase (NSG 3)
//!        |                                ^
//!        +-> operational (CSG 1) ---------+        a login may begin here where nobody must authenticate
//! ```
//!
//! Nothing of a session that exists is touched here: whether the new one replaces it is decided by whoever registers
//! it, after [`Verdict::Done`], which comes only when the initiator has shown who it is.

pub mod chap;
mod names;
pub mod parameters;
mod security;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::limits::{LOGIN_BYTES_MAX, LOGIN_REQUESTS_MAX, LONG_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use crate::view::Targets;
use crate::wire::LoginStatus;
use crate::wire::bhs::{CONTINUE, FINAL};
use crate::wire::request::{self, Isid};
use crate::wire::text;
use chap::Challenge;
use names::Identity;
use parameters::Parameters;
use security::Security;

/// A stage of login (section 6.3), with its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Stage {
    Security = 0,
    Operational = 1,
    FullFeature = 3,
}

impl Stage {
    fn of(code: u8) -> Option<Self> {
        [Self::Security, Self::Operational, Self::FullFeature]
            .into_iter()
            .find(|stage| *stage as u8 == code & 3)
    }
}

/// What to do about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer it; the login goes on.
    Answer(Response),
    /// All is agreed. The response is the last one: it waits until the session is registered.
    Done(Response, Box<Established>),
    /// Answer with this status, and close.
    Refuse(LoginStatus),
    /// The same, but not at once: the initiator guessed a secret.
    RefuseLater(LoginStatus),
}

/// A login response, without what follows from the request.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// T, CSG and NSG.
    pub flags: u8,
    /// The text.
    pub text: Vec<u8>,
}

/// What a login has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// The initiator's name, in lower case.
    pub initiator: String,
    /// Its part of the session identifier.
    pub isid: Isid,
    /// The TSIH it asked for: 0 for a new session.
    pub tsih: u16,
    /// The number of its connection.
    pub cid: u16,
    /// The target's name in lower case; `None` for a discovery session.
    pub target: Option<String>,
    /// The tag of the portal group.
    pub portal_tag: u16,
    /// How the two will talk.
    pub parameters: Parameters,
    /// The configuration by which the initiator was admitted.
    pub admitted_by: Arc<Targets>,
}

impl Established {
    /// Whether `targets` would admit the initiator by the same rules: the configuration may have changed during login.
    #[must_use]
    pub fn is_admitted_by(&self, targets: &Targets) -> bool {
        let Some(name) = &self.target else { return true };
        let rule = |targets: &Targets| {
            targets.targets.get(name).and_then(|target| target.access.of(&self.initiator))
        };
        rule(targets).is_some_and(|now| rule(&self.admitted_by) == Some(now))
    }
}

/// See the module.
pub struct Login {
    targets: Arc<Targets>,
    local: SocketAddr,
    /// What must not change from request to request; `None` before the first.
    fixed: Option<Fixed>,
    stage: Stage,
    /// Requests so far, and their bytes of text.
    requests: u32,
    bytes: usize,
    /// A text that goes on.
    text: Vec<u8>,
    seen: BTreeSet<String>,
    identity: Option<Identity>,
    security: Security,
    parameters: Parameters,
    declared: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Fixed {
    isid: Isid,
    tsih: u16,
    itt: u32,
    cid: u16,
    version_max: u8,
    version_min: u8,
}

impl Login {
    /// The login of an initiator that connected to `local`.
    #[must_use]
    pub fn new(targets: Arc<Targets>, local: SocketAddr, challenge: Challenge) -> Self {
        Self {
            targets,
            local,
            fixed: None,
            stage: Stage::Security,
            requests: 0,
            bytes: 0,
            text: Vec::new(),
            seen: BTreeSet::new(),
            identity: None,
            security: Security::new(challenge),
            parameters: Parameters::default(),
            declared: false,
        }
    }

    /// Takes a request and its data.
    pub fn request(&mut self, header: &request::Login, data: &[u8]) -> Verdict {
        match self.take(header, data) {
            Ok(verdict) => verdict,
            Err(LoginStatus::AuthenticationFailed) if self.security.was_challenged() => {
                Verdict::RefuseLater(LoginStatus::AuthenticationFailed)
            }
            Err(status) => Verdict::Refuse(status),
        }
    }

    fn take(&mut self, header: &request::Login, data: &[u8]) -> Result<Verdict, LoginStatus> {
        self.requests += 1;
        self.bytes += data.len();
        let long = data.len() > TEXT_BYTES_MAX || self.bytes > LOGIN_BYTES_MAX;
        if long || self.requests > LOGIN_REQUESTS_MAX || self.text.len() + data.len() > LONG_TEXT_BYTES_MAX {
            return Err(LoginStatus::InitiatorError);
        }
        let next = self.check_header(header)?;
        self.text.extend_from_slice(data);
        let flags = (self.stage as u8) << 2;
        if header.flags & CONTINUE != 0 {
            return Ok(Verdict::Answer(Response { flags, text: Vec::new() }));
        }
        let request = std::mem::take(&mut self.text);
        let mut text = Vec::new();
        let may_leave = self.take_text(&request, next, &mut text)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(LoginStatus::InitiatorError);
        }
        let Some(next) = next.filter(|_| may_leave) else {
            return Ok(Verdict::Answer(Response { flags, text }));
        };
        self.stage = next;
        let response = Response { flags: FINAL | flags | next as u8, text };
        if next != Stage::FullFeature {
            return Ok(Verdict::Answer(response));
        }
        Ok(Verdict::Done(response, Box::new(self.established(header)?)))
    }

    /// Checks what does not depend on the text; the stage asked for, if any.
    fn check_header(&mut self, header: &request::Login) -> Result<Option<Stage>, LoginStatus> {
        let fixed = Fixed {
            isid: header.isid,
            tsih: header.tsih.get(),
            itt: header.itt.get(),
            cid: header.cid.get(),
            version_max: header.version_max,
            version_min: header.version_min,
        };
        let stage = Stage::of(header.flags >> 2).ok_or(LoginStatus::InitiatorError)?;
        if self.fixed.is_none() {
            if header.version_min != 0 {
                return Err(LoginStatus::UnsupportedVersion);
            }
            self.fixed = Some(fixed);
            self.stage = stage;
        }
        let transit = header.flags & FINAL != 0;
        let bad = self.fixed != Some(fixed)
            || stage != self.stage
            || stage == Stage::FullFeature
            || transit && header.flags & CONTINUE != 0;
        if bad {
            return Err(LoginStatus::InitiatorError);
        }
        let next = Stage::of(header.flags).filter(|next| *next > stage);
        match (transit, next) {
            (false, _) => Ok(None),
            (true, Some(next)) => Ok(Some(next)),
            (true, None) => Err(LoginStatus::InitiatorError),
        }
    }

    /// Deals with a whole text: answers in `out`. Whether the stage may be left.
    fn take_text(
        &mut self,
        request: &[u8],
        next: Option<Stage>,
        out: &mut Vec<u8>,
    ) -> Result<bool, LoginStatus> {
        let pairs: Result<Vec<_>, _> = text::pairs(request).collect();
        let pairs = pairs.map_err(|_| LoginStatus::InitiatorError)?;
        for &(key, value) in &pairs {
            self.note_key(key, value)?;
        }
        if self.identity.is_none() {
            let identity = names::identify(&pairs, &self.targets, self.local)?;
            self.security.set_rules(identity.rules.clone(), identity.target.is_none());
            identity.introduce(out);
            self.identity = Some(identity);
        }
        if self.stage == Stage::Operational && !self.security.is_passed() {
            return Err(LoginStatus::AuthenticationFailed);
        }
        let discovery = self.identity.as_ref().is_some_and(|identity| identity.target.is_none());
        for &(key, value) in pairs.iter().filter(|(key, _)| !names::is_identity(key)) {
            if self.stage == Stage::Security && security::is_security(key) {
                continue;
            }
            self.parameters.negotiate(key, value, discovery, out)?;
        }
        if self.stage == Stage::Security {
            return self.security.step(&pairs, next.is_some(), out);
        }
        if !std::mem::replace(&mut self.declared, true) {
            self.parameters.declare(out);
        }
        Ok(true)
    }

    /// A key is given at most once in a login (section 6.2). The same name again is what some initiators do.
    fn note_key(&mut self, key: &str, value: &str) -> Result<(), LoginStatus> {
        let same_name = key == "InitiatorName"
            && self.identity.as_ref().is_some_and(|identity| identity.initiator == value.to_lowercase());
        if self.seen.insert(key.to_owned()) || same_name { Ok(()) } else { Err(LoginStatus::InitiatorError) }
    }

    fn established(&self, header: &request::Login) -> Result<Established, LoginStatus> {
        let identity = self.identity.as_ref().filter(|_| self.security.is_passed());
        let identity = identity.ok_or(LoginStatus::AuthenticationFailed)?;
        Ok(Established {
            initiator: identity.initiator.clone(),
            isid: header.isid,
            tsih: header.tsih.get(),
            cid: header.cid.get(),
            target: identity.target.clone(),
            portal_tag: identity.portal_tag,
            parameters: self.parameters.settled(),
            admitted_by: Arc::clone(&self.targets),
        })
    }
}
