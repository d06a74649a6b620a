//! A model of TCP.
//!
//! What it does to its users, all of it legal for TCP:
//!
//! * a connection takes time to set up, is refused, or times out where a path is cut or a node has no power;
//! * each direction holds a bounded number of bytes; a reader that stops makes the writer wait;
//! * sends and receives move fewer bytes than they could, cut at arbitrary bytes;
//! * segments are delayed with a long tail, and stay in order; loss is a longer delay;
//! * a direction stalls for seconds; a connection breaks in the middle of anything, and the two sides learn
//!   of it at different times, with or without the bytes that were on their way;
//! * after a power failure the peer hears nothing, until its retransmissions give up or the node is back and
//!   answers with a reset; after the death of a process the kernel closes its sockets.
//!
//! Every byte that is delivered is right and in order: what TCP's own checksum misses is `Planted`, not a fault.

mod conn;
mod connect;
mod listen;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use crate::executor::Crash;
use crate::node::NodeId;
use crate::world::World;

use conn::{Conn, Gone};
pub(crate) use connect::connect;
pub use listen::{SimAccepted, SimListener};
pub use stream::SimStream;

/// The number of a connection; never used twice.
pub(crate) type ConnId = u64;

/// One side of a connection: 0 connected, 1 accepted.
pub(crate) type Side = usize;

pub(crate) const CLIENT: Side = 0;
pub(crate) const SERVER: Side = 1;

/// How the log names a side of a connection.
pub(crate) fn name(id: ConnId, side: Side) -> u64 {
    id << 1 | side as u64
}

/// All connections and listeners.
pub(crate) struct NetState {
    seed: u64,
    conns: BTreeMap<ConnId, Conn>,
    listeners: BTreeMap<u64, ListenerState>,
    cuts: BTreeSet<(NodeId, NodeId, Option<u8>)>,
    calm: bool,
    next_id: u64,
    next_port: u16,
    /// Accepted connections that were dropped before a reactor made them its own.
    orphans: Arc<Mutex<Vec<ConnId>>>,
}

struct ListenerState {
    node: NodeId,
    ip: IpAddr,
    port: u16,
    backlog: Vec<ConnId>,
    waker: Option<Waker>,
}

impl NetState {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            conns: BTreeMap::new(),
            listeners: BTreeMap::new(),
            cuts: BTreeSet::new(),
            calm: false,
            next_id: 1,
            next_port: 49_152,
            orphans: Arc::default(),
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A port from the dynamic range; wraps, so that only 16 384 can be in use.
    fn fresh_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == u16::MAX { 49_152 } else { port + 1 };
        port
    }

    pub fn set_cut(&mut self, from: NodeId, to: NodeId, path: Option<u8>, cut: bool) {
        if cut {
            self.cuts.insert((from, to, path));
        } else if path.is_none() {
            self.cuts.retain(|&(f, t, _)| (f, t) != (from, to));
        } else {
            self.cuts.remove(&(from, to, path));
        }
    }

    fn is_cut(&self, from: NodeId, to: NodeId, path: u8) -> bool {
        self.cuts.contains(&(from, to, None)) || self.cuts.contains(&(from, to, Some(path)))
    }

    pub fn calm(&mut self) {
        self.calm = true;
        self.cuts.clear();
    }

    pub fn open_sides(&self, node: NodeId) -> usize {
        let open =
            |conn: &Conn| conn.ends.iter().filter(|end| end.node == node && end.gone == Gone::No).count();
        self.conns.values().map(open).sum()
    }

    fn listener_at(&self, node: NodeId, ip: IpAddr, port: u16) -> Option<u64> {
        self.listeners
            .iter()
            .find(|(_, l)| l.node == node && l.port == port && (l.ip == ip || l.ip.is_unspecified()))
            .map(|(&id, _)| id)
    }
}

/// Closes accepted connections that nobody wanted.
pub(crate) fn close_orphans(world: &Rc<World>) {
    let orphans = {
        let net = world.net.borrow();
        let mut orphans = net.orphans.lock().expect("no owner of an accepted connection panics in its drop");
        std::mem::take(&mut *orphans)
    };
    for id in orphans {
        conn::close(world, id, SERVER);
    }
}

/// What a node's crash does to its sockets.
pub(crate) fn crash(world: &Rc<World>, node: NodeId, how: Crash) {
    let sides: Vec<(ConnId, Side)> = {
        let mut net = world.net.borrow_mut();
        net.listeners.retain(|_, listener| listener.node != node);
        net.sides_of(node)
    };
    for (id, side) in sides {
        conn::end_by_crash(world, id, side, how);
    }
}

/// Breaks every connection of `node`.
pub(crate) fn reset_all(world: &Rc<World>, node: NodeId) {
    let sides = world.net.borrow().sides_of(node);
    for (id, _) in sides {
        conn::break_both(world, id);
    }
}

impl NetState {
    fn sides_of(&self, node: NodeId) -> Vec<(ConnId, Side)> {
        let mut sides = Vec::new();
        for (&id, conn) in &self.conns {
            for (side, end) in conn.ends.iter().enumerate() {
                if end.node == node && end.gone == Gone::No {
                    sides.push((id, side));
                }
            }
        }
        sides
    }
}
