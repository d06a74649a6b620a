//! The header of a slot: what the slot holds.
//!
//! ```text
//! byte  0        1        2        3        4        5        6        7
//!    0  magic: "ASHLSLOT"
//!    8  CRC32C                             | state  | kind   | shard  | flags
//!   16  device UUID
//!   24
//!   32  sequence
//!   40  slot number                        | lane            | reserved
//!   48  group
//!   56  segment                            | next segment
//!   64  epoch of the writer
//!   72  sealed length in bytes             | reserved, to byte 512
//! ```
//!
//! *state*: 1 free, 2 open, 3 sealed, 4 a copy that is not complete. What a state does not use is zero: everything
//! of a chunk in a free slot; length, next segment and flags in a slot that is not sealed. *flags*: bit 0, there is a
//! next segment. *sequence* grows with every header that the store writes, whichever slot it is for; 64 bits never
//! run out. The slot number shows headers that were written or read in the wrong place.

use uuid::Uuid;

use super::Damage;
use super::bytes::{check, put, reserved, seal, u8_at, u16_at, u32_at, u64_at, uuid_at, valid};
use crate::chunks::Seal;
use crate::ids::{
    CHUNK_GRANULES_MAX, ChunkId, Epoch, GRANULE_BYTES, GroupId, LaneId, SegmentId, SegmentKind,
};

/// The encoded length, in bytes: one sector of any device.
pub const HEADER_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"ASHLSLOT";
const HAS_NEXT: u8 = 1;

const FREE: u8 = 1;
const OPEN: u8 = 2;
const SEALED: u8 = 3;
const COPYING: u8 = 4;

/// Whose a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The chunk.
    pub id: ChunkId,
    /// Its writer.
    pub epoch: Epoch,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// nothing
    Free,
    /// a chunk that is written, or was when the store stopped
    Open(Label),
    /// a chunk that has ended
    Sealed(Label, Seal),
    /// the beginning of a copy of a sealed chunk of another store: worth nothing until it is sealed
    Copying(Label),
}

/// A slot's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotHeader {
    /// The device.
    pub device: Uuid,
    /// The slot's number.
    pub slot: u32,
    /// The order of headers.
    pub sequence: u64,
    /// What the slot holds.
    pub content: Content,
}

impl SlotHeader {
    /// As it lies on the device.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 16, self.device.into_bytes());
        put(&mut bytes, 32, self.sequence.to_le_bytes());
        put(&mut bytes, 40, self.slot.to_le_bytes());
        match self.content {
            Content::Free => bytes[12] = FREE,
            Content::Open(label) => put_label(&mut bytes, OPEN, label),
            Content::Copying(label) => put_label(&mut bytes, COPYING, label),
            Content::Sealed(label, seal) => {
                put_label(&mut bytes, SEALED, label);
                bytes[15] = if seal.next.is_some() { HAS_NEXT } else { 0 };
                put(&mut bytes, 60, seal.next.map_or(0, |next| next.0).to_le_bytes());
                put(&mut bytes, 72, seal.length.to_le_bytes());
            }
        }
        seal(&mut bytes);
        bytes
    }

    /// Reads it back.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Damage> {
        check(bytes, MAGIC)?;
        reserved(&bytes[46..48])?;
        reserved(&bytes[76..])?;
        let state = u8_at(bytes, 12);
        if state != SEALED {
            valid(u8_at(bytes, 15) == 0 && u32_at(bytes, 60) == 0 && u32_at(bytes, 72) == 0, "seal")?;
        }
        let content = match state {
            FREE => {
                let unused = [&bytes[13..15], &bytes[44..46], &bytes[48..60], &bytes[64..72]];
                valid(unused.iter().all(|part| part.iter().all(|&byte| byte == 0)), "chunk")?;
                Content::Free
            }
            OPEN => Content::Open(label(bytes)?),
            COPYING => Content::Copying(label(bytes)?),
            SEALED => Content::Sealed(label(bytes)?, seal_of(bytes)?),
            _ => return Err(Damage::Field("state")),
        };
        let (device, sequence, slot) = (uuid_at(bytes, 16), u64_at(bytes, 32), u32_at(bytes, 40));
        Ok(Self { device, slot, sequence, content })
    }
}

fn put_label(bytes: &mut [u8], state: u8, Label { id, epoch }: Label) {
    bytes[12] = state;
    bytes[13] = id.kind as u8;
    bytes[14] = id.shard;
    put(bytes, 44, id.lane.lane.to_le_bytes());
    put(bytes, 48, id.lane.group.0.to_le_bytes());
    put(bytes, 56, id.segment.0.to_le_bytes());
    put(bytes, 64, epoch.0.to_le_bytes());
}

fn label(bytes: &[u8]) -> Result<Label, Damage> {
    let kind = SegmentKind::of(u8_at(bytes, 13)).ok_or(Damage::Field("kind"))?;
    let lane = LaneId { group: GroupId(u64_at(bytes, 48)), lane: u16_at(bytes, 44) };
    let id = ChunkId { lane, segment: SegmentId(u32_at(bytes, 56)), kind, shard: u8_at(bytes, 14) };
    Ok(Label { id, epoch: Epoch(u64_at(bytes, 64)) })
}

fn seal_of(bytes: &[u8]) -> Result<Seal, Damage> {
    let (flags, next, length) = (u8_at(bytes, 15), u32_at(bytes, 60), u32_at(bytes, 72));
    valid(flags & !HAS_NEXT == 0, "flags")?;
    valid(flags & HAS_NEXT != 0 || next == 0, "next segment")?;
    valid(length <= CHUNK_GRANULES_MAX * GRANULE_BYTES as u32, "length")?;
    Ok(Seal { length, next: (flags & HAS_NEXT != 0).then_some(SegmentId(next)) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> impl Strategy<Value = Label> {
        let kind = (1_u8..=4).prop_map(|code| SegmentKind::of(code).unwrap());
        (any::<(u64, u16, u32, u8, u64)>(), kind).prop_map(|((group, lane, segment, shard, epoch), kind)| {
            let lane = LaneId { group: GroupId(group), lane };
            Label { id: ChunkId { lane, segment: SegmentId(segment), kind, shard }, epoch: Epoch(epoch) }
        })
    }

    fn headers() -> impl Strategy<Value = SlotHeader> {
        let seals = (0_u32..=16 << 20, any::<Option<u32>>())
            .prop_map(|(length, next)| Seal { length, next: next.map(SegmentId) });
        let contents = prop_oneof![
            Just(Content::Free),
            labels().prop_map(Content::Open),
            labels().prop_map(Content::Copying),
            (labels(), seals).prop_map(|(label, seal)| Content::Sealed(label, seal)),
        ];
        (any::<(u128, u32, u64)>(), contents).prop_map(|((device, slot, sequence), content)| SlotHeader {
            device: Uuid::from_u128(device),
            slot,
            sequence,
            content,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(header in headers()) {
            prop_assert_eq!(SlotHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn every_changed_byte_is_seen(header in headers(), flip in 1_u8..) {
            let bytes = header.encode();
            for at in 0..HEADER_BYTES {
                let mut changed = bytes;
                changed[at] ^= flip;
                prop_assert!(SlotHeader::decode(&changed).is_err(), "byte {}", at);
            }
        }

        #[test]
        fn one_header_has_one_form(header in headers(), at in 12_usize..80, value: u8) {
            let mut bytes = header.encode();
            bytes[at] = value;
            seal(&mut bytes);
            if let Ok(read) = SlotHeader::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }
    }
}
