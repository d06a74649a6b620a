//! Reading, writing, verifying, comparing.

use ashlar_env::VolumeError;
use ashlar_env::buf::MAX_BYTES;
use ashlar_env::disk::Durability;
use ashlar_env::units::BlockSize;
use ashlar_env::volume::Operation;
use ashlar_iscsi::scsi::Status;

use crate::world::{World, cdb_10, cdb_12, cdb_16, info};

const LBA_RANGE: (u8, u8, u8) = (5, 0x21, 0);
const CDB_FIELD: (u8, u8, u8) = (5, 0x24, 0);
const INFORMATION_UNIT: (u8, u8, u8) = (5, 0x0E, 3);
const MISCOMPARE: (u8, u8, u8) = (0xE, 0x1D, 0);

/// The same command in every length there is of it. An operation code of 0 is none.
fn shapes(six: u8, ten: u8, twelve: u8, sixteen: u8, lba: u32, blocks: u16) -> Vec<Vec<u8>> {
    let [_, high, middle, low] = lba.to_be_bytes();
    let mut all = vec![
        vec![six, high & 0x1F, middle, low, blocks as u8, 0],
        cdb_10(ten, lba, blocks).to_vec(),
        cdb_12(twelve, lba, blocks.into()).to_vec(),
        cdb_16(sixteen, lba.into(), blocks.into()).to_vec(),
    ];
    all.retain(|cdb| cdb[0] != 0);
    all
}

fn reads(lba: u32, blocks: u16) -> Vec<Vec<u8>> {
    shapes(0x08, 0x28, 0xA8, 0x88, lba, blocks)
}

fn writes(lba: u32, blocks: u16) -> Vec<Vec<u8>> {
    shapes(0x0A, 0x2A, 0xAA, 0x8A, lba, blocks)
}

#[test]
fn every_length_of_cdb_writes_and_reads() {
    let world = World::small();
    for (at, (write, read)) in writes(1000, 24).into_iter().zip(reads(1000, 24)).enumerate() {
        let data = vec![at as u8 + 1; 24 * 512];
        assert_eq!(world.run(&write, &data).status, Status::Good);
        assert_eq!(world.data(&read), data);
    }
    // READ (6) and WRITE (6) of 0 blocks mean 256.
    let data = vec![0x77; 256 * 512];
    assert_eq!(world.run(&[0x0A, 0, 0, 0, 0, 0], &data).status, Status::Good);
    assert_eq!(world.data(&[0x08, 0, 0, 0, 0, 0]), data);
}

#[test]
fn nothing_is_done_beyond_the_end_and_nothing_wraps() {
    let world = World::small();
    let long = vec![0; 2 * 512];
    for opcode in [0x88, 0x8A, 0x8B, 0x8E, 0x8F, 0x90, 0x91, 0x9E] {
        for (lba, blocks) in [(1023, 2), (1024, 1), (1025, 0), (1 << 63, 1), (u64::MAX, 1), (u64::MAX, 0)] {
            let mut cdb = cdb_16(opcode, lba, blocks);
            if opcode == 0x9E {
                if lba == 1023 {
                    continue;
                }
                (cdb[1], cdb[13]) = (0x12, 24);
            }
            assert_eq!(world.sense(&cdb, &long), LBA_RANGE, "{cdb:02x?}");
        }
    }
    for cdb in reads(1020, 5).into_iter().chain(writes(1020, 5)) {
        assert_eq!(world.sense(&cdb, &[0; 5 * 512]), LBA_RANGE, "{cdb:02x?}");
    }
    for opcode in [0x28, 0x2A, 0x2E, 0x2F, 0x34, 0x35, 0x41] {
        assert_eq!(world.sense(&cdb_10(opcode, u32::MAX, 1), &[0; 512]), LBA_RANGE, "{opcode:#x}");
    }
    assert!(world.memory.seen().is_empty());
}

#[test]
fn empty_transfers_are_fine_up_to_the_end() {
    let world = World::small();
    for opcode in [0x88, 0x8A, 0x8B, 0x8E, 0x8F, 0x90] {
        for lba in [0, 1023, 1024] {
            let answer = world.run(&cdb_16(opcode, lba, 0), &[]);
            assert_eq!((answer.status, answer.data.bytes()), (Status::Good, 0), "{opcode:#x}");
        }
    }
    assert!(world.memory.seen().is_empty());
}

#[test]
fn protection_is_refused_where_it_is() {
    let world = World::small();
    for opcode in [0x88, 0x8A, 0x8B, 0x8E, 0x8F, 0x89, 0x93] {
        let mut cdb = cdb_16(opcode, 0, 1);
        cdb[1] = 0x20;
        let answer = world.run(&cdb, &[0; 512]);
        let sense = answer.sense.unwrap();
        assert_eq!((sense[2], sense[12], &sense[15..18]), (5, 0x24, &[0xCF, 0, 1][..]), "{opcode:#x}");
    }
}

#[test]
fn forced_writes_are_forced() {
    let world = World::small();
    for (flags, want) in [(0x00, Durability::Cached), (0x10, Durability::Cached), (0x18, Durability::Fua)] {
        let mut cdb = cdb_16(0x8A, 0, 1);
        cdb[1] = flags;
        assert_eq!(world.run(&cdb, &[1; 512]).status, Status::Good);
        let seen = world.memory.seen();
        assert!(matches!(&seen[..], [Operation::Write { durability, .. }] if *durability == want));
    }
    // WRITE (6) has an address where the others have flags.
    assert_eq!(world.run(&[0x0A, 0x00, 0, 8, 1, 0], &[1; 512]).status, Status::Good);
    assert!(matches!(&world.memory.seen()[..], [Operation::Write { durability: Durability::Cached, .. }]));
}

#[test]
fn transfers_beyond_one_buffer_are_served_in_pieces_and_beyond_the_most_not_at_all() {
    let world = World::new(info(BlockSize::B4096, 3000));
    let data: Vec<u8> = (0..2 * MAX_BYTES + 8192).map(|at| (at / 997) as u8).collect();
    let blocks = (data.len() / 4096) as u32;
    assert_eq!(world.run(&cdb_16(0x8A, 7, blocks), &data).status, Status::Good);
    assert_eq!(world.memory.seen().len(), 3);
    assert_eq!(world.data(&cdb_16(0x88, 7, blocks)), data);
    let mut verify = cdb_16(0x8F, 7, blocks);
    verify[1] = 0x02;
    assert_eq!(world.run(&verify, &data).status, Status::Good);
    let mut wrong = data.clone();
    wrong[MAX_BYTES + 5] ^= 1;
    let answer = world.run(&verify, &wrong);
    let information = u32::from_be_bytes(answer.sense.unwrap()[3..7].try_into().unwrap());
    assert_eq!(information as usize, MAX_BYTES + 5);
    for opcode in [0x88, 0x8A, 0x8B, 0x8E] {
        let answer = world.run(&cdb_16(opcode, 0, 2049), &[0; 512]);
        assert_eq!(crate::world::sense(&answer), CDB_FIELD, "{opcode:#x}");
    }
}

#[test]
fn of_fewer_data_than_a_command_takes_whole_blocks_are_taken() {
    let shapes = [writes(0, 2), vec![cdb_16(0x8B, 0, 2).to_vec(), cdb_16(0x8E, 0, 2).to_vec()]];
    for cdb in shapes.concat() {
        let world = World::small();
        for len in [200, 511, 1023] {
            assert_eq!(world.sense(&cdb, &vec![1; len]), INFORMATION_UNIT, "{cdb:02x?}, {len}");
        }
        assert_eq!(world.run(&cdb, &[]).status, Status::Good);
        assert!(world.memory.bytes().iter().all(|byte| *byte == 0));
        assert_eq!(world.run(&cdb, &[1; 512]).status, Status::Good);
        assert_eq!(world.memory.bytes()[..1024], [[1; 512], [0; 512]].concat());
        assert_eq!(world.run(&cdb, &[1; 1024 + 200]).status, Status::Good, "what is too much is left");
        assert_eq!(world.memory.bytes()[..1536], [[1; 512], [1; 512], [0; 512]].concat());
    }
    let world = World::small();
    let verify = [&[0x8F, 2][..], &cdb_16(0x8F, 0, 2)[2..]].concat();
    assert_eq!(world.run(&verify, &[0; 512]).status, Status::Good);
    assert_eq!(world.sense(&verify, &[0; 700]), INFORMATION_UNIT);
    world.memory.change(|info| info.atomic_write_blocks = 256);
    let mut atomic = cdb_16(0x9C, 0, 0);
    atomic[13] = 2;
    assert_eq!(world.sense(&atomic, &[1; 512]), INFORMATION_UNIT, "all or nothing");
}

#[test]
fn verifying_looks_or_compares() {
    let world = World::small();
    world.run(&cdb_16(0x8A, 0, 4), &[7; 2048]);
    world.memory.seen();
    for (opcode, cdb) in [
        (0x2F, cdb_10(0x2F, 0, 4).to_vec()),
        (0xAF, cdb_12(0xAF, 0, 4).to_vec()),
        (0x8F, cdb_16(0x8F, 0, 4).to_vec()),
    ] {
        let with = |bytchk: u8| [&[opcode, bytchk << 1][..], &cdb[2..]].concat();
        // Without comparing, what the initiator sends is of no interest.
        assert_eq!(world.run(&with(0), &[0; 2048]).status, Status::Good);
        assert!(matches!(world.memory.seen()[..], [Operation::Verify { .. }]));
        assert_eq!(world.run(&with(1), &[7; 2048]).status, Status::Good);
        assert_eq!(world.run(&with(3), &[7; 512]).status, Status::Good);
        assert_eq!(world.sense(&with(2), &[7; 2048]), CDB_FIELD);
        let mut wrong = [7; 2048];
        wrong[1500] = 8;
        let answer = world.run(&with(1), &wrong);
        assert_eq!(crate::world::sense(&answer), MISCOMPARE);
        assert_eq!(answer.sense.unwrap()[..7], [0xF0, 0, 0xE, 0, 0, 5, 0xDC]);
        assert_eq!(world.sense(&with(3), &[8; 512]), MISCOMPARE);
        world.memory.seen();
    }
}

#[test]
fn writing_and_verifying_forces_and_looks_again() {
    let world = World::small();
    for (bytchk, compares) in [(0x00, false), (0x02, true)] {
        let mut cdb = cdb_16(0x8E, 3, 2);
        cdb[1] = bytchk;
        assert_eq!(world.run(&cdb, &[9; 1024]).status, Status::Good);
        let seen = world.memory.seen();
        assert!(matches!(seen[0], Operation::Write { durability: Durability::Fua, .. }));
        assert_eq!(matches!(seen[1], Operation::Compare { .. }), compares);
    }
    let mut cdb = cdb_16(0x8E, 3, 2);
    cdb[1] = 0x04;
    assert_eq!(world.sense(&cdb, &[9; 1024]), CDB_FIELD);
}

#[test]
fn compare_and_write_is_exact_about_its_data() {
    let world = World::small();
    let caw = |lba: u64, blocks: u8| {
        let mut cdb = cdb_16(0x89, lba, 0);
        cdb[13] = blocks;
        cdb
    };
    assert_eq!(world.run(&caw(5, 2), &[&[0; 1024][..], &[1; 1024]].concat()).status, Status::Good);
    assert_eq!(world.memory.bytes()[5 * 512..7 * 512], [1; 1024]);
    let mut wrong = [&[1; 1024][..], &[2; 1024]].concat();
    wrong[700] = 0;
    let answer = world.run(&caw(5, 2), &wrong);
    assert_eq!(crate::world::sense(&answer), MISCOMPARE);
    assert_eq!(answer.sense.unwrap()[..7], [0xF0, 0, 0xE, 0, 0, 2, 0xBC]);
    assert_eq!(world.memory.bytes()[5 * 512..7 * 512], [1; 1024]);
    for len in [0, 512, 1024, 3072] {
        assert_eq!(world.sense(&caw(5, 2), &vec![1; len]), CDB_FIELD);
    }
    // 256 blocks are 0 in a field of 8 bits.
    assert_eq!(world.sense(&caw(0, 0), &vec![1; 512 * 512]), CDB_FIELD);
    assert_eq!(world.run(&caw(0, 0), &[]).status, Status::Good);
    assert_eq!(world.sense(&caw(1023, 2), &[0; 2048]), LBA_RANGE);
    let world = World::new(info(BlockSize::B4096, 300));
    assert_eq!(world.sense(&caw(0, 129), &vec![0; 258 * 4096]), CDB_FIELD);
    assert_eq!(world.run(&caw(0, 128), &vec![0; 256 * 4096]).status, Status::Good);
}

#[test]
fn orwrite_sets_bits() {
    let world = World::small();
    world.run(&cdb_16(0x8A, 0, 1), &[0xA5; 512]);
    assert_eq!(world.run(&cdb_16(0x8B, 0, 2), &[0x0F; 1024]).status, Status::Good);
    assert_eq!(world.memory.bytes()[..512], [0xAF; 512]);
    assert_eq!(world.memory.bytes()[512..1024], [0x0F; 512]);
}

#[test]
fn atomic_writes_are_there_where_the_volume_has_them() {
    let mut cdb = cdb_16(0x9C, 0, 0);
    cdb[13] = 8;
    assert_eq!(World::small().sense(&cdb, &[1; 4096]), (5, 0x20, 0));
    let world = World::small();
    world.memory.change(|info| info.atomic_write_blocks = 300);
    assert_eq!(world.run(&cdb, &[1; 4096]).status, Status::Good);
    cdb[10] = 1;
    assert_eq!(world.sense(&cdb, &[1; 4096]), CDB_FIELD, "a boundary");
    (cdb[10], cdb[12], cdb[13]) = (0, 1, 45);
    assert_eq!(world.sense(&cdb, &[1; 301 * 512]), CDB_FIELD, "too long");
}

#[test]
fn flushing_flushes_even_what_cannot_be_written() {
    let world = World::small();
    assert_eq!(world.run(&cdb_10(0x35, 0, 0), &[]).status, Status::Good);
    assert_eq!(world.run(&cdb_16(0x91, 0, 0), &[]).status, Status::Good);
    assert!(matches!(world.memory.seen()[..], [Operation::Flush, Operation::Flush]));
    world.memory.change(|info| info.read_only = true);
    assert_eq!(world.run(&cdb_16(0x91, 0, 0), &[]).status, Status::Good);
}

#[test]
fn a_unit_that_cannot_be_written_says_so_before_it_looks_at_the_data() {
    let world = World::small();
    world.memory.change(|info| info.read_only = true);
    for opcode in [0x89, 0x8A, 0x8B, 0x8E, 0x93] {
        assert_eq!(world.sense(&cdb_16(opcode, 0, 1), &[]), (7, 0x27, 0), "{opcode:#x}");
    }
    for opcode in [0x2A, 0x2E, 0x41, 0x42] {
        assert_eq!(world.sense(&cdb_10(opcode, 0, 1), &[]), (7, 0x27, 0), "{opcode:#x}");
    }
    assert_eq!(world.run(&cdb_16(0x88, 0, 1), &[]).status, Status::Good);
}

#[test]
fn what_the_volume_says_reaches_the_initiator() {
    let world = World::small();
    for (error, want) in [
        (VolumeError::NoSpace, (7, 0x27, 7)),
        (VolumeError::WriteFault, (3, 0x0C, 0)),
        (VolumeError::NotHere, (2, 4, 0x0C)),
    ] {
        world.memory.fail_next(error.clone());
        assert_eq!(world.sense(&cdb_16(0x8A, 0, 1), &[0; 512]), want);
        world.memory.fail_next(error);
        assert_eq!(world.sense(&cdb_16(0x8E, 0, 1), &[0; 512]), want);
    }
    for cdb in [cdb_16(0x8A, 0, 1).to_vec(), vec![0; 6]] {
        world.memory.fail_next(VolumeError::ReservationConflict);
        assert_eq!(world.run(&cdb, &[0; 512]).status, Status::ReservationConflict);
    }
}
