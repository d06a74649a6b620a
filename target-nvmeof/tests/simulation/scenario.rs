//! A run: what is drawn from the seed, what goes wrong, and what must hold at the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::units::BlockSize;
use ashlar_sim::conformance::{sleep, within};
use ashlar_sim::{Control, Crash, DiskGeometry, Failure, NodeId, Prng, Profile, Rate, Report, Sim, SimEnv};

use crate::books::Books;
use crate::bytes::Digests;
use crate::controller::Wish;
use crate::flaw::Flaw;
use crate::host::{Host, PRIVATE_BLOCKS, WORKERS_MAX};
use crate::node::{NodePlan, PORT, Shared, SubsystemPlan, VolumePlan};
use crate::queue::Manners;

/// Hosts of a run, at most.
pub const HOSTS_MAX: u64 = 3;
/// Blocks of each volume that belong to single workers.
const PRIVATE: u64 = HOSTS_MAX * WORKERS_MAX * PRIVATE_BLOCKS;

/// The states that the seeds of the gate must reach.
pub const MARKS: &[&str] = &[
    "disk: cached write lost at a crash",
    "net: reset in mid-stream",
    "net: stall",
    "mesh: link full",
    "host: abort answered",
    "host: back before the target gave its old controller up",
    "host: clean shutdown",
    "host: command identifier of a lost command used again",
    "host: command timed out",
    "host: compare-and-write hit",
    "host: compare-and-write missed",
    "host: connection lost within a fused pair",
    "host: connection lost within the data of an R2T",
    "host: died",
    "host: dropped its connections",
    "host: error of the medium",
    "host: keep-alive timeout ended the controller",
    "host: success by the flag of the data",
    "host: write of unknown outcome",
    "target: all connections ended while writes were in doubt",
    "target: cut off",
    "target: paused",
    "target: power failure",
    "target: process crash",
];

/// The command that shows a seed again.
const REPRODUCE: &str = "ASHLAR_SEED={seed} cargo test --profile sim -p ashlar-nvmeof --test simulation -- \
                         --ignored --exact one_seed --nocapture";

/// What the director of a run has at hand.
struct Director {
    env: SimEnv,
    control: Control,
    rng: Prng,
    plan: Rc<NodePlan>,
    target: Shared,
    books: Rc<RefCell<Books>>,
    hosts: Vec<(NodeId, Rc<Host>)>,
    healed: Rc<Cell<bool>>,
    lives: u64,
    crashes_left: u64,
    media_err: bool,
}

/// Whether the disks of this seed err.
fn media_err(seed: u64) -> bool {
    seed % 8 == 7
}

fn profile(seed: u64) -> Profile {
    let mut profile =
        if media_err(seed) { Profile::swarm_with_disk_errors(seed) } else { Profile::swarm(seed) };
    // With less, a PDU takes longer than the target's patience.
    profile.net.window_bytes = profile.net.window_bytes.max(1024);
    // A profile of errors that does without them would prove nothing.
    if media_err(seed) && profile.disk.write_error == Rate::NEVER {
        profile.disk.write_error = Rate::percent(1);
    }
    profile.disk.write_error_stays = false;
    profile
}

/// Runs `seed` with `flaw` planted into the target's volumes.
///
/// # Errors
/// What the checkers found.
pub fn run(seed: u64, flaw: Flaw) -> Result<Report, Failure> {
    let mut rng = Prng::split(seed, "plan", 0);
    let profile = profile(seed);
    let sim = Sim::new(seed, profile).reproduce_by(REPRODUCE);
    let control = sim.control();
    let plan = Rc::new(draw_node(&control, &mut rng, flaw));
    let director = control.node("director", 1);
    let books = Rc::new(RefCell::new(Books::new(&plan)));
    let target: Shared = Rc::new(RefCell::new(Some(plan.start(&control, 0))));
    let healed = Rc::new(Cell::new(false));
    let count = rng.between(1, HOSTS_MAX);
    let hosts = (0..count as u16).map(|number| {
        let node = control.node(&format!("host {number}"), 1);
        let host = Host {
            number,
            plan: Rc::clone(&plan),
            target: Rc::clone(&target),
            wish: draw_wish(&mut rng, &plan, number),
            workers: rng.between(1, WORKERS_MAX),
            bytes_max: if profile.net.window_bytes < 16 << 10 { 16 << 10 } else { 128 << 10 },
            media_err: media_err(seed),
            books: Rc::clone(&books),
            budget: Cell::new(rng.between(20, 160) / count),
            healed: Rc::clone(&healed),
            doubts: RefCell::default(),
            done: Cell::new(false),
        };
        (node, Rc::new(host))
    });
    let hosts: Vec<_> = hosts.collect();
    for (node, host) in &hosts {
        let host = Rc::clone(host);
        control.spawn_on(*node, 0, |env| host.run(env));
    }
    let crashes_left = rng.below(3);
    let env = control.env(director, 0);
    let media_err = media_err(seed);
    let it = Director {
        env,
        control: control.clone(),
        rng,
        plan,
        target,
        books,
        hosts,
        healed,
        lives: 0,
        crashes_left,
        media_err,
    };
    control.goal_on(director, 0, |_| it.direct());
    sim.run()
}

fn draw_node(control: &Control, rng: &mut Prng, flaw: Flaw) -> NodePlan {
    let reactors = rng.between(1, 3) as u16;
    let node = control.node("target", reactors);
    let volumes: Vec<VolumePlan> =
        (0..rng.between(1, 3)).map(|number| draw_volume(control, rng, number, reactors)).collect();
    let mut subsystems: Vec<SubsystemPlan> = vec![BTreeMap::new(); rng.between(1, 2) as usize];
    // Each volume is in one subsystem at least; now and then in both.
    for volume in 0..volumes.len() {
        let home = rng.index(subsystems.len());
        for (number, subsystem) in subsystems.iter_mut().enumerate() {
            if number == home || rng.hits(Rate::percent(40)) {
                let nsid = subsystem.len() as u32 * 3 + rng.between(1, 3) as u32;
                subsystem.insert(nsid, volume);
            }
        }
    }
    subsystems.retain(|subsystem| !subsystem.is_empty());
    NodePlan { node, reactors, volumes, subsystems, flaw }
}

fn draw_volume(control: &Control, rng: &mut Prng, number: u64, reactors: u16) -> VolumePlan {
    // Block size of the volume, block and sector of the disk. A volume's block is no larger than a sector: a power
    // failure may tear what is, and pass-through volumes do not promise that it will not.
    let shapes = [(BlockSize::B512, 512, 512), (BlockSize::B512, 4096, 512), (BlockSize::B4096, 4096, 4096)];
    let (block, block_bytes, sector_bytes) = shapes[rng.index(shapes.len())];
    let blocks = PRIVATE + 8 * rng.between(1, 16);
    let size_bytes = (blocks << block.shift()).next_multiple_of(4096);
    let geometry = DiskGeometry {
        block_bytes,
        sector_bytes,
        volatile_cache: rng.hits(Rate::percent(60)),
        discard_zeroes: rng.hits(Rate::percent(50)),
        ..DiskGeometry::of_bytes(size_bytes)
    };
    let disk = control.disk(&format!("disk {number}"), geometry);
    let home = rng.below(u64::from(reactors)) as u16;
    let blocks = size_bytes >> block.shift();
    VolumePlan { disk, block, blocks, volatile_cache: geometry.volatile_cache, home }
}

fn draw_wish(rng: &mut Prng, plan: &NodePlan, host: u16) -> Wish {
    let digests = Digests { header: rng.hits(Rate::percent(50)), data: rng.hits(Rate::percent(50)) };
    let slow = rng.hits(Rate::percent(25));
    let rest_ms = if slow { [5, 200, 40_000][rng.index(3)] } else { 0 };
    let manners = Manners {
        digests,
        alignment: if rng.hits(Rate::percent(50)) { rng.below(32) as u8 } else { 0 },
        entries: rng.between(16, 128) as u16,
        no_flow_control: rng.hits(Rate::percent(50)),
        rest_max: Duration::from_millis(rest_ms),
    };
    Wish {
        address: (plan.node.ip(0), PORT).into(),
        subsystem: 0,
        host,
        queues: 1,
        kato_ms: if rng.hits(Rate::percent(70)) { 1000 * rng.between(1, 6) as u32 } else { 0 },
        identifies: true,
        manners,
    }
}

impl Director {
    async fn direct(mut self) {
        let mut patience = 60;
        while !self.hosts.iter().all(|(_, host)| host.done.get()) && patience > 0 {
            patience -= 1;
            let time = Duration::from_micros(self.rng.tail(60_000));
            sleep(&self.env, time).await;
            self.mischief().await;
            self.fence_if_idle();
        }
        self.heal().await;
        self.audit("the hosts have stopped").await;
        let how = if self.rng.hits(Rate::percent(70)) { Crash::Power } else { Crash::Process };
        self.crash(how).await;
        self.audit("the node has started from its disks alone").await;
    }

    /// Once the target has no connection, nothing that was under way may happen any more.
    fn fence_if_idle(&self) {
        let idle = self.target.borrow().as_ref().is_some_and(|life| life.connections() == 0);
        if idle {
            if self.books.borrow().open_writes() > 0 {
                self.env.marks().hit("target: all connections ended while writes were in doubt");
            }
            self.books.borrow_mut().fence(&self.env);
        }
    }

    async fn mischief(&mut self) {
        match self.rng.below(24) {
            0 | 1 if self.crashes_left > 0 => {
                self.crashes_left -= 1;
                let how = if self.rng.hits(Rate::percent(60)) { Crash::Power } else { Crash::Process };
                self.await_writes().await;
                self.crash(how).await;
            }
            2 => {
                self.env.marks().hit("target: paused");
                let time = Duration::from_micros(self.rng.tail(500_000));
                self.control.pause(self.plan.node, time);
            }
            3 | 4 => self.cut_off().await,
            5 => self.control.reset_connections(self.plan.node),
            6 => self.kill_host().await,
            // What a disk does after its first error is soon known.
            _ if self.books.borrow().media_errors > 20 => {
                self.books.borrow_mut().media_errors = 0;
                self.crash(Crash::Process).await;
            }
            _ => {}
        }
    }

    /// Waits a little for a moment at which a crash may hurt: shortly after a write was sent.
    async fn await_writes(&mut self) {
        let open = self.books.borrow().open_writes();
        for _ in 0..300 {
            if self.books.borrow().open_writes() > open {
                break;
            }
            sleep(&self.env, Duration::from_micros(100)).await;
        }
        let time = Duration::from_micros(self.rng.below(4_000));
        sleep(&self.env, time).await;
    }

    async fn crash(&mut self, how: Crash) {
        let name = if how == Crash::Power { "target: power failure" } else { "target: process crash" };
        self.env.marks().hit(name);
        self.target.borrow_mut().take();
        self.control.crash(self.plan.node, how);
        self.books.borrow_mut().crashed(how);
        let time = Duration::from_micros(self.rng.tail(1_000_000));
        sleep(&self.env, time).await;
        self.control.restart(self.plan.node);
        self.lives += 1;
        *self.target.borrow_mut() = Some(self.plan.start(&self.control, self.lives));
    }

    async fn cut_off(&mut self) {
        self.env.marks().hit("target: cut off");
        let (host, target) = (self.hosts[self.rng.index(self.hosts.len())].0, self.plan.node);
        let both = self.rng.hits(Rate::percent(50));
        self.control.set_cut(host, target, None, true);
        self.control.set_cut(target, host, None, both);
        let time = if self.rng.hits(Rate::percent(20)) { 40_000_000 } else { 400_000 };
        let time = Duration::from_micros(self.rng.tail(time));
        sleep(&self.env, time).await;
        self.control.set_partition(host, target, false);
    }

    /// A host dies with all it knows, and comes back.
    async fn kill_host(&mut self) {
        let (node, host) = self.hosts[self.rng.index(self.hosts.len())].clone();
        if host.done.get() {
            return;
        }
        self.env.marks().hit("host: died");
        let how = if self.rng.hits(Rate::percent(50)) { Crash::Power } else { Crash::Process };
        self.control.crash(node, how);
        let time = Duration::from_micros(self.rng.tail(2_000_000));
        sleep(&self.env, time).await;
        self.control.restart(node);
        self.control.spawn_on(node, 0, |env| host.run(env));
    }

    /// Ends all faults; now everything must come to its end.
    async fn heal(&mut self) {
        self.healed.set(true);
        self.control.calm_network();
        let all_done = async {
            while !self.hosts.iter().all(|(_, host)| host.done.get()) {
                sleep(&self.env, Duration::from_millis(100)).await;
                let broken = self.media_err && self.books.borrow().media_errors > 20;
                if broken {
                    self.hosts.iter().for_each(|(_, host)| host.budget.set(0));
                }
            }
        };
        if within(&self.env, Duration::from_secs(900), all_done).await.is_none() {
            self.env.fail("liveness", "the hosts' commands do not end though the faults are over");
        }
    }

    /// Waits until the target is idle, looks for what is left over, and reads every block.
    async fn audit(&mut self, when: &str) {
        self.settle(when).await;
        self.books.borrow_mut().fence(&self.env);
        let host = Rc::clone(&self.hosts[0].1);
        let reader = self.control.env(self.hosts[0].0, 0);
        let disks: Vec<_> = self.plan.volumes.iter().map(|volume| volume.disk).collect();
        let heal = || disks.iter().for_each(|&disk| self.control.heal_disk(disk));
        let audit = host.audit(&reader, heal);
        if within(&self.env, Duration::from_secs(600), audit).await.is_none() {
            self.env.fail("liveness", format!("the audit did not end: {when}"));
        }
        self.settle(when).await;
    }

    async fn settle(&self, when: &str) {
        let left = || self.target.borrow().as_ref().and_then(|life| life.left_over());
        let no_keep_alive = self.hosts.iter().any(|(_, host)| host.wish.kato_ms == 0);
        for round in 0..3000 {
            if left().is_none() {
                return;
            }
            if round == 1500 && no_keep_alive {
                // Of dead hosts that asked for no keep-alive TCP's own will tell, which is not modelled.
                self.env.marks().hit("target: connection of a dead host without keep-alive");
                self.control.reset_connections(self.plan.node);
            }
            sleep(&self.env, Duration::from_millis(100)).await;
        }
        if let Some(left) = left() {
            self.env.fail("left over", format!("{left}: {when}"));
        }
    }
}
