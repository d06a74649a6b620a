//! A page of fences: the epoch below which writers of a group are refused.
//!
//! ```text
//! byte  0        1        2        3        4        5        6        7
//!    0  magic: "ASHLFENC"
//!    8  CRC32C                             | page number
//!   16  device UUID
//!   24
//!   32  sequence
//!   40  reserved, to byte 64
//!   64  252 entries of 16 bytes:
//!       group
//!       epoch; 0 where the entry is not used, and then the group is 0, too
//! ```
//!
//! A group keeps its entry for as long as it has one; so pages change one at a time.

use uuid::Uuid;

use super::bytes::{check, put, reserved, seal, u32_at, u64_at, uuid_at, valid};
use super::{Damage, PAGE_BYTES};
use crate::ids::{Epoch, GroupId};

const MAGIC: [u8; 8] = *b"ASHLFENC";
const PAGE: usize = PAGE_BYTES as usize;
const ENTRIES_AT: usize = 64;
const ENTRY_BYTES: usize = 16;

/// The entries of a page.
pub const FENCE_PAGE_ENTRIES: usize = (PAGE - ENTRIES_AT) / ENTRY_BYTES;

const _: () = assert!(ENTRIES_AT + FENCE_PAGE_ENTRIES * ENTRY_BYTES == PAGE);

/// A group and its fence, which is above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceEntry {
    /// The group.
    pub group: GroupId,
    /// Writers below are refused.
    pub epoch: Epoch,
}

/// A page of fences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencePage {
    /// The device.
    pub device: Uuid,
    /// The page's number.
    pub page: u32,
    /// The order of the page's states.
    pub sequence: u64,
    /// [`FENCE_PAGE_ENTRIES`] entries.
    pub entries: Vec<Option<FenceEntry>>,
}

impl FencePage {
    /// Writes the page as it lies on the device.
    ///
    /// # Panics
    /// If it has another number of entries than [`FENCE_PAGE_ENTRIES`], or one with epoch 0.
    pub fn encode(&self, bytes: &mut [u8; PAGE]) {
        assert_eq!(self.entries.len(), FENCE_PAGE_ENTRIES, "a page is complete");
        bytes.fill(0);
        put(bytes, 0, MAGIC);
        put(bytes, 12, self.page.to_le_bytes());
        put(bytes, 16, self.device.into_bytes());
        put(bytes, 32, self.sequence.to_le_bytes());
        for (index, entry) in self.entries.iter().enumerate() {
            let Some(FenceEntry { group, epoch }) = entry else { continue };
            assert!(epoch.0 > 0, "epoch 0 fences nobody off");
            put(bytes, ENTRIES_AT + index * ENTRY_BYTES, group.0.to_le_bytes());
            put(bytes, ENTRIES_AT + index * ENTRY_BYTES + 8, epoch.0.to_le_bytes());
        }
        seal(bytes);
    }

    /// Reads it back.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8; PAGE]) -> Result<Self, Damage> {
        check(bytes, MAGIC)?;
        reserved(&bytes[40..ENTRIES_AT])?;
        let mut entries = Vec::with_capacity(FENCE_PAGE_ENTRIES);
        for at in (ENTRIES_AT..PAGE).step_by(ENTRY_BYTES) {
            let (group, epoch) = (u64_at(bytes, at), u64_at(bytes, at + 8));
            valid(epoch > 0 || group == 0, "entry")?;
            let entry = FenceEntry { group: GroupId(group), epoch: Epoch(epoch) };
            entries.push((epoch > 0).then_some(entry));
        }
        let (device, page, sequence) = (uuid_at(bytes, 16), u32_at(bytes, 12), u64_at(bytes, 32));
        Ok(Self { device, page, sequence, entries })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pages() -> impl Strategy<Value = FencePage> {
        let entry = proptest::option::of(
            (any::<u64>(), 1_u64..)
                .prop_map(|(group, epoch)| FenceEntry { group: GroupId(group), epoch: Epoch(epoch) }),
        );
        let entries = proptest::collection::vec(entry, FENCE_PAGE_ENTRIES);
        (any::<(u128, u32, u64)>(), entries).prop_map(|((device, page, sequence), entries)| FencePage {
            device: Uuid::from_u128(device),
            page,
            sequence,
            entries,
        })
    }

    fn encode(page: &FencePage) -> [u8; PAGE] {
        let mut bytes = [0xEE; PAGE];
        page.encode(&mut bytes);
        bytes
    }

    #[test]
    fn every_changed_byte_is_seen() {
        let mut entries = vec![None; FENCE_PAGE_ENTRIES];
        entries[3] = Some(FenceEntry { group: GroupId(5), epoch: Epoch(6) });
        let bytes = encode(&FencePage { device: Uuid::from_u128(1), page: 2, sequence: 3, entries });
        for at in 0..PAGE {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            assert!(FencePage::decode(&changed).is_err(), "byte {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(page in pages()) {
            prop_assert_eq!(FencePage::decode(&encode(&page)), Ok(page));
        }

        #[test]
        fn one_page_has_one_form(page in pages(), at in 12..PAGE, value: u8) {
            let mut bytes = encode(&page);
            bytes[at] = value;
            seal(&mut bytes);
            if let Ok(read) = FencePage::decode(&bytes) {
                prop_assert_eq!(encode(&read), bytes);
            }
        }
    }
}
