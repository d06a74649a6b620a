//! What is in a segment, from its own bytes.

use ashlar_env::Env;
use ashlar_env::buf::MAX_BYTES;

use crate::chunks::Chunks;
use crate::ids::{SegmentId, SegmentKind};
use crate::log::record::{Extent, decode_header};
use crate::map::Address;

use super::batch::{self, HEADER_BYTES, Item, ItemKind};
use super::control::Control;
use super::runs::granules;
use super::{Inner, LaneError};

impl<E: Env, C: Chunks> Inner<E, C> {
    /// All bytes of a segment; of one that is not sealed, all that it could have.
    ///
    /// `bytes` is memory that is used again: a segment is large, and fresh memory is not for nothing.
    pub(super) async fn segment_bytes(
        &self,
        segment: SegmentId,
        bytes: &mut Vec<u8>,
    ) -> Result<(), LaneError> {
        let sealed = self.core().table.get(segment).and_then(|segment| segment.sealed);
        let len = sealed.unwrap_or_else(|| self.segments.segment_bytes()) as usize;
        if let Some(whole) = self.whole_of_any(segment).await {
            *bytes = whole;
            return Ok(());
        }
        bytes.clear();
        bytes.reserve_exact(len);
        while bytes.len() < len {
            let piece = self.scratch.alloc((len - bytes.len()).min(MAX_BYTES)).await;
            bytes.extend_from_slice(&self.segments.read(segment, bytes.len() as u32, piece).await?);
        }
        Ok(())
    }

    /// The items of a segment, in the order in which they lie in it.
    pub(super) fn items(&self, segment: SegmentId, bytes: &[u8]) -> Result<Vec<Item>, LaneError> {
        let found = self.core().table.get(segment).map(|found| (found.kind, found.birth, found.sealed));
        let Some((kind, birth, sealed)) = found else { return Ok(Vec::new()) };
        let (items, end) = match kind {
            SegmentKind::Log => self.log_items(segment, birth, bytes),
            _ => self.batch_items(segment, bytes),
        };
        match sealed {
            Some(len) if end < len as usize => Err(LaneError::Damaged(format!(
                "segment {} has {len} bytes, and what begins at byte {end} is damaged",
                segment.0
            ))),
            _ => Ok(items),
        }
    }

    /// The blocks of a segment of the log, and where its records end.
    fn log_items(&self, segment: SegmentId, mut birth: u32, bytes: &[u8]) -> (Vec<Item>, usize) {
        let (mut items, mut sums, mut at) = (Vec::new(), Vec::new(), 0);
        while let Ok(record) = decode_header(&bytes[at..]) {
            let (total, own) = (record.total_bytes(), record.header.segment == segment);
            if record.header.lane != self.id || !own || total > bytes.len() - at {
                break;
            }
            record.for_each(&mut sums, |extent, place| match extent {
                Extent::Data { volume, first, sums } => {
                    let mut position = granules(at + place);
                    for (block, sum) in (first..).zip(sums) {
                        items.push(Item {
                            kind: ItemKind::Block,
                            volume,
                            block,
                            granules: sum.granules,
                            crc: sum.crc,
                            birth,
                            address: Address { segment, position },
                            position,
                        });
                        position += u32::from(sum.granules);
                    }
                }
                Extent::Control { bytes: len, .. } => {
                    let control = bytes.get(at + place..at + place + len as usize);
                    if let Some(Control::Snapshot { number }) = control.and_then(Control::decode) {
                        birth = number + 1;
                    }
                }
                _ => {}
            });
            at += total;
        }
        (items, at)
    }

    /// The items of a segment of batches, and where they end.
    fn batch_items(&self, segment: SegmentId, bytes: &[u8]) -> (Vec<Item>, usize) {
        let align = self.segments.align_bytes() as usize;
        let (mut items, mut at) = (Vec::new(), 0);
        while let Some(header) = batch::peek(&bytes[at.min(bytes.len())..]) {
            let own = header.lane == self.id && header.segment == segment;
            let descriptions = bytes.get(at + header.items_at()..);
            let found = descriptions
                .and_then(|descriptions| batch::decode(&bytes[at..at + HEADER_BYTES], descriptions));
            let Some(found) = found.filter(|_| own) else { break };
            items.extend(found);
            at += header.bytes().next_multiple_of(align);
        }
        (items, at)
    }
}
