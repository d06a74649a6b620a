//! Listening sockets and connections that nobody owns yet.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ashlar_env::Listener;
use ashlar_env::net::NetError;

use super::{CLIENT, ConnId, ListenerState, SERVER, SimStream, conn};
use crate::node::{NodeId, SimEnv};

/// A listening socket.
pub struct SimListener {
    env: SimEnv,
    id: u64,
    address: SocketAddr,
}

/// An accepted connection: a number that any reactor of the node can turn into a stream.
pub struct SimAccepted {
    id: ConnId,
    node: NodeId,
    incarnation: u32,
    orphans: Arc<Mutex<Vec<ConnId>>>,
    adopted: bool,
}

impl SimListener {
    pub(crate) fn bind(env: &SimEnv, address: SocketAddr) -> Result<Self, NetError> {
        if !env.is_alive() {
            return Err(NetError::CannotListen("the node is down".into()));
        }
        let ip = address.ip();
        let ours = ip.is_unspecified() || NodeId::of(ip, env.node()).is_some_and(|(n, _)| n == env.node());
        if !ours {
            return Err(NetError::CannotListen(format!("{ip} is not an address of this node")));
        }
        let mut net = env.world().net.borrow_mut();
        let port = if address.port() == 0 { net.fresh_port() } else { address.port() };
        let taken = net.listeners.values().any(|l| {
            let same_ip = l.ip == ip || l.ip.is_unspecified() || ip.is_unspecified();
            l.node == env.node() && l.port == port && same_ip
        });
        if taken {
            return Err(NetError::CannotListen(format!("port {port} is in use")));
        }
        let id = net.fresh_id();
        net.listeners
            .insert(id, ListenerState { node: env.node(), ip, port, backlog: Vec::new(), waker: None });
        Ok(Self { env: env.clone(), id, address: SocketAddr::new(ip, port) })
    }
}

impl Listener for SimListener {
    type Accepted = SimAccepted;

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&self) -> impl Future<Output = Result<(SimAccepted, SocketAddr), NetError>> {
        Accept { listener: self }
    }
}

struct Accept<'a> {
    listener: &'a SimListener,
}

impl Future for Accept<'_> {
    type Output = Result<(SimAccepted, SocketAddr), NetError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let env = &self.listener.env;
        let mut net = env.world().net.borrow_mut();
        let Some(state) = net.listeners.get_mut(&self.listener.id) else { return Poll::Pending };
        if state.backlog.is_empty() {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let id = state.backlog.remove(0);
        let accepted = SimAccepted {
            id,
            node: env.node(),
            incarnation: env.incarnation(),
            orphans: Arc::clone(&net.orphans),
            adopted: false,
        };
        match net.conn(id) {
            Some(conn) => Poll::Ready(Ok((accepted, conn.ends[CLIENT].addr))),
            None => Poll::Ready(Err(NetError::Reset)),
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let state = self.env.world().net.borrow_mut().listeners.remove(&self.id);
        for id in state.map(|state| state.backlog).unwrap_or_default() {
            conn::break_both(self.env.world(), id);
            conn::close(self.env.world(), id, SERVER);
        }
    }
}

impl SimAccepted {
    pub(crate) fn adopt(mut self, env: &SimEnv) -> Result<SimStream, NetError> {
        assert_eq!(self.node, env.node(), "a connection is adopted by the node that accepted it");
        if self.incarnation != env.incarnation() {
            return Err(NetError::Reset);
        }
        let world = Rc::clone(env.world());
        let mut net = world.net.borrow_mut();
        let Some(conn) = net.conn(self.id) else { return Err(NetError::Reset) };
        self.adopted = true;
        let (local, peer) = (conn.ends[SERVER].addr, conn.ends[CLIENT].addr);
        Ok(SimStream::new(env.clone(), self.id, SERVER, local, peer))
    }
}

impl Drop for SimAccepted {
    fn drop(&mut self) {
        if !self.adopted
            && let Ok(mut orphans) = self.orphans.lock()
        {
            orphans.push(self.id);
        }
    }
}
