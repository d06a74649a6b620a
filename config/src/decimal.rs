//! Decimal numbers with a unit, read exactly: no floating point between what was typed and the result.

/// The most digits a number may have. With it a product with any unit below 2^61 fits `u128`.
const DIGITS_MAX: usize = 20;

/// A number and the unit that follows it: `1.5TB` is 15, one decimal, `TB`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decimal<'a> {
    digits: u128,
    decimals: u32,
    /// What stood behind the number, trimmed; empty when nothing did.
    pub(crate) unit: &'a str,
}

/// Why a product is not a whole `u64`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inexact {
    /// It is above `u64::MAX`.
    TooLarge,
    /// It has a fraction.
    Fraction,
}

impl<'a> Decimal<'a> {
    /// Splits `text` into number and unit. `None` when it does not start with a plain decimal number, or
    /// that number has more digits than any size or duration needs.
    pub(crate) fn split(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (whole, fraction) = match number.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (number, ""),
        };
        if whole.is_empty() || fraction.contains('.') || whole.len() + fraction.len() > DIGITS_MAX {
            return None;
        }
        let digits = whole.bytes().chain(fraction.bytes()).fold(0u128, |n, b| n * 10 + u128::from(b - b'0'));
        Some(Self { digits, decimals: fraction.len() as u32, unit: unit.trim() })
    }

    /// The number times `unit`, when that is a whole `u64`. `unit` is at most 2^60.
    pub(crate) fn times(&self, unit: u64) -> Result<u64, Inexact> {
        assert!(unit <= 1 << 60, "the product must fit u128");
        let product = self.digits * u128::from(unit);
        let divisor = 10u128.pow(self.decimals);
        if !product.is_multiple_of(divisor) {
            return Err(Inexact::Fraction);
        }
        u64::try_from(product / divisor).map_err(|_| Inexact::TooLarge)
    }
}

/// Writes `value` in units of `unit` with at most two decimals, or `None` when that is not exact or is
/// below one unit.
pub(crate) fn exact(value: u64, unit: u64) -> Option<String> {
    let hundredths = u128::from(value) * 100;
    let unit_wide = u128::from(unit);
    if value < unit || !hundredths.is_multiple_of(unit_wide) {
        return None;
    }
    let hundredths = hundredths / unit_wide;
    let (whole, fraction) = (hundredths / 100, hundredths % 100);
    if fraction == 0 {
        return Some(whole.to_string());
    }
    let text = format!("{whole}.{fraction:02}");
    Some(text.trim_end_matches('0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_number_and_unit() {
        let one_and_a_half = Decimal::split(" 1.5 TB ").unwrap();
        assert_eq!(one_and_a_half, Decimal { digits: 15, decimals: 1, unit: "TB" });
        assert_eq!(one_and_a_half.times(1_000_000_000_000), Ok(1_500_000_000_000));
        for text in ["", "G", ".5G", "1.G", "1.2.3", "-1", "+1", "123456789012345678901"] {
            assert_eq!(Decimal::split(text), None, "{text:?}");
        }
    }

    #[test]
    fn products_are_whole_or_refused() {
        assert_eq!(Decimal::split("0.3").unwrap().times(1024), Err(Inexact::Fraction));
        assert_eq!(Decimal::split("16").unwrap().times(1 << 60), Err(Inexact::TooLarge));
        assert_eq!(Decimal::split("99999999999999999999").unwrap().times(1 << 60), Err(Inexact::TooLarge));
    }

    #[test]
    fn exact_keeps_two_decimals_at_most() {
        assert_eq!(exact(1536, 1024).as_deref(), Some("1.5"));
        assert_eq!(exact(1125, 1000), None);
        assert_eq!(exact(512, 1024), None);
        assert_eq!(exact(u64::MAX, 1).as_deref(), Some("18446744073709551615"));
    }
}
