//! Groups with copies on two and three devices, one of which fails, hangs, is slow, gives other bytes or goes away: nobody
//! notices, through crashes. What a device missed is made again when it comes back, and what it still has of old times
//! is not believed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::units::VolumeId;
use ashlar_env::{Clock, Rng};
use ashlar_sim::{Crash, DiskGeometry, Failure, Marks, Prng, Profile, Sim, SimEnv};

use super::acts::{Admin, Books, Pending};
use super::faults::Fault;
use super::host::{Host, Tolerance};
use super::random::Story;
use super::world::{SimLane, World, tiny};

const ROUNDS: u32 = 4;
const FAULTS: [Fault; 5] = [Fault::Hangs, Fault::Slow, Fault::Failing, Fault::Gone, Fault::Rot];

/// Makes missing copies now and then, until told to end, as a node does.
fn keep(story: &Story, lane: &SimLane) -> Rc<Cell<bool>> {
    let over = Rc::new(Cell::new(false));
    let (lane, end, control) = (lane.clone(), Rc::clone(&over), story.world.control.clone());
    story.world.control.spawn_on(story.world.node, 0, move |env| async move {
        while !end.get() {
            if lane.copies().segments_to_make > 0 && lane.rebuild(|_, _| {}).await.is_ok_and(|made| made > 0)
            {
                control.marks().hit("copies were made again");
            }
            env.sleep_until(env.now().plus(Duration::from_millis(20))).await;
        }
    });
    over
}

struct Run {
    /// Slow devices are waited for.
    patient: bool,
    story: Story,
    env: SimEnv,
}

impl Run {
    /// A new life of the node; `how` it ended before.
    async fn reopen(&self, how: Crash) -> Option<SimLane> {
        let admin = &self.story.admin;
        self.story.world.troubles.iter().for_each(|trouble| Fault::end(trouble));
        self.story.world.restart(how);
        for host in admin.hosts() {
            host.ledger.borrow_mut().power_failed();
        }
        let lane = self.story.open().await?;
        admin.reconcile(&lane).await;
        Some(lane)
    }

    fn power(&self) -> Crash {
        if self.env.random_below(2) == 0 { Crash::Power } else { Crash::Process }
    }

    /// Work, with a fault of one device in the middle of it, or a crash. The lane, and whether it is to be opened anew.
    async fn round(&self, lane: SimLane) -> Option<SimLane> {
        let (env, story) = (&self.env, &self.story);
        let busy = story.work(&lane);
        let over = keep(story, &lane);
        env.sleep_until(env.now().plus(Duration::from_micros(env.random_below(40_000)))).await;
        let device = env.random_below(story.world.disks.len() as u64) as usize;
        // Where slow devices are left behind, what is new may be on a single one: that one is spared.
        let faults = if self.patient { &FAULTS[..] } else { &FAULTS[..2] };
        let fault = faults[env.random_below(faults.len() as u64) as usize];
        let faulty = env.random_below(4) > 0;
        if faulty {
            fault.begin(&story.world.troubles[device], env);
            story.world.control.marks().hit(&format!("{fault:?}"));
        }
        env.sleep_until(env.now().plus(Duration::from_micros(env.random_below(2_000_000)))).await;
        if !fault.shows() {
            Fault::end(&story.world.troubles[device]);
        }
        if env.random_below(2) == 0 {
            story.rest(env, &lane, &busy).await;
            // With the device as it is, everything can be read.
            if fault != Fault::Rot {
                story.audit(&lane, env).await;
            }
        }
        over.set(true);
        story.note(&lane);
        drop(lane);
        let goes = self.patient && env.random_below(2) == 0;
        if goes {
            story.world.control.marks().hit("a device was away");
            story.world.absent.borrow_mut().insert(device);
        }
        let mut lane = self.reopen(self.power()).await?;
        story.audit(&lane, env).await;
        if goes {
            let busy = story.work(&lane);
            story.rest(env, &lane, &busy).await;
            story.note(&lane);
            drop(lane);
            story.world.absent.borrow_mut().clear();
            lane = self.reopen(self.power()).await?;
            story.audit(&lane, env).await;
        }
        self.make_whole(&lane).await;
        Some(lane)
    }

    /// All copies are made, and there are as many as there should be.
    async fn make_whole(&self, lane: &SimLane) {
        for _ in 0..4 {
            if let Err(error) = lane.rebuild(|_, _| {}).await {
                self.story.fail(format!("rebuild: {error}"));
                return;
            }
            if lane.copies().segments_short == 0 {
                return;
            }
            self.env.sleep_until(self.env.now().plus(Duration::from_millis(50))).await;
        }
        self.story.fail(format!("not all copies were made: {:?}", lane.copies()));
    }

    async fn live(self) {
        let world = &self.story.world;
        let mut lane = world.create(&world.format().await).await;
        for host in self.story.admin.hosts() {
            let id = VolumeId(uuid::Uuid::from_u128(u128::from(host.number)));
            assert_eq!(lane.create_volume(id, host.size_bytes()).await, Ok(host.number));
        }
        for _ in 0..ROUNDS {
            let Some(next) = self.round(lane).await else { return };
            lane = next;
        }
        // Any device may go now: nothing that is needed is only there.
        drop(lane);
        let device = self.env.random_below(world.disks.len() as u64) as usize;
        world.absent.borrow_mut().insert(device);
        let Some(lane) = self.reopen(Crash::Power).await else { return };
        self.story.audit(&lane, &self.env).await;
    }
}

/// One seed.
fn run(seed: u64, devices: usize, copies: usize, marks: &mut Marks) -> Result<(), Failure> {
    let mut rng = Prng::split(seed, "replicas", 0);
    let mut profile = Profile::swarm(seed);
    profile.pool = Profile::calm().pool;
    let sim = Sim::new(seed, profile);
    let geometry = DiskGeometry {
        volatile_cache: rng.below(2) == 0,
        ..DiskGeometry::of_bytes(((120 * 64) << 10) + (64 << 10))
    };
    let mut config = tiny(seed);
    config.free_part = [64, 256][rng.below(2) as usize];
    let patient = rng.below(2) == 0;
    if patient {
        config.log.latency_floor = Duration::from_secs(1000);
        config.log.answer_max = Duration::from_secs(1000);
    }
    let control = sim.control();
    let mut world = World::with_disks(&control, config, &vec![geometry; devices]);
    world.copies = copies;
    let hosts = vec![Host::new(&world, 1, 512, 8 * 30), Host::new(&world, 2, 4096, 40)];
    for host in &hosts {
        host.first_writer.set(u32::from(host.number == 2) * 16);
        host.tolerance.set(Tolerance { full: true, ..Tolerance::default() });
    }
    world.next_writer.set(32);
    let books = Books {
        hosts,
        kept: Vec::new(),
        mirror: None,
        next_id: 1000,
        pending: Pending::None,
        may_fill: true,
        may_fail: false,
        snapshots_max: 3,
        resizes: false,
    };
    let admin = Admin { world: world.clone(), books: Rc::new(RefCell::new(books)) };
    let story = Story { world, admin, steps: 10 };
    let chaos = control.node("chaos", 1);
    control.goal_on(chaos, 0, |env| Run { patient, story, env }.live());
    sim.run()?;
    marks.merge(control.marks());
    Ok(())
}

fn all(devices: usize, copies: usize) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("ASHLAR_FIRST_SEED").unwrap_or(0);
    let count = number("ASHLAR_SEEDS").unwrap_or(8);
    let mut marks = Marks::default();
    for seed in first..first + count {
        run(seed, devices, copies, &mut marks).unwrap_or_else(|failure| panic!("{failure}"));
    }
    if count >= 8 {
        assert_eq!(marks.missing(&["a device was away", "copies were made again"]), [""; 0]);
    }
}

#[test]
fn two_copies_on_two_devices() {
    all(2, 2);
}

#[test]
fn two_copies_on_three_devices() {
    all(3, 2);
}

#[test]
fn three_copies_on_three_devices() {
    all(3, 3);
}
