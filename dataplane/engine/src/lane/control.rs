//! What the log says beside data: changes of volumes and snapshots. Each is one record's opaque bytes, a code and fields
//! in little endian.

use ashlar_env::units::VolumeId;

use crate::wire::{Reader, Writer};

/// A change of a lane's volumes and snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Control {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match *self {
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
        for control in [
            Control::Create { volume: 1, id, size_bytes: 1 << 40 },
            Control::Clone { volume: 2, id, snapshot: 3, of: 1 },
            Control::Resize { volume: 1, size_bytes: 4096 },
            Control::Delete { volume: 9 },
            Control::Snapshot { number: 4 },
            Control::DeleteSnapshot { number: 4 },
            Control::Restore { number: 5 },
            Control::Compress { method: 1 },
        ] {
            let mut bytes = control.encode();
            assert_eq!(Control::decode(&bytes), Some(control));
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
