//! An environment of one reactor and one thread: tasks are polled in turn, and a connection is two vectors.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn, ready};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::buf::{BufPool, PoolPlan};
use ashlar_env::net::NetError;
use ashlar_env::{Clock, Env, Instant, Listener, Mesh, Net, ReactorId, Rng, Spawn, Stream};

/// Where the server listens and hosts come from.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4420);
/// Bytes on the way in each direction, at most.
const WAY_BYTES: usize = 16 << 20;

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct World {
    pool: BufPool,
    tasks: RefCell<Vec<Task>>,
    spawned: RefCell<Vec<Task>>,
    pipes: RefCell<Vec<Rc<Pipe>>>,
    accepted: Cell<usize>,
}

/// One connection.
pub struct Pipe {
    pub to_server: RefCell<Vec<u8>>,
    taken: Cell<usize>,
    pub to_host: RefCell<Vec<u8>>,
}

#[derive(Clone)]
pub struct TestEnv(Rc<World>);

impl TestEnv {
    pub fn new() -> Self {
        Self(Rc::new(World {
            pool: BufPool::on_heap(PoolPlan { limits: [256, 64, 64, 64, 8] }),
            tasks: RefCell::default(),
            spawned: RefCell::default(),
            pipes: RefCell::default(),
            accepted: Cell::new(0),
        }))
    }

    /// A new connection, as its host holds it.
    pub fn dial(&self) -> Rc<Pipe> {
        let way = || RefCell::new(Vec::with_capacity(WAY_BYTES));
        let pipe = Rc::new(Pipe { to_server: way(), taken: Cell::new(0), to_host: way() });
        self.0.pipes.borrow_mut().push(Rc::clone(&pipe));
        pipe
    }

    /// Polls every task once.
    pub fn turn(&self) {
        let mut tasks = self.0.tasks.borrow_mut();
        tasks.append(&mut self.0.spawned.borrow_mut());
        let mut cx = Context::from_waker(Waker::noop());
        tasks.retain_mut(|task| task.as_mut().poll(&mut cx).is_pending());
    }
}

impl Spawn for TestEnv {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawned.borrow_mut().push(Box::pin(task));
    }
}

impl Clock for TestEnv {
    fn now(&self) -> Instant {
        Instant(0)
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Unpin + 'static {
        pending()
    }
}

impl Rng for TestEnv {
    fn random_u64(&self) -> u64 {
        4
    }
}

impl Net for TestEnv {
    type Stream = PipeEnd;
    type Listener = Door;
    /// The number of the connection.
    type Accepted = usize;

    fn listen(&self, _: SocketAddr) -> Result<Door, NetError> {
        Ok(Door(self.clone()))
    }

    fn adopt(&self, accepted: usize) -> Result<PipeEnd, NetError> {
        Ok(PipeEnd(Rc::clone(&self.0.pipes.borrow()[accepted])))
    }

    fn connect(&self, _: SocketAddr) -> impl Future<Output = Result<PipeEnd, NetError>> {
        ready(Err(NetError::Reset))
    }
}

impl Env for TestEnv {
    fn buffers(&self) -> &BufPool {
        &self.0.pool
    }
}

pub struct Door(TestEnv);

impl Listener for Door {
    type Accepted = usize;

    fn local_addr(&self) -> SocketAddr {
        ADDRESS
    }

    fn accept(&self) -> impl Future<Output = Result<(usize, SocketAddr), NetError>> {
        poll_fn(|_| {
            let World { pipes, accepted, .. } = &*self.0.0;
            if accepted.get() == pipes.borrow().len() {
                return Poll::Pending;
            }
            accepted.set(accepted.get() + 1);
            Poll::Ready(Ok((accepted.get() - 1, ADDRESS)))
        })
    }
}

/// The server's end of a connection.
pub struct PipeEnd(Rc<Pipe>);

impl Stream for PipeEnd {
    fn peer_addr(&self) -> SocketAddr {
        ADDRESS
    }

    fn local_addr(&self) -> SocketAddr {
        ADDRESS
    }

    fn poll_recv(&self, _: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<Result<usize, NetError>> {
        let (mut bytes, start) = (self.0.to_server.borrow_mut(), self.0.taken.get());
        let mut at = start;
        for buf in bufs {
            let len = buf.len().min(bytes.len() - at);
            buf[..len].copy_from_slice(&bytes[at..at + len]);
            at += len;
        }
        if at == bytes.len() {
            bytes.clear();
            self.0.taken.set(0);
        } else {
            self.0.taken.set(at);
        }
        if at == start { Poll::Pending } else { Poll::Ready(Ok(at - start)) }
    }

    fn poll_send(&self, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize, NetError>> {
        let mut bytes = self.0.to_host.borrow_mut();
        let before = bytes.len();
        for buf in bufs {
            // Room that was made once is kept: growing would be counted as the server's doing.
            let room = bytes.capacity() - bytes.len();
            bytes.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        if bytes.len() == before { Poll::Pending } else { Poll::Ready(Ok(bytes.len() - before)) }
    }

    fn shutdown(&self) {}
}

/// The mesh of a node with one reactor, which never needs it.
#[derive(Clone)]
pub struct Alone;

impl Alone {
    pub const HERE: ReactorId = ReactorId(0);
}

impl<M: Send + 'static> Mesh<M> for Alone {
    fn here(&self) -> ReactorId {
        Self::HERE
    }

    fn reactors(&self) -> u16 {
        1
    }

    fn try_send(&self, _: ReactorId, message: M) -> Result<(), M> {
        Err(message)
    }

    fn poll_room(&self, _: &mut Context<'_>, _: ReactorId) -> Poll<()> {
        Poll::Pending
    }

    fn poll_recv(&self, _: &mut Context<'_>) -> Poll<(ReactorId, M)> {
        Poll::Pending
    }
}
