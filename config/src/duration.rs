//! Durations as people write them: `50us`, `10s`, `1.5min`.

use std::fmt;
use std::time::Duration;

use crate::decimal::{self, Decimal, Inexact};

/// Units by the name they are printed with, in nanoseconds, largest first.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseDurationError {
    /// It is not a number with a unit.
    Malformed(String),
    /// It is finer than a nanosecond.
    Fraction(String),
    /// It is above 2^64 - 1 nanoseconds, about 584 years.
    TooLarge(String),
}

impl fmt::Display for ParseDurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => {
                write!(
                    f,
                    "`{text}` is not a duration; write a number and ns, us, ms, s, min or h, such as 50us or 10s"
                )
            }
            Self::Fraction(text) => write!(f, "`{text}` is finer than a nanosecond"),
            Self::TooLarge(text) => write!(f, "`{text}` is longer than 64 bits of nanoseconds"),
        }
    }
}

impl std::error::Error for ParseDurationError {}

/// Reads a number with one of the units `ns`, `us`, `ms`, `s`, `min` (or `m`), `h`. The unit is required,
/// except after `0`.
///
/// # Errors
///
/// [`ParseDurationError`], which quotes the text.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let malformed = || ParseDurationError::Malformed(text.to_owned());
    let number = Decimal::split(text).ok_or_else(malformed)?;
    let wanted = match number.unit {
        "m" => "min",
        "" if number.times(1) == Ok(0) => "ns",
        unit => unit,
    };
    let (_, unit_ns) = UNITS.iter().find(|(name, _)| *name == wanted).ok_or_else(malformed)?;
    number.times(*unit_ns).map(Duration::from_nanos).map_err(|inexact| match inexact {
        Inexact::Fraction => ParseDurationError::Fraction(text.to_owned()),
        Inexact::TooLarge => ParseDurationError::TooLarge(text.to_owned()),
    })
}

/// Writes a duration exactly, in the largest unit that needs at most two decimals: `50us`, `1.5s`.
///
/// Durations above 2^64 - 1 nanoseconds are written as whole seconds, rounded down.
pub fn display(duration: Duration) -> String {
    let Ok(ns) = u64::try_from(duration.as_nanos()) else {
        return format!("{}s", duration.as_secs());
    };
    UNITS
        .iter()
        .find_map(|(name, unit)| Some(format!("{}{name}", decimal::exact(ns, *unit)?)))
        .unwrap_or_else(|| "0s".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse("50us"), Ok(Duration::from_micros(50)));
        assert_eq!(parse("1.5 s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        assert_eq!(parse("10"), Err(ParseDurationError::Malformed("10".into())));
        assert_eq!(parse("always"), Err(ParseDurationError::Malformed("always".into())));
        assert_eq!(parse("0.5ns"), Err(ParseDurationError::Fraction("0.5ns".into())));
        assert_eq!(parse("99999999999h"), Err(ParseDurationError::TooLarge("99999999999h".into())));
    }

    #[test]
    fn writes_the_largest_exact_unit() {
        assert_eq!(display(Duration::from_micros(50)), "50us");
        assert_eq!(display(Duration::from_millis(1500)), "1.5s");
        assert_eq!(display(Duration::from_secs(90)), "1.5min");
        assert_eq!(display(Duration::ZERO), "0s");
        assert_eq!(display(Duration::MAX), "18446744073709551615s");
    }

    proptest! {
        #[test]
        fn printed_durations_parse_to_themselves(ns: u64) {
            let duration = Duration::from_nanos(ns);
            prop_assert_eq!(parse(&display(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
