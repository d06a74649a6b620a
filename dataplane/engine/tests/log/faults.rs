//! The log under faults: crashes at any moment, a replica that fails, hangs, is slow, rots or is replaced, and writers
//! that take over from one another while they live.
//!
//! Whatever was acknowledged is found, in order, once; what was not is found as a prefix or not at all; what one recovery
//! found the next finds, too; data is where the sink was told; replicas are identical.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::ids::{Epoch, SegmentId, SegmentKind};
use ashlar_engine::log::{
    Event, LocalCoordinator, Log, LogConfig, LogError, Planted, Position, RecoverError, recover,
};
use ashlar_engine::segment::{Segments, ShardSet};
use ashlar_engine::testing::Medium;
use ashlar_env::{Clock, Rng, Spawn};
use ashlar_sim::{Control, Crash, Failure, Marks, NodeId, Profile, Sim, SimEnv, sometimes};

use crate::support::{
    Books, LANE, SlowCoordinator, Store, Telling, Told, check_data, check_replicas, expect, operation,
};

const LIVES: u64 = 5;
const SEGMENT_BYTES: u32 = 64 << 10;

type TestLog = Log<SimEnv, Store, Told>;

/// Where a recovery may start, and what the log had told by then.
#[derive(Clone)]
struct Checkpoint {
    position: Position,
    told: Telling,
}

/// What outlives the writers.
#[derive(Clone)]
struct World {
    control: Control,
    media: Vec<Medium>,
    decisions: LocalCoordinator,
    books: Rc<Books>,
    checkpoint: Rc<RefCell<Option<Checkpoint>>>,
    config: LogConfig,
    epoch: Rc<Cell<u64>>,
    /// The only replica that is ever touched by faults other than crashes.
    victim: usize,
    blocks_max: u64,
    /// Whether the victim was ever the only one in reach.
    sole: Rc<Cell<bool>>,
    /// Whether it was ever damaged: together that is more than redundancy is for.
    rotten: Rc<Cell<bool>>,
}

impl World {
    fn segments(&self, env: &SimEnv) -> Segments<Store> {
        let store = |medium: &Medium| Store::new(env.clone(), medium.clone());
        Segments::new(LANE, self.media.iter().map(store).collect())
    }

    fn coordinator(&self, env: &SimEnv) -> SlowCoordinator {
        SlowCoordinator { env: env.clone(), decisions: self.decisions.clone() }
    }

    /// Opens the log, and again when a store fails on the way.
    async fn open(&self, env: &SimEnv) -> Option<(TestLog, Segments<Store>, u64)> {
        for _ in 0..4 {
            match self.try_open(env).await {
                // The only replica that has it all may be out of reach: then nobody can go on.
                Err(_) if self.sole.get() && self.some_gone() => {
                    sometimes!(self.control.marks(), "out of reach");
                    return None;
                }
                Err(error) if self.media.len() == 1 || !error.starts_with("store") => {
                    self.control.fail("log", error);
                    return None;
                }
                Err(_) => sometimes!(self.control.marks(), "recovery tried again"),
                Ok(opened) => return opened,
            }
        }
        if self.books.owner.get() > 0 {
            self.control.fail("log", "one store fails four times");
        }
        None
    }

    /// Opens the log, under a new epoch, as whoever comes next would; `None` where somebody else took over.
    async fn try_open(&self, env: &SimEnv) -> Result<Option<(TestLog, Segments<Store>, u64)>, String> {
        self.epoch.set(self.epoch.get() + 1);
        let epoch = Epoch(self.epoch.get());
        self.decisions.take(epoch);
        if self.books.owner.get() == 0 {
            self.media.iter().for_each(Medium::erase);
        }
        let (segments, coordinator) = (self.segments(env), self.coordinator(env));
        let origin = Position::origin(segments.all());
        if self.books.owner.get() == 0 {
            let told = Told::default();
            let made = Log::create(
                env.clone(),
                segments.clone(),
                Rc::new(coordinator),
                epoch,
                self.config,
                told.clone(),
            );
            let log = made.await.map_err(|error| format!("store: {error}"))?;
            self.books.owner.set(epoch.0);
            return Ok(Some((log, segments, epoch.0)));
        }
        let checkpoint = self.checkpoint.borrow().clone();
        let from = checkpoint.as_ref().map_or(origin, |checkpoint| checkpoint.position);
        let told = Told::default();
        *told.inner.borrow_mut() = checkpoint.map_or_else(Telling::default, |checkpoint| checkpoint.told);
        let note = told.clone();
        let each = |event: Event<'_>| match event {
            Event::Applied(op) => note.note(&op),
            Event::Opened(_) | Event::Sealed(..) => {}
        };
        let found = recover(env, &segments, &coordinator, epoch, from, &self.config, each).await;
        if self.epoch.get() > epoch.0 {
            return Ok(None);
        }
        let recovered = found.map_err(|error| match error {
            RecoverError::Store(failed) => format!("store: {failed}"),
            error @ RecoverError::Interrupted { .. } => format!("store: {error}"),
            other => other.to_string(),
        })?;
        open_sealed(&segments);
        let order = told.inner.borrow().order.clone();
        self.books.recovered(epoch.0, &order)?;
        let telling = told.inner.borrow().clone();
        check_data(&segments, &telling, from.segment, |shard| self.may_fail(shard)).await?;
        if self.epoch.get() > epoch.0 {
            return Ok(None);
        }
        let compared = check_replicas(&self.media, &segments, from.segment)?;
        let marks = self.control.marks();
        sometimes!(marks, compared > 1, "replicas compared");
        sometimes!(marks, !self.books.stable.borrow().is_empty(), "recovered something");
        let log = Log::resume(
            env.clone(),
            segments.clone(),
            Rc::new(coordinator),
            epoch,
            self.config,
            told,
            recovered,
        );
        Ok(Some((log, segments, epoch.0)))
    }

    /// Appends until told to stop or the log fails; the number of operations acknowledged.
    async fn write(&self, env: SimEnv, log: TestLog, epoch: u64, operations: u64) -> u64 {
        let mut acknowledged = 0;
        for _ in 0..operations {
            let mut waiting = Vec::new();
            for _ in 0..1 + env.random_below(4) {
                let id = self.books.number();
                let op = operation(id, env.random_below(6), self.blocks_max, &mut |n| env.random_below(n));
                if self.books.owner.get() == epoch {
                    self.books.appended.borrow_mut().push(id);
                }
                let append = log.append(op);
                if env.random_below(8) > 0 {
                    waiting.push((id, append));
                }
            }
            for (id, append) in waiting {
                match append.await {
                    Ok(()) => {
                        if !log.sink().has(id) {
                            self.control.fail("log", format!("{id} was acknowledged, the sink not told"));
                        }
                        self.books.acknowledged.borrow_mut().insert(id);
                        acknowledged += 1;
                    }
                    Err(error @ (LogError::Fenced { .. } | LogError::Refused(_))) => {
                        sometimes!(self.control.marks(), "fenced");
                        if self.epoch.get() == epoch {
                            self.control.fail("log", format!("{epoch} fenced by nobody: {error}"));
                        }
                        return acknowledged;
                    }
                    Err(error) => {
                        self.control.fail("log", format!("operation {id}: {error}"));
                        return acknowledged;
                    }
                }
            }
            let pause = Duration::from_micros(env.random_below(200));
            env.sleep_until(env.now().plus(pause)).await;
        }
        acknowledged
    }

    /// One writer: opens the log and appends from several tasks; now and then takes a checkpoint. Sets `over` when all is
    /// written.
    async fn live(self, env: SimEnv, operations: u64, over: Rc<Cell<bool>>) {
        let Some((log, segments, epoch)) = self.open(&env).await else { return };
        let running = Rc::new(Cell::new(3));
        for _ in 0..3 {
            let (world, log, running, writer) = (self.clone(), log.clone(), Rc::clone(&running), env.clone());
            env.spawn(async move {
                world.write(writer.clone(), log, epoch, operations).await;
                running.set(running.get() - 1);
            });
        }
        while running.get() > 0 {
            let pause = Duration::from_micros(1 + env.random_below(2000));
            env.sleep_until(env.now().plus(pause)).await;
            if env.random_below(3) == 0 {
                let Ok(position) = log.settled().await else { break };
                if self.epoch.get() == epoch {
                    let told = log.sink().inner.borrow().clone();
                    *self.checkpoint.borrow_mut() = Some(Checkpoint { position, told });
                    sometimes!(self.control.marks(), "checkpoint");
                }
            }
            if env.random_below(6) == 0 && log.roll().await.is_err() {
                break;
            }
        }
        if log.failure().is_none() {
            let told = log.sink().inner.borrow().clone();
            if log.settled().await.is_ok() {
                let first = self.checkpoint.borrow().as_ref().map_or(SegmentId(1), |c| c.position.segment);
                expect(
                    &self.control,
                    check_data(&segments, &told, SegmentId(1), |shard| self.may_fail(shard)).await,
                );
                if self.epoch.get() == epoch {
                    // Nobody else is mending them.
                    expect(&self.control, check_replicas(&self.media, &segments, first));
                }
            }
        }
        over.set(true);
    }

    fn may_fail(&self, shard: usize) -> bool {
        shard == self.victim || self.media[shard].is_gone()
    }

    fn some_gone(&self) -> bool {
        self.media.iter().any(Medium::is_gone)
    }

    /// Does something to the victim.
    fn harm(&self, env: &SimEnv) {
        if self.media.len() == 1 || self.sole.get() {
            return;
        }
        let victim = &self.media[self.victim];
        match env.random_below(6) {
            0 => victim.set_faults(|faults| faults.fail_after = Some(env.random_below(40))),
            1 => victim.set_faults(|faults| faults.hangs = true),
            2 => victim.set_faults(|faults| {
                faults.delay_min = Duration::from_millis(30);
                faults.delay_max = Duration::from_millis(90);
            }),
            3 => victim.set_faults(|faults| faults.gone = true),
            _ => {}
        }
    }

    /// Between two lives the victim gets well, or is replaced, or some of it rots.
    fn mend(&self, env: &SimEnv) {
        for medium in &self.media {
            medium.set_faults(|faults| {
                *faults = Default::default();
                faults.delay_min = Duration::from_micros(5);
                faults.delay_max = Duration::from_micros(5 + env.random_below(900));
            });
        }
        if self.media.len() == 1 {
            return;
        }
        let victim = &self.media[self.victim];
        match env.random_below(6) {
            5 if !self.rotten.get() => {
                // From now on the victim may be the only one that has it all.
                self.sole.set(true);
                for other in self.media.iter().filter(|medium| !medium.is(victim)) {
                    other.set_faults(|faults| faults.gone = true);
                }
            }
            0 | 1 if self.sole.get() => {}
            0 => {
                // A checkpoint would let recovery pass over segments that only a scrub brings back.
                *self.checkpoint.borrow_mut() = None;
                victim.erase();
                sometimes!(self.control.marks(), "replaced");
            }
            // While a recovery is half done, what is damaged may be the only copy of what it decided to keep.
            1 if self.books.owner.get() == self.epoch.get() => {
                let open: Vec<_> = victim.list().into_iter().filter(|stat| stat.sealed.is_none()).collect();
                if let Some(stat) = open.first() {
                    victim.rot(stat.id, env.random_below(u64::from(SEGMENT_BYTES)) as u32, 4);
                    self.rotten.set(true);
                    sometimes!(self.control.marks(), "rotten");
                }
            }
            2 => victim.set_faults(|faults| faults.gone = true),
            _ => {}
        }
    }

    /// The whole story.
    async fn chaos(self, env: SimEnv, nodes: [NodeId; 2]) {
        let control = self.control.clone();
        self.mend(&env);
        for life in 0..LIVES {
            let node = nodes[(life % 2) as usize];
            let over = Rc::new(Cell::new(false));
            let (world, flag) = (self.clone(), Rc::clone(&over));
            control.spawn_on(node, 0, |env| world.live(env, 60, flag));
            let time = Duration::from_micros(env.random_below(6000));
            env.sleep_until(env.now().plus(time)).await;
            self.harm(&env);
            let time = Duration::from_micros(env.random_below(6000));
            env.sleep_until(env.now().plus(time)).await;
            if env.random_below(3) == 0 && life + 1 < LIVES && self.books.owner.get() > 0 {
                // The next one takes over while this one lives.
                sometimes!(control.marks(), "taken over alive");
                self.media[self.victim].set_faults(|faults| faults.hangs = false);
                continue;
            }
            for node in nodes {
                control.crash(node, Crash::Power);
            }
            for medium in &self.media {
                let torn = medium.crash(|below| env.random_below(below));
                sometimes!(control.marks(), torn > 0, "torn");
            }
            self.mend(&env);
            nodes.iter().for_each(|&node| control.restart(node));
        }
        self.end(&env, nodes[0]).await;
    }

    /// At last all is well: everything is done, and nothing is left over.
    async fn end(&self, env: &SimEnv, node: NodeId) {
        for medium in &self.media {
            medium.set_faults(|faults| {
                faults.gone = false;
                faults.hangs = false;
            });
        }
        let over = Rc::new(Cell::new(false));
        let (world, flag) = (self.clone(), Rc::clone(&over));
        let before = self.books.acknowledged.borrow().len();
        self.control.spawn_on(node, 0, |env| world.live(env, 10, flag));
        while !over.get() {
            env.sleep_until(env.now().plus(Duration::from_millis(1))).await;
        }
        env.sleep_until(env.now().plus(Duration::from_secs(5))).await;
        if self.books.acknowledged.borrow().len() <= before {
            self.control.fail("log", "nothing was acknowledged at last");
        }
        sometimes!(self.control.marks(), !self.decisions.decisions().is_empty(), "left behind");
        let left = self.control.task_count(node);
        if left > 0 {
            self.control.fail("log", format!("{left} tasks are left over"));
        }
    }
}

/// Opens the segments that lie before the place where the recovery began, as a lane's checkpoint would tell it to.
fn open_sealed(segments: &Segments<Store>) {
    let mut shards: BTreeMap<SegmentId, ShardSet> = BTreeMap::new();
    for (shard, stat) in segments.list() {
        let counts = segments.find(stat.id.segment, SegmentKind::Log, shard) == stat.id;
        if counts && stat.sealed.is_some() && !segments.contains(stat.id.segment) {
            let set = shards.entry(stat.id.segment).or_default();
            *set = set.with(ShardSet::of(shard));
        }
    }
    for (segment, shards) in shards {
        segments.open(segment, SegmentKind::Log, shards);
    }
}

fn run(seed: u64, replicas: usize, planted: Planted) -> Result<Marks, Failure> {
    let mut profile = Profile::swarm(seed);
    profile.schedule.time_max = Duration::from_secs(600);
    let sim = Sim::new(seed, profile);
    let sim = sim.reproduce_by("cargo test -p ashlar-engine --test log faults (it goes through {seed}, too)");
    let control = sim.control();
    let rng = control.rng("shape");
    let draw = |below: u64| rng.borrow_mut().below(below);
    let align = if draw(2) == 0 { 512 } else { 4096 };
    let media = (0..replicas).map(|n| Medium::new(n as u128, SEGMENT_BYTES, align, 1000)).collect();
    let config = LogConfig {
        window: 1 + draw(4) as usize,
        record_bytes_max: 4096 << draw(4),
        own_bytes_min: 4096 << draw(3),
        segment_bytes_max: SEGMENT_BYTES >> draw(2),
        latency_floor: Duration::from_millis(2),
        answer_max: Duration::from_millis(20),
        planted,
        ..LogConfig::default()
    };
    let world = World {
        control: control.clone(),
        media,
        decisions: LocalCoordinator::default(),
        books: Rc::default(),
        checkpoint: Rc::default(),
        config,
        epoch: Rc::default(),
        victim: draw(replicas as u64) as usize,
        blocks_max: 1 + draw(3),
        sole: Rc::default(),
        rotten: Rc::default(),
    };
    let (nodes, chaos) = ([control.node("a", 1), control.node("b", 1)], control.node("chaos", 1));
    control.goal_on(chaos, 0, |env| world.chaos(env, nodes));
    sim.run().map(|report| report.marks)
}

fn all_well(seeds: std::ops::Range<u64>, replicas: usize) -> Marks {
    let marks = Marks::default();
    for seed in seeds {
        marks.merge(&run(seed, replicas, Planted::default()).unwrap_or_else(|failure| panic!("{failure}")));
    }
    marks
}

/// The bug is found within so many seeds.
fn found(seeds: std::ops::Range<u64>, replicas: usize, planted: Planted) {
    let is_found = seeds.clone().any(|seed| run(seed, replicas, planted).is_err());
    assert!(is_found, "{planted:?} was not found by {seeds:?}");
}

#[test]
fn planted_bugs_are_found() {
    let none = Planted::default();
    found(0..20, 1, Planted { acknowledge_unordered: true, ..none });
    found(0..20, 1, Planted { skip_payload: true, ..none });
    found(2000..2030, 3, Planted { acknowledge_first: true, ..none });
    found(1000..1060, 2, Planted { leave_uncommitted: true, ..none });
}

#[test]
fn one_replica() {
    let marks = all_well(0..40, 1);
    let wanted = ["recovered something", "checkpoint", "fenced", "taken over alive", "torn"];
    assert!(marks.missing(&wanted).is_empty(), "{:?}", marks.all());
}

#[test]
fn two_replicas() {
    let marks = all_well(1000..1030, 2);
    assert!(
        marks.missing(&["replicas compared", "replaced", "left behind", "out of reach"]).is_empty(),
        "{:?}",
        marks.all()
    );
}

#[test]
fn three_replicas() {
    let marks = all_well(2000..2030, 3);
    let wanted =
        ["recovered something", "checkpoint", "fenced", "taken over alive", "replaced", "left behind"];
    assert!(marks.missing(&wanted).is_empty(), "{:?}", marks.all());
}
