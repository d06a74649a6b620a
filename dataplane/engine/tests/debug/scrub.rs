//! Scrubbing finds what rots, names it, and finds nothing else.

use std::time::Duration;

use ashlar_engine::groups::Groups;
use ashlar_engine::lane::{LaneConfig, ScrubReport};
use ashlar_engine::store::ChunkStore;
use ashlar_env::disk::{Disk, Durability};
use ashlar_env::{Clock, Env};
use ashlar_sim::{SimDisk, SimEnv};

use crate::{CLUSTER, GROUP, World, run, volume};

type SimGroups = Groups<SimEnv, SimDisk>;

/// As fast as it goes.
const FAST: u64 = 1 << 40;

impl World {
    /// The group, recovered: what it wrote before is in sealed segments then.
    async fn groups(&self, scrub_bytes_per_second: u64) -> SimGroups {
        let config = LaneConfig { scrub_bytes_per_second, ..LaneConfig::default() };
        let groups = Groups::new(self.env.clone(), CLUSTER, config);
        groups.add(ChunkStore::open(self.env.clone(), self.open()).await.unwrap()).await.unwrap();
        groups.open(GROUP).await.unwrap();
        groups
    }

    async fn scrubbed(&self) -> ScrubReport {
        let groups = self.groups(0).await;
        let lane = groups.lane(GROUP).unwrap();
        lane.scrub(FAST).await;
        let report = lane.report().scrub;
        groups.close().await;
        report
    }
}

#[test]
fn a_whole_store_has_no_damage() {
    run(|world| async move {
        world.fill(true).await;
        let report = world.scrubbed().await;
        assert_eq!(report.damages, vec![]);
        assert_eq!((report.passes, report.segments), (1, report.segments_done), "{report:?}");
        // 80 blocks of 4 KiB, and what describes them.
        assert!(report.bytes > 80 * 4096, "{report:?}");
    });
}

#[test]
fn rot_is_found_in_one_pass_and_forgotten_when_it_is_gone() {
    run(|world| async move {
        world.fill(true).await;
        let at = world.find(100 + 30) + 77;
        world.flip(at).await;
        let groups = world.groups(0).await;
        let lane = groups.lane(GROUP).unwrap();
        lane.scrub(FAST).await;
        let report = lane.report().scrub;
        let [found] = &report.damages[..] else { panic!("{report:?}") };
        assert_eq!((found.volume, found.block), (Some(volume()), Some(30)), "{found:?}");
        world.flip(at).await;
        lane.scrub(FAST).await;
        assert_eq!(lane.report().scrub.damages, vec![]);

        // What only the snapshot holds, then what the volume and nobody holds any more.
        let (held, replaced) = (world.find(25), world.find(100 + 31));
        world.flip(held).await;
        world.flip(replaced).await;
        groups
            .disk(GROUP, volume(), 4096)
            .unwrap()
            .write(31 * 4096, world.block(3), Durability::Fua)
            .await
            .unwrap();
        lane.scrub(FAST).await;
        let report = lane.report().scrub;
        let blocks: Vec<_> = report.damages.iter().map(|found| found.block).collect();
        assert_eq!((blocks, report.passes), (vec![Some(25)], 3), "{report:?}");
        groups.close().await;
    });
}

#[test]
fn damaged_headers_and_pages_are_found() {
    run(|world| async move {
        world.fill(true).await;
        let log = world.data_start(1).await;
        let map = world.segment("map").await;
        let map = world.data_start(map).await;
        let groups = world.groups(0).await;
        let lane = groups.lane(GROUP).unwrap();
        for (at, segment_byte) in [(log + 20, 0), (map + 64 + 8, 64), (map + 12, 0)] {
            world.flip(at).await;
            lane.scrub(FAST).await;
            let report = lane.report().scrub;
            assert_eq!(report.damages.len(), 1, "{report:?}");
            assert_eq!(report.damages[0].byte, segment_byte, "{report:?}");
            world.flip(at).await;
        }
        groups.close().await;
    });
}

#[test]
fn unreadable_sectors_are_found() {
    run(|world| async move {
        world.fill(true).await;
        let at = world.find(100 + 40);
        world.control.break_sectors(world.disk, at / 512 * 512, 512);
        let report = world.scrubbed().await;
        assert!(report.damages.iter().any(|found| found.block == Some(40)), "{report:?}");
        assert!(report.damages.len() < 4, "only what lies there: {report:?}");
    });
}

#[test]
fn it_keeps_to_its_rate_beside_writers_and_compaction() {
    run(|world| async move {
        world.fill(true).await;
        let rate = 64 << 10;
        let groups = world.groups(rate).await;
        let began = world.env.now();
        let disk = groups.disk(GROUP, volume(), 4096).unwrap();
        let lane = groups.lane(GROUP).unwrap();
        // More than the device holds, so that segments are compacted and deleted under the scrubber.
        let mut round = 0_u64;
        while lane.report().scrub.passes < 1 {
            for block in 0..64 {
                disk.write(block * 4096, world.block((round + block) as u8 & 0x7F), Durability::Fua)
                    .await
                    .unwrap();
            }
            round += 1;
            world.env.sleep_until(world.env.now().plus(Duration::from_millis(50))).await;
        }
        let report = lane.report().scrub;
        assert_eq!(report.damages, vec![]);
        let seconds = world.env.now().since(began).as_secs_f64();
        assert!(report.bytes as f64 <= (seconds + 1.0) * rate as f64, "{} in {seconds} s", report.bytes);
        lane.scrub(FAST).await;
        assert_eq!(lane.report().scrub.damages, vec![]);
        assert!(round > 40, "the device was filled several times: {round}");
        let buf = world.env.buffers().alloc(4096).await;
        let read = disk.read(5 * 4096, buf).await.unwrap();
        assert_eq!(read[..], world.block((round - 1 + 5) as u8 & 0x7F)[..]);
        groups.close().await;
    });
}

#[test]
fn compaction_leaves_what_is_damaged_and_writers_go_on() {
    run(|world| async move {
        world.fill(true).await;
        world.flip(world.find(25) + 77).await;
        let groups = world.groups(0).await;
        let disk = groups.disk(GROUP, volume(), 4096).unwrap();
        // Several times what the device holds, so that everything else is compacted.
        for round in 0..60 {
            for block in 64..192 {
                let data = world.block((round + block) as u8 & 0x7F);
                disk.write(block * 4096, data, Durability::Fua).await.unwrap();
            }
        }
        let lane = groups.lane(GROUP).unwrap();
        lane.scrub(FAST).await;
        let report = lane.report().scrub;
        let found: Vec<_> = report.damages.iter().map(|found| found.block).collect();
        assert_eq!(found, vec![Some(25)], "it is still there and still named: {report:?}");
        let buf = world.env.buffers().alloc(4096).await;
        let read = disk.read(30 * 4096, buf).await.unwrap();
        assert_eq!(read[..], world.block(100 + 30)[..]);
        groups.close().await;
    });
}
