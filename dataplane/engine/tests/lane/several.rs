//! Several lanes on one store: each finds what is its own after crashes, one takes no space for ever that another gave
//! back, and what is deleted of one leaves the others alone.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::chunks::Chunks;
use ashlar_engine::ids::{GroupId, LaneId};
use ashlar_engine::lane::Lane;
use ashlar_env::units::VolumeId;
use ashlar_env::{Clock, Rng};
use ashlar_sim::{Crash, DiskGeometry, Profile, Sim, SimEnv};

use super::host::{Host, Tolerance};
use super::world::{SimLane, World, tiny};

const LANES: u16 = 3;

/// Two of one group, and one of another.
fn lane_id(at: u16) -> LaneId {
    LaneId { group: GroupId(0x70 + u64::from(at / 2)), lane: at % 2 }
}

/// Until it is done, or for so long.
async fn work(world: &World, env: &SimEnv, pairs: &[(SimLane, Host)], time: Duration) {
    let busy = Rc::new(Cell::new(0));
    for (lane, host) in pairs {
        for writer in 0..2 {
            busy.set(busy.get() + 1);
            let (host, lane, busy) = (host.clone(), lane.clone(), Rc::clone(&busy));
            world.control.spawn_on(world.node, 0, move |_| async move {
                for _ in 0..15 {
                    host.step(&lane, writer).await;
                }
                busy.set(busy.get() - 1);
            });
        }
    }
    let end = env.now().plus(time);
    while busy.get() > 0 && env.now() < end {
        env.sleep_until(env.now().plus(Duration::from_micros(500))).await;
    }
}

async fn audit(world: &World, pairs: &[(SimLane, Host)]) {
    for (lane, host) in pairs {
        host.read_all(lane).await;
        match lane.check().await {
            Ok(report) if report.is_sound() => {}
            other => world.control.fail("lane", format!("{:?}", other.map(|report| report.damaged))),
        }
    }
}

async fn live(world: World, env: SimEnv) {
    let stores = world.format().await;
    let mut pairs = Vec::new();
    for at in 0..LANES {
        let lane = world.create_lane(&stores, lane_id(at)).await;
        let host = Host::new(&world, 1, 4096, 30);
        host.first_writer.set(16 * u32::from(at));
        host.tolerance.set(Tolerance { full: true, ..Tolerance::default() });
        let id = VolumeId(uuid::Uuid::from_u128(1 + u128::from(at)));
        assert_eq!(lane.create_volume(id, host.size_bytes()).await, Ok(1));
        pairs.push((lane, host));
    }
    let mut last = stores;
    for _ in 0..3 {
        let time = Duration::from_micros(env.random_below(60_000));
        work(&world, &env, &pairs, time).await;
        last.clear();
        let hosts: Vec<Host> = pairs.drain(..).map(|(_, host)| host).collect();
        world.restart(if env.random_below(2) == 0 { Crash::Power } else { Crash::Process });
        let stores = world.stores().await;
        for (at, host) in (0..).zip(hosts) {
            host.ledger.borrow_mut().power_failed();
            host.active.set(0);
            let opened = Lane::open(world.env(), stores.clone(), lane_id(at), world.config).await;
            match opened {
                Ok((lane, _)) => pairs.push((lane, host)),
                Err(error) => world.control.fail("lane", format!("open: {error}")),
            }
        }
        audit(&world, &pairs).await;
        last = stores;
    }
    // The second of the first group goes; the first of it and the other group stay.
    let (gone, _) = pairs.remove(1);
    gone.abandon().await;
    drop(gone);
    let store = last.first().expect("it was opened").clone();
    Lane::<SimEnv, _>::discard(vec![store.clone()], lane_id(1)).await.expect("the disk is well");
    let left = |lane: LaneId| store.list(None).iter().filter(|stat| stat.id.lane == lane).count();
    assert!(left(lane_id(1)) == 0 && left(lane_id(0)) > 0 && left(lane_id(2)) > 0);
    work(&world, &env, &pairs, Duration::from_secs(600)).await;
    audit(&world, &pairs).await;
}

#[test]
fn lanes_share_a_store_and_nothing_else() {
    for seed in 0..12 {
        let mut profile = Profile::swarm(seed);
        profile.pool = Profile::calm().pool;
        let sim = Sim::new(seed, profile);
        let control = sim.control();
        let geometry = DiskGeometry::of_bytes(((160 * 64) << 10) + (64 << 10));
        let world = World::new(&control, tiny(seed), geometry);
        let chaos = control.node("chaos", 1);
        control.goal_on(chaos, 0, |env| live(world, env));
        sim.run().unwrap_or_else(|failure| panic!("{failure}"));
    }
}
