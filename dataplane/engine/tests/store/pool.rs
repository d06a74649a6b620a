//! Several devices as one, and what happens when one of them goes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::chunks::{Chunk, Chunks, Seal, StoreError};
use ashlar_engine::ids::{ChunkId, Epoch, GroupId};
use ashlar_engine::store::pool::PoolError;
use ashlar_engine::store::{ChunkStore, FormatOptions, Pool};
use ashlar_env::{Clock, Env};
use ashlar_sim::{Control, Crash, DiskGeometry, DiskId, NodeId, Profile, Sim, SimEnv};
use uuid::Uuid;

use crate::model::{fill, id};
use crate::tap::{Blow, Count, Tap};
use crate::{SLOTS, geometry, options};

type Store = ChunkStore<SimEnv, Tap>;
type ThisPool = Pool<SimEnv, Tap>;

fn device(number: usize) -> Uuid {
    Uuid::from_u128(100 + number as u128)
}

fn shard(segment: u32, shard: u8) -> ChunkId {
    ChunkId { shard, ..id(1, segment) }
}

/// A node with some disks behind one counter.
#[derive(Clone)]
struct Bench {
    control: Control,
    node: NodeId,
    disks: Vec<DiskId>,
    count: Rc<Count>,
}

impl Bench {
    fn new(sim: &Sim, geometries: &[DiskGeometry]) -> Self {
        let disks =
            geometries.iter().enumerate().map(|(n, it)| sim.disk(&format!("disk {n}"), *it)).collect();
        Self { control: sim.control(), node: sim.node("node", 1), disks, count: Rc::default() }
    }

    fn taps(&self, env: &SimEnv, blow: Option<(u64, Blow)>) -> Vec<Tap> {
        let is_dead = Rc::new(Cell::new(false));
        let tap = |&disk: &DiskId| Tap {
            disk: env.open_disk(disk),
            control: self.control.clone(),
            node: self.node,
            count: Rc::clone(&self.count),
            blow,
            is_dead: Rc::clone(&is_dead),
        };
        self.disks.iter().map(tap).collect()
    }

    async fn format(&self, env: &SimEnv) -> Vec<Store> {
        let mut stores = Vec::new();
        for (number, tap) in self.taps(env, None).into_iter().enumerate() {
            let options = FormatOptions { device: device(number), ..options() };
            stores.push(Store::format(env.clone(), tap, options).await.unwrap());
        }
        stores
    }

    /// Opens what is there and puts it into a pool.
    async fn pool(&self, env: &SimEnv, blow: Option<(u64, Blow)>) -> ThisPool {
        let pool = Pool::new(env, Uuid::nil());
        for tap in self.taps(env, blow) {
            let store = Store::open(env.clone(), tap).await.unwrap();
            pool.add(store).await.unwrap();
        }
        pool
    }
}

/// Runs `test` with a pool of new stores, one on each disk.
fn with<F: Future<Output = ()> + 'static>(
    geometries: &[DiskGeometry],
    test: impl FnOnce(SimEnv, ThisPool, Vec<Store>) -> F + 'static,
) {
    let sim = Sim::new(1, Profile::calm());
    let bench = Bench::new(&sim, geometries);
    sim.goal_on(bench.node, 0, |env| async move {
        let stores = bench.format(&env).await;
        let pool = Pool::new(&env, Uuid::nil());
        for store in &stores {
            pool.add(store.clone()).await.unwrap();
        }
        test(env, pool, stores).await;
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

fn larger() -> DiskGeometry {
    DiskGeometry { size_bytes: geometry().size_bytes * 2, ..geometry() }
}

async fn write(
    env: &SimEnv,
    pool: &ThisPool,
    id: ChunkId,
    len: u32,
    seal: Option<u32>,
) -> Result<(), StoreError> {
    let chunk = pool.create(id, Epoch(1)).await?;
    let mut buf = env.buffers().alloc(len as usize).await;
    fill(id, 0, 0, &mut buf);
    chunk.append(Epoch(1), 0, &[buf.freeze()]).await?;
    match seal {
        Some(length) => chunk.seal(Epoch(1), Seal { length, next: None }).await,
        None => Ok(()),
    }
}

async fn is_whole(env: &SimEnv, pool: &ThisPool, id: ChunkId, len: u32) -> bool {
    let Some(chunk) = pool.open(id) else { return false };
    let padded = len.next_multiple_of(pool.info().align_bytes.min(512));
    let buf = env.buffers().alloc(padded as usize).await;
    let mut wanted = vec![0; len as usize];
    fill(id, 0, 0, &mut wanted);
    chunk.read(0, buf).await.is_ok_and(|data| data[..len as usize] == wanted[..])
}

#[test]
fn shards_of_a_segment_are_on_different_devices_and_space_is_used_evenly() {
    with(&[geometry(), larger(), geometry()], |_, pool, stores| async move {
        let slots: u32 = stores.iter().map(|store| store.info().slots).sum();
        assert_eq!((pool.info().slots, pool.info().free), (slots, slots));
        let first = pool.create(shard(1, 0), Epoch(1)).await.unwrap();
        assert_eq!(first.device(), device(1), "the largest");
        for segment in 2..6 {
            // Asked for together, as a writer does.
            let (a, b) = (pool.create(shard(segment, 0), Epoch(1)), pool.create(shard(segment, 1), Epoch(1)));
            let both = crate::join(vec![Box::pin(a) as crate::Boxed<_>, Box::pin(b)]).await;
            let devices: Vec<_> = both.into_iter().map(|chunk| chunk.unwrap().device()).collect();
            assert_ne!(devices[0], devices[1]);
        }
        assert_eq!(pool.create(shard(2, 1), Epoch(1)).await.err(), Some(StoreError::Exists));
        for number in 0..pool.info().free {
            pool.create(shard(100 + number, 0), Epoch(1)).await.unwrap();
        }
        assert_eq!(pool.create(shard(99, 0), Epoch(1)).await.err(), Some(StoreError::Full));
        assert_eq!(pool.list(Some(GroupId(1))).len(), slots as usize);
        pool.delete(shard(2, 1), Epoch(1)).await.unwrap();
        assert!(pool.open(shard(2, 1)).is_none() && pool.stat(shard(2, 1)).is_none());
        // Only one device has space, and it has the other shard perhaps: that is better than none.
        pool.create(shard(2, 1), Epoch(1)).await.unwrap();
    });
}

#[test]
fn a_fence_holds_on_all_devices_those_to_come_included() {
    with(&[geometry(), geometry()], |env, pool, stores| async move {
        pool.fence(GroupId(1), Epoch(5)).await.unwrap();
        assert!(stores.iter().all(|store| store.fence_of(GroupId(1)) == Epoch(5)));
        let late = pool.create(shard(1, 0), Epoch(4)).await.err();
        assert_eq!(late, Some(StoreError::Fenced { fence: 5 }));
        // Two pools of one store each, with fences of their own, become one.
        let one = Pool::new(&env, Uuid::nil());
        pool.remove(device(0), false).unwrap();
        pool.remove(device(1), false).unwrap();
        assert_eq!(pool.fence(GroupId(1), Epoch(9)).await, Err(StoreError::Full), "a pool of nothing");
        stores[0].fence(GroupId(7), Epoch(70)).await.unwrap();
        stores[1].fence(GroupId(8), Epoch(80)).await.unwrap();
        stores[1].fence(GroupId(1), Epoch(6)).await.unwrap();
        one.add(stores[0].clone()).await.unwrap();
        one.add(stores[1].clone()).await.unwrap();
        assert_eq!(stores[0].fences(), stores[1].fences());
        let fences: Vec<_> = stores[0].fences().iter().map(|it| (it.group.0, it.epoch.0)).collect();
        assert_eq!(fences, [(1, 6), (7, 70), (8, 80)]);
        assert_eq!(one.fence(GroupId(8), Epoch(79)).await, Err(StoreError::Fenced { fence: 80 }));
    });
}

#[test]
fn a_device_is_drained_while_it_is_used_and_then_removed() {
    with(&[geometry(), geometry(), larger()], |env, pool, stores| async move {
        for segment in 0..6 {
            write(&env, &pool, shard(segment, 0), 8192, Some(8192 - segment * 700)).await.unwrap();
        }
        // An open one on the device that will go.
        let mut open = 10;
        loop {
            write(&env, &pool, shard(open, 0), 512, None).await.unwrap();
            if pool.open(shard(open, 0)).unwrap().device() == device(2) {
                break;
            }
            open += 1;
        }
        assert!(stores[2].list(None).len() >= 3);
        let moving = stores[2].list(None).into_iter().find(|stat| stat.sealed.is_some()).unwrap();
        let handle = pool.open(moving.id).unwrap();
        let reading = handle.read(0, env.buffers().alloc(512).await);
        assert!(matches!(pool.remove(device(2), false), Err(PoolError::NotEmpty { .. })));
        let mut steps = Vec::new();
        // The reader has not begun: it follows the chunk.
        let drained = pool.drain(device(2), |progress| steps.push(progress.chunks_moved)).await.unwrap();
        assert!(reading.await.is_ok());
        assert_ne!(handle.device(), device(2));
        assert_eq!(drained.open, [shard(open, 0)]);
        assert_eq!((drained.unreadable.len(), steps.len()), (0, drained.progress.chunks_total));
        assert_eq!(stores[2].list(None).len(), 1);
        for segment in 0..6 {
            assert!(is_whole(&env, &pool, shard(segment, 0), 8192 - segment * 700).await, "{segment}");
        }
        // The writer goes on and seals; what is created meanwhile goes elsewhere.
        let chunk = pool.open(shard(open, 0)).unwrap();
        chunk.append(Epoch(1), 512, &[ashlar_env::Buf::zeroes(512)]).await.unwrap();
        chunk.seal(Epoch(1), Seal { length: 512, next: None }).await.unwrap();
        assert_ne!(pool.create(shard(99, 0), Epoch(1)).await.unwrap().device(), device(2));
        let drained = pool.drain(device(2), |_| ()).await.unwrap();
        assert!(drained.open.is_empty() && is_whole(&env, &pool, shard(open, 0), 512).await);
        assert_eq!(pool.remove(device(2), false), Ok(vec![]));
        assert_eq!(stores[2].info().free, stores[2].info().slots);
        assert_eq!(pool.delete(moving.id, Epoch(1)).await, Ok(()));
        assert!(matches!(pool.drain(device(2), |_| ()).await, Err(PoolError::Unknown { .. })));
    });
}

#[test]
fn a_drain_without_room_says_so_and_loses_nothing() {
    with(&[geometry(), larger()], |env, pool, _| async move {
        let count = SLOTS as u32 + 3;
        for segment in 0..count {
            write(&env, &pool, shard(segment, 0), 512, Some(512)).await.unwrap();
        }
        let on_it = (0..count).filter(|&n| pool.open(shard(n, 0)).unwrap().device() == device(1)).count();
        let error = pool.drain(device(1), |_| ()).await.unwrap_err();
        let PoolError::NoPlace { left, .. } = error else { panic!("{error}") };
        assert!(left > 0 && left < on_it, "{left} of {on_it}");
        for segment in 0..count {
            assert!(is_whole(&env, &pool, shard(segment, 0), 512).await);
        }
        pool.reopen(device(1)).unwrap();
        assert!(pool.create(shard(99, 0), Epoch(1)).await.is_ok());
    });
}

#[test]
fn devices_that_do_not_fit_are_refused() {
    let sim = Sim::new(1, Profile::calm());
    let coarse = DiskGeometry { block_bytes: 4096, ..geometry() };
    let bench = Bench::new(&sim, &[geometry(), larger(), coarse, coarse]);
    sim.goal_on(bench.node, 0, |env| async move {
        let taps = bench.taps(&env, None);
        let mut stores = Vec::new();
        for (number, tap) in taps.into_iter().enumerate() {
            let mut options = FormatOptions { device: device(number), ..options() };
            match number {
                1 => options.slot_bytes *= 2,
                3 => options.align_bytes_min = 512,
                _ => {}
            }
            stores.push(Store::format(env.clone(), tap, options).await.unwrap());
        }
        let pool = Pool::new(&env, Uuid::nil());
        pool.add(stores[0].clone()).await.unwrap();
        let error = |it: Result<_, PoolError>| it.map(|_| ()).unwrap_err();
        assert!(matches!(error(pool.add(stores[0].clone()).await), PoolError::Present { .. }));
        assert!(matches!(error(pool.add(stores[1].clone()).await), PoolError::ChunkSize { .. }));
        let alignment = error(pool.add(stores[2].clone()).await);
        assert!(matches!(alignment, PoolError::Alignment { align_bytes: 4096, pool: 512, .. }));
        // The other way round the pool's granule is the larger one, and chunks move from small granules to large.
        let pool = Pool::new(&env, Uuid::nil());
        pool.add(stores[2].clone()).await.unwrap();
        write(&env, &pool, shard(9, 0), 4096, None).await.unwrap();
        pool.add(stores[0].clone()).await.unwrap();
        assert_eq!(pool.info().align_bytes, 4096);
        write(&env, &pool, shard(1, 0), 8192, Some(4700)).await.unwrap();
        assert_eq!(pool.open(shard(1, 0)).unwrap().device(), device(0));
        pool.drain(device(0), |_| ()).await.unwrap();
        let chunk = pool.open(shard(1, 0)).unwrap();
        let data = chunk.read(0, env.buffers().alloc(8192).await).await.unwrap();
        let mut wanted = vec![0; 4700];
        fill(shard(1, 0), 0, 0, &mut wanted);
        assert!(data[..4700] == wanted[..] && chunk.device() == device(2));
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_failed_device_is_passed_over_and_can_be_drained_and_removed() {
    let sim = Sim::new(3, Profile::calm());
    let bench = Bench::new(&sim, &[geometry(), geometry()]);
    sim.goal_on(bench.node, 0, |env| async move {
        drop(bench.format(&env).await);
        let mut taps = bench.taps(&env, None);
        let failing =
            Tap { count: Rc::default(), blow: Some((8, Blow::Fail { done: false })), ..taps.remove(0) };
        let pool: ThisPool = Pool::new(&env, Uuid::nil());
        pool.add(Store::open(env.clone(), failing).await.unwrap()).await.unwrap();
        pool.add(Store::open(env.clone(), taps.remove(0)).await.unwrap()).await.unwrap();
        // Flush, two headers, data, two headers: the seventh and eighth are the next chunk's headers there.
        write(&env, &pool, shard(1, 0), 512, Some(512)).await.unwrap();
        assert_eq!(pool.open(shard(1, 0)).unwrap().device(), device(0));
        for segment in 2..6 {
            write(&env, &pool, shard(segment, 0), 512, Some(512)).await.unwrap();
        }
        assert!(pool.stores()[0].info().failed && !pool.info().failed);
        assert_eq!(pool.fence(GroupId(1), Epoch(1)).await, Ok(()), "the failed one cannot be written anyway");
        let drained = pool.drain(device(0), |_| ()).await.unwrap();
        assert_eq!((drained.progress.chunks_moved, drained.open.len()), (1, 0));
        assert_eq!(pool.remove(device(0), false), Ok(vec![]));
        for segment in 1..6 {
            assert!(is_whole(&env, &pool, shard(segment, 0), 512).await);
        }
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

/// Two devices with chunks, and the first drained: the script for the crash test. How many operations it had.
fn drained_with(seed: u64, blow: Option<(u64, Blow)>) -> u64 {
    let sim = Sim::new(seed, Profile::calm());
    let bench = Bench::new(&sim, &[geometry(), geometry()]);
    let (control, disks) = (sim.control(), bench.clone());
    let maker = sim.node("maker", 1);
    let failure = Rc::new(RefCell::new(String::new()));
    let told = Rc::clone(&failure);
    sim.goal_on(maker, 0, |env| async move {
        drop(disks.format(&env).await);
        let pool = disks.pool(&env, None).await;
        for segment in 0..4 {
            write(&env, &pool, shard(segment, 0), 4096, Some(3000)).await.unwrap();
        }
        drop(pool);
        disks.count.issued.set(0);
        let first = disks.clone();
        control.spawn_on(disks.node, 0, |env| async move {
            let pool = first.pool(&env, blow).await;
            let _ = pool.drain(device(0), |_| ()).await;
        });
        env.sleep_until(env.now().plus(Duration::from_secs(2))).await;
        if control.is_up(disks.node) {
            control.crash(disks.node, Crash::Power);
        }
        control.restart(disks.node);
        let (again, told) = (disks.clone(), Rc::clone(&told));
        let count = disks.count.issued.get();
        control.spawn_on(disks.node, 0, |env| async move {
            let pool = again.pool(&env, None).await;
            for segment in 0..4 {
                if !is_whole(&env, &pool, shard(segment, 0), 3000).await {
                    told.borrow_mut().push_str("a chunk is not whole; ");
                }
            }
            let on_both: u32 = pool.stores().iter().map(|store| store.info().slots - store.info().free).sum();
            if on_both != 4 {
                told.borrow_mut().push_str(&format!("{on_both} slots are used for 4 chunks; "));
            }
            let drained = pool.drain(device(0), |_| ()).await.unwrap();
            let ended = drained.open.is_empty() && pool.remove(device(0), false).is_ok();
            if !ended {
                told.borrow_mut().push_str("not drained; ");
            }
            told.borrow_mut().push_str("end");
        });
        env.sleep_until(env.now().plus(Duration::from_secs(2))).await;
        disks.count.issued.set(count);
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(*failure.borrow(), "end", "seed {seed}, {blow:?}");
    bench.count.issued.get()
}

#[test]
fn a_drain_survives_a_crash_and_a_failure_at_any_operation() {
    let operations = drained_with(0, None);
    // Two flushes at the opening; for each of two chunks three pairs of headers and the data.
    assert_eq!(operations, 2 + 2 * 7);
    for at in 1..=operations {
        drained_with(at, Some((at, Blow::Crash(Crash::Power))));
        drained_with(at, Some((at, Blow::Fail { done: at % 2 == 0 })));
    }
}
