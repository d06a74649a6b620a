//! An environment of one reactor on one thread, without faults of its own: what happens, and when, is the script's
//! to say. Only tasks that were woken are polled, so that a wake-up that is missing shows.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn, ready};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use ashlar_env::buf::{BufPool, PoolPlan};
use ashlar_env::net::NetError;
use ashlar_env::{Clock, Env, Instant, Listener, Mesh, Net, ReactorId, Rng, Spawn, Stream};

/// Where the server listens and hosts come from.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4420);
/// Polls that one event may cause: more is a task that spins.
const POLLS_MAX: usize = 50_000;

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Inner {
    now: Cell<Instant>,
    pool: BufPool,
    tasks: RefCell<Vec<Task>>,
    spawned: RefCell<Vec<Task>>,
    timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    timers_made: Cell<u64>,
    pipes: RefCell<Vec<Rc<Pipe>>>,
    accepted: Cell<usize>,
    door: RefCell<Option<Waker>>,
}

/// The environment. Cloning shares it.
#[derive(Clone)]
pub struct World(Rc<Inner>);

impl World {
    /// An empty one, with buffers for a few commands at once.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Inner {
            now: Cell::new(Instant(1_000_000_000)),
            pool: BufPool::on_heap(PoolPlan { limits: [32, 8, 8, 4, 2] }),
            tasks: RefCell::default(),
            spawned: RefCell::default(),
            timers: RefCell::default(),
            timers_made: Cell::new(0),
            pipes: RefCell::default(),
            accepted: Cell::new(0),
            door: RefCell::default(),
        }))
    }

    /// A new connection, as its host holds it.
    #[must_use]
    pub fn dial(&self) -> Rc<Pipe> {
        let pipe = Rc::new(Pipe::default());
        pipe.window.set(usize::MAX);
        self.0.pipes.borrow_mut().push(Rc::clone(&pipe));
        wake(&self.0.door);
        pipe
    }

    /// Polls tasks until none is woken.
    ///
    /// # Panics
    /// If that does not end.
    pub fn settle(&self) {
        let mut polls = 0;
        let mut tasks = self.0.tasks.borrow_mut();
        loop {
            tasks.append(&mut self.0.spawned.borrow_mut());
            let before = polls;
            tasks.retain_mut(|task| {
                if !task.woken.0.swap(false, Ordering::Relaxed) {
                    return true;
                }
                polls += 1;
                let waker = Waker::from(Arc::clone(&task.woken));
                task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            });
            assert!(polls < POLLS_MAX, "a task spins");
            if polls == before && self.0.spawned.borrow().is_empty() {
                return;
            }
        }
    }

    /// Lets the time until `until` pass, timer by timer.
    pub fn pass(&self, until: Instant) {
        loop {
            let due = self.0.timers.borrow().keys().next().copied().filter(|(at, _)| *at <= until);
            let Some((at, number)) = due else { break };
            self.0.now.set(at.max(self.0.now.get()));
            let waker = self.0.timers.borrow_mut().remove(&(at, number));
            waker.into_iter().for_each(Waker::wake);
            self.settle();
        }
        self.0.now.set(until);
        self.settle();
    }

    /// Drops all tasks: they hold the world that holds them.
    pub fn close(&self) {
        let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
        drop(tasks);
        self.0.spawned.borrow_mut().clear();
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.0.tasks.borrow().len()
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.borrow_mut().take() {
        waker.wake();
    }
}

impl Spawn for World {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.0.spawned.borrow_mut().push(Task { future: Box::pin(task), woken });
    }
}

/// A timer that is taken out when it is dropped.
struct Sleep {
    world: World,
    key: (Instant, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.world.now() >= self.key.0 {
            return Poll::Ready(());
        }
        self.world.0.timers.borrow_mut().insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.world.0.timers.borrow_mut().remove(&self.key);
    }
}

impl Clock for World {
    fn now(&self) -> Instant {
        self.0.now.get()
    }

    fn wall_ms(&self) -> u64 {
        self.0.now.get().0 / 1_000_000
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Unpin + 'static {
        let number = self.0.timers_made.get();
        self.0.timers_made.set(number + 1);
        Sleep { world: self.clone(), key: (deadline, number) }
    }
}

impl Rng for World {
    fn random_u64(&self) -> u64 {
        4
    }
}

impl Net for World {
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

impl Env for World {
    fn buffers(&self) -> &BufPool {
        &self.0.pool
    }
}

/// The listener.
pub struct Door(World);

impl Listener for Door {
    type Accepted = usize;

    fn local_addr(&self) -> SocketAddr {
        ADDRESS
    }

    fn accept(&self) -> impl Future<Output = Result<(usize, SocketAddr), NetError>> {
        poll_fn(|cx| {
            let Inner { pipes, accepted, door, .. } = &*self.0.0;
            if accepted.get() == pipes.borrow().len() {
                *door.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            accepted.set(accepted.get() + 1);
            Poll::Ready(Ok((accepted.get() - 1, ADDRESS)))
        })
    }
}

/// One connection, as its host sees it.
#[derive(Default)]
pub struct Pipe {
    to_server: RefCell<VecDeque<u8>>,
    to_host: RefCell<Vec<u8>>,
    /// Bytes the server receives at once, at most; 0 for as many as it has room for.
    pub piece: Cell<usize>,
    /// Bytes the server may still send.
    pub window: Cell<usize>,
    finished: Cell<bool>,
    broken: Cell<bool>,
    over: Cell<bool>,
    receiver: RefCell<Option<Waker>>,
    sender: RefCell<Option<Waker>>,
    /// The most room that the server offered for one receive.
    pub room_max: Cell<usize>,
}

impl Pipe {
    /// The host sends.
    pub fn send(&self, bytes: &[u8]) {
        if !self.finished.get() {
            self.to_server.borrow_mut().extend(bytes);
            wake(&self.receiver);
        }
    }

    /// The host takes what was sent.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.to_host.borrow_mut())
    }

    /// The host will read so many bytes more.
    pub fn open(&self, bytes: usize) {
        self.window.set(self.window.get().saturating_add(bytes));
        wake(&self.sender);
    }

    /// The host sends no more.
    pub fn finish(&self) {
        self.finished.set(true);
        wake(&self.receiver);
    }

    /// The host resets the connection.
    pub fn reset(&self) {
        self.broken.set(true);
        wake(&self.receiver);
        wake(&self.sender);
    }

    /// Whether the server has let go of the connection.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.get()
    }
}

/// The server's end of a connection.
pub struct PipeEnd(Rc<Pipe>);

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.0.over.set(true);
    }
}

impl Stream for PipeEnd {
    fn peer_addr(&self) -> SocketAddr {
        ADDRESS
    }

    fn local_addr(&self) -> SocketAddr {
        ADDRESS
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<Result<usize, NetError>> {
        let pipe = &*self.0;
        if pipe.broken.get() || pipe.over.get() {
            return Poll::Ready(Err(NetError::Reset));
        }
        let room: usize = bufs.iter().map(|buf| buf.len()).sum();
        pipe.room_max.set(pipe.room_max.get().max(room));
        let mut bytes = pipe.to_server.borrow_mut();
        if bytes.is_empty() && !pipe.finished.get() && room > 0 {
            *pipe.receiver.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let most = if pipe.piece.get() == 0 { usize::MAX } else { pipe.piece.get() };
        let mut taken = 0;
        for buf in bufs {
            let len = buf.len().min(bytes.len()).min(most - taken);
            for (to, from) in buf.iter_mut().zip(bytes.drain(..len)) {
                *to = from;
            }
            taken += len;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize, NetError>> {
        let pipe = &*self.0;
        if pipe.broken.get() || pipe.over.get() {
            return Poll::Ready(Err(NetError::Reset));
        }
        let mut sent = 0;
        let mut bytes = pipe.to_host.borrow_mut();
        // What the host holds is no memory of the server's.
        allocation_counter::opt_out(|| {
            for buf in bufs {
                let len = buf.len().min(pipe.window.get() - sent);
                bytes.extend_from_slice(&buf[..len]);
                sent += len;
            }
        });
        if sent == 0 && bufs.iter().any(|buf| !buf.is_empty()) {
            *pipe.sender.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if pipe.window.get() != usize::MAX {
            pipe.window.set(pipe.window.get() - sent);
        }
        Poll::Ready(Ok(sent))
    }

    fn shutdown(&self) {
        self.0.over.set(true);
    }
}

/// The mesh of a node with one reactor, which never needs it.
#[derive(Clone)]
pub struct Alone;

impl Alone {
    /// The only reactor.
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
