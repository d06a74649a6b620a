//! The log on stores in memory, without faults: what is appended is applied in order, and found again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ashlar_codec::crc32c;
use ashlar_engine::ids::{Epoch, GroupId, LaneId, SegmentId};
use ashlar_engine::log::{
    Applied, AppliedOp, BlockSum, Event, LocalCoordinator, Log, LogConfig, LogError, Op, Sink, recover,
};
use ashlar_engine::segment::Segments;
use ashlar_engine::testing::{Medium, MemoryStore};
use ashlar_env::{Buf, BufMut, BufPool, buf::PoolPlan};
use ashlar_sim::{Profile, Sim, SimEnv};
use smallvec::SmallVec;

const LANE: LaneId = LaneId { group: GroupId(0xA5), lane: 3 };

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
