//! Writes the corpora: `cargo run --example seeds`, in this folder.

use std::fs;
use std::path::Path;

use ashlar_engine::chunks::Seal;
use ashlar_engine::ids::{ChunkId, Epoch, GroupId, LaneId, SegmentId, SegmentKind};
use ashlar_engine::store::format::{
    Content, FENCE_PAGE_ENTRIES, FenceEntry, FencePage, Geometry, Label, PAGE_BYTES, SlotHeader, Superblock,
};
use ashlar_engine_fuzz::{Patch, store_format, store_open};
use uuid::Uuid;

fn save(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the folder of the corpus");
    fs::write(folder.join(name), bytes).expect("an input");
    match target {
        "store_format" => store_format(bytes),
        _ => store_open(bytes),
    }
}

/// The structure with the checksum to be made, and as it is.
fn structure(name: &str, which: u8, bytes: &[u8]) {
    save("store_format", name, &[&[which], bytes].concat());
    let as_it_is = (0x80..=u8::MAX).find(|first| first % 3 == which).expect("one of three");
    save("store_format", &format!("{name}-as-it-is"), &[&[as_it_is], bytes].concat());
}

fn formats() {
    let (device, cluster) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (name, slot_bytes) in [("large", 16 << 20), ("tiny", 16 << 10)] {
        let geometry = Geometry::plan(1 << 30, slot_bytes, 4096, 2).expect("it fits");
        let superblock = Superblock { device, cluster, compatible: 0, geometry };
        structure(&format!("superblock-{name}"), 0, &superblock.encode());
    }
    let lane = LaneId { group: GroupId(0x1234), lane: 5 };
    let id = ChunkId { lane, segment: SegmentId(6), kind: SegmentKind::Moved, shard: 2 };
    let label = Label { id, epoch: Epoch(9) };
    let seal = Seal { length: 12345, next: Some(SegmentId(7)) };
    let contents = [
        ("free", Content::Free),
        ("open", Content::Open(label)),
        ("sealed", Content::Sealed(label, seal)),
        ("copying", Content::Copying(label)),
    ];
    for (name, content) in contents {
        structure(&format!("slot-{name}"), 1, &SlotHeader { device, slot: 3, sequence: 8, content }.encode());
    }
    let mut entries = vec![None; FENCE_PAGE_ENTRIES];
    entries[1] = Some(FenceEntry { group: GroupId(7), epoch: Epoch(3) });
    let mut bytes = [0; PAGE_BYTES as usize];
    FencePage { device, page: 0, sequence: 4, entries }.encode(&mut bytes);
    structure("fences", 2, &bytes);
}

fn openings() {
    save("store_open", "unchanged", &[]);
    let rows: [(&str, &[(u8, u16, u8)]); 7] = [
        ("superblock", &[(0, 70, 1)]),
        ("superblocks", &[(0, 70, 1), (1, 70, 1)]),
        ("slots", &[(0, 76, 1), (0, 77, 0), (1, 76, 1), (1, 77, 0)]),
        ("fence", &[(2, 72, 9), (2, 73, 0), (3, 72, 8), (3, 73, 0)]),
        ("header", &[(4, 12, 2), (4, 76, 0)]),
        ("headers", &[(4, 12, 1), (5, 12, 1)]),
        ("twins", &[(6, 56, 1), (6, 32, 99), (7, 56, 1), (7, 32, 99)]),
    ];
    for (name, patches) in rows {
        let bytes: Vec<u8> =
            patches.iter().flat_map(|&(page, at, value)| Patch { page, at, value }.encode()).collect();
        save("store_open", name, &bytes);
    }
}

fn main() {
    formats();
    openings();
}
