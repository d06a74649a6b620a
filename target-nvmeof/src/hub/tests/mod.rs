//! Tests of the hub: a bench with one subsystem and a few hosts, driven by commands as they lie in capsules.

mod connect;
mod discovery;
mod events;
mod features;
mod identify;
mod keep_alive;
mod log_pages;
mod plan;
mod property;
mod random;
mod reservation;

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ashlar_env::ReactorId;
use ashlar_env::clock::Instant;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::volume::VolumeInfo;
use uuid::Uuid;

use crate::limits::Limits;
use crate::view::{Access, AnaState, DISCOVERY_NQN, Namespace, Port, Subsystem, Targets};
use crate::wire::sqe::{Sgl, admin, fabrics};
use crate::wire::{Cqe, Sqe, Status};

use super::{ConnectionId, Effect, Granted, Hub, HubConfig, Refused};

pub const SUBSYSTEM: &str = "nqn.2026-11.io.ashlar:demo";
pub const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:host-1";
pub const OTHER_HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:host-2";
pub const HOST_ID: [u8; 16] = [0xA1; 16];
pub const CC_ENABLE: u32 = 0x0046_0001;

pub fn volume(number: u128) -> VolumeInfo {
    VolumeInfo {
        id: VolumeId(Uuid::from_u128(number)),
        block_size: BlockSize::B4096,
        blocks: 1000,
        read_only: false,
        volatile_cache: false,
        thin: true,
        unmap_granularity_blocks: 16,
        preferred_write_blocks: 4,
        atomic_write_blocks: 8,
    }
}

pub fn targets() -> Targets {
    let namespaces = (1..=3).map(|nsid| (nsid, namespace(nsid, 1 + nsid % 2))).collect();
    let subsystem = Subsystem {
        serial: "SERIAL-1".into(),
        access: Access::Hosts(BTreeSet::from([HOST.to_owned(), OTHER_HOST.to_owned()])),
        listen: BTreeSet::new(),
        namespaces,
        ana_groups: BTreeMap::from([(1, AnaState::Optimized), (2, AnaState::NonOptimized)]),
    };
    Targets {
        subsystems: BTreeMap::from([(SUBSYSTEM.to_owned(), subsystem)]),
        ports: vec![Port { id: 7, listen: address("0.0.0.0:4420"), advertise: None }],
        referrals: Vec::new(),
    }
}

pub fn namespace(nsid: u32, ana_group: u32) -> Namespace {
    Namespace { volume: volume(u128::from(nsid) << 64 | 0xABCD), ana_group }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn local() -> SocketAddr {
    address("192.0.2.1:4420")
}

/// A completion as a host sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    pub connection: ConnectionId,
    pub cid: u16,
    pub status: Status,
    pub dw0: u32,
    pub dw1: u32,
    pub data: Option<Box<[u8]>>,
}

impl Done {
    pub fn of(connection: ConnectionId, cqe: &Cqe, data: Option<Box<[u8]>>) -> Self {
        Self {
            connection,
            cid: cqe.cid.get(),
            status: Status::from_field(cqe.status.get()),
            dw0: cqe.dw0.get(),
            dw1: cqe.dw1.get(),
            data,
        }
    }
}

pub struct Bench {
    pub hub: Hub,
    pub now: Instant,
    connections: u64,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(Limits::default(), targets())
    }

    pub fn with(limits: Limits, targets: Targets) -> Self {
        let config = HubConfig {
            limits,
            cntlid_min: 0x100,
            cntlid_max: 0x1FF,
            model: "Ashlar".into(),
            firmware: "0.1.0".into(),
            first_session: 1000,
        };
        let now = Instant(1_000_000_000);
        let mut hub = Hub::new(config, now);
        hub.set_targets(Arc::new(targets), now);
        Self { hub, now, connections: 0 }
    }

    pub fn connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId { reactor: ReactorId(0), number: self.connections }
    }

    pub fn connect(&mut self, wish: &Wish) -> Result<(ConnectionId, Arc<Granted>), Refused> {
        let connection = self.connection();
        let granted = self.hub.connect(connection, local(), &wish.sqe(), &wish.data(), self.now)?;
        Ok((connection, granted))
    }

    /// A controller of `host` that is enabled.
    pub fn enabled(&mut self, wish: &Wish) -> (ConnectionId, Arc<Granted>) {
        let (connection, granted) = self.connect(wish).unwrap();
        let done = self.run(connection, &property_set(0x14, 0, u64::from(CC_ENABLE)));
        assert_eq!(done.status, Status::SUCCESS);
        assert!(granted.shared.is_ready());
        (connection, granted)
    }

    /// Sends a command without data and takes its completion, which must be the only effect.
    pub fn run(&mut self, connection: ConnectionId, sqe: &Sqe) -> Done {
        self.run_with(connection, sqe, &[])
    }

    pub fn run_with(&mut self, connection: ConnectionId, sqe: &Sqe, data: &[u8]) -> Done {
        self.hub.command(connection, sqe, data, self.now);
        let done = self.completion().expect("a completion");
        assert_eq!((done.connection, done.cid), (connection, sqe.cid.get()));
        done
    }

    pub fn completion(&mut self) -> Option<Done> {
        match self.hub.poll_effect()? {
            Effect::Complete { connection, cid, cqe, data } => {
                assert_eq!(cid, cqe.cid.get());
                Some(Done::of(connection, &cqe, data))
            }
            other => panic!("expected a completion: {other:?}"),
        }
    }

    pub fn closed(&mut self) -> Vec<ConnectionId> {
        let mut closed = Vec::new();
        while let Some(effect) = self.hub.poll_effect() {
            match effect {
                Effect::Close { connection } => closed.push(connection),
                other => panic!("expected closes only: {other:?}"),
            }
        }
        closed.sort();
        closed
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    pub fn change(&mut self, edit: impl FnOnce(&mut Targets)) {
        let mut targets = Targets::clone(&self.hub.targets);
        edit(&mut targets);
        self.hub.set_targets(Arc::new(targets), self.now);
    }

    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.hub.disconnected(connection);
    }
}

/// What a Connect asks for; the fields a test does not name are sound.
#[derive(Clone)]
pub struct Wish {
    pub record_format: u16,
    pub qid: u16,
    pub queue_size: u16,
    pub attributes: u8,
    pub keep_alive_ms: u32,
    pub host_id: [u8; 16],
    pub cntlid: u16,
    pub subsystem: Vec<u8>,
    pub host: Vec<u8>,
}

impl Wish {
    pub fn admin() -> Self {
        Self {
            record_format: 0,
            qid: 0,
            queue_size: 31,
            attributes: 0,
            keep_alive_ms: 0,
            host_id: HOST_ID,
            cntlid: 0xFFFF,
            subsystem: SUBSYSTEM.into(),
            host: HOST.into(),
        }
    }

    pub fn discovery() -> Self {
        Self { subsystem: DISCOVERY_NQN.into(), ..Self::admin() }
    }

    pub fn io(cntlid: u16, qid: u16) -> Self {
        Self { qid, cntlid, queue_size: 127, ..Self::admin() }
    }

    pub fn sqe(&self) -> Sqe {
        let mut raw = [0; 64];
        raw[0] = admin::FABRICS;
        raw[1] = 0x40;
        raw[2] = 9;
        raw[4] = fabrics::CONNECT;
        raw[32..36].copy_from_slice(&1024_u32.to_le_bytes());
        raw[39] = 0x01;
        raw[40..42].copy_from_slice(&self.record_format.to_le_bytes());
        raw[42..44].copy_from_slice(&self.qid.to_le_bytes());
        raw[44..46].copy_from_slice(&self.queue_size.to_le_bytes());
        raw[46] = self.attributes;
        raw[48..52].copy_from_slice(&self.keep_alive_ms.to_le_bytes());
        zerocopy::transmute!(raw)
    }

    pub fn data(&self) -> Vec<u8> {
        let mut data = vec![0; 1024];
        data[..16].copy_from_slice(&self.host_id);
        data[16..18].copy_from_slice(&self.cntlid.to_le_bytes());
        data[256..][..self.subsystem.len()].copy_from_slice(&self.subsystem);
        data[512..][..self.host.len()].copy_from_slice(&self.host);
        data
    }
}

fn command(opcode: u8, length: u32) -> Sqe {
    Sqe {
        opcode,
        flags: 0x40,
        cid: 77.into(),
        sgl: Sgl { address: 0.into(), length: length.into(), reserved: [0; 3], identifier: 0x5A },
        ..Sqe::zeroed()
    }
}

/// A Property Set of `value` with ATTRIB `attribute`.
pub fn property_set(offset: u32, attribute: u8, value: u64) -> Sqe {
    Sqe {
        nsid: u32::from(fabrics::PROPERTY_SET).into(),
        cdw10: u32::from(attribute).into(),
        cdw11: offset.into(),
        cdw12: (value as u32).into(),
        cdw13: ((value >> 32) as u32).into(),
        ..command(admin::FABRICS, 0)
    }
}

pub fn property_get(offset: u32, attribute: u8) -> Sqe {
    Sqe { nsid: u32::from(fabrics::PROPERTY_GET).into(), ..property_set(offset, attribute, 0) }
}

pub fn identify(cns: u8, nsid: u32) -> Sqe {
    Sqe { nsid: nsid.into(), cdw10: u32::from(cns).into(), ..command(admin::IDENTIFY, 4096) }
}

pub fn admin_command(opcode: u8) -> Sqe {
    command(opcode, 0)
}

/// An Asynchronous Event Request.
pub fn event_request(cid: u16) -> Sqe {
    Sqe { cid: cid.into(), ..command(admin::ASYNC_EVENT, 0) }
}

/// A Get Log Page of `bytes` bytes.
pub fn log(lid: u8, offset: u64, bytes: u32) -> Sqe {
    let numd = bytes / 4 - 1;
    Sqe {
        cdw10: (u32::from(lid) | numd << 16).into(),
        cdw11: (numd >> 16).into(),
        cdw12: (offset as u32).into(),
        cdw13: ((offset >> 32) as u32).into(),
        ..command(admin::GET_LOG_PAGE, bytes)
    }
}

/// The same with RAE set.
pub fn log_retain(lid: u8, offset: u64, bytes: u32) -> Sqe {
    let log = log(lid, offset, bytes);
    Sqe { cdw10: (log.cdw10.get() | 1 << 15).into(), ..log }
}

pub fn get_feature(fid: u8, select: u32, bytes: u32) -> Sqe {
    Sqe { cdw10: (u32::from(fid) | select << 8).into(), ..command(admin::GET_FEATURES, bytes) }
}

pub fn set_feature(fid: u8, value: u32, bytes: u32) -> Sqe {
    Sqe { cdw10: u32::from(fid).into(), cdw11: value.into(), ..command(admin::SET_FEATURES, bytes) }
}
