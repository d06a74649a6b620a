//! A device that was a good store, changed in any places, and opened.
//!
//! What is checked: the store opens or says why not; every slot is a chunk's, free or lost; each chunk can be read as
//! far as it says that it goes; all free slots can be taken, and no others.

use std::cell::RefCell;

use ashlar_engine::chunks::{Chunk, Chunks, Seal, StoreError};
use ashlar_engine::ids::{ChunkId, Epoch, GroupId, LaneId, SegmentId, SegmentKind};
use ashlar_engine::store::{ChunkStore, FormatOptions};
use ashlar_env::disk::{Disk, Durability};
use ashlar_env::{Buf, Env};
use ashlar_sim::{DiskGeometry, DiskImage, Profile, Sim, SimDisk, SimEnv};
use uuid::Uuid;

use crate::reseal;

const PAGE: usize = 4096;
const SLOTS: u64 = 4;
const SLOT_BYTES: u64 = 16 << 10;

/// The pages that are looked at when a store is opened: both superblocks, a fence page, and the headers of four slots,
/// each in two copies.
const PAGES: u64 = 2 + 2 + 2 * SLOTS;

/// A byte to be changed.
#[derive(Clone, Copy, Debug)]
pub struct Patch {
    /// Which page, modulo their number.
    pub page: u8,
    /// Which byte of it, modulo its length.
    pub at: u16,
    /// Its new value.
    pub value: u8,
}

impl Patch {
    const BYTES: usize = 4;

    /// As it stands in an input.
    #[must_use]
    pub fn encode(self) -> [u8; Self::BYTES] {
        let [low, high] = self.at.to_le_bytes();
        [self.page, low, high, self.value]
    }

    fn decode(bytes: &[u8]) -> Self {
        Self { page: bytes[0], at: u16::from_le_bytes([bytes[1], bytes[2]]), value: bytes[3] }
    }
}

fn geometry() -> DiskGeometry {
    DiskGeometry::of_bytes(SLOT_BYTES * (SLOTS + 1) + PAGE as u64)
}

fn page_start(page: u64) -> u64 {
    let size = geometry().size_bytes;
    match page {
        0 => 0,
        1 => size - PAGE as u64,
        2 | 3 => (page - 1) * PAGE as u64,
        _ => SLOT_BYTES + (page - 4) / 2 * SLOT_BYTES + (page - 4) % 2 * PAGE as u64,
    }
}

fn id(segment: u32) -> ChunkId {
    let lane = LaneId { group: GroupId(1), lane: 0 };
    ChunkId { lane, segment: SegmentId(segment), kind: SegmentKind::Log, shard: 0 }
}

/// Runs `task` alone with the disk that `image` is, or an empty one; the image afterwards.
fn run<F: Future<Output = ()> + 'static>(
    image: Option<&DiskImage>,
    task: impl FnOnce(SimEnv, SimDisk) -> F,
) -> DiskImage {
    let sim = Sim::new(0, Profile::calm());
    let node = sim.node("node", 1);
    let disk = match image {
        Some(image) => sim.disk_from("disk", geometry(), image),
        None => sim.disk("disk", geometry()),
    };
    sim.goal_on(node, 0, |env| {
        let disk = env.open_disk(disk);
        task(env, disk)
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
    sim.image(disk)
}

/// A store with a sealed chunk, an open one, a free slot that was used, and a fence.
async fn make(env: SimEnv, disk: SimDisk) {
    let options = FormatOptions::new(Uuid::from_u128(1), Uuid::from_u128(2));
    let options = FormatOptions { slot_bytes: SLOT_BYTES as u32, fence_entries: 1, ..options };
    let store = ChunkStore::format(env, disk, options).await.expect("a blank disk is formatted");
    store.fence(GroupId(1), Epoch(3)).await.expect("there is room");
    for segment in 1..=3 {
        let chunk = store.create(id(segment), Epoch(3)).await.expect("there is room");
        chunk.append(Epoch(3), 0, &[Buf::zeroes(512)]).await.expect("it is open");
        if segment != 2 {
            let seal = Seal { length: 512, next: Some(SegmentId(segment + 1)) };
            chunk.seal(Epoch(3), seal).await.expect("it is open");
        }
    }
    store.delete(id(3), Epoch(3)).await.expect("it is there");
}

thread_local! {
    static IMAGE: RefCell<Option<DiskImage>> = const { RefCell::new(None) };
}

/// Bytes of four are patches, in their order. A page whose patches are an even number gets a checksum that fits.
pub fn store_open(data: &[u8]) {
    let image = IMAGE.with_borrow_mut(|image| image.get_or_insert_with(|| run(None, make)).clone());
    let patches: Vec<Patch> = data.chunks_exact(Patch::BYTES).take(64).map(Patch::decode).collect();
    run(Some(&image), |env, disk| async move {
        for page in 0..PAGES {
            let of_page: Vec<&Patch> =
                patches.iter().filter(|patch| u64::from(patch.page) % PAGES == page).collect();
            if !of_page.is_empty() {
                apply(&env, &disk, page, &of_page).await;
            }
        }
        if let Ok(store) = ChunkStore::open(env.clone(), disk).await {
            use_all(&env, &store).await;
        }
    });
}

async fn apply(env: &SimEnv, disk: &SimDisk, page: u64, patches: &[&Patch]) {
    let buf = env.buffers().alloc(PAGE).await;
    let mut bytes = disk.read(page_start(page), buf).await.expect("the disk is good");
    for patch in patches {
        bytes[usize::from(patch.at) % PAGE] = patch.value;
    }
    if patches.len().is_multiple_of(2) {
        let is_fence = page == 2 || page == 3;
        reseal(&mut bytes[..if is_fence { PAGE } else { 512 }]);
    }
    disk.write(page_start(page), bytes.freeze(), Durability::Fua).await.expect("the disk is good");
}

async fn use_all(env: &SimEnv, store: &ChunkStore<SimEnv, SimDisk>) {
    let info = store.info();
    let chunks = store.list(None);
    assert_eq!(chunks.len() + store.lost().len() + info.free as usize, info.slots as usize);
    for stat in &chunks {
        let chunk = store.open(stat.id).expect("it is listed");
        let len = stat.sealed.map_or(info.chunk_bytes, |seal| seal.length.next_multiple_of(info.align_bytes));
        for at in (0..len).step_by(PAGE) {
            let buf = env.buffers().alloc((len - at).min(PAGE as u32) as usize).await;
            chunk.read(at, buf).await.expect("the disk is good");
        }
    }
    for segment in 0..=info.free {
        let lane = LaneId { group: GroupId(u64::MAX), lane: u16::MAX };
        let id = ChunkId { lane, segment: SegmentId(segment), kind: SegmentKind::Moved, shard: u8::MAX };
        let taken = store.stat(id).is_some();
        match store.create(id, Epoch(u64::MAX)).await.err() {
            None => assert!(segment < info.free && !taken && !info.failed),
            Some(StoreError::Exists) => assert!(taken),
            Some(StoreError::Full) => assert_eq!(store.info().free, 0),
            Some(StoreError::Disk(_)) => assert!(info.failed),
            Some(other) => panic!("{other}"),
        }
    }
}
