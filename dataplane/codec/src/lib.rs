//! Checksums. CRC32C (Castagnoli: RFC 3720, section 12.1) is NVMe/TCP's digest and the engine's block checksum.
//!
//! The values are finalised CRCs: initial value all ones, reflected, final inversion.

use crc_fast::{CrcAlgorithm, Digest, checksum_combine, crc32_iscsi};

/// The CRC32C of `data`.
#[must_use]
pub fn crc32c(data: &[u8]) -> u32 {
    crc32_iscsi(data)
}

/// The CRC32C of what `crc` covers followed by `data`; `crc` is 0 where that is nothing.
#[must_use]
pub fn crc32c_append(crc: u32, data: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(data);
    digest.finalize() as u32
}

/// The CRC32C of two pieces in sequence from the CRC of each, without the data. `second_len` is in bytes.
#[must_use]
pub fn crc32c_combine(first: u32, second: u32, second_len: u64) -> u32 {
    checksum_combine(CrcAlgorithm::Crc32Iscsi, u64::from(first), u64::from(second), second_len) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bit by bit, from the polynomial (reflected 82F63B78h).
    fn slow(data: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for &byte in data {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn known_values() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b""), 0);
    }

    proptest! {
        #[test]
        fn all_ways_agree_with_the_slow_twin(
            a in proptest::collection::vec(any::<u8>(), 0..600),
            b in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let both: Vec<u8> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(crc32c(&both), slow(&both));
            prop_assert_eq!(crc32c_append(crc32c(&a), &b), slow(&both));
            prop_assert_eq!(crc32c_combine(crc32c(&a), crc32c(&b), b.len() as u64), slow(&both));
        }
    }
}
