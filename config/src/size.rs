//! Sizes in bytes, as people write them and as Ashlar says them back.
//!
//! Binary and decimal units are kept apart: `GiB` is 2^30 bytes, `GB` is 10^9. A bare letter (`10G`) is
//! binary, as `lvcreate`, `qemu-img` and `truncate` read it. Output always names the full unit, so what
//! was understood can be seen.

use std::fmt;
use std::str::FromStr;

use crate::decimal::{self, Decimal, Inexact};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(u64);

/// Units by the name they are printed with, smallest first, binary and decimal in turn.
const UNITS: [(&str, u64); 12] = [
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("PB", 1_000_000_000_000_000),
    ("PiB", 1 << 50),
    ("EB", 1_000_000_000_000_000_000),
    ("EiB", 1 << 60),
];

impl Bytes {
    /// `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// `kib` times 1024 bytes.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// `mib` times 1024^2 bytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The size in three or four significant digits of a binary unit, for tables: `931.32 GiB`.
    ///
    /// Exact sizes that are short in either system are said exactly (`1 TB`, `1.5 GiB`). [`Display`]
    /// never rounds.
    ///
    /// [`Display`]: fmt::Display
    pub fn rounded(self) -> String {
        let exact = self.to_string();
        if exact.len() <= "1023.5 GiB".len() && !exact.ends_with(" B") || self.0 < 1024 {
            return exact;
        }
        let (name, unit) = UNITS
            .iter()
            .rfind(|(name, unit)| name.ends_with("iB") && *unit <= self.0)
            .expect("at least 1 KiB");
        // Two decimals of a size below 1024 units: the precision of f64 is ample here.
        format!("{:.2} {name}", self.0 as f64 / *unit as f64)
    }
}

impl fmt::Display for Bytes {
    /// The shortest exact form: `10 GiB`, `1.5 TB`, `4097 B`. What it prints parses to the same size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut best = format!("{} B", self.0);
        for (name, unit) in UNITS {
            let Some(number) = decimal::exact(self.0, unit) else { continue };
            let text = format!("{number} {name}");
            // On equal length the larger unit wins, and binary comes after decimal in the table.
            if text.len() <= best.len() {
                best = text;
            }
        }
        f.pad(&best)
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseBytesError {
    /// It does not start with a plain decimal number.
    Malformed(String),
    /// What follows the number is not a unit.
    UnknownUnit(String),
    /// It is above 16 EiB - 1 byte.
    TooLarge(String),
    /// It is not a whole number of bytes.
    Fraction(String),
}

impl fmt::Display for ParseBytesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => {
                write!(f, "`{text}` is not a size; write a number and a unit, such as 10GiB, 1.5TB or 512M")
            }
            Self::UnknownUnit(unit) => write!(
                f,
                "`{unit}` is not a unit of size; use KiB, MiB, GiB, TiB, PiB (binary; K, M, G, T, P for short) \
                 or kB, MB, GB, TB, PB (decimal)"
            ),
            Self::TooLarge(text) => write!(f, "`{text}` is more than 64 bits can count"),
            Self::Fraction(text) => write!(f, "`{text}` is not a whole number of bytes"),
        }
    }
}

impl std::error::Error for ParseBytesError {}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, ParseBytesError> {
        let number = Decimal::split(text).ok_or_else(|| ParseBytesError::Malformed(text.to_owned()))?;
        let unit =
            unit_bytes(number.unit).ok_or_else(|| ParseBytesError::UnknownUnit(number.unit.to_owned()))?;
        number.times(unit).map(Self).map_err(|inexact| match inexact {
            Inexact::TooLarge => ParseBytesError::TooLarge(text.to_owned()),
            Inexact::Fraction => ParseBytesError::Fraction(text.to_owned()),
        })
    }
}

/// The bytes of a unit as typed, in any case: `GiB`, `GB`, `G`, `Gi`, `B` or nothing.
fn unit_bytes(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if unit.is_empty() || unit == "b" {
        return Some(1);
    }
    let mut letters = unit.chars();
    let exponent = "kmgtpe".find(letters.next()?)? as u32 + 1;
    match letters.as_str() {
        "" | "i" | "ib" => Some(1 << (10 * exponent)),
        "b" => Some(1000u64.pow(exponent)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(text: &str) -> u64 {
        text.parse::<Bytes>().unwrap_or_else(|e| panic!("{e}")).get()
    }

    #[test]
    fn decimal_and_binary_are_kept_apart() {
        assert_eq!(size("10GiB"), 10 << 30);
        assert_eq!(size("10GB"), 10_000_000_000);
        assert_eq!(size("10G"), 10 << 30);
        assert_eq!(size("10 Gi"), 10 << 30);
        assert_eq!(size("1.5TB"), 1_500_000_000_000);
        assert_eq!(size("512m"), 512 << 20);
        assert_eq!(size("4096"), 4096);
        assert_eq!(size("4096 B"), 4096);
        assert_eq!(size("15EiB"), 15 << 60);
    }

    #[test]
    fn what_is_not_a_size_says_why() {
        let error = |text: &str| text.parse::<Bytes>().unwrap_err();
        assert_eq!(error("big"), ParseBytesError::Malformed("big".into()));
        assert_eq!(error(""), ParseBytesError::Malformed(String::new()));
        assert_eq!(error("-1G"), ParseBytesError::Malformed("-1G".into()));
        assert_eq!(error("10 Gb/s"), ParseBytesError::UnknownUnit("Gb/s".into()));
        assert_eq!(error("10GiBB"), ParseBytesError::UnknownUnit("GiBB".into()));
        assert_eq!(error("16EiB"), ParseBytesError::TooLarge("16EiB".into()));
        assert_eq!(error("0.3KiB"), ParseBytesError::Fraction("0.3KiB".into()));
    }

    #[test]
    fn output_names_the_unit() {
        let said = |bytes| Bytes::new(bytes).to_string();
        assert_eq!(said(0), "0 B");
        assert_eq!(said(512), "512 B");
        assert_eq!(said(4096), "4 KiB");
        assert_eq!(said(10 << 30), "10 GiB");
        assert_eq!(said(1_500_000_000_000), "1.5 TB");
        assert_eq!(said((3 << 30) / 2), "1.5 GiB");
        assert_eq!(said(4097), "4097 B");
        assert_eq!(said(1 << 60), "1 EiB");
        assert_eq!(said(1000), "1 kB");
    }

    #[test]
    fn tables_get_a_short_form() {
        assert_eq!(Bytes::new(10 << 30).rounded(), "10 GiB");
        assert_eq!(Bytes::new(1_000_204_886_016).rounded(), "931.51 GiB");
        assert_eq!(Bytes::new(1023).rounded(), "1023 B");
        assert_eq!(Bytes::new(u64::MAX).rounded(), "16.00 EiB");
        assert_eq!(Bytes::new(1025).rounded(), "1.00 KiB");
    }

    proptest! {
        #[test]
        fn printed_sizes_parse_to_themselves(bytes: u64) {
            prop_assert_eq!(size(&Bytes::new(bytes).to_string()), bytes);
        }

        #[test]
        fn printed_round_sizes_parse_to_themselves(count in 0u64..2048, unit in 0usize..12) {
            if let Some(bytes) = count.checked_mul(UNITS[unit].1) {
                prop_assert_eq!(size(&Bytes::new(bytes).to_string()), bytes);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = text.parse::<Bytes>();
        }

        #[test]
        fn any_near_miss_is_read_or_refused(text in "[0-9]{0,24}\\.?[0-9]{0,24} ?[a-zA-Z]{0,4}") {
            let _ = text.parse::<Bytes>();
        }
    }
}
