//! Reads and writes allocate nothing once the queue's depth has been seen: bytes to bytes, through the server, the
//! transport and a volume. Everything runs on this thread; the host's bytes are made beforehand.

#[allow(dead_code, reason = "each test uses a part")]
#[path = "../common/bytes.rs"]
mod bytes;
mod host;
mod memory;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;

use ashlar_env::Volume;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_nvmeof::hub::HubConfig;
use ashlar_nvmeof::limits::Limits;
use ashlar_nvmeof::server::Server;
use ashlar_nvmeof::server::message::Message;
use ashlar_nvmeof::view::{Access, AnaState, Namespace, Port, Subsystem, Targets};
use ashlar_nvmeof::wire::sqe::io;
use ashlar_volume::{NoStore, Null, PassThrough, Reservations, Settings, scratch_pool};
use bytes::Digests;
use host::Host;
use memory::Memory;
use world::{Alone, TestEnv};

const VOLUME: VolumeId = VolumeId(uuid::Uuid::from_u128(1));
const BLOCKS: u64 = 8192;
/// Commands of one batch, all in flight at once.
const DEPTH: u16 = 32;
const ROUNDS: usize = 20;

/// What a batch is made of, by the number of the command.
type Mix = fn(u16) -> (u8, u32);

const READS: Mix = |n| (io::READ, if n % 2 == 0 { 8 } else { 64 });
const WRITES_IN_CAPSULE: Mix = |_| (io::WRITE, 8);
const WRITES_BY_R2T: Mix = |_| (io::WRITE, 64);
const MIXED: Mix = |n| match n % 4 {
    0 => (io::WRITE, 8),
    1 => (io::WRITE, 64),
    2 => (io::READ, 8),
    _ => (io::READ, 256),
};

/// How often the second of two equal loads allocates.
fn allocations<V: Volume>(volume: impl FnOnce(&TestEnv) -> V, digests: Digests, mix: Mix) -> u64 {
    let env = TestEnv::new();
    let volume = volume(&env);
    let hub = HubConfig {
        limits: Limits::default(),
        cntlid_min: 1,
        cntlid_max: 100,
        model: "test".into(),
        firmware: "1".into(),
        first_session: 1,
    };
    let server =
        Server::<_, _, Message<usize>, _>::new(env.clone(), Alone, Limits::default(), Alone::HERE, Some(hub));
    server.set_targets(&Arc::new(targets(&volume)), |_| Some(volume.clone()));
    server.listen(world::ADDRESS).unwrap();
    let mut host = Host::connect(&env, digests, DEPTH + 1);
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
    let subsystem = Subsystem {
        serial: "1".into(),
        access: Access::AnyHost,
        listen: BTreeSet::new(),
        namespaces: [(1, Namespace { volume: volume.info(), ana_group: 1 })].into(),
        ana_groups: [(1, AnaState::Optimized)].into(),
    };
    Targets {
        subsystems: [(host::NQN.to_owned(), subsystem)].into(),
        ports: vec![Port { id: 1, listen: world::ADDRESS, advertise: None }],
        referrals: Vec::new(),
    }
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
    for (name, mix) in
        [("reads", READS), ("capsules", WRITES_IN_CAPSULE), ("R2T", WRITES_BY_R2T), ("mixed", MIXED)]
    {
        assert_eq!(allocations(null, Digests::NONE, mix), 0, "{name}");
    }
}

#[test]
fn with_digests() {
    assert_eq!(allocations(null, Digests::BOTH, MIXED), 0);
}

#[test]
fn on_memory_that_answers_at_once_and_later() {
    for late in [false, true] {
        assert_eq!(allocations(|env| memory(env, late), Digests::NONE, MIXED), 0, "late: {late}");
    }
}
