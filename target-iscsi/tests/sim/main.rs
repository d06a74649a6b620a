//! The target in the simulator: its server with a pass-through volume on several reactors, under host models,
//! network faults, crashes and power failures; every block is checked as a linearizable register, durability by
//! the crash oracle, every PDU against the specification.
//!
//! `cargo test -p ashlar-iscsi --test sim -- --seed 0x1f2e` runs one seed, `--seeds 0..500` many.

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../common/bytes.rs"]
mod bytes;
mod host;
mod link;
mod node;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::Env;
use ashlar_env::units::BlockSize;
use ashlar_iscsi::limits::Limits;
use ashlar_iscsi::view::Access;
use ashlar_sim::check::ledger::Ledger;
use ashlar_sim::conformance::{sleep, within};
use ashlar_sim::{
    Control, Crash, DiskGeometry, Failure, Marks, NodeId, Planted, Prng, Profile, Rate, Report, Sim, SimEnv,
};

use host::{Host, Run};
use node::{Life, PORT, Service};

/// States that the seeds of a gate must reach.
const MARKS: &[&str] = &[
    "host: logged in",
    "host: unit reset",
    "host: unit attention",
    "host: fenced write",
    "host: unknown write",
    "host: no reply in time",
    "host: compared equal",
    "host: miscompare",
    "node: process crash",
    "node: power failure",
    "net: reset in mid-stream",
    "net: stall",
    "disk: cached write lost at a crash",
];

/// How many seeds run without being asked for.
const SEEDS: u64 = 60;
/// Within how many a planted bug must be found.
const HUNT_SEEDS: u64 = 200;

/// How large a run is; drawn from the seed.
#[derive(Clone, Copy, Debug)]
struct Plan {
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
        hosts: rng.between(1, 4),
        commands: rng.between(20, 150),
        blocks: rng.between(4, 40),
        block_bytes: if rng.hits(Rate::percent(50)) { 512 } else { 4096 },
        reactors: rng.between(1, 3) as u16,
        crashes: rng.below(3),
        volatile_cache: rng.hits(Rate::percent(60)),
    }
}

fn run(seed: u64, planted: Planted) -> Result<Report, Failure> {
    let mut rng = Prng::split(seed, "plan", 0);
    let plan = plan(&mut rng);
    let mut profile = Profile::swarm(seed);
    // A connection holds buffers while it lives, so a pool has a size below which nothing works.
    profile.pool = Profile::calm().pool;
    let sim = Sim::with_bugs(seed, profile, planted)
        .reproduce_by("cargo test --profile sim -p ashlar-iscsi --test sim -- --seed {seed}");
    let mut geometry = DiskGeometry::of_bytes(plan.blocks * u64::from(plan.block_bytes));
    (geometry.block_bytes, geometry.sector_bytes) = (plan.block_bytes, plan.block_bytes);
    geometry.volatile_cache = plan.volatile_cache;
    let service = Service {
        node: sim.node("node", plan.reactors),
        disk: sim.disk("disk", geometry),
        block: BlockSize::new(plan.block_bytes).expect("a block size hosts know"),
        home: rng.below(u64::from(plan.reactors)) as u16,
        limits: Limits::default(),
        access: Access::AnyHost,
    };
    let run = Rc::new(Run {
        plan,
        ledger: Rc::new(RefCell::new(Ledger::new(0x51, plan.block_bytes, plan.volatile_cache))),
        hosts_left: Cell::new(plan.hosts),
    });
    let director = sim.node("director", 1);
    let life = service.start(&sim, 0);
    for number in 0..plan.hosts {
        let node = sim.node(&format!("host {number}"), 1);
        let (run, target) = (Rc::clone(&run), service.node);
        sim.spawn_on(node, 0, move |env| a_host(env, run, number as u32 + 1, target, plan.commands).work());
    }
    let control = sim.control();
    sim.goal_on(director, 0, |env| direct(env, control, rng, service, run, life));
    sim.run()
}

fn a_host(env: SimEnv, run: Rc<Run>, number: u32, node: NodeId, commands: u64) -> Host {
    let paths = [0, 1].map(|path| SocketAddr::new(node.ip(path), PORT));
    Host { run, env, number, paths, left: Cell::new(commands), unknown: RefCell::default() }
}

/// Crashes, pauses and cuts the node off while the hosts work; then heals everything, audits, and looks for
/// what was left over.
async fn direct(env: SimEnv, control: Control, mut rng: Prng, service: Service, run: Rc<Run>, first: Life) {
    let node = service.node;
    let (mut crashes_left, mut number) = (run.plan.crashes, 0);
    let mut life = Some(first);
    while run.hosts_left.get() > 0 {
        sleep(&env, Duration::from_micros(rng.tail(60_000))).await;
        match rng.below(16) {
            0..2 if crashes_left > 0 => {
                crashes_left -= 1;
                number += 1;
                let how = if rng.hits(Rate::percent(60)) { Crash::Power } else { Crash::Process };
                drop(life.take());
                crash(&control, node, how, &run);
                sleep(&env, Duration::from_micros(rng.tail(2_000_000))).await;
                control.restart(node);
                life = Some(service.start(&control, number));
            }
            2 => control.pause(node, Duration::from_micros(rng.tail(500_000))),
            3 => cut_off(&env, &control, &mut rng, node).await,
            _ => {}
        }
    }
    control.calm_network();
    // A host that vanished is given up after ten minutes of silence.
    let patience = Duration::from_secs(1200);
    let audit = a_host(env.clone(), Rc::clone(&run), 0, node, 0).audit();
    if within(&env, patience, audit).await.is_none() {
        env.fail("liveness", "the audit did not end though the network is healed");
    }
    let quiet = async {
        while let Some(left) = left_over(&control, &service, run.plan, life.as_ref()) {
            env.note(left as u64, 0, 0);
            sleep(&env, Duration::from_secs(1)).await;
        }
    };
    if within(&env, patience, quiet).await.is_none() {
        env.fail("left over", format!("{:?}", left_over(&control, &service, run.plan, life.as_ref())));
    }
}

/// How many connections and buffers the idle node still holds, if any.
fn left_over(control: &Control, service: &Service, plan: Plan, life: Option<&Life>) -> Option<usize> {
    let all: usize = Profile::calm().pool.limits.iter().sum();
    let held: usize =
        (0..plan.reactors).map(|n| all - control.env(service.node, n).buffers().free_count()).sum();
    let servers = life.map(|life| &life.servers[..]).unwrap_or_default();
    let connections: usize =
        servers.iter().map(|server| server.connections() + server.sessions().len()).sum();
    let sockets = control.connection_count(service.node);
    Some(held + connections + sockets).filter(|&left| left > 0)
}

fn crash(control: &Control, node: NodeId, how: Crash, run: &Run) {
    control.crash(node, how);
    let mut ledger = run.ledger.borrow_mut();
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

async fn cut_off(env: &SimEnv, control: &Control, rng: &mut Prng, node: NodeId) {
    // The hosts' numbers follow those of the node and the director.
    let (host, path) = (NodeId(2 + rng.below(4) as u16), Some(rng.below(2) as u8));
    let both = rng.hits(Rate::percent(50));
    control.set_cut(host, node, path, true);
    control.set_cut(node, host, path, both);
    let time = if rng.hits(Rate::percent(20)) { 90_000_000 } else { 300_000 };
    sleep(env, Duration::from_micros(rng.tail(time))).await;
    control.set_cut(host, node, path, false);
    control.set_cut(node, host, path, false);
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The seeds asked for; `None` where the arguments make no sense. Arguments of the usual test harness are
/// passed over.
fn seeds() -> Option<std::ops::Range<u64>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--seed", seed, ..] => number(seed).map(|seed| seed..seed + 1),
        ["--seeds", range, ..] => {
            let (from, to) = range.split_once("..")?;
            Some(number(from)?..number(to)?)
        }
        _ => Some(0..SEEDS),
    }
}

/// The checkers must find what is wrong below the target within [`HUNT_SEEDS`] seeds.
fn finds(planted: Planted) -> bool {
    for seed in 0..HUNT_SEEDS {
        if let Err(failure) = run(seed, planted) {
            println!("planted bug found by check={} seed={seed:#x}: {planted:?}", failure.check);
            return failure.check != "panic";
        }
    }
    println!("FAIL: not found within {HUNT_SEEDS} seeds: {planted:?}");
    false
}

fn planted_bugs_are_found() -> bool {
    let none = Planted::default();
    [
        Planted { disk_reads_stale: true, ..none },
        Planted { disk_repeats_write: true, ..none },
        Planted { flush_does_nothing: true, ..none },
        Planted { fua_stays_cached: true, ..none },
        Planted { net_swaps_bytes: true, ..none },
    ]
    .into_iter()
    .all(finds)
}

fn main() -> ExitCode {
    let Some(seeds) = seeds() else {
        eprintln!("usage: --seed N | --seeds A..B   (numbers decimal or 0x...)");
        return ExitCode::from(2);
    };
    let (marks, mut failures, mut steps, mut time) = (Marks::default(), 0, 0, Duration::ZERO);
    for seed in seeds.clone() {
        match run(seed, Planted::default()) {
            Ok(report) => {
                marks.merge(&report.marks);
                steps += report.steps;
                time += report.time;
            }
            Err(failure) => {
                failures += 1;
                println!("{failure}\n");
            }
        }
    }
    let count = seeds.end - seeds.start;
    println!(
        "target in the simulator: {count} seeds, {failures} failures, {steps} steps, {time:?} simulated"
    );
    for (mark, count) in marks.all() {
        println!("{count:>10}  {mark}");
    }
    let missing = marks.missing(MARKS);
    // Few seeds cannot reach everything.
    let unreached = count >= SEEDS && !missing.is_empty();
    if unreached {
        println!("FAIL: never reached: {missing:?}");
    }
    let found = seeds != (0..SEEDS) || planted_bugs_are_found();
    if failures > 0 || unreached || !found { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
