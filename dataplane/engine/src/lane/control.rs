//! What the log says beside data: changes of volumes and snapshots. Each is one record's opaque bytes, a code and fields
//! in little endian.

use std::rc::Rc;

use ashlar_env::units::VolumeId;

use crate::map::Entry;
use crate::map::entry::ENTRY_BYTES;
use crate::wire::{Reader, Writer};

/// A change of a lane's volumes and snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// 1: a volume begins, empty.
    Create {
        /// its number in the lane
        volume: u32,
        /// its identity
        id: VolumeId,
        /// its size in bytes
        size_bytes: u64,
    },
    /// 2: a volume begins as what another was in a snapshot.
    Clone {
        /// its number in the lane
        volume: u32,
        /// its identity
        id: VolumeId,
        /// the snapshot
        snapshot: u32,
        /// the volume in that snapshot
        of: u32,
    },
    /// 3: a volume has another size.
    Resize {
        /// its number
        volume: u32,
        /// its new size in bytes
        size_bytes: u64,
    },
    /// 4: a volume ends. What snapshots hold of it stays.
    Delete {
        /// its number
        volume: u32,
    },
    /// 5: a snapshot of all volumes is cut.
    Snapshot {
        /// its number, which is the birth of what was written last before it
        number: u32,
    },
    /// 6: a snapshot ends.
    DeleteSnapshot {
        /// its number
        number: u32,
    },
    /// 7: the volumes become again what they were in the latest snapshot.
    Restore {
        /// its number
        number: u32,
    },
    /// 8: blocks are compressed from now on, or not any more.
    Compress {
        /// 0 not, 1 LZ4
        method: u8,
    },
    /// 9: blocks refer to what others hold.
    Copy {
        /// the volume they are in
        volume: u32,
        /// the first of them
        first: u64,
        /// what each refers to; holes where the source had none
        entries: Rc<[Entry]>,
    },
    /// 10: nothing; whoever logs it waits for what came before it.
    Nothing,
}

impl Control {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match *self {
            Self::Copy { volume, first, ref entries } => {
                out.u8(9).u32(volume).u64(first).u32(entries.len() as u32);
                entries.iter().fold(&mut out, |out, entry| out.bytes(&entry.encode()))
            }
            Self::Create { volume, id, size_bytes } => {
                out.u8(1).u32(volume).bytes(id.0.as_bytes()).u64(size_bytes)
            }
            Self::Clone { volume, id, snapshot, of } => {
                out.u8(2).u32(volume).bytes(id.0.as_bytes()).u32(snapshot).u32(of)
            }
            Self::Resize { volume, size_bytes } => out.u8(3).u32(volume).u64(size_bytes),
            Self::Delete { volume } => out.u8(4).u32(volume),
            Self::Snapshot { number } => out.u8(5).u32(number),
            Self::DeleteSnapshot { number } => out.u8(6).u32(number),
            Self::Restore { number } => out.u8(7).u32(number),
            Self::Compress { method } => out.u8(8).u8(method),
            Self::Nothing => out.u8(10),
        };
        out.0
    }

    /// The change that `bytes` begin with (padding may follow); `None` where they are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader(bytes);
        let id = |fields: &mut Reader<'_>| Some(VolumeId(uuid::Uuid::from_bytes(fields.array()?)));
        Some(match fields.u8()? {
            1 => Self::Create { volume: fields.u32()?, id: id(&mut fields)?, size_bytes: fields.u64()? },
            2 => Self::Clone {
                volume: fields.u32()?,
                id: id(&mut fields)?,
                snapshot: fields.u32()?,
                of: fields.u32()?,
            },
            3 => Self::Resize { volume: fields.u32()?, size_bytes: fields.u64()? },
            4 => Self::Delete { volume: fields.u32()? },
            5 => Self::Snapshot { number: fields.u32()? },
            6 => Self::DeleteSnapshot { number: fields.u32()? },
            7 => Self::Restore { number: fields.u32()? },
            8 => Self::Compress { method: fields.u8()? },
            9 => {
                let (volume, first) = (fields.u32()?, fields.u64()?);
                let count = fields.count(ENTRY_BYTES)?;
                let entries = (0..count).map(|_| Entry::decode(&fields.array()?));
                Self::Copy { volume, first, entries: entries.collect::<Option<_>>()? }
            }
            10 => Self::Nothing,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let id = VolumeId(uuid::Uuid::from_u128(0x1234_5678_9ABC));
        let address = crate::map::Address { segment: crate::ids::SegmentId(5), position: 9 };
        let entry = Entry::new(address, 64, 0x5EED, 3).copied(0);
        for control in [
            Control::Create { volume: 1, id, size_bytes: 1 << 40 },
            Control::Clone { volume: 2, id, snapshot: 3, of: 1 },
            Control::Resize { volume: 1, size_bytes: 4096 },
            Control::Delete { volume: 9 },
            Control::Snapshot { number: 4 },
            Control::DeleteSnapshot { number: 4 },
            Control::Restore { number: 5 },
            Control::Compress { method: 1 },
            Control::Nothing,
            Control::Copy { volume: 3, first: 7, entries: [entry, Entry::EMPTY].into() },
        ] {
            let mut bytes = control.encode();
            assert_eq!(Control::decode(&bytes), Some(control.clone()));
            bytes.extend_from_slice(&[0; 64]);
            assert_eq!(Control::decode(&bytes), Some(control));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_change_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Control::decode(&bytes);
        }
    }
}
