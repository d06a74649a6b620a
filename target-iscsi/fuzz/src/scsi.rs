//! SCSI commands of two initiators on two logical units, with any CDB and any parameter list.
//!
//! A record is one command: its operation says by which nexus (bit 0) and with which attribute (bits 3:1); its bytes
//! are the LUN (one byte), the expected lengths out and in (16 bits each, in units of 8 bytes with the highest bit, else of
//! 1), the length of the CDB, the CDB, and Data-Out, which is repeated as far as it is needed.
//!
//! Checked: sense data come with CHECK CONDITION and with nothing else; Data-In is bounded; every command ends, since
//! the disk answers everything; at the end all buffers are given back, and a third initiator can read.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ashlar_env::buf::MAX_BYTES;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::{Buf, Env, Spawn, Volume};
use ashlar_iscsi::scsi::units::TRANSFER_BYTES_MAX;
use ashlar_iscsi::scsi::{
    Answer, Attribute, Cdb, Data, Nexus, NexusName, Request, Shared, Status, Step, Units,
};
use ashlar_iscsi::view::{Access, AluaState, Portal, Target, Unit};
use ashlar_volume::{NoStore, PassThrough, Reservations, Settings, scratch_pool};

use crate::disk::ScriptDisk;
use crate::script::Script;
use crate::world::{ADDRESS, World};

type TestVolume = PassThrough<World, ScriptDisk, NoStore>;

const DISK_BYTES: usize = 128 << 10;
const NAME: &str = "iqn.2026-11.io.ashlar:one";

struct Bench {
    world: World,
    units: Units<TestVolume>,
    shared: Arc<Shared>,
    target: Arc<Target>,
    nexuses: Vec<Nexus>,
    tasks: usize,
}

/// Runs one input.
///
/// # Panics
/// If the device server breaks a rule.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut bench = Bench::new();
    while !script.is_over() {
        let (operation, record) = script.record();
        bench.command(operation, Script::new(record));
    }
    bench.end();
}

impl Bench {
    fn new() -> Self {
        let world = World::new();
        let volumes = [1, 2].map(|number| volume(&world, number));
        let unit = |volume: &TestVolume| Unit { volume: volume.info(), name: "one".into(), port_group: 1 };
        let target = Arc::new(Target {
            name: NAME.into(),
            alias: "one".into(),
            access: Access::AnyHost,
            listen: Default::default(),
            units: (1..).zip(volumes.iter().map(unit)).collect(),
            port_groups: [(1, AluaState::Optimized)].into(),
        });
        let shared = Arc::new(Shared::default());
        let portals: Arc<[Portal]> = Arc::new([Portal { tag: 1, listen: ADDRESS, advertise: None }]);
        let open = |id| volumes.iter().find(|volume| volume.info().id == id).cloned();
        let units = Units::new(Arc::clone(&shared), Arc::clone(&target), portals, open);
        let mut bench = Self { world, units, shared, target, nexuses: Vec::new(), tasks: 0 };
        bench.log_in();
        bench.log_in();
        bench.world.settle();
        bench.tasks = bench.world.task_count();
        bench
    }

    fn log_in(&mut self) {
        let session = self.nexuses.len() as u64 + 1;
        let name = NexusName {
            initiator: format!("iqn.2026-11.io.ashlar:host{session}"),
            isid: [0x80, 0, 0, 0, 0, session as u8],
            target: NAME.into(),
            portal_tag: 1,
        };
        self.nexuses.push(self.shared.begin(name, session, &self.target).expect("a sound name"));
    }

    fn command(&mut self, operation: u8, mut record: Script<'_>) {
        let attribute = match operation >> 1 & 7 {
            0 | 1 => Attribute::Simple,
            2 => Attribute::Ordered,
            3 => Attribute::HeadOfQueue,
            4 => Attribute::Aca,
            _ => Attribute::Untagged,
        };
        let lun = u64::from(record.byte()) << 48;
        let length = |short: u16| if short & 0x8000 == 0 { short } else { short << 3 };
        let (out_bytes, in_bytes) = (length(record.short()).into(), length(record.short()).into());
        let cdb_bytes = usize::from(record.byte());
        let cdb = Cdb::new(record.bytes(cdb_bytes.min(260)));
        let request = Request { lun, cdb, attribute, out_bytes, in_bytes };
        let wanted = self.units.wanted_bytes(&request);
        assert!(u64::from(wanted) <= TRANSFER_BYTES_MAX.max(64 << 10) * 2, "{wanted} bytes wanted");
        let data = repeat(record.bytes(usize::MAX), wanted.min(out_bytes) as usize);
        let answer = self.execute(usize::from(operation & 1), &request, data);
        check(&answer);
    }

    fn execute(&self, nexus: usize, request: &Request, data: Data) -> Answer {
        let nexus = &self.nexuses[nexus];
        let answer = Rc::new(RefCell::new(None));
        let told = Rc::clone(&answer);
        match self.units.start(nexus, request, data) {
            Step::Done(answer) => return answer,
            Step::Operate { volume, operation, finish } => {
                let execution = volume.execute(nexus.issuer(), operation);
                self.world.spawn(async move {
                    let outcome = execution.await;
                    *told.borrow_mut() = Some(finish.answer(outcome));
                });
            }
            Step::Long(long) => self.world.spawn(async move {
                let ended = long.await;
                *told.borrow_mut() = Some(ended);
            }),
        }
        self.world.settle();
        answer.take().expect("the disk has answered everything, so the command has ended")
    }

    fn end(mut self) {
        self.log_in();
        let read = |lba: u8| Request {
            lun: 1 << 48,
            cdb: Cdb::new(&[0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0]),
            attribute: Attribute::Simple,
            out_bytes: 0,
            in_bytes: 512,
        };
        // The first command hears that the nexus is new.
        let first = self.execute(2, &read(0), Data::None);
        assert_eq!(first.status, Status::CheckCondition);
        let second = self.execute(2, &read(1), Data::None);
        let served = [Status::Good, Status::ReservationConflict].contains(&second.status);
        assert!(served, "{second:?}");
        drop(second);
        self.nexuses.clear();
        self.world.settle();
        assert!(self.world.task_count() <= self.tasks + 2, "{} tasks are left", self.world.task_count());
        let fresh = World::new();
        assert_eq!(self.world.buffers().free_count(), fresh.buffers().free_count(), "buffers are lost");
        self.world.close();
    }
}

fn volume(world: &World, number: u128) -> TestVolume {
    let settings = Settings {
        id: VolumeId(uuid::Uuid::from_u128(number)),
        block_size: BlockSize::B512,
        read_only: false,
        reservations: Reservations::default(),
        scratch: scratch_pool(),
    };
    PassThrough::new(world.clone(), ScriptDisk::new(DISK_BYTES, false), settings, NoStore)
        .expect("a sound disk")
}

/// `pattern` over and over, in buffers as the session has them.
fn repeat(pattern: &[u8], bytes: usize) -> Data {
    if bytes == 0 {
        return Data::None;
    }
    let all: Vec<u8> = if pattern.is_empty() {
        vec![0; bytes]
    } else {
        pattern.iter().copied().cycle().take(bytes).collect()
    };
    let mut pieces: Vec<Buf> = all.chunks(MAX_BYTES).map(|piece| Buf::from_heap(piece.into())).collect();
    if pieces.len() == 1 { Data::One(pieces.remove(0)) } else { Data::Many(pieces) }
}

fn check(answer: &Answer) {
    assert_eq!(answer.sense.is_some(), answer.status == Status::CheckCondition, "{answer:?}");
    if let Some(sense) = &answer.sense {
        assert!((8..=252).contains(&sense.len()), "{sense:?}");
        assert!(matches!(sense[0] & 0x7F, 0x70 | 0x72), "{sense:?}");
    }
    assert!(answer.data.bytes() as u64 <= TRANSFER_BYTES_MAX);
}
