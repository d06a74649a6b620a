//! What can go wrong between this host, or initiator, and a target.

use ashlar_nvmeof::wire::Status;

use crate::iscsi::Outcome;

/// A result of a client.
pub type Result<T> = std::result::Result<T, ClientError>;

/// An error of a client. All but [`Status`](ClientError::Status) and [`Scsi`](ClientError::Scsi) end the connection.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The target closed the connection.
    #[error("the target closed the connection")]
    Closed,
    /// The controller ended the connection with C2HTermReq.
    #[error("the controller ended the connection: fatal error status {fes:#04x}, information {fei:#010x}")]
    Terminated {
        /// Fatal error status.
        fes: u16,
        /// Fatal error information.
        fei: u32,
    },
    /// The iSCSI target refused the login.
    #[error("the target refused the login with status {class:02x}/{detail:02x}")]
    Login {
        /// Status class.
        class: u8,
        /// Status detail.
        detail: u8,
    },
    /// The iSCSI target asks, in an asynchronous message, that the session or connection end.
    #[error("the target asks for the end of the session (asynchronous event {event})")]
    Asked {
        /// The event.
        event: u8,
    },
    /// The target sent what it must not.
    #[error("the target broke the protocol: {0}")]
    Protocol(String),
    /// The target did not answer in time.
    #[error("no answer to {0} in time")]
    Timeout(&'static str),
    /// A command that had to succeed did not.
    #[error("{what} failed with status {status:?} (dw0 {dw0:#010x})")]
    Status {
        /// The command.
        what: &'static str,
        /// Its status.
        status: Status,
        /// Dword 0 of its completion.
        dw0: u32,
    },
    /// A SCSI command that had to succeed did not.
    #[error("{what} failed with {outcome}")]
    Scsi {
        /// The command.
        what: &'static str,
        /// How it ended.
        outcome: Outcome,
    },
    /// The request cannot be made to this target.
    #[error("{0}")]
    Setup(String),
}

impl ClientError {
    /// Whether a later attempt on a new connection may succeed: the path failed, not the request.
    #[must_use]
    pub fn is_path_failure(&self) -> bool {
        match self {
            Self::Io(_) | Self::Closed | Self::Timeout(_) | Self::Terminated { .. } => true,
            // Redirection, and a target that cannot serve now.
            Self::Login { class, .. } => matches!(class, 1 | 3),
            Self::Asked { .. } => true,
            Self::Scsi { outcome, .. } => outcome.is_transient(),
            Self::Status { status, .. } => status.field() & (1 << 15) == 0,
            Self::Protocol(_) | Self::Setup(_) => false,
        }
    }
}

pub(crate) fn protocol<T>(what: impl Into<String>) -> Result<T> {
    Err(ClientError::Protocol(what.into()))
}
