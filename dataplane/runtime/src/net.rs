//! TCP on the reactor's epoll set.
//!
//! Sockets are watched once, edge-triggered, for both directions. A read that comes back short has emptied the
//! socket, so the next edge is awaited without asking the kernel again (`EAGAIN` costs as much as a read).

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use ashlar_env::net::NetError;
use ashlar_env::{Listener, Net, Stream};

use crate::engine::Engine;
use crate::env::ReactorEnv;
use crate::readiness::Readiness;
use crate::sys;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: libc::c_int = 4096;

/// A connection without traffic is probed after so long, then as often, and given up after so many probes without
/// an answer; so is one whose peer acknowledges nothing for as long in all. A host that fell silent would else hold
/// its connections, and what they stand for, until the node ends.
const PROBE_AFTER_S: libc::c_int = 30;
const PROBE_EVERY_S: libc::c_int = 10;
const PROBES: libc::c_int = 3;

/// The kernel's limit of parts in one call.
const PARTS_MAX: usize = libc::UIO_MAXIOV as usize;

/// A connection that no reactor owns yet. Sent to another reactor, it is adopted there.
#[derive(Debug)]
pub struct Accepted {
    fd: OwnedFd,
    peer: SocketAddr,
}

impl Accepted {
    /// The peer's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}

/// A descriptor in the epoll set of its reactor.
struct Watched {
    fd: OwnedFd,
    token: u64,
    state: Rc<Readiness>,
    engine: Rc<Engine>,
}

impl Watched {
    fn new(engine: &Rc<Engine>, fd: OwnedFd, state: Readiness) -> io::Result<Self> {
        let state = Rc::new(state);
        let token = engine.watch(fd.as_raw_fd(), Rc::clone(&state))?;
        Ok(Self { fd, token, state, engine: Rc::clone(engine) })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.engine.unwatch(self.token);
    }
}

/// A connected TCP stream of this reactor.
pub struct TcpStream {
    socket: Watched,
    peer: SocketAddr,
    local: SocketAddr,
    closed: std::cell::Cell<bool>,
}

/// A listening TCP socket of this reactor. One task accepts at a time.
pub struct TcpListener {
    socket: Watched,
    local: SocketAddr,
}

impl Net for ReactorEnv {
    type Stream = TcpStream;
    type Listener = TcpListener;
    type Accepted = Accepted;

    fn listen(&self, address: SocketAddr) -> Result<TcpListener, NetError> {
        let refused = |error: io::Error| match exhausted(&error) {
            true => NetError::Exhausted(error.to_string()),
            false => NetError::CannotListen(format!("{address}: {error}")),
        };
        let fd = sys::tcp_socket(address).map_err(refused)?;
        sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).map_err(refused)?;
        sys::bind_and_listen(fd.as_fd(), address, BACKLOG).map_err(refused)?;
        let listener = std::net::TcpListener::from(fd);
        let local = listener.local_addr().map_err(refused)?;
        let socket = Watched::new(self.engine(), listener.into(), Readiness::new()).map_err(refused)?;
        Ok(TcpListener { socket, local })
    }

    fn adopt(&self, accepted: Accepted) -> Result<TcpStream, NetError> {
        let Accepted { fd, peer } = accepted;
        stream(self.engine(), fd, peer, Readiness::new()).map_err(|error| net_error(&error))
    }

    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, NetError> {
        let unreachable = |error: io::Error| match exhausted(&error) {
            true => NetError::Exhausted(error.to_string()),
            false => NetError::Unreachable(format!("{address}: {error}")),
        };
        let fd = sys::tcp_socket(address).map_err(unreachable)?;
        let state = Readiness::new();
        state.await_connection();
        let socket = Watched::new(self.engine(), fd, state).map_err(unreachable)?;
        if !sys::connect(socket.fd.as_fd(), address).map_err(unreachable)? {
            poll_fn(|cx| {
                if socket.state.writable() {
                    return Poll::Ready(());
                }
                socket.state.wait_writable(cx);
                Poll::Pending
            })
            .await;
        }
        let connected = StdStream::from(socket.fd.try_clone().map_err(unreachable)?);
        if let Some(error) = connected.take_error().map_err(unreachable)? {
            return Err(unreachable(error));
        }
        connected.set_nodelay(true).map_err(unreachable)?;
        let local = connected.local_addr().map_err(unreachable)?;
        let peer = connected.peer_addr().map_err(unreachable)?;
        Ok(TcpStream { socket, peer, local, closed: false.into() })
    }
}

fn stream(engine: &Rc<Engine>, fd: OwnedFd, peer: SocketAddr, state: Readiness) -> io::Result<TcpStream> {
    let connected = StdStream::from(fd);
    connected.set_nodelay(true)?;
    keep_alive(connected.as_fd())?;
    let local = connected.local_addr()?;
    let socket = Watched::new(engine, connected.into(), state)?;
    Ok(TcpStream { socket, peer, local, closed: false.into() })
}

fn keep_alive(fd: BorrowedFd<'_>) -> io::Result<()> {
    let silent_ms_max = (PROBE_AFTER_S + PROBES * PROBE_EVERY_S) * 1000;
    sys::set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, PROBE_AFTER_S)?;
    sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, PROBE_EVERY_S)?;
    sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, PROBES)?;
    sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, silent_ms_max)
}

fn exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC)
    )
}

fn net_error(error: &io::Error) -> NetError {
    if exhausted(error) {
        return NetError::Exhausted(error.to_string());
    }
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT | libc::ENOTCONN | libc::ECONNABORTED) => {
            NetError::Reset
        }
        _ => NetError::Other(error.to_string()),
    }
}

impl TcpListener {
    fn poll_accept(&self, cx: &Context<'_>) -> Poll<Result<(Accepted, SocketAddr), NetError>> {
        let state = &self.socket.state;
        loop {
            if !state.readable() {
                state.wait_readable(cx);
                return Poll::Pending;
            }
            match sys::accept(self.socket.fd.as_fd()) {
                Ok((fd, Some(peer))) => return Poll::Ready(Ok((Accepted { fd, peer }, peer))),
                // Of another family than those of the internet: cannot be, and is closed.
                Ok((_, None)) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.drained(true),
                Err(error) if exhausted(&error) => {
                    return Poll::Ready(Err(NetError::Exhausted(error.to_string())));
                }
                // The connection broke while it waited (Linux passes errors of the new socket on): take the
                // next.
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {}
                Err(error) => return Poll::Ready(Err(NetError::Other(error.to_string()))),
            }
        }
    }
}

impl Listener for TcpListener {
    type Accepted = Accepted;

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn accept(&self) -> impl Future<Output = Result<(Accepted, SocketAddr), NetError>> {
        poll_fn(|cx| self.poll_accept(cx))
    }
}

impl Stream for TcpStream {
    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<Result<usize, NetError>> {
        let count = bufs.len().min(PARTS_MAX);
        let bufs = &mut bufs[..count];
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        if wanted == 0 || self.closed.get() {
            return Poll::Ready(Ok(0));
        }
        let state = &self.socket.state;
        loop {
            if !state.readable() {
                state.wait_readable(cx);
                return Poll::Pending;
            }
            match sys::receive(self.socket.fd.as_fd(), bufs) {
                Ok(n) => {
                    if n > 0 && n < wanted {
                        state.drained(false);
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.drained(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(net_error(&error))),
            }
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize, NetError>> {
        let empty = bufs.iter().take_while(|buf| buf.is_empty()).count();
        let bufs = &bufs[empty..bufs.len().min(empty + PARTS_MAX)];
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.closed.get() {
            return Poll::Ready(Err(NetError::Reset));
        }
        if offered == 0 {
            return Poll::Ready(Ok(0));
        }
        let state = &self.socket.state;
        loop {
            if !state.writable() {
                state.wait_writable(cx);
                return Poll::Pending;
            }
            match sys::send(self.socket.fd.as_fd(), bufs) {
                Ok(n) => {
                    if n < offered {
                        state.filled();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.filled(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(net_error(&error))),
            }
        }
    }

    fn shutdown(&self) {
        if !self.closed.replace(true) {
            sys::shutdown(self.socket.fd.as_fd());
            self.socket.state.wake_all();
        }
    }
}
