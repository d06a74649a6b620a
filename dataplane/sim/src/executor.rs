//! The simulation: nodes, tasks, and the loop that runs them.
//!
//! At each step the seed chooses among the runnable tasks and the event that is due; only when there is
//! neither does time jump to the next event. A run ends when all goals have ended (or, without goals, when
//! nothing is left to happen), or with a [`Failure`] that carries the line to reproduce it.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use ashlar_env::Instant;

use crate::disk::{DiskGeometry, DiskId, DiskImage};
use crate::event::Kind;
use crate::faults::{Policy, Profile};
use crate::marks::Marks;
use crate::mesh::SimMesh;
use crate::node::{NodeId, SimEnv};
use crate::planted::Planted;
use crate::rng::{Prng, Rate};
use crate::world::{Due, TaskId, World};

/// One simulation. Dropping it ends everything in it.
pub struct Sim {
    control: Control,
    reproduce: String,
}

/// The hand that runs the world: crashes, restarts, partitions. Cloning gives the same world.
#[derive(Clone)]
pub struct Control {
    world: Rc<World>,
}

/// How a run ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Polls and events.
    pub steps: u64,
    /// Virtual time since the beginning.
    pub time: Duration,
    /// Entries of the event log, and their hash: equal for two runs of one seed.
    pub events: u64,
    /// See `events`.
    pub event_hash: u64,
    /// The digest of each disk's image, in the order of their making.
    pub disk_hashes: Vec<u64>,
    /// The marks reached.
    pub marks: Marks,
}

/// How a run ended badly.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What noticed: `panic`, `deadlock`, `livelock`, `hang`, or the name of a checker.
    pub check: String,
    /// What it says.
    pub message: String,
    /// The seed.
    pub seed: u64,
    /// Virtual time at the failure.
    pub at: Duration,
    /// The command that shows it again.
    pub reproduce: String,
    /// The last events, one a line.
    pub events: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = option_env!("ASHLAR_COMMIT").unwrap_or("unknown");
        writeln!(
            f,
            "FAIL check={} seed={:#x} at={:?} commit={commit} | {}",
            self.check, self.seed, self.at, self.reproduce
        )?;
        writeln!(f, "{}", self.message)?;
        write!(f, "the last events:\n{}", self.events)
    }
}

impl std::error::Error for Failure {}

/// What a crash takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies: what disks have completed stays, sockets are closed by the kernel.
    Process,
    /// The power fails: volatile caches go, peers hear nothing.
    Power,
}

enum Step {
    Ran,
    Idle,
}

impl Sim {
    /// A world with this seed and profile. Its reproduction line names this crate's own simulator; set another
    /// with [`Self::reproduce_by`].
    #[must_use]
    pub fn new(seed: u64, profile: Profile) -> Self {
        Self::with_bugs(seed, profile, Planted::default())
    }

    /// The same with bugs planted.
    #[must_use]
    pub fn with_bugs(seed: u64, profile: Profile, planted: Planted) -> Self {
        let reproduce = format!("cargo run --profile sim -p ashlar-sim -- --seed {seed:#x}");
        Self { control: Control { world: World::new(seed, profile, planted) }, reproduce }
    }

    /// Sets the command that a failure names; `{seed}` in it becomes the seed.
    #[must_use]
    pub fn reproduce_by(mut self, command: &str) -> Self {
        self.reproduce = command.replace("{seed}", &format!("{:#x}", self.control.world.seed));
        self
    }

    /// The hand that runs this world; tasks of a test may hold it.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Runs until all goals have ended; without goals, until nothing is left to happen.
    ///
    /// # Errors
    /// A [`Failure`]: a checker's report, a panic, a deadlock, a livelock, or too much virtual time.
    pub fn run(&self) -> Result<Report, Failure> {
        let world = &self.control.world;
        let limits = world.profile.schedule;
        let goals = world.tasks.borrow().goals > 0;
        let (mut last_time, mut steps_here) = (world.now.get(), 0);
        loop {
            if let Some((check, message)) = world.failed.borrow_mut().take() {
                return Err(self.failure(&check, message));
            }
            if goals && world.tasks.borrow().goals == 0 {
                crate::net::close_orphans(world);
                return Ok(self.report());
            }
            match catch_unwind(AssertUnwindSafe(|| step(world))) {
                Ok(Step::Ran) => {}
                Ok(Step::Idle) if goals => {
                    let left = world.tasks.borrow().goals;
                    let message = format!("{left} goals wait, nothing is runnable, nothing is due");
                    return Err(self.failure("deadlock", message));
                }
                Ok(Step::Idle) => return Ok(self.report()),
                Err(panic) => return Err(self.failure("panic", panic_message(&*panic))),
            }
            world.steps.set(world.steps.get() + 1);
            steps_here = if world.now.get() == last_time { steps_here + 1 } else { 0 };
            last_time = world.now.get();
            if steps_here > limits.steps_at_one_time_max || world.steps.get() > limits.steps_max {
                let message = format!("{} steps, {steps_here} of them at this time", world.steps.get());
                return Err(self.failure("livelock", message));
            }
            if u128::from(last_time) > limits.time_max.as_nanos() {
                return Err(self.failure("hang", "the goals have not ended in time".into()));
            }
        }
    }

    fn report(&self) -> Report {
        let world = &self.control.world;
        let log = world.log.borrow();
        Report {
            seed: world.seed,
            steps: world.steps.get(),
            time: Duration::from_nanos(world.now.get()),
            events: log.count(),
            event_hash: log.hash(),
            disk_hashes: world.disks.borrow().hashes(),
            marks: world.marks.clone(),
        }
    }

    fn failure(&self, check: &str, message: String) -> Failure {
        let world = &self.control.world;
        let events: Vec<String> = world.log.borrow().last().map(ToString::to_string).collect();
        Failure {
            check: check.to_owned(),
            message,
            seed: world.seed,
            at: Duration::from_nanos(world.now.get()),
            reproduce: self.reproduce.clone(),
            events: events.join("\n"),
        }
    }
}

impl std::ops::Deref for Sim {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.control.world.tear_down();
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// One poll or one event, after a jump in time if there is no other way.
fn step(world: &Rc<World>) -> Step {
    take_woken(world);
    crate::net::close_orphans(world);
    let mut tasks = world.tasks.borrow_mut();
    let next = tasks.due.first_key_value().map(|(&(at, ..), _)| at);
    if tasks.ready.is_empty() {
        let Some(at) = next else { return Step::Idle };
        world.now.set(at.max(world.now.get()));
    }
    let due = next.is_some_and(|at| at <= world.now.get());
    let mut rng = world.scheduler.borrow_mut();
    let ready = tasks.ready.len();
    let choice = if due && rng.index(ready + 1) == ready {
        None
    } else {
        Some(choose(&mut rng, world.profile.schedule.policy, ready))
    };
    drop(rng);
    if let Some(index) = choice {
        let id = tasks.ready.remove(index);
        drop(tasks);
        poll(world, id);
        return Step::Ran;
    }
    let (key, due) = tasks.due.pop_first().expect("an event is due");
    drop(tasks);
    world.log(Kind::Due, key.2, 0, 0);
    match due {
        Due::Wake(waker) => waker.wake(),
        Due::Act(act) => act(world),
    }
    Step::Ran
}

fn choose(rng: &mut Prng, policy: Policy, ready: usize) -> usize {
    let uniform = rng.index(ready);
    let fair = rng.hits(Rate(125_000));
    match policy {
        Policy::Oldest if !fair => 0,
        Policy::Newest if !fair => ready - 1,
        _ => uniform,
    }
}

/// Moves what was woken to the runnable tasks, or to those held by a paused node.
fn take_woken(world: &World) {
    let woken = std::mem::take(&mut *world.inbox.woken.lock().expect("no waker panics"));
    let mut tasks = world.tasks.borrow_mut();
    let mut nodes = world.nodes.borrow_mut();
    for id in woken {
        let Some(task) = tasks.all.get(&id) else { continue };
        let node = nodes.get_mut(task.node);
        if node.paused_until > world.now.get() {
            node.held.push(id);
        } else {
            tasks.ready.push(id);
        }
    }
}

fn poll(world: &Rc<World>, id: TaskId) {
    let mut tasks = world.tasks.borrow_mut();
    let Some(task) = tasks.all.get_mut(&id) else { return };
    let paused = {
        let mut nodes = world.nodes.borrow_mut();
        let node = nodes.get_mut(task.node);
        let paused = node.paused_until > world.now.get();
        if paused {
            node.held.push(id);
        }
        paused
    };
    if paused {
        return;
    }
    task.wake.queued.store(false, Ordering::Relaxed);
    let mut future = task.future.take().expect("no task polls itself");
    let waker = Waker::from(task.wake.clone());
    let (node, reactor) = (u64::from(task.node.0), u64::from(task.reactor));
    drop(tasks);
    world.log(Kind::Poll, id, node, reactor);
    let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    if ended {
        let task = world.tasks.borrow_mut().remove(id);
        drop(task);
        world.log(Kind::End, id, node, reactor);
        return;
    }
    let again = world.scheduler.borrow_mut().hits(world.profile.schedule.spurious_poll);
    if again {
        waker.wake_by_ref();
    }
    let mut tasks = world.tasks.borrow_mut();
    match tasks.all.get_mut(&id) {
        Some(task) => task.future = Some(future),
        None => {
            // The task crashed its own node: it goes as the others did.
            drop(tasks);
            drop(future);
        }
    }
}

impl Control {
    /// Adds a node with `reactors` reactors. It lives from the start.
    pub fn node(&self, name: &str, reactors: u16) -> NodeId {
        self.world.nodes.borrow_mut().add(name, reactors, &self.world)
    }

    /// The environment of a reactor, as the node lives now.
    ///
    /// # Panics
    /// If the node is down or has no such reactor.
    #[must_use]
    pub fn env(&self, node: NodeId, reactor: u16) -> SimEnv {
        SimEnv::of(&self.world, node, reactor)
    }

    /// Starts a task on a reactor. The run does not wait for it.
    pub fn spawn_on<F: Future<Output = ()> + 'static>(
        &self,
        node: NodeId,
        reactor: u16,
        task: impl FnOnce(SimEnv) -> F,
    ) {
        let env = self.env(node, reactor);
        self.world.spawn(node, reactor, false, Box::pin(task(env)));
    }

    /// Starts a task that the run waits for. A crash of its node ends it.
    pub fn goal_on<F: Future<Output = ()> + 'static>(
        &self,
        node: NodeId,
        reactor: u16,
        task: impl FnOnce(SimEnv) -> F,
    ) {
        let env = self.env(node, reactor);
        self.world.spawn(node, reactor, true, Box::pin(task(env)));
    }

    /// Links between all reactors of a node: one end for each, in their order.
    #[must_use]
    pub fn mesh<M: Send + 'static>(&self, node: NodeId) -> Vec<SimMesh<M>> {
        let reactors = self.world.nodes.borrow().get(node).reactors;
        let envs = (0..reactors).map(|reactor| self.env(node, reactor)).collect();
        SimMesh::ends(envs)
    }

    /// Adds an empty disk. It belongs to no node until opened.
    pub fn disk(&self, name: &str, geometry: DiskGeometry) -> DiskId {
        self.world.disks.borrow_mut().add(name, geometry, self.world.seed)
    }

    /// Adds a disk that begins with this image.
    pub fn disk_from(&self, name: &str, geometry: DiskGeometry, image: &DiskImage) -> DiskId {
        let id = self.disk(name, geometry);
        self.world.disks.borrow_mut().load(id, image);
        id
    }

    /// What the medium of `disk` holds durably now.
    #[must_use]
    pub fn image(&self, disk: DiskId) -> DiskImage {
        self.world.disks.borrow().image(disk)
    }

    /// Ends all faults that sit in the medium of `disk`: latent errors, rot, lost and misdirected writes.
    pub fn heal_disk(&self, disk: DiskId) {
        self.world.disks.borrow_mut().heal(disk);
    }

    /// Makes a read of any sector in `bytes` from `start` fail until it is written again.
    pub fn break_sectors(&self, disk: DiskId, start: u64, bytes: u64) {
        self.world.disks.borrow_mut().break_sectors(disk, start, bytes);
    }

    /// Lets at most `bytes` more be allocated on `disk`; `None` ends the limit.
    pub fn limit_disk(&self, disk: DiskId, bytes: Option<u64>) {
        self.world.disks.borrow_mut().limit(disk, bytes);
    }

    /// Crashes a node: its tasks vanish without clean-up, its environment is dead.
    pub fn crash(&self, node: NodeId, how: Crash) {
        let world = &self.world;
        let incarnation = world.nodes.borrow_mut().kill(node);
        world.log(Kind::Crash, u64::from(node.0), u64::from(incarnation), u64::from(how == Crash::Power));
        crate::disk::crash(world, node, how);
        crate::net::crash(world, node, how);
        world.drop_tasks_of(node);
    }

    /// Lets a crashed node live again, with nothing but its disks. Start its tasks afterwards.
    pub fn restart(&self, node: NodeId) {
        let incarnation = {
            let mut nodes = self.world.nodes.borrow_mut();
            let it = nodes.get_mut(node);
            assert!(!it.alive, "node {} is alive", it.name);
            it.alive = true;
            it.paused_until = 0;
            it.incarnation
        };
        self.world.log(Kind::Restart, u64::from(node.0), u64::from(incarnation), 0);
    }

    /// Whether the node is up.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.world.nodes.borrow().get(node).alive
    }

    /// Stops the node's tasks for this long; its clock, its kernel and its disks go on.
    pub fn pause(&self, node: NodeId, time: Duration) {
        let world = &self.world;
        let ns = time.as_nanos() as u64;
        world.log(Kind::Pause, u64::from(node.0), ns, 0);
        let until = world.now.get().saturating_add(ns);
        world.nodes.borrow_mut().get_mut(node).paused_until = until;
        world.after(ns, move |world| {
            let held = {
                let mut nodes = world.nodes.borrow_mut();
                let node = nodes.get_mut(node);
                if node.paused_until > world.now.get() {
                    return;
                }
                std::mem::take(&mut node.held)
            };
            world.tasks.borrow_mut().ready.extend(held);
        });
    }

    /// Cuts or heals the one-way path between two nodes on network `path`; all networks where `None`.
    pub fn set_cut(&self, from: NodeId, to: NodeId, path: Option<u8>, cut: bool) {
        self.world.log(Kind::Path, u64::from(from.0), u64::from(to.0), u64::from(cut));
        self.world.net.borrow_mut().set_cut(from, to, path, cut);
    }

    /// Cuts two nodes off from each other, or heals that.
    pub fn set_partition(&self, a: NodeId, b: NodeId, cut: bool) {
        self.set_cut(a, b, None, cut);
        self.set_cut(b, a, None, cut);
    }

    /// Ends network faults for good: no more resets, losses, stalls, refusals and cuts. For the liveness
    /// phase.
    pub fn calm_network(&self) {
        self.world.net.borrow_mut().calm();
    }

    /// Breaks every open connection of `node`.
    pub fn reset_connections(&self, node: NodeId) {
        crate::net::reset_all(&self.world, node);
    }

    /// True virtual time.
    #[must_use]
    pub fn time(&self) -> Instant {
        Instant(self.world.now.get())
    }

    /// How many tasks `node` has. Once everything is idle none should be left over.
    #[must_use]
    pub fn task_count(&self, node: NodeId) -> usize {
        self.world.tasks.borrow().all.values().filter(|task| task.node == node).count()
    }

    /// How many connections `node` takes part in.
    #[must_use]
    pub fn connection_count(&self, node: NodeId) -> usize {
        self.world.net.borrow().open_sides(node)
    }

    /// A generator for the test's own decisions, split from the seed.
    #[must_use]
    pub fn rng(&self, label: &str) -> RefCell<Prng> {
        RefCell::new(Prng::split(self.world.seed, label, 0))
    }

    /// The marks of the run.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.world.marks
    }

    /// Ends the run with a failure of `check`, unless another came first.
    pub fn fail(&self, check: &str, message: impl Into<String>) {
        self.world.fail(check, message.into());
    }
}
