//! The event log: every decision, I/O and message, hashed.
//!
//! Two runs of one seed must give the same hash. The last events are kept, to be printed with a failure.

use std::collections::VecDeque;
use std::fmt;

use crate::rng::mix;

/// How many events a failure shows.
const KEPT: usize = 48;

/// What an event is. The three numbers of an [`Event`] depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// a task was polled: task, node, reactor
    Poll = 1,
    /// a task began: task, node, reactor
    Spawn,
    /// a task ended: task, node, reactor
    End,
    /// an event of the world fell due: number
    Due,
    /// a connection was asked for: connection, from node, port
    Connect,
    /// a connection reached a listener: connection, node, port
    Accept,
    /// a connection was refused or given up: connection
    Refuse,
    /// bytes were taken from a sender: connection and side, length, digest
    Send,
    /// bytes arrived at a receiver: connection and side, length
    Arrive,
    /// bytes were handed to a receiver: connection and side, length
    Receive,
    /// a sender finished: connection and side
    Fin,
    /// a connection broke for one side: connection and side
    Reset,
    /// a direction stalled: connection and side, nanoseconds
    Stall,
    /// a message entered a link between reactors: node, from and to, number
    MeshSend,
    /// a message left a link: node, from and to, number
    MeshReceive,
    /// a disk operation was issued: disk, operation, start
    DiskIssue,
    /// a write took effect: disk, operation, digest
    DiskLand,
    /// a disk operation completed: disk, operation, 0 or the error's code
    DiskComplete,
    /// a fault was injected: which, where, more
    Fault,
    /// a node crashed: node, incarnation
    Crash,
    /// a node came back: node, incarnation
    Restart,
    /// a node paused: node, nanoseconds
    Pause,
    /// a path was cut or healed: from, to, 1 for cut
    Path,
    /// noted by a test: anything
    Note,
}

/// One entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Virtual time in nanoseconds.
    pub at_ns: u64,
    /// What happened.
    pub kind: Kind,
    /// Its numbers; see [`Kind`].
    pub numbers: [u64; 3],
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.numbers;
        let kind = format!("{:?}", self.kind);
        write!(f, "{:>12}.{:03} us  {kind:<12} {a:#x} {b:#x} {c:#x}", self.at_ns / 1000, self.at_ns % 1000)
    }
}

/// The log of a run.
#[derive(Clone, Debug, Default)]
pub struct EventLog {
    hash: u64,
    count: u64,
    last: VecDeque<Event>,
}

impl EventLog {
    /// Appends an event.
    pub fn push(&mut self, event: Event) {
        let [a, b, c] = event.numbers;
        for word in [event.at_ns, event.kind as u64, a, b, c] {
            self.hash = (self.hash ^ word).wrapping_mul(0x9FB2_1C65_1E98_DF25).rotate_left(29);
        }
        self.count += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(event);
    }

    /// The hash of all events so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        mix(self.hash ^ self.count)
    }

    /// How many events there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last events, oldest first.
    pub fn last(&self) -> impl Iterator<Item = &Event> {
        self.last.iter()
    }
}
