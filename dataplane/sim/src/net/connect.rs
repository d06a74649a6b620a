//! Setting a connection up.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ashlar_env::net::NetError;

use super::conn::{self, Conn, End, Setup};
use super::{CLIENT, ConnId, SERVER, SimStream, name};
use crate::event::Kind;
use crate::node::{NodeId, SimEnv};
use crate::rng::{Prng, Rate};
use crate::world::World;

/// How often a connection request is sent before it counts as unanswered; the waits double from one second.
const TRIES: u32 = 5;

/// Connects to `address` from the node of `env`.
pub(crate) async fn connect(env: SimEnv, address: SocketAddr) -> Result<SimStream, NetError> {
    let Some((to, path)) = NodeId::of(address.ip(), env.node()) else {
        return Err(NetError::Unreachable(format!("no route to {address}")));
    };
    let id = request(&env, to, path, address);
    Attempt { env, id: Some(id) }.await
}

struct Attempt {
    env: SimEnv,
    /// `None` once the stream has been handed out.
    id: Option<ConnId>,
}

impl Future for Attempt {
    type Output = Result<SimStream, NetError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let world = Rc::clone(self.env.world());
        let id = self.id.expect("an attempt is not polled after its end");
        let mut net = world.net.borrow_mut();
        let Some(conn) = net.conn(id) else { return Poll::Ready(Err(NetError::Reset)) };
        match conn.setup {
            Setup::Waiting => {
                conn.ends[CLIENT].receiver = Some(cx.waker().clone());
                Poll::Pending
            }
            Setup::Failed(why) => Poll::Ready(Err(NetError::Unreachable(why.to_owned()))),
            Setup::Done => {
                let (local, peer) = (conn.ends[CLIENT].addr, conn.ends[SERVER].addr);
                self.id = None;
                Poll::Ready(Ok(SimStream::new(self.env.clone(), id, CLIENT, local, peer)))
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(id) = self.id
            && self.env.is_alive()
        {
            conn::close(self.env.world(), id, CLIENT);
        }
    }
}

fn request(env: &SimEnv, to: NodeId, path: u8, address: SocketAddr) -> ConnId {
    let world = env.world();
    let mut net = world.net.borrow_mut();
    let id = net.fresh_id();
    let ip: IpAddr = if address.ip().is_loopback() { address.ip() } else { env.node().ip(path) };
    let local = SocketAddr::new(ip, net.fresh_port());
    let mut rng = Prng::split(net.seed, "connection", id);
    let wait = conn::delay(world, &mut rng);
    let mut server = End::new(to, address);
    // Until it is accepted nobody owns the far side.
    server.gone = conn::Gone::Closed;
    let conn = Conn { path, setup: Setup::Waiting, ends: [End::new(env.node(), local), server], rng };
    net.conns.insert(id, conn);
    drop(net);
    world.log(Kind::Connect, id, u64::from(env.node().0), u64::from(address.port()));
    world.after(wait, move |world| arrive(world, id, 0));
    id
}

/// The connection request reaches the far node, or does not.
fn arrive(world: &Rc<World>, id: ConnId, tries: u32) {
    let faults = world.profile.net;
    let mut net = world.net.borrow_mut();
    let Some(conn) = net.conn(id) else { return };
    let (from, to, path) = (conn.ends[CLIENT].node, conn.ends[SERVER].node, conn.path);
    let address = conn.ends[SERVER].addr;
    let power_is_off = conn.rng.hits(Rate::percent(50));
    let (refused, lost) = (net.fault(id, faults.refuse), net.fault(id, faults.loss));
    let cut = net.is_cut(from, to, path) || net.is_cut(to, from, path);
    let known = usize::from(to.0) < world.nodes.borrow().all.len();
    let up = known && world.nodes.borrow().get(to).alive;
    if cut || lost || !known || (!up && power_is_off) {
        drop(net);
        return ask_again(world, id, tries);
    }
    let listener = net.listener_at(to, address.ip(), address.port());
    let Some(listener) = listener.filter(|_| up && !refused) else {
        drop(net);
        return fail(world, id, "connection refused");
    };
    let state = net.listeners.get_mut(&listener).expect("it was found a moment ago");
    if state.backlog.len() >= faults.backlog {
        drop(net);
        world.marks.hit("net: backlog full");
        return ask_again(world, id, tries);
    }
    state.backlog.push(id);
    if let Some(waker) = state.waker.take() {
        waker.wake();
    }
    let conn = net.conn(id).expect("it was there a moment ago");
    conn.ends[SERVER].gone = conn::Gone::No;
    let wait = conn::delay(world, &mut conn.rng);
    drop(net);
    world.log(Kind::Accept, id, u64::from(to.0), u64::from(address.port()));
    world.after(wait, move |world| {
        if let Some(conn) = world.net.borrow_mut().conn(id) {
            conn.setup = Setup::Done;
            conn.ends[CLIENT].wake_receiver();
        }
    });
}

fn ask_again(world: &Rc<World>, id: ConnId, tries: u32) {
    if tries + 1 == TRIES {
        return fail(world, id, "no answer");
    }
    world.after(1_000_000_000 << tries, move |world| arrive(world, id, tries + 1));
}

fn fail(world: &Rc<World>, id: ConnId, why: &'static str) {
    world.log(Kind::Refuse, id, 0, 0);
    let wait = {
        let mut net = world.net.borrow_mut();
        let Some(conn) = net.conn(id) else { return };
        conn::delay(world, &mut conn.rng)
    };
    world.after(wait, move |world| {
        if let Some(conn) = world.net.borrow_mut().conn(id) {
            conn.setup = Setup::Failed(why);
            conn.ends[CLIENT].wake_receiver();
        }
        world.log(Kind::Reset, name(id, CLIENT), 0, 0);
    });
}
