//! Random work on several volumes, with snapshots, clones and crashes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::lane::LaneConfig;
use ashlar_env::units::VolumeId;
use ashlar_env::{Clock, Rng};
use ashlar_sim::{Crash, DiskGeometry, Failure, Profile, Sim, SimEnv};

use super::host::Host;
use super::world::{SimLane, World, tiny};

/// What a snapshot must hold for ever: the bytes of each volume.
struct Kept {
    number: u32,
    volumes: Vec<(u32, Vec<u8>)>,
}

struct Story {
    world: World,
    hosts: Vec<Host>,
    kept: Vec<Kept>,
    next_id: u128,
}

const WRITERS: u32 = 3;

impl Story {
    /// Writers on every volume; the counter says how many have ended.
    fn work(&self, lane: &SimLane, round: u32, steps: u64) -> Rc<Cell<u32>> {
        let ended = Rc::new(Cell::new(0));
        for host in &self.hosts {
            for writer in 0..WRITERS {
                let (host, lane, ended) = (host.clone(), lane.clone(), Rc::clone(&ended));
                let world = self.world.clone();
                world.control.spawn_on(world.node, 0, move |_| async move {
                    for _ in 0..steps {
                        host.step(&lane, round * 10 + writer).await;
                    }
                    ended.set(ended.get() + 1);
                });
            }
        }
        ended
    }

    async fn rest(&self, env: &SimEnv, lane: &SimLane, ended: &Cell<u32>) {
        let end = env.now().plus(Duration::from_secs(600));
        while ended.get() < self.hosts.len() as u32 * WRITERS {
            if env.now() > end {
                return self.fail(format!(
                    "{} hosts ended, others wait for ever: {:?}",
                    ended.get(),
                    lane.report()
                ));
            }
            env.sleep_until(env.now().plus(Duration::from_millis(1))).await;
        }
    }

    fn fail(&self, what: impl std::fmt::Display) {
        self.world.control.fail("lane", what.to_string());
    }

    /// Nobody writes: everything is as the ledgers, the snapshots and the lane itself say.
    async fn audit(&mut self, lane: &SimLane) {
        for host in &self.hosts {
            host.read_all(lane).await;
        }
        match lane.check().await {
            Ok(report) if report.is_sound() => {}
            Ok(report) => self.fail(format!("the lane is not sound: {report:?}")),
            Err(error) => self.fail(format!("check: {error}")),
        }
    }

    async fn snapshot(&mut self, lane: &SimLane) {
        let mut volumes = Vec::new();
        for host in &self.hosts {
            volumes.push((host.number, host.bytes_of(lane, host.number).await));
        }
        match lane.snapshot().await {
            Ok(number) => self.kept.push(Kept { number, volumes }),
            Err(error) => self.fail(format!("snapshot: {error}")),
        }
    }

    /// Clones what a snapshot holds, compares, and deletes the clone again.
    async fn compare(&mut self, lane: &SimLane, env: &SimEnv) {
        if self.kept.is_empty() {
            return;
        }
        let kept = &self.kept[env.random_below(self.kept.len() as u64) as usize];
        for (number, bytes) in &kept.volumes {
            self.next_id += 1;
            let id = VolumeId(uuid::Uuid::from_u128(self.next_id));
            let clone = match lane.clone_volume(id, kept.number, *number).await {
                Ok(clone) => clone,
                Err(error) => return self.fail(format!("clone: {error}")),
            };
            let host = &self.hosts[0];
            let whole = Host { blocks: bytes.len() as u64 / u64::from(host.block), ..host.clone() };
            if whole.bytes_of(lane, clone).await != *bytes {
                self.fail(format!("volume {number} in snapshot {} has changed", kept.number));
            }
            if let Err(error) = lane.delete_volume(clone).await {
                self.fail(format!("delete of a clone: {error}"));
            }
        }
    }

    async fn forget(&mut self, lane: &SimLane, env: &SimEnv) {
        if self.kept.is_empty() {
            return;
        }
        let kept = self.kept.remove(env.random_below(self.kept.len() as u64) as usize);
        if let Err(error) = lane.delete_snapshot(kept.number).await {
            self.fail(format!("delete of snapshot {}: {error}", kept.number));
        }
    }

    /// A crash in the middle of work, and what is left.
    async fn crash(&mut self, env: &SimEnv) -> Option<SimLane> {
        let power = env.random_below(2) == 0;
        let how = if power { Crash::Power } else { Crash::Process };
        self.world.control.crash(self.world.node, how);
        for host in &self.hosts {
            host.ledger.borrow_mut().power_failed();
        }
        self.world.control.restart(self.world.node);
        self.open().await
    }

    async fn open(&mut self) -> Option<SimLane> {
        match self.world.open().await {
            Ok((lane, _)) => Some(lane),
            Err(error) => {
                self.fail(format!("open: {error}"));
                None
            }
        }
    }

    async fn run(mut self, env: SimEnv) {
        let store = self.world.format().await;
        let mut lane = self.world.create(&store).await;
        for host in &self.hosts {
            let id = VolumeId(uuid::Uuid::from_u128(u128::from(host.number)));
            let size = host.blocks * u64::from(host.block);
            match lane.create_volume(id, size).await {
                Ok(number) if number == host.number => {}
                other => self.fail(format!("create: {other:?}")),
            }
        }
        for round in 1..=5 {
            let ended = self.work(&lane, round, 12);
            if env.random_below(2) == 0 {
                let time = Duration::from_micros(env.random_below(60_000));
                env.sleep_until(env.now().plus(time)).await;
                drop(lane);
                let Some(found) = self.crash(&env).await else { return };
                lane = found;
            } else {
                self.rest(&env, &lane, &ended).await;
            }
            self.audit(&lane).await;
            match env.random_below(4) {
                0 | 1 => self.snapshot(&lane).await,
                2 => self.compare(&lane, &env).await,
                _ => self.forget(&lane, &env).await,
            }
        }
        self.compare(&lane, &env).await;
        self.audit(&lane).await;
        if lane.close().await.is_err() {
            self.fail("close");
        }
        drop(lane);
        let Some(lane) = self.open().await else { return };
        self.audit(&lane).await;
    }
}

/// One seed.
pub fn run(seed: u64, change: impl Fn(&mut LaneConfig)) -> Result<u64, Failure> {
    let mut profile = Profile::swarm(seed);
    // Buffers are held by several hosts at once here.
    profile.pool = Profile::calm().pool;
    let sim = Sim::new(seed, profile);
    let sim =
        sim.reproduce_by("cargo test -p ashlar-engine --test lane -- random (it goes through {seed}, too)");
    let geometry = DiskGeometry {
        block_bytes: if seed.is_multiple_of(2) { 512 } else { 4096 },
        volatile_cache: !seed.is_multiple_of(3),
        discard_zeroes: seed.is_multiple_of(5),
        ..DiskGeometry::of_bytes(8 << 20)
    };
    let mut config = tiny(seed);
    change(&mut config);
    let control = sim.control();
    let world = World::new(&control, config, geometry);
    let chaos = control.node("chaos", 1);
    let hosts: Vec<_> = vec![Host::new(&world, 1, 512, 8 * 40), Host::new(&world, 2, 4096, 100)];
    let ledgers: Vec<_> = hosts.iter().map(|host| Rc::clone(&host.ledger)).collect();
    let story = Story { world, hosts, kept: Vec::new(), next_id: 1000 };
    control.goal_on(chaos, 0, |env| story.run(env));
    sim.run()?;
    Ok(ledgers.iter().map(|ledger| ledger.borrow().checker().checked()).sum())
}

#[test]
fn volumes_are_registers_and_snapshots_stay() {
    let count = std::env::var("ASHLAR_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    let first = std::env::var("ASHLAR_FIRST_SEED").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    let mut checked = 0;
    for seed in first..first + count {
        checked += run(seed, |_| {}).unwrap_or_else(|failure| panic!("{failure}"));
    }
    assert!(checked > count * 100, "only {checked} reads were checked");
}
