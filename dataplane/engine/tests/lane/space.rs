//! Space: what is told of volumes and snapshots is what comes back, and maps keep to their memory.

use std::future::Future;

use ashlar_engine::lane::LaneConfig;
use ashlar_engine::map::Shape;
use ashlar_env::Rng;
use ashlar_env::units::ByteRange;
use ashlar_sim::{DiskGeometry, Profile, Sim};

use super::rules::{filled, id, read, run, write};
use super::world::{SimLane, World, tiny};

const KIB: u64 = 1 << 10;

/// What lives in the lane once nothing is half let go of, in bytes.
async fn live(lane: &SimLane) -> u64 {
    let report = lane.check().await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    lane.report().live_bytes
}

/// Holds what came back against what was to: pages of maps come and go beside it.
fn about(got: u64, expected: u64) {
    assert!(got.abs_diff(expected) <= 6 * KIB, "{got} is not about {expected}");
}

#[test]
fn what_a_volume_or_snapshot_alone_holds_comes_back() {
    run(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 1 << 20).await.unwrap();
        let other = lane.create_volume(id(2), 1 << 20).await.unwrap();
        write(&lane, volume, 0, 64 << 10, 1).await;
        assert_eq!(lane.exclusive_bytes_of(volume).await.unwrap(), 64 * KIB);
        let snapshot = lane.snapshot().await.unwrap();
        assert_eq!(lane.exclusive_bytes_of(volume).await.unwrap(), 0);
        write(&lane, volume, 0, 16 << 10, 2).await;
        write(&lane, other, 0, 32 << 10, 3).await;
        let clone = lane.clone_volume(id(3), snapshot, volume).await.unwrap();
        write(&lane, clone, 32 * KIB, 8 << 10, 4).await;
        // Copies hold what the other volume holds: neither alone, but for what only the copies hold.
        lane.copy(other, &[ByteRange { start: 0, len: 16 * KIB }], volume, 512 * KIB).await.unwrap();
        lane.copy(volume, &[ByteRange { start: 0, len: 8 * KIB }], volume, 640 * KIB).await.unwrap();
        live(&lane).await;
        assert_eq!(lane.exclusive_bytes_of(volume).await.unwrap(), 16 * KIB);
        assert_eq!(lane.exclusive_bytes_of(other).await.unwrap(), 16 * KIB);
        assert_eq!(lane.exclusive_bytes_of(clone).await.unwrap(), 8 * KIB);
        assert_eq!(lane.exclusive_bytes(snapshot).await.unwrap(), 16 * KIB);
        // All of it: three that are held once, the copied 16 KiB, and what the snapshot shares with volume and clone.
        let all = live(&lane).await;
        let held = (16 + 16 + 8 + 16 + 16 + 48) * KIB;
        assert!((held..held + 16 * KIB).contains(&all), "{all}");

        for (gone, alone) in [(clone, 8 * KIB), (other, 16 * KIB)] {
            let before = live(&lane).await;
            lane.delete_volume(gone).await.unwrap();
            about(before - live(&lane).await, alone);
        }
        // With the other volume gone the copies are all that holds what it wrote first.
        assert_eq!(lane.exclusive_bytes_of(volume).await.unwrap(), 32 * KIB);
        let before = live(&lane).await;
        lane.delete_snapshot(snapshot).await.unwrap();
        about(before - live(&lane).await, 16 * KIB);
        assert_eq!(lane.exclusive_bytes_of(volume).await.unwrap(), 80 * KIB);
        let before = live(&lane).await;
        lane.delete_volume(volume).await.unwrap();
        about(before - live(&lane).await, 80 * KIB);
        assert!(live(&lane).await < 4 * KIB);
    });
}

fn run_large<F: Future<Output = ()> + 'static>(config: LaneConfig, body: impl FnOnce(World) -> F) {
    let sim = Sim::new(7, Profile::calm());
    let control = sim.control();
    let mut world = World::new(&control, config, DiskGeometry::of_bytes(192 << 20));
    world.slot_bytes = 2 << 20;
    let node = world.node;
    control.goal_on(node, 0, |_| body(world));
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_map_of_ten_tebibytes_keeps_to_its_memory() {
    let config = LaneConfig {
        shape: Shape::DEFAULT,
        leaves_max: 64,
        checkpoint_bytes: 512 << 10,
        checkpoint_bytes_max: 1 << 20,
        batch_bytes: 512 << 10,
        ..tiny(7)
    };
    run_large(config, move |world| async move {
        let lane = world.create(&world.format().await).await;
        let size = 10_u64 << 40;
        let volume = lane.create_volume(id(1), size).await.unwrap();
        let env = world.env();
        // Leaves that are not saved cannot be given back: what is logged between two checkpoints bounds them.
        let unsaved_max = (config.checkpoint_bytes_max / 4096) as usize;
        let (mut starts, mut most) = (Vec::new(), 0);
        for round in 0..1200 {
            let start = env.random_below(size >> 12) << 12;
            write(&lane, volume, start, 4096, round as u8).await;
            starts.push((start, round as u8));
            if round % 16 == 0 {
                let memory = lane.map_memory();
                most = most.max(memory.leaves);
                let leaves_bound = config.leaves_max * 5 / 4 + unsaved_max;
                assert!(memory.leaves <= leaves_bound, "{memory:?}");
                // 8 KiB a leaf, and what leads to them: never more than a node for each GiB.
                assert!(memory.inner <= (size >> 30) as usize + 21, "{memory:?}");
                assert!(memory.bytes <= memory.leaves * (8 << 10) + memory.inner * (16 << 10), "{memory:?}");
            }
        }
        // More leaves than may stay have been written, and all can be read.
        assert!(most < starts.len() / 2, "{most}");
        for (start, with) in starts.into_iter().step_by(40) {
            assert_eq!(read(&lane, volume, start, 4096).await, &filled(4096, with)[..]);
        }
        let memory = lane.map_memory();
        assert!(memory.leaves <= config.leaves_max * 5 / 4 + unsaved_max, "{memory:?}");
        println!("{most} leaves at most, {memory:?}");
    });
}
