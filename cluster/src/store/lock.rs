//! Keeps a second process away from a control state.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::StoreError;

/// Longest process number that is read from a lock file, in bytes.
const HOLDER_BYTES_MAX: u64 = 16;

/// An exclusive lock on `FILE.lock`, held until dropped or until the process ends, however it ends.
///
/// It is a file of its own because creating the control state renames a file into place.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock that guards `path`.
    pub fn acquire(path: &Path) -> Result<Lock, StoreError> {
        let lock_path = path.with_extension("lock");
        let io = |doing| move |e| StoreError::io(path, doing, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(io("create the lock of"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: path.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(e)) => return Err(io("lock")(e)),
        }
        // The number is for the message above only; a full disk must not keep a node from starting.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Lock { _file: file })
    }
}

/// ` (process 123)` if the lock file says so.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(HOLDER_BYTES_MAX).read_to_string(&mut text);
    match (read, text.parse::<u32>()) {
        (Ok(_), Ok(process)) => format!(" (process {process})"),
        _ => String::new(),
    }
}
