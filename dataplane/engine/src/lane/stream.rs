//! Writing batches: pages of the map at a checkpoint, blocks at a compaction.

use std::future::Future;
use std::pin::Pin;

use ashlar_env::Env;

use crate::chunks::Chunks;
use crate::ids::SegmentKind;
use crate::map::Address;
use crate::segment::{SegmentWriter, ShardError};

use super::batch::{self, Header, ITEM_BYTES, ITEMS_MAX, Item};
use super::runs::granules;
use super::{Inner, LaneError};

/// Appends in flight at once.
const IN_FLIGHT_MAX: usize = 4;

/// An append in flight.
type Append = Pin<Box<dyn Future<Output = Result<u32, ShardError>>>>;

/// A segment that batches are appended to, one after the other.
pub struct Stream<C: Chunks> {
    kind: SegmentKind,
    writer: SegmentWriter<C>,
    /// The batch that is being filled.
    items: Vec<Item>,
    payload: Vec<u8>,
    lead: usize,
    in_flight: Vec<Append>,
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Begins a segment for batches.
    pub(super) async fn stream(&self, kind: SegmentKind) -> Result<Stream<C>, LaneError> {
        let writer = SegmentWriter::create(&self.segments, kind, self.epoch).await?;
        let mut core = self.core();
        let birth = core.birth;
        core.table.add(writer.segment(), kind, birth);
        self.gained.set(self.gained.get() - 1);
        let lead = match kind {
            // Blocks are read straight into the buffers of hosts where they are aligned.
            SegmentKind::Moved => self.segments.align_bytes() as usize,
            _ => batch::HEADER_BYTES,
        };
        Ok(Stream { kind, writer, items: Vec::new(), payload: Vec::new(), lead, in_flight: Vec::new() })
    }

    /// Adds an item to the stream: gives where it is (and, for a page, what it is known by from now on). It is durable
    /// after [`Self::finish_stream`].
    pub(super) async fn push(
        &self,
        stream: &mut Stream<C>,
        mut item: Item,
        bytes: &[u8],
    ) -> Result<Address, LaneError> {
        let is_full =
            stream.payload.len() + bytes.len() > self.config.batch_bytes || stream.items.len() >= ITEMS_MAX;
        if is_full || !stream.fits(bytes.len()) {
            self.close_batch(stream).await?;
        }
        if !stream.fits(bytes.len()) {
            self.roll_stream(stream).await?;
        }
        let at = stream.writer.len() as usize + stream.lead + stream.payload.len();
        item.position = granules(at);
        let address = Address { segment: stream.writer.segment(), position: item.position };
        if stream.kind == SegmentKind::Map {
            item.address = address;
        }
        stream.payload.extend_from_slice(bytes);
        stream.items.push(item);
        Ok(address)
    }

    /// Sends what has been gathered.
    async fn close_batch(&self, stream: &mut Stream<C>) -> Result<(), LaneError> {
        if stream.items.is_empty() {
            return Ok(());
        }
        let header = Header {
            lane: self.id,
            segment: stream.writer.segment(),
            items: stream.items.len() as u32,
            lead_bytes: stream.lead as u32,
            payload_bytes: stream.payload.len() as u32,
        };
        let (fixed, descriptions) = batch::encode(&header, &stream.items);
        let len = header.bytes().next_multiple_of(self.segments.align_bytes() as usize);
        let mut buf = self.scratch.alloc(len).await;
        buf[..fixed.len()].copy_from_slice(&fixed);
        buf[fixed.len()..stream.lead].fill(0);
        buf[stream.lead..header.items_at()].copy_from_slice(&stream.payload);
        buf[header.items_at()..header.bytes()].copy_from_slice(&descriptions);
        buf[header.bytes()..].fill(0);
        if stream.in_flight.len() >= IN_FLIGHT_MAX {
            stream.land().await?;
        }
        stream.in_flight.push(Box::pin(stream.writer.append(&[buf.freeze()])));
        stream.items.clear();
        stream.payload.clear();
        Ok(())
    }

    /// Goes on in a new segment.
    pub(super) async fn roll_stream(&self, stream: &mut Stream<C>) -> Result<(), LaneError> {
        self.finish_stream(stream).await?;
        let next = self.stream(stream.kind).await?;
        let full = std::mem::replace(stream, next);
        self.seal_stream(full).await
    }

    /// Waits until all that was pushed is durable.
    pub(super) async fn finish_stream(&self, stream: &mut Stream<C>) -> Result<(), LaneError> {
        self.close_batch(stream).await?;
        stream.land().await
    }

    /// Ends the stream, all of which is durable.
    pub(super) async fn seal_stream(&self, stream: Stream<C>) -> Result<(), LaneError> {
        let (segment, len) = stream.writer.seal().await?;
        if let Some(segment) = self.core().table.get_mut(segment) {
            segment.sealed = Some(len);
        }
        Ok(())
    }
}

impl<C: Chunks> Stream<C> {
    /// The segment that is written.
    pub fn segment(&self) -> crate::ids::SegmentId {
        self.writer.segment()
    }

    /// Where what is pushed next is, or a little before.
    pub fn end(&self) -> Address {
        Address { segment: self.writer.segment(), position: granules(self.writer.len() as usize) }
    }

    /// The stores that it is written to.
    pub fn shards(&self) -> crate::segment::ShardSet {
        self.writer.shards()
    }

    /// The bytes that are durable, once the stream is finished.
    pub fn durable_bytes(&self) -> u32 {
        self.writer.len()
    }

    /// Whether the batch with one more item of `bytes` bytes fits the segment.
    fn fits(&self, bytes: usize) -> bool {
        let payload = self.payload.len() + bytes;
        // Alignment takes less than the lead of a batch of blocks, or a page of 4 KiB.
        let len = self.lead + payload + (self.items.len() + 1) * ITEM_BYTES + 4096;
        len <= self.writer.room() as usize
    }

    async fn land(&mut self) -> Result<(), LaneError> {
        for append in self.in_flight.drain(..) {
            append.await?;
        }
        Ok(())
    }
}
