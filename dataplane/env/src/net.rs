//! Byte streams: TCP in production, a faulty model of it in the simulator.

use core::net::SocketAddr;
use std::future::Future;
use std::io::{IoSlice, IoSliceMut};
use std::task::{Context, Poll};

/// Why a network operation failed. The kinds are those a protocol distinguishes; the text is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// the peer reset the connection, or it broke
    #[error("connection reset")]
    Reset,
    /// nothing listens at the address, or nothing answers
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// the address is in use, or not this machine's
    #[error("cannot listen: {0}")]
    CannotListen(String),
    /// the process or the machine has no descriptor or memory for one more connection
    #[error("out of resources: {0}")]
    Exhausted(String),
    /// anything else
    #[error("{0}")]
    Other(String),
}

/// Makes listeners and connections.
pub trait Net {
    /// A connected stream that belongs to this reactor.
    type Stream: Stream;
    /// A listening socket that belongs to this reactor.
    type Listener: Listener<Accepted = Self::Accepted>;
    /// An accepted connection that does not belong to a reactor yet and may be sent to another.
    type Accepted: Send + 'static;

    /// Listens at `address`; port 0 picks a free one.
    ///
    /// # Errors
    /// [`NetError::CannotListen`].
    fn listen(&self, address: SocketAddr) -> Result<Self::Listener, NetError>;

    /// Makes an accepted connection this reactor's own.
    ///
    /// # Errors
    /// [`NetError::Exhausted`], [`NetError::Reset`].
    fn adopt(&self, accepted: Self::Accepted) -> Result<Self::Stream, NetError>;

    /// Connects to `address`.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = Result<Self::Stream, NetError>>;
}

/// A listening socket.
pub trait Listener: 'static {
    /// See [`Net::Accepted`].
    type Accepted: Send + 'static;

    /// The address bound.
    fn local_addr(&self) -> SocketAddr;

    /// The next connection and the peer's address. After [`NetError::Exhausted`] the caller waits a little
    /// before it asks again.
    fn accept(&self) -> impl Future<Output = Result<(Self::Accepted, SocketAddr), NetError>>;
}

/// A connected stream, driven by readiness: the caller owns its buffers and asks again when woken.
///
/// At most one task polls a stream. Both polls remember the waker of their last call.
pub trait Stream: 'static {
    /// The peer's address.
    fn peer_addr(&self) -> SocketAddr;

    /// The address the peer connected to.
    fn local_addr(&self) -> SocketAddr;

    /// Receives into `bufs`, in order, as much as is there. `Ready(Ok(0))` means the peer has finished
    /// sending (or `bufs` are all empty). On `Pending` the task is woken when there may be more.
    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<Result<usize, NetError>>;

    /// Sends the front of `bufs`, in order; returns how many bytes were taken, at least 1 unless all are
    /// empty. On `Pending` the task is woken when there may be room.
    fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize, NetError>>;

    /// Ends the connection both ways: sends what the kernel holds, then FIN. Later polls give an error or 0.
    fn shutdown(&self);
}
