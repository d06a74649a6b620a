//! Who logs in, and to what: the keys of the first request.

use std::net::SocketAddr;

use crate::view::{Host, Targets};
use crate::wire::LoginStatus;
use crate::wire::text;

/// Bytes of an iSCSI name, at most (RFC 7143, section 4.2.7.1).
const NAME_BYTES_MAX: usize = 223;

/// What the first request said, and what the configuration says to it.
pub(super) struct Identity {
    /// The initiator's name, in lower case.
    pub initiator: String,
    /// The target's name, in lower case; `None` for discovery.
    pub target: Option<String>,
    pub alias: String,
    pub portal_tag: u16,
    /// What may be asked of the initiator: one rule for a target, any number for discovery.
    pub rules: Vec<Host>,
}

/// Keys that only [`identify`] looks at.
pub(super) fn is_identity(key: &str) -> bool {
    matches!(key, "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType")
}

/// Reads the keys of the first request (section 6.3).
pub(super) fn identify(
    pairs: &[(&str, &str)],
    targets: &Targets,
    local: SocketAddr,
) -> Result<Identity, LoginStatus> {
    let get = |wanted: &str| pairs.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
    let initiator = get("InitiatorName").ok_or(LoginStatus::MissingParameter)?;
    let valid = initiator.starts_with(|first: char| first.is_alphanumeric())
        && initiator.len() <= NAME_BYTES_MAX
        && !initiator.contains(|sign: char| sign.is_control() || sign.is_whitespace());
    if !valid {
        return Err(LoginStatus::InitiatorError);
    }
    let initiator = initiator.to_lowercase();
    let portal_tag = targets.portal_at(local).map_or(1, |portal| portal.tag);
    match get("SessionType").unwrap_or("Normal") {
        "Discovery" => {
            let rules = targets.targets.values().filter_map(|target| target.access.of(&initiator));
            let rules = rules.filter(|host| host.chap.is_some()).collect();
            Ok(Identity { initiator, target: None, alias: String::new(), portal_tag, rules })
        }
        "Normal" => {
            let name = get("TargetName").ok_or(LoginStatus::MissingParameter)?;
            let found = targets.find(name).filter(|(_, target)| target.is_reached_at(local));
            let (name, target) = found.ok_or(LoginStatus::TargetNotFound)?;
            let rule = target.access.of(&initiator).ok_or(LoginStatus::NotAuthorized)?;
            let (target, alias) = (Some(name.to_owned()), target.alias.clone());
            Ok(Identity { initiator, target, alias, portal_tag, rules: vec![rule] })
        }
        _ => Err(LoginStatus::SessionTypeNotSupported),
    }
}

impl Identity {
    /// What the first response tells of the target.
    pub fn introduce(&self, out: &mut Vec<u8>) {
        if self.target.is_none() {
            return;
        }
        text::push(out, "TargetPortalGroupTag", &self.portal_tag.to_string());
        if !self.alias.is_empty() {
            text::push(out, "TargetAlias", &self.alias);
        }
    }
}
