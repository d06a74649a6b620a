//! Writers side by side, in any order, some of whose futures are dropped half-way, through power failures and crashes.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ashlar_engine::chunks::StoreError;
use ashlar_engine::ids::{ChunkId, Epoch};
use ashlar_env::{Clock, Rng};
use ashlar_sim::{Control, Crash, DiskGeometry, DiskId, NodeId, Profile, Sim, SimEnv};

use crate::model::{Model, id};
use crate::scribe::{Handle, Scribe, Store};
use crate::tap::{Count, Tap};
use crate::{SLOT_BYTES, geometry, options};

const WRITERS: u64 = 3;
const STEPS: usize = 40;
const CAPACITY: u32 = SLOT_BYTES - 8192;

/// A writer with a group of its own.
struct Writer {
    scribe: Scribe,
    control: Control,
    group: u64,
    epoch: u64,
    segment: u32,
    open: Option<(Handle, u64)>,
    sealed: Vec<ChunkId>,
}

impl Writer {
    async fn work(mut self) {
        for _ in 0..STEPS {
            match self.step().await {
                Ok(()) | Err(StoreError::Full) => {}
                Err(error) => self.control.fail("store", format!("group {}: {error}", self.group)),
            }
        }
    }

    async fn step(&mut self) -> Result<(), StoreError> {
        let random = |below| self.scribe.env.random_below(below);
        match (random(10), self.open.take()) {
            (0..7, None) => self.create().await,
            (0..6, Some(open)) => self.append(open).await,
            (6 | 7, Some(open)) => self.seal(open).await,
            (8, Some(open)) => {
                // A newer writer comes: what is open is sealed in its name.
                self.fence().await?;
                self.seal(open).await
            }
            (9, open) if !self.sealed.is_empty() => {
                self.open = open;
                let at = random(self.sealed.len() as u64) as usize;
                let id = self.sealed.swap_remove(at);
                self.delete(id).await
            }
            (_, Some(open)) => self.delete(open.0.stat().id).await,
            (_, None) => self.fence().await,
        }
    }

    async fn create(&mut self) -> Result<(), StoreError> {
        self.segment += 1;
        let create = self.scribe.create(id(self.group, self.segment), self.epoch);
        self.open = self.perhaps(create).await.transpose()?;
        Ok(())
    }

    async fn append(&mut self, open: (Handle, u64)) -> Result<(), StoreError> {
        let end = open.0.end().expect("it was made in this life");
        let pieces: Vec<u32> = (0..=self.scribe.env.random_below(3))
            .map(|_| 1 + self.scribe.env.random_below(6) as u32)
            .collect();
        if end + pieces.iter().sum::<u32>() * 512 > CAPACITY {
            return self.seal(open).await;
        }
        self.perhaps(self.scribe.append(&open, end, &pieces)).await.transpose()?;
        self.open = Some(open);
        Ok(())
    }

    async fn seal(&mut self, open: (Handle, u64)) -> Result<(), StoreError> {
        let end = open.0.end().expect("it was made in this life");
        let next = (self.scribe.env.random_below(2) == 0).then_some(self.segment + 1);
        self.sealed.push(open.0.stat().id);
        self.perhaps(self.scribe.seal_as(Epoch(self.epoch), &open, end, next)).await.transpose()?;
        Ok(())
    }

    async fn delete(&self, id: ChunkId) -> Result<(), StoreError> {
        self.perhaps(self.scribe.delete(id, self.epoch)).await.transpose()?;
        Ok(())
    }

    async fn fence(&mut self) -> Result<(), StoreError> {
        self.epoch += 1;
        self.perhaps(self.scribe.fence(self.group, self.epoch)).await.transpose()?;
        Ok(())
    }

    /// The outcome, or `None` where the future was dropped after some time.
    async fn perhaps<T>(&self, operation: impl Future<Output = T>) -> Option<T> {
        let env = &self.scribe.env;
        let is_patient = env.random_below(6) > 0;
        let patience = Duration::from_micros(env.random_below(300) + if is_patient { 1 << 40 } else { 0 });
        let mut over = pin!(env.sleep_until(env.now().plus(patience)));
        let mut operation = pin!(operation);
        poll_fn(|cx| match operation.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => over.as_mut().poll(cx).map(|()| None),
        })
        .await
    }
}

#[derive(Clone)]
struct Bench {
    control: Control,
    node: NodeId,
    disk: DiskId,
    model: Rc<RefCell<Model>>,
}

impl Bench {
    fn tap(&self, env: &SimEnv) -> Tap {
        Tap {
            disk: env.open_disk(self.disk),
            control: self.control.clone(),
            node: self.node,
            count: Rc::<Count>::default(),
            blow: None,
            is_dead: Rc::default(),
        }
    }

    /// Opens the store, compares it with the model, and, if `goes_on`, lets writers loose; the counter says how many
    /// tasks have ended.
    fn live(&self, life: u64, goes_on: bool) -> Rc<Cell<u64>> {
        let ended = Rc::new(Cell::new(0));
        let (bench, count) = (self.clone(), Rc::clone(&ended));
        self.control.spawn_on(self.node, 0, |env| async move {
            let store = Store::open(env.clone(), bench.tap(&env)).await.unwrap();
            // A copy: this life may be over before everything is read.
            let mut model = bench.model.borrow().clone();
            let checked = model.check(&env, &store).await;
            bench.model.replace(model);
            if let Err(wrong) = checked {
                bench.control.fail("store", format!("life {life}: {wrong}"));
            }
            count.set(count.get() + 1);
            if !goes_on {
                return;
            }
            let scribe = Scribe { env, store, model: Rc::clone(&bench.model) };
            for group in 1..=WRITERS {
                scribe.fence(group, life * 1000).await.unwrap();
            }
            scribe.clear(life * 1000).await.unwrap();
            for group in 1..=WRITERS {
                let (scribe, control, count) = (scribe.clone(), bench.control.clone(), Rc::clone(&count));
                let (epoch, segment) = (life * 1000, life as u32 * 1000);
                let writer = Writer { scribe, control, group, epoch, segment, open: None, sealed: vec![] };
                bench.control.spawn_on(bench.node, 0, |_| async move {
                    writer.work().await;
                    count.set(count.get() + 1);
                });
            }
        });
        ended
    }

    fn crash(&self, how: Crash) {
        self.control.crash(self.node, how);
        self.control.restart(self.node);
    }
}

async fn through_crashes(bench: Bench, env: SimEnv) {
    let sleep = async |ns| env.sleep_until(env.now().plus(Duration::from_nanos(ns))).await;
    for life in 1..=3 {
        let ended = bench.live(life, true);
        match env.random_below(3) {
            0 => {
                while ended.get() < 1 + WRITERS {
                    sleep(1_000_000).await;
                }
                // What was dropped ends by itself; then nothing is left over.
                sleep(100_000_000_000).await;
                let left = bench.control.task_count(bench.node);
                if left > 0 {
                    bench.control.fail("store", format!("{left} tasks are left over"));
                }
                bench.crash(Crash::Power);
            }
            how => {
                sleep(env.random_below(120_000_000)).await;
                bench.crash(if how == 1 { Crash::Power } else { Crash::Process });
            }
        }
    }
    let ended = bench.live(4, false);
    while ended.get() < 1 {
        sleep(1_000_000).await;
    }
}

/// The number of acknowledgements checked.
fn run(seed: u64) -> u64 {
    let profile = Profile { pool: Profile::calm().pool, ..Profile::swarm(seed) };
    let sim =
        Sim::new(seed, profile).reproduce_by("cargo test -p ashlar-engine --test store swarm (seed {seed})");
    let geometry = DiskGeometry {
        volatile_cache: !seed.is_multiple_of(4),
        discard_zeroes: seed.is_multiple_of(2),
        discard_granularity_bytes: [0, 4096, 16384][(seed % 3) as usize],
        ..geometry()
    };
    let bench = Bench {
        control: sim.control(),
        node: sim.node("node", 1),
        disk: sim.disk("disk", geometry),
        model: Rc::default(),
    };
    let (maker, chaos) = (sim.node("maker", 1), bench.clone());
    sim.goal_on(maker, 0, |env| async move {
        drop(Store::format(env.clone(), chaos.tap(&env), options()).await.unwrap());
        through_crashes(chaos, env).await;
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
    bench.model.borrow().checked
}

#[test]
fn writers_side_by_side_lose_nothing_in_crashes() {
    let checked: u64 = (0..80).map(run).sum();
    assert!(checked > 2000, "only {checked} acknowledgements were checked");
}
