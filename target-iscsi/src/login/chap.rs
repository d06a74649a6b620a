//! CHAP (RFC 1994; RFC 7143, section 12.1.3): challenge and response.

use ashlar_env::Rng;
use md5::Md5;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use sha3::Sha3_256;
use subtle::ConstantTimeEq;

/// Bytes of a challenge from the initiator, at most.
pub const CHALLENGE_BYTES_MAX: usize = 1024;
/// Bytes of the longest digest.
pub const DIGEST_BYTES_MAX: usize = 32;

/// Digest algorithms, with their CHAP_A codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    /// MD5
    Md5 = 5,
    /// SHA-1
    Sha1 = 6,
    /// SHA-256
    Sha256 = 7,
    /// SHA3-256
    Sha3 = 8,
}

impl Algorithm {
    /// The first of a list of codes that is known here.
    #[must_use]
    pub fn first_of(list: &str) -> Option<Self> {
        list.split(',').find_map(|code| match code {
            "5" => Some(Self::Md5),
            "6" => Some(Self::Sha1),
            "7" => Some(Self::Sha256),
            "8" => Some(Self::Sha3),
            _ => None,
        })
    }

    /// Bytes of its digest.
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sha3 => 32,
        }
    }

    /// The response to `challenge` (RFC 1994, section 4.1).
    #[must_use]
    pub fn respond(self, id: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
        fn digest<D: Digest>(parts: [&[u8]; 3]) -> Vec<u8> {
            parts.into_iter().fold(D::new(), Digest::chain_update).finalize().to_vec()
        }
        let parts = [&[id][..], secret, challenge];
        match self {
            Self::Md5 => digest::<Md5>(parts),
            Self::Sha1 => digest::<Sha1>(parts),
            Self::Sha256 => digest::<Sha256>(parts),
            Self::Sha3 => digest::<Sha3_256>(parts),
        }
    }
}

/// What the target asks of an initiator: drawn anew for each login.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// CHAP_I.
    pub id: u8,
    bytes: [u8; DIGEST_BYTES_MAX],
}

impl Challenge {
    /// An unpredictable challenge.
    #[must_use]
    pub fn draw(rng: &impl Rng) -> Self {
        let mut bytes = [0; DIGEST_BYTES_MAX];
        for chunk in bytes.as_chunks_mut::<8>().0 {
            *chunk = rng.random_u64().to_be_bytes();
        }
        Self { id: rng.random_u64() as u8, bytes }
    }

    /// CHAP_C: as long as the algorithm's digest.
    #[must_use]
    pub fn bytes(&self, algorithm: Algorithm) -> &[u8] {
        &self.bytes[..algorithm.digest_bytes()]
    }
}

/// Whether two byte strings are the same, in a time that depends on their lengths alone.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::text::to_hex;

    #[test]
    fn algorithms_by_preference_of_the_initiator() {
        assert_eq!(Algorithm::first_of("8,7,6,5"), Some(Algorithm::Sha3));
        assert_eq!(Algorithm::first_of("9,5"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::first_of("0,999"), None);
        assert_eq!(Algorithm::first_of("0x5"), None);
    }

    /// Digests of the bytes "abc", as their specifications list them.
    #[test]
    fn known_digests() {
        let of = |algorithm: Algorithm| to_hex(&algorithm.respond(b'a', b"b", b"c"));
        assert_eq!(of(Algorithm::Md5), "0x900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(of(Algorithm::Sha1), "0xa9993e364706816aba3e25717850c26c9cd0d89d");
        let sha256 = "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of(Algorithm::Sha256), sha256);
        let sha3 = "0x3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532";
        assert_eq!(of(Algorithm::Sha3), sha3);
        for algorithm in [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha3] {
            assert_eq!(algorithm.respond(1, b"", b"").len(), algorithm.digest_bytes());
        }
    }
}
