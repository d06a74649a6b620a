//! Copies within a lane: they refer to what their sources hold, and nobody can tell.

use ashlar_engine::lane::LaneError;
use ashlar_env::disk::Disk;
use ashlar_env::units::ByteRange;
use ashlar_sim::Crash;

use super::rules::{filled, id, read, run, run_beside, write};
use super::world::{SimLane, World};

const KIB: u64 = 1 << 10;

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange { start, len }
}

async fn sound(lane: &SimLane) {
    let report = lane.check().await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

async fn restarted(world: &World, lane: SimLane) -> SimLane {
    drop(lane);
    world.control.crash(world.node, Crash::Power);
    world.control.restart(world.node);
    world.open().await.unwrap().0
}

#[test]
fn a_copy_takes_no_space_and_outlives_its_source() {
    run_beside(|world| async move {
        let lane = world.create(&world.format().await).await;
        let from = lane.create_volume(id(1), 1 << 20).await.unwrap();
        let to = lane.create_volume(id(2), 1 << 20).await.unwrap();
        write(&lane, from, 0, 64 << 10, 1).await;
        sound(&lane).await;
        let before = lane.report().live_bytes;
        lane.copy(from, &[range(0, 64 * KIB)], to, 128 * KIB).await.unwrap();
        lane.copy(to, &[range(128 * KIB, 32 * KIB)], to, 512 * KIB).await.unwrap();
        sound(&lane).await;
        // Pages of the target's map came, no data.
        assert!(lane.report().live_bytes < before + 16 * KIB, "{} {before}", lane.report().live_bytes);
        assert_eq!(lane.activity().references, 2);

        // The source goes: first its blocks, then the volume itself.
        write(&lane, from, 0, 32 << 10, 9).await;
        lane.delete_volume(from).await.unwrap();
        sound(&lane).await;
        assert_eq!(read(&lane, to, 128 * KIB, 64 << 10).await, &filled(64 << 10, 1)[..]);
        let lane = restarted(&world, lane).await;
        sound(&lane).await;
        assert_eq!(read(&lane, to, 512 * KIB, 32 << 10).await, &filled(32 << 10, 1)[..]);

        // The last copy goes, and the space with it.
        lane.disk(to, 512).discard(range(0, 1 << 20)).await.unwrap();
        sound(&lane).await;
        assert!(lane.report().live_bytes < 8 * KIB, "{}", lane.report().live_bytes);
    });
}

#[test]
fn copies_are_found_after_a_crash_before_any_checkpoint() {
    run_beside(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 1 << 20).await.unwrap();
        write(&lane, volume, 0, 16 << 10, 1).await;
        lane.disk(volume, 512).copy(range(0, 16 * KIB), 64 * KIB).await.unwrap();
        write(&lane, volume, 0, 16 << 10, 2).await;
        let lane = restarted(&world, lane).await;
        assert_eq!(lane.activity().replayed[4], 1);
        assert_eq!(read(&lane, volume, 64 * KIB, 16 << 10).await, &filled(16 << 10, 1)[..]);
        assert_eq!(read(&lane, volume, 0, 16 << 10).await, &filled(16 << 10, 2)[..]);
        sound(&lane).await;
    });
}

#[test]
fn snapshots_and_clones_hold_copies_like_anything_else() {
    run(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 1 << 20).await.unwrap();
        write(&lane, volume, 0, 32 << 10, 1).await;
        lane.copy(volume, &[range(0, 32 * KIB)], volume, 64 * KIB).await.unwrap();
        let first = lane.snapshot().await.unwrap();
        // What the snapshot holds as written and as a copy is copied back over what is new.
        write(&lane, volume, 0, 32 << 10, 2).await;
        let clone = lane.clone_volume(id(2), first, volume).await.unwrap();
        lane.copy(clone, &[range(64 * KIB, 16 * KIB)], volume, 0).await.unwrap();
        lane.copy(volume, &[range(16 * KIB, 16 * KIB)], clone, 64 * KIB).await.unwrap();
        let second = lane.snapshot().await.unwrap();
        sound(&lane).await;
        let mut expected = filled(32 << 10, 2).to_vec();
        expected[..16 << 10].copy_from_slice(&filled(16 << 10, 1));
        assert_eq!(read(&lane, volume, 0, 32 << 10).await, expected);
        assert_eq!(read(&lane, clone, 64 * KIB, 16 << 10).await, &filled(32 << 10, 2)[16 << 10..]);

        lane.delete_volume(clone).await.unwrap();
        lane.delete_snapshot(first)
            .await
            .unwrap_or_else(|error| assert!(matches!(error, LaneError::InUse(_))));
        write(&lane, volume, 64 * KIB, 32 << 10, 3).await;
        sound(&lane).await;
        lane.restore(second).await.unwrap();
        sound(&lane).await;
        assert_eq!(read(&lane, volume, 0, 32 << 10).await, expected);
        assert_eq!(read(&lane, volume, 64 * KIB, 32 << 10).await, &filled(32 << 10, 1)[..]);
        lane.delete_snapshot(second).await.unwrap();
        let _ = lane.delete_snapshot(first).await;
        lane.disk(volume, 512).discard(range(0, 1 << 20)).await.unwrap();
        sound(&lane).await;
        assert!(lane.report().live_bytes < 8 * KIB, "{}", lane.report().live_bytes);
    });
}

#[test]
fn edges_and_shifted_ranges_are_copied_as_data() {
    run(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 1 << 20).await.unwrap();
        write(&lane, volume, 0, 64 << 10, 5).await;
        write(&lane, volume, 256 * KIB, 64 << 10, 7).await;
        let copied = |start: usize, len: usize| filled(64 << 10, 5)[start..start + len].to_vec();
        for (start, len, at) in
            [(512, 9 * 4096, 256 * KIB + 512), (1024, 4096, 400 * KIB), (512, 512, 500 * KIB + 512)]
        {
            let outside = read(&lane, volume, at - 512, 512).await;
            lane.copy(volume, &[range(start, len)], volume, at).await.unwrap();
            assert_eq!(read(&lane, volume, at, len as usize).await, copied(start as usize, len as usize));
            assert_eq!(read(&lane, volume, at - 512, 512).await, outside);
        }
        // Several sources, one after the other.
        let sources = [range(4096, 8192), range(0, 512), range(20 * KIB, 4096)];
        lane.copy(volume, &sources, volume, 600 * KIB).await.unwrap();
        let mut expected = copied(4096, 8192);
        expected.extend(copied(0, 512));
        expected.extend(copied(20 << 10, 4096));
        assert_eq!(read(&lane, volume, 600 * KIB, expected.len()).await, expected);
        // Beyond the end, and onto itself.
        for (start, at) in [(1016 * KIB, 0), (0, 1016 * KIB), (0, 8 * KIB), (8 * KIB, 0)] {
            let refused = lane.copy(volume, &[range(start, 16 * KIB)], volume, at).await;
            assert!(matches!(refused, Err(LaneError::OutOfRange)), "{refused:?}");
        }
        sound(&lane).await;
    });
}

#[test]
fn beyond_the_bound_data_are_copied() {
    run(|mut world| async move {
        world.config.shared_blocks_max = 20;
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 4 << 20).await.unwrap();
        write(&lane, volume, 0, 64 << 10, 1).await;
        for at in 1..6 {
            lane.copy(volume, &[range(0, 64 * KIB)], volume, at * 64 * KIB).await.unwrap();
        }
        write(&lane, volume, 512 * KIB, 64 << 10, 2).await;
        lane.copy(volume, &[range(512 * KIB, 64 * KIB)], volume, 640 * KIB).await.unwrap();
        let activity = lane.activity();
        // The first copy takes 16 places; those after it the same, if there is room for as many again.
        assert_eq!((activity.references, activity.unreferenced), (1, 5));
        for at in 0..6 {
            assert_eq!(read(&lane, volume, at * 64 * KIB, 64 << 10).await, &filled(64 << 10, 1)[..]);
        }
        assert_eq!(read(&lane, volume, 640 * KIB, 64 << 10).await, &filled(64 << 10, 2)[..]);
        sound(&lane).await;
    });
}
