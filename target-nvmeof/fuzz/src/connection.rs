//! Whole connections: the server as a node runs it, from bytes to a volume, and hosts that send anything.
//!
//! The first byte says how it begins: bits 1:0 the digests; bits 3:2 what is there (nothing, an initialized
//! connection, an enabled admin queue, an I/O queue beside it); bit 4 that the disk's operations end by the script;
//! bit 5 that queues keep flow control. The second is the size of received pieces, 0 for whatever there is.
//!
//! Checked throughout: what the target says is well-formed, and no more than what was asked can have as an answer;
//! until a Connect succeeds a connection holds no more than 16 KiB; no task spins. Checked at the end: with all
//! hosts gone and the disk done, everything is given back, and another host is served.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::{BufMut, Clock, DiskError, Env, Volume};
use ashlar_nvmeof::hub::HubConfig;
use ashlar_nvmeof::limits::Limits;
use ashlar_nvmeof::server::Server;
use ashlar_nvmeof::server::message::Message;
use ashlar_nvmeof::transport::STAGING_BYTES_BEFORE_CONNECT;
use ashlar_nvmeof::view::{Access, AnaState, Namespace, Port, Subsystem, Targets};
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, io as opcode};
use ashlar_nvmeof::wire::{Sqe, Status};
use ashlar_volume::{NoStore, PassThrough, Reservations, Settings, scratch_pool};

use crate::bytes::{self, Digests, Identity};
use crate::disk::ScriptDisk;
use crate::output::{Output, Told};
use crate::script::Script;
use crate::world::{ADDRESS, Alone, Pipe, World};

/// What the records of a script do. The first byte of most chooses a connection.
pub mod op {
    /// Bytes arrive as they are.
    pub const RAW: u8 = 0;
    /// A capsule arrives: its entry, then its data; lengths and digests are made right.
    pub const CAPSULE: u8 = 1;
    /// H2CData arrives: command, tag, offset (32 bits), whether it is the last, and data.
    pub const DATA: u8 = 2;
    /// The oldest R2T is answered as it should be, with data of one byte.
    pub const ANSWER: u8 = 3;
    /// An operation of the disk ends; a byte says which and how.
    pub const COMPLETE: u8 = 4;
    /// So many milliseconds pass.
    pub const WAIT: u8 = 5;
    /// The host reads so many bytes; until its first such record it reads everything.
    pub const READ: u8 = 6;
    /// The host leaves: 0 by FIN, else by a reset.
    pub const LEAVE: u8 = 7;
    /// One more connection.
    pub const DIAL: u8 = 8;
    /// A buffer of a size (in units of 16 bytes) is taken away from the pool, or with 0 all are given back.
    pub const STARVE: u8 = 9;
}

/// The subsystem.
pub const SUBSYSTEM: &str = "nqn.2026-11.io.ashlar:one";
const DISK_BYTES: usize = 256 << 10;
const VOLUME: VolumeId = VolumeId(uuid::Uuid::from_u128(1));
const CONNECTIONS_MAX: usize = 12;
/// What one connection may hold before its Connect succeeds.
const BYTES_BEFORE_CONNECT: i64 = 16 << 10;
/// What the server itself grows by while connections come: lists of tasks and connections.
const BYTES_BESIDE: i64 = 16 << 10;
/// How long what hosts left behind may last.
const SETTLE: Duration = Duration::from_secs(60);

type TestVolume = PassThrough<World, ScriptDisk, NoStore>;
type TestServer = Server<World, TestVolume, Message<usize>, Alone>;

struct Host {
    pipe: Rc<Pipe>,
    digests: Digests,
    output: Output,
    /// R2Ts not answered: command, tag, bytes.
    asked: Vec<(u16, u16, u32)>,
    /// Commands that ended, in order.
    ended: Vec<(u16, Status, u32)>,
    sent_bytes: usize,
    said_bytes: usize,
}

struct Bench {
    world: World,
    disk: ScriptDisk,
    server: TestServer,
    hosts: Vec<Host>,
    held: Vec<BufMut>,
    digests: Digests,
    flow_control: bool,
    piece: usize,
    max_transfer_bytes: usize,
    /// Tasks of the target while there is no connection.
    tasks: usize,
    /// No controller was ever made.
    fresh: bool,
    /// What the server has taken since the first connection.
    grown_bytes: i64,
}

/// Runs one input.
///
/// # Panics
/// If the target breaks a rule.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let how = script.byte();
    let mut bench = Bench::new(how, usize::from(script.byte()));
    bench.begin(how >> 2 & 3);
    while !script.is_over() {
        let (operation, record) = script.record();
        bench.execute(operation, Script::new(record));
        bench.settle();
    }
    bench.end();
}

impl Bench {
    fn new(how: u8, piece: usize) -> Self {
        let world = World::new();
        let disk = ScriptDisk::new(DISK_BYTES, how & 16 != 0);
        let settings = Settings {
            id: VOLUME,
            block_size: BlockSize::B512,
            read_only: false,
            reservations: Reservations::default(),
            scratch: scratch_pool(),
        };
        let volume = PassThrough::new(world.clone(), disk.clone(), settings, NoStore).expect("a sound disk");
        let limits = Limits { controllers_max: 8, io_queues_max: 4, ..Limits::default() };
        let hub = HubConfig {
            limits: limits.clone(),
            cntlid_min: 1,
            cntlid_max: 100,
            model: "Ashlar".into(),
            firmware: "0.1.0".into(),
            first_session: 1,
        };
        let max_transfer_bytes = limits.max_transfer_bytes as usize;
        let server = TestServer::new(world.clone(), Alone, limits, Alone::HERE, Some(hub));
        server.set_targets(&Arc::new(targets(&volume)), |_| Some(volume.clone()));
        server.listen(ADDRESS).expect("there is nobody else");
        let mut bench = Self {
            world,
            disk,
            server,
            hosts: Vec::new(),
            held: Vec::new(),
            digests: Digests::of_field(how),
            flow_control: how & 32 != 0,
            piece,
            max_transfer_bytes,
            tasks: 0,
            fresh: true,
            grown_bytes: 0,
        };
        bench.world.settle();
        bench.tasks = bench.world.task_count();
        bench
    }

    /// What is there before the script.
    fn begin(&mut self, stage: u8) {
        self.dial();
        if stage >= 1 {
            self.initialize();
        }
        if stage >= 2 {
            let cntlid = self.admin_queue(&identity(1));
            if stage == 3 {
                self.dial();
                self.initialize();
                self.connect(&identity(1), 1, cntlid);
            }
        }
    }

    fn execute(&mut self, operation: u8, mut record: Script<'_>) {
        match operation % 10 {
            op::COMPLETE => return self.complete(record.byte()),
            op::WAIT => {
                let time = Duration::from_millis(u64::from(record.short()));
                return self.pass(time);
            }
            op::DIAL => return self.dial(),
            op::STARVE => {
                return match record.short() {
                    0 => self.held.clear(),
                    len => self.held.extend(self.world.buffers().try_alloc(usize::from(len) * 16)),
                };
            }
            _ => {}
        }
        let which = usize::from(record.byte()) % self.hosts.len();
        let host = &mut self.hosts[which];
        match operation % 10 {
            op::RAW => host.send(record.bytes(usize::MAX)),
            op::CAPSULE => {
                let sqe = zerocopy::transmute!(record.array::<64>());
                host.send(&bytes::capsule(host.digests, &sqe, record.bytes(usize::MAX)));
            }
            op::DATA => {
                let (cid, tag) = (record.short(), record.short());
                let (offset, last) = (u32::from_le_bytes(record.array()), record.byte() & 1 != 0);
                let data = record.bytes(usize::MAX);
                let data = if data.is_empty() { &[7; 512] } else { data };
                host.send(&bytes::h2c_data(host.digests, cid, tag, offset, data, last));
            }
            op::ANSWER => {
                if !host.asked.is_empty() {
                    let (cid, tag, len) = host.asked.remove(0);
                    let data = vec![record.byte(); len as usize];
                    host.send_data(cid, tag, &data);
                }
            }
            op::READ => {
                if host.pipe.window.get() == usize::MAX {
                    host.pipe.window.set(0);
                }
                host.pipe.open(usize::from(record.short()));
            }
            _ if record.byte() == 0 => host.pipe.finish(),
            _ => host.pipe.reset(),
        }
    }

    fn complete(&self, how: u8) {
        let verdict = match how & 7 {
            1 => Err(DiskError::Medium("as the script says".into())),
            2 => Err(DiskError::NoSpace),
            3 => Err(DiskError::Gone),
            _ => Ok(()),
        };
        self.disk.end_one(usize::from(how >> 3), verdict);
    }

    fn pass(&mut self, time: Duration) {
        let world = self.world.clone();
        let grown = allocation_counter::measure(|| world.pass(world.now().plus(time)));
        self.grown_bytes += grown.bytes_current;
    }

    /// Lets the server work, and looks at what it says.
    fn settle(&mut self) {
        self.pass(Duration::ZERO);
        for host in &mut self.hosts {
            host.hear();
            let commands = host.sent_bytes / 72 + 1;
            let answers = 128 + 152 + commands * (24 + 4) * 2;
            let data = if self.fresh { 0 } else { commands * (self.max_transfer_bytes + 132) };
            assert!(host.said_bytes <= answers + data, "{} bytes said", host.said_bytes);
        }
        self.fresh &= self.server.controllers().is_empty();
        if self.fresh {
            let connections = self.hosts.len() as i64;
            let most = connections * BYTES_BEFORE_CONNECT + BYTES_BESIDE;
            assert!(self.grown_bytes <= most, "{} bytes before Connect", self.grown_bytes);
            for host in &self.hosts {
                let room = host.pipe.room_max.get();
                assert!(room <= STAGING_BYTES_BEFORE_CONNECT, "{room} bytes of room");
            }
        }
    }

    fn dial(&mut self) {
        if self.hosts.len() < CONNECTIONS_MAX {
            let pipe = self.world.dial();
            pipe.piece.set(self.piece);
            self.hosts.push(Host::new(pipe));
        }
        self.settle();
    }

    fn last(&mut self) -> &mut Host {
        self.hosts.last_mut().expect("somebody dialled")
    }

    fn initialize(&mut self) {
        let digests = self.digests;
        self.last().send(&bytes::ic_req(digests));
        self.settle();
        assert_eq!(self.last().digests, digests);
    }

    /// A command of the last connection that must succeed. DW0.
    fn command(&mut self, sqe: &Sqe, data: &[u8]) -> u32 {
        let host = self.last();
        let inline = if sqe.sgl.identifier == SGL_IN_CAPSULE { data } else { &[] };
        host.send(&bytes::capsule(host.digests, sqe, inline));
        self.settle();
        if let Some((cid, tag, len)) = self.last().asked.pop() {
            assert_eq!(len as usize, data.len());
            self.last().send_data(cid, tag, data);
            self.settle();
        }
        let (cid, status, dw0) = *self.last().ended.last().expect("an answer");
        assert_eq!((cid, status), (sqe.cid.get(), Status::SUCCESS));
        dw0
    }

    fn connect(&mut self, who: &Identity, qid: u16, cntlid: u16) -> u16 {
        let mut sqe = bytes::connect(1, qid, 31, 0);
        if !self.flow_control {
            sqe.cdw11 = (sqe.cdw11.get() | 1 << 18).into();
        }
        self.command(&sqe, &bytes::connect_data(who, cntlid)) as u16
    }

    /// The last connection becomes an enabled admin queue.
    fn admin_queue(&mut self, who: &Identity) -> u16 {
        let cntlid = self.connect(who, 0, 0xFFFF);
        self.command(&bytes::property_set(2, 0x14, 0x46_0001), &[]);
        cntlid
    }

    /// Everybody goes; then all is as at the beginning, and somebody else is served.
    fn end(mut self) {
        self.held.clear();
        self.disk.release();
        for (at, host) in self.hosts.iter().enumerate() {
            if at % 2 == 0 {
                host.pipe.finish();
            } else {
                host.pipe.reset();
            }
        }
        self.pass(SETTLE);
        self.settle();
        assert_eq!((self.server.connections(), self.server.controllers().len()), (0, 0));
        assert!(self.hosts.iter().all(|host| host.pipe.is_over()));
        let fresh = World::new();
        assert_eq!(self.world.buffers().free_count(), fresh.buffers().free_count(), "buffers are lost");
        // The volume has one of its own once an operation had to wait.
        assert!(self.world.task_count() <= self.tasks + 1, "{} tasks are left", self.world.task_count());
        self.hosts.clear();
        self.piece = 0;
        self.dial();
        self.initialize();
        let cntlid = self.admin_queue(&identity(9));
        self.dial();
        self.initialize();
        self.connect(&identity(9), 1, cntlid);
        self.command(&bytes::io(opcode::READ, 3, 0, 64), &[]);
        self.world.close();
    }
}

impl Host {
    fn new(pipe: Rc<Pipe>) -> Self {
        Self {
            pipe,
            digests: Digests::NONE,
            output: Output::default(),
            asked: Vec::new(),
            ended: Vec::new(),
            sent_bytes: 0,
            said_bytes: 0,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.sent_bytes += bytes.len();
        self.pipe.send(bytes);
    }

    /// H2CData, as many PDUs as the largest allows.
    fn send_data(&mut self, cid: u16, tag: u16, data: &[u8]) {
        let mut at = 0;
        for part in data.chunks(128 << 10) {
            let last = at + part.len() == data.len();
            self.send(&bytes::h2c_data(self.digests, cid, tag, at as u32, part, last));
            at += part.len();
        }
    }

    fn hear(&mut self) {
        let bytes = self.pipe.take();
        self.said_bytes += bytes.len();
        self.output.push(&bytes);
        while let Some(told) = self.output.next_pdu() {
            match told {
                Told::Initialized => self.digests = self.output.digests(),
                Told::Done(cqe) => {
                    let status = Status::from_field(cqe.status.get());
                    self.ended.push((cqe.cid.get(), status, cqe.dw0.get()));
                }
                Told::Data { cid, success: true, .. } => self.ended.push((cid, Status::SUCCESS, 0)),
                Told::R2t { cid, tag, len } => self.asked.push((cid, tag, len)),
                Told::Data { .. } | Told::Terminated => {}
            }
        }
    }
}

/// The host with this number.
#[must_use]
pub fn identity(number: u8) -> Identity {
    Identity {
        host_id: [number; 16],
        host_nqn: format!("nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000{number:02x}"),
        subsystem: SUBSYSTEM.to_owned(),
    }
}

fn targets(volume: &TestVolume) -> Targets {
    let subsystem = Subsystem {
        serial: "SERIAL-1".into(),
        access: Access::AnyHost,
        listen: std::collections::BTreeSet::new(),
        namespaces: [(1, Namespace { volume: volume.info(), ana_group: 1 })].into(),
        ana_groups: [(1, AnaState::Optimized)].into(),
    };
    Targets {
        subsystems: [(SUBSYSTEM.to_owned(), subsystem)].into(),
        ports: vec![Port { id: 1, listen: ADDRESS, advertise: None }],
        referrals: Vec::new(),
    }
}
