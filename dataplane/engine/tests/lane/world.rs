//! A node with a disk, and a lane on it.

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
    pub disk: DiskId,
    pub config: LaneConfig,
    pub slot_bytes: u32,
}

impl World {
    pub fn new(control: &Control, config: LaneConfig, geometry: DiskGeometry) -> Self {
        let node = control.node("node", 1);
        let disk = control.disk("disk", geometry);
        Self { control: control.clone(), node, disk, config, slot_bytes: 64 << 10 }
    }

    pub fn env(&self) -> SimEnv {
        self.control.env(self.node, 0)
    }

    pub async fn format(&self) -> Store {
        let options = FormatOptions {
            slot_bytes: self.slot_bytes,
            fence_entries: 4,
            ..FormatOptions::new(uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2))
        };
        let disk = self.env().open_disk(self.disk);
        let store = ChunkStore::format(self.env(), disk, options).await.expect("the disk is blank");
        store.set_reserve(reserve_slots(store.info().slots));
        store
    }

    pub async fn create(&self, store: &Store) -> SimLane {
        Lane::create(self.env(), vec![store.clone()], LANE, self.config).await.expect("there is space")
    }

    pub async fn open(&self) -> Result<(SimLane, Recovery), LaneError> {
        let disk = self.env().open_disk(self.disk);
        let store = ChunkStore::open(self.env(), disk).await.expect("the store was formatted");
        store.set_reserve(reserve_slots(store.info().slots));
        Lane::open(self.env(), vec![store], LANE, self.config).await
    }
}
