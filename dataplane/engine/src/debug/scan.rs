//! Verifying a chunk from its own bytes, whether or not anybody needs what is in it still.

use ashlar_codec::crc32c;

use crate::ids::{ChunkId, GRANULE_BYTES, SegmentKind};
use crate::lane::batch::{self, HEADER_BYTES, Item, ItemKind};
use crate::lane::state::State;
use crate::log::record::{Extent, Record, RecordError, decode_header, verify_payload};

/// Bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Where in the chunk, in bytes.
    pub byte: u32,
    /// The volume's number in the lane, where it is known.
    pub volume: Option<u32>,
    /// The volume's block, where it is one.
    pub block: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl Flaw {
    fn at(byte: usize, what: impl Into<String>) -> Self {
        Self { byte: byte as u32, volume: None, block: None, what: what.into() }
    }
}

/// What was found in a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Records, batches or checkpoints that are whole.
    pub whole: u64,
    /// Blocks and pages in them.
    pub items: u64,
    /// What is damaged.
    pub flaws: Vec<Flaw>,
    /// What ends the chunk may be damaged, or what a crash left of an append that nobody was told of.
    pub torn: Option<u32>,
}

/// Verifies the chunk `id`. `bytes`: all of it up to its sealed length, or all that it could hold if it is not sealed.
/// `align`: the store's alignment in bytes.
///
/// Of a chunk that is not sealed only what was certainly acknowledged counts as damaged: a crash may leave any part of
/// the appends that were in flight.
#[must_use]
pub fn scan(id: ChunkId, is_sealed: bool, align: usize, bytes: &[u8]) -> Scanned {
    match id.kind {
        SegmentKind::Log => log(id, is_sealed, align, bytes),
        SegmentKind::Map | SegmentKind::Moved => batches(id, is_sealed, align, bytes),
        SegmentKind::Checkpoint => checkpoints(id, is_sealed, align, bytes),
    }
}

/// The record of chunk `id` that begins at `at`.
pub(super) fn record_at(id: ChunkId, bytes: &[u8], at: usize) -> Result<Record<'_>, RecordError> {
    let record = decode_header(&bytes[at..])?;
    let own = record.header.lane == id.lane && record.header.segment == id.segment;
    let total = record.total_bytes();
    match own {
        false => Err(RecordError::Magic),
        true if total > bytes.len() - at => Err(RecordError::Short { need: total }),
        true => Ok(record),
    }
}

fn log(id: ChunkId, is_sealed: bool, align: usize, bytes: &[u8]) -> Scanned {
    let mut found = Scanned::default();
    // Flaws with the number of their record, and the number below which all records were acknowledged.
    let (mut flaws, mut acknowledged) = (Vec::new(), 0);
    let (mut at, mut last) = (0, None);
    while at + align <= bytes.len() {
        match record_at(id, bytes, at) {
            Ok(record) => {
                let sequence = record.header.sequence;
                acknowledged = record.acknowledged_below().max(acknowledged);
                found.whole += 1;
                found.items += payload(&record, &bytes[at..], at, |flaw| flaws.push((sequence, flaw)));
                at += record.total_bytes();
                last = Some(sequence);
                if record.next().is_some() && !is_sealed {
                    break;
                }
            }
            Err(error) => {
                let follows = |next: &usize| {
                    let record = record_at(id, bytes, *next);
                    record.is_ok_and(|record| last.is_none_or(|last| record.header.sequence > last))
                };
                let next = (at + align..bytes.len()).step_by(align).find(follows);
                if next.is_none() && !is_sealed {
                    break;
                }
                let end = next.unwrap_or(bytes.len());
                let what = format!("no record can be read up to byte {end}: {error}");
                flaws.push((last.map_or(0, |last| last + 1), Flaw::at(at, what)));
                at = end;
            }
        }
    }
    flaws.retain(|(sequence, _)| is_sealed || *sequence < acknowledged);
    found.flaws = flaws.into_iter().map(|(_, flaw)| flaw).collect();
    found
}

/// Verifies what a record carries. How many blocks.
fn payload(record: &Record<'_>, bytes: &[u8], at: usize, mut flaw: impl FnMut(Flaw)) -> u64 {
    let (mut sums, mut blocks, mut wrong) = (Vec::new(), 0, false);
    record.for_each(&mut sums, |extent, place| {
        let Extent::Data { volume, first, sums } = extent else { return };
        let mut place = place;
        for (block, sum) in (first..).zip(sums) {
            let end = place + usize::from(sum.granules) * GRANULE_BYTES;
            blocks += 1;
            if crc32c(&bytes[place..end]) != sum.crc {
                wrong = true;
                let what = "a block has a wrong checksum".into();
                let byte = (at + place) as u32;
                flaw(Flaw { byte, volume: Some(volume), block: Some(block), what });
            }
            place = end;
        }
    });
    if !wrong && let Err(error) = verify_payload(record, bytes) {
        flaw(Flaw::at(at, error.to_string()));
    }
    blocks
}

/// The batch of chunk `id` that begins at `at`: its length with padding, and its items.
pub(super) fn batch_at(id: ChunkId, bytes: &[u8], at: usize, align: usize) -> Option<(usize, Vec<Item>)> {
    let bytes = bytes.get(at..)?;
    let header = batch::peek(bytes)?;
    let own = header.lane == id.lane && header.segment == id.segment;
    let items = batch::decode(&bytes[..HEADER_BYTES], bytes.get(header.items_at()..)?)?;
    let total = header.bytes().next_multiple_of(align);
    (own && total <= bytes.len()).then_some((total, items))
}

fn batches(id: ChunkId, is_sealed: bool, align: usize, bytes: &[u8]) -> Scanned {
    let mut found = Scanned::default();
    let mut at = 0;
    while at + align <= bytes.len() {
        if let Some((total, items)) = batch_at(id, bytes, at, align) {
            found.whole += 1;
            found.items += items.len() as u64;
            found.flaws.extend(items.iter().filter_map(|item| item_flaw(item, bytes)));
            at += total;
            continue;
        }
        let mut later = (at + align..bytes.len()).step_by(align);
        let next = later.find(|next| batch_at(id, bytes, *next, align).is_some());
        if next.is_none() && !is_sealed {
            break;
        }
        let end = next.unwrap_or(bytes.len());
        found.flaws.push(Flaw::at(at, format!("no batch can be read up to byte {end}")));
        at = end;
    }
    if !is_sealed {
        // Several are in flight at once, and none says which were acknowledged. What a map needs is found through it.
        found.flaws.clear();
    }
    found
}

fn item_flaw(item: &Item, bytes: &[u8]) -> Option<Flaw> {
    let start = item.position as usize * GRANULE_BYTES;
    let stored = bytes.get(start..start + usize::from(item.granules) * GRANULE_BYTES);
    if stored.is_some_and(|stored| crc32c(stored) == item.crc) {
        return None;
    }
    let (what, block) = match item.kind {
        ItemKind::Block => ("a block has a wrong checksum".to_owned(), Some(item.block)),
        ItemKind::Page(level) => (
            format!("a page of the map (level {level}, from block {}) has a wrong checksum", item.block),
            None,
        ),
    };
    Some(Flaw { byte: start as u32, volume: Some(item.volume), block, what })
}

/// The checkpoint of chunk `id` that begins at `at`: its length with padding, and the state if it is whole. `None` where
/// none begins.
pub(super) fn checkpoint_at(
    id: ChunkId,
    bytes: &[u8],
    at: usize,
    align: usize,
) -> Option<(usize, Option<State>)> {
    let bytes = bytes.get(at..)?;
    let total = State::length(bytes)?.next_multiple_of(align);
    match State::decode(bytes) {
        // Of an earlier life of the slot.
        Some(state) if state.lane != id.lane || state.segment != id.segment => None,
        state => Some((total, state)),
    }
}

fn checkpoints(id: ChunkId, is_sealed: bool, align: usize, bytes: &[u8]) -> Scanned {
    let mut found = Scanned::default();
    let (mut at, mut newest) = (0, 0);
    while at + align <= bytes.len() {
        let state = checkpoint_at(id, bytes, at, align);
        if let Some((total, Some(state))) = &state {
            found.whole += 1;
            newest = state.sequence;
            at += total;
            continue;
        }
        let follows = |next: &usize| {
            let state = checkpoint_at(id, bytes, *next, align).and_then(|(_, state)| state);
            state.is_some_and(|state| state.sequence > newest)
        };
        let next = (at + align..bytes.len()).step_by(align).find(follows);
        if next.is_none() && !is_sealed {
            // A slot's earlier contents may begin anything; only what is next in line counts as torn.
            found.torn = state.map(|_| at as u32);
            break;
        }
        let end = next.unwrap_or(bytes.len());
        found.flaws.push(Flaw::at(at, format!("no checkpoint can be read up to byte {end}")));
        at = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{GroupId, LaneId, SegmentId};
    use crate::log::record::MAGIC;

    proptest! {
        #[test]
        fn any_bytes_are_scanned_to_their_end(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..4096),
            kind in 1_u8..=4,
            sealed: bool,
            begins: bool,
        ) {
            if begins && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&MAGIC);
            }
            let kind = SegmentKind::of(kind).unwrap();
            let id = ChunkId { lane: LaneId { group: GroupId(1), lane: 0 }, segment: SegmentId(1), kind, shard: 0 };
            let found = scan(id, sealed, 512, &bytes);
            prop_assert_eq!(found.whole, 0);
            // Of a sealed one all must be there; the end of an open one nobody knows.
            prop_assert_eq!(!found.flaws.is_empty(), sealed && bytes.len() >= 512);
        }
    }
}
