//! Validated names: of objects, of NVMe subsystems and hosts (NQN), of iSCSI nodes (IQN).
//!
//! A value of these types is valid by construction, also when it comes from disk or from a peer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest object name, in characters.
pub const NAME_CHARS_MAX: usize = 63;
/// Longest NQN, in bytes (NVMe Base Specification, section 4.7), without the terminating zero.
pub const NQN_BYTES_MAX: usize = 223;
/// Longest iSCSI name, in bytes (RFC 7143, section 4.2.7.1).
pub const IQN_BYTES_MAX: usize = 223;
/// The NQN every discovery subsystem has (NVMe Base Specification, section 4.7); no target may take it.
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";
/// What Ashlar puts before a target's name to make its default NQN.
pub const NQN_PREFIX: &str = "nqn.2026-11.io.ashlar:";
/// What Ashlar puts before a target's name to make its default IQN.
pub const IQN_PREFIX: &str = "iqn.2026-11.io.ashlar:";

/// Why a text is not a name, as a sentence that quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

impl NameError {
    pub(super) fn new(sentence: String) -> Self {
        NameError(sentence)
    }
}

/// Conversions from text of a type that has `parse`.
macro_rules! parsed_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}
pub(super) use parsed_text;

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        parsed_text!($name);

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype! {
    /// The name of a node, group, target or host: 1 to 63 of `A-Z a-z 0-9 . _ -`, the first a letter
    /// or digit.
    Name
}

text_newtype! {
    /// The name of a volume: a [`Name`], or `group/name`.
    VolumeName
}

text_newtype! {
    /// An NVMe Qualified Name of a subsystem or a host. Compared byte by byte.
    Nqn
}

text_newtype! {
    /// An iSCSI name of a target or an initiator (`iqn.`, `eui.` or `naa.`), kept in lower case
    /// because such names are compared without regard to case (RFC 7143, section 4.2.7.1).
    Iqn
}

/// Quotes `text` for an error, cut and escaped so that a hostile name cannot fill a log.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() { format!("{shown:?}...") } else { format!("{shown:?}") }
}

fn check_simple(text: &str, whole: &str) -> Result<(), NameError> {
    let fail = |why: String| Err(NameError(format!("{} is no valid name: {why}", quoted(whole))));
    if text.is_empty() {
        return fail("it is empty".into());
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        return fail(format!("it contains {bad:?}; letters, digits, '.', '_' and '-' may be used"));
    }
    if text.len() > NAME_CHARS_MAX {
        return fail(format!("it has {} characters, the most is {NAME_CHARS_MAX}", text.len()));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return fail("it must begin with a letter or a digit".into());
    }
    Ok(())
}

impl Name {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_simple(text, text)?;
        Ok(Name(text.into()))
    }
}

impl VolumeName {
    /// Checks `text`: one name, or two with `/` between.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            None => check_simple(text, text)?,
            Some((group, name)) => {
                check_simple(group, text)?;
                check_simple(name, text)?;
            }
        }
        Ok(VolumeName(text.into()))
    }

    /// The volume group this name puts the volume into: the part before `/`, or the whole name.
    pub fn group(&self) -> Name {
        Name(self.0.split_once('/').map_or(self.0.as_str(), |(group, _)| group).to_owned())
    }
}

/// Whether `text` is `YYYY-MM.` followed by at least one more character.
fn has_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    bytes.len() > 8
        && [0, 1, 2, 3, 5, 6].into_iter().all(digit)
        && bytes[4] == b'-'
        && bytes[7] == b'.'
        && matches!(&bytes[5..7], [b'0', b'1'..=b'9'] | [b'1', b'0'..=b'2'])
}

fn check_qualified(text: &str, what: &str, bytes_max: usize) -> Result<(), NameError> {
    let fail = |why: String| Err(NameError(format!("{} is no valid {what}: {why}", quoted(text))));
    if text.len() > bytes_max {
        return fail(format!("it has {} bytes, the most is {bytes_max}", text.len()));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return fail(format!("it contains {bad:?}; only visible ASCII characters may be used"));
    }
    Ok(())
}

impl Nqn {
    /// Checks `text`: `nqn.YYYY-MM.reversed.domain:anything`, up to 223 bytes of visible ASCII.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_qualified(text, "NQN", NQN_BYTES_MAX)?;
        if !text.strip_prefix("nqn.").is_some_and(has_date) {
            return Err(NameError(format!(
                "{} is no valid NQN: it must look like nqn.2014-08.org.example:name",
                quoted(text)
            )));
        }
        Ok(Nqn(text.into()))
    }

    /// The NQN a target of this name gets unless another is asked for.
    pub fn of_target(name: &Name) -> Self {
        Nqn(format!("{NQN_PREFIX}{name}"))
    }
}

impl Iqn {
    /// Checks `text` and turns it to lower case: `iqn.YYYY-MM.reversed.domain[:anything]`, `eui.` with
    /// 16 hexadecimal digits, or `naa.` with 16 or 32.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_qualified(text, "iSCSI name", IQN_BYTES_MAX)?;
        let lower = text.to_ascii_lowercase();
        let hex = |digits: &str, counts: &[usize]| {
            counts.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit())
        };
        let valid = match lower.split_once('.') {
            Some(("iqn", rest)) => {
                has_date(rest)
                    && rest
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_'))
            }
            Some(("eui", digits)) => hex(digits, &[16]),
            Some(("naa", digits)) => hex(digits, &[16, 32]),
            _ => false,
        };
        if !valid {
            return Err(NameError(format!(
                "{} is no valid iSCSI name: it must look like iqn.2014-08.org.example:name, with letters, digits, \
                 '.', '-', '_' and ':'",
                quoted(text)
            )));
        }
        Ok(Iqn(lower))
    }

    /// The IQN a target of this name gets unless another is asked for.
    pub fn of_target(name: &Name) -> Self {
        Iqn(format!("{IQN_PREFIX}{}", name.as_str().to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "db", "rack1-a", "A.b_c-9", &"x".repeat(63)] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(64);
        for (bad, why) in [
            ("", "empty"),
            ("-a", "begin"),
            (".", "begin"),
            ("a b", "' '"),
            ("a/b", "'/'"),
            ("a\u{e4}", "may be used"),
            ("a\n", "'\\n'"),
            (&long, "64 characters"),
        ] {
            let error = Name::parse(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_volume_name_says_its_group() {
        assert_eq!(VolumeName::parse("db").unwrap().group().as_str(), "db");
        assert_eq!(VolumeName::parse("shop/db").unwrap().group().as_str(), "shop");
        for bad in ["a/b/c", "/a", "a/", "/", "a@b", "../a"] {
            assert!(VolumeName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nqns_are_checked() {
        for good in [
            DISCOVERY_NQN,
            "nqn.2014-08.org.nvmexpress:uuid:7e9f2a56-1b60-4b2d-9f5e-0d5c5d0e1b11",
            "nqn.2026-11.io.ashlar:vmware",
        ] {
            assert_eq!(Nqn::parse(good).unwrap().as_str(), good);
        }
        let long = format!("nqn.2014-08.{}", "x".repeat(212));
        assert_eq!(long.len(), NQN_BYTES_MAX + 1);
        assert!(Nqn::parse(&long[..NQN_BYTES_MAX]).is_ok());
        for bad in [
            "",
            "nqn.",
            "nqn.2014-13.org:x",
            "nqn.2014-08.",
            "nqn.20x4-08.org:x",
            "iqn.2014-08.org:x",
            "nqn.2014-08.org :x",
            &long,
        ] {
            assert!(Nqn::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn iscsi_names_are_checked_and_lowered() {
        assert_eq!(
            Iqn::parse("IQN.1998-01.com.vmware:ESX1").unwrap().as_str(),
            "iqn.1998-01.com.vmware:esx1"
        );
        for good in ["eui.02004567a425678d", "naa.52004567ba64678d", "naa.62004567ba64678d0123456789abcdef"] {
            assert_eq!(Iqn::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "iqn.1998-00.com", "iqn.1998-01.com:a,b", "eui.0200", "naa.xyz", "nqn.2014-08.org:x"]
        {
            assert!(Iqn::parse(bad).is_err(), "{bad:?}");
        }
        let name = Name::parse("VMware").unwrap();
        assert_eq!(Iqn::of_target(&name).as_str(), "iqn.2026-11.io.ashlar:vmware");
        assert_eq!(Nqn::of_target(&name).as_str(), "nqn.2026-11.io.ashlar:VMware");
    }

    #[test]
    fn default_names_of_the_longest_target_are_valid() {
        let name = Name::parse(&"x".repeat(NAME_CHARS_MAX)).unwrap();
        assert!(Nqn::parse(Nqn::of_target(&name).as_str()).is_ok());
        assert!(Iqn::parse(Iqn::of_target(&name).as_str()).is_ok());
        // An underscore is legal in a name, and so must be in the names made from it.
        let name = Name::parse("a_b.c-d").unwrap();
        assert!(Iqn::parse(Iqn::of_target(&name).as_str()).is_ok());
    }

    #[test]
    fn errors_quote_at_most_a_line() {
        let error = Name::parse(&"\u{1b}[31m".repeat(1000)).unwrap_err().to_string();
        assert!(error.len() < 1000 && !error.contains('\u{1b}'), "{error}");
    }
}
