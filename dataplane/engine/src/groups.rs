//! The groups of a node: a pool of devices and a lane for each group, known by their identities.
//!
//! A group has one lane for now, on the reactor that has the pool; volumes are reached from other reactors by message.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::Duration;

use ashlar_env::units::VolumeId;
use ashlar_env::{Disk, Env};
use uuid::Uuid;

use crate::chunks::{Chunks, StoreError};
use crate::ids::{GroupId, LaneId};
use crate::lane::{Lane, LaneConfig, LaneError, LaneReport, Recovery, SnapshotNumber, VolumeDisk};
use crate::store::ChunkStore;
use crate::store::pool::{Added, Pool, PoolError};

/// Leaves of maps that every group may have in memory, however many groups there are.
const LEAVES_MIN: usize = 16;

/// No group is scrubbed more often than once in this time.
const SCRUB_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// How often scrubbing looks for a group whose turn it is.
const SCRUB_LOOK: Duration = Duration::from_secs(5);

/// The lane of a group in a pool.
pub type PoolLane<E, D> = Lane<E, Pool<E, D>>;

/// The groups. Cloning gives the same.
pub struct Groups<E: Env, D: Disk> {
    inner: Rc<Inner<E, D>>,
}

impl<E: Env, D: Disk> Clone for Groups<E, D> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

struct Inner<E: Env, D: Disk> {
    env: E,
    pool: Pool<E, D>,
    config: LaneConfig,
    lanes: RefCell<BTreeMap<GroupId, PoolLane<E, D>>>,
}

impl<E: Env, D: Disk> Groups<E, D> {
    /// Groups in a pool of `cluster`, without devices yet. `config` is each group's, but for the leaves in memory, which are all
    /// groups' together.
    #[must_use]
    pub fn new(env: E, cluster: Uuid, config: LaneConfig) -> Self {
        let pool = Pool::new(&env, cluster);
        let inner = Rc::new(Inner { env, pool, config, lanes: RefCell::default() });
        if config.scrub_bytes_per_second > 0 {
            inner.env.spawn(scrub(inner.env.clone(), Rc::downgrade(&inner), config.scrub_bytes_per_second));
        }
        Self { inner }
    }

    /// Takes a device's store into the pool.
    ///
    /// # Errors
    /// [`PoolError`]; the pool is then as it was.
    pub async fn add(&self, store: ChunkStore<E, D>) -> Result<Added, PoolError> {
        store.set_reserve(reserve_slots(store.info().slots));
        self.inner.pool.add(store).await
    }

    /// The devices.
    #[must_use]
    pub fn pool(&self) -> &Pool<E, D> {
        &self.inner.pool
    }

    /// The groups that have chunks in the pool, open or not.
    #[must_use]
    pub fn found(&self) -> BTreeSet<GroupId> {
        self.inner.pool.list(None).into_iter().map(|stat| stat.id.lane.group).collect()
    }

    /// The open groups.
    #[must_use]
    pub fn open_groups(&self) -> Vec<GroupId> {
        self.inner.lanes.borrow().keys().copied().collect()
    }

    /// The lane of an open group.
    #[must_use]
    pub fn lane(&self, group: GroupId) -> Option<PoolLane<E, D>> {
        self.inner.lanes.borrow().get(&group).cloned()
    }

    /// Recovers a group that is in the pool.
    ///
    /// # Errors
    /// See [`Lane::open`].
    pub async fn open(&self, group: GroupId) -> Result<Recovery, LaneError> {
        let inner = &self.inner;
        let stores = vec![inner.pool.clone()];
        let (lane, recovery) = Lane::open(inner.env.clone(), stores, lane_of(group), inner.config).await?;
        inner.lanes.borrow_mut().insert(group, lane);
        self.share_cache();
        Ok(recovery)
    }

    /// Deletes all that is left of a group that is not open.
    ///
    /// # Errors
    /// What the stores say.
    pub async fn discard(&self, group: GroupId) -> Result<(), LaneError> {
        Lane::<E, _>::discard(vec![self.inner.pool.clone()], lane_of(group)).await?;
        // Its identity is never used again, so nobody needs the fence.
        for store in self.inner.pool.stores() {
            match store.forget_fence(group).await {
                Ok(_) | Err(StoreError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes an empty volume, and its group with the first one.
    ///
    /// # Errors
    /// [`LaneError::Exists`], [`LaneError::Full`], or what the stores say.
    pub async fn create_volume(
        &self,
        group: GroupId,
        id: VolumeId,
        size_bytes: u64,
        compress: bool,
    ) -> Result<(), LaneError> {
        let lane = match self.lane(group) {
            Some(lane) => lane,
            None => self.create(group, compress).await?,
        };
        lane.create_volume(id, size_bytes).await.map(|_| ())
    }

    async fn create(&self, group: GroupId, compress: bool) -> Result<PoolLane<E, D>, LaneError> {
        let inner = &self.inner;
        let stores = vec![inner.pool.clone()];
        let made = Lane::create(inner.env.clone(), stores, lane_of(group), inner.config).await;
        let lane = match made {
            Ok(lane) => lane,
            Err(error) => {
                // What was begun; where that fails as well, the next start finds it.
                let _ = self.discard(group).await;
                return Err(error);
            }
        };
        if compress {
            lane.set_compression(true).await?;
        }
        inner.lanes.borrow_mut().insert(group, lane.clone());
        self.share_cache();
        Ok(lane)
    }

    /// Gives every group an equal part of the leaves in memory.
    fn share_cache(&self) {
        let lanes = self.inner.lanes.borrow();
        let each = self.inner.config.leaves_max / lanes.len().max(1);
        lanes.values().for_each(|lane| lane.set_leaves_max(each.max(LEAVES_MIN)));
    }

    /// Deletes a volume, and its group with the last one. What is not there is deleted already.
    ///
    /// # Errors
    /// What the log or the stores say.
    pub async fn delete_volume(&self, group: GroupId, id: VolumeId) -> Result<(), LaneError> {
        let Some(lane) = self.lane(group) else { return Ok(()) };
        if let Some(number) = lane.number_of(id) {
            if lane.report().volumes.len() == 1 {
                return self.delete(group).await;
            }
            lane.delete_volume(number).await?;
        }
        Ok(())
    }

    /// Deletes a group with all that is in it.
    async fn delete(&self, group: GroupId) -> Result<(), LaneError> {
        let lane = self.inner.lanes.borrow_mut().remove(&group);
        if let Some(lane) = lane {
            lane.abandon().await;
        }
        self.share_cache();
        self.discard(group).await
    }

    /// A volume as a disk of blocks of `block_bytes`.
    #[must_use]
    pub fn disk(&self, group: GroupId, id: VolumeId, block_bytes: u32) -> Option<VolumeDisk<E, Pool<E, D>>> {
        let lane = self.lane(group)?;
        Some(lane.disk(lane.number_of(id)?, block_bytes))
    }

    /// Makes volume `to` of what `snapshot` holds of volume `from`.
    ///
    /// # Errors
    /// See [`Lane::clone_volume`].
    pub async fn clone_volume(
        &self,
        group: GroupId,
        snapshot: SnapshotNumber,
        from: VolumeId,
        to: VolumeId,
    ) -> Result<(), LaneError> {
        let lane = self.lane(group).ok_or(LaneError::NoVolume)?;
        let of = lane.number_of(from).ok_or(LaneError::NoVolume)?;
        lane.clone_volume(to, snapshot, of).await.map(|_| ())
    }

    /// Makes all that was written durable in checkpoints, so that the next start replays nothing, and closes the groups.
    pub async fn close(&self) {
        let lanes = std::mem::take(&mut *self.inner.lanes.borrow_mut());
        for lane in lanes.into_values() {
            // What was acknowledged is in the log; a checkpoint only makes the next start shorter.
            let _ = lane.close().await;
        }
    }

    /// Bytes that scrubbing has read of the open groups, and how much it found damaged.
    #[must_use]
    pub fn scrub_totals(&self) -> (u64, u64) {
        let lanes = self.inner.lanes.borrow();
        lanes.values().map(Lane::scrub_totals).fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }

    /// What is in each open group.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<GroupId, LaneReport> {
        self.inner.lanes.borrow().iter().map(|(group, lane)| (*group, lane.report())).collect()
    }
}

/// How many of a store's slots are kept for checkpoints and compaction: what one round of these takes before it gives
/// anything back, and a part of large stores, since several groups may be at it.
#[must_use]
pub fn reserve_slots(slots: u32) -> u32 {
    (slots / 64).clamp(12, 256)
}

/// Scrubs one group after the other, again and again, for as long as the groups are there.
async fn scrub<E: Env, D: Disk>(env: E, groups: Weak<Inner<E, D>>, bytes_per_second: u64) {
    let mut begun = BTreeMap::new();
    loop {
        env.sleep_until(env.now().plus(SCRUB_LOOK)).await;
        let Some(inner) = groups.upgrade() else { return };
        begun.retain(|group, _| inner.lanes.borrow().contains_key(group));
        let is_due = |group: &GroupId| {
            begun.get(group).is_none_or(|last: &ashlar_env::Instant| env.now().since(*last) >= SCRUB_PERIOD)
        };
        let next = inner.lanes.borrow().iter().find(|(group, _)| is_due(group)).map(|(g, l)| (*g, l.clone()));
        // Neither the groups nor a lane are kept while this rests.
        drop(inner);
        if let Some((group, lane)) = next {
            begun.insert(group, env.now());
            lane.scrub(bytes_per_second).await;
        }
    }
}

const fn lane_of(group: GroupId) -> LaneId {
    LaneId { group, lane: 0 }
}
