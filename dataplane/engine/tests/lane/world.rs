//! A node with a disk or two, and a lane on them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ashlar_engine::chunks::Chunks;
use ashlar_engine::groups::reserve_slots;
use ashlar_engine::ids::{GroupId, LaneId, SegmentId};
use ashlar_engine::lane::{Lane, LaneConfig, LaneError, Recovery};
use ashlar_engine::log::{CheckpointMin, Coordinator, Decision, LocalCoordinator, LogConfig, Refused};
use ashlar_engine::map::Shape;
use ashlar_engine::store::pool::{CopyStore, Pool};
use ashlar_engine::store::{ChunkStore, FormatOptions};
use ashlar_env::{Clock, Rng};
use ashlar_sim::{Control, Crash, DiskGeometry, DiskId, NodeId, SimEnv};

use super::disk::{Fate, TestDisk, Trouble};

pub type Store = CopyStore<SimEnv, TestDisk>;
pub type SimLane = Lane<SimEnv, Store>;

const CLUSTER: uuid::Uuid = uuid::Uuid::from_u128(99);

pub const LANE: LaneId = LaneId { group: GroupId(0x11), lane: 0 };

/// Sizes so small that everything happens often.
pub fn tiny(seed: u64) -> LaneConfig {
    let log = LogConfig {
        window: 1 + (seed % 4) as usize,
        record_bytes_max: 12 << 10,
        own_bytes_min: 8 << 10,
        ..LogConfig::default()
    };
    LaneConfig {
        log,
        shape: Shape::new(2 + (seed % 3) as u32).unwrap(),
        checkpoint_bytes: 48 << 10,
        checkpoint_bytes_max: 160 << 10,
        leaves_max: 4,
        scratch_bytes: 8 << 20,
        batch_bytes: 16 << 10,
        free_part: 64,
        victims_max: 4,
        ..LaneConfig::default()
    }
}

/// A coordinator that takes time, and whose decisions survive crashes.
struct Committee {
    env: SimEnv,
    kept: LocalCoordinator,
}

async fn think(env: SimEnv) {
    let time = Duration::from_micros(env.random_below(2000));
    env.sleep_until(env.now().plus(time)).await;
}

type Committed = Pin<Box<dyn Future<Output = Result<(), Refused>>>>;

impl Coordinator for Committee {
    fn commit_seal(&self, decision: Decision) -> Committed {
        let (env, kept) = (self.env.clone(), self.kept.clone());
        Box::pin(async move {
            think(env.clone()).await;
            let done = kept.commit_seal(decision).await;
            think(env).await;
            done
        })
    }

    fn decision(&self, lane: LaneId, segment: SegmentId) -> Option<Decision> {
        self.kept.decision(lane, segment)
    }

    fn commit_checkpoint(&self, checkpoint: CheckpointMin) -> Committed {
        let (env, kept) = (self.env.clone(), self.kept.clone());
        Box::pin(async move {
            think(env.clone()).await;
            let done = kept.commit_checkpoint(checkpoint).await;
            think(env).await;
            done
        })
    }

    fn checkpoint(&self, lane: LaneId) -> Option<CheckpointMin> {
        self.kept.checkpoint(lane)
    }
}

#[derive(Clone)]
pub struct World {
    pub control: Control,
    pub node: NodeId,
    pub disks: Vec<DiskId>,
    pub fate: Rc<Fate>,
    /// What is wrong with each disk.
    pub troubles: Vec<Rc<Trouble>>,
    /// Disks that are not found when stores are opened.
    pub absent: Rc<RefCell<BTreeSet<usize>>>,
    /// On how many of the disks each segment is.
    pub copies: usize,
    pub decisions: LocalCoordinator,
    pub config: LaneConfig,
    pub slot_bytes: u32,
    /// Numbers of writers that were given out.
    pub next_writer: Rc<Cell<u32>>,
}

impl World {
    pub fn new(control: &Control, config: LaneConfig, geometry: DiskGeometry) -> Self {
        Self::with_disks(control, config, &[geometry])
    }

    pub fn with_disks(control: &Control, config: LaneConfig, disks: &[DiskGeometry]) -> Self {
        let node = control.node("node", 1);
        let disks: Vec<_> = disks.iter().map(|geometry| control.disk("disk", *geometry)).collect();
        Self {
            control: control.clone(),
            node,
            fate: Rc::default(),
            troubles: disks.iter().map(|_| Rc::default()).collect(),
            absent: Rc::default(),
            copies: 1,
            decisions: LocalCoordinator::default(),
            disks,
            config,
            slot_bytes: 64 << 10,
            next_writer: Rc::default(),
        }
    }

    pub fn env(&self) -> SimEnv {
        self.control.env(self.node, 0)
    }

    fn disk(&self, at: usize) -> TestDisk {
        let (control, fate, trouble) =
            (self.control.clone(), Rc::clone(&self.fate), Rc::clone(&self.troubles[at]));
        TestDisk {
            disk: self.env().open_disk(self.disks[at]),
            control,
            node: self.node,
            env: self.env(),
            fate,
            trouble,
        }
    }

    /// The node crashes, if it has not, and is started again.
    pub fn restart(&self, how: Crash) {
        if self.control.is_up(self.node) {
            self.control.crash(self.node, how);
        }
        self.control.restart(self.node);
        self.fate.blow.set(None);
        self.fate.is_dead.set(false);
    }

    fn coordinator(&self) -> Rc<dyn Coordinator> {
        Rc::new(Committee { env: self.env(), kept: self.decisions.clone() })
    }

    /// Formats all disks.
    pub async fn format(&self) -> Vec<Store> {
        let pool = Pool::new(&self.env(), CLUSTER);
        for at in 0..self.disks.len() {
            let device = uuid::Uuid::from_u128(1 + u128::from(self.disks[at].0));
            let options = FormatOptions {
                slot_bytes: self.slot_bytes,
                fence_entries: 4,
                ..FormatOptions::new(device, CLUSTER)
            };
            let store = ChunkStore::format(self.env(), self.disk(at), options).await;
            self.add(&pool, store.expect("the disk is blank")).await;
        }
        CopyStore::all(&pool, self.copies)
    }

    async fn add(&self, pool: &Pool<SimEnv, TestDisk>, store: ChunkStore<SimEnv, TestDisk>) {
        store.set_reserve(reserve_slots(store.info().slots));
        pool.add(store).await.expect("disks are alike");
    }

    pub async fn create(&self, stores: &[Store]) -> SimLane {
        self.create_lane(stores, LANE).await
    }

    pub async fn create_lane(&self, stores: &[Store], lane: LaneId) -> SimLane {
        let made =
            Lane::create_with(self.env(), stores.to_vec(), lane, self.coordinator(), self.config).await;
        made.expect("there is space")
    }

    /// The stores, as a start finds them.
    pub async fn stores(&self) -> Vec<Store> {
        let pool = Pool::new(&self.env(), CLUSTER);
        for at in 0..self.disks.len() {
            if !self.absent.borrow().contains(&at) {
                let store = ChunkStore::open(self.env(), self.disk(at)).await;
                self.add(&pool, store.expect("the store was formatted")).await;
            }
        }
        CopyStore::all(&pool, self.copies)
    }

    pub async fn open(&self) -> Result<(SimLane, Recovery), LaneError> {
        let stores = self.stores().await;
        Lane::open_with(self.env(), stores, LANE, self.coordinator(), self.config).await
    }
}
