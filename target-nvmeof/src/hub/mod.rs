//! The hub: all controllers of all subsystems of a node.
//!
//! One object on one reactor, without I/O: connections, wherever they live, hand it their Connect, Fabrics and
//! admin commands and carry out the effects it gives. I/O commands never come here. The time is an argument;
//! [`Hub::next_deadline`] says when to call [`Hub::tick`].
//!
//! **Invariants.** A controller lives exactly as long as the connection of its admin queue; ending it closes
//! all its connections and sets [`ControllerShared::dead`] first. Every command is completed once, but for
//! Asynchronous Event Requests (completed by an event or never) and commands of closed connections. What a
//! host can make the hub hold is bounded: controllers, queues, events, notifications and errors.
//!
//! **Why VS is 1.4.** Linux needs no more of anything served here, and ESXi 7.0U3 was made when there was no
//! 2.0. What is newer than 1.4 is announced by bits of its own (Copy, for one, in ONCS), which is what hosts
//! look at; the structures and logs that 2.0 demands are answered as well, for hosts that ask all the same.

mod ana;
mod answer;
mod command;
mod config;
mod connect;
mod controller;
mod discovery;
mod error_log;
mod events;
mod features;
mod identify;
mod keep_alive;
mod log_pages;
mod plan;
mod property;
mod report;
mod reservation;
mod shared;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ashlar_env::ReactorId;
use ashlar_env::clock::Instant;
use ashlar_env::reservation::{HostId, ReservationAction};
use ashlar_env::units::VolumeId;
use ashlar_env::volume::Issuer;

use crate::limits::Limits;
use crate::view::Targets;
use crate::wire::{Cqe, Status};

use config::SubsystemState;
use controller::Controller;

pub use error_log::IoError;
pub use plan::{QueueKind, data_plan};
pub use report::ControllerReport;
pub use shared::ControllerShared;

/// A connection of this node, for the node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The reactor it belongs to.
    pub reactor: ReactorId,
    /// Its number there, never reused.
    pub number: u64,
}

/// What the hub is made with.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// What is bounded to what.
    pub limits: Limits,
    /// The smallest controller id to give; no other node of the cluster gives one of the same range.
    pub cntlid_min: u16,
    /// The largest controller id to give, at most FFEFh.
    pub cntlid_max: u16,
    /// The model hosts see (MN), at most 40 printable ASCII characters.
    pub model: String,
    /// The firmware revision hosts see (FR), at most 8 printable ASCII characters.
    pub firmware: String,
    /// The first session number; above every one this node gave before. The generation of the discovery log
    /// starts here as well, so that it rises over a restart.
    pub first_session: u64,
}

/// The largest NSID and the largest number of namespaces of a subsystem (NN, MNAN). With [`ANA_GROUPS_MAX`]
/// the ANA log stays within the smallest transfer limit, as Linux demands. Namespaces above are not shown.
pub const NAMESPACES_MAX: u32 = 4096;
/// The largest ANA group id and number of ANA groups of a subsystem (ANAGRPMAX, NANAGRPID).
pub const ANA_GROUPS_MAX: u32 = 2048;
const _: () = assert!(ana::PAGE_BYTES_MAX <= 128 << 10);
/// Controllers that one host may have in one subsystem: more paths than anybody wires.
pub const CONTROLLERS_PER_HOST_AND_SUBSYSTEM_MAX: usize = 64;

/// What the holder of the hub must do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a completion. The transport fills in the queue head.
    Complete {
        /// to whom
        connection: ConnectionId,
        /// the command
        cid: u16,
        /// the completion
        cqe: Cqe,
        /// what goes to the host before it: exactly as long as [`data_plan`] said
        data: Option<Box<[u8]>>,
    },
    /// Close the connection, sending nothing more. [`Hub::disconnected`] need not follow.
    Close {
        /// which
        connection: ConnectionId,
    },
    /// Execute a reservation action on a volume (feature 83h asks for it) and answer by [`Hub::reserved`].
    Reserve {
        /// whose command
        connection: ConnectionId,
        /// the command
        cid: u16,
        /// on which volume
        volume: VolumeId,
        /// for whom
        issuer: Issuer,
        /// what
        action: ReservationAction,
    },
}

/// A queue that Connect made.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The subsystem's NQN.
    pub subsystem: String,
    /// The host, as reservations know it. A host that leaves it zero shares reservations with all such hosts.
    pub host: HostId,
    /// The host's NQN.
    pub host_nqn: String,
    /// The controller.
    pub cntlid: u16,
    /// The queue; 0 is the admin queue.
    pub qid: u16,
    /// Commands the host may have outstanding on it.
    pub queue_entries: u16,
    /// Completions carry FFFFh as the queue head, and the SUCCESS flag may be used.
    pub sq_flow_control_disabled: bool,
    /// The session that I/O commands of this queue carry as [`Issuer::session`]; unique in the node's life.
    pub session: u64,
    /// A controller of the discovery subsystem.
    pub discovery: bool,
    /// What the controller shares with its queues.
    pub shared: Arc<ControllerShared>,
    /// DW0 of Connect's completion: CNTLID in bits 15:0. Bits 17:16 (ATR, ASCR) would tell the host that
    /// authentication must follow.
    pub dw0: u32,
}

/// Why Connect failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: Status,
    /// DW0 of the completion: which parameter is invalid.
    pub dw0: u32,
}

/// Where a connection belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Queue {
    cntlid: u16,
    qid: u16,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    started: Instant,
    targets: Arc<Targets>,
    subsystems: BTreeMap<String, SubsystemState>,
    controllers: BTreeMap<u16, Controller>,
    queues: BTreeMap<ConnectionId, Queue>,
    /// One entry per controller with a timer: when to look at it, not later than its deadline.
    timers: BTreeSet<(Instant, u16)>,
    effects: VecDeque<Effect>,
    cntlid_next: u16,
    session_next: u64,
    discovery_generation: u64,
}

impl Hub {
    /// A hub without targets.
    ///
    /// # Panics
    /// If the range of controller ids is empty, or reaches into the reserved ones (0, FFF0h and above).
    #[must_use]
    pub fn new(config: HubConfig, now: Instant) -> Self {
        assert!(
            0 < config.cntlid_min && config.cntlid_min <= config.cntlid_max && config.cntlid_max < 0xFFF0
        );
        Self {
            started: now,
            targets: Arc::default(),
            subsystems: BTreeMap::new(),
            controllers: BTreeMap::new(),
            queues: BTreeMap::new(),
            timers: BTreeSet::new(),
            effects: VecDeque::new(),
            cntlid_next: config.cntlid_min,
            session_next: config.first_session,
            discovery_generation: config.first_session.max(1),
            config,
        }
    }

    /// A connection is gone, however it ended: an admin queue takes its controller along, an I/O queue ends alone.
    /// Harmless where the hub closed it itself or never knew it.
    pub fn disconnected(&mut self, connection: ConnectionId) {
        match self.queues.remove(&connection) {
            None => {}
            Some(Queue { cntlid, qid: 0 }) => self.end_controller(cntlid),
            Some(Queue { cntlid, qid }) => {
                self.controller_mut(cntlid).io.remove(&qid);
            }
        }
    }

    /// The next thing to do. May give more after any other call.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn close(&mut self, connection: ConnectionId) {
        self.effects.push_back(Effect::Close { connection });
    }

    fn controller(&self, cntlid: u16) -> &Controller {
        self.controllers.get(&cntlid).expect("a queue's controller lives")
    }

    fn controller_mut(&mut self, cntlid: u16) -> &mut Controller {
        self.controllers.get_mut(&cntlid).expect("a queue's controller lives")
    }

    /// Removes the controller and closes all its connections.
    fn end_controller(&mut self, cntlid: u16) {
        let Some(controller) = self.controllers.remove(&cntlid) else { return };
        controller.shared.end();
        if let Some(at) = controller.keep_alive.armed {
            self.timers.remove(&(at, cntlid));
        }
        for &connection in controller.io.values().chain([&controller.admin]) {
            // The connection that is gone already was taken out of the map before.
            if self.queues.remove(&connection).is_some() {
                self.close(connection);
            }
        }
        if let Some(state) = self.subsystems.get_mut(&controller.subsystem) {
            state.retired.add(&controller.shared);
            state.retired_media_errors += controller.errors.media;
        }
    }

    /// Closes the controller's I/O queues; the controller stays.
    fn close_io_queues(&mut self, cntlid: u16) {
        let io = std::mem::take(&mut self.controller_mut(cntlid).io);
        for connection in io.into_values() {
            self.queues.remove(&connection);
            self.close(connection);
        }
    }

    fn new_session(&mut self) -> u64 {
        let session = self.session_next;
        self.session_next += 1;
        session
    }
}
