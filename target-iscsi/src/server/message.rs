//! What reactors tell each other.

use ashlar_env::mesh::ReactorId;

use super::admission::Ticket;
use crate::login::Established;
use crate::wire::LoginStatus;

/// A connection of the node: its reactor, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Where it is.
    pub reactor: ReactorId,
    /// Its number there, never reused.
    pub number: u64,
}

/// A message between two reactors; `A` is an accepted connection.
pub enum Message<A> {
    /// to any reactor: a connection to serve
    Adopt {
        /// the connection
        accepted: A,
        /// its share of the limits
        ticket: Ticket,
    },
    /// to the reactor of the registry
    Request(ConnectionId, Request),
    /// to a connection's reactor, by the connection's number there
    Reply(u64, Reply),
}

/// What a connection asks of the registry of sessions.
#[derive(Debug)]
pub enum Request {
    /// register a session; once
    Register(Box<Established>),
    /// the connection has ended, and nothing of it takes effect any more
    Gone,
    /// the other sessions of the target are to have no command in execution that came before
    Quiet {
        /// the task management function's tag
        tag: u32,
        /// on which logical unit; all of them without
        lun: Option<u16>,
    },
    /// all sessions of the target are to end, this one included
    EndAll,
    /// what [`Reply::Quiet`] asked for is done
    IsQuiet(u64),
}

/// What the registry, or the server, tells a connection.
#[derive(Debug)]
pub enum Reply {
    /// the session is registered, or not
    Registered(Result<Granted, LoginStatus>),
    /// commands on a logical unit, or on all, are to end; say so as this job
    Quiet {
        /// the job
        job: u64,
        /// the logical unit
        lun: Option<u16>,
    },
    /// the other sessions are quiet
    AllQuiet {
        /// the task management function's tag
        tag: u32,
    },
    /// the logical units are reset
    WasReset {
        /// the task management function's tag
        tag: u32,
    },
    /// the session must end
    End,
    /// there is a new configuration
    Configured,
    /// the node is about to stop
    Drain,
}

/// A registered session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Its number for the initiator, never 0.
    pub tsih: u16,
    /// Its number in the node's life, never 0.
    pub session: u64,
}
