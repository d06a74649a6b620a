//! Who may do what, and when.

use std::time::Duration;

use ashlar_engine::chunks::{Chunk, ChunkStat, Chunks, Seal, StoreError};
use ashlar_engine::ids::{Epoch, GroupId, SegmentId};
use ashlar_engine::store::{ChunkStore, LocalChunk, OpenOptions};
use ashlar_env::buf::Buf;
use ashlar_env::{Clock, Env};
use ashlar_sim::{SimDisk, SimEnv};

use crate::model::id;
use crate::{Boxed, SLOT_BYTES, SLOTS, calmly, join, options};

type Store = ChunkStore<SimEnv, SimDisk>;

const CAPACITY: u32 = SLOT_BYTES - 8192;

/// Runs `test` with a new store.
fn with<F: Future<Output = ()> + 'static>(test: impl FnOnce(SimEnv, Store) -> F + 'static) {
    calmly(|env, disk| async move {
        let store = Store::format(env.clone(), env.open_disk(disk), options()).await.unwrap();
        test(env, store).await;
    });
}

fn data(env: &SimEnv, byte: u8, len: u32) -> Buf {
    let mut buf = env.buffers().try_alloc(len as usize).unwrap();
    buf.fill(byte);
    buf.freeze()
}

async fn read(
    env: &SimEnv,
    chunk: &LocalChunk<SimEnv, SimDisk>,
    at: u32,
    len: usize,
) -> Result<Vec<u8>, StoreError> {
    let buf = env.buffers().alloc(len).await;
    chunk.read(at, buf).await.map(|data| data.to_vec())
}

const fn seal(length: u32) -> Seal {
    Seal { length, next: None }
}

#[test]
fn appends_are_at_the_end_aligned_and_of_the_creator() {
    with(|env, store| async move {
        let chunk = store.create(id(1, 1), Epoch(5)).await.unwrap();
        let piece = data(&env, 1, 512);
        let append =
            |epoch, at, data: Vec<Buf>| -> Boxed<_> { Box::pin(chunk.append(Epoch(epoch), at, &data)) };
        assert_eq!(append(5, 0, vec![piece.clone()]).await, Ok(()));
        let rows: [(u64, u32, Buf, StoreError); 8] = [
            (5, 1024, piece.clone(), StoreError::NotAtEnd { end: 512, asked: 1024 }),
            (5, 0, data(&env, 1, 1024), StoreError::NotAtEnd { end: 512, asked: 0 }),
            (5, 100, piece.clone(), StoreError::NotAtEnd { end: 512, asked: 100 }),
            (4, 512, piece.clone(), StoreError::Fenced { fence: 5 }),
            (6, 512, piece.clone(), StoreError::Sealed),
            (5, 512, piece.slice(0, 100), StoreError::OutOfRange),
            (5, 512, data(&env, 1, CAPACITY), StoreError::OutOfRange),
            (5, u32::MAX, piece.clone(), StoreError::NotAtEnd { end: 512, asked: u32::MAX }),
        ];
        for (epoch, at, data, error) in rows {
            assert_eq!(append(epoch, at, vec![data]).await, Err(error), "epoch {epoch} at {at}");
        }
        assert_eq!(append(5, 512, vec![]).await, Ok(()), "nothing is appended anywhere");
        assert_eq!(append(5, 0, vec![piece.clone()]).await, Ok(()), "the last append once more");
        assert_eq!(append(5, 512, vec![data(&env, 2, CAPACITY - 512)]).await, Ok(()), "up to the last byte");
        assert_eq!(append(5, CAPACITY, vec![piece]).await, Err(StoreError::OutOfRange));
        let all = read(&env, &chunk, 0, CAPACITY as usize).await.unwrap();
        assert!(all[..512].iter().all(|&byte| byte == 1) && all[512..].iter().all(|&byte| byte == 2));
        assert_eq!(read(&env, &chunk, CAPACITY - 512, 1024).await, Err(StoreError::OutOfRange));
        assert_eq!(read(&env, &chunk, 100, 512).await, Err(StoreError::OutOfRange));
    });
}

#[test]
fn a_repeated_append_waits_for_the_first_and_writes_nothing() {
    with(|env, store| async move {
        let chunk = store.create(id(1, 1), Epoch(5)).await.unwrap();
        let piece = data(&env, 1, 512);
        let first = chunk.append(Epoch(5), 0, std::slice::from_ref(&piece));
        // Data that differ show whether the second one is written; the store compares place and length only.
        let again = chunk.append(Epoch(5), 0, &[data(&env, 9, 512)]);
        let more = chunk.append(Epoch(5), 512, &[data(&env, 2, 512)]);
        let late = chunk.append(Epoch(5), 0, &[piece]);
        let flying: Vec<Boxed<_>> = vec![Box::pin(again), Box::pin(more), Box::pin(first), Box::pin(late)];
        let ended = join(flying).await;
        let not_last = Err(StoreError::NotAtEnd { end: 1024, asked: 0 });
        assert_eq!(ended, [Ok(()), Ok(()), Ok(()), not_last]);
        let all = read(&env, &chunk, 0, 1024).await.unwrap();
        assert_eq!((all[0], all[511], all[512]), (1, 1, 2));
    });
}

#[test]
fn a_dropped_future_ends_what_was_begun() {
    with(|env, store| async move {
        drop(store.create(id(1, 1), Epoch(5)));
        drop(store.fence(GroupId(2), Epoch(3)));
        env.sleep_until(env.now().plus(Duration::from_secs(1))).await;
        let chunk = store.open(id(1, 1)).expect("it was created");
        drop(chunk.append(Epoch(5), 0, &[data(&env, 1, 512)]));
        assert_eq!(chunk.append(Epoch(5), 512, &[data(&env, 2, 512)]).await, Ok(()));
        drop(chunk.seal(Epoch(5), seal(1024)));
        env.sleep_until(env.now().plus(Duration::from_secs(1))).await;
        let all = read(&env, &chunk, 0, 1024).await.unwrap();
        assert_eq!((all[0], all[512]), (1, 2));
        assert_eq!(store.stat(id(1, 1)).unwrap().sealed, Some(seal(1024)));
        assert_eq!(store.fences().len(), 1);
        drop(store.delete(id(1, 1), Epoch(5)));
        env.sleep_until(env.now().plus(Duration::from_secs(1))).await;
        assert!(store.open(id(1, 1)).is_none());
    });
}

#[test]
fn a_seal_holds_what_was_appended_and_is_said_once() {
    with(|env, store| async move {
        let chunk = store.create(id(1, 1), Epoch(5)).await.unwrap();
        let append = chunk.append(Epoch(5), 0, &[data(&env, 1, 1024)]);
        let end = |length, error| (seal(length), error);
        for (asked, error) in [
            end(1536, StoreError::NotAtEnd { end: 1024, asked: 1536 }),
            end(CAPACITY + 1, StoreError::OutOfRange),
        ] {
            assert_eq!(chunk.seal(Epoch(5), asked).await, Err(error));
        }
        assert_eq!(chunk.seal(Epoch(4), seal(512)).await, Err(StoreError::Fenced { fence: 5 }));
        let next = Seal { length: 700, next: Some(SegmentId(0)) };
        let sealing = chunk.seal(Epoch(9), next);
        let twin = chunk.seal(Epoch(5), next);
        let other = chunk.seal(Epoch(5), seal(700));
        let after = chunk.append(Epoch(5), 1024, &[data(&env, 1, 512)]);
        let flying: Vec<Boxed<_>> =
            vec![Box::pin(twin), Box::pin(other), Box::pin(after), Box::pin(sealing), Box::pin(append)];
        let sealed = Err(StoreError::Sealed);
        assert_eq!(join(flying).await, [Ok(()), sealed.clone(), sealed, Ok(()), Ok(())]);
        assert_eq!(chunk.stat(), ChunkStat { id: id(1, 1), epoch: Epoch(5), sealed: Some(next) });
        assert_eq!(chunk.seal(Epoch(5), next).await, Ok(()));
        assert!(read(&env, &chunk, 512, 512).await.is_ok(), "the granule with the last byte");
        assert_eq!(read(&env, &chunk, 1024, 512).await, Err(StoreError::OutOfRange), "what lies beyond");
    });
}

#[test]
fn a_fence_keeps_older_writers_out_and_waits_for_those_inside() {
    with(|env, store| async move {
        let chunk = store.create(id(1, 1), Epoch(5)).await.unwrap();
        let other = store.create(id(2, 1), Epoch(5)).await.unwrap();
        let begun = store.create(id(1, 2), Epoch(5));
        let mut append = Box::pin(chunk.append(Epoch(5), 0, &[data(&env, 1, 512)]));
        assert_eq!(store.fence(GroupId(1), Epoch(6)).await, Ok(()));
        let now = std::future::poll_fn(|cx| std::task::Poll::Ready(append.as_mut().poll(cx)));
        assert!(now.await.is_ready(), "nothing of an older writer is in flight");
        let fenced = StoreError::Fenced { fence: 6 };
        assert_eq!(store.list(Some(GroupId(1))).len(), 2, "and what was begun is there");
        assert!(begun.await.is_ok());
        assert_eq!(chunk.append(Epoch(5), 512, &[data(&env, 1, 512)]).await, Err(fenced.clone()));
        assert_eq!(chunk.seal(Epoch(5), seal(512)).await, Err(fenced.clone()));
        assert_eq!(store.delete(id(1, 1), Epoch(5)).await, Err(fenced.clone()));
        assert_eq!(store.create(id(1, 3), Epoch(5)).await.err(), Some(fenced.clone()));
        assert_eq!(store.fence(GroupId(1), Epoch(5)).await, Err(fenced));
        assert_eq!(store.fence(GroupId(1), Epoch(6)).await, Ok(()), "the same again");
        assert_eq!(chunk.seal(Epoch(6), seal(512)).await, Ok(()));
        assert_eq!(store.delete(id(1, 1), Epoch(6)).await, Ok(()));
        assert_eq!(other.append(Epoch(5), 0, &[data(&env, 1, 512)]).await, Ok(()), "another group");
        assert_eq!(store.forget_fence(GroupId(1)).await, Ok(false), "a chunk of the group is here");
        assert_eq!(store.delete(id(1, 2), Epoch(6)).await, Ok(()));
        assert_eq!(store.forget_fence(GroupId(1)).await, Ok(true));
        assert!(store.fences().is_empty());
    });
}

#[test]
fn slots_run_out_are_kept_in_reserve_and_come_back() {
    with(|_, store| async move {
        store.set_reserve(2);
        assert_eq!((store.info().slots, store.info().free), (SLOTS as u32, SLOTS as u32 - 2));
        for segment in 0..4 {
            store.create(id(1, segment), Epoch(1)).await.unwrap();
        }
        assert_eq!(store.create(id(1, 0), Epoch(1)).await.err(), Some(StoreError::Exists));
        assert_eq!(store.create(id(1, 9), Epoch(1)).await.err(), Some(StoreError::Full));
        assert_eq!(store.info().free, 0);
        for segment in 4..6 {
            store.create_reserved(id(1, segment), Epoch(1)).await.unwrap();
        }
        assert_eq!(store.create_reserved(id(1, 9), Epoch(1)).await.err(), Some(StoreError::Full));
        store.set_reserve(0);
        store.delete(id(1, 2), Epoch(1)).await.unwrap();
        assert_eq!(store.info().free, 1, "it counts, though it is being discarded");
        // Waits for the discard.
        store.create(id(1, 2), Epoch(1)).await.unwrap();
        assert_eq!(store.delete(id(1, 77), Epoch(1)).await, Err(StoreError::NotFound));
    });
}

#[test]
fn to_delete_waits_for_readers_and_ends_the_handles() {
    with(|env, store| async move {
        let chunk = store.create(id(1, 1), Epoch(1)).await.unwrap();
        chunk.append(Epoch(1), 0, &[data(&env, 7, 4096)]).await.unwrap();
        let reading = chunk.read(0, env.buffers().alloc(4096).await);
        let mut deleting: Boxed<_> = Box::pin(store.delete(id(1, 1), Epoch(1)));
        let poll = |deleting: &mut Boxed<Result<(), StoreError>>| {
            let waker = std::task::Waker::noop();
            deleting.as_mut().poll(&mut std::task::Context::from_waker(waker))
        };
        assert!(poll(&mut deleting).is_pending());
        env.sleep_until(env.now().plus(Duration::from_secs(1))).await;
        assert!(poll(&mut deleting).is_pending(), "the reader has not taken its data");
        assert_eq!(read(&env, &chunk, 0, 512).await, Err(StoreError::NotFound), "no new reader");
        assert!(reading.await.unwrap().iter().all(|&byte| byte == 7));
        assert_eq!(deleting.await, Ok(()));
        let second = store.create(id(1, 1), Epoch(1)).await.unwrap();
        assert_eq!(read(&env, &chunk, 0, 512).await, Err(StoreError::NotFound), "the old handle is dead");
        assert_eq!(chunk.append(Epoch(1), 4096, &[data(&env, 1, 512)]).await, Err(StoreError::NotFound));
        assert!(second.append(Epoch(1), 0, &[data(&env, 1, 512)]).await.is_ok());
    });
}

#[test]
fn a_chunk_found_open_is_read_and_sealed_but_not_appended_to() {
    calmly(|env, disk| async move {
        let store = Store::format(env.clone(), env.open_disk(disk), options()).await.unwrap();
        let chunk = store.create(id(1, 1), Epoch(5)).await.unwrap();
        chunk.append(Epoch(5), 0, &[data(&env, 3, 1024)]).await.unwrap();
        drop((store, chunk));
        let options = OpenOptions { reserve_slots: 1, ..OpenOptions::default() };
        let store = Store::open_with(env.clone(), env.open_disk(disk), options).await.unwrap();
        assert_eq!(store.info().free, SLOTS as u32 - 2);
        let chunk = store.open(id(1, 1)).unwrap();
        assert_eq!((chunk.stat().sealed, chunk.end()), (None, None));
        let append = chunk.append(Epoch(5), 1024, &[data(&env, 3, 512)]);
        assert_eq!(append.await, Err(StoreError::Sealed));
        assert!(read(&env, &chunk, 0, 4096).await.unwrap()[..1024].iter().all(|&byte| byte == 3));
        assert_eq!(chunk.seal(Epoch(6), seal(1024)).await, Ok(()));
        assert_eq!(store.list(None), [chunk.stat()]);
    });
}

#[test]
fn all_groups_are_listed_in_order_or_one() {
    with(|_, store| async move {
        for (group, segment) in [(3, 1), (1, 2), (2, 5), (1, 1)] {
            store.create(id(group, segment), Epoch(1)).await.unwrap();
        }
        let ids = |group| store.list(group).into_iter().map(|stat| stat.id).collect::<Vec<_>>();
        assert_eq!(ids(None), [id(1, 1), id(1, 2), id(2, 5), id(3, 1)]);
        assert_eq!(ids(Some(GroupId(1))), [id(1, 1), id(1, 2)]);
        assert_eq!(ids(Some(GroupId(0))), []);
    });
}
