//! A target of volumes in memory, and a way to give it commands.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, ready};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ashlar_env::buf::{Buf, MAX_BYTES};
use ashlar_env::units::{BlockRange, BlockSize, Lba, VolumeId};
use ashlar_env::volume::{Extent, Issuer, Operation, Outcome, VolumeInfo};
use ashlar_env::{Volume, VolumeError};
use ashlar_iscsi::scsi::{
    Answer, Attribute, Cdb, Data, Nexus, NexusName, Request, Shared, Status, Step, Units, lun,
};
use ashlar_iscsi::view::{Access, AluaState, Portal, Target, Targets, Unit};
use ashlar_volume::check::check;

pub const TARGET: &str = "iqn.2016-04.com.example:target";

/// A volume in memory.
#[derive(Clone)]
pub struct Memory(Rc<Inner>);

struct Inner {
    info: Cell<VolumeInfo>,
    bytes: RefCell<Vec<u8>>,
    allocated: RefCell<Vec<bool>>,
    /// What the next operation ends with instead.
    fails: RefCell<Option<VolumeError>>,
    pub seen: RefCell<Vec<Operation>>,
}

impl Memory {
    pub fn new(info: VolumeInfo) -> Self {
        let blocks = info.blocks as usize;
        Self(Rc::new(Inner {
            info: Cell::new(info),
            bytes: RefCell::new(vec![0; blocks << info.block_size.shift()]),
            allocated: RefCell::new(vec![false; blocks]),
            fails: RefCell::default(),
            seen: RefCell::default(),
        }))
    }

    pub fn change(&self, change: impl FnOnce(&mut VolumeInfo)) {
        let mut info = self.0.info.get();
        change(&mut info);
        self.0.info.set(info);
    }

    pub fn fail_next(&self, error: VolumeError) {
        *self.0.fails.borrow_mut() = Some(error);
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes.borrow().clone()
    }

    /// The operations since last asked.
    pub fn seen(&self) -> Vec<Operation> {
        std::mem::take(&mut self.0.seen.borrow_mut())
    }

    fn at(&self, range: BlockRange) -> std::ops::Range<usize> {
        let range = range.bytes(self.info().block_size).unwrap();
        range.start as usize..range.end() as usize
    }

    fn put(&self, range: BlockRange, data: &[u8], allocated: bool) {
        self.0.bytes.borrow_mut()[self.at(range)].copy_from_slice(data);
        self.0.allocated.borrow_mut()[range.first().0 as usize..range.end().0 as usize].fill(allocated);
    }

    fn compare(&self, range: BlockRange, expected: &[u8]) -> Result<(), VolumeError> {
        let bytes = self.0.bytes.borrow();
        let differs = bytes[self.at(range)].iter().zip(expected).position(|(a, b)| a != b);
        differs.map_or(Ok(()), |at| Err(VolumeError::Miscompare { at_bytes: at as u64 }))
    }

    fn extents(&self, range: BlockRange) -> Box<[Extent]> {
        let allocated = self.0.allocated.borrow();
        let mut extents = Vec::<Extent>::new();
        for at in range.first().0..range.end().0 {
            let now = allocated[at as usize];
            match extents.last_mut().filter(|last| last.allocated == now) {
                Some(last) => {
                    last.range = BlockRange::new(last.range.first(), last.range.blocks() + 1).unwrap();
                }
                None => {
                    let range = BlockRange::new(Lba(at), 1).unwrap();
                    extents.push(Extent { range, allocated: now });
                }
            }
        }
        extents.into()
    }

    fn apply(&self, operation: Operation) -> Result<Outcome, VolumeError> {
        use Operation as O;
        if !matches!(operation, Operation::Permit(_)) {
            // That is a question alone.
            self.0.seen.borrow_mut().push(operation.clone());
        }
        if let Some(error) = self.0.fails.borrow_mut().take() {
            return Err(error);
        }
        check(&self.info(), &operation)?;
        match operation {
            O::Read { range } => {
                let bytes = self.0.bytes.borrow();
                return Ok(Outcome::Data(Buf::from_heap(Arc::from(&bytes[self.at(range)]))));
            }
            O::Write { range, data, .. } => self.put(range, &data, true),
            O::WriteZeroes { range, free, .. } => self.put(range, &vec![0; self.at(range).len()], !free),
            O::Unmap { ranges } => {
                ranges.iter().for_each(|range| self.put(*range, &vec![0; self.at(*range).len()], false));
            }
            O::Compare { range, expected } => self.compare(range, &expected)?,
            O::CompareAndWrite { range, expected, data, .. } => {
                self.compare(range, &expected)?;
                self.put(range, &data, true);
            }
            O::Allocation { range } => return Ok(Outcome::Extents(self.extents(range))),
            O::Verify { .. } | O::Flush | O::Permit(_) => {}
            O::Copy { .. } | O::Reserve(_) | O::ReserveNexus(_) => return Err(VolumeError::Unsupported),
        }
        Ok(Outcome::Done)
    }
}

impl Volume for Memory {
    fn info(&self) -> VolumeInfo {
        self.0.info.get()
    }

    fn execute(
        &self,
        _: Issuer,
        operation: Operation,
    ) -> impl Future<Output = Result<Outcome, VolumeError>> + 'static {
        ready(self.apply(operation))
    }
}

pub fn info(block_size: BlockSize, blocks: u64) -> VolumeInfo {
    VolumeInfo {
        id: VolumeId(uuid::Uuid::from_u128(0x0123_4567_89AB_4DEF_8123_4567_89AB_CDEF)),
        block_size,
        blocks,
        read_only: false,
        volatile_cache: true,
        thin: true,
        unmap_granularity_blocks: 8,
        preferred_write_blocks: 8,
        atomic_write_blocks: 1,
    }
}

pub struct World {
    pub shared: Arc<Shared>,
    pub units: Units<Memory>,
    pub nexus: Nexus,
    /// The volume of LUN 1.
    pub memory: Memory,
    pub targets: Targets,
}

pub fn targets(volume: VolumeInfo) -> Targets {
    let unit = Unit { volume, name: "disk".into(), port_group: 1 };
    let target = Target {
        name: TARGET.into(),
        alias: "target".into(),
        access: Access::AnyHost,
        listen: BTreeSet::new(),
        units: BTreeMap::from([(1, unit)]),
        port_groups: BTreeMap::from([(1, AluaState::Optimized)]),
    };
    let portal = |tag: u16| Portal { tag, listen: ([0, 0, 0, 0], 3259 + tag).into(), advertise: None };
    Targets { targets: BTreeMap::from([(TARGET.to_owned(), target)]), portals: vec![portal(1), portal(2)] }
}

impl World {
    pub fn new(volume: VolumeInfo) -> Self {
        let shared = Arc::new(Shared::default());
        let memory = Memory::new(volume);
        let targets = targets(volume);
        shared.announce(&targets);
        let target = Arc::new(targets.targets[TARGET].clone());
        let units =
            Units::new(Arc::clone(&shared), target, targets.portals.clone().into(), |_| Some(memory.clone()));
        let nexus = nexus(&shared, &targets, 1);
        let world = Self { shared, units, nexus, memory, targets };
        // What every initiator does first: ask until the unit attentions are told.
        while world.run(&[0; 6], &[]).status != Status::Good {}
        world.memory.seen();
        world
    }

    /// 1024 blocks of 512 bytes.
    pub fn small() -> Self {
        Self::new(info(BlockSize::B512, 1024))
    }

    /// Another session, with nothing told to it yet.
    pub fn other(&self, session: u64) -> Nexus {
        nexus(&self.shared, &self.targets, session)
    }

    /// A new configuration.
    pub fn configure(&mut self, change: impl FnOnce(&mut Targets)) {
        change(&mut self.targets);
        self.shared.announce(&self.targets);
        let target = Arc::new(self.targets.targets[TARGET].clone());
        let memory = self.memory.clone();
        self.units.update(target, self.targets.portals.clone().into(), |_| Some(memory.clone()));
    }

    pub fn request(&self, cdb: &[u8], out_bytes: usize) -> Request {
        Request {
            lun: lun::encode(1),
            cdb: Cdb::new(cdb),
            attribute: Attribute::Simple,
            out_bytes: out_bytes as u32,
            in_bytes: u32::MAX,
        }
    }

    /// A command to LUN 1 that sends `out`.
    pub fn run(&self, cdb: &[u8], out: &[u8]) -> Answer {
        self.give(&self.nexus, &self.request(cdb, out.len()), out)
    }

    pub fn run_as(&self, nexus: &Nexus, cdb: &[u8], out: &[u8]) -> Answer {
        self.give(nexus, &self.request(cdb, out.len()), out)
    }

    /// A command as it is: as much of `out` comes as the device server wants.
    pub fn give(&self, nexus: &Nexus, request: &Request, out: &[u8]) -> Answer {
        let wanted = (self.units.wanted_bytes(request) as usize).min(out.len());
        let pieces = out[..wanted].chunks(MAX_BYTES).map(|piece| Buf::from_heap(piece.into())).collect();
        match self.units.start(nexus, request, Data::Many(pieces)) {
            Step::Done(answer) => answer,
            Step::Operate { volume, operation, finish } => {
                finish.answer(wait(volume.execute(nexus.issuer(), operation)))
            }
            Step::Long(work) => wait(work),
        }
    }

    /// The data of a command that must succeed.
    pub fn data(&self, cdb: &[u8]) -> Vec<u8> {
        let answer = self.run(cdb, &[]);
        assert_eq!(answer.status, Status::Good, "{cdb:02x?}: {answer:?}");
        answer.data.gather().to_vec()
    }

    /// The sense of a command that must fail with CHECK CONDITION.
    pub fn sense(&self, cdb: &[u8], out: &[u8]) -> (u8, u8, u8) {
        sense(&self.run(cdb, out))
    }
}

fn nexus(shared: &Arc<Shared>, targets: &Targets, session: u64) -> Nexus {
    let name = NexusName {
        initiator: format!("iqn.2016-04.com.example:host{session}"),
        isid: [0, 2, 0x3D, 0, 0, 1],
        target: TARGET.into(),
        portal_tag: 1,
    };
    shared.begin(name, session, &targets.targets[TARGET]).unwrap()
}

/// Sense key, additional sense code and qualifier, of fixed format.
pub fn sense(answer: &Answer) -> (u8, u8, u8) {
    assert_eq!(answer.status, Status::CheckCondition, "{answer:?}");
    let sense = answer.sense.as_ref().unwrap();
    assert_eq!(sense[0] & 0x7F, 0x70);
    (sense[2], sense[12], sense[13])
}

pub fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
    panic!("it never ends");
}

/// READ (16) or WRITE (16), or another of that shape.
pub fn cdb_16(opcode: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// READ (10) or another of that shape.
pub fn cdb_10(opcode: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// READ (12) or another of that shape.
pub fn cdb_12(opcode: u8, lba: u32, blocks: u32) -> [u8; 12] {
    let mut cdb = [0; 12];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[6..10].copy_from_slice(&blocks.to_be_bytes());
    cdb
}
