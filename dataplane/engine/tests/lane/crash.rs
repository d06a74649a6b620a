//! A fixed script, crashed at every operation of the disk, and failed at every one: what was acknowledged is there, and
//! everything else is as before or as after.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::Clock;
use ashlar_env::units::VolumeId;
use ashlar_sim::{Crash, DiskGeometry, Profile, Sim, SimEnv};

use super::acts::{Admin, Books, Pending};
use super::disk::Blow;
use super::host::{Host, Tolerance};
use super::random::Story;
use super::world::{SimLane, World, tiny};

/// The script has more operations than this.
const OPERATIONS_MIN: u64 = 60;

/// Writes in pieces that fit a record of these small segments.
async fn write(host: &Host, lane: &SimLane, writer: u32, first: u64, count: u64) {
    for at in (first..first + count).step_by(4) {
        host.write(lane, writer, at, 4.min(first + count - at)).await;
    }
}

/// Everything once: write, snapshot, overwrite, unmap, checkpoint, compaction, delete of a snapshot.
async fn script(admin: Admin, lane: SimLane, done: Rc<Cell<bool>>) {
    let hosts = admin.hosts();
    for first in [0, 8, 16, 24] {
        write(&hosts[0], &lane, 0, first, 8).await;
    }
    write(&hosts[1], &lane, 0, 3, 5).await;
    admin.snapshot(&lane).await;
    write(&hosts[0], &lane, 1, 4, 12).await;
    hosts[0].clear(&lane, 20, 6, true).await;
    write(&hosts[1], &lane, 1, 0, 12).await;
    // Two checkpoints, with compaction of what is old: the configuration calls it due all the time.
    let _ = lane.roll().await;
    write(&hosts[0], &lane, 2, 0, 24).await;
    admin.snapshot(&lane).await;
    hosts[0].clear(&lane, 0, 3, false).await;
    write(&hosts[1], &lane, 2, 5, 7).await;
    admin.forget_first(&lane).await;
    let _ = lane.roll().await;
    write(&hosts[0], &lane, 3, 9, 5).await;
    let _ = lane.close().await;
    done.set(true);
}

struct Outcome {
    issued: u64,
    compacted: bool,
    let_go: bool,
}

/// The script until the blow, if it comes, and what is found afterwards.
fn run(blow: Option<(u64, Blow)>) -> Outcome {
    let sim = Sim::new(11, Profile::calm());
    let control = sim.control();
    let geometry =
        DiskGeometry { volatile_cache: true, ..DiskGeometry::of_bytes(((64 * 32) << 10) + (64 << 10)) };
    let mut config = tiny(2);
    config.free_part = 256;
    let mut world = World::new(&control, config, geometry);
    world.slot_bytes = 32 << 10;
    let hosts = vec![Host::new(&world, 1, 4096, 40), Host::new(&world, 2, 4096, 20)];
    for host in &hosts {
        host.first_writer.set(u32::from(host.number == 2) * 16);
        host.tolerance.set(Tolerance { faults: blow.is_some(), ..Tolerance::default() });
    }
    world.next_writer.set(32);
    let books = Books {
        hosts,
        kept: Vec::new(),
        next_id: 1000,
        pending: Pending::None,
        may_fill: false,
        may_fail: matches!(blow, Some((_, Blow::Fail { .. }))),
        snapshots_max: 4,
        resizes: false,
        mirror: None,
    };
    let admin = Admin { world: world.clone(), books: Rc::new(RefCell::new(books)) };
    let story = Story { world, admin, steps: 0 };
    let outcome = Rc::new(RefCell::new(None));
    let (chaos, told) = (control.node("chaos", 1), Rc::clone(&outcome));
    control.goal_on(chaos, 0, |env| async move {
        *told.borrow_mut() = Some(live(story, env, blow).await);
    });
    sim.run().unwrap_or_else(|failure| panic!("{blow:?}: {failure}"));
    let outcome = outcome.take();
    outcome.expect("the goal was reached")
}

async fn live(story: Story, env: SimEnv, blow: Option<(u64, Blow)>) -> Outcome {
    let (world, admin) = (story.world.clone(), story.admin.clone());
    let lane = world.create(&world.format().await).await;
    for host in admin.hosts() {
        let id = VolumeId(uuid::Uuid::from_u128(u128::from(host.number)));
        let made = lane.create_volume(id, host.size_bytes()).await;
        assert_eq!(made, Ok(host.number));
    }
    world.fate.issued.set(0);
    world.fate.blow.set(blow);
    let done = Rc::new(Cell::new(false));
    let (acts, on, end) = (admin.clone(), lane.clone(), Rc::clone(&done));
    world.control.spawn_on(world.node, 0, |_| script(acts, on, end));
    let late = env.now().plus(Duration::from_secs(600));
    while !done.get() && world.control.is_up(world.node) {
        if env.now() > late {
            story.fail(format!("the script does not end: {:?}", lane.report()));
            break;
        }
        env.sleep_until(env.now().plus(Duration::from_micros(200))).await;
    }
    let issued = world.fate.issued.get();
    let activity = lane.activity();
    drop(lane);
    for trouble in [Crash::Power, Crash::Process] {
        world.restart(trouble);
        for host in admin.hosts() {
            host.ledger.borrow_mut().power_failed();
            host.tolerance.set(Tolerance::default());
        }
        admin.books.borrow_mut().may_fail = false;
        let Some(lane) = story.open().await else { break };
        admin.reconcile(&lane).await;
        story.audit(&lane, &env).await;
        // It goes on.
        for host in admin.hosts() {
            write(&host, &lane, 5, 1, 9).await;
        }
        story.audit(&lane, &env).await;
    }
    Outcome { issued, compacted: activity.moved > 0, let_go: activity.departed > 0 }
}

/// One in nine operations is tried, other ones in each of the tests; all of them with `ASHLAR_EVERY=1`.
fn tried(whole: u64, phase: u64) -> impl Iterator<Item = u64> {
    let every = std::env::var("ASHLAR_EVERY").ok().and_then(|value| value.parse().ok());
    let stride: u64 = every.unwrap_or(9);
    (1 + phase % stride..=whole).step_by(stride as usize)
}

#[test]
fn a_crash_at_every_operation_loses_nothing() {
    let whole = run(None);
    assert!(whole.issued > OPERATIONS_MIN, "the script is {} operations", whole.issued);
    assert!(whole.compacted && whole.let_go, "the script does not do what it should");
    for k in tried(whole.issued, 0) {
        let how = if k % 3 == 0 { Crash::Process } else { Crash::Power };
        run(Some((k, Blow::Crash(how))));
    }
}

#[test]
fn a_failure_at_every_operation_loses_nothing() {
    let whole = run(None);
    for k in tried(whole.issued, 4) {
        run(Some((k, Blow::Fail { done: k % 2 == 0 })));
    }
}
