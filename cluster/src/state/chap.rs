//! CHAP secrets of hosts, and the rules for them.
//!
//! A secret is drawn by whoever asks, never here. It is in the state and in commands, hence in the control state's
//! file, and nowhere else: it has no way into a text for people, and `Debug` does not show it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::apply::Outcome;
use super::model::Host;
use super::{Event, Name, Reason, RefusalKind, State};

/// Shortest secret, in characters: 96 bits (RFC 7143, section 9.2.1, asks for as many).
pub const CHAP_SECRET_CHARS_MIN: usize = 12;
/// Longest secret, in characters.
pub const CHAP_SECRET_CHARS_MAX: usize = 255;
/// Longest secret that Windows and ESXi take, in characters.
pub const CHAP_SECRET_CHARS_USUAL_MAX: usize = 16;

/// A CHAP secret: 12 to 255 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChapSecret(String);

/// Why a text is no CHAP secret. The sentence does not quote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChapSecretError {
    /// Its length is wrong.
    #[error(
        "a CHAP secret has {CHAP_SECRET_CHARS_MIN} to {CHAP_SECRET_CHARS_MAX} characters \
         ({CHAP_SECRET_CHARS_USUAL_MAX} at most for Windows and ESXi), and this one has {0}"
    )]
    Length(usize),
    /// It has a character that some initiator could not be given.
    #[error("a CHAP secret has visible ASCII characters only, without spaces")]
    Character,
}

impl ChapSecret {
    /// Checks `text`.
    ///
    /// # Errors
    /// Its length or its characters are not those of a secret.
    pub fn parse(text: &str) -> Result<Self, ChapSecretError> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ChapSecretError::Character);
        }
        if !(CHAP_SECRET_CHARS_MIN..=CHAP_SECRET_CHARS_MAX).contains(&text.len()) {
            return Err(ChapSecretError::Length(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// The secret itself: for the digest, and for whoever has just drawn it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ChapSecret {
    type Error = ChapSecretError;

    fn try_from(text: String) -> Result<Self, ChapSecretError> {
        Self::parse(&text)
    }
}

impl From<ChapSecret> for String {
    fn from(secret: ChapSecret) -> String {
        secret.0
    }
}

impl fmt::Debug for ChapSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What is asked of a host that logs in over iSCSI. The names that go with the secrets are the IQNs of the host and of
/// the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chap {
    /// What the host has to know.
    pub secret: ChapSecret,
    /// Mutual CHAP: what the target has to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual: Option<ChapSecret>,
}

/// Whether a host may have `chap`.
pub(super) fn check_chap(has_iqn: bool, chap: &Chap) -> Result<(), Reason> {
    if !has_iqn {
        let why = "CHAP belongs to iSCSI, and the host has no IQN";
        return Err(Reason::new(RefusalKind::Invalid, why).next(
            "give the initiator's name with --iqn; on Linux, /etc/iscsi/initiatorname.iscsi holds it",
        ));
    }
    // With one secret for both directions an impostor could have the other side compute its answer.
    if chap.mutual.as_ref() == Some(&chap.secret) {
        let why = "the secrets of the two directions are the same";
        return Err(Reason::new(RefusalKind::Invalid, why).next("give each direction a secret of its own"));
    }
    Ok(())
}

impl State {
    pub(super) fn set_chap(
        &mut self,
        name: &Name,
        secret: Option<&ChapSecret>,
        mutual: Option<&ChapSecret>,
    ) -> Outcome {
        let host = self.find_host(name)?;
        let before = host.chap.as_ref();
        let Some(secret) = secret.or(before.map(|chap| &chap.secret)) else {
            let why = "the host has no CHAP secret, and mutual CHAP needs one in each direction";
            return Err(Reason::new(RefusalKind::Invalid, why)
                .next(format!("ashlar host rotate {name} --chap --mutual")));
        };
        let mutual = mutual.or(before.and_then(|chap| chap.mutual.as_ref()));
        let chap = Chap { secret: secret.clone(), mutual: mutual.cloned() };
        check_chap(host.iqn.is_some(), &chap)?;
        if before == Some(&chap) {
            return Ok(Vec::new());
        }
        Ok(self.put_chap(name, Some(chap)))
    }

    pub(super) fn clear_chap(&mut self, name: &Name) -> Outcome {
        if self.find_host(name)?.chap.is_none() {
            return Ok(Vec::new());
        }
        Ok(self.put_chap(name, None))
    }

    fn put_chap(&mut self, name: &Name, chap: Option<Chap>) -> Vec<Event> {
        let host: &mut Host = self.hosts.get_mut(name).expect("the caller has looked it up");
        host.chap = chap;
        vec![Event::HostChanged { host: name.clone() }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_checked_and_not_shown() {
        for good in ["abcdefghijkl", "A.b_c-9%!/~xyz", &"x".repeat(255)] {
            let secret = ChapSecret::parse(good).unwrap();
            assert_eq!(secret.expose(), good);
            assert!(!format!("{secret:?}").contains(good));
            let chap = Chap { secret: secret.clone(), mutual: Some(secret) };
            assert!(!format!("{chap:?}").contains(good));
        }
        let long = "x".repeat(256);
        for bad in ["", "elevenchars", &long, "with a space here", "umlaut-\u{e4}-here", "line\nbreak-here"] {
            let error = ChapSecret::parse(bad).unwrap_err().to_string();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
            let json = serde_json::to_string(bad).unwrap();
            let error = serde_json::from_str::<ChapSecret>(&json).unwrap_err().to_string();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }
}
