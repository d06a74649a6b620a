//! Nodes, their reactors, and the environment a task on a reactor is handed.

use std::cell::RefCell;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ashlar_env::{BufPool, Clock, Env, Instant, Net, Rng, Spawn};

use crate::disk::{DiskId, SimDisk};
use crate::event::Kind;
use crate::marks::Marks;
use crate::net::{SimAccepted, SimListener, SimStream};
use crate::rng::Prng;
use crate::world::{Due, DueKey, TaskId, World};

/// Milliseconds since 1970 at which every simulation begins: 2026-01-01 00:00 UTC.
const WALL_START_MS: u64 = 1_767_225_600_000;

/// The number of a node of the simulation, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The node's address on network `path`: a node has one on each of 256 networks.
    #[must_use]
    pub fn ip(self, path: u8) -> IpAddr {
        let [high, low] = self.0.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, path, high, low))
    }

    /// The node that has `ip`, and on which network; `here` for loopback.
    pub(crate) fn of(ip: IpAddr, here: Self) -> Option<(Self, u8)> {
        match ip {
            IpAddr::V4(v4) if v4.is_loopback() => Some((here, 0)),
            IpAddr::V4(v4) => match v4.octets() {
                [10, path, high, low] => Some((Self(u16::from_be_bytes([high, low])), path)),
                _ => None,
            },
            IpAddr::V6(v6) => v6.is_loopback().then_some((here, 0)),
        }
    }
}

pub(crate) struct Node {
    pub name: String,
    pub reactors: u16,
    pub alive: bool,
    /// Raised by every crash; what belongs to an earlier one is dead.
    pub incarnation: u32,
    /// Until when no task of it runs, in nanoseconds.
    pub paused_until: u64,
    /// Its tasks that became runnable meanwhile.
    pub held: Vec<TaskId>,
    /// What its clock shows when the simulation begins, in nanoseconds, and how fast it runs.
    clock_start: u64,
    clock_ppm: i64,
    envs: Vec<SimEnv>,
}

#[derive(Default)]
pub(crate) struct Nodes {
    pub all: Vec<Node>,
}

impl Nodes {
    pub fn add(&mut self, name: &str, reactors: u16, world: &World) -> NodeId {
        let id = NodeId(u16::try_from(self.all.len()).expect("fewer than 65536 nodes"));
        let mut rng = Prng::split(world.seed, "node clock", u64::from(id.0));
        let drift = u64::from(world.profile.schedule.clock_drift_ppm_max);
        let clock_ppm = rng.below(2 * drift + 1) as i64 - drift as i64;
        self.all.push(Node {
            name: name.to_owned(),
            reactors,
            alive: true,
            incarnation: 0,
            paused_until: 0,
            held: Vec::new(),
            clock_start: rng.below(1 << 40),
            clock_ppm,
            envs: Vec::new(),
        });
        id
    }

    pub fn get(&self, id: NodeId) -> &Node {
        &self.all[usize::from(id.0)]
    }

    pub fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.all[usize::from(id.0)]
    }

    pub fn is_alive(&self, id: NodeId, incarnation: u32) -> bool {
        self.all.get(usize::from(id.0)).is_some_and(|n| n.alive && n.incarnation == incarnation)
    }

    pub fn kill(&mut self, id: NodeId) -> u32 {
        let node = self.get_mut(id);
        node.alive = false;
        node.incarnation += 1;
        node.held.clear();
        node.envs.clear();
        node.incarnation
    }

    pub fn kill_all(&mut self) {
        for node in 0..self.all.len() {
            self.kill(NodeId(node as u16));
        }
    }
}

impl Node {
    /// What the node's clock shows at the true time `ns`.
    fn clock_at(&self, ns: u64) -> u64 {
        let gained = i128::from(ns) * i128::from(self.clock_ppm) / 1_000_000;
        self.clock_start.saturating_add((i128::from(ns) + gained) as u64)
    }

    /// The true time at which the node's clock surely shows `clock` or later.
    fn true_time_of(&self, clock: u64) -> u64 {
        let passed = i128::from(clock.saturating_sub(self.clock_start));
        (passed * 1_000_000 / (1_000_000 + i128::from(self.clock_ppm)) + 2) as u64
    }
}

/// The environment of one reactor of a node, in one of the node's lives. Cloning shares it.
#[derive(Clone)]
pub struct SimEnv {
    inner: Rc<EnvInner>,
}

struct EnvInner {
    world: Rc<World>,
    node: NodeId,
    reactor: u16,
    incarnation: u32,
    pool: BufPool,
    rng: RefCell<Prng>,
}

impl SimEnv {
    /// The environment of `reactor` of `node` as it lives now; the same one each time.
    pub(crate) fn of(world: &Rc<World>, node: NodeId, reactor: u16) -> Self {
        let mut nodes = world.nodes.borrow_mut();
        let it = nodes.get_mut(node);
        assert!(it.alive, "node {} is down", it.name);
        assert!(reactor < it.reactors, "node {} has {} reactors", it.name, it.reactors);
        if let Some(env) = it.envs.iter().find(|env| env.inner.reactor == reactor) {
            return env.clone();
        }
        let number = u64::from(node.0) << 32 | u64::from(reactor);
        let label = format!("reactor {}", it.incarnation);
        let env = Self {
            inner: Rc::new(EnvInner {
                world: Rc::clone(world),
                node,
                reactor,
                incarnation: it.incarnation,
                pool: BufPool::on_heap(world.profile.pool),
                rng: RefCell::new(Prng::split(world.seed, &label, number)),
            }),
        };
        it.envs.push(env.clone());
        env
    }

    pub(crate) fn world(&self) -> &Rc<World> {
        &self.inner.world
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// The reactor's number within the node.
    #[must_use]
    pub fn reactor(&self) -> u16 {
        self.inner.reactor
    }

    pub(crate) fn incarnation(&self) -> u32 {
        self.inner.incarnation
    }

    /// Whether the node still lives the life this environment belongs to.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.inner.world.nodes.borrow().is_alive(self.inner.node, self.inner.incarnation)
    }

    /// The marks of the run, for [`sometimes!`](crate::sometimes).
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.inner.world.marks
    }

    /// Ends the run with a failure of `check`, unless another came first. Returns; the task goes on until its
    /// next await.
    pub fn fail(&self, check: &str, message: impl Into<String>) {
        self.inner.world.fail(check, message.into());
    }

    /// Puts three numbers of the test's own into the event log.
    pub fn note(&self, a: u64, b: u64, c: u64) {
        self.inner.world.log(Kind::Note, a, b, c);
    }

    /// True virtual time, the same on all nodes, whatever their clocks show. For checkers and test harnesses,
    /// never for the code under test.
    #[must_use]
    pub fn true_time(&self) -> Instant {
        Instant(self.inner.world.now.get())
    }

    /// Opens a disk for this node. The latch of an earlier handle is gone, except where the medium itself is
    /// broken.
    #[must_use]
    pub fn open_disk(&self, disk: DiskId) -> SimDisk {
        SimDisk::open(self, disk)
    }
}

impl Clock for SimEnv {
    fn now(&self) -> Instant {
        let world = &self.inner.world;
        Instant(world.nodes.borrow().get(self.inner.node).clock_at(world.now.get()))
    }

    fn wall_ms(&self) -> u64 {
        WALL_START_MS + self.inner.world.now.get() / 1_000_000
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Unpin + 'static {
        Sleep { env: self.clone(), deadline, armed: None }
    }
}

struct Sleep {
    env: SimEnv,
    deadline: Instant,
    armed: Option<DueKey>,
}

impl Sleep {
    fn disarm(&mut self) {
        if let Some(key) = self.armed.take() {
            self.env.inner.world.cancel(key);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.disarm();
        if self.env.now() >= self.deadline {
            return Poll::Ready(());
        }
        if self.deadline == Instant::FAR_FUTURE || !self.env.is_alive() {
            return Poll::Pending;
        }
        let world = Rc::clone(&self.env.inner.world);
        let at = world.nodes.borrow().get(self.env.inner.node).true_time_of(self.deadline.0);
        // A timer is never exact; up to 60 us late, as measured on Linux.
        let late = self.env.inner.rng.borrow_mut().below(60_000);
        self.armed = Some(world.at(at.saturating_add(late), Due::Wake(cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl Rng for SimEnv {
    fn random_u64(&self) -> u64 {
        self.inner.rng.borrow_mut().next_u64()
    }
}

impl Spawn for SimEnv {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if self.is_alive() {
            self.inner.world.spawn(self.inner.node, self.inner.reactor, false, Box::pin(task));
        }
    }
}

impl Net for SimEnv {
    type Stream = SimStream;
    type Listener = SimListener;
    type Accepted = SimAccepted;

    fn listen(&self, address: SocketAddr) -> Result<SimListener, ashlar_env::net::NetError> {
        SimListener::bind(self, address)
    }

    fn adopt(&self, accepted: SimAccepted) -> Result<SimStream, ashlar_env::net::NetError> {
        accepted.adopt(self)
    }

    fn connect(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = Result<SimStream, ashlar_env::net::NetError>> {
        crate::net::connect(self.clone(), address)
    }
}

impl Env for SimEnv {
    fn buffers(&self) -> &BufPool {
        &self.inner.pool
    }
}
