//! One of several copies: a pool as the store of one shard, beside those of the others.
//!
//! A lane with N copies has N of these over one pool. Which device a chunk goes to is the pool's choice, chunk by chunk;
//! two shards of one segment are never on one device. So a copy is not tied to a device, and one that failed takes no
//! copy out of the group for longer than it takes to begin new segments elsewhere.
//!
//! Segments of the log keep to the devices of those before them, as long as these take chunks: a device that fails while
//! one segment follows another must not take different shards of the two, or the log would have no replica left that has
//! everything.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use ashlar_env::{Disk, Spawn};
use uuid::Uuid;

use super::{Pool, PoolChunk, Wish};
use crate::chunks::{ChunkStat, Chunks, StoreError, StoreInfo};
use crate::ids::{ChunkId, Epoch, GroupId, SegmentKind};
use crate::segment::SHARDS_MAX;

/// The store of one shard in a pool. Cloning gives the same.
pub struct CopyStore<E, D> {
    pool: Pool<E, D>,
    shard: u8,
    /// The devices that have the log's last segment, by shard.
    homes: Rc<[Cell<Option<Uuid>>]>,
}

impl<E, D> Clone for CopyStore<E, D> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), shard: self.shard, homes: Rc::clone(&self.homes) }
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> CopyStore<E, D> {
    /// The stores of shards 0 to `copies` - 1 in `pool`.
    #[must_use]
    pub fn all(pool: &Pool<E, D>, copies: usize) -> Vec<Self> {
        let homes: Rc<[Cell<Option<Uuid>>]> = (0..copies).map(|_| Cell::new(None)).collect();
        let store = |shard| Self { pool: pool.clone(), shard, homes: Rc::clone(&homes) };
        (0..copies as u8).map(store).collect()
    }

    fn begin(
        &self,
        id: ChunkId,
        epoch: Epoch,
        from_reserve: bool,
    ) -> impl Future<Output = Result<PoolChunk<E, D>, StoreError>> + 'static {
        let sticks = id.kind == SegmentKind::Log && self.homes.len() > 1;
        let mut wish = Wish::default();
        if sticks {
            let others = self.homes.iter().enumerate().filter(|(shard, _)| *shard != usize::from(self.shard));
            wish.on = self.homes[usize::from(self.shard)].get();
            wish.off = others.filter_map(|(_, home)| home.get()).collect();
        }
        let created = self.pool.begin_create(id, epoch, from_reserve, wish);
        let (homes, shard) = (Rc::clone(&self.homes), usize::from(self.shard));
        async move {
            let chunk = created.await?;
            if sticks {
                homes[shard].set(Some(chunk.device()));
            }
            Ok(chunk)
        }
    }

    /// Whether a chunk of this name is of this shard, under either of the names that a replica may have.
    fn is_own(&self, id: ChunkId) -> bool {
        id.shard % SHARDS_MAX as u8 == self.shard
    }
}

impl<E: Spawn + Clone + 'static, D: Disk> Chunks for CopyStore<E, D> {
    type Chunk = PoolChunk<E, D>;

    fn info(&self) -> StoreInfo {
        self.pool.info()
    }

    fn can_hold(&self, beside: usize) -> bool {
        self.pool.devices_that_take() > beside
    }

    fn create(
        &self,
        id: ChunkId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<Self::Chunk, StoreError>> + 'static {
        self.begin(id, epoch, false)
    }

    fn create_reserved(
        &self,
        id: ChunkId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<Self::Chunk, StoreError>> + 'static {
        self.begin(id, epoch, true)
    }

    fn open(&self, id: ChunkId) -> Option<Self::Chunk> {
        self.pool.open(id)
    }

    fn stat(&self, id: ChunkId) -> Option<ChunkStat> {
        self.pool.stat(id)
    }

    fn list(&self, group: Option<GroupId>) -> Vec<ChunkStat> {
        let mut all = self.pool.list(group);
        all.retain(|stat| self.is_own(stat.id));
        all
    }

    fn delete(&self, id: ChunkId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static {
        self.pool.delete(id, epoch)
    }

    fn fence(&self, group: GroupId, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + 'static {
        self.pool.fence(group, epoch)
    }
}
