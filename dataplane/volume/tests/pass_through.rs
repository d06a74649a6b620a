//! A pass-through volume against an array of bytes, one operation after the other.

mod common;

use ashlar_env::buf::{Buf, MAX_BYTES};
use ashlar_env::disk::{DiskError, DiskInfo, Durability};
use ashlar_env::reservation::ReservationAction;
use ashlar_env::units::{BlockSize, Lba};
use ashlar_env::volume::{Operation, Outcome};
use ashlar_env::{Volume, VolumeError};
use ashlar_volume::{NoStore, OpenError, PassThrough, Reservations, ResizeError};
use common::{MemoryDisk, TestEnv, disk_info, filled, issuer, range, serve, settings};
use proptest::prelude::*;

type Served = PassThrough<TestEnv, MemoryDisk, NoStore>;

fn execute(env: &TestEnv, volume: &Served, operation: Operation) -> Result<Outcome, VolumeError> {
    env.run(volume.execute(issuer(1), operation))
}

fn read(env: &TestEnv, volume: &Served, first: u64, blocks: u64) -> Vec<u8> {
    match execute(env, volume, Operation::Read { range: range(first, blocks) }) {
        Ok(Outcome::Data(data)) => data.to_vec(),
        other => panic!("not data: {other:?}"),
    }
}

/// What a test does: which operation, where, how long, and with which byte.
type Step = (u8, u64, u64, u8);

struct Model {
    bytes: Vec<u8>,
    block: usize,
}

impl Model {
    fn at(&mut self, first: u64, blocks: u64) -> &mut [u8] {
        &mut self.bytes[first as usize * self.block..][..blocks as usize * self.block]
    }
}

fn check_step(env: &TestEnv, volume: &Served, model: &mut Model, (what, first, blocks, byte): Step) {
    let total = volume.info().blocks;
    let first = first % total;
    let blocks = blocks.min(total - first).min((MAX_BYTES / model.block) as u64);
    let range = range(first, blocks);
    let data: Vec<u8> =
        (0..blocks as usize * model.block).map(|at| byte.wrapping_add((at / 512) as u8)).collect();
    let durability = if byte % 2 == 0 { Durability::Fua } else { Durability::Cached };
    let operation = match what {
        0 => Operation::Write { range, data: filled(env, &data), durability },
        1 => Operation::WriteZeroes { range, free: byte % 3 == 0, durability },
        2 => Operation::Unmap { ranges: Box::new([range]) },
        3 => Operation::Copy { sources: Box::new([range]), to: Lba(u64::from(byte) * 7 % total), durability },
        4 => {
            let expected = if byte % 3 == 0 { data.clone() } else { model.at(first, blocks).to_vec() };
            let expected = filled(env, &expected);
            Operation::CompareAndWrite { range, expected, data: filled(env, &data), durability }
        }
        5 => Operation::Verify { range },
        _ => Operation::Read { range },
    };
    let outcome = execute(env, volume, operation.clone());
    match (what, outcome) {
        (0, Ok(Outcome::Done)) => model.at(first, blocks).copy_from_slice(&data),
        (1 | 2, Ok(Outcome::Done)) => model.at(first, blocks).fill(0),
        (3, outcome) => check_copy(model, total, operation, outcome),
        (4, outcome) => {
            let there = model.at(first, blocks);
            let Operation::CompareAndWrite { expected, .. } = operation else { unreachable!() };
            match there.iter().zip(&*expected).position(|(a, b)| a != b) {
                Some(at) => assert_eq!(outcome.unwrap_err(), VolumeError::Miscompare { at_bytes: at as u64 }),
                None => {
                    assert!(matches!(outcome, Ok(Outcome::Done)));
                    there.copy_from_slice(&data);
                }
            }
        }
        (5, Ok(Outcome::Done)) => {}
        (_, Ok(Outcome::Data(data))) => assert_eq!(&data[..], &*model.at(first, blocks)),
        (what, outcome) => panic!("operation {what} ended with {outcome:?}"),
    }
}

fn check_copy(model: &mut Model, total: u64, operation: Operation, outcome: Result<Outcome, VolumeError>) {
    let Operation::Copy { sources, to, .. } = operation else { unreachable!() };
    let source = sources[0];
    let target = range(to.0, source.blocks());
    if target.end().0 > total {
        assert_eq!(outcome.unwrap_err(), VolumeError::OutOfRange);
    } else if target.overlaps(source) {
        assert_eq!(outcome.unwrap_err(), VolumeError::Invalid);
    } else {
        assert!(matches!(outcome, Ok(Outcome::Done)));
        let data = model.at(source.first().0, source.blocks()).to_vec();
        model.at(to.0, source.blocks()).copy_from_slice(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_do_to_the_disk_what_they_do_to_an_array(
        seed in any::<u64>(),
        small_blocks in any::<bool>(),
        disk_block in prop_oneof![Just(512_u32), Just(4096)],
        discard in prop_oneof![Just((0_u32, false)), Just((4096, false)), Just((4096, true)), Just((16384, true))],
        zeroes in any::<bool>(),
        steps in proptest::collection::vec((0..8_u8, 0..1000_u64, 1..40_u64, any::<u8>()), 1..40),
    ) {
        let env = TestEnv::new(seed);
        let mut info = disk_info(256 << 10, disk_block);
        (info.discard_granularity_bytes, info.discard_zeroes) = discard;
        let block_size = if small_blocks { BlockSize::B512 } else { BlockSize::B4096 };
        let (volume, disk) = serve(&env, info, block_size);
        if !zeroes {
            disk.forbid_zeroes();
        }
        let mut model = Model { bytes: vec![0; 256 << 10], block: block_size.bytes() as usize };
        for step in steps {
            check_step(&env, &volume, &mut model, step);
        }
        prop_assert_eq!(disk.bytes(), model.bytes);
        prop_assert_eq!(volume.in_flight(), 0);
    }
}

#[test]
fn the_largest_transfers_work_across_the_disk_s_blocks() {
    let env = TestEnv::new(1);
    let (volume, disk) = serve(&env, disk_info(4 << 20, 4096), BlockSize::B512);
    let data: Vec<u8> = (0..MAX_BYTES).map(|at| (at / 512 + at) as u8).collect();
    let write = Operation::Write {
        range: range(3, (MAX_BYTES / 512) as u64),
        data: filled(&env, &data),
        durability: Durability::Cached,
    };
    execute(&env, &volume, write).unwrap();
    assert_eq!(disk.bytes()[3 * 512..][..MAX_BYTES], data);
    assert_eq!(read(&env, &volume, 3, (MAX_BYTES / 512) as u64), data);
    let copy = Operation::Copy {
        sources: Box::new([range(3, 1000), range(1003, 1048)]),
        to: Lba(4001),
        durability: Durability::Cached,
    };
    execute(&env, &volume, copy).unwrap();
    assert_eq!(disk.bytes()[4001 * 512..][..MAX_BYTES], data);
}

#[test]
fn durability_reaches_the_disk() {
    let env = TestEnv::new(2);
    let (volume, disk) = serve(&env, disk_info(64 << 10, 512), BlockSize::B512);
    let write = |durability| Operation::Write { range: range(0, 1), data: Buf::zeroes(512), durability };
    execute(&env, &volume, write(Durability::Fua)).unwrap();
    execute(&env, &volume, write(Durability::Cached)).unwrap();
    execute(&env, &volume, Operation::Flush).unwrap();
    assert_eq!(disk.take_log(), ["write fua", "write", "flush"]);
}

#[test]
fn a_disk_without_a_cache_is_not_flushed() {
    let env = TestEnv::new(2);
    let info = DiskInfo { volatile_cache: false, ..disk_info(64 << 10, 512) };
    let (volume, disk) = serve(&env, info, BlockSize::B512);
    execute(&env, &volume, Operation::Flush).unwrap();
    assert_eq!(disk.take_log(), [""; 0]);
}

#[test]
fn unmap_discards_whole_granules_only_where_that_gives_zeros() {
    let env = TestEnv::new(3);
    let unmap = || Operation::Unmap { ranges: Box::new([range(1, 30)]) };
    let (volume, disk) = serve(&env, disk_info(64 << 10, 512), BlockSize::B512);
    execute(&env, &volume, unmap()).unwrap();
    assert_eq!(disk.take_log(), ["discard", "zero", "zero"]);
    let info = DiskInfo { discard_zeroes: false, ..disk_info(64 << 10, 512) };
    let (volume, disk) = serve(&env, info, BlockSize::B512);
    execute(&env, &volume, unmap()).unwrap();
    assert_eq!(disk.take_log(), ["zero and free"]);
}

#[test]
fn errors_of_the_disk_have_their_meaning() {
    let env = TestEnv::new(4);
    let (volume, disk) = serve(&env, disk_info(64 << 10, 4096), BlockSize::B512);
    let write = |blocks: u64| Operation::Write {
        range: range(0, blocks),
        data: Buf::zeroes(blocks as usize * 512),
        durability: Durability::Cached,
    };
    let fails = |error: DiskError, operation| {
        disk.fail_next(error);
        execute(&env, &volume, operation).unwrap_err()
    };
    let medium = || DiskError::Medium("planted".into());
    assert_eq!(fails(medium(), Operation::Read { range: range(0, 8) }), VolumeError::ReadFault);
    assert_eq!(fails(medium(), Operation::Read { range: range(0, 1) }), VolumeError::ReadFault);
    assert_eq!(fails(medium(), Operation::Verify { range: range(0, 8) }), VolumeError::ReadFault);
    assert_eq!(fails(medium(), write(8)), VolumeError::WriteFault);
    assert_eq!(fails(medium(), write(1)), VolumeError::WriteFault);
    assert_eq!(fails(DiskError::NoSpace, write(8)), VolumeError::NoSpace);
    assert_eq!(fails(DiskError::Gone, write(8)), VolumeError::NotHere);
    assert_eq!(fails(medium(), Operation::Flush), VolumeError::WriteFault);
    assert_eq!(volume.in_flight(), 0);
}

#[test]
fn ranges_beyond_the_end_and_read_only_disks_are_refused() {
    let env = TestEnv::new(5);
    let (volume, _) = serve(&env, disk_info(64 << 10, 512), BlockSize::B4096);
    let beyond = Operation::Read { range: range(15, 2) };
    assert_eq!(execute(&env, &volume, beyond).unwrap_err(), VolumeError::OutOfRange);
    let wrapping = Operation::Verify { range: range(u64::MAX - 1, 1) };
    assert_eq!(execute(&env, &volume, wrapping).unwrap_err(), VolumeError::OutOfRange);
    let (volume, _) = serve(&env, DiskInfo { read_only: true, ..disk_info(64 << 10, 512) }, BlockSize::B512);
    let write =
        Operation::Write { range: range(0, 1), data: Buf::zeroes(512), durability: Durability::Cached };
    assert!(volume.info().read_only);
    assert_eq!(execute(&env, &volume, write).unwrap_err(), VolumeError::ReadOnly);
    execute(&env, &volume, Operation::Flush).unwrap();
}

#[test]
fn a_disk_that_cannot_hold_one_block_is_refused() {
    let env = TestEnv::new(6);
    let disk = env.disk(disk_info(3584, 512));
    let error =
        PassThrough::new(env.clone(), disk, settings(BlockSize::B4096, Reservations::default()), NoStore)
            .err()
            .unwrap();
    assert_eq!(error, OpenError::TooSmall { size_bytes: 3584, block_bytes: 4096 });
}

#[test]
fn geometry_comes_from_the_disk() {
    let env = TestEnv::new(7);
    let info = DiskInfo { discard_granularity_bytes: 65536, ..disk_info(1 << 20, 4096) };
    let (volume, _) = serve(&env, info, BlockSize::B512);
    let info = volume.info();
    assert_eq!((info.blocks, info.preferred_write_blocks), (2048, 8));
    assert_eq!((info.thin, info.unmap_granularity_blocks, info.atomic_write_blocks), (true, 128, 1));
    let info = DiskInfo { atomic_write_bytes: 64 << 10, ..disk_info(1 << 20, 4096) };
    let (volume, _) = serve(&env, info, BlockSize::B4096);
    assert_eq!(volume.info().atomic_write_blocks, 16);
}

#[test]
fn a_volume_grows_and_shrinks_only_when_meant() {
    let env = TestEnv::new(8);
    let (volume, disk) = serve(&env, disk_info(64 << 10, 512), BlockSize::B4096);
    assert_eq!(env.run(volume.resize(128 << 10, false)).unwrap().blocks, 32);
    let refused = env.run(volume.resize(64 << 10, false)).unwrap_err();
    assert_eq!(refused, ResizeError::WouldShrink { size_bytes: 128 << 10 });
    let odd = env.run(volume.resize((64 << 10) + 512, true)).unwrap_err();
    assert_eq!(odd, ResizeError::Granule { granule_bytes: 4096 });
    assert_eq!(env.run(volume.resize(64 << 10, true)).unwrap().blocks, 16);
    let gone = Operation::Read { range: range(16, 1) };
    assert_eq!(execute(&env, &volume, gone).unwrap_err(), VolumeError::OutOfRange);
    disk.fix_size();
    let fixed = env.run(volume.resize(128 << 10, false)).unwrap_err();
    assert_eq!(fixed, ResizeError::Fixed { size_bytes: 64 << 10 });
    assert_eq!(volume.info().blocks, 16);
    disk.set_info(DiskInfo { size_bytes: 128 << 10, ..disk_info(0, 512) });
    assert_eq!(env.run(volume.resize(128 << 10, false)).unwrap().blocks, 32);
}

#[test]
fn persistence_is_refused_where_nothing_keeps_it() {
    let env = TestEnv::new(9);
    let (volume, _) = serve(&env, disk_info(64 << 10, 512), BlockSize::B512);
    let register = |persist| Operation::Reserve(ReservationAction::Register { key: 1, persist });
    assert_eq!(execute(&env, &volume, register(Some(true))).unwrap_err(), VolumeError::Unsupported);
    assert!(volume.reservations().report().registrants.is_empty());
    execute(&env, &volume, register(Some(false))).unwrap();
    assert_eq!(volume.reservations().report().registrants.len(), 1);
}
