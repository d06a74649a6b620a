//! The hub against hosts that send any Connect, Fabrics and admin commands in any order, while time passes, the
//! configuration changes, connections end and reservations are answered.
//!
//! What is checked: every command is answered once (but for Asynchronous Event Requests), with as much data as
//! planned; nothing is sent to a connection that is closed; what hosts can make the hub hold is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ashlar_env::ReactorId;
use ashlar_env::clock::Instant;
use ashlar_env::reservation::{HostId, Notice, NoticeKind, ReservationReport};
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::volume::{Outcome, VolumeInfo};
use ashlar_nvmeof::hub::{ConnectionId, Effect, Hub, HubConfig, IoError, QueueKind, data_plan};
use ashlar_nvmeof::limits::Limits;
use ashlar_nvmeof::transport::Transfer;
use ashlar_nvmeof::view::{Access, AnaState, Namespace, Port, Subsystem, Targets};
use ashlar_nvmeof::wire::sqe::admin as opcode;
use ashlar_nvmeof::wire::{Sqe, Status};
use uuid::Uuid;

use crate::script::Script;

/// What the records of a script do.
pub mod op {
    /// A new connection sends Connect: entry, then data.
    pub const CONNECT: u8 = 0;
    /// A connection, by its place among those that live, sends a command: entry, then data.
    pub const COMMAND: u8 = 1;
    /// A connection ends.
    pub const DISCONNECT: u8 = 2;
    /// So many milliseconds pass.
    pub const WAIT: u8 = 3;
    /// Another configuration; the byte says which.
    pub const TARGETS: u8 = 4;
    /// A host is to be told of a reservation.
    pub const NOTICE: u8 = 5;
    /// An I/O command failed.
    pub const IO_ERROR: u8 = 6;
    /// The oldest action on a reservation ends.
    pub const RESERVED: u8 = 7;
}

const CNTLIDS: std::ops::RangeInclusive<u16> = 0x100..=0x10F;
const CONNECTIONS_MAX: u64 = 200;

struct Bench {
    hub: Hub,
    limits: Limits,
    now: Instant,
    made: u64,
    /// Live connections that have a queue, by kind.
    live: Vec<(ConnectionId, QueueKind)>,
    /// Commands that are not answered, with how much data they get.
    asked: BTreeMap<(ConnectionId, u16), (Transfer, bool)>,
    reserving: VecDeque<(ConnectionId, u16)>,
}

/// Any operation.
pub fn admin(data: &[u8]) {
    run(data, 7);
}

/// Connects, commands and disconnects only.
pub fn connect(data: &[u8]) {
    run(data, 3);
}

fn run(data: &[u8], operations: u8) {
    let mut bench = Bench::new();
    let mut script = Script::new(data);
    while !script.is_over() {
        let (operation, record) = script.record();
        bench.execute(operation & operations, Script::new(record));
        bench.take_effects();
        bench.check();
    }
}

impl Bench {
    fn new() -> Self {
        let limits = Limits { controllers_max: 12, io_queues_max: 4, ..Limits::default() };
        let config = HubConfig {
            limits: limits.clone(),
            cntlid_min: *CNTLIDS.start(),
            cntlid_max: *CNTLIDS.end(),
            model: "Ashlar".into(),
            firmware: "0.1.0".into(),
            first_session: 1000,
        };
        let now = Instant(1_000_000_000);
        let mut hub = Hub::new(config, now);
        hub.set_targets(Arc::new(targets(0)), now);
        Self {
            hub,
            limits,
            now,
            made: 0,
            live: Vec::new(),
            asked: BTreeMap::new(),
            reserving: VecDeque::new(),
        }
    }

    fn execute(&mut self, operation: u8, mut record: Script<'_>) {
        match operation {
            op::CONNECT => self.connect(&mut record),
            op::COMMAND => self.command(&mut record),
            op::DISCONNECT => {
                if let Some((connection, _)) = self.pick(record.byte()) {
                    self.forget(connection);
                    self.hub.disconnected(connection);
                }
            }
            op::WAIT => {
                self.now = self.now.plus(Duration::from_millis(u64::from(record.short())));
                if self.hub.next_deadline() <= self.now {
                    self.hub.tick(self.now);
                }
                assert!(self.hub.next_deadline() > self.now);
            }
            op::TARGETS => self.hub.set_targets(Arc::new(targets(record.byte())), self.now),
            op::NOTICE => {
                let kind = match record.byte() % 3 {
                    0 => NoticeKind::RegistrationPreempted,
                    1 => NoticeKind::ReservationReleased,
                    _ => NoticeKind::ReservationPreempted,
                };
                let volume = volume(record.byte() & 3).id;
                let notice = Notice { volume, host: HostId(record.array()), kind };
                self.hub.reservation_notices(&[notice], self.now);
            }
            op::IO_ERROR => {
                if let Some((connection, _)) = self.pick(record.byte()) {
                    let status = Status::from_field(record.short());
                    let (cid, sqid) = (record.short(), record.short());
                    let lba = u64::from_le_bytes(record.array());
                    let error = IoError { cid, status, lba, nsid: 1, sqid };
                    self.hub.io_error(connection, error, self.now);
                }
            }
            _ => {
                if let Some((connection, cid)) = self.reserving.pop_front() {
                    let report = Some(Box::new(ReservationReport::default()));
                    let done = Outcome::Reservation { report, notices: Box::new([]) };
                    let result = if record.byte() & 1 == 0 { Ok(done) } else { Err(Status::INTERNAL_ERROR) };
                    self.hub.reserved(connection, cid, result, self.now);
                }
            }
        }
    }

    fn pick(&self, choice: u8) -> Option<(ConnectionId, QueueKind)> {
        self.live.get(usize::from(choice) % self.live.len().max(1)).copied()
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.live.retain(|(live, _)| *live != connection);
        self.asked.retain(|(asker, _), _| *asker != connection);
    }

    fn connect(&mut self, record: &mut Script<'_>) {
        if self.made == CONNECTIONS_MAX {
            return;
        }
        self.made += 1;
        let connection = ConnectionId { reactor: ReactorId(0), number: self.made };
        let sqe: Sqe = zerocopy::transmute!(record.array::<64>());
        if !matches!(data_plan(&sqe, QueueKind::Unconnected, &self.limits), Ok(Transfer::FromHost(1024))) {
            return;
        }
        let data = record.array::<1024>();
        let local = ([192, 0, 2, 1], 4420).into();
        match self.hub.connect(connection, local, &sqe, &data, self.now) {
            Ok(granted) => {
                assert!(CNTLIDS.contains(&granted.cntlid) && granted.qid <= self.limits.io_queues_max);
                assert!((2..=self.limits.io_queue_entries_max).contains(&granted.queue_entries));
                assert_eq!(granted.dw0, u32::from(granted.cntlid));
                let kind = if granted.qid == 0 { QueueKind::Admin } else { QueueKind::Io };
                self.live.push((connection, kind));
            }
            Err(refused) => {
                assert!(!refused.status.is_success());
                assert!(matches!(refused.dw0, 0 | 42 | 44 | 0x1_0010 | 0x1_0100 | 0x1_0200), "{refused:?}");
            }
        }
    }

    fn command(&mut self, record: &mut Script<'_>) {
        let Some((connection, kind)) = self.pick(record.byte()) else { return };
        let sqe: Sqe = zerocopy::transmute!(record.array::<64>());
        let cid = sqe.cid.get();
        // The transport sees to both.
        if self.asked.contains_key(&(connection, cid)) || self.asked.len() > 128 {
            return;
        }
        if kind == QueueKind::Io && sqe.opcode != opcode::FABRICS {
            return;
        }
        let Ok(plan) = data_plan(&sqe, kind, &self.limits) else { return };
        let mut data = Vec::new();
        if let Transfer::FromHost(len) = plan {
            data.extend(record.bytes(len as usize));
            data.resize(len as usize, 0);
        }
        self.asked.insert((connection, cid), (plan, sqe.opcode == opcode::ASYNC_EVENT));
        self.hub.command(connection, &sqe, &data, self.now);
    }

    fn take_effects(&mut self) {
        while let Some(effect) = self.hub.poll_effect() {
            match effect {
                Effect::Complete { connection, cid, cqe, data } => {
                    // A reservation may end after its connection.
                    let Some((plan, _)) = self.asked.remove(&(connection, cid)) else {
                        panic!("an answer to {cid} of {connection:?}, which asked nothing");
                    };
                    assert_eq!(cqe.cid.get(), cid);
                    let succeeded = Status::from_field(cqe.status.get()).is_success();
                    let len = data.map_or(0, |data| data.len() as u32);
                    match plan {
                        Transfer::ToHost(planned) if succeeded => assert_eq!(len, planned),
                        _ => assert_eq!(len, 0),
                    }
                }
                Effect::Close { connection } => {
                    assert!(self.live.iter().any(|(live, _)| *live == connection), "closed twice");
                    self.forget(connection);
                }
                Effect::Reserve { connection, cid, .. } => self.reserving.push_back((connection, cid)),
            }
        }
    }

    fn check(&self) {
        let waits = |&(&(connection, cid), &(_, is_event)): &(&(ConnectionId, u16), &(Transfer, bool))| {
            !is_event && !self.reserving.contains(&(connection, cid))
        };
        let late: Vec<_> = self.asked.iter().filter(waits).collect();
        assert!(late.is_empty(), "no answer: {late:?}");
        let report = self.hub.report();
        assert!(report.len() <= usize::from(self.limits.controllers_max));
        let queues: usize = report.iter().map(|controller| 1 + usize::from(controller.io_queues)).sum();
        assert_eq!(queues, self.live.len());
    }
}

fn volume(number: u8) -> VolumeInfo {
    VolumeInfo {
        id: VolumeId(Uuid::from_u128(u128::from(number) + 1)),
        block_size: if number == 1 { BlockSize::B4096 } else { BlockSize::B512 },
        blocks: 1000,
        read_only: number == 2,
        volatile_cache: number == 0,
        thin: true,
        unmap_granularity_blocks: 16,
        preferred_write_blocks: 4,
        atomic_write_blocks: 8,
    }
}

/// A configuration: each bit of `choice` changes a thing.
fn targets(choice: u8) -> Targets {
    let bit = |n: u8| choice >> n & 1 != 0;
    let namespaces = (1..=if bit(0) { 3 } else { 2 })
        .map(|nsid| {
            let mut volume = volume(nsid as u8 - 1);
            volume.blocks += u64::from(bit(1)) * 1000;
            (nsid, Namespace { volume, ana_group: if bit(2) { 2 } else { 1 } })
        })
        .collect();
    let host = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001";
    let access = if bit(3) { Access::AnyHost } else { Access::Hosts(BTreeSet::from([host.to_owned()])) };
    let state = if bit(4) { AnaState::Inaccessible } else { AnaState::NonOptimized };
    let subsystem = Subsystem {
        serial: "SERIAL-1".into(),
        access,
        listen: BTreeSet::new(),
        namespaces,
        ana_groups: BTreeMap::from([(1, AnaState::Optimized), (2, state)]),
    };
    let mut subsystems = BTreeMap::new();
    if !bit(5) {
        subsystems.insert("nqn.2026-11.io.ashlar:one".to_owned(), subsystem);
    }
    let port = Port { id: 1, listen: ([0, 0, 0, 0], 4420).into(), advertise: None };
    let referrals = if bit(6) { vec![([192, 0, 2, 9], 4420).into()] } else { Vec::new() };
    Targets { subsystems, ports: vec![port], referrals }
}
