//! Devices that are not what they should be: what is refused, in which words, and what is made good.

use ashlar_engine::chunks::{Chunk, Chunks, Seal, StoreError};
use ashlar_engine::ids::{Epoch, GroupId};
use ashlar_engine::store::format::{
    Content, Geometry, HEADER_BYTES, Label, SLOT_HEADERS_BYTES, SlotHeader, Superblock,
};
use ashlar_engine::store::{ChunkStore, FormatError, FormatOptions, OpenError, OpenOptions};
use ashlar_env::disk::{Disk, Durability};
use ashlar_env::{DiskError, Env};
use ashlar_sim::{DiskGeometry, DiskId, SimDisk, SimEnv};
use uuid::Uuid;

use crate::model::id;
use crate::{SLOTS, calmly, geometry, options};

type Store = ChunkStore<SimEnv, SimDisk>;

const PAGE: u64 = 4096;

fn plan() -> Geometry {
    Geometry::plan(geometry().size_bytes, options().slot_bytes, 512, 1).unwrap()
}

/// Bytes of a page, changed behind the store's back.
async fn change(env: &SimEnv, disk: DiskId, page: u64, change: impl FnOnce(&mut [u8])) {
    let disk = env.open_disk(disk);
    let mut bytes = disk.read(page, env.buffers().alloc(PAGE as usize).await).await.unwrap();
    change(&mut bytes);
    disk.write(page, bytes.freeze(), Durability::Fua).await.unwrap();
}

async fn rot(env: &SimEnv, disk: DiskId, page: u64) {
    change(env, disk, page, |bytes| bytes[100] ^= 4).await;
}

async fn format(env: &SimEnv, disk: DiskId) -> Store {
    Store::format(env.clone(), env.open_disk(disk), options()).await.unwrap()
}

async fn open(env: &SimEnv, disk: DiskId) -> Result<Store, OpenError> {
    Store::open(env.clone(), env.open_disk(disk)).await
}

/// The error of an opening after `spoil`, and that its text says what to do.
fn refused<F: Future<Output = ()> + 'static>(
    spoil: impl FnOnce(SimEnv, DiskId) -> F + 'static,
    error: OpenError,
) {
    calmly(|env, disk| async move {
        drop(format(&env, disk).await);
        spoil(env.clone(), disk).await;
        let found = open(&env, disk).await.err();
        assert_eq!(found, Some(error.clone()));
        let text = error.to_string();
        assert!(text.contains(". ") || text.contains("; "), "it says nothing but what is wrong: {text}");
    });
}

/// A superblock with a changed field and a checksum that fits.
fn resealed(bytes: &mut [u8], at: usize, value: u8) {
    bytes[at] = value;
    bytes[8..12].fill(0);
    let crc = ashlar_codec::crc32c_append(ashlar_codec::crc32c(&bytes[..8]), &bytes[12..512]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Changes both superblocks alike.
async fn both(env: SimEnv, disk: DiskId, how: impl Fn(&mut [u8])) {
    change(&env, disk, 0, &how).await;
    change(&env, disk, plan().size_bytes - PAGE, &how).await;
}

#[test]
fn every_reason_not_to_open_has_its_error() {
    refused(|env, disk| both(env, disk, |b| b.fill(0)), OpenError::NotFormatted);
    refused(|env, disk| both(env, disk, |b| b[..512].fill(7)), OpenError::Foreign);
    let beyond = |b: &mut [u8]| {
        b.fill(0);
        b[1080] = 0x53;
    };
    refused(move |env, disk| both(env, disk, beyond), OpenError::Foreign);
    refused(|env, disk| both(env, disk, |b| resealed(b, 12, 9)), OpenError::Newer { found: 9 });
    refused(|env, disk| both(env, disk, |b| resealed(b, 17, 1)), OpenError::UnknownFeatures { bits: 0x100 });
    let what = "its checksum does not match".to_owned();
    let damaged = OpenError::Damaged { first: what.clone(), second: what };
    refused(|env, disk| both(env, disk, |b| b[70] ^= 1), damaged);
    let formatted_bytes = plan().size_bytes;
    let size_bytes = formatted_bytes - 4096;
    let shrink =
        move |env: SimEnv, disk| async move { env.open_disk(disk).resize(size_bytes).await.unwrap() };
    refused(shrink, OpenError::Truncated { size_bytes, formatted_bytes });
}

#[test]
fn a_device_of_others_is_named() {
    calmly(|env, disk| async move {
        drop(format(&env, disk).await);
        let other = Some(Uuid::from_u128(77));
        let open = async |options| Store::open_with(env.clone(), env.open_disk(disk), options).await.err();
        let (device, cluster) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let wrong = OpenOptions { cluster: other, ..OpenOptions::default() };
        let wanted = Uuid::from_u128(77);
        assert_eq!(open(wrong).await, Some(OpenError::OtherCluster { device, found: cluster, wanted }));
        let wrong = OpenOptions { device: other, ..OpenOptions::default() };
        assert_eq!(open(wrong).await, Some(OpenError::OtherDevice { found: device, wanted }));
        let right = OpenOptions { cluster: Some(cluster), device: Some(device), reserve_slots: 0 };
        assert_eq!(open(right).await, None);
    });
}

#[test]
fn a_device_with_larger_blocks_than_it_was_formatted_for_is_refused() {
    let sim = ashlar_sim::Sim::new(1, ashlar_sim::Profile::calm());
    let node = sim.node("node", 1);
    let fine = sim.disk("fine", geometry());
    let first = sim.control();
    sim.goal_on(node, 0, |env| async move {
        drop(format(&env, fine).await);
        let coarse = DiskGeometry { block_bytes: 4096, ..geometry() };
        let coarse = first.disk_from("coarse", coarse, &first.image(fine));
        let error = OpenError::Block { block_bytes: 4096, align_bytes: 512 };
        assert_eq!(open(&env, coarse).await.err(), Some(error));
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn what_is_not_blank_is_not_formatted_unless_told() {
    calmly(|env, disk| async move {
        let again = |options: FormatOptions| Store::format(env.clone(), env.open_disk(disk), options);
        change(&env, disk, 0, |bytes| bytes[1080] = 0x53).await;
        assert_eq!(again(options()).await.err(), Some(FormatError::Occupied(OpenError::Foreign)));
        let overwrite = FormatOptions { overwrite: true, device: Uuid::from_u128(5), ..options() };
        let store = again(overwrite).await.unwrap();
        store.create(id(1, 1), Epoch(1)).await.unwrap();
        let error = again(options()).await.err();
        let (device, cluster) = (Uuid::from_u128(5), Uuid::from_u128(2));
        assert_eq!(error, Some(FormatError::AlreadyFormatted { device, cluster }));
        let store = again(FormatOptions { overwrite: true, ..options() }).await.unwrap();
        assert!(store.list(None).is_empty() && store.report().is_clean());
        let sizes = |slot_bytes| FormatOptions { slot_bytes, overwrite: true, ..options() };
        assert!(matches!(again(sizes(48 << 10)).await.err(), Some(FormatError::Sizes { .. })));
        assert!(matches!(again(sizes(32 << 20)).await.err(), Some(FormatError::Sizes { .. })));
        assert!(matches!(again(sizes(16 << 20)).await.err(), Some(FormatError::TooSmall { .. })));
        assert!(open(&env, disk).await.is_ok(), "and nothing was changed");
    });
}

#[test]
fn one_good_superblock_is_enough() {
    for page in [0, plan().size_bytes - PAGE] {
        calmly(move |env, disk| async move {
            drop(format(&env, disk).await);
            rot(&env, disk, page).await;
            let store = open(&env, disk).await.unwrap();
            assert_eq!(store.report().superblock.as_deref(), Some("its checksum does not match"));
        });
    }
}

/// A store with a sealed chunk in slot 0, an open one in slot 1, and a fence.
async fn filled(env: &SimEnv, disk: DiskId) {
    let store = format(env, disk).await;
    store.fence(GroupId(1), Epoch(3)).await.unwrap();
    let chunk = store.create(id(1, 1), Epoch(3)).await.unwrap();
    chunk.append(Epoch(3), 0, &[ashlar_env::Buf::zeroes(512)]).await.unwrap();
    chunk.seal(Epoch(3), Seal { length: 512, next: None }).await.unwrap();
    store.create(id(1, 2), Epoch(3)).await.unwrap();
}

#[test]
fn rot_of_either_copy_changes_nothing_and_is_made_good() {
    for side in [0, PAGE] {
        calmly(move |env, disk| async move {
            filled(&env, disk).await;
            rot(&env, disk, plan().slot_start(0) + side).await;
            rot(&env, disk, plan().fence_page_start(0) + side).await;
            let store = open(&env, disk).await.unwrap();
            assert_eq!(store.report().slots_impaired, [0]);
            assert_eq!(store.report().fences_impaired, [0]);
            assert_eq!(store.fence_of(GroupId(1)), Epoch(3));
            assert!(store.stat(id(1, 1)).unwrap().sealed.is_some());
            store.delete(id(1, 1), Epoch(3)).await.unwrap();
            store.fence(GroupId(1), Epoch(4)).await.unwrap();
            let store = open(&env, disk).await.unwrap();
            assert!(store.report().is_clean(), "{:?}", store.report());
            assert_eq!((store.list(None).len(), store.fence_of(GroupId(1))), (1, Epoch(4)));
        });
    }
}

#[test]
fn a_copy_that_cannot_be_read_counts_as_damaged() {
    let sim = ashlar_sim::Sim::new(1, ashlar_sim::Profile::calm());
    let node = sim.node("node", 1);
    let disk = sim.disk("disk", geometry());
    let control = sim.control();
    sim.goal_on(node, 0, |env| async move {
        filled(&env, disk).await;
        control.break_sectors(disk, plan().slot_start(0), 512);
        control.break_sectors(disk, plan().slot_start(1) + PAGE, 512);
        let store = open(&env, disk).await.unwrap();
        assert_eq!(
            (store.report().slots_impaired.as_slice(), store.list(None).len()),
            ([0, 1].as_slice(), 2)
        );
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_slot_without_a_header_is_lost_until_it_is_reclaimed() {
    calmly(|env, disk| async move {
        filled(&env, disk).await;
        for side in [0, PAGE] {
            rot(&env, disk, plan().slot_start(0) + side).await;
        }
        let store = open(&env, disk).await.unwrap();
        assert_eq!((store.lost(), store.report().slots_lost.len()), (vec![0], 1));
        assert!(store.open(id(1, 1)).is_none());
        assert_eq!(store.info().free, SLOTS as u32 - 2);
        for segment in 3..7 {
            store.create(id(1, segment), Epoch(3)).await.unwrap();
        }
        assert_eq!(
            store.create(id(1, 9), Epoch(3)).await.err(),
            Some(StoreError::Full),
            "it is not handed out"
        );
        assert_eq!(store.reclaim(1).await, Err(StoreError::NotFound), "not lost");
        assert_eq!(store.reclaim(0).await, Ok(()));
        store.create(id(1, 9), Epoch(3)).await.unwrap();
        let store = open(&env, disk).await.unwrap();
        assert!(store.lost().is_empty() && store.open(id(1, 9)).is_some());
    });
}

#[test]
fn without_fences_a_store_is_only_read() {
    calmly(|env, disk| async move {
        filled(&env, disk).await;
        for side in [0, PAGE] {
            rot(&env, disk, plan().fence_page_start(0) + side).await;
        }
        let store = open(&env, disk).await.unwrap();
        assert!(store.info().failed && store.failure().unwrap().contains("fence page 0"));
        assert_eq!(store.report().fences_lost, [0]);
        let refused = store.create(id(2, 1), Epoch(1)).await.err();
        assert!(matches!(refused, Some(StoreError::Disk(DiskError::Latched(_)))));
        let chunk = store.open(id(1, 1)).unwrap();
        assert!(chunk.read(0, env.buffers().alloc(512).await).await.is_ok());
    });
}

/// Writes both headers of a slot.
async fn plant(env: &SimEnv, disk: DiskId, slot: u32, header: SlotHeader) {
    for side in [0, PAGE] {
        let bytes = header.encode();
        change(env, disk, plan().slot_start(slot) + side, |page| {
            page[..HEADER_BYTES].copy_from_slice(&bytes)
        })
        .await;
    }
}

#[test]
fn headers_in_the_wrong_place_or_of_another_formatting_or_twice_are_no_chunks() {
    calmly(|env, disk| async move {
        filled(&env, disk).await;
        let device = Uuid::from_u128(1);
        let content = Content::Open(Label { id: id(1, 5), epoch: Epoch(9) });
        let header = SlotHeader { device, slot: 2, sequence: 1 << 40, content };
        plant(&env, disk, 3, header).await;
        plant(&env, disk, 4, SlotHeader { slot: 4, device: Uuid::from_u128(99), ..header }).await;
        // An open one beside a sealed one of the same name, though its header is newer.
        let twin = Content::Open(Label { id: id(1, 1), epoch: Epoch(3) });
        plant(&env, disk, 5, SlotHeader { slot: 5, content: twin, ..header }).await;
        // A seal beyond the slot.
        let length = plan().chunk_bytes() + 1;
        let long = Content::Sealed(Label { id: id(1, 6), epoch: Epoch(3) }, Seal { length, next: None });
        plant(&env, disk, 2, SlotHeader { content: long, ..header }).await;
        let store = open(&env, disk).await.unwrap();
        assert_eq!(store.lost(), [2, 3, 4, 5]);
        assert_eq!(store.list(None).len(), 2);
        assert!(store.stat(id(1, 1)).unwrap().sealed.is_some());
    });
}

#[test]
fn a_copy_that_was_not_completed_leaves_a_free_slot() {
    calmly(|env, disk| async move {
        filled(&env, disk).await;
        let content = Content::Copying(Label { id: id(1, 5), epoch: Epoch(2) });
        plant(&env, disk, 2, SlotHeader { device: Uuid::from_u128(1), slot: 2, sequence: 50, content }).await;
        let store = open(&env, disk).await.unwrap();
        assert_eq!((store.report().copies_dropped, store.report().is_clean()), (1, true));
        assert_eq!(store.info().free, SLOTS as u32 - 2);
        assert!(store.create(id(1, 5), Epoch(3)).await.is_ok());
        let store = open(&env, disk).await.unwrap();
        assert_eq!(store.report().copies_dropped, 0);
    });
}

#[test]
fn the_layout_is_as_documented() {
    let it = plan();
    assert_eq!(it.slots, SLOTS as u32);
    assert_eq!(it.data_start(0) - it.slot_start(0), u64::from(SLOT_HEADERS_BYTES));
    assert_eq!(it.slot_start(1) - it.slot_start(0), u64::from(it.slot_bytes));
    calmly(|env, disk| async move {
        drop(format(&env, disk).await);
        let disk = env.open_disk(disk);
        for at in [0, plan().size_bytes - PAGE] {
            let page = disk.read(at, env.buffers().alloc(PAGE as usize).await).await.unwrap();
            let superblock = Superblock::decode(page[..512].try_into().unwrap()).unwrap();
            assert_eq!((superblock.geometry, superblock.device), (plan(), Uuid::from_u128(1)));
        }
    });
}

#[test]
fn a_read_only_device_is_read() {
    let sim = ashlar_sim::Sim::new(1, ashlar_sim::Profile::calm());
    let node = sim.node("node", 1);
    let disk = sim.disk("disk", geometry());
    let control = sim.control();
    sim.goal_on(node, 0, |env| async move {
        filled(&env, disk).await;
        let read_only = DiskGeometry { read_only: true, ..geometry() };
        let disk = control.disk_from("read-only", read_only, &control.image(disk));
        let store = open(&env, disk).await.unwrap();
        assert!(store.info().failed);
        assert_eq!(store.list(None).len(), 2);
        assert!(matches!(store.delete(id(1, 1), Epoch(3)).await, Err(StoreError::Disk(_))));
        assert!(store.open(id(1, 1)).is_some(), "and is there still");
    });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
}
