//! What tests of the log share: operations that say which they are, and books of what became of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ashlar_codec::crc32c;
use ashlar_engine::ids::{Epoch, GroupId, LaneId, SegmentId, SegmentKind};
use ashlar_engine::log::record::{BlockSum, decode_header, stored_bytes};
use ashlar_engine::log::{
    Applied, AppliedOp, Coordinator, Decision, LocalCoordinator, Op, Place, Refused, Sink,
};
use ashlar_engine::segment::Segments;
use ashlar_engine::testing::{Medium, MemoryStore};
use ashlar_env::buf::PoolPlan;
use ashlar_env::{Buf, BufMut, BufPool, Clock, Rng};
use ashlar_sim::{Control, SimEnv};
use smallvec::SmallVec;

pub const LANE: LaneId = LaneId { group: GroupId(0xA5), lane: 3 };

pub type Store = MemoryStore<SimEnv>;

/// A buffer of `len` bytes.
pub fn buffer(len: usize) -> BufMut {
    let pool = BufPool::on_heap(PoolPlan { limits: [1, 1, 1, 1, 1] });
    pool.try_alloc(len).expect("a size there is")
}

/// An operation with the number `id`, and of how many bytes its data is at most.
pub fn operation(id: u64, kind: u64, blocks_max: u64, draw: &mut impl FnMut(u64) -> u64) -> Op {
    match kind {
        0 => Op::Unmap { volume: 1, first: id, count: 1 },
        1 => Op::Zero { volume: 1, first: id, count: 1 },
        2 => {
            let mut bytes = id.to_le_bytes().to_vec();
            bytes.resize(8 + draw(200) as usize, id as u8);
            Op::Control(Buf::from_heap(bytes.into()))
        }
        _ => {
            let plain = draw(2) == 0;
            let granules: Vec<u8> =
                (0..1 + draw(blocks_max)).map(|_| if plain { 64 } else { 1 + draw(64) as u8 }).collect();
            let mut payload = buffer(granules.iter().map(|&g| usize::from(g) * 64).sum());
            for (n, word) in payload.chunks_mut(8).enumerate() {
                word.copy_from_slice(&(id ^ (n as u64) << 40).to_le_bytes());
            }
            let (mut sums, mut at) = (SmallVec::new(), 0);
            for granules in granules {
                let end = at + usize::from(granules) * 64;
                sums.push(BlockSum { crc: crc32c(&payload[at..end]), granules });
                at = end;
            }
            Op::Data { volume: 1, first: id, payload: payload.freeze(), sums }
        }
    }
}

/// The number of an operation.
pub fn number(op: &AppliedOp<'_>) -> u64 {
    match op.op {
        Applied::Data { first, .. } | Applied::Zero { first, .. } | Applied::Unmap { first, .. } => first,
        Applied::Control(bytes) => u64::from_le_bytes(bytes[..8].try_into().unwrap()),
    }
}

/// What a log has told: operations in order, and where their data are.
#[derive(Clone, Default)]
pub struct Told {
    pub inner: Rc<RefCell<Telling>>,
}

#[derive(Clone, Default)]
pub struct Telling {
    pub order: Vec<u64>,
    pub sequences: Vec<u64>,
    pub places: BTreeMap<u64, (Place, Vec<BlockSum>)>,
    pub sealed: BTreeMap<SegmentId, u32>,
}

impl Told {
    pub fn note(&self, op: &AppliedOp<'_>) {
        let mut inner = self.inner.borrow_mut();
        let id = number(op);
        inner.order.push(id);
        inner.sequences.push(op.sequence);
        if let Applied::Data { sums, place, .. } = op.op {
            inner.places.insert(id, (place, sums.to_vec()));
        }
    }

    pub fn has(&self, id: u64) -> bool {
        self.inner.borrow().order.contains(&id)
    }
}

impl Sink for Told {
    fn applied(&self, op: &AppliedOp<'_>) {
        self.note(op);
    }

    fn segment_opened(&self, _: SegmentId) {}

    fn segment_sealed(&self, segment: SegmentId, length: u32) {
        self.inner.borrow_mut().sealed.insert(segment, length);
    }
}

/// A coordinator that takes time, and whose decisions survive crashes.
#[derive(Clone)]
pub struct SlowCoordinator {
    pub env: SimEnv,
    pub decisions: LocalCoordinator,
}

impl SlowCoordinator {
    async fn pause(env: &SimEnv) {
        let time = Duration::from_micros(env.random_below(300));
        env.sleep_until(env.now().plus(time)).await;
    }
}

impl Coordinator for SlowCoordinator {
    fn commit_seal(&self, decision: Decision) -> Pin<Box<dyn Future<Output = Result<(), Refused>>>> {
        let this = self.clone();
        Box::pin(async move {
            Self::pause(&this.env).await;
            let result = this.decisions.commit_seal(decision).await;
            Self::pause(&this.env).await;
            result
        })
    }

    fn decision(&self, lane: LaneId, segment: SegmentId) -> Option<Decision> {
        self.decisions.decision(lane, segment)
    }
}

/// What is known over all lives of the lane.
#[derive(Default)]
pub struct Books {
    next_id: Cell<u64>,
    /// The epoch of the last writer that opened the log completely; 0 where there was none.
    pub owner: Cell<u64>,
    /// The log as the last complete recovery found it, or a checkpoint and what was replayed after it.
    pub stable: RefCell<Vec<u64>>,
    /// What the owner appended, in order.
    pub appended: RefCell<Vec<u64>>,
    pub acknowledged: RefCell<BTreeSet<u64>>,
}

impl Books {
    pub fn number(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get()
    }

    /// Holds what a recovery found against what must be and may be there.
    pub fn recovered(&self, epoch: u64, found: &[u64]) -> Result<(), String> {
        let stable = self.stable.borrow();
        let appended = self.appended.borrow();
        let known = stable.len().min(found.len());
        if found[..known] != stable[..known] || found.len() < stable.len() {
            return Err(format!("what was settled has changed: {stable:?} became {found:?}"));
        }
        let rest = &found[stable.len()..];
        if !appended.starts_with(rest) {
            return Err(format!("{rest:?} is not a prefix of what was appended: {appended:?}"));
        }
        let lost: Vec<_> =
            self.acknowledged.borrow().iter().filter(|id| !found.contains(id)).copied().collect();
        if !lost.is_empty() {
            return Err(format!("acknowledged and lost: {lost:?}; found {found:?}"));
        }
        drop((stable, appended));
        *self.stable.borrow_mut() = found.to_vec();
        self.appended.borrow_mut().clear();
        self.owner.set(epoch);
        Ok(())
    }
}

/// Reads the data of every operation in `told` from every replica and checks their sums. Only some stores may fail to
/// give them, if others do.
pub async fn check_data(
    segments: &Segments<Store>,
    told: &Telling,
    since: SegmentId,
    may_fail: impl Fn(usize) -> bool,
) -> Result<(), String> {
    for (id, (place, sums)) in told.places.iter().filter(|(_, (place, _))| place.segment >= since) {
        let shards = segments.shards(place.segment);
        let mut found = 0;
        for (nth, shard) in shards.iter().enumerate() {
            match check_one(segments, nth, place, sums).await {
                Ok(()) => found += 1,
                Err(_) if may_fail(usize::from(shard)) && shards.len() > 1 => {}
                Err(error) => return Err(format!("operation {id} in {place:?} on {shard}: {error}")),
            }
        }
        if found == 0 {
            return Err(format!("operation {id} in {place:?} is on no replica of {shards:?}"));
        }
    }
    Ok(())
}

async fn check_one(
    segments: &Segments<Store>,
    replica: usize,
    place: &Place,
    sums: &[BlockSum],
) -> Result<(), String> {
    // Reads are aligned.
    let start = place.granule as usize * 64;
    let (low, high) = (start & !4095, (start + stored_bytes(sums)).next_multiple_of(4096));
    let read = segments.read_from(place.segment, replica, low as u32, buffer(high - low)).await;
    let bytes = read.map_err(|error| error.to_string())?;
    let mut at = start - low;
    for sum in sums {
        let end = at + usize::from(sum.granules) * 64;
        if crc32c(&bytes[at..end]) != sum.crc {
            return Err("other bytes".into());
        }
        at = end;
    }
    Ok(())
}

/// Replicas of sealed segments that count are byte-identical and sealed alike, and the records of a segment carry one
/// epoch. How many segments were compared.
pub fn check_replicas(
    media: &[Medium],
    segments: &Segments<Store>,
    since: SegmentId,
) -> Result<usize, String> {
    let numbers: BTreeSet<SegmentId> =
        media.iter().flat_map(Medium::list).map(|stat| stat.id.segment).filter(|&s| s >= since).collect();
    let mut compared = 0;
    for segment in numbers {
        let mut first: Option<(Vec<u8>, _)> = None;
        for shard in segments.shards(segment).iter() {
            let id = segments.find(segment, SegmentKind::Log, shard);
            let Some((bytes, seal)) = media[usize::from(shard)].chunk(id) else {
                return Err(format!("{segment:?} has no replica {shard}"));
            };
            let Some(sealed) = seal else { continue };
            let bytes = bytes[..sealed.length as usize].to_vec();
            check_epochs(&bytes, sealed.length).map_err(|what| format!("{segment:?} on {shard}: {what}"))?;
            match &first {
                None => first = Some((bytes, sealed)),
                Some(other) if other.0 != bytes || other.1 != sealed => {
                    let at = other.0.iter().zip(&bytes).position(|(a, b)| a != b);
                    let seals = (other.1, sealed);
                    return Err(format!("{segment:?} differs on {shard} at byte {at:?}, sealed {seals:?}"));
                }
                Some(_) => compared += 1,
            }
        }
    }
    Ok(compared)
}

fn check_epochs(bytes: &[u8], length: u32) -> Result<(), String> {
    let (mut at, mut epoch): (usize, Option<Epoch>) = (0, None);
    while at < length as usize {
        let record = decode_header(&bytes[at..]).map_err(|error| format!("at byte {at}: {error}"))?;
        if epoch.is_some_and(|epoch| epoch != record.header.epoch) {
            return Err(format!("a record at byte {at} of another epoch"));
        }
        epoch = Some(record.header.epoch);
        at += record.total_bytes();
    }
    Ok(())
}

/// Ends the run with `what`, where it is an error.
pub fn expect<T>(control: &Control, what: Result<T, String>) -> Option<T> {
    what.map_err(|message| control.fail("log", message)).ok()
}
