//! Devices that fail under a lane with one copy: hosts get errors, never wrong data; nothing waits for ever; and what was
//! acknowledged is there when the device is well again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::lane::LaneConfig;
use ashlar_env::units::VolumeId;
use ashlar_env::{Clock, Rng};
use ashlar_sim::{Crash, DiskGeometry, Failure, Prng, Profile, Sim, SimEnv};

use super::acts::{Admin, Books, Pending};
use super::disk::Trouble;
use super::host::{Host, Tolerance};
use super::random::Story;
use super::world::{SimLane, World, tiny};

const WRITERS: u32 = 2;
const STEPS: u32 = 14;

/// What befalls the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every write fails from some time on.
    Failing,
    /// Every operation does.
    Gone,
    /// Nothing ends for a while.
    Hangs,
    /// Everything takes long for a while.
    Slow,
    /// Reads give other bytes.
    Rot,
}

impl Fault {
    pub fn begin(self, trouble: &Trouble, env: &SimEnv) {
        match self {
            Self::Failing => trouble.failing.set(true),
            Self::Gone => trouble.gone.set(true),
            Self::Hangs => trouble.hangs.set(true),
            Self::Slow => trouble.slow.set(Duration::from_millis(1 + env.random_below(80))),
            Self::Rot => trouble.rot.set(1 + env.random_below(12)),
        }
    }

    pub fn end(trouble: &Trouble) {
        trouble.failing.set(false);
        trouble.gone.set(false);
        trouble.hangs.set(false);
        trouble.slow.set(Duration::ZERO);
        trouble.rot.set(0);
    }

    /// Whether hosts may see errors.
    pub fn shows(self) -> bool {
        !matches!(self, Self::Hangs | Self::Slow)
    }
}

/// Writers on every volume; the counter says how many are still at work.
fn work(story: &Story, lane: &SimLane) -> Rc<Cell<u32>> {
    let busy = Rc::new(Cell::new(0));
    for host in story.admin.hosts() {
        for writer in 0..WRITERS {
            busy.set(busy.get() + 1);
            let (host, lane, busy) = (host.clone(), lane.clone(), Rc::clone(&busy));
            story.world.control.spawn_on(story.world.node, 0, move |_| async move {
                for _ in 0..STEPS {
                    host.step(&lane, writer).await;
                }
                busy.set(busy.get() - 1);
            });
        }
    }
    busy
}

async fn live(story: Story, env: SimEnv, fault: Fault) {
    let (world, hosts) = (story.world.clone(), story.admin.hosts());
    let mut lane = world.create(&world.format().await).await;
    for host in &hosts {
        let id = VolumeId(uuid::Uuid::from_u128(u128::from(host.number)));
        assert_eq!(lane.create_volume(id, host.size_bytes()).await, Ok(host.number));
    }
    for _ in 0..3 {
        let busy = work(&story, &lane);
        env.sleep_until(env.now().plus(Duration::from_micros(env.random_below(30_000)))).await;
        for host in &hosts {
            host.tolerance.set(Tolerance { full: true, faults: fault.shows(), ..Tolerance::default() });
        }
        fault.begin(&world.troubles[0], &env);
        env.sleep_until(env.now().plus(Duration::from_micros(env.random_below(3_000_000)))).await;
        if !fault.shows() {
            Fault::end(&world.troubles[0]);
        }
        story.rest(&env, &lane, &busy).await;
        if env.random_below(2) == 0 {
            let _ = lane.close().await;
        }
        story.note(&lane);
        drop(lane);
        Fault::end(&world.troubles[0]);
        world.restart(if env.random_below(2) == 0 { Crash::Power } else { Crash::Process });
        for host in &hosts {
            host.ledger.borrow_mut().power_failed();
            host.active.set(0);
            host.tolerance.set(Tolerance { full: true, ..Tolerance::default() });
        }
        let Some(found) = story.open().await else { return };
        lane = found;
        story.audit(&lane, &env).await;
    }
}

/// One seed; how many errors hosts saw, and how many reads gave other bytes.
fn run(seed: u64, fault: Fault, change: impl Fn(&mut LaneConfig)) -> Result<(u64, u64), Failure> {
    let mut rng = Prng::split(seed, "faults", 0);
    let mut profile = Profile::swarm(seed);
    profile.pool = Profile::calm().pool;
    let sim = Sim::new(seed, profile);
    let geometry = DiskGeometry {
        volatile_cache: rng.below(2) == 0,
        ..DiskGeometry::of_bytes(((96 * 64) << 10) + (64 << 10))
    };
    let mut config = tiny(seed);
    config.free_part = [64, 256][rng.below(2) as usize];
    change(&mut config);
    let control = sim.control();
    let world = World::new(&control, config, geometry);
    let hosts = vec![Host::new(&world, 1, 512, 8 * 30), Host::new(&world, 2, 4096, 40)];
    for host in &hosts {
        host.first_writer.set(u32::from(host.number == 2) * 16);
        host.tolerance.set(Tolerance { full: true, ..Tolerance::default() });
    }
    world.next_writer.set(32);
    let errors: Vec<_> = hosts.iter().map(|host| Rc::clone(&host.errors)).collect();
    let trouble = Rc::clone(&world.troubles[0]);
    let books = Books {
        hosts,
        kept: Vec::new(),
        next_id: 1000,
        pending: Pending::None,
        may_fill: true,
        may_fail: true,
        snapshots_max: 0,
        resizes: false,
        mirror: None,
    };
    let admin = Admin { world: world.clone(), books: Rc::new(RefCell::new(books)) };
    let story = Story { world, admin, steps: 0 };
    let chaos = control.node("chaos", 1);
    control.goal_on(chaos, 0, |env| live(story, env, fault));
    sim.run()?;
    Ok((errors.iter().map(|errors| errors.get()).sum(), trouble.rotten.get()))
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("ASHLAR_FIRST_SEED").unwrap_or(0);
    first..first + number("ASHLAR_SEEDS").unwrap_or(12)
}

fn all(fault: Fault) -> (u64, u64) {
    let mut sum = (0, 0);
    for seed in seeds() {
        let (errors, rotten) = run(seed, fault, |_| {}).unwrap_or_else(|failure| panic!("{failure}"));
        sum = (sum.0 + errors, sum.1 + rotten);
    }
    sum
}

#[test]
fn a_device_that_fails_every_write() {
    assert!(all(Fault::Failing).0 > 0, "nobody noticed");
}

#[test]
fn a_device_that_disappears() {
    assert!(all(Fault::Gone).0 > 0, "nobody noticed");
}

#[test]
fn a_device_that_hangs() {
    assert_eq!(all(Fault::Hangs).0, 0);
}

#[test]
fn a_slow_device() {
    assert_eq!(all(Fault::Slow).0, 0);
}

#[test]
fn reads_that_return_rot() {
    let (errors, rotten) = all(Fault::Rot);
    assert!(errors > 0 && rotten > errors, "{errors} errors of {rotten} rotten reads");
}

/// Within how many seeds reads without a look at checksums are found.
const SKIPPED_CHECKSUMS_SEEDS: u64 = 5;

#[test]
fn skipped_checksums_are_found() {
    let skip = |config: &mut LaneConfig| config.planted.skip_checksums = true;
    let found = (0..SKIPPED_CHECKSUMS_SEEDS).find(|seed| run(*seed, Fault::Rot, skip).is_err());
    assert!(found.is_some(), "not found in {SKIPPED_CHECKSUMS_SEEDS} seeds");
}
