//! Which CPU cores get a reactor.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The highest core number a list may name; Linux counts no further on any machine it supports.
const CORE_MAX: u32 = 8191;

/// The cores that reactors run on, one reactor each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Every core that the process may run on.
    All,
    /// The first so many of the cores that the process may run on. At least 1.
    Count(u32),
    /// These cores by number, ascending, at least one.
    List(Vec<u32>),
}

/// Why cores cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoresError {
    /// The text is neither `all` nor a list of numbers and ranges.
    Malformed(String),
    /// A range ends before it starts.
    Reversed(u32, u32),
    /// A core is named twice.
    Twice(u32),
    /// A core number is above any that exists.
    TooHigh(String),
    /// The count is zero.
    Zero,
    /// The process may not run on this core, or it does not exist here.
    NotHere(u32),
    /// More cores are asked for than the process may run on: asked, available.
    TooMany(u32, usize),
}

impl fmt::Display for CoresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => {
                write!(
                    f,
                    "`{text}` does not name cores; write \"all\", a count such as 4, or a list such as \"0-3,8\""
                )
            }
            Self::Reversed(from, to) => write!(f, "the range {from}-{to} ends before it starts"),
            Self::Twice(core) => write!(f, "core {core} is named twice; a core runs one reactor"),
            Self::TooHigh(text) => write!(f, "core {text} is above {CORE_MAX}, the highest core number"),
            Self::Zero => write!(f, "a node needs at least one reactor"),
            Self::NotHere(core) => {
                write!(
                    f,
                    "core {core} does not exist here or is not allowed to this process (see `taskset -p`)"
                )
            }
            Self::TooMany(asked, available) => {
                write!(f, "{asked} cores are asked for and {available} are available to this process")
            }
        }
    }
}

impl std::error::Error for CoresError {}

impl Cores {
    /// The core numbers to use, out of `available`, the cores that the process may run on.
    ///
    /// # Errors
    ///
    /// [`CoresError::NotHere`] or [`CoresError::TooMany`] when the machine has less than was asked for.
    pub fn choose(&self, available: &[u32]) -> Result<Vec<u32>, CoresError> {
        match self {
            Self::All => Ok(available.to_vec()),
            Self::Count(count) => match available.get(..*count as usize) {
                Some(first) => Ok(first.to_vec()),
                None => Err(CoresError::TooMany(*count, available.len())),
            },
            Self::List(list) => match list.iter().find(|core| !available.contains(core)) {
                Some(missing) => Err(CoresError::NotHere(*missing)),
                None => Ok(list.clone()),
            },
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "{count}"),
            Self::List(list) => {
                let numbers: Vec<String> = list.iter().map(u32::to_string).collect();
                f.write_str(&numbers.join(","))
            }
        }
    }
}

impl FromStr for Cores {
    type Err = CoresError;

    /// Reads `all` or a list of core numbers and ranges. A lone number is a list of that one core.
    fn from_str(text: &str) -> Result<Self, CoresError> {
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let mut cores = BTreeSet::new();
        for part in text.split(',') {
            let (from, to) = match part.split_once('-') {
                Some((from, to)) => (core(from, text)?, core(to, text)?),
                None => (core(part, text)?, core(part, text)?),
            };
            if to < from {
                return Err(CoresError::Reversed(from, to));
            }
            if let Some(twice) = (from..=to).find(|core| !cores.insert(*core)) {
                return Err(CoresError::Twice(twice));
            }
        }
        Ok(Self::List(cores.into_iter().collect()))
    }
}

/// One core number out of the list `whole`.
fn core(text: &str, whole: &str) -> Result<u32, CoresError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(CoresError::Malformed(whole.to_owned()));
    }
    match text.parse() {
        Ok(core) if core <= CORE_MAX => Ok(core),
        _ => Err(CoresError::TooHigh(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_lists_and_ranges() {
        assert_eq!("all".parse(), Ok(Cores::All));
        assert_eq!("0-3, 8".parse(), Ok(Cores::List(vec![0, 1, 2, 3, 8])));
        assert_eq!("5".parse(), Ok(Cores::List(vec![5])));
        assert_eq!("8,0".parse(), Ok(Cores::List(vec![0, 8])));
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        let refused = |text: &str| text.parse::<Cores>().unwrap_err();
        assert_eq!(refused("3-1"), CoresError::Reversed(3, 1));
        assert_eq!(refused("0-3,2"), CoresError::Twice(2));
        assert_eq!(refused("0-99999999999"), CoresError::TooHigh("99999999999".into()));
        for text in ["", "some", "1,", "-1", "1-", "1-2-3", "+1", "0x1"] {
            assert_eq!(refused(text), CoresError::Malformed(text.into()), "{text:?}");
        }
    }

    #[test]
    fn chooses_from_what_is_there() {
        let available = [0, 1, 4];
        assert_eq!(Cores::All.choose(&available), Ok(vec![0, 1, 4]));
        assert_eq!(Cores::Count(2).choose(&available), Ok(vec![0, 1]));
        assert_eq!(Cores::Count(4).choose(&available), Err(CoresError::TooMany(4, 3)));
        assert_eq!(Cores::List(vec![4]).choose(&available), Ok(vec![4]));
        assert_eq!(Cores::List(vec![2]).choose(&available), Err(CoresError::NotHere(2)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9, al]*") {
            if let Ok(Cores::List(list)) = text.parse() {
                prop_assert!(!list.is_empty());
                prop_assert!(list.is_sorted());
            }
        }
    }
}
