//! A small store of its own, to test the simulator itself.
//!
//! Hosts read, write and flush sectors over the network model; a server with several reactors executes that on
//! the disk model, crashes and comes back. The checkers watch. It needs no crate under test, so a failure here
//! is one of the simulator or the checkers; and it shows how a simulation of a real target is put together.

mod host;
mod server;
mod wire;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::Clock;

use crate::check::ledger::Ledger;
use crate::conformance::{sleep, within};
use crate::rng::{Prng, Rate};
use crate::{Control, Crash, DiskGeometry, DiskId, Failure, NodeId, Planted, Profile, Report, Sim};

/// The states that the seeds of a night must reach.
pub const MARKS: &[&str] = &[
    "disk: write in flight lost at a crash",
    "disk: write in flight kept at a crash",
    "disk: write in flight torn at a crash",
    "disk: cached write lost at a crash",
    "disk: write landed in two parts",
    "net: reset in mid-stream",
    "net: stall",
    "net: retransmission gave up",
    "net: backlog full",
    "scenario: unknown write",
    "scenario: request timed out",
    "scenario: process crash",
    "scenario: power failure",
    "scenario: server paused",
    "scenario: server partitioned",
];

/// How large a run is; drawn from the seed.
#[derive(Clone, Copy, Debug)]
struct Plan {
    hosts: u64,
    requests: u64,
    sectors: u64,
    crashes: u64,
    reactors: u16,
    volatile_cache: bool,
}

/// What all hosts share.
struct Watch {
    ledger: Ledger,
    hosts_left: u64,
}

type Shared = Rc<RefCell<Watch>>;

const VOLUME: u64 = 0x51;
const PORT: u16 = 4420;

/// Runs the scenario for `seed`.
///
/// # Errors
/// What the checkers found.
pub fn run(seed: u64, planted: Planted) -> Result<Report, Failure> {
    let mut rng = Prng::split(seed, "plan", 0);
    let plan = Plan {
        hosts: rng.between(1, 6),
        requests: rng.between(20, 120),
        sectors: rng.between(1, 48),
        crashes: rng.below(4),
        reactors: rng.between(1, 3) as u16,
        volatile_cache: rng.hits(Rate::percent(60)),
    };
    let sim = Sim::with_bugs(seed, Profile::swarm(seed), planted);
    let mut geometry = DiskGeometry::of_bytes(plan.sectors * 512);
    geometry.volatile_cache = plan.volatile_cache;
    let disk = sim.disk("disk", geometry);
    let server = sim.node("server", plan.reactors);
    let director = sim.node("director", 1);
    server::start(&sim, server, disk);
    let ledger = Ledger::new(VOLUME, 512, plan.volatile_cache);
    let watch = Rc::new(RefCell::new(Watch { ledger, hosts_left: plan.hosts }));
    for number in 0..plan.hosts {
        let node = sim.node(&format!("host {number}"), 1);
        let watch = Rc::clone(&watch);
        let paths = addresses(server);
        sim.spawn_on(node, 0, |env| host::run(env, number as u32 + 1, plan, paths, watch));
    }
    let control = sim.control();
    sim.goal_on(director, 0, |env| direct(env, control, rng, plan, server, disk, watch));
    sim.run()
}

/// The server's addresses on two networks.
fn addresses(server: NodeId) -> [SocketAddr; 2] {
    [0, 1].map(|path| SocketAddr::new(server.ip(path), PORT))
}

/// Crashes, pauses and cuts the server off; when the hosts are done, heals everything and audits.
async fn direct(
    env: crate::SimEnv,
    control: Control,
    mut rng: Prng,
    plan: Plan,
    server: NodeId,
    disk: DiskId,
    watch: Shared,
) {
    let mut crashes_left = plan.crashes;
    while watch.borrow().hosts_left > 0 {
        sleep(&env, Duration::from_micros(rng.tail(40_000))).await;
        match rng.below(16) {
            0..2 if crashes_left > 0 => {
                crashes_left -= 1;
                let how = if rng.hits(Rate::percent(60)) { Crash::Power } else { Crash::Process };
                crash(&control, server, how, &watch);
                sleep(&env, Duration::from_micros(rng.tail(2_000_000))).await;
                control.restart(server);
                server::start(&control, server, disk);
            }
            2 => {
                env.marks().hit("scenario: server paused");
                control.pause(server, Duration::from_micros(rng.tail(500_000)));
            }
            3 => cut_off(&env, &control, &mut rng, server).await,
            _ => {}
        }
    }
    control.calm_network();
    let audit = host::audit(env.clone(), plan, addresses(server), Rc::clone(&watch));
    if within(&env, Duration::from_secs(600), audit).await.is_none() {
        env.fail("liveness", "the audit did not end though the network is healed");
    }
    let live = watch.borrow().ledger.checker().live() as u64;
    // A write without a reply may still happen, so it is remembered for good: up to eight sectors each.
    if live > 2 * plan.sectors + 8 * (plan.hosts + env.marks().count("scenario: unknown write")) {
        env.fail("checker memory", format!("{live} values are remembered"));
    }
}

fn crash(control: &Control, server: NodeId, how: Crash, watch: &Shared) {
    let name = if how == Crash::Power { "scenario: power failure" } else { "scenario: process crash" };
    control.marks().hit(name);
    control.crash(server, how);
    let ledger = &mut watch.borrow_mut().ledger;
    match how {
        Crash::Process => ledger.process_died(),
        Crash::Power => ledger.power_failed(),
    }
}

async fn cut_off(env: &impl Clock, control: &Control, rng: &mut Prng, server: NodeId) {
    control.marks().hit("scenario: server partitioned");
    // The hosts' numbers follow those of the server and the director.
    let (host, path) = (NodeId(2 + rng.below(6) as u16), Some(rng.below(2) as u8));
    let both = rng.hits(Rate::percent(50));
    control.set_cut(host, server, path, true);
    control.set_cut(server, host, path, both);
    let time = if rng.hits(Rate::percent(20)) { 90_000_000 } else { 300_000 };
    sleep(env, Duration::from_micros(rng.tail(time))).await;
    control.set_cut(host, server, path, false);
    control.set_cut(server, host, path, false);
}
