//! The conformance suite on the simulator, over many seeds.

use std::time::Duration;

use ashlar_sim::conformance::{buffers, clock, disk, mesh, net, spawn};
use ashlar_sim::{DiskGeometry, Prng, Profile, Rate, Sim};

/// A swarm without what the suite must not meet: failures.
fn gentle(seed: u64) -> Profile {
    let mut profile = Profile::swarm(seed);
    profile.net.reset = Rate::NEVER;
    profile.net.refuse = Rate::NEVER;
    profile.net.loss = Rate::NEVER;
    profile.net.stall = Rate::NEVER;
    profile.net.delay_mean = profile.net.delay_mean.min(Duration::from_micros(500));
    profile.net.window_bytes = profile.net.window_bytes.max(2000);
    profile.net.backlog = profile.net.backlog.max(8);
    profile.disk.slow = Rate::NEVER;
    profile
}

fn run(sim: &Sim) {
    if let Err(failure) = sim.run() {
        panic!("{failure}");
    }
}

#[test]
fn clock_spawn_and_buffers() {
    for seed in 0..100 {
        let sim = Sim::new(seed, gentle(seed));
        let node = sim.node("node", 1);
        sim.goal_on(node, 0, |env| async move {
            clock::all(env.clone()).await;
            spawn::all(env.clone()).await;
            buffers::all(env).await;
        });
        run(&sim);
        assert_eq!(sim.task_count(node), 0);
    }
}

#[test]
fn network() {
    for seed in 0..20 {
        let sim = Sim::new(seed, gentle(seed));
        let node = sim.node("node", 1);
        let address = if seed % 2 == 0 { ([127, 0, 0, 1], 0).into() } else { (node.ip(3), 0).into() };
        sim.goal_on(node, 0, move |env| net::all(env, address));
        run(&sim);
        assert_eq!(sim.connection_count(node), 0, "seed {seed}: connections were left over");
    }
}

#[test]
fn disks() {
    for seed in 0..8 {
        let sim = Sim::new(seed, gentle(seed));
        let node = sim.node("node", 1);
        let mut rng = Prng::split(seed, "geometry", 0);
        let mut geometry = DiskGeometry::of_bytes(disk::BYTES_MIN);
        geometry.block_bytes = 512 << (3 * rng.below(2));
        geometry.volatile_cache = rng.below(2) == 0;
        geometry.discard_zeroes = rng.below(2) == 0;
        let id = sim.disk("disk", geometry);
        sim.goal_on(node, 0, move |env| async move {
            disk::all(env.clone(), env.open_disk(id)).await;
            disk::resizes(env.clone(), env.open_disk(id)).await;
        });
        run(&sim);
    }
}

#[test]
fn links() {
    for seed in 0..20 {
        let sim = Sim::new(seed, gentle(seed));
        let reactors = 1 + (seed % 3) as u16;
        let node = sim.node("node", reactors);
        for (reactor, end) in sim.mesh::<u64>(node).into_iter().enumerate() {
            sim.goal_on(node, reactor as u16, |env| async move {
                mesh::participate(env, end).await;
            });
        }
        let alone = sim.node("alone", 1);
        let end = sim.mesh::<u64>(alone).remove(0);
        sim.goal_on(alone, 0, |_| mesh::links_are_bounded(end));
        run(&sim);
    }
}
