//! Ids and units as types, so that no bare `u64` crosses a boundary.

use std::fmt;

/// A number of logical blocks, or the address of one (LBA), in the units the host sees (512 or 4096 bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// The size of a logical block: 2^9 or 2^12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockSize {
    shift: u8,
}

impl BlockSize {
    /// 512 bytes.
    pub const B512: Self = Self { shift: 9 };
    /// 4096 bytes.
    pub const B4096: Self = Self { shift: 12 };

    /// The block size of `bytes`, where that is one hosts know.
    #[must_use]
    pub const fn new(bytes: u32) -> Option<Self> {
        match bytes {
            512 => Some(Self::B512),
            4096 => Some(Self::B4096),
            _ => None,
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        1 << self.shift
    }

    /// The binary logarithm of the size in bytes: what NVMe calls LBADS.
    #[must_use]
    pub const fn shift(self) -> u8 {
        self.shift
    }
}

/// A run of logical blocks that lies within 64 bits: `first + blocks` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRange {
    first: u64,
    blocks: u64,
}

impl BlockRange {
    /// `blocks` blocks from `first`, or `None` where the end overflows.
    #[must_use]
    pub const fn new(first: Lba, blocks: u64) -> Option<Self> {
        if first.0.checked_add(blocks).is_none() {
            return None;
        }
        Some(Self { first: first.0, blocks })
    }

    /// The first block.
    #[must_use]
    pub const fn first(self) -> Lba {
        Lba(self.first)
    }

    /// The block after the last.
    #[must_use]
    pub const fn end(self) -> Lba {
        Lba(self.first + self.blocks)
    }

    /// The number of blocks.
    #[must_use]
    pub const fn blocks(self) -> u64 {
        self.blocks
    }

    /// Whether the two share a block.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first < other.first + other.blocks && other.first < self.first + self.blocks
    }

    /// Where the run lies in bytes, or `None` where that is beyond 64 bits.
    #[must_use]
    pub const fn bytes(self, size: BlockSize) -> Option<ByteRange> {
        let end = self.first + self.blocks;
        if end > u64::MAX >> size.shift {
            return None;
        }
        Some(ByteRange { start: self.first << size.shift, len: self.blocks << size.shift })
    }
}

/// A run of bytes of a device; `start + len` does not overflow when made from a [`BlockRange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub len: u64,
}

impl ByteRange {
    /// The byte after the last, saturating.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// A volume's identity: a UUID, the same on every node and for ever; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub uuid::Uuid);

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_never_wraps() {
        assert!(BlockRange::new(Lba(u64::MAX), 1).is_none());
        let last = BlockRange::new(Lba(u64::MAX - 1), 1).unwrap();
        assert_eq!(last.end(), Lba(u64::MAX));
        assert!(last.bytes(BlockSize::B512).is_none());
    }

    #[test]
    fn empty_ranges_overlap_nothing() {
        let r = |first, blocks| BlockRange::new(Lba(first), blocks).unwrap();
        assert!(!r(5, 0).overlaps(r(0, 5)));
        assert!(r(0, 6).overlaps(r(5, 1)));
        assert!(!r(0, 5).overlaps(r(5, 5)));
    }
}
