//! One volume by two protocols at once, in the simulator: hosts on NVMe/TCP and hosts on iSCSI work on the same blocks
//! through one node, with crashes, power failures and a faulty network. Every block is checked as one linearizable
//! register over all of them, compare-and-writes against fused pairs included, and durability by the crash oracle.
//!
//! `ASHLAR_FIRST_SEED` and `ASHLAR_SEEDS` choose the seeds.

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../../target-iscsi/tests/common/bytes.rs"]
mod bytes;
mod iscsi;
mod node;
mod nvme;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::units::BlockSize;
use ashlar_sim::check::ledger::Ledger;
use ashlar_sim::conformance::{sleep, within};
use ashlar_sim::{
    Control, Crash, DiskGeometry, Failure, Marks, NodeId, Planted, Prng, Profile, Rate, Report, Sim, SimEnv,
};

use node::{Reactor, Service};

/// States that the seeds of an ordinary run must reach.
const MARKS: &[&str] = &[
    "host: associated",
    "host: logged in",
    "host: unknown write",
    "host: compared equal",
    "host: miscompare",
    "node: process crash",
    "node: power failure",
];
/// How many seeds run without being asked for.
const SEEDS: u64 = 40;
/// Within how many a planted bug must be found.
const HUNT_SEEDS: u64 = 60;
/// How long a host that vanished may be waited for, and all else.
const PATIENCE: Duration = Duration::from_secs(1200);

/// How large a run is; drawn from the seed.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Of each protocol.
    hosts: u64,
    commands: u64,
    blocks: u64,
    block_bytes: u32,
    reactors: u16,
    crashes: u64,
    volatile_cache: bool,
}

fn plan(rng: &mut Prng) -> Plan {
    Plan {
        hosts: rng.between(1, 2),
        commands: rng.between(20, 120),
        blocks: rng.between(2, 24),
        block_bytes: if rng.hits(Rate::percent(50)) { 512 } else { 4096 },
        reactors: rng.between(1, 3) as u16,
        crashes: rng.below(3),
        volatile_cache: rng.hits(Rate::percent(60)),
    }
}

/// What the hosts of both protocols are told of a run.
#[derive(Clone)]
struct Runs {
    nvme: Rc<nvme::host::Run>,
    iscsi: Rc<iscsi::host::Run>,
}

impl Runs {
    fn new(plan: Plan) -> Self {
        let ledger = Rc::new(RefCell::new(Ledger::new(0x51, plan.block_bytes, plan.volatile_cache)));
        let nvme = nvme::host::Run { plan, ledger: Rc::clone(&ledger), hosts_left: Cell::new(plan.hosts) };
        let iscsi = iscsi::host::Run { plan, ledger, hosts_left: Cell::new(plan.hosts) };
        Self { nvme: Rc::new(nvme), iscsi: Rc::new(iscsi) }
    }

    fn hosts_left(&self) -> u64 {
        self.nvme.hosts_left.get() + self.iscsi.hosts_left.get()
    }
}

fn run(seed: u64, planted: Planted) -> Result<Report, Failure> {
    let mut rng = Prng::split(seed, "plan", 0);
    let plan = plan(&mut rng);
    let mut profile = Profile::swarm(seed);
    // A connection holds buffers while it lives, so a pool has a size below which nothing works.
    profile.pool = Profile::calm().pool;
    let sim = Sim::with_bugs(seed, profile, planted)
        .reproduce_by("ASHLAR_FIRST_SEED={seed} ASHLAR_SEEDS=1 cargo test --profile sim --test mixed");
    let mut geometry = DiskGeometry::of_bytes(plan.blocks * u64::from(plan.block_bytes));
    (geometry.block_bytes, geometry.sector_bytes) = (plan.block_bytes, plan.block_bytes);
    geometry.volatile_cache = plan.volatile_cache;
    let service = Service {
        node: sim.node("node", plan.reactors),
        disk: sim.disk("disk", geometry),
        block: BlockSize::new(plan.block_bytes).expect("a block size hosts know"),
        home: rng.below(u64::from(plan.reactors)) as u16,
    };
    let runs = Runs::new(plan);
    let director = sim.node("director", 1);
    let reactors = service.start(&sim, 0);
    for number in 0..plan.hosts {
        // Numbers tell writers apart in the ledger.
        let (by_nvme, by_iscsi) = (number as u32 * 2 + 1, number as u32 * 2 + 2);
        let (node, told) = (sim.node(&format!("nvme host {number}"), 1), runs.clone());
        sim.spawn_on(node, 0, move |env| nvme_host(env, &told, by_nvme, service.node, plan.commands).work());
        let (node, told) = (sim.node(&format!("iscsi host {number}"), 1), runs.clone());
        sim.spawn_on(node, 0, move |env| {
            iscsi_host(env, &told, by_iscsi, service.node, plan.commands).work()
        });
    }
    let control = sim.control();
    sim.goal_on(director, 0, |env| direct(env, control, rng, service, runs, reactors));
    sim.run()
}

fn paths(node: NodeId, port: u16) -> [SocketAddr; 2] {
    [0, 1].map(|path| SocketAddr::new(node.ip(path), port))
}

fn nvme_host(env: SimEnv, runs: &Runs, number: u32, node: NodeId, commands: u64) -> nvme::host::Host {
    let paths = paths(node, nvme::node::PORT);
    nvme::host::Host { run: Rc::clone(&runs.nvme), env, number, paths, left: Cell::new(commands) }
}

fn iscsi_host(env: SimEnv, runs: &Runs, number: u32, node: NodeId, commands: u64) -> iscsi::host::Host {
    let paths = paths(node, iscsi::node::PORT);
    let (run, left) = (Rc::clone(&runs.iscsi), Cell::new(commands));
    iscsi::host::Host { run, env, number, paths, left, unknown: RefCell::default() }
}

/// Crashes and pauses the node while the hosts work; then heals the network and audits by both protocols.
async fn direct(
    env: SimEnv,
    control: Control,
    mut rng: Prng,
    service: Service,
    runs: Runs,
    mut reactors: Vec<Reactor>,
) {
    let node = service.node;
    let (mut crashes_left, mut life) = (runs.nvme.plan.crashes, 0);
    while runs.hosts_left() > 0 {
        sleep(&env, Duration::from_micros(rng.tail(60_000))).await;
        match rng.below(16) {
            0..2 if crashes_left > 0 => {
                crashes_left -= 1;
                life += 1;
                let how = if rng.hits(Rate::percent(60)) { Crash::Power } else { Crash::Process };
                reactors.clear();
                crash(&control, node, how, &runs);
                sleep(&env, Duration::from_micros(rng.tail(2_000_000))).await;
                control.restart(node);
                reactors = service.start(&control, life);
            }
            2 => control.pause(node, Duration::from_micros(rng.tail(500_000))),
            _ => {}
        }
    }
    control.calm_network();
    let by_nvme = nvme_host(env.clone(), &runs, 0, node, 0).audit();
    let by_iscsi = iscsi_host(env.clone(), &runs, 0, node, 0).audit();
    for ended in [within(&env, PATIENCE, by_nvme).await, within(&env, PATIENCE, by_iscsi).await] {
        if ended.is_none() {
            env.fail("liveness", "the audit did not end though the network is healed");
        }
    }
    let quiet = async {
        while reactors.iter().map(Reactor::busy).sum::<usize>() > 0 {
            sleep(&env, Duration::from_secs(1)).await;
        }
    };
    // Nothing tells a target of an NVMe host that wanted no keep-alive and vanished.
    if within(&env, PATIENCE, quiet).await.is_none()
        && control.marks().count("host: associated without keep-alive") == 0
    {
        env.fail("left over", "connections or sessions of hosts that are gone");
    }
}

fn crash(control: &Control, node: NodeId, how: Crash, runs: &Runs) {
    control.crash(node, how);
    let mut ledger = runs.nvme.ledger.borrow_mut();
    match how {
        Crash::Process => {
            control.marks().hit("node: process crash");
            ledger.process_died();
        }
        Crash::Power => {
            control.marks().hit("node: power failure");
            ledger.power_failed();
        }
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

#[test]
fn both_protocols_see_one_register() {
    let first = from_environment("ASHLAR_FIRST_SEED", 0);
    let count = from_environment("ASHLAR_SEEDS", SEEDS);
    let marks = Marks::default();
    for seed in first..first + count {
        match run(seed, Planted::default()) {
            Ok(report) => marks.merge(&report.marks),
            Err(failure) => panic!("{failure}"),
        }
    }
    let missing = marks.missing(MARKS);
    assert!(count < SEEDS || missing.is_empty(), "never reached: {missing:?}");
}

/// What is wrong below the targets is found, whichever protocol meets it.
#[test]
fn planted_bugs_are_found() {
    let none = Planted::default();
    for planted in [
        Planted { disk_repeats_write: true, ..none },
        Planted { net_swaps_bytes: true, ..none },
        Planted { flush_does_nothing: true, ..none },
        Planted { fua_stays_cached: true, ..none },
    ] {
        let Some(failure) = (0..HUNT_SEEDS).find_map(|seed| run(seed, planted).err()) else {
            panic!("not found: {planted:?}");
        };
        assert_ne!(failure.check, "panic", "{failure}");
    }
}
