//! The rules of volumes and snapshots, without faults.

use std::future::Future;

use ashlar_engine::lane::LaneError;
use ashlar_env::disk::{Disk, Durability};
use ashlar_env::units::{ByteRange, VolumeId};
use ashlar_env::{Buf, BufPool, buf::PoolPlan};
use ashlar_sim::{Crash, DiskGeometry, Profile, Sim};

use super::world::{SimLane, World, tiny};

pub fn id(number: u128) -> VolumeId {
    VolumeId(uuid::Uuid::from_u128(number))
}

pub fn run<F: Future<Output = ()> + 'static>(body: impl FnOnce(World) -> F) {
    let sim = Sim::new(7, Profile::calm());
    let control = sim.control();
    let mut world = World::new(&control, tiny(7), DiskGeometry::of_bytes(8 << 20));
    world.slot_bytes = 128 << 10;
    let node = world.node;
    control.goal_on(node, 0, |_| body(world));
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

/// The same from another node, so that this one can crash.
pub fn run_beside<F: Future<Output = ()> + 'static>(body: impl FnOnce(World) -> F) {
    let sim = Sim::new(7, Profile::calm());
    let control = sim.control();
    let mut world = World::new(&control, tiny(7), DiskGeometry::of_bytes(8 << 20));
    world.slot_bytes = 128 << 10;
    let chaos = control.node("chaos", 1);
    control.goal_on(chaos, 0, |_| body(world));
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

fn pool() -> BufPool {
    BufPool::on_heap(PoolPlan::for_bytes(4 << 20))
}

pub fn filled(len: usize, with: u8) -> Buf {
    let mut buf = pool().try_alloc(len).unwrap();
    for (at, byte) in buf.iter_mut().enumerate() {
        *byte = with ^ (at / 512) as u8;
    }
    buf.freeze()
}

pub async fn write(lane: &SimLane, volume: u32, start: u64, len: usize, with: u8) {
    lane.disk(volume, 512).write(start, filled(len, with), Durability::Fua).await.unwrap();
}

pub async fn read(lane: &SimLane, volume: u32, start: u64, len: usize) -> Vec<u8> {
    let buf = pool().try_alloc(len).unwrap();
    lane.disk(volume, 512).read(start, buf).await.unwrap().to_vec()
}

#[test]
fn what_is_written_is_read_across_blocks_and_leaves() {
    run(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 1 << 20).await.unwrap();
        assert!(read(&lane, volume, 0, 64 << 10).await.iter().all(|byte| *byte == 0));
        write(&lane, volume, 512, 7 * 512, 1).await;
        write(&lane, volume, 3 * 4096 + 1024, 40 << 10, 2).await;
        assert_eq!(read(&lane, volume, 512, 7 * 512).await, &filled(7 * 512, 1)[..]);
        assert_eq!(read(&lane, volume, 3 * 4096 + 1024, 40 << 10).await, &filled(40 << 10, 2)[..]);
        assert!(read(&lane, volume, 0, 512).await.iter().all(|byte| *byte == 0));
        assert!(
            lane.disk(volume, 512).write((1 << 20) - 512, filled(1024, 1), Durability::Fua).await.is_err()
        );
    });
}

#[test]
fn snapshots_clones_and_restore() {
    run(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 1 << 20).await.unwrap();
        write(&lane, volume, 0, 64 << 10, 1).await;
        let first = lane.snapshot().await.unwrap();
        write(&lane, volume, 0, 8 << 10, 2).await;
        lane.disk(volume, 512).discard(ByteRange { start: 32 << 10, len: 4096 }).await.unwrap();
        let second = lane.snapshot().await.unwrap();
        assert_eq!(lane.diff(volume, first, Some(second)).await.unwrap(), vec![(0, 2), (8, 1)]);
        assert_eq!(lane.diff(volume, second, None).await.unwrap(), vec![]);

        let clone = lane.clone_volume(id(2), first, volume).await.unwrap();
        assert_eq!(read(&lane, clone, 0, 64 << 10).await, &filled(64 << 10, 1)[..]);
        write(&lane, clone, 4096, 4096, 3).await;
        assert_eq!(read(&lane, volume, 4096, 4096).await, &filled(8192, 2)[4096..]);
        assert!(matches!(lane.delete_snapshot(first).await, Err(LaneError::InUse(_))));
        assert!(matches!(lane.restore(first).await, Err(LaneError::InUse(_))));

        write(&lane, volume, 0, 64 << 10, 4).await;
        lane.restore(second).await.unwrap();
        assert_eq!(read(&lane, volume, 0, 8 << 10).await, &filled(8 << 10, 2)[..]);
        assert!(read(&lane, volume, 32 << 10, 4096).await.iter().all(|byte| *byte == 0));
        assert!(lane.check().await.unwrap().is_sound());

        lane.delete_volume(clone).await.unwrap();
        lane.delete_snapshot(first).await.unwrap();
        lane.delete_snapshot(second).await.unwrap();
        let report = lane.check().await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!(report.blocks, 15);
        assert!(matches!(lane.delete_snapshot(second).await, Err(LaneError::NoSnapshot)));
    });
}

#[test]
fn what_was_written_has_space_and_the_rest_has_none() {
    run(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 1 << 40).await.unwrap();
        write(&lane, volume, 8192, 8192, 1).await;
        write(&lane, volume, (1 << 30) + 512, 512, 2).await;
        lane.disk(volume, 512).discard(ByteRange { start: 12 << 10, len: 4096 }).await.unwrap();
        let extents = async |lane: &SimLane, start, len| {
            let all = lane.disk(volume, 512).allocation(ByteRange { start, len }).await.unwrap();
            all.iter().map(|it| (it.range.start, it.range.len, it.allocated)).collect::<Vec<_>>()
        };
        let want = [
            (1024, 7168, false),
            (8192, 4096, true),
            (12288, (1 << 30) - 12288, false),
            (1 << 30, 4096, true),
            ((1 << 30) + 4096, (1 << 40) - (1 << 30) - 4096, false),
        ];
        assert_eq!(extents(&lane, 1024, (1 << 40) - 1024).await, want);
        assert_eq!(extents(&lane, 8704, 512).await, [(8704, 512, true)]);
        for at in 0..300 {
            write(&lane, volume, (2 << 30) + at * 8192, 4096, 3).await;
        }
        let many = extents(&lane, 2 << 30, 1 << 30).await;
        assert_eq!(many.len(), ashlar_env::volume::EXTENTS_MAX);
        assert!(many.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0 && pair[0].2 != pair[1].2));
        assert!(lane.disk(volume, 512).allocation(ByteRange { start: 1 << 40, len: 512 }).await.is_err());
    });
}

#[test]
fn space_comes_back() {
    run(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 4 << 20).await.unwrap();
        for round in 0..12u8 {
            for start in (0..2u64 << 20).step_by(64 << 10) {
                write(&lane, volume, start, 64 << 10, round).await;
            }
        }
        let full = lane.check().await.unwrap();
        assert!(full.is_sound() && full.blocks == 512, "{full:?}");
        lane.disk(volume, 512).discard(ByteRange { start: 0, len: 4 << 20 }).await.unwrap();
        let empty = lane.check().await.unwrap();
        assert!(empty.is_sound() && empty.blocks == 0, "{empty:?}");
        let report = lane.report();
        assert_eq!((report.volumes[0].mapped_bytes, report.volumes[0].stored_bytes), (0, 0));
        assert!(report.live_bytes < 8192 && report.physical_bytes < 1 << 20, "{report:?}");
    });
}

#[test]
fn volumes_grow_and_shrink() {
    run(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 64 << 10).await.unwrap();
        write(&lane, volume, 0, 64 << 10, 1).await;
        lane.resize_volume(volume, 2 << 20).await.unwrap();
        write(&lane, volume, 1 << 20, 4096, 2).await;
        assert_eq!(read(&lane, volume, 0, 64 << 10).await, &filled(64 << 10, 1)[..]);
        lane.resize_volume(volume, 4096 + 512).await.unwrap();
        lane.resize_volume(volume, 64 << 10).await.unwrap();
        let bytes = read(&lane, volume, 0, 64 << 10).await;
        assert_eq!(bytes[..4608], filled(64 << 10, 1)[..4608]);
        assert!(bytes[4608..].iter().all(|byte| *byte == 0));
        assert!(lane.check().await.unwrap().is_sound());
    });
}

#[test]
fn compressed_blocks_are_read_like_others_and_take_less() {
    run(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 1 << 20).await.unwrap();
        lane.set_compression(true).await.unwrap();
        write(&lane, volume, 0, 64 << 10, 1).await;
        write(&lane, volume, 4096 + 512, 1024, 9).await;
        let mut expected = filled(64 << 10, 1).to_vec();
        expected[4608..5632].copy_from_slice(&filled(1024, 9));
        assert_eq!(read(&lane, volume, 0, 64 << 10).await, expected);
        let report = lane.check().await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        let space = lane.report().volumes[0];
        assert_eq!(space.mapped_bytes, 64 << 10);
        assert!(space.stored_bytes < 16 << 10, "{space:?}");
    });
}

#[test]
fn a_rotten_description_of_pages_keeps_nothing_from_being_read() {
    run_beside(|world| async move {
        let lane = world.create(&world.format().await).await;
        let volume = lane.create_volume(id(1), 1 << 20).await.unwrap();
        write(&lane, volume, 0, 32 << 10, 5).await;
        lane.close().await.unwrap();
        drop(lane);
        world.control.crash(world.node, Crash::Process);
        world.control.restart(world.node);
        // The head of the last batch of pages, in the segment that was open.
        let disk = world.disks[0];
        let image = world.control.image(disk);
        let bytes = image.read(0, 8 << 20);
        let magic = |at: &usize| bytes[*at..].starts_with(b"ASHLbat\n");
        let at = (0..bytes.len()).step_by(512).rfind(magic).expect("pages were written");
        let sector = pool().try_alloc(512).unwrap();
        let handle = world.env().open_disk(disk);
        let mut sector = handle.read(at as u64, sector).await.unwrap();
        sector[40] ^= 1;
        handle.write(at as u64, sector.freeze(), Durability::Fua).await.unwrap();
        for _ in 0..2 {
            let (lane, _) = world.open().await.unwrap();
            assert_eq!(read(&lane, volume, 0, 32 << 10).await, &filled(32 << 10, 5)[..]);
            write(&lane, volume, 64 << 10, 4096, 6).await;
            lane.close().await.unwrap();
            drop(lane);
            world.control.crash(world.node, Crash::Process);
            world.control.restart(world.node);
        }
    });
}
