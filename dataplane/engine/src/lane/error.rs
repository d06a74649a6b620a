//! Why a lane did not do what it was asked.

use crate::chunks::StoreError;
use crate::log::LogError;
use crate::segment::ShardError;

/// Why a lane did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// no such volume
    #[error("there is no such volume")]
    NoVolume,
    /// no such snapshot
    #[error("there is no such snapshot")]
    NoSnapshot,
    /// something hangs on it
    #[error("{0}")]
    InUse(String),
    /// it exists already
    #[error("a volume of this identity exists already")]
    Exists,
    /// the range reaches beyond the end
    #[error("the range reaches beyond the end of the volume")]
    OutOfRange,
    /// no space
    #[error("no space is left; nothing stored was lost. Delete or unmap data, or add a device")]
    Full,
    /// stored data or metadata is not what was written
    #[error("stored data is damaged: {0}; nothing wrong was returned")]
    Damaged(String),
    /// what is newest is on a device that is not there
    #[error("{0}; nothing was changed. Bring the device back that is missing")]
    Absent(String),
    /// a store failed
    #[error(transparent)]
    Store(#[from] StoreError),
    /// the log failed
    #[error(transparent)]
    Log(LogError),
    /// the lane was closed
    #[error("the group is closed")]
    Closed,
}

impl From<LogError> for LaneError {
    fn from(error: LogError) -> Self {
        if error == LogError::Full { Self::Full } else { Self::Log(error) }
    }
}

impl From<ShardError> for LaneError {
    fn from(failed: ShardError) -> Self {
        if failed.error == StoreError::Full { Self::Full } else { Self::Store(failed.error) }
    }
}
