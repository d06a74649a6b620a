//! WRITE SAME, UNMAP, and what is allocated afterwards.

use ashlar_env::units::BlockSize;
use ashlar_env::volume::Operation;
use ashlar_iscsi::scsi::Status;

use crate::world::{World, cdb_10, cdb_16, info, sense};

const CDB_FIELD: (u8, u8, u8) = (5, 0x24, 0);
const INFORMATION_UNIT: (u8, u8, u8) = (5, 0x0E, 3);
const UNMAP: u8 = 0x08;
const NDOB: u8 = 0x01;

fn same(lba: u64, blocks: u32, flags: u8) -> [u8; 16] {
    let mut cdb = cdb_16(0x93, lba, blocks);
    cdb[1] = flags;
    cdb
}

/// The descriptors of GET LBA STATUS: address, blocks, deallocated.
fn status(world: &World, lba: u64, allocation: u32) -> Vec<(u64, u32, bool)> {
    let mut cdb = cdb_16(0x9E, lba, allocation);
    cdb[1] = 0x12;
    let data = world.data(&cdb);
    assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()) % 16, 4);
    let (descriptors, _) = data[8..].as_chunks::<16>();
    let read = |d: &[u8; 16]| {
        let lba = u64::from_be_bytes(d[..8].try_into().unwrap());
        (lba, u32::from_be_bytes(d[8..12].try_into().unwrap()), d[12] == 1)
    };
    descriptors.iter().map(read).collect()
}

fn unmap(world: &World, ranges: &[(u64, u32)]) -> (Status, Option<(u8, u8, u8)>) {
    let list = list(ranges);
    let answer = world.run(&cdb_10(0x42, 0, list.len() as u16), &list);
    (answer.status, (answer.status == Status::CheckCondition).then(|| sense(&answer)))
}

fn list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let len = ranges.len() as u16 * 16;
    let mut list = [(len + 6).to_be_bytes(), len.to_be_bytes()].concat();
    list.extend([0; 4]);
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

#[test]
fn a_pattern_fills_and_zeros_are_zeroed() {
    let world = World::new(info(BlockSize::B512, 5000));
    let pattern: Vec<u8> = (0..512).map(|at| at as u8 | 1).collect();
    assert_eq!(world.run(&same(3, 4000, 0), &pattern).status, Status::Good);
    assert_eq!(world.memory.bytes()[3 * 512..4003 * 512], pattern.repeat(4000));
    assert_eq!(world.memory.seen().len(), 2, "in pieces of a buffer");
    for (cdb, free) in [(same(3, 10, 0), false), (same(3, 10, UNMAP), true)] {
        assert_eq!(world.run(&cdb, &[0; 512]).status, Status::Good);
        assert!(matches!(world.memory.seen()[..], [Operation::WriteZeroes { free: now, .. }] if now == free));
    }
    // UNMAP with a pattern cannot unmap: the blocks would not read as it.
    assert_eq!(world.run(&same(0, 2, UNMAP), &pattern).status, Status::Good);
    assert_eq!(world.memory.bytes()[..1024], pattern.repeat(2));
    assert_eq!(world.run(&cdb_10(0x41, 20, 2), &[5; 512]).status, Status::Good);
    assert_eq!(world.memory.bytes()[20 * 512..22 * 512], [5; 1024]);
}

#[test]
fn without_data_the_blocks_become_zeros() {
    let world = World::small();
    world.run(&cdb_16(0x8A, 0, 4), &[1; 2048]);
    for flags in [NDOB, NDOB | UNMAP] {
        assert_eq!(world.run(&same(0, 2, flags), &[]).status, Status::Good);
        assert_eq!(world.memory.bytes()[..1024], [0; 1024]);
    }
    assert_eq!(world.sense(&same(0, 2, NDOB), &[0; 512]), CDB_FIELD);
    // WRITE SAME (10) has no such flag.
    let mut cdb = cdb_10(0x41, 0, 2);
    cdb[1] = NDOB;
    assert_eq!(world.sense(&cdb, &[]), INFORMATION_UNIT);
}

#[test]
fn write_same_refuses_what_it_must() {
    let world = World::new(info(BlockSize::B512, 1 << 20));
    for blocks in [0, 32769] {
        assert_eq!(world.sense(&same(0, blocks, 0), &[0; 512]), CDB_FIELD, "WSNZ, and the most");
        assert_eq!(world.sense(&same(0, blocks, NDOB), &[]), CDB_FIELD, "WSNZ, and the most");
    }
    assert_eq!(world.sense(&cdb_10(0x41, 0, 0), &[0; 512]), CDB_FIELD, "WSNZ");
    for flags in [0x10, 0x18, 0x04, 0x02] {
        assert_eq!(world.sense(&same(0, 1, flags), &[0; 512]), CDB_FIELD, "{flags:#x}");
    }
    for len in [0, 256, 1024] {
        assert_eq!(world.sense(&same(0, 1, 0), &vec![0; len]), INFORMATION_UNIT);
    }
    world.memory.change(|info| info.thin = false);
    assert_eq!(world.sense(&same(0, 1, UNMAP), &[0; 512]), CDB_FIELD);
    assert_eq!(world.run(&same(0, 1, 0), &[0; 512]).status, Status::Good);
}

#[test]
fn unmapped_blocks_are_zeros_and_have_no_space() {
    let world = World::small();
    world.run(&cdb_16(0x8A, 0, 64), &[1; 64 * 512]);
    assert_eq!(unmap(&world, &[(8, 8), (20, 0), (32, 4)]).0, Status::Good);
    let bytes = world.memory.bytes();
    assert!(bytes[8 * 512..16 * 512].iter().chain(&bytes[32 * 512..36 * 512]).all(|byte| *byte == 0));
    assert_eq!(bytes[16 * 512], 1);
    let all = status(&world, 0, 4096);
    let want =
        [(0, 8, false), (8, 8, true), (16, 16, false), (32, 4, true), (36, 28, false), (64, 960, true)];
    assert_eq!(all, want);
    assert_eq!(status(&world, 9, 24), [(9, 7, true)], "cut to what was asked for");
    assert_eq!(status(&world, 1023, 24), [(1023, 1, true)]);
}

#[test]
fn unmap_refuses_what_it_must() {
    let world = World::small();
    assert_eq!(world.run(&cdb_10(0x42, 0, 0), &[]).status, Status::Good, "nothing to do");
    assert_eq!(unmap(&world, &[]).0, Status::Good);
    assert_eq!(unmap(&world, &[(1024, 0)]).0, Status::Good);
    for (lba, blocks) in [(1024, 1), (1023, 2), (u64::MAX, 1), (u64::MAX - 1, u32::MAX >> 12)] {
        assert_eq!(unmap(&world, &[(0, 1), (lba, blocks)]).1, Some((5, 0x21, 0)));
    }
    assert_eq!(unmap(&world, &[(0, 1 << 20), (0, 1)]).1.map(|sense| sense.0), Some(5));
    assert_eq!(unmap(&world, &vec![(0, 1); 257]).1, Some((5, 0x26, 0)));
    assert_eq!(unmap(&world, &vec![(0, 1); 256]).0, Status::Good);
    world.memory.seen();
    for len in 1..8_u16 {
        assert_eq!(world.sense(&cdb_10(0x42, 0, len), &vec![0; len.into()]), (5, 0x1A, 0));
    }
    let list = list(&[(0, 1), (1, 1)]);
    // The list says that it has more descriptors than came, or fewer, or a part of one.
    assert_eq!(world.sense(&cdb_10(0x42, 0, 24), &list[..24]), (5, 0x26, 0));
    assert_eq!(world.sense(&cdb_10(0x42, 0, 40), &list[..24]), INFORMATION_UNIT);
    let mut part = list.clone();
    part[3] = 31;
    assert_eq!(world.run(&cdb_10(0x42, 0, 40), &part).status, Status::Good);
    assert!(matches!(&world.memory.seen()[..], [Operation::Unmap { ranges }] if ranges.len() == 1));
    let mut anchor = cdb_10(0x42, 0, 40);
    anchor[1] = 1;
    assert_eq!(world.sense(&anchor, &list), CDB_FIELD);
    world.memory.change(|info| info.thin = false);
    assert_eq!(unmap(&world, &[(0, 1)]).1, Some((5, 0x20, 0)), "not there without thin provisioning");
}
