//! Logins of initiators that say anything.
//!
//! A record is one login request: its operation is the byte of flags, its bytes the text, in which a newline stands
//! for the NUL between pairs and `\r` for the response to the challenge of the first record that had one. Bit 7 of the first byte of the
//! input has the request name a session that exists.
//!
//! Checked: whoever did not prove the secret does not get in where one is asked for; what is agreed lies within what
//! the protocol allows; an answer is well-formed text of bounded length; nothing follows an end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ashlar_iscsi::login::chap::{Algorithm, Challenge};
use ashlar_iscsi::login::{Login, Verdict};
use ashlar_iscsi::view::{Access, Credentials, Host, Portal, Secret, Target, Targets};
use ashlar_iscsi::wire::{request, text};
use zerocopy::FromZeros;

use crate::script::Script;
use crate::world::{ADDRESS, World};

/// A target that lets everybody in.
pub const OPEN: &str = "iqn.2026-11.io.ashlar:open";
/// One that asks [`INITIATOR`] for [`SECRET`].
pub const CLOSED: &str = "iqn.2026-11.io.ashlar:closed";
/// Who may log in there.
pub const INITIATOR: &str = "iqn.2026-11.io.ashlar:host";
/// With this secret.
pub const SECRET: &[u8] = b"twelve bytes";

fn targets() -> Targets {
    let target = |name: &str, access| Target {
        name: name.into(),
        alias: "one".into(),
        access,
        listen: BTreeSet::new(),
        units: BTreeMap::new(),
        port_groups: BTreeMap::new(),
    };
    let credentials =
        |user: &str, secret: &[u8]| Credentials { user: user.into(), secret: Secret::new(secret) };
    let host = Host {
        chap: Some(credentials(INITIATOR, SECRET)),
        mutual: Some(credentials("target", b"another secret")),
    };
    let closed = Access::Hosts([(INITIATOR.to_owned(), host)].into());
    Targets {
        targets: [(OPEN, Access::AnyHost), (CLOSED, closed)]
            .map(|(name, access)| (name.to_owned(), target(name, access)))
            .into(),
        portals: vec![Portal { tag: 1, listen: ADDRESS, advertise: None }],
    }
}

/// Runs one input.
///
/// # Panics
/// If the login breaks a rule.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let how = script.byte();
    let challenge = Challenge::draw(&World::new());
    let mut login = Login::new(Arc::new(targets()), ADDRESS, challenge.clone());
    let mut proved = false;
    while !script.is_over() {
        let (flags, record) = script.record();
        let (text, proves) = expand(record, &challenge);
        proved |= proves;
        let mut header = request::Login::new_zeroed();
        header.opcode = 0x43;
        header.flags = flags;
        header.isid = [0x80, 0, 0, 0, 0, 1];
        header.tsih = u16::from(how >> 7).into();
        match login.request(&header, &text) {
            Verdict::Answer(response) => check(&response.text),
            Verdict::Done(response, established) => {
                check(&response.text);
                let name = established.target.as_deref();
                assert!(name != Some(CLOSED) || proved, "let in without the secret");
                assert!(name.is_none_or(|name| [OPEN, CLOSED].contains(&name)));
                return;
            }
            Verdict::Refuse(_) | Verdict::RefuseLater(_) => return,
        }
    }
}

/// The text of a record, and whether it holds the proof of the secret by any algorithm.
fn expand(record: &[u8], challenge: &Challenge) -> (Vec<u8>, bool) {
    let mut proves = false;
    let mut text = Vec::new();
    for &byte in record {
        match byte {
            b'\n' => text.push(0),
            b'\r' => {
                let digest =
                    Algorithm::Sha256.respond(challenge.id, SECRET, challenge.bytes(Algorithm::Sha256));
                text.extend_from_slice(text::to_hex(&digest).as_bytes());
                proves = true;
            }
            byte => text.push(byte),
        }
    }
    (text, proves)
}

fn check(answer: &[u8]) {
    assert!(answer.len() <= 8192);
    let mut keys = BTreeSet::new();
    for pair in text::pairs(answer) {
        let (key, _) = pair.expect("an answer is well-formed");
        assert!(keys.insert(key), "{key} twice");
    }
}
