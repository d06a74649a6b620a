//! Batches: what segments of the map and of moved blocks consist of. Each says of every item what it is, so that
//! compaction can tell whether it is still needed and where it came from.
//!
//! | Bytes | Field |
//! |---|---|
//! | 0..8 | magic |
//! | 8..10 | version: 1 |
//! | 10..12 | zero |
//! | 12..16 | items |
//! | 16..24 | group |
//! | 24..26 | lane |
//! | 26..28 | zero |
//! | 28..32 | segment |
//! | 32..36 | where the payload begins, in bytes |
//! | 36..40 | length of the payload in bytes |
//! | 40..44 | CRC32C of these 64 bytes, with this field zero, and of the descriptions |
//! | 44..64 | zero |
//!
//! then, where the header says, the payload: the items' stored bytes, whole granules each; then their descriptions, and zeros up to the
//! store's alignment. The descriptions come last so that an item's position is known before the batch is complete.
//!
//! A description takes 40 bytes:
//!
//! | Bytes | Field |
//! |---|---|
//! | 0 | kind: 1 block, 2 page |
//! | 1 | level of a page |
//! | 2 | granules |
//! | 3 | zero |
//! | 4..8 | volume |
//! | 8..16 | block, or the first block below the page |
//! | 16..20 | CRC32C of the stored bytes |
//! | 20..24 | birth |
//! | 24..28 | segment of its (virtual) address |
//! | 28..32 | position of its address |
//! | 32..36 | position in this segment, in granules |
//! | 36..40 | zero |
//!
//! All little endian.

use ashlar_codec::{crc32c, crc32c_append};

use crate::ids::{GroupId, LaneId, SegmentId};
use crate::map::Address;
use crate::wire::{Reader, Writer};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of an item's description.
pub const ITEM_BYTES: usize = 40;
/// The most items of a batch.
pub const ITEMS_MAX: usize = 8192;

const MAGIC: [u8; 8] = *b"ASHLbat\n";
const VERSION: u8 = 1;
const CRC_AT: usize = 40;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A block of a volume.
    Block,
    /// A page of the map, of a node at this level.
    Page(u8),
}

/// An item of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its volume's number in the lane.
    pub volume: u32,
    /// The block, or the first block below the page.
    pub block: u64,
    /// How many granules are stored.
    pub granules: u8,
    /// The CRC32C of the stored bytes.
    pub crc: u32,
    /// The number of the first snapshot that would hold it.
    pub birth: u32,
    /// The address that the map knows it by.
    pub address: Address,
    /// Where it is in this segment, in granules.
    pub position: u32,
}

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The lane.
    pub lane: LaneId,
    /// The segment the batch was written to.
    pub segment: SegmentId,
    /// How many items there are.
    pub items: u32,
    /// Where the payload begins, in bytes.
    pub lead_bytes: u32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
}

impl Header {
    /// Where the descriptions begin, in bytes.
    #[must_use]
    pub const fn items_at(&self) -> usize {
        self.lead_bytes as usize + self.payload_bytes as usize
    }

    /// The length of the batch without padding, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.items_at() + self.items as usize * ITEM_BYTES
    }
}

/// The header, and the descriptions that follow the payload.
#[must_use]
pub fn encode(header: &Header, items: &[Item]) -> ([u8; HEADER_BYTES], Vec<u8>) {
    let mut out = Writer(Vec::with_capacity(HEADER_BYTES));
    out.bytes(&MAGIC).u8(VERSION).u8(0).u8(0).u8(0).u32(header.items).u64(header.lane.group.0);
    out.bytes(&header.lane.lane.to_le_bytes()).u8(0).u8(0).u32(header.segment.0);
    out.u32(header.lead_bytes).u32(header.payload_bytes).u32(0).bytes(&[0; HEADER_BYTES - CRC_AT - 4]);
    let mut fixed: [u8; HEADER_BYTES] = out.0.try_into().expect("the fields above");
    let mut out = Writer(Vec::with_capacity(items.len() * ITEM_BYTES));
    for item in items {
        let (kind, level) = match item.kind {
            ItemKind::Block => (1, 0),
            ItemKind::Page(level) => (2, level),
        };
        out.u8(kind).u8(level).u8(item.granules).u8(0).u32(item.volume).u64(item.block).u32(item.crc);
        out.u32(item.birth).u32(item.address.segment.0).u32(item.address.position).u32(item.position).u32(0);
    }
    let crc = crc32c_append(crc32c(&fixed), &out.0);
    fixed[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    (fixed, out.0)
}

/// The header in the first [`HEADER_BYTES`] of a batch; not verified but for its bounds. `None` where it is none.
#[must_use]
pub fn peek(bytes: &[u8]) -> Option<Header> {
    let mut fields = Reader(bytes.get(..HEADER_BYTES)?);
    if fields.array()? != MAGIC || fields.array()? != [VERSION, 0, 0, 0] {
        return None;
    }
    let items = fields.u32()?;
    let group = GroupId(fields.u64()?);
    let lane = u16::from_le_bytes(fields.array()?);
    let _: [u8; 2] = fields.array()?;
    let segment = SegmentId(fields.u32()?);
    let (lead_bytes, payload_bytes) = (fields.u32()?, fields.u32()?);
    let leads = (HEADER_BYTES..=1 << 16).contains(&(lead_bytes as usize));
    let fits = leads && items as usize <= ITEMS_MAX && payload_bytes <= 1 << 24;
    fits.then_some(Header { lane: LaneId { group, lane }, segment, items, lead_bytes, payload_bytes })
}

/// The items of the batch whose first bytes are `fixed` and whose descriptions are `bytes`; `None` where the checksum
/// or a field is wrong.
#[must_use]
pub fn decode(fixed: &[u8], bytes: &[u8]) -> Option<Vec<Item>> {
    let header = peek(fixed)?;
    let mut fixed: [u8; HEADER_BYTES] = *fixed.first_chunk()?;
    let stored = u32::from_le_bytes(fixed[CRC_AT..CRC_AT + 4].try_into().ok()?);
    fixed[CRC_AT..CRC_AT + 4].fill(0);
    let bytes = bytes.get(..header.items as usize * ITEM_BYTES)?;
    if crc32c_append(crc32c(&fixed), bytes) != stored {
        return None;
    }
    let mut fields = Reader(bytes);
    (0..header.items).map(|_| item(&mut fields)).collect()
}

fn item(fields: &mut Reader<'_>) -> Option<Item> {
    let [kind, level, granules, _] = fields.array()?;
    let kind = match kind {
        1 => ItemKind::Block,
        2 => ItemKind::Page(level),
        _ => return None,
    };
    let (volume, block, crc, birth) = (fields.u32()?, fields.u64()?, fields.u32()?, fields.u32()?);
    let address = Address { segment: SegmentId(fields.u32()?), position: fields.u32()? };
    let (position, _) = (fields.u32()?, fields.u32()?);
    Some(Item { kind, volume, block, granules, crc, birth, address, position })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Header, Vec<Item>) {
        let lane = LaneId { group: GroupId(7), lane: 1 };
        let item = |at: u32| Item {
            kind: if at == 1 { ItemKind::Page(2) } else { ItemKind::Block },
            volume: 3,
            block: u64::from(at) << 33,
            granules: 64,
            crc: 0x1234_5678,
            birth: at,
            address: Address { segment: SegmentId(9), position: 8 * at },
            position: 64 * at,
        };
        let header = Header { lane, segment: SegmentId(4), items: 3, lead_bytes: 512, payload_bytes: 12288 };
        (header, (0..3).map(item).collect())
    }

    #[test]
    fn what_is_encoded_is_decoded_and_every_changed_byte_is_noticed() {
        let (header, items) = sample();
        let (mut fixed, mut bytes) = encode(&header, &items);
        assert_eq!(peek(&fixed), Some(header));
        assert_eq!(decode(&fixed, &bytes), Some(items));
        for at in 0..fixed.len() {
            fixed[at] ^= 0x20;
            assert_eq!(decode(&fixed, &bytes), None, "byte {at}");
            fixed[at] ^= 0x20;
        }
        for at in 0..bytes.len() {
            bytes[at] ^= 0x20;
            assert_eq!(decode(&fixed, &bytes), None, "byte {at}");
            bytes[at] ^= 0x20;
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_batch_or_none(fixed in proptest::collection::vec(any::<u8>(), 0..70), bytes: Vec<u8>) {
            let _ = decode(&fixed, &bytes);
        }
    }
}
