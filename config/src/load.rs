//! Reading the file itself.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use crate::read::TEXT_LEN_MAX;
use crate::{Config, ConfigError};

/// Why a file gave no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// The file could not be read.
    Unreadable(PathBuf, io::Error),
    /// The file was read and refused.
    Refused(ConfigError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "error: cannot read the configuration {}: {error}", path.display())
            }
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

impl Config {
    /// Reads the configuration from a file.
    ///
    /// # Errors
    ///
    /// [`LoadError`], whose text is ready to be shown.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let bytes = read_bounded(path).map_err(|error| LoadError::Unreadable(path.to_owned(), error))?;
        let file = path.display().to_string();
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(&file, text).map_err(LoadError::Refused),
            Err(error) => Err(LoadError::Refused(not_utf8(file, &bytes, error.valid_up_to()))),
        }
    }
}

/// At most one byte more than a configuration may have, so that a device or a disk image given by mistake
/// is refused instead of read.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(TEXT_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn not_utf8(file: String, bytes: &[u8], valid_up_to: usize) -> ConfigError {
    let text = String::from_utf8_lossy(bytes);
    // Up to here the lossy text is the text itself, so the offset points at the first replaced byte.
    let span = valid_up_to..valid_up_to + char::REPLACEMENT_CHARACTER.len_utf8();
    let message = "the file is not UTF-8 text".to_owned();
    let help = "is it the right file? If so, save it as UTF-8".to_owned();
    ConfigError { file, diagnostics: vec![crate::Diagnostic::new(&text, span, message, Some(help))] }
}
