//! Text requests (RFC 7143, section 11.10 and appendix C): SendTargets.

use std::net::SocketAddr;
use std::sync::Arc;

use ashlar_env::clock::Instant;
use zerocopy::{FromBytes, IntoBytes};

use super::Session;
use super::reply::Reply;
use crate::limits::{LONG_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use crate::login::Established;
use crate::view::{Portal, Target, Targets, canonical};
use crate::wire::NO_TAG;
use crate::wire::bhs::{CONTINUE, FINAL};
use crate::wire::request::Text;
use crate::wire::response::RejectReason;
use crate::wire::text;

/// The negotiation in progress, and what it may tell of.
pub(super) struct Texts {
    targets: Arc<Targets>,
    local: SocketAddr,
    initiator: String,
    /// The session's target; `None` in a discovery session.
    target: Option<String>,
    state: State,
    /// The number in the last target transfer tag.
    exchanges: u16,
}

enum State {
    Idle,
    /// The initiator's text goes on under this tag.
    Asking {
        tag: u32,
        ttt: u32,
        text: Vec<u8>,
    },
    /// The rest of the answer waits to be asked for.
    Answering {
        tag: u32,
        ttt: u32,
        text: Vec<u8>,
        at: usize,
    },
}

impl Texts {
    pub fn new(targets: Arc<Targets>, local: SocketAddr) -> Self {
        let local = canonical(local);
        Self { targets, local, initiator: String::new(), target: None, state: State::Idle, exchanges: 0 }
    }

    pub fn set_targets(&mut self, targets: Arc<Targets>) {
        self.targets = targets;
    }

    pub fn set_session(&mut self, established: &Established) {
        self.initiator.clone_from(&established.initiator);
        self.target.clone_from(&established.target);
    }

    /// A tag that was not used lately.
    fn next_ttt(&mut self) -> u32 {
        self.exchanges = self.exchanges.wrapping_add(1);
        0xFFFE_0000 | u32::from(self.exchanges)
    }

    /// Takes a request's text. The answer's tag, flags and text, or why there is none.
    fn take(&mut self, pdu: &Text, data: &[u8]) -> Result<(u32, u8, Vec<u8>), RejectReason> {
        let (tag, ttt) = (pdu.itt.get(), pdu.ttt.get());
        let (ends, goes_on) = (pdu.flags & FINAL != 0, pdu.flags & CONTINUE != 0);
        if tag == NO_TAG || ends && goes_on || goes_on && data.is_empty() {
            return Err(RejectReason::ProtocolError);
        }
        let state = std::mem::replace(&mut self.state, State::Idle);
        let mut whole = match state {
            State::Answering { tag: of, ttt: expected, text, at } if ttt != NO_TAG => {
                if of != tag || expected != ttt || !data.is_empty() {
                    return Err(RejectReason::ProtocolError);
                }
                return Ok(self.chunk(tag, text, at));
            }
            State::Asking { tag: of, ttt: expected, text } => {
                if of != tag || expected != ttt {
                    return Err(RejectReason::ProtocolError);
                }
                text
            }
            // A new request takes the place of an answer that nobody has heard to its end.
            State::Idle | State::Answering { .. } if ttt == NO_TAG => Vec::new(),
            _ => return Err(RejectReason::ProtocolError),
        };
        whole.extend_from_slice(data);
        if whole.len() > LONG_TEXT_BYTES_MAX {
            return Err(RejectReason::ProtocolError);
        }
        if goes_on {
            let ttt = self.next_ttt();
            self.state = State::Asking { tag, ttt, text: whole };
            return Ok((ttt, 0, Vec::new()));
        }
        let answer = self.answer(&whole)?;
        Ok(self.chunk(tag, answer, 0))
    }

    /// The part of the answer that fits a PDU, from `at`.
    fn chunk(&mut self, tag: u32, text: Vec<u8>, at: usize) -> (u32, u8, Vec<u8>) {
        let rest = &text[at..];
        if rest.len() <= TEXT_BYTES_MAX {
            return (NO_TAG, FINAL, rest.to_vec());
        }
        let (part, ttt) = (rest[..TEXT_BYTES_MAX].to_vec(), self.next_ttt());
        self.state = State::Answering { tag, ttt, text, at: at + TEXT_BYTES_MAX };
        (ttt, CONTINUE, part)
    }

    fn answer(&self, request: &[u8]) -> Result<Vec<u8>, RejectReason> {
        let pairs: Result<Vec<_>, _> = text::pairs(request).collect();
        let pairs = pairs.map_err(|_| RejectReason::ProtocolError)?;
        let mut out = Vec::new();
        for (key, value) in pairs {
            match key {
                "SendTargets" => self.send_targets(value, &mut out),
                _ => text::push(&mut out, key, "NotUnderstood"),
            }
            if out.len() > ANSWER_BYTES_MAX {
                return Err(RejectReason::ProtocolError);
            }
        }
        Ok(out)
    }

    /// Appendix C: all targets in a discovery session; the session's own in a normal one.
    fn send_targets(&self, which: &str, out: &mut Vec<u8>) {
        let which = which.to_lowercase();
        let wanted = |name: &str| match (&self.target, which.as_str()) {
            (None, "all") => true,
            (None, which) => which == name,
            (Some(own), "") => own == name,
            (Some(own), which) => own == name && which == own,
        };
        let before = out.len();
        for (_, target) in self.targets.targets.iter().filter(|(name, _)| wanted(name)) {
            let portals: Vec<_> = (self.targets.portals.iter())
                .filter_map(|portal| Some((self.address(target, portal)?, portal.tag)))
                .collect();
            if target.access.of(&self.initiator).is_none() || portals.is_empty() {
                continue;
            }
            text::push(out, "TargetName", &target.name);
            for (address, tag) in portals {
                text::push(out, "TargetAddress", &format!("{address},{tag}"));
            }
        }
        if out.len() == before && self.target.is_some() {
            text::push(out, "SendTargets", "Reject");
        }
    }

    /// Where an initiator that reached `local` reaches the target at a portal, if it does.
    fn address(&self, target: &Target, portal: &Portal) -> Option<SocketAddr> {
        let reached = match portal.listen {
            listen if listen.ip().is_unspecified() => SocketAddr::new(self.local.ip(), listen.port()),
            listen => canonical(listen),
        };
        target.is_reached_at(reached).then_some(portal.advertise.unwrap_or(reached))
    }
}

/// Bytes of an answer, at most: some thousands of targets.
const ANSWER_BYTES_MAX: usize = 1 << 20;

impl Session {
    /// A text request is here, with its data.
    pub(super) fn text(&mut self, data: &[u8], now: Instant) {
        let pdu = Text::read_from_bytes(self.current.as_bytes()).expect("headers have one size");
        if !self.in_window(pdu.cmd_sn.get()) {
            return;
        }
        match self.texts.take(&pdu, data) {
            Ok((ttt, flags, text)) => {
                self.push(Reply::Text { tag: pdu.itt.get(), ttt, flags, text }, now);
            }
            Err(reason) => self.reject_numbered(pdu.cmd_sn.get(), reason, now),
        }
    }
}
