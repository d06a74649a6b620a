//! The scenario's protocol: fixed headers, little-endian.

use crate::rng::digest;

/// Bytes of a request's header; the data of a write follow.
pub const REQUEST_BYTES: usize = 32;
/// Bytes of a reply's header; the data of a read follow.
pub const REPLY_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Read,
    Write { fua: bool },
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub verb: Verb,
    pub lba: u64,
    pub sectors: u64,
}

impl Request {
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[0] = match self.verb {
            Verb::Read => 1,
            Verb::Write { fua: false } => 2,
            Verb::Write { fua: true } => 3,
            Verb::Flush => 4,
        };
        bytes[8..16].copy_from_slice(&self.lba.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sectors.to_le_bytes());
        let sum = digest(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let word =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a word has eight bytes"));
        if word(24) != digest(&bytes[..24]) {
            return None;
        }
        let verb = match bytes[0] {
            1 => Verb::Read,
            2 => Verb::Write { fua: false },
            3 => Verb::Write { fua: true },
            4 => Verb::Flush,
            _ => return None,
        };
        Some(Self { verb, lba: word(8), sectors: word(16) })
    }
}

pub fn reply(ok: bool) -> [u8; REPLY_BYTES] {
    let mut bytes = [0; REPLY_BYTES];
    bytes[..8].copy_from_slice(b"ashreply");
    bytes[8] = u8::from(ok);
    bytes
}

/// Whether a reply says success; `None` where it is none.
pub fn parse_reply(bytes: &[u8; REPLY_BYTES]) -> Option<bool> {
    (*bytes == reply(true)).then_some(true).or_else(|| (*bytes == reply(false)).then_some(false))
}
