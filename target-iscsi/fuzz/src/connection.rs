//! Whole connections: the server as a node runs it, from bytes to a volume, and initiators that send anything.
//!
//! The first byte says how it begins: bits 1:0 the digests of a session that is logged in before the script, bit 2 that
//! there is none, bit 3 that the disk's operations end by the script. The second is the size of received pieces, 0 for
//! whatever there is.
//!
//! Checked throughout: what the target says is well-formed, StatSN and data lengths included, and not more than what was asked can
//! have as an answer; until a login succeeds a connection holds no more than 48 KiB; no task spins. Checked at the end:
//! with all initiators gone and the disk done, everything is given back, and another one is served.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ashlar_env::buf::MAX_BYTES;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::{BufMut, Clock, DiskError, Env, Volume};
use ashlar_iscsi::limits::Limits;
use ashlar_iscsi::scsi::Shared;
use ashlar_iscsi::server::Server;
use ashlar_iscsi::server::message::Message;
use ashlar_iscsi::view::{Access, AluaState, Portal, Target, Targets, Unit};
use ashlar_iscsi::wire::bhs::{FINAL, opcode};
use ashlar_iscsi::wire::request::{DataOut, Login, ScsiCommand};
use ashlar_iscsi::wire::response::{R2t, ScsiResponse};
use ashlar_volume::{NoStore, PassThrough, Reservations, Settings, scratch_pool};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::bytes::{self, Digests, Received};
use crate::disk::ScriptDisk;
use crate::script::Script;
use crate::world::{ADDRESS, Alone, Pipe, World};

/// What the records of a script do. The first byte of most chooses a connection.
pub mod op {
    /// Bytes arrive as they are.
    pub const RAW: u8 = 0;
    /// A PDU arrives: its header of 48 bytes, then its data; lengths and digests are made right, and CmdSN where bit 7
    /// of the byte before the header says so.
    pub const PDU: u8 = 1;
    /// The oldest R2T is answered as it should be, with data of one byte.
    pub const ANSWER: u8 = 2;
    /// An operation of the disk ends; a byte says which and how.
    pub const COMPLETE: u8 = 3;
    /// So many milliseconds pass.
    pub const WAIT: u8 = 4;
    /// The initiator reads so many bytes; until its first such record it reads everything.
    pub const READ: u8 = 5;
    /// The initiator leaves: 0 by FIN, else by a reset.
    pub const LEAVE: u8 = 6;
    /// One more connection; logs in unless the byte is 0.
    pub const DIAL: u8 = 7;
    /// A buffer of a size (in units of 16 bytes) is taken away from the pool, or with 0 all are given back.
    pub const STARVE: u8 = 8;
}

/// The target.
pub const TARGET: &str = "iqn.2026-11.io.ashlar:one";
const VOLUME: VolumeId = VolumeId(uuid::Uuid::from_u128(1));
const DISK_BYTES: usize = 256 << 10;
const CONNECTIONS_MAX: usize = 10;
/// What one connection may hold before its login succeeds.
const BYTES_BEFORE_LOGIN: i64 = 48 << 10;
/// What the server itself grows by while connections come.
const BYTES_BESIDE: i64 = 32 << 10;
/// Data of a PDU that is no Data-In, at most.
const PLAIN_DATA_BYTES_MAX: usize = 8192;
/// How long what initiators left behind may last.
const SETTLE: Duration = Duration::from_secs(120);

type TestVolume = PassThrough<World, ScriptDisk, NoStore>;
type TestServer = Server<World, TestVolume, Message<usize>, Alone>;

struct Host {
    pipe: Rc<Pipe>,
    digests: Digests,
    said: Vec<u8>,
    /// R2Ts not answered: task, tag, offset, bytes.
    asked: Vec<(u32, u32, u32, u32)>,
    /// The last status: initiator task tag and SCSI status.
    ended: Option<(u32, u8)>,
    stat_sn: Option<u32>,
    cmd_sn: u32,
    sent_pdus: usize,
    said_bytes: usize,
}

struct Bench {
    world: World,
    disk: ScriptDisk,
    server: TestServer,
    hosts: Vec<Host>,
    held: Vec<BufMut>,
    digests: Digests,
    piece: usize,
    /// Tasks of the target while there is no connection.
    tasks: usize,
    /// Nobody ever logged in.
    fresh: bool,
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
    bench.dial();
    if how & 4 == 0 {
        bench.log_in(1);
    }
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
        let disk = ScriptDisk::new(DISK_BYTES, how & 8 != 0);
        let settings = Settings {
            id: VOLUME,
            block_size: BlockSize::B512,
            read_only: false,
            reservations: Reservations::default(),
            scratch: scratch_pool(),
        };
        let volume = PassThrough::new(world.clone(), disk.clone(), settings, NoStore).expect("a sound disk");
        let limits = Limits { sessions_max: 8, queue_depth: 16, ..Limits::default() };
        let server =
            TestServer::new(world.clone(), Alone, limits, Alone::HERE, Arc::new(Shared::default()), 1);
        server.set_targets(&Arc::new(targets(&volume)), |_| Some(volume.clone()));
        server.listen(ADDRESS).expect("there is nobody else");
        let digests = Digests { header: how & 1 != 0, data: how & 2 != 0 };
        let mut bench = Self {
            world,
            disk,
            server,
            hosts: Vec::new(),
            held: Vec::new(),
            digests,
            piece,
            tasks: 0,
            fresh: true,
            grown_bytes: 0,
        };
        bench.world.settle();
        bench.tasks = bench.world.task_count();
        bench
    }

    fn execute(&mut self, operation: u8, mut record: Script<'_>) {
        match operation % 9 {
            op::COMPLETE => return self.complete(record.byte()),
            op::WAIT => {
                let time = Duration::from_millis(u64::from(record.short()));
                return self.pass(time);
            }
            op::DIAL => {
                if self.hosts.len() < CONNECTIONS_MAX {
                    self.dial();
                    if record.byte() != 0 {
                        let session = self.hosts.len() as u8;
                        let host = self.hosts.last_mut().expect("just dialled");
                        host.send_login(session, self.digests);
                    }
                }
                return;
            }
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
        match operation % 9 {
            op::RAW => host.send(record.bytes(usize::MAX)),
            op::PDU => {
                let numbered = record.byte() & 0x80 != 0;
                let mut header = record.array::<48>();
                if numbered {
                    header[24..28].copy_from_slice(&host.cmd_sn.to_be_bytes());
                    let immediate = header[0] & opcode::IMMEDIATE != 0;
                    host.cmd_sn = host.cmd_sn.wrapping_add(u32::from(!immediate));
                }
                let data = record.bytes(usize::MAX);
                host.send(&bytes::pdu(host.digests, &header, data));
            }
            op::ANSWER => host.answer(record.byte()),
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
        }
        self.fresh &= self.server.sessions().is_empty();
        if self.fresh {
            let most = self.hosts.len() as i64 * BYTES_BEFORE_LOGIN + BYTES_BESIDE;
            assert!(self.grown_bytes <= most, "{} bytes before login", self.grown_bytes);
        }
    }

    fn dial(&mut self) {
        let pipe = self.world.dial();
        pipe.piece.set(self.piece);
        self.hosts.push(Host::new(pipe));
        self.settle();
    }

    /// The last connection logs in, which must succeed.
    fn log_in(&mut self, session: u8) {
        let digests = self.digests;
        self.hosts.last_mut().expect("somebody dialled").send_login(session, digests);
        self.settle();
        let host = self.hosts.last().expect("somebody dialled");
        assert_eq!(host.digests, digests, "the login has not succeeded");
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
            // Who is gone takes what is left in the socket nowhere.
            host.pipe.open(usize::MAX / 2);
        }
        self.pass(SETTLE);
        self.settle();
        assert_eq!((self.server.connections(), self.server.sessions().len()), (0, 0));
        assert!(self.hosts.iter().all(|host| host.pipe.is_over()));
        let fresh = World::new();
        assert_eq!(self.world.buffers().free_count(), fresh.buffers().free_count(), "buffers are lost");
        assert!(self.world.task_count() <= self.tasks + 2, "{} tasks are left", self.world.task_count());
        self.hosts.clear();
        self.piece = 0;
        self.dial();
        self.log_in(200);
        for tag in 1..=2 {
            self.hosts[0].read(tag);
            self.settle();
        }
        // The first one hears that the nexus is new; the second may meet what the script reserved.
        let (tag, status) = self.hosts[0].ended.expect("an answer");
        assert_eq!(tag, 2);
        assert!([0, 0x18].contains(&status), "status {status:#x}");
        self.world.close();
    }
}

fn targets(volume: &TestVolume) -> Targets {
    let unit = Unit { volume: volume.info(), name: "one".into(), port_group: 1 };
    let target = Target {
        name: TARGET.into(),
        alias: "one".into(),
        access: Access::AnyHost,
        listen: Default::default(),
        units: [(1, unit)].into(),
        port_groups: [(1, AluaState::Optimized)].into(),
    };
    Targets {
        targets: [(TARGET.to_owned(), target)].into(),
        portals: vec![Portal { tag: 1, listen: ADDRESS, advertise: None }],
    }
}

impl Host {
    fn new(pipe: Rc<Pipe>) -> Self {
        Self {
            pipe,
            digests: Digests::default(),
            said: Vec::new(),
            asked: Vec::new(),
            ended: None,
            stat_sn: None,
            cmd_sn: 1,
            sent_pdus: 0,
            said_bytes: 0,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.sent_pdus += bytes.len() / 48 + 1;
        self.pipe.send(bytes);
    }

    fn send_login(&mut self, session: u8, digests: Digests) {
        let digest = |on| if on { "CRC32C" } else { "None" };
        let keys = format!(
            "InitiatorName=iqn.2026-11.io.ashlar:host TargetName={TARGET} HeaderDigest={} DataDigest={} \
             MaxRecvDataSegmentLength=65536",
            digest(digests.header),
            digest(digests.data)
        );
        let mut header = Login::new_zeroed();
        (header.opcode, header.flags, header.cid) = (0x43, 0x87, U16::new(1));
        header.isid = [0x80, 0, 0, 0, 0, session];
        header.cmd_sn = U32::new(self.cmd_sn);
        let login = bytes::pdu(Digests::default(), &header, &bytes::text(&keys));
        self.send(&login);
    }

    fn read(&mut self, tag: u32) {
        let mut header = ScsiCommand::new_zeroed();
        (header.opcode, header.flags) = (opcode::SCSI_COMMAND, FINAL | ScsiCommand::READ | 1);
        (header.lun, header.itt) = (U64::new(1 << 48), U32::new(tag));
        (header.expected_bytes, header.cmd_sn) = (U32::new(512), U32::new(self.cmd_sn));
        (header.cdb[0], header.cdb[8]) = (0x28, 1);
        self.cmd_sn += 1;
        self.send(&bytes::pdu(self.digests, &header, &[]));
    }

    fn answer(&mut self, byte: u8) {
        if self.asked.is_empty() {
            return;
        }
        let (task, tag, offset, len) = self.asked.remove(0);
        let mut header = DataOut::new_zeroed();
        (header.opcode, header.flags) = (opcode::DATA_OUT, FINAL);
        (header.itt, header.ttt, header.offset) = (U32::new(task), U32::new(tag), U32::new(offset));
        let data = vec![byte; (len as usize).min(MAX_BYTES)];
        self.send(&bytes::pdu(self.digests, &header, &data));
    }

    /// Takes what the target has said.
    fn hear(&mut self) {
        let heard = self.pipe.take();
        self.said_bytes += heard.len();
        self.said.extend(heard);
        // A login is answered with text, a command with data that its initiator said it can take.
        let most = 1024 + self.sent_pdus * (PLAIN_DATA_BYTES_MAX + 1024) + self.sent_pdus * DISK_BYTES * 2;
        assert!(self.said_bytes <= most, "{} bytes said", self.said_bytes);
        while let Some(received) = bytes::take(self.digests, &mut self.said) {
            self.check(&received);
        }
    }

    fn check(&mut self, received: &Received) {
        let kind = received.bhs.kind();
        if kind == opcode::DATA_IN {
            assert!(received.data.len() <= 65536);
        } else {
            assert!(
                received.data.len() <= PLAIN_DATA_BYTES_MAX,
                "{} bytes with {kind:#x}",
                received.data.len()
            );
        }
        let bytes = received.bhs.as_bytes();
        let counts = match kind {
            opcode::SCSI_RESPONSE => {
                let response: ScsiResponse = received.header();
                self.ended = Some((response.itt.get(), response.status));
                true
            }
            opcode::DATA_IN => {
                let status = bytes[1] & 1 != 0;
                if status {
                    self.ended = Some((received.bhs.itt.get(), bytes[3]));
                }
                status
            }
            opcode::R2T => {
                let r2t: R2t = received.header();
                assert!(r2t.wanted_bytes.get() > 0, "an R2T for nothing");
                self.asked.push((r2t.itt.get(), r2t.ttt.get(), r2t.offset.get(), r2t.wanted_bytes.get()));
                false
            }
            opcode::LOGIN_RESPONSE => {
                let text = received.text();
                let last = bytes[1] & FINAL != 0 && bytes[1] & 3 == 3 && bytes[36] == 0;
                if last {
                    self.digests = Digests {
                        header: text.contains("HeaderDigest=CRC32C"),
                        data: text.contains("DataDigest=CRC32C"),
                    };
                }
                true
            }
            // A NOP-In that asks carries the next number and uses none.
            opcode::NOP_IN => received.bhs.itt.get() != u32::MAX,
            opcode::TASK_MANAGEMENT_RESPONSE
            | opcode::TEXT_RESPONSE
            | opcode::LOGOUT_RESPONSE
            | opcode::ASYNC
            | opcode::REJECT => true,
            other => panic!("opcode {other:#x} from a target"),
        };
        if counts {
            let number = u32::from_be_bytes(bytes[24..28].try_into().expect("four bytes"));
            let expected = self.stat_sn.map(|last| last.wrapping_add(1));
            // A login that is refused may begin anywhere.
            let refused = kind == opcode::LOGIN_RESPONSE && bytes[36] != 0;
            assert!(refused || expected.is_none_or(|expected| expected == number), "StatSN {number}");
            self.stat_sn = Some(number);
        }
    }
}
