//! Text of login: `key=value` pairs, each ended by a zero byte (RFC 7143, section 6.1).

use std::fmt::Display;

use crate::client::Result;
use crate::client::error::protocol;

/// Text to send.
#[derive(Debug, Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
}

impl Text {
    pub(super) fn put(&mut self, key: &str, value: impl Display) {
        self.bytes.extend_from_slice(format!("{key}={value}\0").as_bytes());
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The pairs of received text, in their order.
    pub(super) fn parse(bytes: &[u8]) -> Result<Vec<(&str, &str)>> {
        let Ok(text) = std::str::from_utf8(bytes) else { return protocol("text that is not UTF-8") };
        let pair = |piece| match str::split_once(piece, '=') {
            Some((key, value)) if !key.is_empty() => Ok((key, value)),
            _ => protocol(format!("the text {piece:?}, which is no key=value")),
        };
        text.split('\0').filter(|piece| !piece.is_empty()).map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut text = Text::default();
        text.put("TargetName", "iqn.2026-01.test:a=b");
        text.put("MaxConnections", 1);
        let bytes = text.into_bytes();
        let expected = [("TargetName", "iqn.2026-01.test:a=b"), ("MaxConnections", "1")];
        assert_eq!(Text::parse(&bytes).unwrap(), expected);
        assert_eq!(Text::parse(b"").unwrap(), []);
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for bytes in [&b"NoValue\0"[..], b"=value\0", b"\xFF\xFE=1\0"] {
            assert!(Text::parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
