//! Random work on several volumes, with snapshots, clones, restores, changes of size and crashes in the middle of all of
//! it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::lane::LaneConfig;
use ashlar_env::units::VolumeId;
use ashlar_env::{Clock, Rng};
use ashlar_sim::{Crash, DiskGeometry, Failure, Marks, Prng, Profile, Sim, SimEnv};

use super::acts::{Admin, Books, Mirror, Pending};
use super::host::{Host, Tolerance};
use super::world::{SimLane, World, tiny};

const WRITERS: u32 = 3;
const ROUNDS: u32 = 5;

/// A lane, who uses it, and how much.
pub struct Story {
    pub world: World,
    pub admin: Admin,
    pub steps: u64,
}

impl Story {
    /// Writers on every volume, and the administrator; the counter says how many are still at work.
    pub fn work(&self, lane: &SimLane) -> Rc<Cell<u32>> {
        let busy = Rc::new(Cell::new(1));
        let steps = self.steps;
        for host in self.admin.hosts() {
            for writer in 0..WRITERS {
                busy.set(busy.get() + 1);
                let (host, lane, busy) = (host.clone(), lane.clone(), Rc::clone(&busy));
                self.world.control.spawn_on(self.world.node, 0, move |_| async move {
                    for _ in 0..steps {
                        host.step(&lane, writer).await;
                    }
                    busy.set(busy.get() - 1);
                });
            }
        }
        let (admin, lane, ended) = (self.admin.clone(), lane.clone(), Rc::clone(&busy));
        self.world.control.spawn_on(self.world.node, 0, move |env| async move {
            for _ in 0..4 {
                let pause = Duration::from_micros(env.random_below(10_000));
                env.sleep_until(env.now().plus(pause)).await;
                admin.act(&lane, &env).await;
            }
            ended.set(ended.get() - 1);
        });
        busy
    }

    pub async fn rest(&self, env: &SimEnv, lane: &SimLane, busy: &Cell<u32>) {
        let end = env.now().plus(Duration::from_secs(600));
        while busy.get() > 0 {
            if env.now() > end {
                return self.fail(format!("{} tasks wait for ever: {:?}", busy.get(), lane.report()));
            }
            env.sleep_until(env.now().plus(Duration::from_millis(1))).await;
        }
    }

    pub fn fail(&self, what: impl std::fmt::Display) {
        self.admin.fail(what);
    }

    /// Nobody writes: everything is as the ledgers, the snapshots and the lane itself say.
    pub async fn audit(&self, lane: &SimLane, env: &SimEnv) {
        for host in self.admin.hosts() {
            host.read_all(lane).await;
        }
        match lane.check().await {
            Ok(report) if report.is_sound() => {}
            Ok(report) => self.fail(format!("the lane is not sound: {report:?}")),
            Err(error) => self.fail(format!("check: {error}")),
        }
        self.admin.compare(lane, env).await;
    }

    /// A crash in the middle of work, and what is left.
    async fn crash(&self, env: &SimEnv) -> Option<SimLane> {
        let power = env.random_below(2) == 0;
        let how = if power { Crash::Power } else { Crash::Process };
        self.world.restart(how);
        for host in self.admin.hosts() {
            host.ledger.borrow_mut().power_failed();
        }
        let lane = self.open().await?;
        self.admin.reconcile(&lane).await;
        Some(lane)
    }

    pub async fn open(&self) -> Option<SimLane> {
        match self.world.open().await {
            Ok((lane, _)) => Some(lane),
            Err(error) => {
                self.fail(format!("open: {error}"));
                None
            }
        }
    }

    pub fn note(&self, lane: &SimLane) {
        for (name, count) in lane.activity().named() {
            if count > 0 {
                self.world.control.marks().hit(name);
            }
        }
    }

    async fn run(self, env: SimEnv) {
        let stores = self.world.format().await;
        let mut lane = self.world.create(&stores).await;
        drop(stores);
        for host in self.admin.hosts() {
            let id = VolumeId(uuid::Uuid::from_u128(u128::from(host.number)));
            match lane.create_volume(id, host.size_bytes()).await {
                Ok(number) if number == host.number => {}
                other => self.fail(format!("create: {other:?}")),
            }
        }
        let mirror = self.admin.books.borrow().mirror.as_ref().map(|it| (it.number, it.bytes.len() as u64));
        if let Some((number, size_bytes)) = mirror {
            match lane.create_volume(VolumeId(uuid::Uuid::from_u128(3)), size_bytes).await {
                Ok(made) if made == number => {}
                other => self.fail(format!("create: {other:?}")),
            }
        }
        for _ in 0..ROUNDS {
            let busy = self.work(&lane);
            if env.random_below(2) == 0 {
                let time = Duration::from_micros(env.random_below(60_000));
                env.sleep_until(env.now().plus(time)).await;
                self.note(&lane);
                drop(lane);
                let Some(found) = self.crash(&env).await else { return };
                lane = found;
            } else {
                self.rest(&env, &lane, &busy).await;
                self.note(&lane);
            }
            self.audit(&lane, &env).await;
        }
        if lane.close().await.is_err() {
            self.fail("close");
        }
        self.note(&lane);
        drop(lane);
        // The process ends: the store before must not be at work, trimming slots, beside the one that is opened.
        self.world.restart(Crash::Process);
        let Some(lane) = self.open().await else { return };
        self.audit(&lane, &env).await;
    }
}

/// What a run found beside its failure.
#[derive(Default)]
pub struct Tally {
    /// Reads that were held against a ledger.
    pub checked: u64,
    pub marks: Marks,
}

/// What there is beside what there always was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Acts {
    /// Nothing: seeds that failed before there was more go on meaning what they meant.
    Few,
    /// Copies, changes of size beside writers, and writes of parts of blocks that are dropped on their way.
    All,
}

/// One seed.
pub fn run(
    seed: u64,
    acts: Acts,
    change: impl Fn(&mut LaneConfig),
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut rng = Prng::split(seed, "lane", 0);
    let mut profile = Profile::swarm(seed);
    // Buffers are held by several hosts at once here.
    profile.pool = Profile::calm().pool;
    let sim = Sim::new(seed, profile);
    let sim = sim.reproduce_by(
        "ASHLAR_SEEDS=1 ASHLAR_FIRST_SEED={seed} cargo test -p ashlar-engine --test lane -- random",
    );
    let slots = [40, 56, 96, 128, 200][rng.below(5) as usize];
    let small_slots = rng.below(2) == 0;
    let slot_bytes = if small_slots { 32 << 10 } else { 64 << 10 };
    let geometry = DiskGeometry {
        block_bytes: if seed.is_multiple_of(2) { 512 } else { 4096 },
        volatile_cache: !seed.is_multiple_of(3),
        discard_zeroes: seed.is_multiple_of(5),
        ..DiskGeometry::of_bytes((slots * slot_bytes as u64) + (64 << 10))
    };
    let mut config = tiny(seed);
    config.free_part = [32, 128, 256][rng.below(3) as usize];
    config.victims_max = 1 + rng.below(6) as usize;
    config.checkpoint_bytes = [16 << 10, 48 << 10, 96 << 10][rng.below(3) as usize];
    config.shared_blocks_max = if seed.is_multiple_of(4) { 12 } else { 1000 };
    change(&mut config);
    let control = sim.control();
    let mut world = World::new(&control, config, geometry);
    world.slot_bytes = slot_bytes;
    let chaos = control.node("chaos", 1);
    let mut hosts = vec![Host::new(&world, 1, 512, 8 * 40), Host::new(&world, 2, 4096, 60)];
    let drops = if rng.below(3) == 0 { 6 } else { 0 };
    for host in &mut hosts {
        host.first_writer.set(u32::from(host.number == 2) * 16);
        host.longest = if small_slots { 8 << 10 } else { 32 << 10 };
        host.drops = if host.block == 4096 || acts == Acts::All { drops } else { 0 };
        host.tolerance.set(Tolerance { full: true, ..Tolerance::default() });
    }
    world.next_writer.set(32);
    let ledgers: Vec<_> = hosts.iter().map(|host| Rc::clone(&host.ledger)).collect();
    let snapshots_max = (slots / 24) as usize;
    let books = Books {
        hosts,
        kept: Vec::new(),
        next_id: 1000,
        pending: Pending::None,
        may_fill: true,
        may_fail: false,
        snapshots_max,
        resizes: acts == Acts::All,
        mirror: (acts == Acts::All).then(|| Mirror { number: 3, bytes: vec![0; 100 << 10], pending: None }),
    };
    let admin = Admin { world: world.clone(), books: Rc::new(RefCell::new(books)) };
    let story = Story { world, admin, steps: 12 };
    control.goal_on(chaos, 0, |env| story.run(env));
    sim.run()?;
    tally.checked += ledgers.iter().map(|ledger| ledger.borrow().checker().checked()).sum::<u64>();
    tally.marks.merge(control.marks());
    Ok(())
}

/// Seeds that failed once.
const FAILED_ONCE: &[u64] = &[7, 47, 58, 67, 73, 94, 182, 220, 229, 1947];

/// What the seeds must have met.
const WANTED: &[&str] = &[
    "a crash hit a snapshot after it had been cut",
    "a snapshot was cut while hosts wrote",
    "a volume was copied to another",
    "a volume was copied to itself",
    "a write was dropped on its way",
    "blocks were copied as references",
    "compaction moved",
    "compaction moved what it had moved before",
    "hosts wrote to a clone",
    "recovery replayed a clone",
    "recovery replayed the delete of a volume",
    "snapshot let go while its blocks were overwritten",
    "version let go",
    "victim without live",
    "volumes were restored",
];

/// What more seeds must have met.
const WANTED_OF_MANY: &[&str] = &[
    "blocks were copied as data: too many had copies",
    "compaction moved what copies alone held",
    "recovery replayed a copy",
];

#[test]
fn volumes_are_registers_and_snapshots_stay() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let count = number("ASHLAR_SEEDS").unwrap_or(40);
    let first = number("ASHLAR_FIRST_SEED").unwrap_or(0);
    let again = if count > 1 { FAILED_ONCE } else { &[] };
    let mut tally = Tally::default();
    let keep_going = std::env::var("ASHLAR_KEEP_GOING").is_ok();
    let again = again.iter().map(|seed| (*seed, Acts::Few));
    for (seed, acts) in again.chain((first..first + count).map(|seed| (seed, Acts::All))) {
        match run(seed, acts, |_| {}, &mut tally) {
            Ok(()) => {}
            Err(failure) if keep_going => {
                let text = failure.to_string();
                println!("{seed}: {}", text.lines().nth(1).unwrap_or(&text));
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    for (name, count) in tally.marks.all() {
        println!("{count:6} {name}");
    }
    if count >= 40 {
        assert_eq!(tally.marks.missing(WANTED), [""; 0], "never reached");
    }
    if count >= 400 {
        assert_eq!(tally.marks.missing(WANTED_OF_MANY), [""; 0], "never reached");
    }
    assert!(tally.checked > count * 100, "only {} reads were checked", tally.checked);
}
