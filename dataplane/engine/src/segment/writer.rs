//! Plain appends to a replicated segment: pages of the map, checkpoints, and blocks that compaction moved.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use ashlar_env::Buf;
use smallvec::SmallVec;

use crate::chunks::{Chunk, Chunks, Seal, StoreError};
use crate::ids::{Epoch, SegmentId, SegmentKind};

use super::{Replica, Replicas, Segments, ShardError, ShardSet, join_until, no_answer};

/// Writes one segment from its beginning to its seal.
///
/// A replica whose device fails, or does not answer while another has, is left behind: the segment goes on with the
/// others, and nobody is asked. What refers to bytes of such a segment has their checksum, so a replica that lacks some
/// is never taken for one that has them; and it is not sealed, so it does not count once the segment is.
///
/// Where all replicas fail, whoever uses it gives up the whole segment, deletes it and writes what it held elsewhere:
/// until a checkpoint names it, nothing refers to it.
pub struct SegmentWriter<C: Chunks> {
    segments: Segments<C>,
    segment: SegmentId,
    epoch: Epoch,
    replicas: Replicas<C::Chunk>,
    /// Those of them that were left behind.
    left: Rc<Cell<ShardSet>>,
    end: u32,
    bytes_max: u32,
    align_bytes: u32,
}

/// What came of the same done to several replicas: those that failed are left behind, as long as one is left.
fn settle<C: Chunks>(
    segments: &Segments<C>,
    segment: SegmentId,
    left: &Cell<ShardSet>,
    all: ShardSet,
    done: impl Iterator<Item = (u8, Option<Result<(), StoreError>>)>,
) -> Result<(), ShardError> {
    let mut first = None;
    let mut failed = ShardSet::EMPTY;
    for (shard, result) in done {
        match result.unwrap_or_else(|| Err(no_answer())) {
            Ok(()) => {}
            Err(error) if error.is_of_device() => {
                failed = failed.with(ShardSet::of(shard));
                first.get_or_insert(ShardError { shard, error });
            }
            Err(error) => return Err(ShardError { shard, error }),
        }
    }
    left.set(left.get().with(failed));
    if all.without(left.get()).is_empty() {
        // Each replica lacks something, though perhaps not what this was about.
        let lost = StoreError::Disk(ashlar_env::DiskError::Medium("every replica has failed".into()));
        return Err(first.unwrap_or(ShardError { shard: 0, error: lost }));
    }
    segments.leave(segment, failed);
    Ok(())
}

impl<C: Chunks> SegmentWriter<C> {
    /// Makes a segment on as many stores of `segments` as there are devices for, and begins to write it.
    ///
    /// # Errors
    /// As [`Segments::create`]; [`StoreError::Full`] where a store has no slot left.
    pub async fn create(segments: &Segments<C>, kind: SegmentKind, epoch: Epoch) -> Result<Self, ShardError> {
        let made = segments.create_some(kind != SegmentKind::Log, kind, epoch, segments.all()).await;
        let (segment, replicas) = made?;
        let (bytes_max, align_bytes) = (segments.segment_bytes(), segments.align_bytes());
        let segments = segments.clone();
        Ok(Self { segments, segment, epoch, replicas, left: Rc::default(), end: 0, bytes_max, align_bytes })
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

    /// The stores whose replicas have all that was appended.
    #[must_use]
    pub fn shards(&self) -> ShardSet {
        self.all().without(self.left.get())
    }

    fn all(&self) -> ShardSet {
        self.replicas.iter().map(|replica| replica.shard).collect()
    }

    /// Appends `data`, one after the other, each a multiple of the stores' alignment, and gives the offset of the first
    /// byte. The place is taken at once, so several appends may be in flight, begun (polled first) in the order of
    /// the calls; ready when durable on every replica that is not left behind.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] where it does not fit or is not aligned, else what a store said first.
    pub fn append(&mut self, data: &[Buf]) -> impl Future<Output = Result<u32, ShardError>> + use<C> {
        let bytes: usize = data.iter().map(|piece| piece.len()).sum();
        let aligned = data.iter().all(|piece| piece.len().is_multiple_of(self.align_bytes as usize));
        let fits = aligned && bytes <= self.room() as usize;
        let offset = self.end;
        let (mut appends, mut shards) = (Vec::new(), Vec::new());
        if fits {
            self.end += bytes as u32;
            let left = self.left.get();
            let goes_on = |replica: &&Replica<C::Chunk>| !left.contains(replica.shard);
            for Replica { shard, chunk } in self.replicas.iter().filter(goes_on).cloned() {
                let (epoch, data) = (self.epoch, SmallVec::<[Buf; 4]>::from(data));
                shards.push(shard);
                appends.push(async move { chunk.append(epoch, offset, &data).await });
            }
        }
        let (segments, segment, left) = (self.segments.clone(), self.segment, Rc::clone(&self.left));
        let all = self.all();
        async move {
            if !fits {
                return Err(ShardError { shard: 0, error: StoreError::OutOfRange });
            }
            let done = join_until(segments.patience(), appends).await;
            settle(&segments, segment, &left, all, shards.into_iter().zip(done))?;
            Ok(offset)
        }
    }

    /// Ends the segment where it is. All appends must have completed.
    ///
    /// # Errors
    /// What a store said first.
    pub async fn seal(self) -> Result<(SegmentId, u32), ShardError> {
        let seal = Seal { length: self.end, next: None };
        let shards: Vec<u8> = self.shards().iter().collect();
        let sealed = self.replicas.iter().filter(|replica| shards.contains(&replica.shard));
        let sealed: Vec<_> = sealed.map(|replica| replica.chunk.seal(self.epoch, seal)).collect();
        let done = join_until(self.segments.patience(), sealed).await;
        settle(&self.segments, self.segment, &self.left, self.all(), shards.into_iter().zip(done))?;
        Ok((self.segment, self.end))
    }
}
