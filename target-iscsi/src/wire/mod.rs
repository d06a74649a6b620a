//! What travels: headers of PDUs (RFC 7143, section 11), additional header segments, and text (section 6).

pub mod ahs;
pub mod bhs;
pub mod request;
pub mod response;
pub mod text;

pub use bhs::{BHS_BYTES, Bhs, Length, NO_TAG, opcode};
pub use response::LoginStatus;

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 4;

/// The bytes that fill `len` up to a multiple of four (section 11.2.3).
#[must_use]
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// Whether sequence number `a` comes before `b` (RFC 1982, with 32 bits).
#[must_use]
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        assert!(before(u32::MAX, 0) && before(0, 1) && !before(1, 1) && !before(5, u32::MAX));
        assert_eq!([0, 1, 2, 3, 4].map(padding), [0, 3, 2, 1, 0]);
    }
}
