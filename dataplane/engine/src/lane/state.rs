//! What a checkpoint writes beside pages of the map: the whole state from which a lane is recovered, by replaying the log
//! from a position.
//!
//! | Bytes | Field |
//! |---|---|
//! | 0..8 | magic |
//! | 8..12 | version: 2; of version 1 the last list is missing |
//! | 12..16 | length in bytes of all of it, without padding |
//! | 16..24 | sequence number of the checkpoint |
//! | 24..28 | CRC32C of all of it, with this field zero |
//! | 28..32 | zero |
//! | 32.. | group (8), lane (4), segment that it lies in (4), epoch (8) |
//!
//! then position of the log (segment 4, offset 4, sequence 8, previous header's CRC 4, shards 1), birth (4), next segment (4), bytes of the open segment of pages (4), next volume (4),
//! compression (1), binary logarithm of the maps' fan-out (1); the volumes: count (4) and for each number (4), id (16), size in bytes (8), origin's snapshot and volume (4 and 4, 0 where none), mapped
//! blocks (8), stored granules (8), level (1) and root (16); the snapshots: count and for each number (4), state (1), count of volumes and for each number (4), size in bytes (8), origin (4 and 4), mapped
//! blocks (8), stored granules (8), level (1) and root (16);
//! the versions to be let go of: count and for each volume (4), floor (4), birth (4), level (1) and root (16); the segments: count and for each number (4), kind (1), place (1: 0 here, else one more than the number of hosts), hosts (4 each), sealed
//! length (4, 2^32 - 1 while open), birth (4), live granules (8); the blocks that copies refer to: count and for each segment (4), position in granules (4), granules (1), whether the block that it was written for holds it (1), copies (4). All little endian.

use ashlar_codec::{crc32c, crc32c_append};
use ashlar_env::units::VolumeId;

use crate::ids::{Epoch, GroupId, LaneId, SegmentId, SegmentKind};
use crate::log::Position;
use crate::map::{Address, Entry};
use crate::segment::ShardSet;
use crate::wire::{Reader, Writer};

use super::shared::SharedState;

/// Bytes from which a checkpoint's length is known.
pub const HEADER_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"ASHLchk\n";
const VERSION: u32 = 2;
/// The version before, without blocks that copies refer to.
const VERSION_BEFORE: u32 = 1;
const CRC_AT: usize = 24;
const OPEN: u32 = u32::MAX;
/// The level of a root over 2^63 blocks with the least fan-out.
const LEVEL_MAX: u8 = 63;

/// A lane's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Which lane.
    pub lane: LaneId,
    /// The segment that it lies in: what a slot held before, also of this lane, is not taken for a checkpoint.
    pub segment: SegmentId,
    /// Counts up with each checkpoint.
    pub sequence: u64,
    /// The writer's.
    pub epoch: Epoch,
    /// Where replay begins.
    pub position: Position,
    /// The birth of what is written next.
    pub birth: u32,
    /// The number of the next segment.
    pub next_segment: u32,
    /// Bytes of the segment of pages that is open: all of them are durable.
    pub pages_bytes: u32,
    /// The number of the next volume.
    pub next_volume: u32,
    /// How blocks are compressed: 0 not, 1 LZ4.
    pub compression: u8,
    /// The binary logarithm of the maps' fan-out.
    pub fanout_bits: u8,
    /// The volumes.
    pub volumes: Vec<VolumeState>,
    /// The snapshots.
    pub snapshots: Vec<SnapshotState>,
    /// Versions to be let go of.
    pub leaving: Vec<LeavingState>,
    /// The segments.
    pub segments: Vec<SegmentState>,
    /// The blocks that copies refer to.
    pub shared: Vec<SharedState>,
}

/// The root of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its level; leaves are at 0.
    pub level: u8,
    /// Where its page is.
    pub page: Entry,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeState {
    /// Its number.
    pub number: u32,
    /// Its identity.
    pub id: VolumeId,
    /// Its size.
    pub size_bytes: u64,
    /// The snapshot and the volume it is a clone of.
    pub origin: Option<(u32, u32)>,
    /// Blocks that are mapped.
    pub mapped: i64,
    /// Granules that these take.
    pub stored: i64,
    /// Its map.
    pub root: Root,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotState {
    /// Its number.
    pub number: u32,
    /// Whether it is being deleted.
    pub leaving: bool,
    /// What it holds.
    pub volumes: Vec<HeldState>,
}

/// A volume as a snapshot holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldState {
    /// The volume's number.
    pub volume: u32,
    /// Its size at that time.
    pub size_bytes: u64,
    /// The snapshot and volume that it is a clone of.
    pub origin: Option<(u32, u32)>,
    /// Blocks that were mapped.
    pub mapped: i64,
    /// Granules that these take.
    pub stored: i64,
    /// Its map.
    pub root: Root,
}

/// A version of a volume that is neither volume nor snapshot any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingState {
    /// The volume.
    pub volume: u32,
    /// What was born up to here belongs to others.
    pub floor: u32,
    /// The birth at the time it left.
    pub birth: u32,
    /// Its map.
    pub root: Root,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentState {
    /// Its number.
    pub id: SegmentId,
    /// What it is for.
    pub kind: SegmentKind,
    /// Who holds what it held, if it has no chunks of its own any more.
    pub hosts: Option<Vec<SegmentId>>,
    /// Its length in bytes.
    pub sealed: Option<u32>,
    /// The birth of what was written to it first.
    pub birth: u32,
    /// Granules that entries name.
    pub live: i64,
}

impl State {
    /// The bytes, not padded.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(256 + self.segments.len() * 32));
        out.bytes(&MAGIC).u32(VERSION).u32(0).u64(self.sequence).u32(0).u32(0);
        out.u64(self.lane.group.0).u32(u32::from(self.lane.lane)).u32(self.segment.0).u64(self.epoch.0);
        let position = &self.position;
        out.u32(position.segment.0)
            .u32(position.offset)
            .u64(position.sequence)
            .u32(position.previous)
            .u8(position.shards.0);
        out.u32(self.birth)
            .u32(self.next_segment)
            .u32(self.pages_bytes)
            .u32(self.next_volume)
            .u8(self.compression)
            .u8(self.fanout_bits);
        out.u32(self.volumes.len() as u32);
        for volume in &self.volumes {
            let (snapshot, of) = volume.origin.unwrap_or((0, 0));
            out.u32(volume.number).bytes(volume.id.0.as_bytes()).u64(volume.size_bytes);
            out.u32(snapshot).u32(of).u64(volume.mapped as u64).u64(volume.stored as u64);
            put_root(&mut out, volume.root);
        }
        out.u32(self.snapshots.len() as u32);
        for snapshot in &self.snapshots {
            out.u32(snapshot.number).u8(u8::from(snapshot.leaving)).u32(snapshot.volumes.len() as u32);
            for held in &snapshot.volumes {
                let (snapshot, of) = held.origin.unwrap_or((0, 0));
                out.u32(held.volume).u64(held.size_bytes).u32(snapshot).u32(of);
                out.u64(held.mapped as u64).u64(held.stored as u64);
                put_root(&mut out, held.root);
            }
        }
        out.u32(self.leaving.len() as u32);
        for version in &self.leaving {
            out.u32(version.volume).u32(version.floor).u32(version.birth);
            put_root(&mut out, version.root);
        }
        out.u32(self.segments.len() as u32);
        for segment in &self.segments {
            let hosts = segment.hosts.as_deref();
            out.u32(segment.id.0).u8(segment.kind as u8).u8(hosts.map_or(0, |hosts| hosts.len() as u8 + 1));
            hosts.unwrap_or_default().iter().for_each(|host| {
                out.u32(host.0);
            });
            out.u32(segment.sealed.unwrap_or(OPEN));
            out.u32(segment.birth).u64(segment.live as u64);
        }
        out.u32(self.shared.len() as u32);
        for block in &self.shared {
            out.u32(block.address.segment.0).u32(block.address.position).u8(block.granules);
            out.u8(u8::from(block.original)).u32(block.copies);
        }
        let mut bytes = out.0;
        let len = bytes.len() as u32;
        bytes[12..16].copy_from_slice(&len.to_le_bytes());
        let crc = crc32c(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The length in bytes that the first [`HEADER_BYTES`] of a checkpoint tell; `None` where they begin none.
    #[must_use]
    pub fn length(bytes: &[u8]) -> Option<usize> {
        let mut fields = Reader(bytes.get(..HEADER_BYTES)?);
        let is_one = fields.array()? == MAGIC && (VERSION_BEFORE..=VERSION).contains(&fields.u32()?);
        let len = fields.u32()? as usize;
        (is_one && len >= HEADER_BYTES).then_some(len)
    }

    /// The state of `bytes`, which may go on after it; `None` where it is none or damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::length(bytes)?)?;
        let stored = u32::from_le_bytes(bytes[CRC_AT..CRC_AT + 4].try_into().ok()?);
        let crc = crc32c_append(crc32c(&bytes[..CRC_AT]), &[0; 4]);
        if crc32c_append(crc, &bytes[CRC_AT + 4..]) != stored {
            return None;
        }
        let sequence = u64::from_le_bytes(bytes[16..24].try_into().ok()?);
        let mut fields = Reader(&bytes[HEADER_BYTES..]);
        let mut state = Self::fields(&mut fields, sequence)?;
        if bytes[8..12] != VERSION_BEFORE.to_le_bytes() {
            state.shared = list(&mut fields, 14, shared)?;
        }
        fields.is_empty().then_some(state)
    }

    fn fields(fields: &mut Reader<'_>, sequence: u64) -> Option<Self> {
        let group = GroupId(fields.u64()?);
        let lane = LaneId { group, lane: u16::try_from(fields.u32()?).ok()? };
        Some(Self {
            lane,
            segment: SegmentId(fields.u32()?),
            sequence,
            epoch: Epoch(fields.u64()?),
            position: Position {
                segment: SegmentId(fields.u32()?),
                offset: fields.u32()?,
                sequence: fields.u64()?,
                previous: fields.u32()?,
                shards: ShardSet(fields.u8()?),
            },
            birth: fields.u32()?,
            next_segment: fields.u32()?,
            pages_bytes: fields.u32()?,
            next_volume: fields.u32()?,
            compression: fields.u8()?,
            fanout_bits: fields.u8()?,
            volumes: list(fields, 69, volume)?,
            snapshots: list(fields, 9, snapshot)?,
            leaving: list(fields, 29, leaving)?,
            segments: list(fields, 22, segment)?,
            shared: Vec::new(),
        })
    }
}

fn list<T>(
    fields: &mut Reader<'_>,
    each: usize,
    read: impl Fn(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = fields.count(each)?;
    (0..count).map(|_| read(fields)).collect()
}

fn put_root(out: &mut Writer, root: Root) {
    out.u8(root.level).bytes(&root.page.encode());
}

fn root(fields: &mut Reader<'_>) -> Option<Root> {
    let level = fields.u8().filter(|level| *level <= LEVEL_MAX)?;
    Some(Root { level, page: Entry::decode(&fields.array()?)? })
}

fn volume(fields: &mut Reader<'_>) -> Option<VolumeState> {
    let number = fields.u32()?;
    let id = VolumeId(uuid::Uuid::from_bytes(fields.array()?));
    let size_bytes = fields.u64()?;
    let origin = Some((fields.u32()?, fields.u32()?)).filter(|(_, of)| *of != 0);
    let (mapped, stored) = (fields.u64()? as i64, fields.u64()? as i64);
    Some(VolumeState { number, id, size_bytes, origin, mapped, stored, root: root(fields)? })
}

fn snapshot(fields: &mut Reader<'_>) -> Option<SnapshotState> {
    let (number, leaving) = (fields.u32()?, fields.u8()? != 0);
    let volumes = list(fields, 53, held)?;
    Some(SnapshotState { number, leaving, volumes })
}

fn held(fields: &mut Reader<'_>) -> Option<HeldState> {
    let (volume, size_bytes) = (fields.u32()?, fields.u64()?);
    let origin = Some((fields.u32()?, fields.u32()?)).filter(|(_, of)| *of != 0);
    let (mapped, stored) = (fields.u64()? as i64, fields.u64()? as i64);
    Some(HeldState { volume, size_bytes, origin, mapped, stored, root: root(fields)? })
}

fn leaving(fields: &mut Reader<'_>) -> Option<LeavingState> {
    let (volume, floor, birth) = (fields.u32()?, fields.u32()?, fields.u32()?);
    Some(LeavingState { volume, floor, birth, root: root(fields)? })
}

fn segment(fields: &mut Reader<'_>) -> Option<SegmentState> {
    let id = SegmentId(fields.u32()?);
    let kind = SegmentKind::of(fields.u8()?)?;
    let hosts = match fields.u8()? {
        0 => None,
        count => Some((1..count).map(|_| fields.u32().map(SegmentId)).collect::<Option<Vec<_>>>()?),
    };
    let sealed = Some(fields.u32()?).filter(|len| *len != OPEN);
    Some(SegmentState { id, kind, hosts, sealed, birth: fields.u32()?, live: fields.u64()? as i64 })
}

fn shared(fields: &mut Reader<'_>) -> Option<SharedState> {
    let address = Address { segment: SegmentId(fields.u32()?), position: fields.u32()? };
    let (granules, original) = (fields.u8()?, fields.u8()? != 0);
    Some(SharedState { address, granules, original, copies: fields.u32()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> State {
        let page = Entry::new(Address { segment: SegmentId(3), position: 8 }, 64, 77, 2);
        let root = Root { level: 1, page };
        let id = VolumeId(uuid::Uuid::from_u128(5));
        let held =
            HeldState { volume: 1, size_bytes: 1 << 30, origin: Some((1, 2)), mapped: 4, stored: 256, root };
        State {
            lane: LaneId { group: GroupId(9), lane: 0 },
            segment: SegmentId(6),
            sequence: 4,
            epoch: Epoch(2),
            position: Position {
                segment: SegmentId(7),
                offset: 4096,
                sequence: 99,
                previous: 1,
                shards: ShardSet(1),
            },
            birth: 3,
            next_segment: 8,
            pages_bytes: 8192,
            next_volume: 3,
            compression: 1,
            fanout_bits: 9,
            volumes: vec![
                VolumeState {
                    number: 1,
                    id,
                    size_bytes: 1 << 30,
                    origin: None,
                    mapped: 5,
                    stored: 320,
                    root,
                },
                VolumeState {
                    number: 2,
                    id,
                    size_bytes: 1 << 20,
                    origin: Some((1, 1)),
                    mapped: 0,
                    stored: 0,
                    root: Root { level: 0, page: Entry::EMPTY },
                },
            ],
            snapshots: vec![SnapshotState { number: 1, leaving: true, volumes: vec![held] }],
            leaving: vec![LeavingState { volume: 4, floor: 1, birth: 2, root }],
            segments: vec![
                SegmentState {
                    id: SegmentId(1),
                    kind: SegmentKind::Log,
                    hosts: Some(vec![SegmentId(5), SegmentId(6)]),
                    sealed: Some(65536),
                    birth: 1,
                    live: 40,
                },
                SegmentState {
                    id: SegmentId(7),
                    kind: SegmentKind::Log,
                    hosts: None,
                    sealed: None,
                    birth: 1,
                    live: 0,
                },
            ],
            shared: vec![SharedState {
                address: Address { segment: SegmentId(1), position: 77 },
                granules: 64,
                original: false,
                copies: 3,
            }],
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_and_every_changed_byte_is_noticed() {
        let state = sample();
        let mut bytes = state.encode();
        assert_eq!(State::decode(&bytes), Some(state.clone()));
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(State::decode(&bytes), None, "byte {at}");
            bytes[at] ^= 1;
        }
        bytes.extend_from_slice(&[0; 99]);
        assert_eq!(State::decode(&bytes), Some(state));
    }

    proptest! {
        #[test]
        fn any_fields_are_a_state_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = State::decode(&bytes);
            let _ = State::fields(&mut Reader(&bytes), 1);
        }
    }
}
