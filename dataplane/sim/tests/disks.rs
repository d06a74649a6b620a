//! The disk model does what it says.

use std::collections::BTreeSet;
use std::time::Duration;

use ashlar_env::disk::{Disk, DiskError, Durability};
use ashlar_env::units::ByteRange;
use ashlar_env::{Buf, BufPool, Env};
use ashlar_sim::conformance::{join_all, sleep};
use ashlar_sim::{Control, Crash, DiskGeometry, DiskId, NodeId, Profile, Rate, Sim, SimDisk, SimEnv};

const SIZE: u64 = 1 << 20;

fn run(sim: &Sim) {
    if let Err(failure) = sim.run() {
        panic!("{failure}");
    }
}

fn filled(pool: &BufPool, byte: u8, len: usize) -> Buf {
    let mut buf = pool.try_alloc(len).expect("a buffer");
    buf.fill(byte);
    buf.freeze()
}

async fn write(env: &SimEnv, disk: &SimDisk, start: u64, byte: u8, len: usize, durability: Durability) {
    let data = filled(env.buffers(), byte, len);
    disk.write(start, data, durability).await.expect("a write");
}

async fn read(env: &SimEnv, disk: &SimDisk, start: u64, len: usize) -> Result<Vec<u8>, DiskError> {
    let buf = env.buffers().alloc(len).await;
    disk.read(start, buf).await.map(|buf| buf.to_vec())
}

/// Runs `life` on a node with the disk; gives the simulation to look at afterwards.
fn live<F: Future<Output = ()> + 'static>(
    seed: u64,
    geometry: DiskGeometry,
    change: impl FnOnce(&mut Profile),
    life: impl FnOnce(SimEnv, SimDisk, Control, DiskId, NodeId) -> F,
) -> (Sim, DiskId) {
    let mut profile = Profile::calm();
    change(&mut profile);
    let sim = Sim::new(seed, profile);
    let (node, other) = (sim.node("node", 1), sim.node("other", 1));
    let disk = sim.disk("disk", geometry);
    let handle = sim.env(node, 0).open_disk(disk);
    let (env, control) = (sim.env(node, 0), sim.control());
    let future = life(env, handle, control, disk, node);
    sim.goal_on(other, 0, |_| future);
    run(&sim);
    (sim, disk)
}

fn geometry() -> DiskGeometry {
    DiskGeometry::of_bytes(SIZE)
}

/// What the first four sectors hold after a power failure, over many seeds.
fn states<F: Future<Output = ()> + 'static>(
    geometry: DiskGeometry,
    how: Crash,
    life: impl Fn(SimEnv, SimDisk) -> F + Copy + 'static,
) -> BTreeSet<[u8; 4]> {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let (sim, disk) = live(
            seed,
            geometry,
            |_| (),
            |env, disk, control, _, node| async move {
                life(env, disk).await;
                control.crash(node, how);
            },
        );
        let image = sim.image(disk).read(0, 2048);
        for sector in image.chunks(512) {
            assert!(sector.iter().all(|&byte| byte == sector[0]), "a sector is torn");
        }
        seen.insert([0, 512, 1024, 1536].map(|at| image[at]));
    }
    seen
}

#[test]
fn what_is_durable_survives_and_what_is_cached_may_not() {
    let cached = states(geometry(), Crash::Power, |env, disk| async move {
        write(&env, &disk, 0, 1, 2048, Durability::Cached).await;
    });
    assert_eq!(cached.len(), 16, "each of four sectors is kept or lost by itself: {cached:?}");
    let process = states(geometry(), Crash::Process, |env, disk| async move {
        write(&env, &disk, 0, 1, 2048, Durability::Fua).await;
    });
    assert_eq!(process, BTreeSet::from([[1; 4]]));
    let fua = states(geometry(), Crash::Power, |env, disk| async move {
        write(&env, &disk, 0, 1, 2048, Durability::Fua).await;
    });
    assert_eq!(fua, BTreeSet::from([[1; 4]]));
    let flushed = states(geometry(), Crash::Power, |env, disk| async move {
        write(&env, &disk, 0, 1, 2048, Durability::Cached).await;
        disk.flush().await.expect("a flush");
    });
    assert_eq!(flushed, BTreeSet::from([[1; 4]]));
    let without_cache = DiskGeometry { volatile_cache: false, ..geometry() };
    let written = states(without_cache, Crash::Power, |env, disk| async move {
        write(&env, &disk, 0, 1, 2048, Durability::Cached).await;
    });
    assert_eq!(written, BTreeSet::from([[1; 4]]));
}

#[test]
fn a_cached_sector_falls_back_to_any_state_since_the_flush() {
    let seen = states(geometry(), Crash::Power, |env, disk| async move {
        write(&env, &disk, 0, 1, 512, Durability::Cached).await;
        disk.flush().await.expect("a flush");
        for byte in 2..5 {
            write(&env, &disk, 0, byte, 512, Durability::Cached).await;
        }
    });
    let first: BTreeSet<u8> = seen.iter().map(|state| state[0]).collect();
    assert_eq!(first, BTreeSet::from([1, 2, 3, 4]));
}

#[test]
fn a_flush_covers_only_what_had_completed_when_it_was_issued() {
    let seen = states(geometry(), Crash::Power, |env, disk| async move {
        let data = filled(env.buffers(), 1, 512);
        let later = disk.write(0, data, Durability::Cached);
        let flush = disk.flush();
        later.await.expect("a write");
        flush.await.expect("a flush");
    });
    assert!(seen.contains(&[0; 4]), "a flush waited for a write that was only submitted");
    assert!(seen.contains(&[1, 0, 0, 0]));
}

#[test]
fn a_write_in_flight_may_be_torn_between_sectors() {
    let in_flight = |env: SimEnv, disk: SimDisk| async move {
        drop(disk.write(0, filled(env.buffers(), 1, 2048), Durability::Fua));
    };
    let small = states(DiskGeometry { volatile_cache: false, ..geometry() }, Crash::Power, in_flight);
    assert!(small.len() > 10, "few ways of tearing: {small:?}");
    let large = DiskGeometry { block_bytes: 4096, sector_bytes: 4096, ..geometry() };
    let whole = states(large, Crash::Power, |env, disk| async move {
        drop(disk.write(0, filled(env.buffers(), 1, 4096), Durability::Fua));
    });
    assert_eq!(whole, BTreeSet::from([[0; 4], [1; 4]]), "a sector of 4096 bytes is never torn");
}

#[test]
fn nothing_of_an_old_life_lands_after_a_restart() {
    for seed in 0..50 {
        live(
            seed,
            geometry(),
            |p| p.disk.latency_mean = Duration::from_millis(50),
            |env, disk, control, id, node| async move {
                drop(disk.write(0, filled(env.buffers(), 1, 512), Durability::Fua));
                control.crash(node, Crash::Process);
                let settled = control.image(id).read(0, 1)[0];
                control.restart(node);
                let env = control.env(node, 0);
                let disk = env.open_disk(id);
                sleep(&env, Duration::from_secs(10)).await;
                assert_eq!(read(&env, &disk, 0, 512).await.expect("a read")[0], settled);
            },
        );
    }
}

#[test]
fn an_unreadable_sector_is_told_until_it_is_written() {
    live(
        1,
        geometry(),
        |_| (),
        |env, disk, control, id, _| async move {
            write(&env, &disk, 0, 1, 4096, Durability::Cached).await;
            control.break_sectors(id, 1024, 512);
            let error = read(&env, &disk, 0, 4096).await.expect_err("an unreadable sector");
            assert!(matches!(&error, DiskError::Medium(why) if why.contains("1024")), "{error}");
            assert_eq!(read(&env, &disk, 0, 1024).await.expect("its neighbours"), [1; 1024]);
            write(&env, &disk, 1024, 2, 512, Durability::Cached).await;
            assert_eq!(read(&env, &disk, 1024, 512).await.expect("after a write"), [2; 512]);
            control.break_sectors(id, 0, 512);
            control.heal_disk(id);
            assert_eq!(read(&env, &disk, 0, 512).await.expect("after healing"), [1; 512]);
        },
    );
    live(
        2,
        geometry(),
        |p| p.disk.latent_read_error = Rate::ALWAYS,
        |env, disk, _, _, _| async move {
            assert!(read(&env, &disk, 0, 512).await.is_err());
        },
    );
}

#[test]
fn a_failed_write_or_flush_latches() {
    live(
        1,
        geometry(),
        |p| p.disk.write_error = Rate::ALWAYS,
        |env, disk, _, _, _| async move {
            let failed = disk.write(0, filled(env.buffers(), 1, 512), Durability::Cached).await;
            assert!(matches!(failed, Err(DiskError::Medium(_))), "{failed:?}");
            for _ in 0..2 {
                let latched = disk.write(0, filled(env.buffers(), 1, 512), Durability::Cached).await;
                assert!(matches!(latched, Err(DiskError::Latched(_))), "{latched:?}");
                assert!(matches!(disk.flush().await, Err(DiskError::Latched(_))));
            }
            assert!(read(&env, &disk, 0, 512).await.is_ok(), "reads go on");
            assert!(env.open_disk(DiskId(0)).flush().await.is_ok(), "the medium is not to blame");
        },
    );
    let stays = |p: &mut Profile| {
        p.disk.flush_error = Rate::ALWAYS;
        p.disk.write_error_stays = true;
    };
    live(2, geometry(), stays, |env, disk, _, id, _| async move {
        assert!(matches!(disk.flush().await, Err(DiskError::Medium(_))));
        let again = env.open_disk(id).write(0, Buf::zeroes(512), Durability::Cached).await;
        assert!(matches!(again, Err(DiskError::Latched(_))), "{again:?}");
    });
}

#[test]
fn a_full_disk_takes_overwrites_and_latches_nothing() {
    live(
        1,
        geometry(),
        |_| (),
        |env, disk, control, id, _| async move {
            write(&env, &disk, 0, 1, 4096, Durability::Cached).await;
            control.limit_disk(id, Some(512));
            let full = disk.write(4096, filled(env.buffers(), 2, 1024), Durability::Cached).await;
            assert_eq!(full, Err(DiskError::NoSpace));
            write(&env, &disk, 0, 3, 4096, Durability::Cached).await;
            write(&env, &disk, 4096, 4, 512, Durability::Cached).await;
            control.limit_disk(id, None);
            write(&env, &disk, 8192, 5, 4096, Durability::Cached).await;
            assert_eq!(read(&env, &disk, 0, 512).await.expect("a read"), [3; 512]);
        },
    );
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let read_only = DiskGeometry { read_only: true, ..geometry() };
    live(
        1,
        read_only,
        |_| (),
        |_, disk, _, _, _| async move {
            let range = ByteRange { start: 0, len: 512 };
            assert_eq!(disk.write(0, Buf::zeroes(512), Durability::Cached).await, Err(DiskError::ReadOnly));
            assert_eq!(disk.write_zeroes(range, true, Durability::Fua).await, Err(DiskError::ReadOnly));
            assert_eq!(disk.discard(range).await, Err(DiskError::ReadOnly));
            assert_eq!(disk.resize(SIZE * 2).await, Err(DiskError::ReadOnly));
            assert_eq!(disk.flush().await, Ok(()));
        },
    );
}

#[test]
fn silent_faults_lie_over_the_right_data() {
    for which in 0..3 {
        let change = move |p: &mut Profile| match which {
            0 => p.disk.lost_write = Rate::ALWAYS,
            1 => p.disk.misdirected_write = Rate::ALWAYS,
            _ => p.disk.bit_rot = Rate::ALWAYS,
        };
        live(5, geometry(), change, |env, disk, control, id, _| async move {
            write(&env, &disk, 0, 9, 4096, Durability::Cached).await;
            assert_ne!(read(&env, &disk, 0, 4096).await.expect("a read"), [9; 4096], "fault {which}");
            control.heal_disk(id);
            assert_eq!(read(&env, &disk, 0, 4096).await.expect("a read"), [9; 4096], "fault {which}");
        });
    }
}

#[test]
fn a_lying_flush_is_a_profile_of_its_own() {
    let mut lost = 0;
    for seed in 0..50 {
        let change = |p: &mut Profile| p.disk.lying_flush = Rate::ALWAYS;
        let (sim, disk) = live(seed, geometry(), change, |env, disk, control, _, node| async move {
            write(&env, &disk, 0, 1, 512, Durability::Cached).await;
            disk.flush().await.expect("a flush");
            control.crash(node, Crash::Power);
        });
        lost += usize::from(sim.image(disk).read(0, 1) == [0]);
    }
    assert!(lost > 5, "a lying flush lost {lost} of 50");
}

#[test]
fn discard_without_a_promise_leaves_anything() {
    let vague = DiskGeometry { discard_zeroes: false, ..geometry() };
    let mut kinds = BTreeSet::new();
    for seed in 0..20 {
        let (sim, disk) = live(
            seed,
            vague,
            |_| (),
            |env, disk, _, _, _| async move {
                write(&env, &disk, 0, 1, 4096, Durability::Fua).await;
                disk.discard(ByteRange { start: 0, len: 4096 }).await.expect("a discard");
                disk.flush().await.expect("a flush");
            },
        );
        for sector in sim.image(disk).read(0, 4096).chunks(512) {
            kinds.insert(match sector {
                s if s.iter().all(|&b| b == 0) => "zeros",
                s if s.iter().all(|&b| b == 1) => "old",
                _ => "garbage",
            });
        }
    }
    assert_eq!(kinds, BTreeSet::from(["zeros", "old", "garbage"]));
}

#[test]
fn operations_issued_together_take_effect_in_any_order() {
    let mut winners = BTreeSet::new();
    for seed in 0..30 {
        let (sim, disk) = live(
            seed,
            geometry(),
            |_| (),
            |env, disk, _, _, _| async move {
                let both =
                    [1, 2].map(|byte| disk.write(0, filled(env.buffers(), byte, 512), Durability::Fua));
                assert_eq!(join_all(both).await, [Ok(()), Ok(())]);
            },
        );
        winners.insert(sim.image(disk).read(0, 1)[0]);
    }
    assert_eq!(winners, BTreeSet::from([1, 2]));
}

#[test]
fn a_disk_begins_from_an_image() {
    let (sim, disk) = live(
        1,
        geometry(),
        |_| (),
        |env, disk, _, _, _| async move {
            write(&env, &disk, 512, 7, 1024, Durability::Fua).await;
        },
    );
    let image = sim.image(disk);
    let second = Sim::new(2, Profile::calm());
    let copy = second.disk_from("copy", geometry(), &image);
    assert_eq!(second.image(copy).hash(), image.hash());
    let node = second.node("node", 1);
    second.goal_on(node, 0, move |env| async move {
        let disk = env.open_disk(copy);
        assert_eq!(read(&env, &disk, 512, 1024).await.expect("a read"), [7; 1024]);
    });
    run(&second);
}
