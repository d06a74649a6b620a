//! Logical unit numbers (SAM-5, section 4.7).

/// The number a LUN of eight bytes means, in the peripheral device or the flat space addressing method of a single
/// level; `None` for all others.
#[must_use]
pub fn decode(lun: u64) -> Option<u16> {
    let (first, rest) = ((lun >> 48) as u16, lun & 0x0000_FFFF_FFFF_FFFF);
    let number = match first >> 14 {
        // A bus other than 0 means nothing here.
        0b00 => (first <= 0xFF).then_some(first),
        0b01 => Some(first & 0x3FFF),
        _ => None,
    };
    number.filter(|_| rest == 0)
}

/// The eight bytes for a number: peripheral device addressing below 256, flat space addressing above.
#[must_use]
pub fn encode(number: u16) -> u64 {
    let first = if number < 256 { number } else { 0x4000 | (number & 0x3FFF) };
    u64::from(first) << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives() {
        for number in 0..=0x3FFF {
            assert_eq!(decode(encode(number)), Some(number));
            assert_eq!(decode((0x4000 | u64::from(number)) << 48), Some(number));
        }
    }

    #[test]
    fn other_methods_mean_nothing() {
        for lun in [0xC101 << 48, 0x8001 << 48, 0x0101 << 48, 1 << 48 | 1, 0x4001_0001_0000_0000, u64::MAX] {
            assert_eq!(decode(lun), None, "{lun:#x}");
        }
    }
}
