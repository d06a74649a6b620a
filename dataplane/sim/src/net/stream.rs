//! A connected stream.

use std::io::{IoSlice, IoSliceMut, Read};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use ashlar_env::Stream;
use ashlar_env::net::NetError;

use super::{ConnId, NetState, Side, conn, name};
use crate::event::Kind;
use crate::node::SimEnv;
use crate::rng::{Rate, digest};

/// One side of a connection.
pub struct SimStream {
    env: SimEnv,
    id: ConnId,
    side: Side,
    local: SocketAddr,
    peer: SocketAddr,
}

impl SimStream {
    pub(super) fn new(env: SimEnv, id: ConnId, side: Side, local: SocketAddr, peer: SocketAddr) -> Self {
        Self { env, id, side, local, peer }
    }

    /// Sends FIN and goes on receiving: what a host may do and our own code never does.
    pub fn finish_sending(&self) {
        conn::finish(self.env.world(), &mut self.env.world().net.borrow_mut(), self.id, self.side);
    }

    /// Breaks the connection for both sides.
    pub fn reset(&self) {
        conn::break_both(self.env.world(), self.id);
    }

    /// Whether a poll shall say "not now" without need.
    fn hesitates(&self, net: &mut NetState, cx: &mut Context<'_>) -> bool {
        let rate = self.env.world().profile.net.hesitate;
        let hesitates = net.conn(self.id).is_some_and(|conn| conn.rng.hits(rate));
        if hesitates {
            cx.waker().wake_by_ref();
        }
        hesitates
    }

    /// How many of `most` bytes are moved at once.
    fn portion(&self, net: &mut NetState, most: usize) -> usize {
        let rate = self.env.world().profile.net.partial;
        let Some(conn) = net.conn(self.id) else { return most };
        if conn.rng.hits(rate) { 1 + conn.rng.index(most) } else { most }
    }
}

impl Stream for SimStream {
    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<Result<usize, NetError>> {
        let world = self.env.world();
        let mut net = world.net.borrow_mut();
        let Some(conn) = net.conn(self.id) else { return Poll::Ready(Err(NetError::Reset)) };
        let (near, far) = (self.side, 1 - self.side);
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        let there = conn.ends[far].out.arrived.len();
        if conn.ends[near].shut || wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        if there == 0 {
            if conn.ends[near].broken {
                return Poll::Ready(Err(NetError::Reset));
            }
            if conn.ends[far].out.fin_arrived {
                return Poll::Ready(Ok(0));
            }
            conn.ends[near].receiver = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.hesitates(&mut net, cx) {
            return Poll::Pending;
        }
        let count = self.portion(&mut net, wanted.min(there));
        let conn = net.conn(self.id).expect("it was there a moment ago");
        let mut left = count;
        for buf in bufs {
            let take = buf.len().min(left);
            left -= take;
            conn.ends[far].out.arrived.read_exact(&mut buf[..take]).expect("as much as has arrived");
        }
        conn.ends[far].wake_sender();
        world.log(Kind::Receive, name(self.id, near), count as u64, 0);
        Poll::Ready(Ok(count))
    }

    fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize, NetError>> {
        let world = self.env.world();
        let mut net = world.net.borrow_mut();
        let Some(conn) = net.conn(self.id) else { return Poll::Ready(Err(NetError::Reset)) };
        let end = &mut conn.ends[self.side];
        if end.broken || end.shut || end.out.fin_sent {
            return Poll::Ready(Err(NetError::Reset));
        }
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let room =
            world.profile.net.window_bytes.saturating_sub(end.out.flight_bytes + end.out.arrived.len());
        if room == 0 {
            end.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.hesitates(&mut net, cx) {
            return Poll::Pending;
        }
        let count = self.portion(&mut net, wanted.min(room));
        let mut bytes = Vec::with_capacity(count);
        for buf in bufs {
            let take = buf.len().min(count - bytes.len());
            bytes.extend_from_slice(&buf[..take]);
        }
        world.log(Kind::Send, name(self.id, self.side), count as u64, digest(&bytes));
        self.launch_split(&mut net, bytes);
        Poll::Ready(Ok(count))
    }

    fn shutdown(&self) {
        let world = self.env.world();
        if !self.env.is_alive() {
            return;
        }
        let mut net = world.net.borrow_mut();
        conn::finish(world, &mut net, self.id, self.side);
        let Some(conn) = net.conn(self.id) else { return };
        conn.ends[self.side].shut = true;
        conn.ends[1 - self.side].out.arrived.clear();
        conn.ends[1 - self.side].wake_sender();
        conn.ends[self.side].wake();
    }
}

impl SimStream {
    /// Sends `bytes` in segments cut at arbitrary places.
    fn launch_split(&self, net: &mut NetState, mut bytes: Vec<u8>) {
        let world = self.env.world();
        if world.planted.net_swaps_bytes && bytes.len() > 1 && net.fault(self.id, Rate(500)) {
            let at = net.conn(self.id).map_or(0, |conn| conn.rng.index(bytes.len() - 1));
            bytes.swap(at, at + 1);
        }
        let rate = world.profile.net.split;
        while !bytes.is_empty() {
            let len = bytes.len();
            let cut = net
                .conn(self.id)
                .map_or(len, |conn| if conn.rng.hits(rate) { 1 + conn.rng.index(len) } else { len });
            let rest = bytes.split_off(cut);
            conn::launch(world, net, self.id, self.side, bytes);
            bytes = rest;
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if self.env.is_alive() {
            conn::close(self.env.world(), self.id, self.side);
        }
    }
}
