//! A page of the map as it is stored: the entries of one node.
//!
//! | Bytes | Field |
//! |---|---|
//! | 0..2 | how many entries follow |
//! | 2..4 | form: 0 all entries of the node in order, 1 pairs of index and entry, ascending by index |
//! | 4..8 | zero |
//! | 8.. | form 0: 16 bytes an entry; form 1: a 2-byte index each, padded to 16 bytes in all, then the entries |
//!
//! Padded with zeros to whole granules. The checksum is in the entry that refers to the page, so none is in it. A page of
//! few entries takes few granules: a sparse volume's map stays small.

use crate::ids::GRANULE_BYTES;

use super::entry::{ENTRY_BYTES, Entry};

const HEADER_BYTES: usize = 8;
const FORM_ALL: u16 = 0;
const FORM_SOME: u16 = 1;

/// The most bytes a page of `fanout` entries takes, in whole granules.
#[must_use]
pub fn page_bytes_max(fanout: usize) -> usize {
    (HEADER_BYTES + fanout * ENTRY_BYTES).next_multiple_of(GRANULE_BYTES)
}

fn some_bytes(used: usize) -> usize {
    HEADER_BYTES + (used * 2).next_multiple_of(ENTRY_BYTES) + used * ENTRY_BYTES
}

/// Appends the page of `entries` to `out`; gives its length in bytes, whole granules.
pub fn encode(entries: impl ExactSizeIterator<Item = Entry> + Clone, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let fanout = entries.len();
    let used = entries.clone().filter(|entry| !entry.is_empty()).count();
    let all = HEADER_BYTES + fanout * ENTRY_BYTES;
    if some_bytes(used) < all {
        out.extend_from_slice(&(used as u16).to_le_bytes());
        out.extend_from_slice(&FORM_SOME.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let filled = || entries.clone().enumerate().filter(|(_, entry)| !entry.is_empty());
        for (at, _) in filled() {
            out.extend_from_slice(&(at as u16).to_le_bytes());
        }
        out.resize(start + HEADER_BYTES + (used * 2).next_multiple_of(ENTRY_BYTES), 0);
        for (_, entry) in filled() {
            out.extend_from_slice(&entry.encode());
        }
    } else {
        out.extend_from_slice(&(fanout as u16).to_le_bytes());
        out.extend_from_slice(&FORM_ALL.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for entry in entries {
            out.extend_from_slice(&entry.encode());
        }
    }
    let len = (out.len() - start).next_multiple_of(GRANULE_BYTES);
    out.resize(start + len, 0);
    len
}

/// The entries of a page of a node of `fanout`; `None` where it is not such a page.
#[must_use]
pub fn decode(bytes: &[u8], fanout: usize) -> Option<Box<[Entry]>> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let count = usize::from(u16::from_le_bytes([header[0], header[1]]));
    let form = u16::from_le_bytes([header[2], header[3]]);
    if header[4..] != [0; 4] || count > fanout {
        return None;
    }
    let mut entries = vec![Entry::EMPTY; fanout].into_boxed_slice();
    match form {
        FORM_ALL if count == fanout => {
            for (entry, bytes) in entries.iter_mut().zip(body.get(..fanout * ENTRY_BYTES)?.as_chunks().0) {
                *entry = Entry::decode(bytes)?;
            }
        }
        FORM_SOME => {
            let (indexes, rest) = body.split_at_checked((count * 2).next_multiple_of(ENTRY_BYTES))?;
            let stored = rest.get(..count * ENTRY_BYTES)?.as_chunks().0;
            let mut next = 0;
            for (index, bytes) in indexes.as_chunks().0.iter().zip(stored) {
                let at = usize::from(u16::from_le_bytes(*index));
                if at < next || at >= fanout {
                    return None;
                }
                next = at + 1;
                entries[at] = Entry::decode(bytes).filter(|entry| !entry.is_empty())?;
            }
        }
        _ => return None,
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::super::entry::Address;
    use super::*;
    use crate::ids::SegmentId;
    use proptest::prelude::*;

    fn entries(fanout: usize) -> impl Strategy<Value = Vec<Entry>> {
        let some = (1u32.., 0u32..1 << 18, 1u8..=64, any::<u32>(), any::<u32>());
        let entry = proptest::option::of(some).prop_map(|some| match some {
            Some((segment, position, granules, crc, birth)) => {
                Entry::new(Address { segment: SegmentId(segment), position }, granules, crc, birth)
            }
            None => Entry::EMPTY,
        });
        proptest::collection::vec(entry, fanout)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(entries in prop_oneof![entries(4), entries(512)]) {
            let mut out = vec![7; 3];
            let len = encode(entries.iter().copied(), &mut out);
            prop_assert_eq!(out.len(), 3 + len);
            prop_assert!(len.is_multiple_of(GRANULE_BYTES) && len <= page_bytes_max(entries.len()));
            let decoded = decode(&out[3..], entries.len());
            prop_assert_eq!(decoded.as_deref(), Some(&entries[..]));
        }

        #[test]
        fn any_bytes_are_a_page_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 4);
        }
    }

    #[test]
    fn a_page_of_few_entries_is_small() {
        let mut entries = vec![Entry::EMPTY; 512];
        entries[17] = Entry::new(Address { segment: SegmentId(1), position: 5 }, 64, 9, 1);
        let mut out = Vec::new();
        assert_eq!(encode(entries.iter().copied(), &mut out), 64);
    }
}
