//! Commands on one pass-through volume at the same time: nothing torn, nothing lost, nothing left behind. The
//! disk moves one block at a time in random order, so what is not kept apart shows.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ashlar_env::disk::Durability;
use ashlar_env::reservation::{
    Access, Nexus, NexusAction, NoticeKind, ReservationAction as Action, ReservationType as Type,
};
use ashlar_env::spawn::yield_now;
use ashlar_env::units::{BlockSize, Lba, VolumeId};
use ashlar_env::volume::{Issuer, Operation, Outcome};
use ashlar_env::{Spawn, Volume, VolumeError};
use ashlar_volume::{PassThrough, ReservationStore, Reservations, StoreError};
use common::{MemoryDisk, TestEnv, disk_info, filled, issuer, range, serve, serve_with, volume_id};

type Served = PassThrough<TestEnv, MemoryDisk>;

async fn read(volume: &Served, first: u64, blocks: u64) -> Vec<u8> {
    match volume.execute(issuer(1), Operation::Read { range: range(first, blocks) }).await {
        Ok(Outcome::Data(data)) => data.to_vec(),
        other => panic!("not data: {other:?}"),
    }
}

fn write(env: &TestEnv, first: u64, bytes: &[u8], block: usize) -> Operation {
    let range = range(first, (bytes.len() / block) as u64);
    Operation::Write { range, data: filled(env, bytes), durability: Durability::Cached }
}

/// Runs `tasks` side by side to their ends.
fn all(env: &TestEnv, count: usize, mut task: impl FnMut(usize, Rc<Cell<usize>>)) {
    let done = Rc::new(Cell::new(0));
    (0..count).for_each(|n| task(n, Rc::clone(&done)));
    env.run(async {
        while done.get() < count {
            yield_now().await;
        }
    });
}

#[test]
fn neighbours_in_one_block_of_the_disk_lose_nothing() {
    for seed in 0..40 {
        let env = TestEnv::new(seed);
        let (volume, disk) = serve(&env, disk_info(64 << 10, 4096), BlockSize::B512);
        all(&env, 8, |n, done| {
            let (env, volume) = (env.clone(), volume.clone());
            env.clone().spawn(async move {
                // Extents of three blocks: they share the disk's blocks and some cross from one to the next.
                let first = n as u64 * 3;
                for round in 1..6_u8 {
                    let stamp = n as u8 * 16 + round;
                    let write = write(&env, first, &[stamp; 3 * 512], 512);
                    volume.execute(issuer(1), write).await.unwrap();
                    assert_eq!(read(&volume, first, 3).await, [stamp; 3 * 512]);
                }
                done.set(done.get() + 1);
            });
        });
        for n in 0..8 {
            assert_eq!(disk.bytes()[n * 1536..][..1536], [n as u8 * 16 + 5; 1536], "seed {seed}");
        }
        assert_eq!(volume.in_flight(), 0);
    }
}

#[test]
fn a_command_is_seen_whole_or_not_at_all() {
    for seed in 0..40 {
        let env = TestEnv::new(seed);
        let (volume, _) = serve(&env, disk_info(64 << 10, 512), BlockSize::B4096);
        all(&env, 6, |n, done| {
            let (env, volume) = (env.clone(), volume.clone());
            env.clone().spawn(async move {
                for round in 0..5_u8 {
                    if n % 2 == 0 {
                        let write = write(&env, 1, &[n as u8 * 16 + round; 3 * 4096], 4096);
                        volume.execute(issuer(1), write).await.unwrap();
                    }
                    let seen = read(&volume, 1, 3).await;
                    assert!(seen.iter().all(|byte| *byte == seen[0]), "seed {seed}: torn");
                }
                done.set(done.get() + 1);
            });
        });
    }
}

#[test]
fn compare_and_write_counts_right() {
    for (seed, disk_block) in (0..30).map(|seed| (seed, if seed % 2 == 0 { 512 } else { 4096 })) {
        let env = TestEnv::new(seed);
        let (volume, _) = serve(&env, disk_info(64 << 10, disk_block), BlockSize::B512);
        let misses = Rc::new(Cell::new(0));
        all(&env, 4, |_, done| {
            let (env, volume, misses) = (env.clone(), volume.clone(), Rc::clone(&misses));
            env.clone().spawn(async move {
                let mut counted = 0;
                while counted < 5 {
                    let old = read(&volume, 3, 2).await;
                    let operation = Operation::CompareAndWrite {
                        range: range(3, 2),
                        expected: filled(&env, &old),
                        data: filled(&env, &[old[0] + 1; 1024]),
                        durability: Durability::Cached,
                    };
                    match volume.execute(issuer(1), operation).await {
                        Ok(_) => counted += 1,
                        Err(VolumeError::Miscompare { at_bytes: 0 }) => misses.set(misses.get() + 1),
                        Err(error) => panic!("{error}"),
                    }
                }
                done.set(done.get() + 1);
            });
        });
        assert_eq!(env.run(read(&volume, 3, 2)), [20; 1024]);
        assert!(misses.get() > 0, "they have met");
    }
}

#[test]
fn copies_that_cross_each_other_end() {
    for (seed, disk_block) in (0..40).map(|seed| (seed, if seed % 2 == 0 { 512 } else { 4096 })) {
        let env = TestEnv::new(seed);
        let (volume, _) = serve(&env, disk_info(64 << 10, disk_block), BlockSize::B512);
        all(&env, 6, |n, done| {
            let volume = volume.clone();
            env.spawn(async move {
                for round in 0..4 {
                    let (from, to) = if (n + round) % 2 == 0 { (0, 9) } else { (9, 0) };
                    let sources = Box::new([range(from, 9)]);
                    let copy = Operation::Copy { sources, to: Lba(to), durability: Durability::Cached };
                    volume.execute(issuer(1), copy).await.unwrap();
                }
                done.set(done.get() + 1);
            });
        });
        assert_eq!(volume.in_flight(), 0);
    }
}

#[test]
fn what_is_dropped_goes_on_and_leaves_nothing_behind() {
    for seed in 0..60 {
        let env = TestEnv::new(seed);
        let (volume, disk) = serve(&env, disk_info(64 << 10, 4096), BlockSize::B512);
        // Sub-block writes, each dropped after a few polls, on the same block of the disk.
        for n in 0..8_u64 {
            let polls = env.dice().below(4) + 1;
            let write = write(&env, n, &[n as u8 + 1; 512], 512);
            let mut execution = Box::pin(volume.execute(issuer(1), write));
            env.run(async {
                for _ in 0..polls {
                    let polled = poll_fn(|cx| Poll::Ready(execution.as_mut().poll(cx))).await;
                    if polled.is_ready() {
                        break;
                    }
                    yield_now().await;
                }
            });
        }
        // This one comes last, so it waits for all of them.
        let seen = env.run(read(&volume, 0, 8));
        let expected: Vec<u8> = (0..4096).map(|at| (at / 512) as u8 + 1).collect();
        assert_eq!(seen, expected, "seed {seed}");
        assert_eq!(disk.bytes()[..4096], expected);
        assert_eq!(volume.in_flight(), 0);
    }
}

#[test]
fn an_operation_that_was_never_polled_never_happens() {
    let env = TestEnv::new(1);
    let (volume, disk) = serve(&env, disk_info(64 << 10, 512), BlockSize::B512);
    drop(volume.execute(issuer(1), write(&env, 0, &[1; 512], 512)));
    env.run(read(&volume, 0, 1));
    assert_eq!(disk.bytes()[..512], [0; 512]);
    assert_eq!(volume.in_flight(), 0);
}

/// Keeps states, slowly, or refuses to.
#[derive(Clone, Default)]
struct Store {
    kept: Rc<RefCell<Vec<Reservations>>>,
    fail: Rc<Cell<bool>>,
}

impl ReservationStore for Store {
    fn save(
        &self,
        volume: VolumeId,
        state: &Reservations,
    ) -> impl Future<Output = Result<(), StoreError>> + 'static {
        assert_eq!(volume, volume_id(1));
        let (this, state) = (self.clone(), state.clone());
        async move {
            yield_now().await;
            if this.fail.get() {
                return Err(StoreError::NoSpace);
            }
            this.kept.borrow_mut().push(state);
            Ok(())
        }
    }
}

#[test]
fn a_reservation_is_acknowledged_once_it_is_kept_and_comes_back() {
    let env = TestEnv::new(2);
    let store = Store::default();
    let fresh = Reservations::default();
    let info = disk_info(64 << 10, 512);
    let (volume, _) = serve_with(&env, info, BlockSize::B512, fresh, store.clone());
    let act = |by, action| env.run(volume.execute(issuer(by), Operation::Reserve(action)));
    act(1, Action::Register { key: 1, persist: None }).unwrap();
    assert!(store.kept.borrow().is_empty(), "nothing asks for persistence yet");
    act(1, Action::SetPersist(true)).unwrap();
    act(1, Action::Acquire { key: 1, kind: Type::WriteExclusive }).unwrap();
    act(1, Action::Acquire { key: 1, kind: Type::WriteExclusive }).unwrap();
    assert_eq!(store.kept.borrow().len(), 2, "what changes nothing is not stored");
    store.fail.set(true);
    let failed = act(1, Action::Release { key: 1, kind: Type::WriteExclusive });
    assert_eq!(failed.unwrap_err(), VolumeError::NoSpace);
    assert_eq!(volume.reservations().report().kind, Some(Type::WriteExclusive), "as it was");
    // After a restart.
    let kept = store.kept.borrow().last().unwrap().clone().after_power_loss();
    let (volume, _) = serve_with(&env, info, BlockSize::B512, kept, store.clone());
    let intruder = env.run(volume.execute(issuer(2), write(&env, 0, &[1; 512], 512)));
    assert_eq!(intruder.unwrap_err(), VolumeError::ReservationConflict);
    // Giving persistence up is stored as well.
    store.fail.set(false);
    env.run(volume.execute(issuer(1), Operation::Reserve(Action::SetPersist(false)))).unwrap();
    assert!(!store.kept.borrow().last().unwrap().persists());
}

#[test]
fn a_nexus_that_asks_for_persistence_is_known_after_a_restart() {
    let env = TestEnv::new(5);
    let (store, info) = (Store::default(), disk_info(64 << 10, 512));
    let (volume, _) = serve_with(&env, info, BlockSize::B512, Reservations::default(), store.clone());
    let nexus = Arc::new(Nexus::new("iqn.2026-01.test:a", [7; 6], 3).unwrap());
    let me = Issuer { host: nexus.host(), session: 1 };
    let register = NexusAction::Register {
        nexus: Arc::clone(&nexus),
        key: 0,
        new_key: 9,
        ignore_key: false,
        persist: true,
    };
    env.run(volume.execute(me, Operation::ReserveNexus(Box::new(register)))).unwrap();
    let kind = Type::WriteExclusiveRegistrantsOnly;
    env.run(volume.execute(me, Operation::Reserve(Action::Acquire { key: 9, kind }))).unwrap();
    let before = volume.reservations().report();
    let kept = store.kept.borrow().last().unwrap().clone().after_power_loss();
    let text = serde_json::to_string(&kept).unwrap();
    let (volume, _) = serve_with(&env, info, BlockSize::B512, serde_json::from_str(&text).unwrap(), store);
    let after = volume.reservations().report();
    assert_eq!(after, before);
    assert_eq!((after.generation, after.registrants[0].nexus.as_ref()), (1, Some(&nexus)));
    assert_eq!(
        env.run(volume.execute(issuer(2), write(&env, 0, &[1; 512], 512))).unwrap_err(),
        VolumeError::ReservationConflict
    );
}

#[test]
fn a_reserved_unit_excludes_everyone_else_and_is_never_stored() {
    let env = TestEnv::new(4);
    let store = Store::default();
    let (volume, _) =
        serve_with(&env, disk_info(64 << 10, 512), BlockSize::B512, Reservations::default(), store.clone());
    let run = |by, operation| env.run(volume.execute(issuer(by), operation)).map(drop);
    let unit = |action| Operation::ReserveNexus(Box::new(action));
    run(1, Operation::Reserve(Action::SetPersist(true))).unwrap();
    let stored = store.kept.borrow().len();
    run(1, unit(NexusAction::ReserveUnit)).unwrap();
    for (by, expected) in [(1, Ok(())), (2, Err(VolumeError::ReservationConflict))] {
        assert_eq!(run(by, write(&env, 0, &[1; 512], 512)), expected);
        assert_eq!(run(by, Operation::Flush), expected);
        for access in [Access::Read, Access::Write, Access::Attend] {
            assert_eq!(run(by, Operation::Permit(access)), expected);
        }
    }
    run(2, unit(NexusAction::ResetUnit)).unwrap();
    run(2, Operation::Permit(Access::Write)).unwrap();
    assert_eq!(store.kept.borrow().len(), stored);
}

#[test]
fn reports_and_notices_say_what_happened() {
    let env = TestEnv::new(3);
    let (volume, _) = serve(&env, disk_info(64 << 10, 512), BlockSize::B512);
    let act = |by, action| match env.run(volume.execute(issuer(by), Operation::Reserve(action))).unwrap() {
        Outcome::Reservation { report, notices } => (report, notices),
        other => panic!("{other:?}"),
    };
    act(1, Action::Register { key: 1, persist: None });
    act(2, Action::Register { key: 2, persist: None });
    let (none, notices) = act(1, Action::Clear { key: 1 });
    assert!(none.is_none());
    assert_eq!(notices.len(), 1);
    let notice = notices[0];
    assert_eq!((notice.volume, notice.host), (volume_id(1), common::host(2)));
    assert_eq!(notice.kind, NoticeKind::ReservationPreempted);
    let (report, _) = act(9, Action::Report);
    assert_eq!(report.unwrap().generation, 3);
}

#[test]
fn preempt_and_abort_outlasts_the_victim_s_writes() {
    for seed in 0..40 {
        let env = TestEnv::new(seed);
        let (volume, disk) = serve(&env, disk_info(256 << 10, 512), BlockSize::B512);
        let act = |by, action| env.run(volume.execute(issuer(by), Operation::Reserve(action))).unwrap();
        act(1, Action::Register { key: 1, persist: None });
        act(2, Action::Register { key: 2, persist: None });
        let ended = Rc::new(RefCell::new(Vec::new()));
        for n in 0..4_u64 {
            // Two are in flight, and the others wait for their ranges.
            let write = write(&env, n % 2 * 32, &[n as u8 + 1; 16 * 512], 512);
            let (volume, ended) = (volume.clone(), Rc::clone(&ended));
            env.spawn(async move {
                let result = volume.execute(issuer(1), write).await;
                ended.borrow_mut().push(result.map(drop));
            });
        }
        env.run(async {
            while volume.in_flight() < 4 && ended.borrow().is_empty() {
                yield_now().await;
            }
        });
        act(2, Action::Acquire { key: 2, kind: Type::WriteExclusive });
        let abort = Action::Preempt { key: 2, victim: 1, kind: Type::WriteExclusive, abort: true };
        act(2, abort);
        let bytes = disk.bytes();
        env.run(async {
            while ended.borrow().len() < 4 {
                yield_now().await;
            }
        });
        for _ in 0..50 {
            env.run(yield_now());
        }
        assert_eq!(disk.bytes(), bytes, "seed {seed}: a ghost has written");
        for result in &*ended.borrow() {
            assert!(matches!(result, Ok(()) | Err(VolumeError::ReservationConflict)));
        }
    }
}

#[test]
fn a_preempted_host_stops_in_the_middle_of_a_long_operation() {
    let env = TestEnv::new(5);
    let (volume, disk) = serve(&env, disk_info(8 << 20, 4096), BlockSize::B512);
    disk.forbid_zeroes();
    let act = |by, action| env.run(volume.execute(issuer(by), Operation::Reserve(action))).unwrap();
    act(2, Action::Register { key: 2, persist: None });
    let verify = Operation::Verify { range: range(0, 8 << 11) };
    let mut verify = pin!(volume.execute(issuer(1), verify));
    assert!(verify.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    act(2, Action::Acquire { key: 2, kind: Type::ExclusiveAccess });
    assert_eq!(env.run(verify).unwrap_err(), VolumeError::ReservationConflict);
}

#[test]
fn shrinking_waits_for_what_is_beyond_the_new_end() {
    for seed in 0..20 {
        let env = TestEnv::new(seed);
        let (volume, disk) = serve(&env, disk_info(64 << 10, 512), BlockSize::B512);
        let beyond = write(&env, 64, &[3; 16 * 512], 512);
        let mut beyond = pin!(volume.execute(issuer(1), beyond));
        assert!(beyond.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let resized = {
            let volume = volume.clone();
            async move { volume.resize(32 << 10, true).await }
        };
        let ended = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ended);
        env.spawn(async move {
            resized.await.unwrap();
            flag.set(true);
        });
        assert!(matches!(env.run(beyond), Ok(Outcome::Done)), "it was in before");
        env.run(async {
            while !ended.get() {
                yield_now().await;
            }
        });
        assert_eq!((volume.info().blocks, disk.bytes().len()), (64, 32 << 10));
    }
}

#[test]
fn reads_wait_for_buffers_without_a_deadlock() {
    for seed in 0..20 {
        let plan = ashlar_env::buf::PoolPlan { limits: [3, 0, 0, 0, 0] };
        let env = TestEnv::with_pool(seed, ashlar_env::BufPool::on_heap(plan));
        let (volume, _) = serve(&env, disk_info(64 << 10, 4096), BlockSize::B512);
        all(&env, 9, |n, done| {
            let (env, volume) = (env.clone(), volume.clone());
            env.clone().spawn(async move {
                for _ in 0..4 {
                    if n % 3 == 0 {
                        let data = ashlar_env::Env::buffers(&env).alloc(512).await;
                        let write = Operation::Write {
                            range: range(1, 1),
                            data: data.freeze(),
                            durability: Durability::Cached,
                        };
                        volume.execute(issuer(1), write).await.unwrap();
                    } else {
                        read(&volume, 0, 3).await;
                    }
                }
                done.set(done.get() + 1);
            });
        });
    }
}
