//! The superblock: what the device is.
//!
//! ```text
//! byte  0        1        2        3        4        5        6        7
//!    0  magic: 89h "ASHLR" 1Ah 0Ah
//!    8  CRC32C                             | version         | reserved
//!   16  incompatible features
//!   24  compatible features
//!   32  device UUID
//!   40
//!   48  cluster UUID
//!   56
//!   64  size of the device in bytes
//!   72  slot_bytes                         | slots
//!   80  align_bytes                        | fence_pages
//!   88  fence_start in bytes
//!   96  slots_start in bytes
//!  104  reserved, to byte 512
//! ```
//!
//! The magic's first byte and its end show what a transfer as text did to an image. The device UUID is drawn anew each
//! time a device is formatted, and every slot header and fence page repeats it: what an earlier format left behind is
//! never taken for ours.

use uuid::Uuid;

use super::bytes::{check, put, reserved, seal, u16_at, u32_at, u64_at, uuid_at, valid};
use super::{COMPATIBLE_KNOWN, Damage, INCOMPATIBLE_KNOWN, PAGE_BYTES, SLOT_HEADERS_BYTES, VERSION};
use crate::ids::{CHUNK_GRANULES_MAX, GRANULE_BYTES};

/// The encoded length, in bytes: one sector of any device.
pub const SUPERBLOCK_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"\x89ASHLR\x1A\n";

/// The smallest slot, in bytes.
const SLOT_BYTES_MIN: u32 = 16 << 10;
/// The largest slot, in bytes.
const SLOT_BYTES_MAX: u32 = CHUNK_GRANULES_MAX * GRANULE_BYTES as u32;

const _: () = assert!(SLOT_BYTES_MIN > SLOT_HEADERS_BYTES);
const _: () = assert!(SLOT_BYTES_MAX - SLOT_HEADERS_BYTES <= CHUNK_GRANULES_MAX * GRANULE_BYTES as u32);

/// Where things are on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The device's size when it was formatted, in bytes, rounded down to pages.
    pub size_bytes: u64,
    /// A slot with its headers, in bytes: a power of two, 16 KiB to 16 MiB.
    pub slot_bytes: u32,
    /// How many slots there are.
    pub slots: u32,
    /// The granule of appends and reads, in bytes: a power of two, 512 to 4096.
    pub align_bytes: u32,
    /// Where the fence pages begin, in bytes.
    pub fence_start: u64,
    /// How many fence pages there are, each of which exists twice.
    pub fence_pages: u32,
    /// Where the slots begin, in bytes.
    pub slots_start: u64,
}

impl Geometry {
    /// Lays out a device of `size_bytes`; `None` where not even one slot fits, or a size is out of its range.
    #[must_use]
    pub fn plan(size_bytes: u64, slot_bytes: u32, align_bytes: u32, fence_pages: u32) -> Option<Self> {
        let page = u64::from(PAGE_BYTES);
        let size_bytes = size_bytes / page * page;
        let fence_start = page;
        let fence_end = fence_start + u64::from(fence_pages) * 2 * page;
        // Slots begin where flash is likely to erase in whole units, if that is no larger than they are.
        let slots_start =
            fence_end.checked_next_multiple_of(u64::from(slot_bytes.clamp(PAGE_BYTES, 1 << 20)))?;
        let room = size_bytes.checked_sub(slots_start + page)?;
        let slots = u32::try_from(room / u64::from(slot_bytes.max(1))).ok()?;
        let it = Self { size_bytes, slot_bytes, slots, align_bytes, fence_start, fence_pages, slots_start };
        it.check().ok().map(|()| it)
    }

    /// What a slot holds, in bytes.
    #[must_use]
    pub const fn chunk_bytes(&self) -> u32 {
        self.slot_bytes - SLOT_HEADERS_BYTES
    }

    /// Where the headers of slot `slot` begin; the second copy is a page after the first.
    #[must_use]
    pub fn slot_start(&self, slot: u32) -> u64 {
        self.slots_start + u64::from(slot) * u64::from(self.slot_bytes)
    }

    /// Where the data of slot `slot` begin.
    #[must_use]
    pub fn data_start(&self, slot: u32) -> u64 {
        self.slot_start(slot) + u64::from(SLOT_HEADERS_BYTES)
    }

    /// Where fence page `page` begins; the second copy is a page after the first.
    #[must_use]
    pub fn fence_page_start(&self, page: u32) -> u64 {
        self.fence_start + u64::from(page) * 2 * u64::from(PAGE_BYTES)
    }

    /// Where the second superblock is.
    #[must_use]
    pub fn second_superblock(size_bytes: u64) -> Option<u64> {
        let page = u64::from(PAGE_BYTES);
        (size_bytes / page).checked_sub(1).filter(|&at| at > 0).map(|at| at * page)
    }

    /// Nothing read from a device enters arithmetic before this.
    fn check(&self) -> Result<(), Damage> {
        let page = u64::from(PAGE_BYTES);
        let slot = self.slot_bytes;
        valid(slot.is_power_of_two() && (SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&slot), "slot size")?;
        let align = self.align_bytes;
        valid(align.is_power_of_two() && (512..=PAGE_BYTES).contains(&align), "alignment")?;
        valid(self.size_bytes.is_multiple_of(page), "size")?;
        valid(self.fence_start >= page && self.fence_start.is_multiple_of(page), "place of the fences")?;
        let fence_end = self.fence_start.checked_add(u64::from(self.fence_pages) * 2 * page);
        let after_fences = fence_end.is_some_and(|end| end <= self.slots_start);
        valid(self.fence_pages > 0 && after_fences, "number of fence pages")?;
        valid(self.slots_start.is_multiple_of(page), "place of the slots")?;
        let slots_end = self.slots_start.checked_add(u64::from(self.slots) * u64::from(slot));
        let fits = slots_end.and_then(|end| end.checked_add(page)).is_some_and(|end| end <= self.size_bytes);
        valid(self.slots > 0 && fits, "number of slots")
    }
}

/// What the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The device's identity since it was formatted.
    pub device: Uuid,
    /// The cluster it belongs to.
    pub cluster: Uuid,
    /// Compatible features in use.
    pub compatible: u64,
    /// Where things are.
    pub geometry: Geometry,
}

impl Superblock {
    /// As it lies on the device.
    #[must_use]
    pub fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let it = &self.geometry;
        let mut bytes = [0; SUPERBLOCK_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 12, (VERSION as u16).to_le_bytes());
        put(&mut bytes, 16, INCOMPATIBLE_KNOWN.to_le_bytes());
        put(&mut bytes, 24, self.compatible.to_le_bytes());
        put(&mut bytes, 32, self.device.into_bytes());
        put(&mut bytes, 48, self.cluster.into_bytes());
        put(&mut bytes, 64, it.size_bytes.to_le_bytes());
        put(&mut bytes, 72, it.slot_bytes.to_le_bytes());
        put(&mut bytes, 76, it.slots.to_le_bytes());
        put(&mut bytes, 80, it.align_bytes.to_le_bytes());
        put(&mut bytes, 84, it.fence_pages.to_le_bytes());
        put(&mut bytes, 88, it.fence_start.to_le_bytes());
        put(&mut bytes, 96, it.slots_start.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    /// Reads it back.
    ///
    /// # Errors
    /// What is wrong with it. The version is looked at before the features, and these before all other fields.
    pub fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, Damage> {
        check(bytes, MAGIC)?;
        let version = u16_at(bytes, 12);
        if version > VERSION as u16 {
            return Err(Damage::Newer(version));
        }
        valid(version > 0, "version")?;
        let unknown = u64_at(bytes, 16) & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            return Err(Damage::Features(unknown));
        }
        let compatible = u64_at(bytes, 24);
        if compatible & !COMPATIBLE_KNOWN == 0 {
            reserved(&bytes[14..16])?;
            reserved(&bytes[104..])?;
        }
        let geometry = Geometry {
            size_bytes: u64_at(bytes, 64),
            slot_bytes: u32_at(bytes, 72),
            slots: u32_at(bytes, 76),
            align_bytes: u32_at(bytes, 80),
            fence_pages: u32_at(bytes, 84),
            fence_start: u64_at(bytes, 88),
            slots_start: u64_at(bytes, 96),
        };
        geometry.check()?;
        Ok(Self { device: uuid_at(bytes, 32), cluster: uuid_at(bytes, 48), compatible, geometry })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Superblock {
        Superblock {
            device: Uuid::from_u128(7),
            cluster: Uuid::from_u128(9),
            compatible: 0,
            geometry: Geometry::plan(10 << 20, 64 << 10, 512, 2).unwrap(),
        }
    }

    /// The example with `change` made and a checksum that fits.
    fn with(change: impl FnOnce(&mut [u8; SUPERBLOCK_BYTES])) -> Result<Superblock, Damage> {
        let mut bytes = example().encode();
        change(&mut bytes);
        seal(&mut bytes);
        Superblock::decode(&bytes)
    }

    #[test]
    fn every_changed_byte_is_seen() {
        let bytes = example().encode();
        for at in 0..SUPERBLOCK_BYTES {
            for flip in [1, 0x80, 0xFF] {
                let mut changed = bytes;
                changed[at] ^= flip;
                assert!(Superblock::decode(&changed).is_err(), "byte {at} by {flip:#x}");
            }
        }
    }

    #[test]
    fn what_is_newer_or_unknown_is_named() {
        assert_eq!(with(|b| b[12] = 2), Err(Damage::Newer(2)));
        assert_eq!(with(|b| b[16] = 4), Err(Damage::Features(4)));
        assert_eq!(with(|b| b[200] = 1), Err(Damage::Field("reserved range")));
        assert_eq!(with(|b| b[14] = 1), Err(Damage::Field("reserved range")));
        assert_eq!(with(|b| b[75] = 1), Err(Damage::Field("slot size")));
        assert_eq!(with(|b| put(b, 76, [255; 4])), Err(Damage::Field("number of slots")));
        assert_eq!(with(|b| put(b, 96, [255; 8])), Err(Damage::Field("place of the slots")));
        assert_eq!(Superblock::decode(&[0; SUPERBLOCK_BYTES]), Err(Damage::Blank));
        assert_eq!(Superblock::decode(&[1; SUPERBLOCK_BYTES]), Err(Damage::Magic));
    }

    #[test]
    fn a_compatible_feature_may_use_what_is_reserved() {
        let newer = with(|b| {
            b[24] = 1;
            b[200] = 1;
        });
        assert_eq!(newer.unwrap().compatible, 1);
    }

    #[test]
    fn too_small_devices_have_no_plan() {
        let least = 64 << 10;
        assert!(Geometry::plan(2 * least, 64 << 10, 512, 1).is_none());
        assert_eq!(Geometry::plan(2 * least + 4096, 64 << 10, 512, 1).map(|g| g.slots), Some(1));
        for bytes in [0, 4096, 8191] {
            assert!(Geometry::plan(bytes, 64 << 10, 512, 1).is_none());
        }
        assert!(Geometry::plan(1 << 40, 32 << 20, 512, 1).is_none(), "a slot too large");
        assert!(Geometry::plan(1 << 40, 60_000, 512, 1).is_none(), "not a power of two");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (device, cluster) in any::<(u128, u128)>(),
            size in 1_u64 << 20..1 << 50,
            slot_shift in 14_u32..=24,
            align_shift in 9_u32..=12,
            fence_pages in 1_u32..100,
        ) {
            let Some(geometry) = Geometry::plan(size, 1 << slot_shift, 1 << align_shift, fence_pages) else {
                return Ok(());
            };
            prop_assert!(geometry.slot_start(geometry.slots) <= size - 4096);
            let (device, cluster) = (Uuid::from_u128(device), Uuid::from_u128(cluster));
            let it = Superblock { device, cluster, compatible: 0, geometry };
            prop_assert_eq!(Superblock::decode(&it.encode()), Ok(it));
        }

        #[test]
        fn noise_with_a_fitting_checksum_does_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 512)) {
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[12..32].fill(0);
            bytes[12] = 1;
            bytes[104..].fill(0);
            seal(&mut bytes);
            let bytes: [u8; 512] = bytes.try_into().unwrap();
            if let Ok(it) = Superblock::decode(&bytes) {
                prop_assert_eq!(it.encode(), bytes);
            }
        }
    }
}
