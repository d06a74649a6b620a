//! CHAP secrets on the command line: drawn or read here, sent to the node, and shown once.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;

use ashlar_cluster::api::HostView;
use ashlar_cluster::state::{CHAP_SECRET_CHARS_MAX, CHAP_SECRET_CHARS_USUAL_MAX, ChapSecret};
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::output::{self, Format};

/// What drawn secrets are made of: 64 characters, hence 6 bits each, that need no quotes in a shell or a URL.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";

/// Where a secret is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// A file; the first line is the secret.
    File(PathBuf),
    /// Standard input, likewise.
    Stdin,
}

impl FromStr for SecretSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "-" { Self::Stdin } else { Self::File(text.into()) })
    }
}

impl SecretSource {
    /// Standard input has one secret only.
    pub fn check_both(chap: Option<&Self>, mutual: Option<&Self>) -> Result<(), Failure> {
        if chap == Some(&Self::Stdin) && mutual == Some(&Self::Stdin) {
            let why = "both secrets were to be read from standard input";
            return Err(Failure::new(Exit::Usage, why, "give one of them in a file"));
        }
        Ok(())
    }

    fn read(&self) -> Result<ChapSecret, Failure> {
        match self {
            Self::Stdin => read_from(&mut io::stdin().lock(), "standard input"),
            Self::File(path) => {
                let name = path.display().to_string();
                let mut file = File::open(path).map_err(|error| unreadable(&name, &error))?;
                read_from(&mut file, &name)
            }
        }
    }
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
    Failure::new(exit, format_args!("cannot read a CHAP secret from {name}: {error}"), "")
}

/// The secret, which is all there is but for a line end. No message quotes it.
fn read_from(source: &mut impl Read, name: &str) -> Result<ChapSecret, Failure> {
    // Enough to see that it is too long.
    let bound = CHAP_SECRET_CHARS_MAX as u64 + 16;
    let mut bytes = Vec::new();
    source.take(bound).read_to_end(&mut bytes).map_err(|error| unreadable(name, &error))?;
    let text = String::from_utf8(bytes).unwrap_or_else(|_| "\u{fffd}".to_owned());
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    ChapSecret::parse(text)
        .map_err(|error| Failure::new(Exit::Usage, format_args!("{name} holds no CHAP secret: {error}"), ""))
}

/// Draws a secret: 16 characters of 6 bits, from the operating system's generator.
fn draw() -> Result<ChapSecret, Failure> {
    let mut bytes = [0; CHAP_SECRET_CHARS_USUAL_MAX];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(Exit::Failed, format_args!("no random numbers are to be had: {error}"), "")
    })?;
    let text: String = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect();
    Ok(ChapSecret::parse(&text).expect("16 characters of the alphabet are a secret"))
}

/// The secret of one direction.
#[derive(Debug)]
pub(crate) enum Direction {
    /// None.
    None,
    /// One that its owner knows.
    Given(ChapSecret),
    /// One that nobody has seen.
    Drawn(ChapSecret),
}

impl Direction {
    pub fn secret(&self) -> Option<ChapSecret> {
        match self {
            Self::None => None,
            Self::Given(secret) | Self::Drawn(secret) => Some(secret.clone()),
        }
    }

    fn make(wanted: Option<Option<&SecretSource>>) -> Result<Self, Failure> {
        Ok(match wanted {
            None => Self::None,
            Some(None) => Self::Drawn(draw()?),
            Some(Some(source)) => Self::Given(source.read()?),
        })
    }

    /// The secret, if it must be shown.
    fn to_show(&self) -> Option<&str> {
        match self {
            Self::Drawn(secret) => Some(secret.expose()),
            Self::None | Self::Given(_) => None,
        }
    }
}

/// The secrets of both directions.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// What the host has to know.
    pub chap: Direction,
    /// What the target has to know.
    pub mutual: Direction,
}

impl Drawn {
    /// Draws those that are wanted, or reads them where there is a source.
    pub fn make(
        chap: Option<Option<&SecretSource>>,
        mutual: Option<Option<&SecretSource>>,
    ) -> Result<Self, Failure> {
        let drawn = Self { chap: Direction::make(chap)?, mutual: Direction::make(mutual)? };
        for direction in [&drawn.chap, &drawn.mutual] {
            let chars = direction.secret().map_or(0, |secret| secret.expose().len());
            if chars > CHAP_SECRET_CHARS_USUAL_MAX {
                output::note(&format!(
                    "warning: a CHAP secret of {chars} characters; Windows and ESXi take \
                     {CHAP_SECRET_CHARS_USUAL_MAX} at most"
                ));
            }
        }
        Ok(drawn)
    }
}

/// A host with the secrets that nobody has seen yet.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    host: &'a HostView,
    #[serde(skip_serializing_if = "Option::is_none")]
    chap_secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutual_chap_secret: Option<&'a str>,
}

/// Prints what was `done` to `host`, and the drawn secrets, which nothing shows again.
pub(crate) fn show_once(format: Format, host: &HostView, done: String, drawn: &Drawn) -> Result<(), Failure> {
    let (chap, mutual) = (drawn.chap.to_show(), drawn.mutual.to_show());
    let shown = Shown { host, chap_secret: chap, mutual_chap_secret: mutual };
    output::show(format, &shown, |_| {
        let mut text = done + "\n";
        if chap.is_some() || mutual.is_some() {
            text.push_str("Note this now, it is shown this once:\n");
        }
        if let Some(secret) = chap {
            let user = host.iqn.as_deref().unwrap_or_default();
            text.push_str(&format!("  CHAP user           {user}\n  CHAP secret         {secret}\n"));
        }
        if let Some(secret) = mutual {
            text.push_str("  mutual CHAP user    the target's IQN\n");
            text.push_str(&format!("  mutual CHAP secret  {secret}\n"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_secrets_are_16_characters_that_differ() {
        let secrets: Vec<_> = (0..64).map(|_| draw().unwrap()).collect();
        for (at, secret) in secrets.iter().enumerate() {
            assert_eq!(secret.expose().len(), 16);
            assert!(secret.expose().bytes().all(|byte| ALPHABET.contains(&byte)));
            assert!(!secrets[..at].contains(secret));
        }
        // Each of 64 characters is missing among 1024 once in ten million draws.
        let mut used: Vec<u8> = secrets.iter().flat_map(|secret| secret.expose().bytes()).collect();
        used.sort_unstable();
        used.dedup();
        assert!(used.len() > 60, "{}", used.len());
    }

    #[test]
    fn a_file_is_a_secret_with_or_without_a_line_end() {
        for text in ["twelve-chars", "twelve-chars\n", "twelve-chars\r\n"] {
            assert_eq!(read_from(&mut text.as_bytes(), "f").unwrap().expose(), "twelve-chars");
        }
        let long = "y".repeat(300);
        for bad in ["elevenchars", "two lines of\ntext", "", &long, "\u{fffd}twelve-chars"] {
            let said = read_from(&mut bad.as_bytes(), "f").unwrap_err().to_string();
            assert!(said.contains("f holds no CHAP secret"), "{said}");
            assert!(bad.is_empty() || !said.contains(bad), "{said}");
        }
    }
}
