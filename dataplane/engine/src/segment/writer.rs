//! Plain appends to a replicated segment: pages of the map, checkpoints, and blocks that compaction moved.

use std::future::Future;

use ashlar_env::Buf;
use smallvec::SmallVec;

use crate::chunks::{Chunk, Chunks, Seal, StoreError};
use crate::ids::{Epoch, SegmentId, SegmentKind};

use super::{Replica, Replicas, Segments, ShardError, join};

/// Writes one segment from its beginning to its seal.
///
/// Whoever uses it gives up the whole segment when one append fails, deletes it and writes what it held elsewhere: until a
/// checkpoint names it, nothing refers to it.
pub struct SegmentWriter<C: Chunks> {
    segment: SegmentId,
    epoch: Epoch,
    replicas: Replicas<C::Chunk>,
    end: u32,
    bytes_max: u32,
    align_bytes: u32,
}

impl<C: Chunks> SegmentWriter<C> {
    /// Makes a segment on all stores of `segments` and begins to write it.
    ///
    /// # Errors
    /// As [`Segments::create`]; [`StoreError::Full`] where a store has no slot left.
    pub async fn create(segments: &Segments<C>, kind: SegmentKind, epoch: Epoch) -> Result<Self, ShardError> {
        let (segment, replicas) = segments.create(kind, epoch, segments.all()).await?;
        let (bytes_max, align_bytes) = (segments.segment_bytes(), segments.align_bytes());
        Ok(Self { segment, epoch, replicas, end: 0, bytes_max, align_bytes })
    }

    /// The segment's number.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// What has been appended, completed or not, in bytes.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.end
    }

    /// Whether nothing has been appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// How much more fits, in bytes.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.bytes_max - self.end
    }

    /// Appends `data`, one after the other, each a multiple of the stores' alignment, and gives the offset of the first
    /// byte. The place is taken at once, so several appends may be in flight, begun (polled first) in the order of
    /// the calls; ready when durable on every replica.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] where it does not fit or is not aligned, else what a store said first.
    pub fn append(&mut self, data: &[Buf]) -> impl Future<Output = Result<u32, ShardError>> + use<C> {
        let bytes: usize = data.iter().map(|piece| piece.len()).sum();
        let aligned = data.iter().all(|piece| piece.len().is_multiple_of(self.align_bytes as usize));
        let fits = aligned && bytes <= self.room() as usize;
        let offset = self.end;
        let mut appends = Vec::new();
        if fits {
            self.end += bytes as u32;
            for replica in self.replicas.iter().cloned() {
                let (epoch, data) = (self.epoch, SmallVec::<[Buf; 4]>::from(data));
                appends.push(async move {
                    let Replica { shard, chunk } = replica;
                    let done = chunk.append(epoch, offset, &data).await;
                    done.map_err(|error| ShardError { shard, error })
                });
            }
        }
        async move {
            if !fits {
                return Err(ShardError { shard: 0, error: StoreError::OutOfRange });
            }
            for done in join(appends).await {
                done?;
            }
            Ok(offset)
        }
    }

    /// Ends the segment where it is. All appends must have completed.
    ///
    /// # Errors
    /// What a store said first.
    pub async fn seal(self) -> Result<(SegmentId, u32), ShardError> {
        let seal = Seal { length: self.end, next: None };
        let sealed = self.replicas.iter().map(|replica| {
            let (shard, done) = (replica.shard, replica.chunk.seal(self.epoch, seal));
            async move { done.await.map_err(|error| ShardError { shard, error }) }
        });
        for done in join(sealed).await {
            done?;
        }
        Ok((self.segment, self.end))
    }
}
