//! Text: `key=value` pairs, each ended by a NUL (RFC 7143, section 6.1).

/// Bytes of a key's name, at most.
const KEY_BYTES_MAX: usize = 63;
/// Bytes of a value, at most: the longest are binary values of CHAP (1024 bytes in hex).
const VALUE_BYTES_MAX: usize = 2 + 2 * 1024;
/// Bytes of any other value, at most.
pub const SIMPLE_VALUE_BYTES_MAX: usize = 255;

/// The text breaks a rule: no final NUL, no `=`, or a name or value of a wrong length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The pairs of `text`, in order.
///
/// # Errors
/// At the first pair that breaks a rule; nothing follows it.
pub fn pairs(text: &[u8]) -> impl Iterator<Item = Result<(&str, &str), Malformed>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        // Padding that was counted as data: NULs without a pair.
        while let [0, tail @ ..] = rest {
            rest = tail;
        }
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().position(|&byte| byte == 0);
        let pair = end.map(|end| &rest[..end]);
        rest = end.map_or(&[], |end| &rest[end + 1..]);
        let pair = pair.and_then(|pair| pair_of(pair));
        if pair.is_none() {
            rest = &[];
        }
        Some(pair.ok_or(Malformed))
    })
}

fn pair_of(bytes: &[u8]) -> Option<(&str, &str)> {
    let (key, value) = std::str::from_utf8(bytes).ok()?.split_once('=')?;
    let longest = if key.starts_with("CHAP_") { VALUE_BYTES_MAX } else { SIMPLE_VALUE_BYTES_MAX };
    let fits = !key.is_empty() && key.len() <= KEY_BYTES_MAX && value.len() <= longest;
    let named = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+@_#".contains(&byte));
    (fits && named).then_some((key, value))
}

/// Appends a pair.
pub fn push(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// A number: decimal, or hexadecimal after `0x`.
#[must_use]
pub fn number(value: &str) -> Option<u32> {
    let hex = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((value, 10), |hex| (hex, 16));
    // The parser would take a sign.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// Bytes in hexadecimal after `0x`, or in base64 after `0b` (section 6.1); `max` bytes at most.
#[must_use]
pub fn binary(value: &str, max: usize) -> Option<Vec<u8>> {
    let (prefix, digits) = value.split_at_checked(2)?;
    match prefix {
        "0x" | "0X" => hex(digits, max),
        "0b" | "0B" => base64(digits, max),
        _ => None,
    }
}

fn hex(digits: &str, max: usize) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() / 2 > max {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|nibble| nibble as u8);
    let (pairs, _) = digits.as_bytes().as_chunks::<2>();
    pairs.iter().map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect()
}

fn base64(digits: &str, max: usize) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(4) || digits.len() / 4 * 3 > max + 2 {
        return None;
    }
    let body = digits.trim_end_matches('=');
    let missing = digits.len() - body.len();
    if missing > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in body.bytes() {
        bits = bits << 6 | u32::from(sextet(digit)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0 && bytes.len() <= max).then_some(bytes)
}

fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// Bytes as hexadecimal after `0x`.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(nibble.into(), 16));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Result<Vec<(&str, &str)>, Malformed> {
        pairs(text).collect()
    }

    #[test]
    fn pairs_are_taken_apart() {
        assert_eq!(all(b"a=1\0b=x=y\0c=\0"), Ok(vec![("a", "1"), ("b", "x=y"), ("c", "")]));
        assert_eq!(all(b"a=1\0\0\0"), Ok(vec![("a", "1")]));
        assert_eq!(all(b""), Ok(vec![]));
    }

    #[test]
    fn malformed_text_is_refused() {
        let long = [vec![b'k'; 64], b"=1\0".to_vec()].concat();
        let wide = [b"k=".to_vec(), vec![b'v'; 256], b"\0".to_vec()].concat();
        for text in [&b"a=1"[..], b"a\0", b"=1\0", b"a=\xFF\0", b"a b=1\0", &long, &wide] {
            assert_eq!(all(text), Err(Malformed), "{text:?}");
        }
        assert!(all(&long[1..]).is_ok());
    }

    #[test]
    fn numbers_in_both_bases() {
        assert_eq!(number("262144"), Some(262_144));
        assert_eq!(number("0x40000"), Some(262_144));
        for wrong in ["", "0x", "-1", "+1", "1 ", "4294967296", "0xFFFFFFFFF", "1f"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn binary_in_both_forms() {
        assert_eq!(binary("0x00ffAb", 3), Some(vec![0, 255, 0xAB]));
        assert_eq!(binary("0bAP+r", 3), Some(vec![0, 255, 0xAB]));
        assert_eq!(binary("0bAP8=", 3), Some(vec![0, 255]));
        assert_eq!(binary("0bAA==", 3), Some(vec![0]));
        for wrong in
            ["0xABC", "0x", "0b", "0xGG", "0b====", "0bA===", "0bAP9=", "0bA.==", "AB", "0", "0x00000000"]
        {
            assert_eq!(binary(wrong, 3), None, "{wrong}");
        }
        assert_eq!(binary("0bAAAAAA==", 3), None);
        assert_eq!(to_hex(&[0, 255, 0xAB]), "0x00ffab");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_bounded(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            for pair in pairs(&bytes).flatten() {
                assert!(pair.0.len() <= KEY_BYTES_MAX && pair.1.len() <= VALUE_BYTES_MAX);
                if let Some(decoded) = binary(pair.1, 20) {
                    assert!(decoded.len() <= 20);
                }
            }
        }
    }
}
