//! What can go wrong with the store, in words for people.

use std::io;
use std::path::{Path, PathBuf};

use crate::state::{Refusal, RefusalKind};

/// Why the control state could not be opened or a change could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bytes of the file are damaged, or it was never a control state.
    #[error("the control state in {} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system refused an operation.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done, as a verb.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has the control state open.
    #[error("the control state in {} is open in another process{holder}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Which process, as ` (process 123)`, if that is known.
        holder: String,
    },
    /// The file system or the quota is full.
    #[error("there is no space left for the control state in {}", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a release with another format.
    #[error("the control state in {} is of another release: {why}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Which version was found, and which one is read.
        why: String,
    },
}

impl StoreError {
    /// The error of `doing` something to `path`.
    pub(super) fn io(path: &Path, doing: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreError::NoSpace { path }
            }
            // How redb says that a file is not its own.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                StoreError::Damaged { path, why: source.to_string() }
            }
            _ => StoreError::Io { path, doing, source },
        }
    }

    /// The error of `doing` something to the database in `path`.
    pub(super) fn redb(path: &Path, doing: &'static str, error: impl Into<redb::Error>) -> Self {
        let owned = path.to_owned();
        match error.into() {
            redb::Error::Io(source) => StoreError::io(path, doing, source),
            redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path: owned, holder: String::new() },
            redb::Error::UpgradeRequired(version) => StoreError::Version {
                path: owned,
                why: format!("its file format is version {version} of redb's"),
            },
            redb::Error::PreviousIo => {
                StoreError::Io { path: owned, doing, source: io::Error::other("an earlier write failed") }
            }
            other => StoreError::Damaged { path: owned, why: other.to_string() },
        }
    }

    /// The same as a refusal of `what`; `opening` says whether the node was about to start.
    pub fn refuse(&self, what: impl Into<String>, opening: bool) -> Refusal {
        let kind = match self {
            StoreError::NoSpace { .. } => RefusalKind::NoSpace,
            StoreError::Locked { .. } => RefusalKind::InUse,
            StoreError::Damaged { .. } | StoreError::Io { .. } | StoreError::Version { .. } => {
                RefusalKind::Failed
            }
        };
        let not_lost = if opening {
            "the file was not written to; it is as it was found"
        } else {
            "the change was not made, and everything before it is kept"
        };
        let next = match self {
            StoreError::NoSpace { .. } => "free some space, then ask again",
            StoreError::Locked { .. } => {
                "stop the other node, or start this one with another --data directory"
            }
            StoreError::Damaged { .. } => {
                "restore the file from a backup, or move it away to start anew; images are not touched by either"
            }
            StoreError::Version { .. } => {
                "start the release that wrote it, or move the file away to start anew"
            }
            StoreError::Io { .. } => "check the disk and the permissions, then try again",
        };
        Refusal::new(kind, what, self.to_string()).not_lost(not_lost).next(next)
    }
}
