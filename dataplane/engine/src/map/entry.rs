//! The map's 16-byte entry: where a block or a page of the map is, and its checksum.
//!
//! | Bytes | Field | Width |
//! |---|---|---|
//! | 0..4 | segment; 0 makes the entry empty | 32 |
//! | 4..8 | position in granules (low 18 bits), granules (next 8), flags (high 6): 1 the block is a copy, which refers to what was written for another block | 32 |
//! | 8..12 | CRC32C of the stored bytes | 32 |
//! | 12..16 | birth: the number of the snapshot that would be the first to hold it | 32 |
//!
//! All little endian. The segment and position are *virtual*: compaction moves what they name without changing
//! them. 32 bits of birth last for 136 years at one snapshot a second.

use crate::ids::{BLOCK_GRANULES, CHUNK_GRANULES_MAX, SegmentId};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 16;

const POSITION_BITS: u32 = 18;
const GRANULE_BITS: u32 = 8;
/// The flag of a copy.
const COPY: u32 = 1 << (POSITION_BITS + GRANULE_BITS);

/// A virtual address: a segment, and a position in it in granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The segment in which it was first written.
    pub segment: SegmentId,
    /// Where in that segment, in granules.
    pub position: u32,
}

/// Where something is stored, or that nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    segment: u32,
    place: u32,
    crc: u32,
    birth: u32,
}

impl Entry {
    /// Nothing: never written, or unmapped. Reads as zeros.
    pub const EMPTY: Self = Self { segment: 0, place: 0, crc: 0, birth: 0 };

    /// Marks a node that needs no page. Never stored.
    pub(super) const VACANT: Self = Self { segment: u32::MAX, place: 0, crc: 0, birth: 0 };

    /// Nothing, since `birth`: what an unmap leaves behind until it is merged. Stored as [`Self::EMPTY`].
    #[must_use]
    pub const fn hole(birth: u32) -> Self {
        Self { segment: 0, place: 0, crc: 0, birth }
    }

    /// An entry for `granules` granules at `address`.
    ///
    /// # Panics
    /// If the segment is 0, or the address lies beyond what an entry can name.
    #[must_use]
    pub fn new(address: Address, granules: u8, crc: u32, birth: u32) -> Self {
        assert!(address.segment.0 != 0 && granules != 0, "an entry names something");
        assert!(address.position < CHUNK_GRANULES_MAX, "positions are below a chunk's size");
        let place = address.position | u32::from(granules) << POSITION_BITS;
        Self { segment: address.segment.0, place, crc, birth }
    }

    /// Whether it names nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.segment == 0
    }

    /// Where the stored bytes are.
    #[must_use]
    pub const fn address(self) -> Address {
        Address { segment: SegmentId(self.segment), position: self.place & (CHUNK_GRANULES_MAX - 1) }
    }

    /// How many granules are stored.
    #[must_use]
    pub const fn granules(self) -> u8 {
        (self.place >> POSITION_BITS) as u8
    }

    /// Whether a block is stored compressed.
    #[must_use]
    pub const fn is_compressed(self) -> bool {
        self.granules() < BLOCK_GRANULES
    }

    /// The entry of a copy of this block, made at `birth`: it refers to the same stored bytes. A hole stays one.
    #[must_use]
    pub const fn copied(self, birth: u32) -> Self {
        if self.is_empty() { Self::hole(birth) } else { Self { place: self.place | COPY, birth, ..self } }
    }

    /// Whether it refers to what was written for another block.
    #[must_use]
    pub const fn is_copy(self) -> bool {
        self.place & COPY != 0
    }

    /// The CRC32C of the stored bytes.
    #[must_use]
    pub const fn crc(self) -> u32 {
        self.crc
    }

    /// The number of the first snapshot that would hold it.
    #[must_use]
    pub const fn birth(self) -> u32 {
        self.birth
    }

    /// The 16 bytes.
    #[must_use]
    pub fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        if self.is_empty() {
            return bytes;
        }
        for (at, word) in [self.segment, self.place, self.crc, self.birth].into_iter().enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The entry of 16 bytes; `None` where no writer can have made it.
    #[must_use]
    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let entry = Self { segment: word(0), place: word(4), crc: word(8), birth: word(12) };
        if entry.segment == 0 {
            return (entry == Self::EMPTY).then_some(entry);
        }
        let flags = entry.place >> (POSITION_BITS + GRANULE_BITS);
        (flags <= 1 && entry.granules() != 0).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(segment in 1u32.., position in 0..CHUNK_GRANULES_MAX, granules in 1u8..=128, crc: u32, birth: u32) {
            let entry = Entry::new(Address { segment: SegmentId(segment), position }, granules, crc, birth);
            prop_assert_eq!(Entry::decode(&entry.encode()), Some(entry));
            prop_assert_eq!(entry.address(), Address { segment: SegmentId(segment), position });
            prop_assert_eq!((entry.granules(), entry.crc(), entry.birth()), (granules, crc, birth));
            let copy = entry.copied(birth ^ 1);
            prop_assert_eq!(Entry::decode(&copy.encode()), Some(copy));
            prop_assert_eq!((copy.address(), copy.granules(), copy.crc()), (entry.address(), granules, crc));
            prop_assert_eq!((copy.is_copy(), entry.is_copy(), copy.birth()), (true, false, birth ^ 1));
        }

        #[test]
        fn any_bytes_are_an_entry_or_none(bytes: [u8; ENTRY_BYTES]) {
            if let Some(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }
    }

    #[test]
    fn an_empty_entry_is_all_zeros() {
        assert_eq!(Entry::EMPTY.encode(), [0; ENTRY_BYTES]);
        assert_eq!(Entry::decode(&[0; ENTRY_BYTES]), Some(Entry::EMPTY));
        let mut bytes = [0; ENTRY_BYTES];
        bytes[15] = 1;
        assert_eq!(Entry::decode(&bytes), None);
    }
}
