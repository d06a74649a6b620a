//! Verifying and printing stores: a whole one is found whole and stays as it is to the byte, and whatever byte of it is
//! changed is named.

mod scrub;

use std::future::Future;

use ashlar_engine::debug::{Found, StoreCheck, What, check, dump};
use ashlar_engine::groups::Groups;
use ashlar_engine::ids::{GroupId, SegmentId};
use ashlar_engine::lane::LaneConfig;
use ashlar_engine::store::{ChunkStore, FormatOptions};
use ashlar_env::Env;
use ashlar_env::buf::{BufPool, PoolPlan};
use ashlar_env::disk::{Disk, Durability};
use ashlar_env::units::{ByteRange, VolumeId};
use ashlar_sim::{Control, DiskGeometry, DiskId, Profile, Sim, SimDisk, SimEnv};
use uuid::Uuid;

const GROUP: GroupId = GroupId(0xABCD);
const CLUSTER: Uuid = Uuid::from_u128(2);
const SLOT_BYTES: u32 = 128 << 10;
const SIZE_BYTES: u64 = 8 << 20;

const fn volume() -> VolumeId {
    VolumeId(Uuid::from_u128(5))
}

/// A disk, and what it takes to look at it.
#[derive(Clone)]
struct World {
    control: Control,
    env: SimEnv,
    disk: DiskId,
}

fn run<F: Future<Output = ()> + 'static>(body: impl FnOnce(World) -> F + 'static) {
    let sim = Sim::new(3, Profile::calm());
    let control = sim.control();
    let node = control.node("node", 1);
    let disk = control.disk("disk", DiskGeometry::of_bytes(SIZE_BYTES));
    control.clone().goal_on(node, 0, move |env| body(World { control, env, disk }));
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

impl World {
    fn open(&self) -> SimDisk {
        self.env.open_disk(self.disk)
    }

    fn hash(&self) -> u64 {
        self.control.image(self.disk).hash()
    }

    /// A store with a volume, of which a snapshot was cut, on it.
    async fn fill(&self, closed: bool) {
        let options = FormatOptions {
            slot_bytes: SLOT_BYTES,
            fence_entries: 4,
            ..FormatOptions::new(Uuid::from_u128(1), CLUSTER)
        };
        let store = ChunkStore::format(self.env.clone(), self.open(), options).await.unwrap();
        let groups = Groups::new(self.env.clone(), CLUSTER, LaneConfig::default());
        groups.add(store).await.unwrap();
        groups.create_volume(GROUP, volume(), 4 << 20, false).await.unwrap();
        let disk = groups.disk(GROUP, volume(), 4096).unwrap();
        for block in 0..40 {
            disk.write(block * 4096, self.block(block as u8), Durability::Fua).await.unwrap();
        }
        groups.lane(GROUP).unwrap().snapshot().await.unwrap();
        for block in 20..60 {
            disk.write(block * 4096, self.block(100 + block as u8), Durability::Fua).await.unwrap();
        }
        disk.discard(ByteRange { start: 4096, len: 4096 }).await.unwrap();
        if closed {
            groups.close().await;
        } else {
            groups.lane(GROUP).unwrap().abandon().await;
        }
        self.open().flush().await.unwrap();
    }

    fn block(&self, with: u8) -> ashlar_env::Buf {
        let mut buf = BufPool::on_heap(PoolPlan::for_bytes(1 << 20)).try_alloc(4096).unwrap();
        buf.fill(with | 0x80);
        buf[0] = with;
        buf.freeze()
    }

    async fn check(&self) -> StoreCheck {
        check(&self.env, vec![("disk".to_owned(), self.open())]).await
    }

    async fn dump(&self, what: What) -> String {
        dump(&self.open(), what).await.unwrap()
    }

    /// Changes a byte behind everybody's back.
    async fn flip(&self, at: u64) {
        let (disk, start) = (self.open(), at / 512 * 512);
        let mut sector = disk.read(start, self.env.buffers().alloc(512).await).await.unwrap();
        sector[(at - start) as usize] ^= 0x10;
        disk.write(start, sector.freeze(), Durability::Fua).await.unwrap();
    }

    /// What is found when the byte at `at` is changed.
    async fn with_flipped(&self, at: u64) -> Vec<Found> {
        self.flip(at).await;
        let report = self.check().await;
        self.flip(at).await;
        report.damages
    }

    /// Where on the device block `block` lies that was filled with `with`.
    fn find(&self, with: u8) -> u64 {
        let bytes = self.control.image(self.disk).read(0, SIZE_BYTES as usize);
        let mut places = (0..SIZE_BYTES - 4096).step_by(64);
        let is_it = |at: &u64| {
            let found = &bytes[*at as usize..][..4096];
            found[0] == with && found[1..].iter().all(|byte| *byte == with | 0x80)
        };
        places.find(is_it).expect("it was written")
    }

    /// Where the chunk of `segment` begins on the device.
    async fn data_start(&self, segment: u32) -> u64 {
        let slots = self.dump(What::Slots).await;
        let name = format!("{:016x}/0/{segment} ", GROUP.0);
        let line = slots.lines().find(|line| line.contains(&name)).expect("the segment is there");
        let slot: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let header = self.dump(What::Slot(slot)).await;
        let line = header.lines().find(|line| line.contains("data at byte")).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    }

    /// A segment of a kind.
    async fn segment(&self, kind: &str) -> u32 {
        let slots = self.dump(What::Slots).await;
        let line = slots.lines().find(|line| line.contains(&format!("({kind})"))).expect("there is one");
        let name = line.split_whitespace().nth(2).unwrap();
        name.rsplit('/').next().unwrap().parse().unwrap()
    }
}

fn texts(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.what.as_str()).collect()
}

#[test]
fn a_whole_store_is_sound_and_is_not_changed() {
    for closed in [true, false] {
        run(move |world| async move {
            world.fill(closed).await;
            let before = world.hash();
            let report = world.check().await;
            assert!(report.is_sound() && report.notes.is_empty(), "{report:?}");
            assert_eq!(world.hash(), before, "verifying writes nothing");
            let [group] = &report.groups[..] else { panic!("{report:?}") };
            assert!(group.opened && (group.volumes, group.snapshots) == (1, 1), "{group:?}");
            // 40 blocks of the snapshot, and 40 that were written after it.
            assert_eq!(group.blocks, 80);
            assert_eq!(group.replayed == 0, closed, "{group:?}");
            assert!(report.devices[0].whole > 2, "{:?}", report.devices);
        });
    }
}

#[test]
fn a_damaged_block_is_named_with_its_volume() {
    run(|world| async move {
        world.fill(true).await;
        let at = world.find(100 + 30);
        let found = world.with_flipped(at + 700).await;
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found.group, found.volume), (Some(GROUP), Some(volume())), "{found:?}");
        assert_eq!((found.block, found.snapshot), (Some(30), None), "{found:?}");
        let start = world.data_start(found.segment.unwrap()).await;
        assert_eq!(start + u64::from(found.byte.unwrap()), at, "{found:?}");
        assert_eq!(found.device.as_deref(), Some("disk"), "{found:?}");

        // What only the snapshot holds.
        let found = world.with_flipped(world.find(25)).await;
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found.block, found.snapshot), (Some(25), Some(1)), "{found:?}");
        assert!(world.check().await.is_sound(), "as it was");
    });
}

#[test]
fn a_damaged_block_in_the_replayed_tail_is_named() {
    run(|world| async move {
        world.fill(false).await;
        let found = world.with_flipped(world.find(100 + 30) + 9).await;
        assert!(
            found.iter().any(|found| found.volume.is_none_or(|id| id == volume()) && found.block == Some(30)),
            "{found:?}"
        );
    });
}

#[test]
fn whichever_structure_is_damaged_is_named() {
    run(|world| async move {
        world.fill(true).await;
        let last_page = SIZE_BYTES - 4096;
        for (at, what) in [
            (20, "superblock"),
            (last_page + 20, "superblock"),
            (4096 + 100, "fence page 0"),
            (8192 + 4000, "fence page 0"),
        ] {
            let found = world.with_flipped(at).await;
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].what.contains(what) && found[0].what.contains("whole"), "{found:?}");
        }
        let log = world.data_start(1).await;
        let found = world.with_flipped(log - 4096 + 33).await;
        assert!(texts(&found)[0].starts_with("one header of slot"), "{found:?}");
        // A record's header: what follows it is found again.
        let found = world.with_flipped(log + 20).await;
        assert!(
            found.iter().any(|found| (found.segment, found.byte) == (Some(1), Some(0))),
            "the first record of the log: {found:?}"
        );
        // The map's first page.
        let map = world.segment("map").await;
        let found = world.with_flipped(world.data_start(map).await + 64 + 8).await;
        let named = |found: &&Found| found.group == Some(GROUP);
        assert!(found.iter().any(|found| found.what.contains("map")), "{found:?}");
        assert_eq!(found.iter().filter(named).count(), found.len(), "{found:?}");
        assert!(world.check().await.is_sound(), "as it was");
    });
}

/// In a sealed segment of the log every byte is under a checksum, or padding that must be zero.
#[test]
fn any_byte_of_a_sealed_log_segment_is_found_and_segment_and_place_are_named() {
    run(|world| async move {
        world.fill(true).await;
        let slots = world.dump(What::Slots).await;
        let sealed = slots.lines().find(|line| line.contains("(log)") && line.contains("sealed at"));
        let words: Vec<_> = sealed.expect("the first one was full").split_whitespace().collect();
        let segment: u32 = words[2].rsplit('/').next().unwrap().parse().unwrap();
        let at = words.iter().position(|word| *word == "at").unwrap();
        let length: u64 = words[at + 1].parse().unwrap();
        let start = world.data_start(segment).await;
        for n in 0..40 {
            // Spread over the segment, and over the bytes of sectors.
            let byte = (n * 7919 * 61) % length;
            let found = world.with_flipped(start + byte).await;
            assert!(!found.is_empty(), "byte {byte} of {length}");
            assert!(
                found.iter().any(|found| {
                    found.segment == Some(segment) && found.byte.is_some_and(|at| u64::from(at) <= byte)
                }),
                "byte {byte} of {length}: {found:?}"
            );
        }
        assert!(world.check().await.is_sound(), "as it was");
    });
}

#[test]
fn a_group_whose_slots_are_lost_is_not_taken_for_deleted() {
    run(|world| async move {
        world.fill(true).await;
        let segment = world.segment("checkpoints").await;
        let start = world.data_start(segment).await;
        world.flip(start - 4096 + 40).await;
        world.flip(start - 8192 + 40).await;
        let report = world.check().await;
        let text = format!("{report:?}");
        assert!(
            !report.is_sound() && text.contains("is lost") && text.contains("no whole checkpoint"),
            "{text}"
        );
    });
}

#[test]
fn what_is_no_store_is_said_to_be_none() {
    run(|world| async move {
        let report = world.check().await;
        assert_eq!(texts(&report.damages).len(), 1);
        assert!(texts(&report.damages)[0].contains("not formatted"), "{report:?}");
        assert!(dump(&world.open(), What::Slots).await.is_err());
        assert!(world.dump(What::Superblock).await.contains("blank"));
    });
}

#[test]
fn every_structure_is_printed() {
    run(|world| async move {
        world.fill(true).await;
        let before = world.hash();
        for (what, words) in [
            (What::Superblock, &["superblock A, at byte 0", "superblock B", "alignment in bytes"][..]),
            (What::Fences, &["fence page 0, copy A", "group 000000000000abcd"]),
            (What::Slots, &["000000000000abcd/0/1 (log)", "(checkpoints)", "slots are free"]),
            (What::Slot(0), &["header A", "header B", "sequence"]),
            (What::Segment(GROUP, 0, SegmentId(1)), &["segment 1 (log)", "record 1, epoch 1", "extents"]),
            (What::Checkpoint(GROUP, 0), &["volume 1 (00000000-", "snapshot 1", "granules live"]),
            (What::Record(GROUP, 0, SegmentId(1), 0), &["header CRC", "payload", "whole", "Create"]),
        ] {
            let text = world.dump(what).await;
            for word in words {
                assert!(text.contains(word), "{word} in {what:?}:\n{text}");
            }
        }
        let map = world.segment("map").await;
        let text = world.dump(What::Segment(GROUP, 0, SegmentId(map))).await;
        assert!(text.contains("batch of"), "{text}");
        let text = world.dump(What::Record(GROUP, 0, SegmentId(map), 0)).await;
        assert!(text.contains("page of level 0"), "{text}");
        assert_eq!(world.hash(), before, "printing writes nothing");
        for what in
            [What::Slot(9999), What::Checkpoint(GroupId(1), 0), What::Record(GROUP, 0, SegmentId(1), 12)]
        {
            assert!(dump(&world.open(), what).await.is_err(), "{what:?}");
        }
    });
}
