//! The security stage: AuthMethod, and CHAP one way or both.

use super::chap::{Algorithm, CHALLENGE_BYTES_MAX, Challenge, DIGEST_BYTES_MAX, same};
use crate::view::{Credentials, Host};
use crate::wire::LoginStatus;
use crate::wire::text;

/// How far the initiator has shown who it is.
///
/// ```text
/// Open -> Passed                            None
/// Open -> Chosen -> Challenged -> Passed    CHAP
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Open,
    Chosen,
    Challenged(Algorithm),
    Passed,
}

pub(super) struct Security {
    challenge: Challenge,
    rules: Vec<Host>,
    /// Authentication is due only if the initiator offers nothing else.
    optional: bool,
    progress: Progress,
}

/// Keys that only [`Security::step`] looks at.
pub(super) fn is_security(key: &str) -> bool {
    matches!(key, "AuthMethod" | "CHAP_A" | "CHAP_I" | "CHAP_C" | "CHAP_N" | "CHAP_R")
}

impl Security {
    pub fn new(challenge: Challenge) -> Self {
        Self { challenge, rules: Vec::new(), optional: false, progress: Progress::Open }
    }

    /// The first request said who it is.
    pub fn set_rules(&mut self, rules: Vec<Host>, optional: bool) {
        self.rules = rules;
        self.optional = optional;
    }

    fn is_required(&self) -> bool {
        !self.optional && self.rules.iter().any(|host| host.chap.is_some())
    }

    /// Whether nothing more is asked of the initiator.
    pub fn is_passed(&self) -> bool {
        self.progress == Progress::Passed || self.progress == Progress::Open && !self.is_required()
    }

    /// Whether the initiator has got a challenge.
    pub fn was_challenged(&self) -> bool {
        matches!(self.progress, Progress::Challenged(_))
    }

    /// One request of the stage. Whether the stage may be left.
    pub fn step(
        &mut self,
        pairs: &[(&str, &str)],
        wants_to_leave: bool,
        out: &mut Vec<u8>,
    ) -> Result<bool, LoginStatus> {
        let get = |wanted: &str| pairs.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        let chap = pairs.iter().any(|(key, _)| key.starts_with("CHAP_"));
        match self.progress {
            Progress::Open => match get("AuthMethod") {
                Some(list) if !chap => self.choose(list, out)?,
                None if !(chap || wants_to_leave && self.is_required()) => {}
                _ => return Err(LoginStatus::AuthenticationFailed),
            },
            Progress::Chosen => {
                let algorithm = get("CHAP_A").and_then(Algorithm::first_of);
                let algorithm = algorithm.ok_or(LoginStatus::AuthenticationFailed)?;
                self.send_challenge(algorithm, out);
            }
            Progress::Challenged(algorithm) => self.check(algorithm, &get, out)?,
            Progress::Passed if chap => return Err(LoginStatus::InitiatorError),
            Progress::Passed => {}
        }
        Ok(self.is_passed())
    }

    fn choose(&mut self, list: &str, out: &mut Vec<u8>) -> Result<(), LoginStatus> {
        let offers = |method| list.split(',').any(|offered| offered == method);
        let (method, progress) = if !self.is_required() && offers("None") {
            ("None", Progress::Passed)
        } else if offers("CHAP") && self.rules.iter().any(|host| host.chap.is_some()) {
            ("CHAP", Progress::Chosen)
        } else {
            return Err(LoginStatus::AuthenticationFailed);
        };
        text::push(out, "AuthMethod", method);
        self.progress = progress;
        Ok(())
    }

    fn send_challenge(&mut self, algorithm: Algorithm, out: &mut Vec<u8>) {
        text::push(out, "CHAP_A", &(algorithm as u8).to_string());
        text::push(out, "CHAP_I", &self.challenge.id.to_string());
        text::push(out, "CHAP_C", &text::to_hex(self.challenge.bytes(algorithm)));
        self.progress = Progress::Challenged(algorithm);
    }

    /// Checks the initiator's response and, where it asks for one, makes the target's.
    fn check<'a>(
        &mut self,
        algorithm: Algorithm,
        get: &impl Fn(&str) -> Option<&'a str>,
        out: &mut Vec<u8>,
    ) -> Result<(), LoginStatus> {
        let failed = LoginStatus::AuthenticationFailed;
        let name = get("CHAP_N").ok_or(failed)?;
        let response = get("CHAP_R").and_then(|value| text::binary(value, DIGEST_BYTES_MAX)).ok_or(failed)?;
        let asked = match (get("CHAP_I"), get("CHAP_C")) {
            (None, None) => None,
            (Some(id), Some(challenge)) => {
                let id = text::number(id).and_then(|id| u8::try_from(id).ok()).ok_or(failed)?;
                let challenge = text::binary(challenge, CHALLENGE_BYTES_MAX).ok_or(failed)?;
                Some((id, challenge))
            }
            _ => return Err(failed),
        };
        let own = self.challenge.bytes(algorithm);
        let host = self.rules.iter().fold(None, |found, host| {
            let right = host.chap.as_ref().is_some_and(|chap| {
                let expected = algorithm.respond(self.challenge.id, chap.secret.bytes(), own);
                same(&expected, &response) & same(chap.user.as_bytes(), name.as_bytes())
            });
            found.or(right.then_some(host))
        });
        let host = host.ok_or(failed)?;
        if let Some((id, challenge)) = asked {
            if challenge == own {
                return Err(failed);
            }
            let Credentials { user, secret } = host.mutual.as_ref().ok_or(failed)?;
            text::push(out, "CHAP_N", user);
            text::push(out, "CHAP_R", &text::to_hex(&algorithm.respond(id, secret.bytes(), &challenge)));
        }
        self.progress = Progress::Passed;
        Ok(())
    }
}
