//! A fixed script, crashed at every disk operation, and failed at every one: what was acknowledged is there, what was
//! not is there whole or not at all, and after a failure nothing more is written.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::chunks::{Chunks, StoreError};
use ashlar_engine::store::ChunkStore;
use ashlar_env::Clock;
use ashlar_sim::{Crash, DiskGeometry, DiskId, NodeId, Profile, Sim, SimEnv};

use crate::model::{Model, id};
use crate::scribe::{Scribe, Store};
use crate::tap::{Blow, Count, Tap};
use crate::{geometry, options};

impl Scribe {
    /// Everything once, slots reused, appends side by side. `base` numbers the segments.
    async fn script(&self, base: u32) -> Result<(), StoreError> {
        let epoch = u64::from(base);
        self.fence(1, epoch).await?;
        self.clear(epoch).await?;
        let first = self.create(id(1, base), epoch).await?;
        let end = self.append(&first, 0, &[1, 3, 2]).await?;
        let second = self.create(id(1, base + 1), epoch).await?;
        self.append(&first, end, &[1]).await?;
        self.seal(&first, end + 512, Some(base + 1)).await?;
        self.append(&second, 0, &[8, 8]).await?;
        self.delete(id(1, base), epoch).await?;
        let other = self.create(id(2, base), epoch - 1).await?;
        let end = self.append(&other, 0, &[2, 2]).await?;
        self.fence(2, epoch).await?;
        self.fence(1, epoch + 1).await?;
        let third = self.create(id(1, base + 2), epoch + 1).await?;
        self.append(&third, 0, &[4]).await?;
        self.seal(&third, 1024, None).await?;
        self.append(&other, end, &[1, 1, 1]).await.or_else(|error| match error {
            StoreError::Fenced { .. } => Ok(0),
            other => Err(other),
        })?;
        self.delete(id(1, base + 2), epoch + 1).await?;
        self.delete(id(1, base + 1), epoch + 1).await?;
        let last = self.create(id(1, base + 3), epoch + 2).await?;
        self.append(&last, 0, &[5]).await?;
        Ok(())
    }
}

/// One run: the script until the blow, if it comes, then again in a second life.
struct Run {
    sim: Sim,
    node: NodeId,
    disk: DiskId,
    count: Rc<Count>,
    model: Rc<RefCell<Model>>,
}

impl Run {
    fn new(seed: u64, geometry: DiskGeometry) -> Self {
        let sim = Sim::new(seed, Profile::calm());
        let node = sim.node("node", 1);
        let disk = sim.disk("disk", geometry);
        let run = Self { sim, node, disk, count: Rc::default(), model: Rc::default() };
        let chaos = run.sim.node("maker", 1);
        run.sim.goal_on(chaos, 0, |env| async move {
            ChunkStore::format(env.clone(), env.open_disk(disk), options()).await.unwrap();
        });
        run.go();
        run
    }

    fn go(&self) {
        self.sim.run().unwrap_or_else(|failure| panic!("{failure}"));
    }

    fn tap(&self, env: &SimEnv, blow: Option<(u64, Blow)>) -> Tap {
        let (control, node, count) = (self.sim.control(), self.node, Rc::clone(&self.count));
        Tap { disk: env.open_disk(self.disk), control, node, count, blow, is_dead: Rc::default() }
    }

    /// Starts the script on the node; how it ended is left in the cell.
    fn start(&self, base: u32, blow: Option<(u64, Blow)>) -> Rc<RefCell<Option<Result<(), StoreError>>>> {
        let ended = Rc::new(RefCell::new(None));
        let env = self.sim.env(self.node, 0);
        let (tap, model, told) = (self.tap(&env, blow), Rc::clone(&self.model), Rc::clone(&ended));
        self.sim.spawn_on(self.node, 0, |_| async move {
            let store = Store::open(env.clone(), tap).await.unwrap();
            let scribe = Scribe { env, store, model };
            let outcome = scribe.script(base).await;
            assert_eq!(scribe.store.info().failed, outcome.is_err());
            *told.borrow_mut() = Some(outcome);
        });
        ended
    }

    /// Lets the world go on until nothing happens any more.
    fn settle(&self) {
        self.sim.goal_on(self.sim.node("time", 1), 0, |env| async move {
            env.sleep_until(env.now().plus(Duration::from_secs(5))).await;
        });
        self.go();
    }

    /// Opens the store anew and compares it with the model.
    fn check(&self, what: &str) {
        if self.sim.is_up(self.node) {
            self.sim.crash(self.node, Crash::Power);
        }
        self.sim.restart(self.node);
        let model = Rc::clone(&self.model);
        let env = self.sim.env(self.node, 0);
        let tap = self.tap(&env, None);
        let (control, what) = (self.sim.control(), what.to_owned());
        self.sim.goal_on(self.node, 0, |_| async move {
            let store = Store::open(env.clone(), tap).await.unwrap();
            let mut taken = model.take();
            let checked = taken.check(&env, &store).await;
            model.replace(taken);
            if let Err(wrong) = checked {
                control.fail("store", format!("{what}: {wrong}"));
            }
        });
        self.go();
        self.count.told.set(false);
    }
}

fn shapes() -> [DiskGeometry; 3] {
    let it = geometry();
    [
        it,
        DiskGeometry { volatile_cache: false, discard_granularity_bytes: 0, ..it },
        DiskGeometry { discard_zeroes: false, ..it },
    ]
}

/// How many operations change the disk until the script has ended.
fn operations(geometry: DiskGeometry) -> u64 {
    let run = Run::new(1, geometry);
    let ended = run.start(10, None);
    run.settle();
    assert_eq!(*ended.borrow(), Some(Ok(())));
    let count = run.count.issued.get();
    run.check("no blow");
    count
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    let mut checked = 0;
    for (shape, geometry) in shapes().into_iter().enumerate() {
        let count = operations(geometry);
        assert!(count > 40, "{count}");
        for at in 1..=count {
            for how in [Crash::Power, Crash::Process] {
                let what = format!("shape {shape}, {how:?} at operation {at}");
                let run = Run::new(at, geometry);
                let ended = run.start(10, Some((at, Blow::Crash(how))));
                run.settle();
                if !run.sim.is_up(run.node) {
                    assert_eq!(*ended.borrow(), None, "{what}");
                }
                run.check(&what);
                let again = run.start(20, None);
                run.settle();
                assert_eq!(*again.borrow(), Some(Ok(())), "{what}: the second life");
                run.check(&what);
                checked += run.model.borrow().checked;
            }
        }
    }
    assert!(checked > 2000, "only {checked} acknowledgements were checked");
}

#[test]
fn after_a_failure_at_any_operation_nothing_is_written_and_nothing_acknowledged_is_lost() {
    let geometry = geometry();
    for at in 1..=operations(geometry) {
        for done in [false, true] {
            let what = format!("operation {at} fails, done: {done}");
            let run = Run::new(at, geometry);
            let ended = run.start(10, Some((at, Blow::Fail { done })));
            run.settle();
            let outcome = ended.borrow().clone();
            assert!(matches!(outcome, Some(Err(StoreError::Disk(_)))), "{what}: {outcome:?}");
            assert_eq!(run.count.after.get(), 0, "{what}: something was written afterwards");
            run.check(&what);
        }
    }
}
