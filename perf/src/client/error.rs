//! What can go wrong between this host and a controller.

use ashlar_nvmeof::wire::Status;

/// A result of the client.
pub type Result<T> = std::result::Result<T, ClientError>;

/// An error of the client. All but [`Status`](ClientError::Status) end the connection.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The controller closed the connection.
    #[error("the controller closed the connection")]
    Closed,
    /// The controller ended the connection with C2HTermReq.
    #[error("the controller ended the connection: fatal error status {fes:#04x}, information {fei:#010x}")]
    Terminated {
        /// Fatal error status.
        fes: u16,
        /// Fatal error information.
        fei: u32,
    },
    /// The controller sent what it must not.
    #[error("the controller broke the protocol: {0}")]
    Protocol(String),
    /// The controller did not answer in time.
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
    /// The request cannot be made to this controller.
    #[error("{0}")]
    Setup(String),
}

impl ClientError {
    /// Whether a later attempt on a new connection may succeed: the path failed, not the request.
    #[must_use]
    pub fn is_path_failure(&self) -> bool {
        match self {
            Self::Io(_) | Self::Closed | Self::Timeout(_) | Self::Terminated { .. } => true,
            Self::Status { status, .. } => status.field() & (1 << 15) == 0,
            Self::Protocol(_) | Self::Setup(_) => false,
        }
    }
}

pub(crate) fn protocol<T>(what: impl Into<String>) -> Result<T> {
    Err(ClientError::Protocol(what.into()))
}
