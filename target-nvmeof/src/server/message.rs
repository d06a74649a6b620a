//! What reactors tell each other about the target.

use std::net::SocketAddr;
use std::sync::Arc;

use ashlar_env::reservation::Notice;

use super::admission::Ticket;
use crate::hub::{ConnectionId, Granted, IoError, Refused};
use crate::wire::{Cqe, Sqe};

/// A message between two reactors; `A` is an accepted connection.
pub enum Message<A> {
    /// to any reactor: a connection to serve
    Adopt {
        /// the connection
        accepted: A,
        /// its share of the limits
        ticket: Ticket,
    },
    /// to the hub's reactor
    Request(Request),
    /// to a connection's reactor, by the connection's number there
    Reply(u64, Reply),
}

/// What a connection asks of the hub.
pub enum Request {
    /// a Connect command
    Connect {
        /// whose
        connection: ConnectionId,
        /// the address the host connected to
        local: SocketAddr,
        /// the command
        sqe: Box<Sqe>,
        /// its data
        data: Box<[u8]>,
    },
    /// an admin or Fabrics command
    Command {
        /// whose
        connection: ConnectionId,
        /// the command
        sqe: Box<Sqe>,
        /// its data
        data: Box<[u8]>,
    },
    /// a connection ended
    Disconnected {
        /// which
        connection: ConnectionId,
    },
    /// hosts to be told of reservations
    Notices(Box<[Notice]>),
    /// an I/O command failed
    IoError {
        /// whose
        connection: ConnectionId,
        /// which, and how
        error: IoError,
    },
}

/// What the hub tells a connection.
pub enum Reply {
    /// the answer to Connect
    Connected(Result<Arc<Granted>, Refused>),
    /// a command is complete
    Complete {
        /// which
        cid: u16,
        /// how
        cqe: Cqe,
        /// what goes to the host first
        data: Option<Arc<[u8]>>,
    },
    /// the connection must end
    Close,
}
