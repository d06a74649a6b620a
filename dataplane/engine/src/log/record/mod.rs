//! The format of a record of the log: pure functions from bytes to values and back.
//!
//! A record is a header, zeros up to the store's alignment, a payload, and zeros up to the alignment again. All
//! numbers are little endian. The chunk store's alignment (512 to 4096 bytes) is in the header, so a record can be read
//! without knowing the store.
//!
//! | Offset | Bytes | Field of the header |
//! |---|---|---|
//! | 0 | 8 | magic: `89 A L R 0D 0A 1A 0A` (hexadecimal where not a letter), which shows damage by text modes |
//! | 8 | 2 | version, 1 |
//! | 10 | 1 | binary logarithm of the alignment, 9 to 12 |
//! | 11 | 1 | reserved, 0 |
//! | 12 | 4 | bytes of the header with its extents, at most [`HEADER_BYTES_MAX`] |
//! | 16 | 8 | group |
//! | 24 | 2 | lane |
//! | 26 | 2 | how many records right before this one were not durable on every replica yet when it was sent: all before those are acknowledged |
//! | 28 | 4 | segment |
//! | 32 | 8 | epoch of the writer |
//! | 40 | 8 | sequence: one more than that of the record before, over all segments. At a million a second it lasts 580 000 years |
//! | 48 | 4 | header CRC of the record before, in this segment or the one before; 0 for a lane's first |
//! | 52 | 4 | bytes of the payload, without the zeros after it, at most [`PAYLOAD_BYTES_MAX`] |
//! | 56 | 4 | number of extents |
//! | 60 | 4 | CRC32C of the header and its extents without this field |
//!
//! Extents follow, each of 24 bytes:
//!
//! | Offset | Bytes | Field of an extent |
//! |---|---|---|
//! | 0 | 1 | kind: 1 data, 2 zero, 3 unmap, 4 control, 5 next |
//! | 1 | 3 | reserved, 0 |
//! | 4 | 4 | volume: its number in the lane; 0 for control and next |
//! | 8 | 8 | first block; the next segment's number for next; 0 for control |
//! | 16 | 4 | blocks, at least 1; bytes of the payload for control; 0 for next |
//! | 20 | 4 | CRC32C of the bytes for control; else 0 |
//!
//! After each data extent one sum of 8 bytes per block:
//!
//! | Offset | Bytes | Field of a sum |
//! |---|---|---|
//! | 0 | 4 | CRC32C of the block's stored bytes |
//! | 4 | 1 | granules of 64 bytes that it takes: 64 when stored as it is, fewer when compressed |
//! | 5 | 3 | reserved, 0 |
//!
//! The payload is what the extents speak of, in their order: a data extent's blocks, each a number of granules, one
//! right after the other; a control extent's bytes, followed by zeros up to a granule. A next extent stands alone in the
//! last record of a segment and says where the log continues.
//!
//! Every byte of a record is covered: the header by its CRC, the payload by those in the header, and what lies between
//! must be zero.

use ashlar_codec::{crc32c, crc32c_append};

use crate::ids::{BLOCK_GRANULES, Epoch, GRANULE_BYTES, GroupId, LaneId, SegmentId};

/// The first bytes of each record.
pub const MAGIC: [u8; 8] = [0x89, b'A', b'L', b'R', 0x0D, 0x0A, 0x1A, 0x0A];

/// The version of the format.
pub const VERSION: u16 = 1;

/// Bytes of a header without extents.
pub const FIXED_BYTES: usize = 64;

/// Bytes of an extent without sums.
pub const EXTENT_BYTES: usize = 24;

/// Bytes of a block's sum.
pub const SUM_BYTES: usize = 8;

/// The most bytes a header has with its extents: about a thousand small writes.
pub const HEADER_BYTES_MAX: usize = 32 << 10;

/// The most bytes a payload has: the largest transfer.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The most blocks a data extent has.
pub const DATA_BLOCKS_MAX: usize = PAYLOAD_BYTES_MAX / crate::ids::BLOCK_BYTES;

/// No volume has a block of this number or above: byte addresses fit 64 bits.
pub const BLOCK_END_MAX: u64 = 1 << 52;

const CRC_AT: usize = 60;

// A record with the largest data extent is possible, and reads of a MiB hold every header.
const _: () = assert!(FIXED_BYTES + EXTENT_BYTES + DATA_BLOCKS_MAX * SUM_BYTES <= HEADER_BYTES_MAX);
const _: () = assert!(HEADER_BYTES_MAX < 1 << 20);

/// How a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSum {
    /// The CRC32C of its stored bytes.
    pub crc: u32,
    /// The granules it takes, 1 to 64: 64 when it is stored as it is, fewer when it is compressed.
    pub granules: u8,
}

/// The bytes that blocks with these sums take.
#[must_use]
pub fn stored_bytes(sums: &[BlockSum]) -> usize {
    sums.iter().map(|sum| usize::from(sum.granules) * GRANULE_BYTES).sum()
}

/// A header without its extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The lane whose log it is.
    pub lane: LaneId,
    /// The segment it lies in.
    pub segment: SegmentId,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// Its number in the lane's log.
    pub sequence: u64,
    /// The header CRC of the record before; 0 for a lane's first.
    pub previous: u32,
    /// How many records right before this one were in flight when it was sent.
    pub in_flight: u16,
    /// The payload's length in bytes.
    pub payload_bytes: u32,
    /// The binary logarithm of the alignment.
    pub align_shift: u8,
}

/// An extent to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent<'a> {
    /// Blocks with data.
    Data {
        /// the volume's number in the lane
        volume: u32,
        /// the first block
        first: u64,
        /// one for each block
        sums: &'a [BlockSum],
    },
    /// Blocks of zeros.
    Zero {
        /// the volume's number in the lane
        volume: u32,
        /// the first block
        first: u64,
        /// how many blocks
        count: u32,
    },
    /// Blocks without data.
    Unmap {
        /// the volume's number in the lane
        volume: u32,
        /// the first block
        first: u64,
        /// how many blocks
        count: u32,
    },
    /// Bytes for the layer above.
    Control {
        /// how many
        bytes: u32,
        /// their CRC32C
        crc: u32,
    },
    /// The log continues in this segment.
    Next(SegmentId),
}

impl Extent<'_> {
    /// What it takes in the header, in bytes.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        match self {
            Self::Data { sums, .. } => EXTENT_BYTES + sums.len() * SUM_BYTES,
            _ => EXTENT_BYTES,
        }
    }
}

/// Why bytes are not a record. Where a log is read these mark its end or damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// more bytes are needed to say
    #[error("{need} bytes are needed")]
    Short {
        /// how many
        need: usize,
    },
    /// no record begins here
    #[error("no record begins here")]
    Magic,
    /// a later format
    #[error("the record has version {0}, this program knows version 1")]
    Version(u16),
    /// the header's length is impossible
    #[error("the header cannot have {0} bytes")]
    HeaderBytes(u32),
    /// the header is damaged
    #[error("the header does not have its checksum")]
    HeaderCrc,
    /// a reserved field is not 0
    #[error("a reserved field at byte {0} is not 0")]
    Reserved(usize),
    /// the alignment is impossible
    #[error("an alignment of 2^{0} bytes is not possible")]
    Align(u8),
    /// an extent reaches beyond the header, or the extents do not fill it
    #[error("the extents do not fill the header")]
    Extents,
    /// an extent of unknown kind
    #[error("an extent has the unknown kind {0}")]
    Kind(u8),
    /// an extent without blocks, with too many, or beyond any volume
    #[error("an extent has the impossible range of {count} blocks from {first}")]
    Range {
        /// the first block
        first: u64,
        /// how many
        count: u32,
    },
    /// a block takes no granule or too many
    #[error("a block cannot take {0} granules")]
    Granules(u8),
    /// a next extent with others, or to no segment
    #[error("a next extent does not stand alone or names no segment")]
    Next,
    /// the payload is not as long as its extents say
    #[error("the payload has {0} bytes, its extents have others")]
    PayloadBytes(u32),
    /// stored bytes are damaged
    #[error("the payload is damaged at byte {0}")]
    Payload(usize),
    /// what must be zero is not
    #[error("the padding before byte {0} is not zero")]
    Padding(usize),
}

/// Appends a header with `extents` to `out` and gives its CRC, the next record's `previous`.
///
/// # Panics
/// If the extents take more than [`HEADER_BYTES_MAX`].
pub fn encode_header<'a>(
    header: &Header,
    extents: impl Iterator<Item = Extent<'a>>,
    out: &mut Vec<u8>,
) -> u32 {
    let start = out.len();
    out.extend_from_slice(&[0; FIXED_BYTES]);
    let mut count = 0u32;
    for extent in extents {
        encode_extent(&extent, out);
        count += 1;
    }
    let bytes = &mut out[start..];
    let length = bytes.len();
    assert!(length <= HEADER_BYTES_MAX, "a header of {length} bytes");
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[10] = header.align_shift;
    bytes[12..16].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&header.lane.group.0.to_le_bytes());
    bytes[24..26].copy_from_slice(&header.lane.lane.to_le_bytes());
    bytes[26..28].copy_from_slice(&header.in_flight.to_le_bytes());
    bytes[28..32].copy_from_slice(&header.segment.0.to_le_bytes());
    bytes[32..40].copy_from_slice(&header.epoch.0.to_le_bytes());
    bytes[40..48].copy_from_slice(&header.sequence.to_le_bytes());
    bytes[48..52].copy_from_slice(&header.previous.to_le_bytes());
    bytes[52..56].copy_from_slice(&header.payload_bytes.to_le_bytes());
    bytes[56..60].copy_from_slice(&count.to_le_bytes());
    let crc = header_crc(bytes);
    bytes[CRC_AT..FIXED_BYTES].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn encode_extent(extent: &Extent<'_>, out: &mut Vec<u8>) {
    let (kind, volume, first, count, crc, sums): (u8, u32, u64, u32, u32, &[BlockSum]) = match *extent {
        Extent::Data { volume, first, sums } => (1, volume, first, sums.len() as u32, 0, sums),
        Extent::Zero { volume, first, count } => (2, volume, first, count, 0, &[]),
        Extent::Unmap { volume, first, count } => (3, volume, first, count, 0, &[]),
        Extent::Control { bytes, crc } => (4, 0, 0, bytes, crc, &[]),
        Extent::Next(segment) => (5, 0, u64::from(segment.0), 0, 0, &[]),
    };
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&volume.to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    for sum in sums {
        out.extend_from_slice(&sum.crc.to_le_bytes());
        out.extend_from_slice(&[sum.granules, 0, 0, 0]);
    }
}

fn header_crc(header: &[u8]) -> u32 {
    crc32c_append(crc32c(&header[..CRC_AT]), &header[FIXED_BYTES..])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A header whose CRC and lengths have been checked, over the bytes it was read from.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The fixed part.
    pub header: Header,
    /// The header's CRC: the next record's `previous`.
    pub crc: u32,
    extents: &'a [u8],
}

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// [`RecordError::Short`] where `bytes` end within it; else whatever is wrong with it.
pub fn decode_header(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    if bytes.len() < FIXED_BYTES {
        return Err(RecordError::Short { need: FIXED_BYTES });
    }
    if bytes[..8] != MAGIC {
        return Err(RecordError::Magic);
    }
    let version = u16_at(bytes, 8);
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let length = u32_at(bytes, 12);
    if (length as usize) < FIXED_BYTES || length as usize > HEADER_BYTES_MAX {
        return Err(RecordError::HeaderBytes(length));
    }
    let Some(bytes) = bytes.get(..length as usize) else {
        return Err(RecordError::Short { need: length as usize });
    };
    let crc = u32_at(bytes, CRC_AT);
    if crc != header_crc(bytes) {
        return Err(RecordError::HeaderCrc);
    }
    if bytes[11] != 0 {
        return Err(RecordError::Reserved(11));
    }
    let header = Header {
        lane: LaneId { group: GroupId(u64_at(bytes, 16)), lane: u16_at(bytes, 24) },
        segment: SegmentId(u32_at(bytes, 28)),
        epoch: Epoch(u64_at(bytes, 32)),
        sequence: u64_at(bytes, 40),
        previous: u32_at(bytes, 48),
        in_flight: u16_at(bytes, 26),
        payload_bytes: u32_at(bytes, 52),
        align_shift: bytes[10],
    };
    if !(9..=12).contains(&header.align_shift) {
        return Err(RecordError::Align(header.align_shift));
    }
    if header.payload_bytes as usize > PAYLOAD_BYTES_MAX {
        return Err(RecordError::PayloadBytes(header.payload_bytes));
    }
    let extents = &bytes[FIXED_BYTES..];
    let payload = check_extents(extents, u32_at(bytes, 56))?;
    if payload != header.payload_bytes as usize {
        return Err(RecordError::PayloadBytes(header.payload_bytes));
    }
    Ok(Record { header, crc, extents })
}

/// Checks that `bytes` are exactly `count` extents, and gives the length of their payload.
fn check_extents(bytes: &[u8], count: u32) -> Result<usize, RecordError> {
    let (mut at, mut payload) = (0, 0);
    for _ in 0..count {
        let extent = bytes.get(at..at + EXTENT_BYTES).ok_or(RecordError::Extents)?;
        if extent[1..4] != [0; 3] {
            return Err(RecordError::Reserved(FIXED_BYTES + at + 1));
        }
        at += EXTENT_BYTES;
        let (first, blocks) = (u64_at(extent, 8), u32_at(extent, 16));
        let range = RecordError::Range { first, count: blocks };
        let in_volume =
            blocks > 0 && first.checked_add(blocks.into()).is_some_and(|end| end <= BLOCK_END_MAX);
        if extent[0] != 4 && u32_at(extent, 20) != 0 {
            return Err(RecordError::Reserved(FIXED_BYTES + at - 4));
        }
        match extent[0] {
            1 => {
                if !in_volume || blocks as usize > DATA_BLOCKS_MAX {
                    return Err(range);
                }
                let end = at + blocks as usize * SUM_BYTES;
                for sum in bytes.get(at..end).ok_or(RecordError::Extents)?.chunks_exact(SUM_BYTES) {
                    payload += usize::from(check_sum(sum)?) * GRANULE_BYTES;
                }
                at = end;
            }
            2 | 3 if !in_volume => return Err(range),
            2 | 3 => {}
            4 if first != 0 || u32_at(extent, 4) != 0 || blocks as usize > PAYLOAD_BYTES_MAX => {
                return Err(range);
            }
            4 => payload += (blocks as usize).next_multiple_of(GRANULE_BYTES),
            5 => {
                let named = first > 0 && first <= u64::from(u32::MAX);
                if count != 1 || !named || blocks != 0 || u32_at(extent, 4) != 0 {
                    return Err(RecordError::Next);
                }
            }
            kind => return Err(RecordError::Kind(kind)),
        }
    }
    if at == bytes.len() { Ok(payload) } else { Err(RecordError::Extents) }
}

fn check_sum(sum: &[u8]) -> Result<u8, RecordError> {
    if sum[4] == 0 || sum[4] > BLOCK_GRANULES {
        return Err(RecordError::Granules(sum[4]));
    }
    if sum[5..8] == [0; 3] { Ok(sum[4]) } else { Err(RecordError::Reserved(FIXED_BYTES)) }
}

impl<'a> Record<'a> {
    /// The store's alignment, in bytes.
    #[must_use]
    pub fn align_bytes(&self) -> usize {
        1 << self.header.align_shift
    }

    /// Where the payload begins in the record, in bytes.
    #[must_use]
    pub fn payload_at(&self) -> usize {
        (FIXED_BYTES + self.extents.len()).next_multiple_of(self.align_bytes())
    }

    /// The length of the whole record with its padding, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.payload_at() + (self.header.payload_bytes as usize).next_multiple_of(self.align_bytes())
    }

    /// The sequence below which every record was acknowledged before this one was sent.
    #[must_use]
    pub fn acknowledged_below(&self) -> u64 {
        self.header.sequence.saturating_sub(self.header.in_flight.into())
    }

    /// The segment in which the log continues, if this is the last record of its own.
    #[must_use]
    pub fn next(&self) -> Option<SegmentId> {
        let is_next = self.extents.first() == Some(&5);
        is_next.then(|| SegmentId(u64_at(self.extents, 8) as u32))
    }

    /// Calls `each` with every extent and where its part of the payload begins (bytes from the record's first).
    /// `sums` is room that is used again.
    pub fn for_each(&self, sums: &mut Vec<BlockSum>, mut each: impl FnMut(Extent<'_>, usize)) {
        let (mut at, mut place) = (0, self.payload_at());
        while at < self.extents.len() {
            let extent = &self.extents[at..at + EXTENT_BYTES];
            at += EXTENT_BYTES;
            let volume = u32_at(extent, 4);
            let (first, count) = (u64_at(extent, 8), u32_at(extent, 16));
            match extent[0] {
                1 => {
                    let end = at + count as usize * SUM_BYTES;
                    sums.clear();
                    sums.extend(
                        self.extents[at..end]
                            .chunks_exact(SUM_BYTES)
                            .map(|sum| BlockSum { crc: u32_at(sum, 0), granules: sum[4] }),
                    );
                    at = end;
                    each(Extent::Data { volume, first, sums }, place);
                    place += stored_bytes(sums);
                }
                2 => each(Extent::Zero { volume, first, count }, place),
                3 => each(Extent::Unmap { volume, first, count }, place),
                4 => {
                    each(Extent::Control { bytes: count, crc: u32_at(extent, 20) }, place);
                    place += (count as usize).next_multiple_of(GRANULE_BYTES);
                }
                _ => each(Extent::Next(SegmentId(first as u32)), place),
            }
        }
    }
}

/// Checks the stored bytes of `record` and all padding. `bytes` begin with the record's header.
///
/// # Errors
/// [`RecordError::Short`] where `bytes` end within the record, [`RecordError::Payload`] and [`RecordError::Padding`].
pub fn verify_payload(record: &Record<'_>, bytes: &[u8]) -> Result<(), RecordError> {
    let total = record.total_bytes();
    let bytes = bytes.get(..total).ok_or(RecordError::Short { need: total })?;
    let zero = |from: usize, to: usize| match bytes[from..to].iter().any(|&byte| byte != 0) {
        true => Err(RecordError::Padding(to)),
        false => Ok(()),
    };
    zero(FIXED_BYTES + record.extents.len(), record.payload_at())?;
    let (mut at, mut place) = (0, record.payload_at());
    while at < record.extents.len() {
        let extent = &record.extents[at..at + EXTENT_BYTES];
        at += EXTENT_BYTES;
        let count = u32_at(extent, 16) as usize;
        if extent[0] == 1 {
            let end = at + count * SUM_BYTES;
            for sum in record.extents[at..end].chunks_exact(SUM_BYTES) {
                let block_end = place + usize::from(sum[4]) * GRANULE_BYTES;
                if crc32c(&bytes[place..block_end]) != u32_at(sum, 0) {
                    return Err(RecordError::Payload(place));
                }
                place = block_end;
            }
            at = end;
        } else if extent[0] == 4 {
            if crc32c(&bytes[place..place + count]) != u32_at(extent, 20) {
                return Err(RecordError::Payload(place));
            }
            let end = place + count.next_multiple_of(GRANULE_BYTES);
            zero(place + count, end)?;
            place = end;
        }
    }
    zero(place, total)
}

#[cfg(test)]
mod tests;
