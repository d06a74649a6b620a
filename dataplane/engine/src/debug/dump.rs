//! Printing what is on a device, field by field.

use std::fmt::Write as _;

use ashlar_env::Disk;
use ashlar_env::buf::{BufPool, MAX_BYTES, PoolPlan};
use ashlar_env::disk::DiskError;

use super::scan::{batch_at, checkpoint_at, record_at};
use crate::ids::{ChunkId, GRANULE_BYTES, GroupId, SegmentId, SegmentKind};
use crate::lane::batch::{Item, ItemKind};
use crate::lane::control::Control;
use crate::lane::state::State;
use crate::log::record::{Extent, Record, verify_payload};
use crate::map::Entry;
use crate::store::format::{
    Content, Damage, FencePage, Geometry, HEADER_BYTES, PAGE_BYTES, SUPERBLOCK_BYTES, SlotHeader, Superblock,
};

const PAGE: usize = PAGE_BYTES as usize;

/// What is to be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Both superblocks.
    Superblock,
    /// All fences, and both copies of their pages.
    Fences,
    /// What each slot holds, a line each.
    Slots,
    /// Both headers of a slot.
    Slot(u32),
    /// What a segment consists of: its records, batches or checkpoints, a line each.
    Segment(GroupId, u16, SegmentId),
    /// The newest checkpoint of a lane.
    Checkpoint(GroupId, u16),
    /// The record, batch or checkpoint of a segment that begins at a byte, with all it says.
    Record(GroupId, u16, SegmentId, u32),
}

/// Why nothing was printed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    /// the device cannot be read
    #[error("the device cannot be read: {0}")]
    Disk(#[from] DiskError),
    /// there is no superblock to go by
    #[error("neither superblock can be read ({0}), so nobody knows where anything else is")]
    Superblock(Damage),
    /// there is no such thing
    #[error("{0}")]
    NotThere(String),
}

/// What `what` looks like on `disk`, for people: a line per field.
///
/// # Errors
/// [`DumpError`]. What is damaged is printed as such, and is no error.
pub async fn dump<D: Disk>(disk: &D, what: What) -> Result<String, DumpError> {
    let raw = Raw { disk, pool: BufPool::on_heap(PoolPlan { limits: [1; 5] }) };
    if what == What::Superblock {
        return raw.superblocks().await;
    }
    let it = raw.superblock().await?;
    match what {
        What::Superblock => raw.superblocks().await,
        What::Fences => raw.fences(&it).await,
        What::Slots => raw.slots(&it).await,
        What::Slot(slot) => raw.slot(&it, slot).await,
        What::Segment(group, lane, segment) => {
            let (id, is_sealed, bytes) = raw.chunk(&it, group, lane, segment).await?;
            Ok(contents(id, is_sealed, it.geometry.align_bytes as usize, &bytes))
        }
        What::Checkpoint(group, lane) => raw.checkpoint(&it, group, lane).await,
        What::Record(group, lane, segment, byte) => {
            let (id, _, bytes) = raw.chunk(&it, group, lane, segment).await?;
            one(id, it.geometry.align_bytes as usize, &bytes, byte)
        }
    }
}

struct Raw<'a, D> {
    disk: &'a D,
    pool: BufPool,
}

impl<D: Disk> Raw<'_, D> {
    async fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let piece = self.pool.alloc((len - bytes.len()).min(MAX_BYTES)).await;
            bytes.extend_from_slice(&self.disk.read(at + bytes.len() as u64, piece).await?);
        }
        Ok(bytes)
    }

    async fn superblock_at(&self, at: u64) -> Result<Result<Superblock, Damage>, DiskError> {
        let page = self.read(at, PAGE).await?;
        Ok(Superblock::decode(page[..SUPERBLOCK_BYTES].try_into().expect("a page is larger")))
    }

    /// Where the second superblock is, if the first one is `first`.
    fn second(&self, first: &Result<Superblock, Damage>) -> Option<u64> {
        let size = self.disk.info().size_bytes;
        let formatted = first.as_ref().map_or(size, |it| it.geometry.size_bytes.min(size));
        Geometry::second_superblock(formatted)
    }

    async fn superblock(&self) -> Result<Superblock, DumpError> {
        let first = self.superblock_at(0).await?;
        let second = match self.second(&first) {
            Some(at) if first.is_err() => self.superblock_at(at).await?,
            _ => first,
        };
        first.or(second).map_err(DumpError::Superblock)
    }

    async fn superblocks(&self) -> Result<String, DumpError> {
        let first = self.superblock_at(0).await?;
        let mut out = String::new();
        put_superblock(&mut out, "A", 0, &first);
        if let Some(at) = self.second(&first) {
            put_superblock(&mut out, "B", at, &self.superblock_at(at).await?);
        }
        Ok(out)
    }

    async fn fences(&self, it: &Superblock) -> Result<String, DumpError> {
        let mut out = String::new();
        for number in 0..it.geometry.fence_pages {
            let at = it.geometry.fence_page_start(number);
            for (name, at) in [("A", at), ("B", at + PAGE as u64)] {
                let page = self.read(at, PAGE).await?;
                let page = FencePage::decode(page[..].try_into().expect("a page is a page"));
                line(&mut out, 0, format!("fence page {number}, copy {name}, at byte {at}"));
                match page {
                    Err(damage) => field(&mut out, "damage", damage),
                    Ok(page) => {
                        field(&mut out, "device", page.device);
                        field(&mut out, "sequence", page.sequence);
                        for entry in page.entries.iter().flatten() {
                            let fence = format!("below epoch {} refused", entry.epoch.0);
                            field(&mut out, &format!("group {:016x}", entry.group.0), fence);
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    async fn headers(
        &self,
        it: &Superblock,
        slot: u32,
    ) -> Result<[Result<SlotHeader, Damage>; 2], DiskError> {
        let both = self.read(it.geometry.slot_start(slot), 2 * PAGE).await?;
        let decode =
            |at: usize| SlotHeader::decode(both[at..at + HEADER_BYTES].try_into().expect("its length"));
        Ok([decode(0), decode(PAGE)])
    }

    /// The header that holds.
    async fn header(&self, it: &Superblock, slot: u32) -> Result<Result<SlotHeader, Damage>, DiskError> {
        let [a, b] = self.headers(it, slot).await?;
        Ok(match (a, b) {
            (Ok(a), Ok(b)) => Ok(if b.sequence > a.sequence { b } else { a }),
            (a, b) => a.or(b),
        })
    }

    async fn slots(&self, it: &Superblock) -> Result<String, DumpError> {
        let (mut out, mut free) = (String::new(), 0);
        for slot in 0..it.geometry.slots {
            match self.header(it, slot).await? {
                Ok(SlotHeader { content: Content::Free, .. }) => free += 1,
                Ok(header) => line(&mut out, 0, format!("slot {slot:>6}  {}", content(&header.content))),
                Err(damage) => line(&mut out, 0, format!("slot {slot:>6}  damaged: {damage}")),
            }
        }
        line(&mut out, 0, format!("{free} of {} slots are free", it.geometry.slots));
        Ok(out)
    }

    async fn slot(&self, it: &Superblock, slot: u32) -> Result<String, DumpError> {
        let slots = it.geometry.slots;
        if slot >= slots {
            return Err(DumpError::NotThere(format!(
                "the device has slots 0 to {}",
                slots.saturating_sub(1)
            )));
        }
        let (mut out, start) = (String::new(), it.geometry.slot_start(slot));
        let names = [("A", start), ("B", start + PAGE as u64)];
        for (header, (name, at)) in self.headers(it, slot).await?.into_iter().zip(names) {
            line(&mut out, 0, format!("slot {slot}, header {name}, at byte {at}"));
            match header {
                Err(damage) => field(&mut out, "damage", damage),
                Ok(header) => {
                    field(&mut out, "device", header.device);
                    field(&mut out, "slot", header.slot);
                    field(&mut out, "sequence", header.sequence);
                    field(&mut out, "content", content(&header.content));
                    field(&mut out, "data at byte", it.geometry.data_start(slot));
                }
            }
        }
        Ok(out)
    }

    /// The chunk of a segment: its name, whether it is sealed, and its bytes.
    async fn chunk(
        &self,
        it: &Superblock,
        group: GroupId,
        lane: u16,
        segment: SegmentId,
    ) -> Result<(ChunkId, bool, Vec<u8>), DumpError> {
        let wanted = |id: &ChunkId| (id.lane.group, id.lane.lane, id.segment) == (group, lane, segment);
        let found = self.chunks(it, wanted).await?.pop();
        let what = format!(
            "this device has no chunk of segment {} of lane {lane} of group {:016x}; dump slots lists what it has",
            segment.0, group.0
        );
        let (id, sealed, slot) = found.ok_or(DumpError::NotThere(what))?;
        let len = sealed.unwrap_or(it.geometry.chunk_bytes());
        let aligned = len.next_multiple_of(it.geometry.align_bytes) as usize;
        let bytes = self.read(it.geometry.data_start(slot), aligned).await?;
        Ok((id, sealed.is_some(), bytes[..len as usize].to_vec()))
    }

    /// Chunks that are `wanted`, with their sealed lengths and slots.
    async fn chunks(
        &self,
        it: &Superblock,
        wanted: impl Fn(&ChunkId) -> bool,
    ) -> Result<Vec<(ChunkId, Option<u32>, u32)>, DiskError> {
        let mut found = Vec::new();
        for slot in 0..it.geometry.slots {
            let Ok(header) = self.header(it, slot).await? else { continue };
            let (label, sealed) = match header.content {
                Content::Open(label) => (label, None),
                Content::Sealed(label, seal) => (label, Some(seal.length.min(it.geometry.chunk_bytes()))),
                Content::Free | Content::Copying(_) => continue,
            };
            if wanted(&label.id) {
                found.push((label.id, sealed, slot));
            }
        }
        Ok(found)
    }

    async fn checkpoint(&self, it: &Superblock, group: GroupId, lane: u16) -> Result<String, DumpError> {
        let wanted =
            |id: &ChunkId| (id.lane.group, id.lane.lane, id.kind) == (group, lane, SegmentKind::Checkpoint);
        let mut newest: Option<(State, SegmentId, usize)> = None;
        let align = it.geometry.align_bytes as usize;
        for (id, sealed, slot) in self.chunks(it, wanted).await? {
            let len = sealed.unwrap_or(it.geometry.chunk_bytes()).next_multiple_of(align as u32);
            let bytes = self.read(it.geometry.data_start(slot), len as usize).await?;
            let mut at = 0;
            while let Some((total, Some(state))) = checkpoint_at(id, &bytes, at, align) {
                if newest.as_ref().is_none_or(|(newest, ..)| newest.sequence < state.sequence) {
                    newest = Some((state, id.segment, at));
                }
                at += total;
            }
        }
        let what = || format!("this device has no whole checkpoint of lane {lane} of group {:016x}", group.0);
        let (state, segment, at) = newest.ok_or_else(|| DumpError::NotThere(what()))?;
        let mut out = String::new();
        line(&mut out, 0, format!("checkpoint in segment {}, at byte {at}", segment.0));
        put_state(&mut out, &state);
        Ok(out)
    }
}

fn line(out: &mut String, depth: usize, text: impl std::fmt::Display) {
    writeln!(out, "{:width$}{text}", "", width = depth * 2).expect("strings take all");
}

fn field(out: &mut String, name: &str, value: impl std::fmt::Display) {
    line(out, 1, format!("{name:<24} {value}"));
}

fn put_superblock(out: &mut String, name: &str, at: u64, found: &Result<Superblock, Damage>) {
    line(out, 0, format!("superblock {name}, at byte {at}"));
    let it = match found {
        Ok(it) => it,
        Err(damage) => return field(out, "damage", damage),
    };
    let geometry = &it.geometry;
    field(out, "device", it.device);
    field(out, "cluster", it.cluster);
    field(out, "compatible features", format!("{:#x}", it.compatible));
    field(out, "size in bytes", geometry.size_bytes);
    field(out, "bytes of a slot", geometry.slot_bytes);
    field(out, "slots", geometry.slots);
    field(out, "alignment in bytes", geometry.align_bytes);
    field(out, "fence pages", geometry.fence_pages);
    field(out, "fences at byte", geometry.fence_start);
    field(out, "slots at byte", geometry.slots_start);
}

fn kind(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Log => "log",
        SegmentKind::Map => "map",
        SegmentKind::Moved => "moved",
        SegmentKind::Checkpoint => "checkpoints",
    }
}

fn content(content: &Content) -> String {
    let (label, state) = match content {
        Content::Free => return "free".into(),
        Content::Open(label) => (label, "open".to_owned()),
        Content::Copying(label) => (label, "a copy that is not complete".to_owned()),
        Content::Sealed(label, seal) => {
            let next = seal.next.map_or(String::new(), |next| format!(", next segment {}", next.0));
            (label, format!("sealed at {} bytes{next}", seal.length))
        }
    };
    let id = &label.id;
    format!(
        "{:016x}/{}/{} ({}), shard {}, epoch {}, {state}",
        id.lane.group.0,
        id.lane.lane,
        id.segment.0,
        kind(id.kind),
        id.shard,
        label.epoch.0
    )
}

fn entry(entry: Entry) -> String {
    if entry.is_empty() {
        return "empty".into();
    }
    let address = entry.address();
    format!(
        "segment {} byte {}, {} bytes, CRC {:08x}, birth {}",
        address.segment.0,
        u64::from(address.position) * GRANULE_BYTES as u64,
        usize::from(entry.granules()) * GRANULE_BYTES,
        entry.crc(),
        entry.birth()
    )
}

/// A line for each thing in a segment.
fn contents(id: ChunkId, is_sealed: bool, align: usize, bytes: &[u8]) -> String {
    let mut out = String::new();
    let state = if is_sealed { format!("sealed at {} bytes", bytes.len()) } else { "open".into() };
    line(&mut out, 0, format!("segment {} ({}), {state}", id.segment.0, kind(id.kind)));
    let mut at = 0;
    while at + align <= bytes.len() {
        let found = match id.kind {
            SegmentKind::Log => {
                record_at(id, bytes, at).map(|it| (it.total_bytes(), record_line(&it, &bytes[at..]))).ok()
            }
            SegmentKind::Map | SegmentKind::Moved => batch_at(id, bytes, at, align)
                .map(|(total, items)| (total, format!("batch of {} items", items.len()))),
            SegmentKind::Checkpoint => checkpoint_at(id, bytes, at, align)
                .and_then(|(total, state)| Some((total, format!("checkpoint {}", state?.sequence)))),
        };
        let Some((total, text)) = found else { break };
        line(&mut out, 1, format!("byte {at:>9}, {total:>8} bytes: {text}"));
        at += total;
    }
    if at < bytes.len() && is_sealed {
        line(&mut out, 1, format!("byte {at:>9}: damaged, the segment goes on to {}", bytes.len()));
    }
    out
}

fn record_line(record: &Record<'_>, bytes: &[u8]) -> String {
    let (mut sums, mut extents) = (Vec::new(), 0);
    record.for_each(&mut sums, |_, _| extents += 1);
    let next = record.next().map_or(String::new(), |next| format!(", next segment {}", next.0));
    let verified = match verify_payload(record, bytes) {
        Ok(()) => String::new(),
        Err(error) => format!("; {error}"),
    };
    let header = &record.header;
    format!("record {}, epoch {}, {extents} extents{next}{verified}", header.sequence, header.epoch.0)
}

/// All that stands in what begins at `byte`.
fn one(id: ChunkId, align: usize, bytes: &[u8], byte: u32) -> Result<String, DumpError> {
    let at = byte as usize;
    let nothing = |why: String| {
        DumpError::NotThere(format!("nothing whole begins at byte {at} of segment {}: {why}", id.segment.0))
    };
    if at >= bytes.len() {
        return Err(nothing(format!("it has {} bytes", bytes.len())));
    }
    let mut out = String::new();
    match id.kind {
        SegmentKind::Log => {
            let record = record_at(id, bytes, at).map_err(|error| nothing(error.to_string()))?;
            put_record(&mut out, &record, &bytes[at..]);
        }
        SegmentKind::Map | SegmentKind::Moved => {
            let (total, items) =
                batch_at(id, bytes, at, align).ok_or_else(|| nothing("no batch".to_owned()))?;
            line(&mut out, 0, format!("batch of {} items, {total} bytes", items.len()));
            items.iter().for_each(|item| line(&mut out, 1, item_text(item)));
        }
        SegmentKind::Checkpoint => {
            let state = checkpoint_at(id, bytes, at, align).and_then(|(_, state)| state);
            put_state(&mut out, &state.ok_or_else(|| nothing("no checkpoint".to_owned()))?);
        }
    }
    Ok(out)
}

fn item_text(item: &Item) -> String {
    let what = match item.kind {
        ItemKind::Block => format!("block {} of volume {}", item.block, item.volume),
        ItemKind::Page(level) => {
            format!("page of level {level} from block {} of volume {}", item.block, item.volume)
        }
    };
    let granule = GRANULE_BYTES as u64;
    format!(
        "{what}: byte {}, {} bytes, CRC {:08x}, birth {}, known as segment {} byte {}",
        u64::from(item.position) * granule,
        u64::from(item.granules) * granule,
        item.crc,
        item.birth,
        item.address.segment.0,
        u64::from(item.address.position) * granule
    )
}

fn put_record(out: &mut String, record: &Record<'_>, bytes: &[u8]) {
    let header = &record.header;
    line(out, 0, format!("record {}", header.sequence));
    field(out, "group", format!("{:016x}", header.lane.group.0));
    field(out, "lane", header.lane.lane);
    field(out, "segment", header.segment.0);
    field(out, "epoch", header.epoch.0);
    field(out, "sequence", header.sequence);
    field(out, "records in flight", header.in_flight);
    field(out, "header CRC before", format!("{:08x}", header.previous));
    field(out, "header CRC", format!("{:08x}", record.crc));
    field(out, "alignment in bytes", record.align_bytes());
    field(out, "payload at byte", record.payload_at());
    field(out, "payload bytes", header.payload_bytes);
    field(out, "bytes in all", record.total_bytes());
    let payload = verify_payload(record, bytes).map_or_else(|error| error.to_string(), |()| "whole".into());
    field(out, "payload", payload);
    let mut sums = Vec::new();
    record.for_each(&mut sums, |extent, place| match extent {
        Extent::Data { volume, first, sums } => {
            line(
                out,
                1,
                format!("data: volume {volume}, {} blocks from {first}, at byte {place}", sums.len()),
            );
            for (block, sum) in (first..).zip(sums) {
                let stored = usize::from(sum.granules) * GRANULE_BYTES;
                line(out, 2, format!("block {block}: {stored} bytes, CRC {:08x}", sum.crc));
            }
        }
        Extent::Zero { volume, first, count } => {
            line(out, 1, format!("zero: volume {volume}, {count} blocks from {first}"));
        }
        Extent::Unmap { volume, first, count } => {
            line(out, 1, format!("unmap: volume {volume}, {count} blocks from {first}"));
        }
        Extent::Control { bytes: len, crc } => {
            let control = bytes.get(place..place + len as usize).and_then(Control::decode);
            let text = control.map_or("unknown".into(), |control| format!("{control:?}"));
            line(out, 1, format!("control: {len} bytes, CRC {crc:08x}: {text}"));
        }
        Extent::Next(segment) => line(out, 1, format!("next: segment {}", segment.0)),
    });
}

fn put_state(out: &mut String, state: &State) {
    field(out, "sequence", state.sequence);
    field(out, "group", format!("{:016x}", state.lane.group.0));
    field(out, "lane", state.lane.lane);
    field(out, "in segment", state.segment.0);
    field(out, "epoch", state.epoch.0);
    let position = &state.position;
    field(out, "log from", format!("segment {} byte {}", position.segment.0, position.offset));
    field(out, "next record", position.sequence);
    field(out, "header CRC before", format!("{:08x}", position.previous));
    field(out, "birth", state.birth);
    field(out, "next segment", state.next_segment);
    field(out, "next volume", state.next_volume);
    field(out, "compression", if state.compression == 0 { "none" } else { "lz4" });
    field(out, "fan-out", 1_u64 << state.fanout_bits.min(63));
    for volume in &state.volumes {
        line(out, 1, format!("volume {} ({}), {} bytes", volume.number, volume.id.0, volume.size_bytes));
        if let Some((snapshot, of)) = volume.origin {
            line(out, 2, format!("clone of volume {of} in snapshot {snapshot}"));
        }
        line(out, 2, format!("mapped {} blocks, stored {} granules", volume.mapped, volume.stored));
        line(out, 2, format!("root of level {}: {}", volume.root.level, entry(volume.root.page)));
    }
    for snapshot in &state.snapshots {
        let leaving = if snapshot.leaving { ", being deleted" } else { "" };
        line(out, 1, format!("snapshot {}{leaving}", snapshot.number));
        for held in &snapshot.volumes {
            let root = format!("root of level {}: {}", held.root.level, entry(held.root.page));
            line(out, 2, format!("volume {}, {} bytes, {root}", held.volume, held.size_bytes));
        }
    }
    for version in &state.leaving {
        let root = format!("root of level {}: {}", version.root.level, entry(version.root.page));
        line(out, 1, format!("leaving: volume {}, floor {}, {root}", version.volume, version.floor));
    }
    for segment in &state.segments {
        let length = segment.sealed.map_or("open".to_owned(), |length| format!("sealed at {length} bytes"));
        let host = segment.hosts.as_ref().map_or(String::new(), |hosts| {
            let hosts: Vec<_> = hosts.iter().map(|host| host.0.to_string()).collect();
            format!(", held by {}", if hosts.is_empty() { "none".into() } else { hosts.join(", ") })
        });
        let (id, kind, live) = (segment.id.0, kind(segment.kind), segment.live);
        line(
            out,
            1,
            format!("segment {id} ({kind}), {length}, {live} granules live, birth {}{host}", segment.birth),
        );
    }
}
