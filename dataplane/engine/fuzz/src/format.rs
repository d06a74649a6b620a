//! The decoders of superblock, slot header and fence page.

use ashlar_engine::store::format::{
    COMPATIBLE_KNOWN, FencePage, HEADER_BYTES, PAGE_BYTES, SUPERBLOCK_BYTES, SlotHeader, Superblock,
};

use crate::reseal;

/// The first byte says which structure the rest is (modulo 3: superblock, slot header, fence page), and by its highest
/// bit whether the checksum is left as it is. What can be read is written again the same: a structure has one form.
pub fn store_format(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    let resealed = |bytes: &mut [u8]| {
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        if which & 0x80 == 0 {
            reseal(bytes);
        }
    };
    match which % 3 {
        0 => {
            let mut bytes = [0; SUPERBLOCK_BYTES];
            resealed(&mut bytes);
            if let Ok(it) = Superblock::decode(&bytes) {
                let geometry = it.geometry;
                assert!(
                    geometry.slot_start(geometry.slots) < geometry.size_bytes,
                    "the slots are on the device"
                );
                assert!(it.compatible & !COMPATIBLE_KNOWN != 0 || it.encode() == bytes);
            }
        }
        1 => {
            let mut bytes = [0; HEADER_BYTES];
            resealed(&mut bytes);
            if let Ok(it) = SlotHeader::decode(&bytes) {
                assert_eq!(it.encode(), bytes);
            }
        }
        _ => {
            let mut bytes = [0; PAGE_BYTES as usize];
            resealed(&mut bytes);
            if let Ok(it) = FencePage::decode(&bytes) {
                let mut again = [0xFF; PAGE_BYTES as usize];
                it.encode(&mut again);
                assert_eq!(again, bytes);
            }
        }
    }
}
