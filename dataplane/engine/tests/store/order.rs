//! What waits for what, and what is written first: with a disk that can be held up.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::chunks::{Chunk, Chunks, Seal, StoreError};
use ashlar_engine::ids::{Epoch, GroupId};
use ashlar_engine::store::format::{Geometry, HEADER_BYTES, SlotHeader};
use ashlar_engine::store::{ChunkStore, FormatOptions, Pool};
use ashlar_env::buf::Buf;
use ashlar_env::disk::{Disk, Durability};
use ashlar_env::{Clock, Env, Spawn};
use ashlar_sim::{DiskId, Profile, Sim, SimEnv};
use uuid::Uuid;

use crate::gate::Gate;
use crate::model::id;
use crate::{calmly, geometry, options};

type Store = ChunkStore<SimEnv, Gate>;

async fn sleep(env: &SimEnv, ms: u64) {
    env.sleep_until(env.now().plus(Duration::from_millis(ms))).await;
}

/// Runs `task` aside; whether it has ended, and how.
fn aside<T: Copy + 'static>(env: &SimEnv, task: impl Future<Output = T> + 'static) -> Rc<Cell<Option<T>>> {
    let ended = Rc::new(Cell::new(None));
    let told = Rc::clone(&ended);
    env.spawn(async move { told.set(Some(task.await)) });
    ended
}

/// A store with an open chunk whose append is held up; with `polled` the append is awaited by a task of its own, else
/// its future is kept and not polled.
fn while_an_append_is_in_flight<F: Future<Output = ()> + 'static>(
    test: impl Fn(SimEnv, Store, Gate) -> F + Copy + 'static,
) {
    for polled in [true, false] {
        calmly(move |env, disk| async move {
            let gate = Gate::new(&env, env.open_disk(disk));
            let store = Store::format(env.clone(), gate.clone(), options()).await.unwrap();
            let chunk = store.create(id(1, 1), Epoch(1)).await.unwrap();
            gate.switch.hold.set(true);
            let append = chunk.append(Epoch(1), 0, &[Buf::zeroes(512)]);
            let (mut kept, mut ended) = (None, None);
            if polled {
                ended = Some(aside(&env, async move { append.await.is_ok() }));
            } else {
                kept = Some(append);
            }
            test(env.clone(), store, gate).await;
            sleep(&env, 10).await;
            let done = match (kept, ended) {
                (Some(append), _) => append.await.is_ok(),
                (None, ended) => ended.and_then(|ended| ended.get()) == Some(true),
            };
            assert!(done, "the append was done all the same");
        });
    }
}

#[test]
fn a_fence_waits_for_older_appends() {
    while_an_append_is_in_flight(|env, store, gate| async move {
        let fence = aside(&env, store.fence(GroupId(1), Epoch(2)).map_ok());
        sleep(&env, 100).await;
        assert_eq!(
            (store.fence_of(GroupId(1)), fence.get()),
            (Epoch(2), None),
            "it holds and is not promised"
        );
        gate.switch.hold.set(false);
        sleep(&env, 100).await;
        assert_eq!(fence.get(), Some(true));
    });
}

#[test]
fn a_fence_of_the_same_writer_waits_for_nobody() {
    while_an_append_is_in_flight(|env, store, gate| async move {
        let fence = aside(&env, store.fence(GroupId(1), Epoch(1)).map_ok());
        let other = aside(&env, store.fence(GroupId(2), Epoch(9)).map_ok());
        sleep(&env, 100).await;
        assert_eq!((fence.get(), other.get()), (Some(true), Some(true)));
        gate.switch.hold.set(false);
    });
}

#[test]
fn a_seal_waits_for_the_appends_before_it() {
    while_an_append_is_in_flight(|env, store, gate| async move {
        let chunk = store.open(id(1, 1)).unwrap();
        let before = gate.switch.writes.borrow().len();
        let seal = aside(&env, chunk.seal(Epoch(1), Seal { length: 512, next: None }).map_ok());
        sleep(&env, 100).await;
        assert_eq!(seal.get(), None);
        assert!(gate.switch.writes.borrow().len() <= before + 1, "no header, at most the append");
        gate.switch.hold.set(false);
        sleep(&env, 100).await;
        assert_eq!(seal.get(), Some(true));
    });
}

#[test]
fn a_deletion_waits_for_appends() {
    while_an_append_is_in_flight(|env, store, gate| async move {
        let delete = aside(&env, store.delete(id(1, 1), Epoch(1)).map_ok());
        sleep(&env, 100).await;
        assert_eq!((delete.get(), store.info().free), (None, store.info().slots - 1));
        gate.switch.hold.set(false);
        sleep(&env, 100).await;
        assert_eq!((delete.get(), store.info().free), (Some(true), store.info().slots));
    });
}

#[test]
fn a_deletion_waits_for_reads() {
    calmly(|env, disk| async move {
        let store =
            Store::format(env.clone(), Gate::new(&env, env.open_disk(disk)), options()).await.unwrap();
        let chunk = store.create(id(1, 1), Epoch(1)).await.unwrap();
        for keep in [true, false] {
            let reading = chunk.read(0, env.buffers().alloc(512).await);
            let delete = aside(&env, store.delete(id(1, 1), Epoch(1)).map_ok());
            sleep(&env, 100).await;
            assert_eq!(
                delete.get(),
                if keep { None } else { Some(false) },
                "deleted already the second time"
            );
            drop(reading);
            sleep(&env, 100).await;
            assert!(delete.get().is_some());
        }
    });
}

/// What an operation comes to, as a value that can be copied.
trait MapOk {
    fn map_ok(self) -> impl Future<Output = bool> + 'static;
}

impl<F: Future<Output = Result<(), StoreError>> + 'static> MapOk for F {
    async fn map_ok(self) -> bool {
        self.await.is_ok()
    }
}

async fn rot(env: &SimEnv, disk: DiskId, page: u64) {
    let disk = env.open_disk(disk);
    let mut bytes = disk.read(page, env.buffers().alloc(4096).await).await.unwrap();
    bytes[100] ^= 4;
    disk.write(page, bytes.freeze(), Durability::Fua).await.unwrap();
}

#[test]
fn the_only_good_copy_is_never_written_first() {
    let plan = Geometry::plan(geometry().size_bytes, options().slot_bytes, 512, 1).unwrap();
    for side in [0, 4096] {
        calmly(move |env, disk| async move {
            let gate = || Gate::new(&env, env.open_disk(disk));
            drop(Store::format(env.clone(), gate(), options()).await.unwrap());
            let (header, fence) = (plan.slot_start(0), plan.fence_page_start(0));
            rot(&env, disk, header + side).await;
            rot(&env, disk, fence + side).await;
            let gate = gate();
            let store = Store::open(env.clone(), gate.clone()).await.unwrap();
            store.create(id(1, 1), Epoch(1)).await.unwrap();
            store.fence(GroupId(1), Epoch(1)).await.unwrap();
            let wanted = [header + side, header + 4096 - side, fence + side, fence + 4096 - side];
            assert_eq!(*gate.switch.writes.borrow(), wanted);
        });
    }
}

#[test]
fn headers_are_numbered_upwards_in_all_lives() {
    let plan = Geometry::plan(geometry().size_bytes, options().slot_bytes, 512, 1).unwrap();
    calmly(move |env, disk| async move {
        let gate = || Gate::new(&env, env.open_disk(disk));
        drop(Store::format(env.clone(), gate(), options()).await.unwrap());
        let mut last = 0;
        for slot in 0..plan.slots {
            let store = Store::open(env.clone(), gate()).await.unwrap();
            store.create(id(1, slot), Epoch(1)).await.unwrap();
            let page = gate().read(plan.slot_start(slot), env.buffers().alloc(4096).await).await.unwrap();
            let header = SlotHeader::decode(page[..HEADER_BYTES].try_into().unwrap()).unwrap();
            assert!(header.sequence > last);
            last = header.sequence;
        }
    });
}

#[test]
fn a_copy_that_does_not_read_back_as_written_is_not_trusted() {
    let sim = Sim::new(1, Profile::calm());
    let node = sim.node("node", 1);
    let disks = [sim.disk("good", geometry()), sim.disk("rotten", geometry())];
    sim.goal_on(node, 0, |env| async move {
        let pool = Pool::new(&env, Uuid::nil());
        let mut gates = Vec::new();
        for (number, disk) in disks.into_iter().enumerate() {
            let gate = Gate::new(&env, env.open_disk(disk));
            let options = FormatOptions { device: Uuid::from_u128(10 + number as u128), ..options() };
            let store = ChunkStore::format(env.clone(), gate.clone(), options).await.unwrap();
            pool.add(store).await.unwrap();
            gates.push(gate);
        }
        let chunk = pool.create(id(1, 1), Epoch(1)).await.unwrap();
        assert_eq!(chunk.device(), Uuid::from_u128(10), "the first of two equal ones");
        chunk.append(Epoch(1), 0, &[Buf::zeroes(1024)]).await.unwrap();
        chunk.seal(Epoch(1), Seal { length: 1024, next: None }).await.unwrap();
        gates[1].switch.spoil.set(true);
        let drained = pool.drain(Uuid::from_u128(10), |_| ()).await.unwrap();
        assert_eq!((drained.unreadable, drained.progress.chunks_moved), (vec![id(1, 1)], 0));
        assert_eq!(chunk.device(), Uuid::from_u128(10));
        let data = chunk.read(0, env.buffers().alloc(1024).await).await.unwrap();
        assert!(data.iter().all(|&byte| byte == 0));
        let rotten = &pool.stores()[1];
        assert_eq!(rotten.info().free, rotten.info().slots, "the copy's slot is free again");
        gates[1].switch.spoil.set(false);
        assert_eq!(pool.drain(Uuid::from_u128(10), |_| ()).await.unwrap().progress.chunks_moved, 1);
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}
