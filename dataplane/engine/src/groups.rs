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
use crate::lane::{Copies, Lane, LaneConfig, LaneError, LaneReport, Recovery, SnapshotNumber, VolumeDisk};
use crate::log::{Coordinator, LocalCoordinator};
use crate::segment::SHARDS_MAX;
use crate::store::ChunkStore;
use crate::store::pool::{Added, CopyStore, Pool, PoolError};

/// Leaves of maps that every group may have in memory, however many groups there are.
const LEAVES_MIN: usize = 16;

/// No group is scrubbed more often than once in this time.
const SCRUB_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// How often scrubbing looks for a group whose turn it is.
const SCRUB_LOOK: Duration = Duration::from_secs(5);

/// The lane of a group in a pool: a store for each copy.
pub type PoolLane<E, D> = Lane<E, CopyStore<E, D>>;

/// Most copies of a group.
pub const COPIES_MAX: usize = 3;
const _: () = assert!(COPIES_MAX <= SHARDS_MAX);

/// How often a group is tried to be opened when devices fail meanwhile.
const OPEN_TRIES: usize = 3;

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
    coordinator: RefCell<Rc<dyn Coordinator>>,
    lanes: RefCell<BTreeMap<GroupId, PoolLane<E, D>>>,
}

impl<E: Env, D: Disk> Groups<E, D> {
    /// Groups in a pool of `cluster`, without devices yet. `config` is each group's, but for the leaves in memory, which are all
    /// groups' together.
    #[must_use]
    pub fn new(env: E, cluster: Uuid, config: LaneConfig) -> Self {
        let pool = Pool::new(&env, cluster);
        let coordinator: Rc<dyn Coordinator> = Rc::new(LocalCoordinator::default());
        let coordinator = RefCell::new(coordinator);
        let inner = Rc::new(Inner { env, pool, config, coordinator, lanes: RefCell::default() });
        if config.scrub_bytes_per_second > 0 {
            inner.env.spawn(scrub(inner.env.clone(), Rc::downgrade(&inner), config.scrub_bytes_per_second));
        }
        Self { inner }
    }

    /// From now on has `coordinator` decide for groups that are made or opened. One in memory only, which is what there is
    /// before, does for groups with one copy.
    pub fn set_coordinator(&self, coordinator: Rc<dyn Coordinator>) {
        *self.inner.coordinator.borrow_mut() = coordinator;
    }

    fn coordinator(&self) -> Rc<dyn Coordinator> {
        Rc::clone(&self.inner.coordinator.borrow())
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

    /// Recovers a group that is in the pool, with as many copies as its chunks there tell of.
    ///
    /// # Errors
    /// See [`Lane::open`].
    pub async fn open(&self, group: GroupId) -> Result<Recovery, LaneError> {
        let chunks = self.inner.pool.list(Some(group)).into_iter();
        let last = chunks.map(|stat| usize::from(stat.id.shard) % SHARDS_MAX).max();
        self.open_copies(group, last.unwrap_or(0) + 1).await
    }

    /// Recovers a group of `copies` copies, of which not all need to be there.
    ///
    /// # Errors
    /// See [`Lane::open_with`].
    pub async fn open_copies(&self, group: GroupId, copies: usize) -> Result<Recovery, LaneError> {
        let inner = &self.inner;
        let mut tries = 0;
        let (lane, recovery) = loop {
            tries += 1;
            let (env, stores) = (inner.env.clone(), CopyStore::all(&inner.pool, copies));
            let coordinator = self.coordinator();
            match Lane::open_with(env, stores, lane_of(group), coordinator, inner.config).await {
                // A device has failed on the way: the next try does without it.
                Err(LaneError::Store(error)) if copies > 1 && error.is_of_device() && tries < OPEN_TRIES => {}
                opened => break opened?,
            }
        };
        inner.lanes.borrow_mut().insert(group, lane);
        if copies > 1 {
            inner.pool.delete_shadowed(group).await;
        }
        self.share_cache();
        Ok(recovery)
    }

    /// Deletes all that is left of a group that is not open.
    ///
    /// # Errors
    /// What the stores say.
    pub async fn discard(&self, group: GroupId) -> Result<(), LaneError> {
        Lane::<E, _>::discard(vec![self.inner.pool.clone()], lane_of(group)).await?;
        self.coordinator().forget(lane_of(group));
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
        self.create_volume_in(group, 1, id, size_bytes, compress).await
    }

    /// The same; the group, if it is made, has `copies` copies, each on another device.
    ///
    /// # Errors
    /// As [`Self::create_volume`]; a store's [`StoreError::NoDevice`] where there are fewer devices.
    pub async fn create_volume_in(
        &self,
        group: GroupId,
        copies: usize,
        id: VolumeId,
        size_bytes: u64,
        compress: bool,
    ) -> Result<(), LaneError> {
        let lane = match self.lane(group) {
            Some(lane) => lane,
            None => self.create(group, copies, compress).await?,
        };
        lane.create_volume(id, size_bytes).await.map(|_| ())
    }

    async fn create(
        &self,
        group: GroupId,
        copies: usize,
        compress: bool,
    ) -> Result<PoolLane<E, D>, LaneError> {
        let inner = &self.inner;
        let (env, stores) = (inner.env.clone(), CopyStore::all(&inner.pool, copies));
        let made = Lane::create_with(env, stores, lane_of(group), self.coordinator(), inner.config).await;
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
    pub fn disk(
        &self,
        group: GroupId,
        id: VolumeId,
        block_bytes: u32,
    ) -> Option<VolumeDisk<E, CopyStore<E, D>>> {
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

    /// How many copies there are of what, in each open group.
    #[must_use]
    pub fn copies(&self) -> BTreeMap<GroupId, Copies> {
        self.inner.lanes.borrow().iter().map(|(group, lane)| (*group, lane.copies())).collect()
    }

    /// Makes the copies that are missing, of one group after the other. `progress` is told of bytes done and bytes in all.
    /// How many replicas were made.
    ///
    /// # Errors
    /// The first group's that could not be made whole, after all others have been tried.
    pub async fn rebuild(&self, mut progress: impl FnMut(u64, u64)) -> Result<u64, LaneError> {
        let lanes: Vec<_> = self.inner.lanes.borrow().values().cloned().collect();
        let left = |from: usize| lanes[from..].iter().map(|lane| lane.copies().bytes_short).sum::<u64>();
        let (mut before, mut made, mut failed) = (0, 0, Ok(()));
        for (at, lane) in lanes.iter().enumerate() {
            let others = left(at + 1);
            let mut mine = 0;
            let rebuilt = lane.rebuild(|done, total| {
                mine = done;
                progress(before + done, before + total + others);
            });
            match rebuilt.await {
                Ok(replicas) => made += replicas,
                // A group that is deleted meanwhile needs nothing.
                Err(LaneError::Closed) => {}
                Err(error) => failed = failed.and(Err(error)),
            }
            before += mine;
        }
        failed.map(|()| made)
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
