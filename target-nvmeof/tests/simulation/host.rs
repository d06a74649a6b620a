//! The host model: it connects, works with some commands at a time, loses connections, comes back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::{Rng, Spawn};
use ashlar_sim::SimEnv;
use ashlar_sim::conformance::{join_all, sleep};

use crate::books::Books;
use crate::controller::{Controller, Wish, host_nqn};
use crate::node::{NodePlan, Shared};
use crate::queue::Lost;
use crate::work::{Access, Blocks, Compared};

/// Blocks at the end of each volume that belong to one worker alone.
pub const PRIVATE_BLOCKS: u64 = 2;
/// Workers of a host, at most.
pub const WORKERS_MAX: u64 = 6;

/// A host of a run.
pub struct Host {
    pub number: u16,
    pub plan: Rc<NodePlan>,
    pub target: Shared,
    pub wish: Wish,
    pub workers: u64,
    /// The largest command, in bytes.
    pub bytes_max: u64,
    /// Whether errors of the media are to be expected.
    pub media_err: bool,
    pub books: Rc<RefCell<Books>>,
    /// Commands left to issue.
    pub budget: Cell<u64>,
    /// The faults are over: what hangs now hangs for ever.
    pub healed: Rc<Cell<bool>>,
    /// By worker and volume: the fence count at which its private blocks were in doubt.
    pub doubts: RefCell<BTreeSet<(u64, usize, u64)>>,
    pub done: Cell<bool>,
}

impl Host {
    /// Works until its budget is spent.
    pub async fn run(self: Rc<Self>, env: SimEnv) {
        self.doubt_all();
        let mut haunted = BTreeSet::new();
        while self.budget.get() > 0 {
            let Some(controller) = self.connect(&env, &haunted).await else {
                sleep(&env, Duration::from_micros(env.random_below(1_000_000))).await;
                continue;
            };
            self.session(&env, &controller).await;
            haunted = controller.haunted();
        }
        self.done.set(true);
    }

    /// After the host's own death none of its private blocks is certain.
    fn doubt_all(&self) {
        for worker in 0..self.workers {
            for volume in 0..self.plan.volumes.len() {
                self.doubt(worker, volume);
            }
        }
    }

    fn doubt(&self, worker: u64, volume: usize) {
        let fences = self.books.borrow().fences;
        self.doubts.borrow_mut().insert((worker, volume, fences));
    }

    /// Whether nothing of an earlier session may still write to the worker's private blocks.
    fn is_certain(&self, worker: u64, volume: usize) -> bool {
        let fences = self.books.borrow().fences;
        let mut doubts = self.doubts.borrow_mut();
        doubts.retain(|&(w, v, at)| !(w == worker && v == volume && at < fences));
        !doubts.iter().any(|&(w, v, _)| w == worker && v == volume)
    }

    pub async fn connect(&self, env: &SimEnv, haunted: &BTreeSet<u16>) -> Option<Controller> {
        let subsystem = env.random_below(self.plan.subsystems.len() as u64) as usize;
        let mut manners = self.wish.manners;
        if self.healed.get() {
            manners.rest_max = Duration::ZERO;
        }
        let wish = Wish {
            manners,
            subsystem,
            queues: 1 + env.random_below(4) as u16,
            identifies: env.random_below(4) > 0,
            ..self.wish.clone()
        };
        let controller = wish.connect(env, &self.plan, haunted).await?;
        let old = self.target.borrow().as_ref().map_or(0, |life| life.controllers_of(&host_nqn(self.number)));
        if old > 1 {
            env.marks().hit("host: back before the target gave its old controller up");
        }
        Some(controller)
    }

    /// One controller's life.
    async fn session(&self, env: &SimEnv, controller: &Controller) {
        let healed = self.healed.get();
        // Now and then everything is dropped in the middle.
        if !healed && env.random_below(3) == 0 {
            let (controller, clock) = (controller.clone(), env.clone());
            let time = Duration::from_micros(env.random_below(400_000));
            env.spawn(async move {
                sleep(&clock, time).await;
                clock.marks().hit("host: dropped its connections");
                controller.close();
            });
        }
        let commands = Cell::new(if healed { u64::MAX } else { 4 + env.random_below(60) });
        join_all((0..self.workers).map(|worker| self.work(env, controller, worker, &commands))).await;
        let is_over = controller.is_over();
        match env.random_below(6) {
            _ if is_over => controller.close(),
            0..3 => controller.shut_down(env).await,
            3 if self.wish.kato_ms > 0 && !healed => {
                controller.fall_silent(env, Duration::from_secs(20)).await;
            }
            _ => controller.close(),
        }
    }

    async fn work(&self, env: &SimEnv, controller: &Controller, worker: u64, commands: &Cell<u64>) {
        let namespaces: Vec<(u32, usize)> = self.plan.subsystems[controller.subsystem]
            .iter()
            .map(|(&nsid, &volume)| (nsid, volume))
            .collect();
        while self.budget.get() > 0 && commands.get() > 0 && !controller.is_over() {
            self.budget.set(self.budget.get() - 1);
            commands.set(commands.get() - 1);
            let (nsid, volume) = namespaces[env.random_below(namespaces.len() as u64) as usize];
            let access = Access {
                host: self,
                env,
                queue: controller.pick(env).clone(),
                nsid,
                volume,
                flushes: controller.flushes,
                writer: u32::from(self.number) * WORKERS_MAX as u32 + worker as u32 + 1,
            };
            let aborts = env.random_below(32) == 0;
            let lost = aborts && controller.abort(env).await.is_err();
            if lost || self.step(&access, worker).await.is_err() {
                // As Linux does: one queue lost, all given up.
                controller.close();
            }
            if env.random_below(8) == 0 {
                sleep(env, Duration::from_micros(env.random_below(5_000))).await;
            }
        }
    }

    /// Blocks that everybody uses, a few of them more than others.
    fn shared_blocks(&self, access: &Access<'_>, most: u64) -> Blocks {
        let env = access.env;
        let volume = &self.plan.volumes[access.volume];
        let shared = volume.blocks - self.private_blocks();
        let most = most.min(self.bytes_max >> volume.block.shift()).clamp(1, shared);
        let count = if env.random_below(4) == 0 {
            1 + env.random_below(most)
        } else {
            1 + env.random_below(most.min(4))
        };
        let room = shared - count + 1;
        let first =
            if env.random_below(2) == 0 { env.random_below(room.min(4)) } else { env.random_below(room) };
        Blocks { first, count }
    }

    /// Blocks of all private places of all hosts.
    fn private_blocks(&self) -> u64 {
        crate::scenario::HOSTS_MAX * WORKERS_MAX * PRIVATE_BLOCKS
    }

    async fn step(&self, access: &Access<'_>, worker: u64) -> Result<(), Lost> {
        let blocks = self.shared_blocks(access, u64::MAX);
        match access.env.random_below(20) {
            0..6 => access.read(blocks).await.map(drop),
            6..11 => access.write(blocks).await.map(drop),
            11 => access.write_zeroes(blocks).await,
            12 => {
                let ranges = 1 + access.env.random_below(3);
                let ranges: Vec<_> = (0..ranges).map(|_| self.shared_blocks(access, 16)).collect();
                access.deallocate(&ranges).await
            }
            13..15 => access.flush().await,
            15 => access.verify(blocks).await,
            16..18 => self.take_turns(access).await,
            _ => self.private(access, worker).await,
        }
    }

    /// Compare-and-write on blocks that others want as well.
    async fn take_turns(&self, access: &Access<'_>) -> Result<(), Lost> {
        let count = 1 + access.env.random_below(2);
        let blocks = Blocks { first: access.env.random_below(2), count };
        let Some((expected, _)) = access.read(blocks).await? else { return Ok(()) };
        let compared = access.compare_and_write(blocks, &expected).await?;
        match compared {
            Compared::Equal => access.env.marks().hit("host: compare-and-write hit"),
            Compared::Differs => access.env.marks().hit("host: compare-and-write missed"),
            Compared::Failed => {}
        }
        Ok(())
    }

    /// What needs to know the contents: in blocks that are this worker's own.
    async fn private(&self, access: &Access<'_>, worker: u64) -> Result<(), Lost> {
        let number = u64::from(self.number) * WORKERS_MAX + worker;
        let first = self.plan.volumes[access.volume].blocks - (number + 1) * PRIVATE_BLOCKS;
        let blocks = Blocks { first, count: PRIVATE_BLOCKS };
        if !self.is_certain(worker, access.volume) {
            return access.read(blocks).await.map(drop);
        }
        let result = self.in_private(access, blocks).await;
        if result.is_err() {
            self.doubt(worker, access.volume);
        }
        result
    }

    async fn in_private(&self, access: &Access<'_>, blocks: Blocks) -> Result<(), Lost> {
        let env = access.env;
        let Some(written) = access.write(blocks).await? else { return Ok(()) };
        let Some((read, values)) = access.read(blocks).await? else { return Ok(()) };
        if read != written {
            env.fail("register", format!("vol={} lba={}: not what was written", access.volume, blocks.first));
            return Ok(());
        }
        let mut other = written.clone();
        let at = env.random_below(other.len() as u64) as usize;
        other[at] ^= 1 << env.random_below(8);
        match env.random_below(6) {
            0 | 1 => {
                let to = self.shared_blocks(access, 4).first;
                let shared = self.plan.volumes[access.volume].blocks - self.private_blocks();
                access.copy(blocks, &values, to.min(shared - blocks.count)).await
            }
            2 => self.expect(access, Compared::Equal, access.compare(blocks, &written).await?),
            3 => self.expect(access, Compared::Differs, access.compare(blocks, &other).await?),
            4 => self.expect(access, Compared::Equal, access.compare_and_write(blocks, &written).await?),
            _ => self.expect(access, Compared::Differs, access.compare_and_write(blocks, &other).await?),
        }
    }

    fn expect(&self, access: &Access<'_>, wanted: Compared, got: Compared) -> Result<(), Lost> {
        if got != wanted && got != Compared::Failed {
            access.env.fail("compare", format!("vol={}: {got:?}, {wanted:?} was right", access.volume));
        }
        Ok(())
    }

    /// Reads every block of every volume once. Not to be called while anything else is under way.
    pub async fn audit(&self, env: &SimEnv, heal: impl Fn()) {
        let mut left: Vec<(usize, u64)> = Vec::new();
        for (number, volume) in self.plan.volumes.iter().enumerate() {
            left.extend((0..volume.blocks).step_by(8).map(|first| (number, first)));
        }
        while !left.is_empty() {
            let Some(controller) = self.connect(env, &BTreeSet::new()).await else {
                sleep(env, Duration::from_millis(50)).await;
                continue;
            };
            for (&nsid, &volume) in &self.plan.subsystems[controller.subsystem] {
                let access = Access {
                    host: self,
                    env,
                    queue: controller.pick(env).clone(),
                    nsid,
                    volume,
                    flushes: true,
                    writer: 0,
                };
                let here = left.extract_if(.., |(at, _)| *at == volume).collect::<Vec<_>>();
                for (_, first) in here {
                    let count = (self.plan.volumes[volume].blocks - first).min(8);
                    match access.read(Blocks { first, count }).await {
                        Ok(Some(_)) => {}
                        Ok(None) => {
                            heal();
                            left.push((volume, first));
                        }
                        Err(Lost) => left.push((volume, first)),
                    }
                }
            }
            controller.shut_down(env).await;
        }
    }
}
