//! A target of some units, and its nexuses.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::{Instant, Volume};

use super::{Store, block_on};
use crate::scsi::copy::world::World;
use crate::scsi::sense::Asc;
use crate::scsi::{
    Answer, Attribute, Cdb, Data, Nexus, NexusName, Request, Shared, Status, Step, Units, lun, reservation,
};
use crate::view::{Access, Portal, Target, Targets, Unit};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The device server of one target: unit 1 and 2 have blocks of 512 bytes, unit 3 of 4096.
pub struct Bench {
    pub shared: Arc<Shared>,
    pub stores: Vec<Store>,
    pub units: Units<Store>,
    target: Arc<Target>,
    /// Seconds.
    pub now_s: Rc<Cell<u64>>,
    /// Tasks that were spawned and not run yet.
    pub tasks: Rc<RefCell<VecDeque<Task>>>,
    sessions: Cell<u64>,
}

/// An initiator with a session.
pub struct Host {
    pub nexus: Nexus,
}

const BLOCKS: u64 = 8192;

fn target(stores: &[Store]) -> Target {
    let unit = |store: &Store| Unit { volume: store.info(), name: "a volume".into(), port_group: 1 };
    Target {
        name: "iqn.2026-01.test:target".into(),
        alias: "target".into(),
        access: Access::AnyHost,
        listen: Default::default(),
        units: (1..).zip(stores.iter().map(unit)).collect(),
        port_groups: BTreeMap::default(),
    }
}

impl Bench {
    pub fn new() -> Self {
        let stores = [(1, BlockSize::B512), (2, BlockSize::B512), (3, BlockSize::B4096)];
        let stores = stores.map(|(id, size)| Store::new(id, size, BLOCKS)).to_vec();
        let shared = Arc::new(Shared::default());
        Self::of(shared, stores)
    }

    /// The same units by another target, or others.
    pub fn of(shared: Arc<Shared>, stores: Vec<Store>) -> Self {
        let target = Arc::new(target(&stores));
        let listen: SocketAddr = "127.0.0.1:3260".parse().unwrap();
        let portals = [1, 2].map(|tag| Portal { tag, listen, advertise: None });
        let by_id: BTreeMap<VolumeId, Store> =
            stores.iter().map(|store| (store.info().id, store.clone())).collect();
        let open = |id| by_id.get(&id).cloned();
        let mut units = Units::new(Arc::clone(&shared), Arc::clone(&target), portals.clone().into(), open);
        let named = [(target.name.clone(), Target::clone(&target))];
        shared.announce(&Targets { targets: named.into(), portals: portals.into() });
        let (now_s, tasks) = (Rc::new(Cell::new(0)), Rc::new(RefCell::default()));
        units.set_world(world(&now_s, &tasks));
        Self { shared, stores, units, target, now_s, tasks, sessions: Cell::new(0) }
    }

    /// Logs in by portal 1, and takes the unit attentions that follow.
    pub fn login(&self, initiator: &str) -> Host {
        self.login_at(initiator, 1)
    }

    pub fn login_at(&self, initiator: &str, portal_tag: u16) -> Host {
        self.sessions.set(self.sessions.get() + 1);
        let initiator = format!("iqn.2026-01.test:{initiator}");
        let name = NexusName { initiator, isid: [1; 6], target: self.target.name.clone(), portal_tag };
        let nexus = self.shared.begin(name, self.sessions.get(), &self.target).unwrap();
        let host = Host { nexus };
        for lun in 1..=self.stores.len() as u16 {
            while self.attention(&host, lun).is_some() {}
        }
        host
    }

    /// Ends a session as the server does.
    pub fn logout(&self, host: Host) {
        block_on(reservation::end_session(&self.units, host.nexus.state()));
    }

    /// Resets a unit as the server does, and takes what the one that asked for it is told.
    pub fn reset(&self, host: &Host, lun: u16) {
        let volume = self.stores[usize::from(lun) - 1].clone();
        self.shared.reset_unit(volume.info().id);
        block_on(reservation::reset(vec![volume], host.nexus.issuer()));
        assert_eq!(self.attention(host, lun), Some(Asc::DEVICE_RESET));
    }

    /// Begins a command.
    pub fn start(&self, host: &Host, lun: u16, cdb: &[u8], data: &[u8]) -> Step<Store> {
        let request = Request {
            lun: lun::encode(lun),
            cdb: Cdb::new(cdb),
            attribute: Attribute::Simple,
            out_bytes: data.len() as u32,
            in_bytes: 1 << 20,
        };
        let wanted = self.units.wanted_bytes(&request) as usize;
        let data = Data::from_bytes(data[..wanted.min(data.len())].to_vec());
        self.units.start(&host.nexus, &request, data)
    }

    /// Sends a command, and waits for its answer.
    pub fn send(&self, host: &Host, lun: u16, cdb: &[u8], data: &[u8]) -> Answer {
        let answer = match self.start(host, lun, cdb, data) {
            Step::Done(answer) => answer,
            Step::Operate { volume, operation, finish } => {
                finish.answer(block_on(volume.execute(host.nexus.issuer(), operation)))
            }
            Step::Long(answer) => block_on(answer),
        };
        assert_eq!(answer.sense.is_some(), answer.status == Status::CheckCondition);
        answer
    }

    /// The unit attention that waits for a nexus, if any: by TEST UNIT READY, so a conflict shows none.
    pub fn attention(&self, host: &Host, lun: u16) -> Option<Asc> {
        let answer = self.send(host, lun, &[0; 6], &[]);
        let sense = answer.sense?;
        assert_eq!(sense[2], 0x06, "{sense:02x?}");
        Some(Asc(sense[12], sense[13]))
    }

    /// Runs what was spawned to its end.
    pub fn run_tasks(&self) {
        loop {
            let Some(task) = self.tasks.borrow_mut().pop_front() else { return };
            block_on(task);
        }
    }
}

fn world(now_s: &Rc<Cell<u64>>, tasks: &Rc<RefCell<VecDeque<Task>>>) -> World {
    let (clock, tasks) = (Rc::clone(now_s), Rc::clone(tasks));
    let dice = Cell::new(7_u64);
    let random = move || {
        dice.set(dice.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        dice.get()
    };
    World::new(
        move || Instant(clock.get() * 1_000_000_000),
        random,
        move |task| tasks.borrow_mut().push_back(task),
    )
}

/// What an answer is, for comparison: nothing where GOOD, else the sense's key and codes, or the status alone.
pub fn verdict(answer: &Answer) -> Option<(u8, u8, u8)> {
    match (&answer.sense, answer.status) {
        (None, Status::Good) => None,
        (None, status) => Some((0xFF, status as u8, 0)),
        (Some(sense), _) => Some((sense[2] & 0x0F, sense[12], sense[13])),
    }
}

/// RESERVATION CONFLICT, as [`verdict`] has it.
pub const CONFLICT: Option<(u8, u8, u8)> = Some((0xFF, 0x18, 0));
