//! An initiator made of bytes, and a device that reads patterns and keeps what is written.

#[path = "../../../tests/common/bytes.rs"]
pub mod bytes;

use std::collections::{BTreeMap, BTreeSet};

use ashlar_env::buf::PoolPlan;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::super::*;
use crate::scsi::Status;
use crate::view::{Access, Portal, Target};
use crate::wire::bhs::FINAL;
use crate::wire::request::{DataOut, Login, Logout, NopOut, ScsiCommand, TaskManagement, Text};
use crate::wire::response::{DataIn, LoginResponse, ScsiResponse};
use crate::wire::{NO_TAG, opcode};
use bytes::{Digests, Received};

pub const TARGET: &str = "iqn.2026-11.io.ashlar:t";

struct Fixed;

impl Rng for Fixed {
    fn random_u64(&self) -> u64 {
        7
    }
}

/// The first `len` bytes of what the device holds.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

pub fn targets(count: usize) -> Arc<Targets> {
    let target = |name: String| Target {
        name,
        alias: String::new(),
        access: Access::AnyHost,
        listen: BTreeSet::new(),
        units: BTreeMap::new(),
        port_groups: BTreeMap::new(),
    };
    let mut all = BTreeMap::from([(TARGET.to_owned(), target(TARGET.to_owned()))]);
    all.extend((1..count).map(|n| (format!("{TARGET}{n}"), target(format!("{TARGET}{n}")))));
    let portal = |tag, port| Portal { tag, listen: ([0, 0, 0, 0], port).into(), advertise: None };
    Arc::new(Targets { targets: all, portals: vec![portal(1, 3260), portal(2, 3261)] })
}

pub struct Host {
    pub session: Session,
    pub pool: BufPool,
    pub now: Instant,
    pub digests: Digests,
    pub cmd_sn: u32,
    /// Bytes fed at once.
    pub step: usize,
    incoming: Vec<u8>,
    /// What commands wrote.
    pub written: Vec<Vec<u8>>,
    /// Commands are kept running rather than finished.
    pub manual: bool,
    pub running: Vec<TaskId>,
    pub quiet: Vec<u64>,
    pub closed: Option<Closed>,
    stat_sn: Option<u32>,
}

impl Host {
    pub const BUFFERS: usize = 24;

    pub fn new(targets: Arc<Targets>) -> Self {
        Self::over(targets, [8, 8, 4, 2, 2])
    }

    /// A session over a pool of these buffers.
    pub fn with_pool(keys: &str, limits: [usize; 5]) -> Self {
        let mut host = Self::over(targets(1), limits);
        host.log_in(Digests::default(), &format!("TargetName={TARGET} {keys}"));
        host
    }

    fn over(targets: Arc<Targets>, limits: [usize; 5]) -> Self {
        let pool = BufPool::on_heap(PoolPlan { limits });
        let now = Instant(1);
        let local = ([10, 0, 0, 1], 3260).into();
        let session = Session::new(&Limits::default(), targets, local, pool.clone(), &Fixed, now);
        Self {
            session,
            pool,
            now,
            digests: Digests::default(),
            cmd_sn: 100,
            step: 1 << 20,
            incoming: Vec::new(),
            written: Vec::new(),
            manual: false,
            running: Vec::new(),
            quiet: Vec::new(),
            closed: None,
            stat_sn: None,
        }
    }

    pub fn logged_in(digests: Digests, keys: &str) -> Self {
        let mut host = Self::new(targets(1));
        host.log_in(digests, &format!("TargetName={TARGET} {keys}"));
        host
    }

    pub fn discovery(targets: Arc<Targets>) -> Self {
        let mut host = Self::new(targets);
        host.log_in(Digests::default(), "SessionType=Discovery");
        host
    }

    fn log_in(&mut self, digests: Digests, keys: &str) {
        let digest = |on| if on { "CRC32C" } else { "None" };
        let keys = format!(
            "InitiatorName=iqn.host HeaderDigest={} DataDigest={} {keys}",
            digest(digests.header),
            digest(digests.data)
        );
        self.send_login(0x87, &keys);
        let received = self.take(opcode::LOGIN_RESPONSE);
        let response: LoginResponse = received.header();
        assert_eq!((response.status.get(), response.flags, response.tsih.get()), (0, 0x87, 5));
        self.digests = digests;
    }

    pub fn login_header(&self, flags: u8) -> Login {
        let mut header = Login::new_zeroed();
        (header.opcode, header.flags, header.isid) = (0x43, flags, [0, 2, 3, 0, 0, 1]);
        (header.itt, header.cid, header.cmd_sn) = (U32::new(1), U16::new(3), U32::new(self.cmd_sn));
        header
    }

    pub fn send_login(&mut self, flags: u8, keys: &str) {
        let header = self.login_header(flags);
        self.send(&header, &bytes::text(keys));
    }

    pub fn send(&mut self, header: &(impl IntoBytes + Immutable), data: &[u8]) {
        self.feed(&bytes::pdu(self.digests, header, data));
    }

    /// Gives the session bytes, and does what it asks for.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut taken = 0;
            for mut slice in self.session.recv_slices() {
                let n = slice.len().min(self.step - taken).min(bytes.len() - taken);
                slice[..n].copy_from_slice(&bytes[taken..taken + n]);
                taken += n;
            }
            if taken == 0 {
                return;
            }
            self.session.received(taken, self.now);
            bytes = &bytes[taken..];
            self.work();
        }
    }

    /// Deals with events.
    pub fn work(&mut self) {
        while let Some(event) = self.session.next_event(self.now) {
            match event {
                Event::LoggedIn(_) => self.session.establish(5, self.now),
                Event::Command(id) => {
                    let wanted = self.session.request(id).cdb.head;
                    let writes = wanted[0] == 1;
                    let wanted = u32::from_be_bytes(wanted[2..6].try_into().unwrap());
                    let wanted = if writes { wanted } else { 0 };
                    if matches!(self.session.admit(id, wanted, self.now), Admission::Ready) {
                        self.ready(id, Data::None);
                    }
                }
                Event::Data(id, data) => self.ready(id, data),
                Event::Manage(what) => {
                    let complete = crate::wire::response::TmfStatus::Complete;
                    self.session.finish_management(what.tag, complete, self.now);
                }
                Event::Quiet(job) => self.quiet.push(job),
                Event::Closed(why) => self.closed = Some(why),
            }
        }
    }

    fn ready(&mut self, id: TaskId, data: Data) {
        let writes = self.session.request(id).cdb.head[0] == 1;
        if writes {
            self.written.push(data.gather_bytes());
        }
        self.session.begin(id);
        self.running.push(id);
        if !self.manual {
            self.finish_all();
        }
    }

    pub fn finish_all(&mut self) {
        for id in std::mem::take(&mut self.running) {
            let cdb = self.session.request(id).cdb.head;
            let len = u32::from_be_bytes(cdb[2..6].try_into().unwrap()) as usize;
            let data = if cdb[0] == 1 || len == 0 {
                Data::None
            } else {
                // In two pieces, to be put together.
                let bytes = pattern(len);
                let (a, b) = bytes.split_at(len / 3);
                Data::Many(vec![ashlar_env::Buf::from_heap(a.into()), ashlar_env::Buf::from_heap(b.into())])
            };
            self.session.complete(id, Answer { status: Status::Good, sense: None, data }, self.now);
        }
        self.work();
    }

    /// All that the session has sent and nobody has taken yet.
    pub fn sent(&mut self) {
        while self.session.has_output() {
            let mut slices = [std::io::IoSlice::new(&[]); SEND_SLICES_MAX];
            let count = self.session.send_slices(&mut slices);
            let mut left = self.step.max(500);
            let before = self.incoming.len();
            for slice in &slices[..count] {
                let n = slice.len().min(left);
                self.incoming.extend(&slice[..n]);
                left -= n;
            }
            self.session.sent(self.incoming.len() - before, self.now);
        }
        self.work();
    }

    pub fn try_take(&mut self) -> Option<Received> {
        self.sent();
        let received = bytes::take(self.digests, &mut self.incoming)?;
        self.check_numbers(&received);
        Some(received)
    }

    /// StatSN goes up by one with each status, and with nothing else.
    fn check_numbers(&mut self, received: &Received) {
        let kind = received.bhs.kind();
        let number = u32::from_be_bytes(received.bhs.rest[4..8].try_into().unwrap());
        let ping = kind == opcode::NOP_IN && received.bhs.itt.get() == NO_TAG;
        let counts = match kind {
            opcode::R2T => false,
            opcode::DATA_IN => received.bhs.flags & DataIn::STATUS != 0,
            _ => !ping,
        };
        if kind != opcode::DATA_IN || counts {
            let expected = *self.stat_sn.get_or_insert(number);
            assert_eq!(number, expected, "{received:?}");
        }
        if counts {
            self.stat_sn = self.stat_sn.map(|number| number.wrapping_add(1));
        }
    }

    #[track_caller]
    pub fn take(&mut self, kind: u8) -> Received {
        let received = self.try_take().unwrap_or_else(|| panic!("a PDU {kind:#x}"));
        assert_eq!(received.bhs.kind(), kind, "{received:?}");
        received
    }

    #[track_caller]
    pub fn expect_good(&mut self, tag: u32) {
        let received = self.take(opcode::SCSI_RESPONSE);
        let response: ScsiResponse = received.header();
        let flags = (response.flags, response.residual.get());
        assert_eq!((response.itt.get(), response.status, flags), (tag, 0, (FINAL, 0)));
    }

    pub fn command_header(&mut self, tag: u32, flags: u8, expected: u32, needed: u32) -> ScsiCommand {
        let mut header = ScsiCommand::new_zeroed();
        (header.opcode, header.flags) = (opcode::SCSI_COMMAND, FINAL | flags | 1);
        (header.lun, header.itt, header.expected_bytes) =
            (U64::new(1 << 48), U32::new(tag), U32::new(expected));
        header.cmd_sn = U32::new(self.cmd_sn);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        header.cdb[0] = u8::from(flags & ScsiCommand::WRITE != 0);
        header.cdb[2..6].copy_from_slice(&needed.to_be_bytes());
        header
    }

    pub fn command(&mut self, tag: u32, flags: u8, expected: u32, needed: u32) {
        let header = self.command_header(tag, flags, expected, needed);
        self.send(&header, &[]);
    }

    pub fn write(&mut self, tag: u32, len: u32, immediate: &[u8], all: bool) {
        self.write_wanting(tag, len, len, immediate, all);
    }

    pub fn write_wanting(&mut self, tag: u32, len: u32, wanted: u32, immediate: &[u8], all: bool) {
        let mut header = self.command_header(tag, ScsiCommand::WRITE, len, wanted);
        if !all {
            header.flags &= !FINAL;
        }
        self.send(&header, immediate);
    }

    pub fn data_out(&mut self, tag: u32, ttt: u32, number: u32, offset: u32, data: &[u8], last: bool) {
        let mut header = DataOut::new_zeroed();
        (header.opcode, header.flags) = (opcode::DATA_OUT, if last { FINAL } else { 0 });
        (header.itt, header.ttt) = (U32::new(tag), U32::new(ttt));
        (header.data_sn, header.offset) = (U32::new(number), U32::new(offset));
        self.send(&header, data);
    }

    pub fn read(&mut self, tag: u32, expected: u32, needed: u32) -> Vec<u8> {
        self.command(tag, ScsiCommand::READ, expected, needed);
        let mut data = Vec::new();
        loop {
            let received = self.take(opcode::DATA_IN);
            data.extend(&received.data);
            if received.bhs.flags & DataIn::STATUS != 0 {
                return data;
            }
        }
    }

    /// A task management function, for immediate delivery.
    pub fn manage(&mut self, tag: u32, function: u8, referenced: u32) {
        let mut header = TaskManagement::new_zeroed();
        (header.opcode, header.function) = (opcode::TASK_MANAGEMENT | opcode::IMMEDIATE, FINAL | function);
        (header.lun, header.itt, header.referenced_tag) =
            (U64::new(1 << 48), U32::new(tag), U32::new(referenced));
        (header.cmd_sn, header.referenced_cmd_sn) = (U32::new(self.cmd_sn), U32::new(self.cmd_sn - 1));
        self.send(&header, &[]);
    }

    pub fn log_out(&mut self, tag: u32, reason: u8, cid: u16) {
        let mut header = Logout::new_zeroed();
        (header.opcode, header.reason) = (opcode::LOGOUT | opcode::IMMEDIATE, FINAL | reason);
        (header.itt, header.cid, header.cmd_sn) = (U32::new(tag), U16::new(cid), U32::new(self.cmd_sn));
        self.send(&header, &[]);
    }

    pub fn nop_header(&self, tag: u32) -> NopOut {
        let mut header = NopOut::new_zeroed();
        (header.opcode, header.flags) = (opcode::NOP_OUT | opcode::IMMEDIATE, FINAL);
        (header.itt, header.ttt, header.cmd_sn) = (U32::new(tag), U32::new(NO_TAG), U32::new(self.cmd_sn));
        header
    }

    pub fn answer_ping(&mut self, ttt: u32) {
        let mut header = self.nop_header(NO_TAG);
        header.ttt = U32::new(ttt);
        self.send(&header, &[]);
    }

    pub fn text(&mut self, tag: u32, ttt: u32, flags: u8, text: &[u8]) {
        let mut header = Text::new_zeroed();
        (header.opcode, header.flags) = (opcode::TEXT | opcode::IMMEDIATE, flags);
        (header.itt, header.ttt, header.cmd_sn) = (U32::new(tag), U32::new(ttt), U32::new(self.cmd_sn));
        self.send(&header, text);
    }

    /// Hands over what the session waits for.
    pub fn give_buffers(&mut self) {
        while let Some(len) = self.session.wants_buffer() {
            let buf = self.pool.try_alloc(len).expect("the pool has buffers again");
            self.session.give_buffer(buf, self.now);
            self.work();
        }
    }
}

impl Data {
    fn gather_bytes(&self) -> Vec<u8> {
        self.pieces().flat_map(|piece| piece.to_vec()).collect()
    }
}
