//! The log on stores in memory, without faults: what is appended is applied in order, and found again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ashlar_codec::crc32c;
use ashlar_engine::ids::{Epoch, SegmentId, SegmentKind};
use ashlar_engine::log::record::decode_header;
use ashlar_engine::log::{
    Applied, AppliedOp, BlockSum, Event, LocalCoordinator, Log, LogConfig, LogError, Op, Planted,
    RecoverError, Sink, recover,
};
use ashlar_engine::segment::{SegmentWriter, Segments};
use ashlar_engine::testing::{Medium, MemoryStore};
use ashlar_env::buf::PoolPlan;
use ashlar_env::{Buf, BufMut, BufPool, Clock};
use ashlar_sim::{Profile, Sim, SimEnv};
use smallvec::SmallVec;

use crate::support::LANE;

#[derive(Clone, Default)]
struct Seen(Rc<RefCell<Vec<String>>>);

impl Seen {
    fn note(&self, op: &AppliedOp<'_>) {
        let what = match op.op {
            Applied::Control(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => format!("{other:?}"),
        };
        self.0.borrow_mut().push(what);
    }
}

impl Sink for Seen {
    fn applied(&self, op: &AppliedOp<'_>) {
        self.note(op);
    }

    fn segment_opened(&self, _: SegmentId) {}

    fn segment_sealed(&self, _: SegmentId, _: u32) {}
}

fn buf(len: usize, fill: u8) -> BufMut {
    let pool = BufPool::on_heap(PoolPlan { limits: [1, 1, 1, 1, 1] });
    let mut buf = pool.try_alloc(len).unwrap();
    buf.fill(fill);
    buf
}

fn data(first: u64, blocks: usize, fill: u8) -> Op {
    let payload = buf(blocks * 4096, fill).freeze();
    let sums: SmallVec<[BlockSum; 4]> =
        payload.chunks(4096).map(|block| BlockSum { crc: crc32c(block), granules: 64 }).collect();
    Op::Data { volume: 1, first, payload, sums }
}

fn control(text: &str) -> Op {
    Op::Control(Buf::from_heap(text.as_bytes().into()))
}

fn segments(env: &SimEnv, media: &[Medium]) -> Segments<MemoryStore<SimEnv>> {
    let stores = media.iter().map(|medium| MemoryStore::new(env.clone(), medium.clone()));
    Segments::new(LANE, stores.collect())
}

/// Runs `body` on one node with calm disks.
fn run<F: Future<Output = ()> + 'static>(body: impl FnOnce(SimEnv) -> F) {
    let sim = Sim::new(1, Profile::swarm(1));
    let node = sim.node("node", 1);
    sim.goal_on(node, 0, body);
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

fn media(count: u128, slots: u32) -> Vec<Medium> {
    let media: Vec<_> = (0..count).map(|n| Medium::new(n, 1 << 20, 512, slots)).collect();
    for medium in &media {
        medium.set_faults(|faults| {
            faults.delay_min = Duration::from_micros(10);
            faults.delay_max = Duration::from_micros(100);
        });
    }
    media
}

async fn create(env: &SimEnv, segments: &Segments<MemoryStore<SimEnv>>, seen: &Seen) -> TestLog {
    let coordinator = Rc::new(LocalCoordinator::default());
    let config = LogConfig::default();
    Log::create(env.clone(), segments.clone(), coordinator, Epoch(1), config, seen.clone()).await.unwrap()
}

type TestLog = Log<SimEnv, MemoryStore<SimEnv>, Seen>;

#[test]
fn appends_are_applied_in_order_over_many_segments_and_recovered() {
    run(|env| async move {
        let media = media(3, 64);
        let seen = Seen::default();
        let segments = segments(&env, &media);
        let log = create(&env, &segments, &seen).await;
        let start = log.position();
        let mut waiting = Vec::new();
        for n in 0..200u64 {
            waiting.push(log.append(control(&format!("control {n}"))));
            waiting.push(log.append(data(n * 8, 1 + (n % 40) as usize, n as u8)));
            if n % 7 == 0 {
                waiting.push(log.append(Op::Unmap { volume: 1, first: n, count: 3 }));
            }
        }
        for one in waiting {
            one.await.unwrap();
        }
        let end = log.settled().await.unwrap();
        assert!(end.segment.0 > 10, "{end:?}");
        let written = seen.0.borrow().clone();
        assert_eq!(written.len(), 429);
        drop(log);

        let again = Seen::default();
        let segments = Segments::new(LANE, segments.stores().to_vec());
        let coordinator = LocalCoordinator::default();
        let note = again.clone();
        let each = move |event: Event<'_>| {
            if let Event::Applied(op) = event {
                note.note(&op);
            }
        };
        let config = LogConfig::default();
        let recovered = recover(&env, &segments, &coordinator, Epoch(2), start, &config, each).await.unwrap();
        assert_eq!(*again.0.borrow(), written);
        assert_eq!(recovered.position.sequence, end.sequence);

        let log = Log::resume(
            env.clone(),
            segments.clone(),
            Rc::new(coordinator),
            Epoch(2),
            config,
            again.clone(),
            recovered,
        );
        log.append(control("after")).await.unwrap();
        assert_eq!(again.0.borrow().last().unwrap(), "after");
    });
}

#[test]
fn what_is_stored_can_be_read_where_the_sink_was_told() {
    run(|env| async move {
        let media = media(1, 8);
        let seen = Seen::default();
        let segments = segments(&env, &media);
        let log = create(&env, &segments, &seen).await;
        log.append(data(5, 2, 0x77)).await.unwrap();
        log.append(data(9, 100, 0x78)).await.unwrap();
        let told = seen.0.borrow().clone();
        assert!(told[1].contains("granule"), "{told:?}");
        let granule: u32 =
            told[1].rsplit("granule: ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
        let bytes = segments.read(SegmentId(1), granule * 64, buf(4096 * 100, 0)).await.unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0x78));
    });
}

#[test]
fn an_operation_that_cannot_be_logged_is_refused_alone() {
    run(|env| async move {
        let media = media(1, 8);
        let segments = segments(&env, &media);
        let log = create(&env, &segments, &Seen::default()).await;
        let torn = Op::Data { volume: 1, first: 1, payload: buf(64, 1).freeze(), sums: SmallVec::new() };
        assert_eq!(log.append(torn).await, Err(LogError::Invalid));
        assert_eq!(log.append(data(1, 256, 1)).await, Err(LogError::Invalid), "a segment is a MiB here");
        assert_eq!(log.append(Op::Zero { volume: 0, first: 0, count: 0 }).await, Err(LogError::Invalid));
        log.append(control("fine")).await.unwrap();
        log.roll().await.unwrap();
        assert_eq!(log.position().segment, SegmentId(2));
    });
}

/// How much of a chunk is used by records, in bytes from its beginning: where each of them begins.
fn records(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    while let Ok(record) = decode_header(&bytes[*starts.last().unwrap()..]) {
        starts.push(starts.last().unwrap() + record.total_bytes());
    }
    starts
}

/// Three records, and at the place of a fourth a copy of the second: a misdirected write. What a
/// recovery finds.
async fn misdirected(env: SimEnv, planted: Planted) -> Vec<String> {
    let media = media(1, 8);
    let seen = Seen::default();
    let segments = segments(&env, &media);
    let log = create(&env, &segments, &seen).await;
    let start = log.position();
    for n in 0..3 {
        log.append(control(&format!("record {n}"))).await.unwrap();
    }
    drop(log);
    let id = segments.chunk_id(SegmentId(1), SegmentKind::Log, 0);
    let (bytes, _) = media[0].chunk(id).unwrap();
    let starts = records(&bytes);
    assert_eq!(starts.len(), 4);
    for at in starts[1]..starts[2] {
        media[0].rot(id, (starts[3] + at - starts[1]) as u32, bytes[at] ^ bytes[starts[3] + at - starts[1]]);
    }
    let again = Seen::default();
    let note = again.clone();
    let each = move |event: Event<'_>| {
        if let Event::Applied(op) = event {
            note.note(&op);
        }
    };
    let config = LogConfig { planted, ..LogConfig::default() };
    let segments = Segments::new(LANE, segments.stores().to_vec());
    recover(&env, &segments, &LocalCoordinator::default(), Epoch(2), start, &config, each).await.unwrap();
    again.0.take()
}

#[test]
fn a_record_of_another_place_is_not_taken_for_the_next_one() {
    run(|env| async move {
        let found = misdirected(env.clone(), Planted::default()).await;
        assert_eq!(found, ["record 0", "record 1", "record 2"]);
        let fooled = misdirected(env, Planted { skip_chain: true, ..Planted::default() }).await;
        assert_eq!(fooled, ["record 0", "record 1", "record 2", "record 1"], "the chain is what tells");
    });
}

#[test]
fn damage_among_acknowledged_records_is_not_taken_for_the_end() {
    run(|env| async move {
        let media = media(1, 8);
        let segments = segments(&env, &media);
        let log = create(&env, &segments, &Seen::default()).await;
        let start = log.position();
        for n in 0..5 {
            log.append(control(&format!("record {n}"))).await.unwrap();
        }
        drop(log);
        let id = segments.chunk_id(SegmentId(1), SegmentKind::Log, 0);
        let (bytes, _) = media[0].chunk(id).unwrap();
        let at = records(&bytes)[2] as u32;
        media[0].rot(id, at + 30, 1);
        let segments = Segments::new(LANE, segments.stores().to_vec());
        let (coordinator, config) = (LocalCoordinator::default(), LogConfig::default());
        let found = recover(&env, &segments, &coordinator, Epoch(2), start, &config, |_| {}).await;
        let damaged = RecoverError::Damaged { segment: SegmentId(1), at, length: at };
        assert_eq!(found.err(), Some(damaged));
    });
}

#[test]
fn a_full_store_refuses_data_alone_and_goes_on_when_there_is_space() {
    run(|env| async move {
        let media = media(2, 4);
        let segments = segments(&env, &media);
        let seen = Seen::default();
        let log = create(&env, &segments, &seen).await;
        let mut written = 0;
        let full = loop {
            match log.append(data(written, 50, 1)).await {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full, LogError::Full);
        assert!(written > 12, "{written}");
        // What frees space goes on for long.
        for n in 0..500 {
            log.append(Op::Unmap { volume: 1, first: n, count: 1 }).await.unwrap();
            log.append(control("checkpoint")).await.unwrap();
        }
        assert_eq!(log.append(data(0, 1, 1)).await, Err(LogError::Full));
        assert_eq!(log.failure(), None);
        let position = log.settled().await.unwrap();
        for number in 1..position.segment.0 {
            segments.delete(SegmentId(number), Epoch(1)).await.unwrap();
        }
        // The first that is refused has the log look for space again.
        let _ = log.append(data(0, 1, 1)).await;
        env.sleep_until(env.now().plus(Duration::from_millis(5))).await;
        for n in 0..20 {
            log.append(data(n, 10, 2)).await.unwrap();
        }
    });
}

#[test]
fn a_writer_that_was_fenced_fails_for_good() {
    run(|env| async move {
        let media = media(3, 16);
        let segments = segments(&env, &media);
        let log = create(&env, &segments, &Seen::default()).await;
        log.append(control("mine")).await.unwrap();
        let start = log.position();
        let others = Segments::new(LANE, segments.stores().to_vec());
        let (coordinator, config) = (LocalCoordinator::default(), LogConfig::default());
        recover(&env, &others, &coordinator, Epoch(2), start, &config, |_| {}).await.unwrap();
        assert_eq!(log.append(control("late")).await, Err(LogError::Fenced { fence: 2 }));
        assert_eq!(log.append(control("later")).await, Err(LogError::Fenced { fence: 2 }));
        assert_eq!(log.settled().await, Err(LogError::Fenced { fence: 2 }));
        let older = recover(&env, &segments, &coordinator, Epoch(1), start, &config, |_| {}).await;
        assert_eq!(older.err(), Some(RecoverError::Fenced { fence: 2 }));
    });
}

#[test]
fn plain_segments_are_replicated_read_and_deleted() {
    run(|env| async move {
        let media = media(2, 4);
        let segments = segments(&env, &media);
        let mut writer = SegmentWriter::create(&segments, SegmentKind::Map, Epoch(1)).await.unwrap();
        let (first, second) = (buf(4096, 1).freeze(), buf(8192, 2).freeze());
        let one = writer.append(std::slice::from_ref(&first));
        assert_eq!(one.await.unwrap(), 0);
        assert_eq!(writer.append(&[second, first]).await.unwrap(), 4096);
        assert!(writer.append(&[buf(100, 1).freeze()]).await.is_err(), "it is not aligned");
        assert_eq!(writer.room(), (1 << 20) - 16384);
        let (segment, length) = writer.seal().await.unwrap();
        assert_eq!(length, 16384);
        for replica in 0..2 {
            let read = segments.read_from(segment, replica, 4096, buf(8192, 0)).await.unwrap();
            assert!(read.iter().all(|&byte| byte == 2));
        }
        assert!(segments.read_from(segment, 2, 0, buf(4096, 0)).await.is_ok(), "it begins anew");
        segments.delete(segment, Epoch(1)).await.unwrap();
        assert!(media.iter().all(|medium| medium.list().is_empty()));
        assert!(segments.read(segment, 0, buf(4096, 0)).await.is_err());
    });
}
