//! A node with a disk or two, and a lane on them.

use std::cell::Cell;
use std::rc::Rc;

use ashlar_engine::chunks::Chunks;
use ashlar_engine::groups::reserve_slots;
use ashlar_engine::ids::{GroupId, LaneId};
use ashlar_engine::lane::{Lane, LaneConfig, LaneError, Recovery};
use ashlar_engine::log::LogConfig;
use ashlar_engine::map::Shape;
use ashlar_engine::store::{ChunkStore, FormatOptions};
use ashlar_sim::{Control, Crash, DiskGeometry, DiskId, NodeId, SimEnv};

use super::disk::{Fate, TestDisk, Trouble};

pub type Store = ChunkStore<SimEnv, TestDisk>;
pub type SimLane = Lane<SimEnv, Store>;

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

#[derive(Clone)]
pub struct World {
    pub control: Control,
    pub node: NodeId,
    pub disks: Vec<DiskId>,
    pub fate: Rc<Fate>,
    /// What is wrong with each disk.
    pub troubles: Vec<Rc<Trouble>>,
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

    /// Formats all disks.
    pub async fn format(&self) -> Vec<Store> {
        let mut stores = Vec::new();
        for at in 0..self.disks.len() {
            let device = uuid::Uuid::from_u128(1 + u128::from(self.disks[at].0));
            let options = FormatOptions {
                slot_bytes: self.slot_bytes,
                fence_entries: 4,
                ..FormatOptions::new(device, uuid::Uuid::from_u128(99))
            };
            let store =
                ChunkStore::format(self.env(), self.disk(at), options).await.expect("the disk is blank");
            store.set_reserve(reserve_slots(store.info().slots));
            stores.push(store);
        }
        stores
    }

    pub async fn create(&self, stores: &[Store]) -> SimLane {
        self.create_lane(stores, LANE).await
    }

    pub async fn create_lane(&self, stores: &[Store], lane: LaneId) -> SimLane {
        Lane::create(self.env(), stores.to_vec(), lane, self.config).await.expect("there is space")
    }

    /// The stores, as a start finds them.
    pub async fn stores(&self) -> Vec<Store> {
        let mut stores = Vec::new();
        for at in 0..self.disks.len() {
            let store = ChunkStore::open(self.env(), self.disk(at)).await.expect("the store was formatted");
            store.set_reserve(reserve_slots(store.info().slots));
            stores.push(store);
        }
        stores
    }

    pub async fn open(&self) -> Result<(SimLane, Recovery), LaneError> {
        Lane::open(self.env(), self.stores().await, LANE, self.config).await
    }
}
