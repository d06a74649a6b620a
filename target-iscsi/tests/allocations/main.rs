//! Reads and writes allocate nothing once the session's depth has been seen: bytes to bytes, through the server, the
//! session, the device server and a volume. Everything runs on this thread; the initiator's bytes are made beforehand.

#[allow(dead_code, reason = "each test uses a part")]
#[path = "../common/bytes.rs"]
mod bytes;
mod host;
#[path = "../../../target-nvmeof/tests/allocations/memory.rs"]
mod memory;
#[path = "../../../target-nvmeof/tests/allocations/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ashlar_env::Volume;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_iscsi::limits::Limits;
use ashlar_iscsi::scsi::Shared;
use ashlar_iscsi::server::Server;
use ashlar_iscsi::server::message::Message;
use ashlar_iscsi::view::{Access, Portal, Target, Targets, Unit};
use ashlar_volume::{NoStore, Null, PassThrough, Reservations, Settings, scratch_pool};
use bytes::Digests;
use host::{Host, Kind};
use memory::Memory;
use world::{Alone, TestEnv};

const VOLUME: VolumeId = VolumeId(uuid::Uuid::from_u128(1));
const BLOCKS: u64 = 8192;
/// Commands of one batch, all in flight at once.
const DEPTH: u32 = 32;
const ROUNDS: usize = 20;

/// What a batch is made of, by the number of the command: what, and how many blocks.
type Mix = fn(u32) -> (Kind, u32);

const READS: Mix = |n| (Kind::Read, if n.is_multiple_of(2) { 8 } else { 64 });
const IMMEDIATE: Mix = |_| (Kind::Immediate, 8);
const SOLICITED: Mix = |_| (Kind::Solicited, 64);
const MIXED: Mix = |n| match n % 4 {
    0 => (Kind::Immediate, 8),
    1 => (Kind::Solicited, 64),
    2 => (Kind::Read, 8),
    _ => (Kind::Read, 256),
};

/// How often the second of two equal loads allocates.
fn allocations<V: Volume>(volume: impl FnOnce(&TestEnv) -> V, digests: Digests, mix: Mix) -> u64 {
    let env = TestEnv::new();
    let volume = volume(&env);
    let (limits, shared) = (Limits::default(), Arc::new(Shared::default()));
    let server = Server::<_, _, Message<usize>, _>::new(env.clone(), Alone, limits, Alone::HERE, shared, 1);
    server.set_targets(&Arc::new(targets(&volume)), |_| Some(volume.clone()));
    server.listen(world::ADDRESS).unwrap();
    let mut host = Host::log_in(&env, digests);
    let mut batch = host.batch((0..DEPTH).map(mix), BLOCKS);
    let mut load = || {
        for _ in 0..ROUNDS {
            host.run(&mut batch);
        }
    };
    load();
    allocation_counter::measure(load).count_total
}

fn targets(volume: &impl Volume) -> Targets {
    let unit = Unit { volume: volume.info(), name: "one".into(), port_group: 1 };
    let target = Target {
        name: host::TARGET.into(),
        alias: String::new(),
        access: Access::AnyHost,
        listen: BTreeSet::new(),
        units: BTreeMap::from([(1, unit)]),
        port_groups: BTreeMap::new(),
    };
    let portal = Portal { tag: 1, listen: world::ADDRESS, advertise: None };
    Targets { targets: BTreeMap::from([(host::TARGET.into(), target)]), portals: vec![portal] }
}

fn null(_: &TestEnv) -> Null {
    Null::new(VOLUME, BlockSize::B512, BLOCKS).unwrap()
}

fn memory(env: &TestEnv, late: bool) -> PassThrough<TestEnv, Memory> {
    let settings = Settings {
        id: VOLUME,
        block_size: BlockSize::B512,
        read_only: false,
        reservations: Reservations::default(),
        scratch: scratch_pool(),
    };
    PassThrough::new(env.clone(), Memory::new(BLOCKS * 512, late), settings, NoStore).unwrap()
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn on_the_null_volume() {
    for (name, mix) in [("reads", READS), ("immediate", IMMEDIATE), ("R2T", SOLICITED), ("mixed", MIXED)] {
        assert_eq!(allocations(null, Digests::default(), mix), 0, "{name}");
    }
}

#[test]
fn with_digests() {
    assert_eq!(allocations(null, Digests { header: true, data: true }, MIXED), 0);
}

#[test]
fn on_memory_that_answers_at_once_and_later() {
    for late in [false, true] {
        assert_eq!(allocations(|env| memory(env, late), Digests::default(), MIXED), 0, "late: {late}");
    }
}
