//! A connection: two pipes, and all that can happen to them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use super::{ConnId, NetState, Side, name};
use crate::event::Kind;
use crate::executor::Crash;
use crate::node::NodeId;
use crate::rng::{Prng, Rate};
use crate::world::World;

/// How long retransmission goes on before the sender gives the connection up, in nanoseconds.
const GIVE_UP_NS: u64 = 60_000_000_000;

/// Whether a side still has its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// yes
    No,
    /// closed: its kernel answers with a reset
    Closed,
    /// without power: nothing answers until the node is back
    Silent,
}

/// How far the set-up is, as the connecting side sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    Waiting,
    Done,
    Failed(&'static str),
}

pub(crate) struct Conn {
    /// Which of the networks it uses.
    pub path: u8,
    pub(super) setup: Setup,
    pub ends: [End; 2],
    pub rng: Prng,
}

pub(crate) struct End {
    pub node: NodeId,
    pub addr: SocketAddr,
    pub gone: Gone,
    /// This side has learned that the connection broke.
    pub broken: bool,
    /// This side shut the connection down.
    pub shut: bool,
    /// What this side sends.
    pub out: Pipe,
    pub receiver: Option<Waker>,
    pub sender: Option<Waker>,
}

/// One direction.
#[derive(Default)]
pub(crate) struct Pipe {
    /// On the way, each with the time it arrives, ascending; an empty one is the FIN.
    pub flight: VecDeque<(u64, Vec<u8>)>,
    pub flight_bytes: usize,
    /// Arrived and not read yet.
    pub arrived: VecDeque<u8>,
    pub last_due: u64,
    pub stalled_until: u64,
    /// Since when nothing gets through.
    pub stuck_since: Option<u64>,
    pub fin_sent: bool,
    pub fin_arrived: bool,
}

impl End {
    pub fn new(node: NodeId, addr: SocketAddr) -> Self {
        Self {
            node,
            addr,
            gone: Gone::No,
            broken: false,
            shut: false,
            out: Pipe::default(),
            receiver: None,
            sender: None,
        }
    }

    pub fn wake(&mut self) {
        self.wake_receiver();
        self.wake_sender();
    }

    pub fn wake_receiver(&mut self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    pub fn wake_sender(&mut self) {
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }
}

impl NetState {
    pub(super) fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&id)
    }

    /// Forgets a connection that neither side has any more.
    fn forget_if_gone(&mut self, id: ConnId) {
        if self.conns.get(&id).is_some_and(|conn| conn.ends.iter().all(|end| end.gone != Gone::No)) {
            self.conns.remove(&id);
        }
    }

    /// Whether this occasion is hit by a fault of `rate`.
    pub(super) fn fault(&mut self, id: ConnId, rate: Rate) -> bool {
        let calm = self.calm;
        self.conn(id).is_some_and(|conn| conn.rng.hits(rate) && !calm)
    }
}

/// A one-way delay.
pub(super) fn delay(world: &World, rng: &mut Prng) -> u64 {
    rng.tail(world.profile.net.delay_mean.as_nanos() as u64)
}

/// Puts a segment (or, if empty, the FIN) on its way from `side`.
pub(super) fn launch(world: &Rc<World>, net: &mut NetState, id: ConnId, side: Side, bytes: Vec<u8>) {
    let faults = world.profile.net;
    let (lost, broken, stalled) =
        (net.fault(id, faults.loss), net.fault(id, faults.reset), net.fault(id, faults.stall));
    let now = world.now.get();
    let Some(conn) = net.conn(id) else { return };
    let mut takes = delay(world, &mut conn.rng);
    if lost {
        takes = takes.saturating_add(conn.rng.between(200_000_000, 1_000_000_000));
    }
    let pipe = &mut conn.ends[side].out;
    pipe.last_due = pipe.last_due.max(now.saturating_add(takes));
    pipe.flight_bytes += bytes.len();
    pipe.flight.push_back((pipe.last_due, bytes));
    let due = pipe.last_due;
    if stalled {
        let time = conn.rng.between(1, faults.stall_max.as_nanos() as u64);
        conn.ends[side].out.stalled_until = due.saturating_add(time);
        world.log(Kind::Stall, name(id, side), time, 0);
        world.marks.hit("net: stall");
    }
    world.after(due - now, move |world| deliver(world, id, side));
    if broken {
        world.marks.hit("net: reset in mid-stream");
        world.after(due - now, move |world| break_both(world, id));
    }
}

/// Lets arrive what `side` sent and is due.
fn deliver(world: &Rc<World>, id: ConnId, side: Side) {
    let now = world.now.get();
    let mut net = world.net.borrow_mut();
    let Some(conn) = net.conns.get(&id) else { return };
    let (from, to, path) = (conn.ends[side].node, conn.ends[1 - side].node, conn.path);
    let cut = net.is_cut(from, to, path);
    let conn = net.conn(id).expect("it was there a moment ago");
    loop {
        let [near, far] = if side == 0 { [0, 1] } else { [1, 0] };
        let pipe = &conn.ends[near].out;
        if pipe.flight.front().is_none_or(|&(due, _)| due > now) {
            return;
        }
        if pipe.stalled_until > now {
            let wait = pipe.stalled_until - now;
            world.after(wait, move |world| deliver(world, id, side));
            return;
        }
        let silent = conn.ends[far].gone == Gone::Silent && !world.nodes.borrow().get(to).alive;
        if cut || silent {
            retransmit_later(world, conn, id, side);
            return;
        }
        if conn.ends[far].gone != Gone::No {
            answer_with_reset(world, conn, id, side);
            return;
        }
        let pipe = &mut conn.ends[near].out;
        pipe.stuck_since = None;
        let (_, bytes) = pipe.flight.pop_front().expect("there is one");
        pipe.flight_bytes -= bytes.len();
        world.log(Kind::Arrive, name(id, far), bytes.len() as u64, 0);
        if bytes.is_empty() {
            pipe.fin_arrived = true;
        } else if conn.ends[far].shut || conn.ends[far].broken {
            conn.ends[near].wake_sender();
        } else {
            conn.ends[near].out.arrived.extend(bytes);
        }
        conn.ends[far].wake_receiver();
    }
}

fn retransmit_later(world: &Rc<World>, conn: &mut Conn, id: ConnId, side: Side) {
    let now = world.now.get();
    let since = *conn.ends[side].out.stuck_since.get_or_insert(now);
    if now - since > GIVE_UP_NS {
        world.marks.hit("net: retransmission gave up");
        break_side(world, conn, id, side);
        return;
    }
    let wait = conn.rng.between(200_000_000, 1_000_000_000);
    world.after(wait, move |world| deliver(world, id, side));
}

/// The far side has been closed: what `side` sent is thrown away and a reset comes back.
fn answer_with_reset(world: &Rc<World>, conn: &mut Conn, id: ConnId, side: Side) {
    let pipe = &mut conn.ends[side].out;
    let only_fin = pipe.flight.iter().all(|(_, bytes)| bytes.is_empty());
    pipe.flight.clear();
    pipe.flight_bytes = 0;
    if !only_fin {
        let wait = delay(world, &mut conn.rng);
        world.after(wait, move |world| break_one(world, id, side));
    }
}

/// Lets `side` learn that the connection broke; what it has not read may be gone.
fn break_side(world: &World, conn: &mut Conn, id: ConnId, side: Side) {
    if conn.ends[side].broken {
        return;
    }
    let lose = conn.rng.hits(Rate::percent(50));
    conn.ends[side].broken = true;
    conn.ends[side].out.flight.clear();
    conn.ends[side].out.flight_bytes = 0;
    if lose {
        conn.ends[1 - side].out.arrived.clear();
    }
    conn.ends[side].wake();
    world.log(Kind::Reset, name(id, side), 0, 0);
}

pub(super) fn break_one(world: &Rc<World>, id: ConnId, side: Side) {
    if let Some(conn) = world.net.borrow_mut().conn(id) {
        break_side(world, conn, id, side);
    }
}

/// Breaks the connection for both sides, for the second one a little later.
pub(super) fn break_both(world: &Rc<World>, id: ConnId) {
    let mut net = world.net.borrow_mut();
    let Some(conn) = net.conn(id) else { return };
    let first = conn.rng.index(2);
    let wait = delay(world, &mut conn.rng);
    break_side(world, conn, id, first);
    drop(net);
    world.after(wait, move |world| break_one(world, id, 1 - first));
}

/// Sends the FIN of `side`, once.
pub(super) fn finish(world: &Rc<World>, net: &mut NetState, id: ConnId, side: Side) {
    let Some(conn) = net.conn(id) else { return };
    let end = &mut conn.ends[side];
    if end.broken || std::mem::replace(&mut end.out.fin_sent, true) {
        return;
    }
    world.log(Kind::Fin, name(id, side), 0, 0);
    launch(world, net, id, side, Vec::new());
}

/// The owner of `side` lets go: FIN, or a reset where it left something unread.
pub(super) fn close(world: &Rc<World>, id: ConnId, side: Side) {
    let mut net = world.net.borrow_mut();
    let Some(conn) = net.conn(id) else { return };
    if conn.ends[side].gone != Gone::No {
        return;
    }
    conn.ends[side].gone = Gone::Closed;
    conn.ends[side].receiver = None;
    conn.ends[side].sender = None;
    let unread = !conn.ends[1 - side].out.arrived.is_empty();
    conn.ends[1 - side].out.arrived.clear();
    // The peer's writer may have waited for room.
    conn.ends[1 - side].wake_sender();
    if unread && !conn.ends[side].broken {
        conn.ends[side].out.flight.clear();
        conn.ends[side].out.flight_bytes = 0;
        let wait = delay(world, &mut conn.rng);
        world.after(wait, move |world| break_one(world, id, 1 - side));
    } else {
        finish(world, &mut net, id, side);
    }
    net.forget_if_gone(id);
}

/// The node of `side` crashed.
pub(super) fn end_by_crash(world: &Rc<World>, id: ConnId, side: Side, how: Crash) {
    if how == Crash::Process {
        let reset = {
            let mut net = world.net.borrow_mut();
            net.conn(id).is_some_and(|conn| conn.rng.hits(Rate::percent(50)))
        };
        if reset {
            break_both(world, id);
        }
        close(world, id, side);
        return;
    }
    let mut net = world.net.borrow_mut();
    let Some(conn) = net.conn(id) else { return };
    conn.ends[side].gone = Gone::Silent;
    // Half of what was on its way is lost with the sender's memory.
    let keep = conn.rng.index(conn.ends[side].out.flight.len() + 1);
    let out = &mut conn.ends[side].out;
    out.flight.truncate(keep);
    out.flight_bytes = out.flight.iter().map(|(_, bytes)| bytes.len()).sum();
    conn.ends[1 - side].out.arrived.clear();
    net.forget_if_gone(id);
}
