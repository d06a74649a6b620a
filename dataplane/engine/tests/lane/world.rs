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
use ashlar_sim::{Control, DiskGeometry, DiskId, NodeId, SimDisk, SimEnv};

pub type Store = ChunkStore<SimEnv, SimDisk>;
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
        let disks = disks.iter().map(|geometry| control.disk("disk", *geometry)).collect();
        Self {
            control: control.clone(),
            node,
            disks,
            config,
            slot_bytes: 64 << 10,
            next_writer: Rc::default(),
        }
    }

    pub fn env(&self) -> SimEnv {
        self.control.env(self.node, 0)
    }

    /// Formats all disks.
    pub async fn format(&self) -> Vec<Store> {
        let mut stores = Vec::new();
        for disk in &self.disks {
            let device = uuid::Uuid::from_u128(1 + u128::from(disk.0));
            let options = FormatOptions {
                slot_bytes: self.slot_bytes,
                fence_entries: 4,
                ..FormatOptions::new(device, uuid::Uuid::from_u128(99))
            };
            let disk = self.env().open_disk(*disk);
            let store = ChunkStore::format(self.env(), disk, options).await.expect("the disk is blank");
            store.set_reserve(reserve_slots(store.info().slots));
            stores.push(store);
        }
        stores
    }

    pub async fn create(&self, stores: &[Store]) -> SimLane {
        Lane::create(self.env(), stores.to_vec(), LANE, self.config).await.expect("there is space")
    }

    /// The stores, as a start finds them.
    pub async fn stores(&self) -> Vec<Store> {
        let mut stores = Vec::new();
        for disk in &self.disks {
            let disk = self.env().open_disk(*disk);
            let store = ChunkStore::open(self.env(), disk).await.expect("the store was formatted");
            store.set_reserve(reserve_slots(store.info().slots));
            stores.push(store);
        }
        stores
    }

    pub async fn open(&self) -> Result<(SimLane, Recovery), LaneError> {
        Lane::open(self.env(), self.stores().await, LANE, self.config).await
    }
}
