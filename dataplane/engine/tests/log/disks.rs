//! The log on chunk stores on the simulator's disks, through power failures.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::ids::{Epoch, SegmentId};
use ashlar_engine::log::{Event, LocalCoordinator, Log, LogConfig, Position, recover};
use ashlar_engine::segment::Segments;
use ashlar_engine::store::{ChunkStore, FormatOptions};
use ashlar_env::{Clock, Rng, Spawn};
use ashlar_sim::{Control, Crash, DiskGeometry, DiskId, NodeId, Profile, Sim, SimDisk, SimEnv};
use uuid::Uuid;

use crate::support::{Books, LANE, Told, expect, operation};

type Store = ChunkStore<SimEnv, SimDisk>;

const LIVES: u64 = 4;

#[derive(Clone)]
struct World {
    control: Control,
    disks: Vec<DiskId>,
    books: Rc<Books>,
    decisions: LocalCoordinator,
    config: LogConfig,
    formatted: Rc<Cell<bool>>,
}

impl World {
    async fn stores(&self, env: &SimEnv) -> Vec<Store> {
        let mut stores = Vec::new();
        for (n, &disk) in (1u128..).zip(&self.disks) {
            let disk = env.open_disk(disk);
            let store = if self.formatted.get() {
                ChunkStore::open(env.clone(), disk).await.expect("it was formatted")
            } else {
                let options = FormatOptions::new(Uuid::from_u128(n), Uuid::from_u128(9));
                let options =
                    FormatOptions { slot_bytes: 64 << 10, fence_entries: 10, overwrite: true, ..options };
                ChunkStore::format(env.clone(), disk, options).await.expect("it can be formatted")
            };
            stores.push(store);
        }
        stores
    }

    async fn open(&self, env: &SimEnv, epoch: u64) -> Log<SimEnv, Store, Told> {
        let stores = self.stores(env).await;
        let (coordinator, epoch, told) = (Rc::new(self.decisions.clone()), Epoch(epoch), Told::default());
        self.decisions.take(epoch);
        let segments = Segments::new(LANE, stores);
        if !self.formatted.get() {
            let log = Log::create(env.clone(), segments, coordinator, epoch, self.config, told).await;
            self.formatted.set(true);
            self.books.owner.set(epoch.0);
            return log.expect("the stores are empty and well");
        }
        let note = told.clone();
        let each = |event: Event<'_>| {
            if let Event::Applied(op) = event {
                note.note(&op);
            }
        };
        let from = Position::origin(segments.all());
        assert_eq!(from.segment, SegmentId(1));
        let found = recover(env, &segments, &*coordinator, epoch, from, &self.config, each).await;
        let recovered = found.unwrap_or_else(|error| panic!("{error}"));
        let order = told.inner.borrow().order.clone();
        expect(&self.control, self.books.recovered(epoch.0, &order));
        Log::resume(env.clone(), segments, coordinator, epoch, self.config, told, recovered)
    }

    async fn live(self, env: SimEnv, life: u64, over: Rc<Cell<bool>>) {
        let log = self.open(&env, life).await;
        for _ in 0..15 {
            let mut waiting = Vec::new();
            for _ in 0..1 + env.random_below(4) {
                let id = self.books.number();
                self.books.appended.borrow_mut().push(id);
                let op = operation(id, env.random_below(6), 3, &mut |n| env.random_below(n));
                waiting.push((id, log.append(op)));
            }
            for (id, append) in waiting {
                if let Err(error) = append.await {
                    self.control.fail("log", format!("operation {id}: {error}"));
                    return;
                }
                self.books.acknowledged.borrow_mut().insert(id);
            }
        }
        log.settled().await.expect("the log is well");
        over.set(true);
    }

    async fn chaos(self, env: SimEnv, node: NodeId) {
        for life in 1..=LIVES {
            let over = Rc::new(Cell::new(false));
            let (world, flag) = (self.clone(), Rc::clone(&over));
            self.control.spawn_on(node, 0, |env| {
                let spawn = env.clone();
                async move { spawn.spawn(world.live(env, life, flag)) }
            });
            if life == LIVES {
                while !over.get() {
                    env.sleep_until(env.now().plus(Duration::from_millis(1))).await;
                }
                return;
            }
            let time = Duration::from_micros(env.random_below(40_000));
            env.sleep_until(env.now().plus(time)).await;
            while !self.formatted.get() {
                env.sleep_until(env.now().plus(Duration::from_micros(100))).await;
            }
            self.control.crash(node, Crash::Power);
            self.control.restart(node);
        }
    }
}

fn run(seed: u64, replicas: u64) {
    let sim = Sim::new(seed, Profile::swarm(seed));
    let sim = sim.reproduce_by("cargo test -p ashlar-engine --test log disks (it goes through {seed}, too)");
    let control = sim.control();
    let geometry = DiskGeometry::of_bytes(8 << 20);
    let world = World {
        control: control.clone(),
        disks: (0..replicas).map(|n| control.disk(&format!("disk {n}"), geometry)).collect(),
        books: Rc::default(),
        decisions: LocalCoordinator::default(),
        config: LogConfig {
            window: 1 + (seed % 4) as usize,
            record_bytes_max: 16 << 10,
            own_bytes_min: 8 << 10,
            latency_floor: Duration::from_secs(100),
            answer_max: Duration::from_secs(100),
            ..LogConfig::default()
        },
        formatted: Rc::default(),
    };
    let (node, chaos) = (control.node("node", 1), control.node("chaos", 1));
    control.goal_on(chaos, 0, |env| world.chaos(env, node));
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn one_disk() {
    (0..12).for_each(|seed| run(seed, 1));
}

#[test]
fn three_disks() {
    (100..106).for_each(|seed| run(seed, 3));
}
