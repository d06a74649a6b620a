//! Opening a store: the superblock, the fences, and a header of every slot.
//!
//! Nothing is written, but everything that can be read is made durable first (a flush): what a process that died had
//! written may still be in the device's cache, and what this store takes for true must not go away with the next power
//! failure.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::future::poll_fn;
use std::rc::Rc;

use ashlar_env::buf::{BufPool, PoolPlan};
use ashlar_env::slots::Slots;
use ashlar_env::{Disk, DiskInfo, Spawn};
use uuid::Uuid;

use super::carry::Carrier;
use super::chunk::{Held, State};
use super::device::{Device, Side};
use super::error::OpenError;
use super::fences::Fences;
use super::format::{
    Content, Damage, FencePage, Geometry, HEADER_BYTES, PAGE_BYTES, SUPERBLOCK_BYTES, SlotHeader, Superblock,
};
use super::table::Table;
use super::wait::Waiters;
use super::{ChunkStore, Inner};
use crate::chunks::Seal;

/// Headers read at a time.
const READS_MAX: usize = 32;

const PAGE: usize = PAGE_BYTES as usize;

/// The room of both copies, in bytes.
const PAIR: usize = 2 * PAGE;

/// Sequence numbers left out at every opening: those that copies have which cannot be read now.
const SEQUENCE_GAP: u64 = 1 << 32;

/// What is expected of a device, and how it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// The cluster it must belong to.
    pub cluster: Option<Uuid>,
    /// The device it must be.
    pub device: Option<Uuid>,
    /// Slots that only [`Chunks::create_reserved`](crate::chunks::Chunks::create_reserved) may take.
    pub reserve_slots: u32,
}

/// What was found when a store was opened. Everything named here is either made good by the next change of the same
/// structure, or is in [`ChunkStore::lost`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// One of the superblocks is unreadable, for this reason.
    pub superblock: Option<String>,
    /// Slots of which one header copy is unreadable: rot, or a crash while it was written.
    pub slots_impaired: Vec<u32>,
    /// Slots that are lost, and why.
    pub slots_lost: Vec<(u32, String)>,
    /// Fence pages of which one copy is unreadable.
    pub fences_impaired: Vec<u32>,
    /// Fence pages of which both are.
    pub fences_lost: Vec<u32>,
    /// Copies that were under way when the store stopped: their slots are free.
    pub copies_dropped: u32,
}

impl OpenReport {
    /// Whether all was as it should be. Copies under way are.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { copies_dropped: self.copies_dropped, ..Self::default() }
    }
}

/// A structure as read, or why not.
type Read<T> = Result<T, String>;

/// Both copies, and what follows from them.
struct Pair<T> {
    newest: Option<T>,
    /// The copy that is to be written first.
    first: Side,
    /// What is wrong, if anything is.
    wrong: Option<String>,
}

impl<T> Pair<T> {
    fn of([a, b]: [Read<T>; 2], sequence: impl Fn(&T) -> u64) -> Self {
        match (a, b) {
            (Ok(a), Ok(b)) if sequence(&b) > sequence(&a) => {
                Self { newest: Some(b), first: Side::A, wrong: None }
            }
            (Ok(a), Ok(b)) if sequence(&a) > sequence(&b) => {
                Self { newest: Some(a), first: Side::B, wrong: None }
            }
            (Ok(a), Ok(_)) => Self { newest: Some(a), first: Side::A, wrong: None },
            (Ok(a), Err(wrong)) => Self { newest: Some(a), first: Side::B, wrong: Some(wrong) },
            (Err(wrong), Ok(b)) => Self { newest: Some(b), first: Side::A, wrong: Some(wrong) },
            (Err(a), Err(b)) => {
                let wrong = if a == b { format!("both copies: {a}") } else { format!("{a}; {b}") };
                Self { newest: None, first: Side::A, wrong: Some(wrong) }
            }
        }
    }
}

/// Reads pages.
struct Reader<'a, D> {
    disk: &'a D,
    pool: BufPool,
}

impl<D: Disk> Reader<'_, D> {
    /// Both copies, in one read where that succeeds.
    async fn pair<T>(&self, start: u64, decode: impl Fn(&[u8]) -> Result<T, Damage>) -> [Read<T>; 2] {
        let buf = self.pool.alloc(PAIR).await;
        if let Ok(pages) = self.disk.read(start, buf).await {
            let (a, b) = pages.split_at(PAGE);
            return [a, b].map(|page| decode(page).map_err(|damage| damage.to_string()));
        }
        [self.page(start, &decode).await, self.page(start + PAGE as u64, &decode).await]
    }

    async fn page<T>(&self, at: u64, decode: impl Fn(&[u8]) -> Result<T, Damage>) -> Read<T> {
        let buf = self.pool.alloc(PAGE).await;
        let page = self.disk.read(at, buf).await.map_err(|error| error.to_string())?;
        decode(&page).map_err(|damage| damage.to_string())
    }

    async fn superblock(&self, at: Option<u64>) -> Found {
        let Some(at) = at else { return Found::Damage(Damage::Blank) };
        let buf = self.pool.alloc(PAGE).await;
        let page = match self.disk.read(at, buf).await {
            Ok(page) => page,
            Err(error) => return Found::Unreadable(error.to_string()),
        };
        let bytes = page[..SUPERBLOCK_BYTES].try_into().expect("a page is larger than a superblock");
        match Superblock::decode(bytes) {
            Ok(superblock) => Found::Superblock(superblock),
            Err(Damage::Blank) if page.iter().any(|&byte| byte != 0) => Found::Damage(Damage::Magic),
            Err(damage) => Found::Damage(damage),
        }
    }
}

/// What is where a superblock ought to be.
#[derive(PartialEq, Eq)]
enum Found {
    Superblock(Superblock),
    Damage(Damage),
    Unreadable(String),
}

impl Found {
    fn text(&self) -> String {
        match self {
            Self::Superblock(_) => "it is of another formatting".into(),
            Self::Damage(damage) => damage.to_string(),
            Self::Unreadable(error) => error.clone(),
        }
    }
}

/// The superblock of a device, and what is wrong with the copy that was not used.
pub(crate) async fn superblock<D: Disk>(disk: &D) -> Result<(Superblock, Option<String>), OpenError> {
    let reader = Reader { disk, pool: BufPool::on_heap(PoolPlan { limits: [1, 0, 0, 0, 0] }) };
    let size_bytes = disk.info().size_bytes;
    let first = if size_bytes >= PAGE as u64 { Some(0) } else { None };
    let first = reader.superblock(first).await;
    let formatted = match &first {
        Found::Superblock(it) if it.geometry.size_bytes <= size_bytes => it.geometry.size_bytes,
        _ => size_bytes,
    };
    let second = reader.superblock(Geometry::second_superblock(formatted)).await;
    choose(first, second)
}

fn choose(first: Found, second: Found) -> Result<(Superblock, Option<String>), OpenError> {
    use Found::{Damage as Bad, Superblock as Good, Unreadable};
    match (&first, &second) {
        (Good(it), other) => Ok((*it, (*other != first).then(|| other.text()))),
        (other, Good(it)) => Ok((*it, Some(other.text()))),
        (&Bad(Damage::Newer(found)), _) | (_, &Bad(Damage::Newer(found))) => Err(OpenError::Newer { found }),
        (&Bad(Damage::Features(bits)), _) | (_, &Bad(Damage::Features(bits))) => {
            Err(OpenError::UnknownFeatures { bits })
        }
        (Bad(Damage::Blank), Bad(Damage::Blank)) => Err(OpenError::NotFormatted),
        (Bad(Damage::Blank | Damage::Magic), Bad(Damage::Blank | Damage::Magic)) => Err(OpenError::Foreign),
        (Bad(_) | Unreadable(_), _) => Err(OpenError::Damaged { first: first.text(), second: second.text() }),
    }
}

fn check(it: &Superblock, info: &DiskInfo, options: &OpenOptions) -> Result<(), OpenError> {
    if let Some(wanted) = options.device.filter(|&wanted| wanted != it.device) {
        return Err(OpenError::OtherDevice { found: it.device, wanted });
    }
    if let Some(wanted) = options.cluster.filter(|&wanted| wanted != it.cluster) {
        return Err(OpenError::OtherCluster { device: it.device, found: it.cluster, wanted });
    }
    if info.size_bytes < it.geometry.size_bytes {
        let formatted_bytes = it.geometry.size_bytes;
        return Err(OpenError::Truncated { size_bytes: info.size_bytes, formatted_bytes });
    }
    if info.block_bytes > it.geometry.align_bytes {
        let align_bytes = it.geometry.align_bytes;
        return Err(OpenError::Block { block_bytes: info.block_bytes, align_bytes });
    }
    Ok(())
}

impl<E: Spawn + Clone + 'static, D: Disk> ChunkStore<E, D> {
    /// Opens the store on `disk`, whichever it is, without a reserve.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was written.
    pub async fn open(env: E, disk: D) -> Result<Self, OpenError> {
        Self::open_with(env, disk, OpenOptions::default()).await
    }

    /// Opens the store on `disk`. What is damaged but does not keep it from being used is in [`Self::report`].
    ///
    /// # Errors
    /// [`OpenError`]; nothing was written.
    pub async fn open_with(env: E, disk: D, options: OpenOptions) -> Result<Self, OpenError> {
        let (superblock, wrong) = superblock(&disk).await?;
        check(&superblock, &disk.info(), &options)?;
        let device = Device::new(disk);
        device.settle().await;
        let mut report = OpenReport { superblock: wrong, ..OpenReport::default() };
        let reader = Reader {
            disk: &device.disk,
            pool: BufPool::on_heap(PoolPlan { limits: [0, READS_MAX, 0, 0, 0] }),
        };
        let fences = read_fences(&reader, &superblock, &mut report).await;
        let headers = read_headers(&reader, &superblock).await;
        if let Some(page) = report.fences_lost.first() {
            device.latch(format!(
                "both copies of fence page {page} are unreadable: old writers might be let in"
            ));
        }
        let (table, sequence) = build(headers, &superblock, &fences, &mut report);
        let carrier = Carrier::start(&env);
        let inner = Inner {
            env,
            device,
            superblock,
            report,
            reserve_slots: Cell::new(options.reserve_slots),
            sequence: Cell::new(sequence.saturating_add(SEQUENCE_GAP)),
            table: RefCell::new(table),
            fences,
            carrier,
            released: Waiters::default(),
        };
        Ok(Self::of(Rc::new(inner)))
    }
}

async fn read_fences<D: Disk>(reader: &Reader<'_, D>, it: &Superblock, report: &mut OpenReport) -> Fences {
    let fences = Fences::new(it.geometry.fence_pages);
    for number in 0..it.geometry.fence_pages {
        let decode = |bytes: &[u8]| {
            let page = FencePage::decode(bytes.try_into().expect("a page is a page"))?;
            ours(page.device == it.device && page.page == number).map(|()| page)
        };
        let copies = reader.pair(it.geometry.fence_page_start(number), decode).await;
        let pair = Pair::of(copies, |page| page.sequence);
        match pair.newest {
            Some(page) => {
                if pair.wrong.is_some() {
                    report.fences_impaired.push(number);
                }
                fences.load(page, pair.first);
            }
            None => report.fences_lost.push(number),
        }
    }
    fences
}

/// The headers of all slots, in order.
async fn read_headers<D: Disk>(reader: &Reader<'_, D>, it: &Superblock) -> Vec<Pair<SlotHeader>> {
    let read = |slot: u32| async move {
        let decode = |bytes: &[u8]| {
            let bytes = bytes[..HEADER_BYTES].try_into().expect("a page is larger than a header");
            let header = SlotHeader::decode(bytes)?;
            ours(header.device == it.device && header.slot == slot)?;
            match header.content {
                Content::Sealed(_, seal) if seal.length > it.geometry.chunk_bytes() => {
                    Err(Damage::Field("length"))
                }
                _ => Ok(header),
            }
        };
        let copies = reader.pair(it.geometry.slot_start(slot), decode).await;
        (slot, Pair::of(copies, |header| header.sequence))
    };
    let mut pairs: Vec<_> = (0..it.geometry.slots).map(|_| None).collect();
    let mut flying = Slots::new(READS_MAX);
    let mut next = 0;
    loop {
        while next < it.geometry.slots && !flying.is_full() {
            let _ = flying.insert(read(next));
            next += 1;
        }
        let Some((_, (slot, pair))) = poll_fn(|cx| flying.poll_next(cx)).await else { break };
        pairs[slot as usize] = Some(pair);
    }
    pairs.into_iter().map(|pair| pair.expect("each slot was read")).collect()
}

/// A structure of an earlier formatting, or in the wrong place, counts as damaged.
fn ours(holds: bool) -> Result<(), Damage> {
    if holds { Ok(()) } else { Err(Damage::Field("place or device")) }
}

/// The table of slots, and the greatest sequence number seen.
fn build(
    headers: Vec<Pair<SlotHeader>>,
    it: &Superblock,
    fences: &Fences,
    report: &mut OpenReport,
) -> (Table, u64) {
    let mut table = Table::default();
    let mut sequence = 0;
    let mut sequences = vec![0; headers.len()];
    for (slot, pair) in (0_u32..).zip(headers) {
        if pair.first == Side::B {
            table.second_first.insert(slot);
        }
        let Some(header) = pair.newest else {
            let wrong = pair.wrong.unwrap_or_default();
            lose(&mut table, report, slot, wrong);
            continue;
        };
        if pair.wrong.is_some() {
            report.slots_impaired.push(slot);
        }
        sequence = sequence.max(header.sequence);
        sequences[slot as usize] = header.sequence;
        let (label, state) = match header.content {
            Content::Open(label) => (label, State::Open),
            Content::Sealed(label, seal) => (label, State::Sealed(seal)),
            Content::Free | Content::Copying(_) => {
                report.copies_dropped += u32::from(header.content != Content::Free);
                table.free.push(Reverse(slot));
                continue;
            }
        };
        let (data_start, fence) = (it.geometry.data_start(slot), fences.get(label.id.lane.group));
        let held = Rc::new(Held::new(label, slot, data_start, state, fence, None));
        take_in(&mut table, report, &sequences, held);
    }
    (table, sequence)
}

/// Enters a chunk. Of two with one name the sealed one stays, or else the one whose header is newer.
fn take_in(table: &mut Table, report: &mut OpenReport, sequences: &[u64], held: Rc<Held>) {
    let rank = |held: &Held| {
        let sealed: Option<Seal> = held.stat().sealed;
        (sealed.is_some(), sequences[held.slot as usize])
    };
    let id = held.label.id;
    let loser = match table.chunks.get(&id) {
        Some(other) if rank(other) > rank(&held) => Some(held),
        _ => table.chunks.insert(id, held),
    };
    if let Some(loser) = loser {
        lose(table, report, loser.slot, format!("a second slot with the chunk {id:?}"));
    }
}

fn lose(table: &mut Table, report: &mut OpenReport, slot: u32, why: String) {
    table.lost.insert(slot);
    report.slots_lost.push((slot, why));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which copy holds, and which is written first, for every pair of copies.
    #[test]
    fn the_newest_copy_holds_and_never_is_written_first() {
        let bad = || Err(String::from("rot"));
        let rows = [
            (Ok(1), Ok(1), Some(1), Side::A, false),
            (Ok(2), Ok(1), Some(2), Side::B, false),
            (Ok(1), Ok(2), Some(2), Side::A, false),
            (Ok(1), bad(), Some(1), Side::B, true),
            (bad(), Ok(1), Some(1), Side::A, true),
            (bad(), bad(), None, Side::A, true),
        ];
        for (a, b, newest, first, wrong) in rows {
            let pair = Pair::of([a.clone(), b.clone()], |&sequence: &u64| sequence);
            assert_eq!(
                (pair.newest, pair.first, pair.wrong.is_some()),
                (newest, first, wrong),
                "{a:?} {b:?}"
            );
        }
    }

    #[test]
    fn what_two_superblocks_come_to() {
        let geometry = Geometry::plan(10 << 20, 64 << 10, 512, 1).unwrap();
        let it = Superblock { device: Uuid::nil(), cluster: Uuid::nil(), compatible: 0, geometry };
        let bad = Found::Damage;
        let good = || Found::Superblock(it);
        assert_eq!(choose(good(), good()), Ok((it, None)));
        for other in [Damage::Blank, Damage::Magic, Damage::Checksum, Damage::Newer(9), Damage::Field("x")] {
            assert_eq!(choose(good(), bad(other)), Ok((it, Some(other.to_string()))));
            assert_eq!(choose(bad(other), good()), Ok((it, Some(other.to_string()))));
        }
        let error = |a, b| choose(a, b).unwrap_err();
        assert_eq!(error(bad(Damage::Blank), bad(Damage::Blank)), OpenError::NotFormatted);
        assert_eq!(error(bad(Damage::Magic), bad(Damage::Blank)), OpenError::Foreign);
        assert_eq!(error(bad(Damage::Blank), bad(Damage::Magic)), OpenError::Foreign);
        assert_eq!(error(bad(Damage::Checksum), bad(Damage::Newer(2))), OpenError::Newer { found: 2 });
        assert_eq!(
            error(bad(Damage::Features(8)), bad(Damage::Magic)),
            OpenError::UnknownFeatures { bits: 8 }
        );
        for (a, b) in [
            (bad(Damage::Checksum), bad(Damage::Checksum)),
            (bad(Damage::Blank), bad(Damage::Checksum)),
            (bad(Damage::Field("size")), bad(Damage::Magic)),
            (Found::Unreadable("medium".into()), bad(Damage::Blank)),
            (bad(Damage::Magic), Found::Unreadable("medium".into())),
        ] {
            assert!(matches!(error(a, b), OpenError::Damaged { .. }));
        }
    }
}
