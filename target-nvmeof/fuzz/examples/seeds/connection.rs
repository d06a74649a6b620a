//! Whole exchanges: what hosts do from the first byte to the last, and where it goes wrong.

use ashlar_nvmeof::view::DISCOVERY_NQN;
use ashlar_nvmeof::wire::Sqe;
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, admin, io as opcode};
use ashlar_nvmeof_fuzz::bytes::{self, Digests, Identity};
use ashlar_nvmeof_fuzz::connection::{identity, op};
use ashlar_nvmeof_fuzz::script::push;
use zerocopy::IntoBytes;

use super::Seeds;

/// What is there at the beginning.
const NOTHING: u8 = 0;
const ADMIN: u8 = 2 << 2;
const QUEUE: u8 = 3 << 2;
/// The disk's operations end by the script.
const HELD: u8 = 16;
const FLOW_CONTROL: u8 = 32;

/// A script under way.
struct Exchange(Vec<u8>);

impl Exchange {
    fn new(how: u8, piece: u8) -> Self {
        Self(vec![how, piece])
    }

    fn record(&mut self, operation: u8, bytes: &[u8]) -> &mut Self {
        push(&mut self.0, operation, bytes);
        self
    }

    fn raw(&mut self, which: u8, bytes: &[u8]) -> &mut Self {
        self.record(op::RAW, &[&[which], bytes].concat())
    }

    fn command(&mut self, which: u8, sqe: &Sqe, data: &[u8]) -> &mut Self {
        self.record(op::CAPSULE, &[&[which], sqe.as_bytes(), data].concat())
    }

    fn answer(&mut self, which: u8, byte: u8) -> &mut Self {
        self.record(op::ANSWER, &[which, byte])
    }

    fn wait(&mut self, ms: u16) -> &mut Self {
        self.record(op::WAIT, &ms.to_le_bytes())
    }
}

/// The connection with the I/O queue; the admin queue is 0.
const IO: u8 = 1;

pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    let mut keep = |name: String, exchange: Exchange| seeds.push((name, exchange.0));
    for digest in 0..4 {
        for piece in [0, 1, 50] {
            keep(format!("discovery-{digest}-{piece}"), discovery(digest, piece));
            keep(format!("queue-{digest}-{piece}"), queue(QUEUE | digest, piece));
        }
    }
    keep("admin".into(), administration());
    keep("queue-held".into(), queue(QUEUE | HELD | FLOW_CONTROL, 0));
    keep("reservations".into(), reservations());
    keep("unread".into(), unread());
    keep("starved".into(), starved());
    keep("left-amid-data".into(), left_amid_data());
    keep("terminated".into(), terminated());
    keep("silent".into(), silent());
    keep("reset-by-cc".into(), reset());
    keep("crowd".into(), crowd());
    seeds
}

/// A discovery session as bytes alone.
fn discovery(digest: u8, piece: u8) -> Exchange {
    let digests = Digests::of_field(digest);
    let mut exchange = Exchange::new(NOTHING | digest, piece);
    let who = Identity { subsystem: DISCOVERY_NQN.into(), ..identity(1) };
    let mut connect = bytes::connect(0, 0, 31, 5000);
    connect.cdw11 = (31 | 1 << 18).into();
    let mut log = bytes::sqe(admin::GET_LOG_PAGE, 4, 1024);
    log.cdw10 = (0x70 | 255 << 16).into();
    let mut identify = bytes::sqe(admin::IDENTIFY, 5, 4096);
    identify.cdw10 = 1.into();
    exchange.raw(0, &bytes::ic_req(digests));
    exchange.raw(0, &bytes::capsule(digests, &connect, &bytes::connect_data(&who, 0xFFFF)));
    for sqe in [
        bytes::property_get(1, 0, true),
        bytes::property_set(2, 0x14, 0x46_0001),
        bytes::property_get(3, 0x1C, false),
        identify,
        log,
        bytes::sqe(admin::KEEP_ALIVE, 6, 0),
        bytes::sqe(admin::ASYNC_EVENT, 7, 0),
        bytes::property_set(8, 0x14, 0x46_4001),
    ] {
        exchange.raw(0, &bytes::capsule(digests, &sqe, &[]));
    }
    exchange.record(op::LEAVE, &[0, 0]);
    exchange
}

fn inline(op: u8, cid: u16, lba: u64, blocks: u32) -> Sqe {
    let mut sqe = bytes::io(op, cid, lba, blocks);
    sqe.sgl.identifier = SGL_IN_CAPSULE;
    sqe
}

fn list(op: u8, cid: u16, len: u32) -> Sqe {
    let mut sqe = bytes::sqe(op, cid, len);
    (sqe.sgl.identifier, sqe.nsid) = (SGL_IN_CAPSULE, 1.into());
    sqe
}

/// One command of each kind.
fn queue(how: u8, piece: u8) -> Exchange {
    let mut exchange = Exchange::new(how, piece);
    exchange.command(IO, &inline(opcode::WRITE, 1, 0, 8), &[0xA5; 4096]);
    exchange.command(IO, &bytes::io(opcode::WRITE, 2, 8, 64), &[]).answer(IO, 0x5A);
    exchange.command(IO, &bytes::io(opcode::READ, 3, 0, 64), &[]);
    exchange.command(IO, &inline(opcode::COMPARE, 4, 0, 1), &[0xA5; 512]);
    let (mut first, mut second) = (inline(opcode::COMPARE, 5, 0, 1), inline(opcode::WRITE, 6, 0, 1));
    (first.flags, second.flags) = (first.flags | 1, second.flags | 2);
    exchange.command(IO, &first, &[0xA5; 512]).command(IO, &second, &[1; 512]);
    let mut flush = bytes::sqe(opcode::FLUSH, 7, 0);
    flush.nsid = 1.into();
    exchange.command(IO, &flush, &[]);
    exchange.command(IO, &bytes::io(opcode::WRITE_ZEROES, 8, 4, 20), &[]);
    exchange.command(IO, &bytes::io(opcode::VERIFY, 9, 0, 100), &[]);
    let mut unmap = list(opcode::DATASET_MANAGEMENT, 10, 32);
    (unmap.cdw10, unmap.cdw11) = (1.into(), 4.into());
    let range = |first: u64, blocks: u32| [&[0; 4], &blocks.to_le_bytes()[..], &first.to_le_bytes()].concat();
    exchange.command(IO, &unmap, &[range(0, 8), range(17, 9)].concat());
    let mut copy = list(opcode::COPY, 11, 32);
    copy.cdw10 = 40.into();
    exchange.command(IO, &copy, &[&[0; 8], &8u64.to_le_bytes()[..], &7u16.to_le_bytes(), &[0; 14]].concat());
    for ended in 0..24 {
        exchange.record(op::COMPLETE, &[(ended % 3) << 3]);
    }
    exchange
}

fn administration() -> Exchange {
    let mut exchange = Exchange::new(ADMIN, 0);
    for cns in [0, 1, 2, 3] {
        let mut sqe = bytes::sqe(admin::IDENTIFY, 10, 4096);
        (sqe.cdw10, sqe.nsid) = (cns.into(), u32::from(cns != 1 && cns != 2).into());
        exchange.command(0, &sqe, &[]);
    }
    for page in [1_u32, 2, 3, 4, 5, 0xC] {
        let mut sqe = bytes::sqe(admin::GET_LOG_PAGE, 11, 512);
        sqe.cdw10 = (page | 127 << 16).into();
        exchange.command(0, &sqe, &[]);
    }
    let mut queues = bytes::sqe(admin::SET_FEATURES, 12, 0);
    (queues.cdw10, queues.cdw11) = (7.into(), 0x1_0001.into());
    exchange.command(0, &queues, &[]);
    let mut behavior = bytes::sqe(admin::SET_FEATURES, 13, 512);
    behavior.cdw10 = 0x16.into();
    exchange.command(0, &behavior, &[]).answer(0, 1);
    exchange.command(0, &bytes::sqe(admin::ASYNC_EVENT, 14, 0), &[]);
    exchange.command(0, &bytes::sqe(admin::ABORT, 15, 0), &[]);
    exchange
}

fn reservations() -> Exchange {
    let mut exchange = Exchange::new(QUEUE, 0);
    exchange.command(IO, &list(opcode::RESERVATION_REGISTER, 1, 16), &[[0; 8], [7; 8]].concat());
    let mut acquire = list(opcode::RESERVATION_ACQUIRE, 2, 16);
    acquire.cdw10 = 0x100.into();
    exchange.command(IO, &acquire, &[[7; 8], [0; 8]].concat());
    let mut report = bytes::sqe(opcode::RESERVATION_REPORT, 3, 256);
    (report.nsid, report.cdw10, report.cdw11) = (1.into(), 63.into(), 1.into());
    exchange.command(IO, &report, &[]);
    let mut release = list(opcode::RESERVATION_RELEASE, 4, 8);
    release.cdw10 = 0x100.into();
    exchange.command(IO, &release, &[7; 8]);
    exchange
}

/// Reads of every buffer there is, which the host does not take; then it takes some, and leaves.
fn unread() -> Exchange {
    let mut exchange = Exchange::new(QUEUE, 0);
    exchange.record(op::READ, &[IO, 0, 0]);
    for cid in 0..20 {
        exchange.command(IO, &bytes::io(opcode::READ, cid, 0, 256), &[]);
    }
    exchange.record(op::READ, &[IO, 0xFF, 0xFF]).wait(1000);
    exchange.record(op::LEAVE, &[IO, 1]);
    exchange
}

fn starved() -> Exchange {
    let mut exchange = Exchange::new(QUEUE, 0);
    for _ in 0..60 {
        exchange.record(op::STARVE, &1u16.to_le_bytes());
    }
    exchange.command(IO, &inline(opcode::WRITE, 1, 0, 8), &[0xA5; 4096]);
    exchange.command(IO, &bytes::io(opcode::WRITE, 2, 8, 64), &[]);
    exchange.command(IO, &bytes::io(opcode::READ, 3, 0, 64), &[]);
    exchange.record(op::STARVE, &[0, 0]).wait(1).answer(IO, 9);
    exchange
}

/// Half the data of an R2T while another write is at the disk.
fn left_amid_data() -> Exchange {
    let mut exchange = Exchange::new(QUEUE | HELD, 0);
    exchange.command(IO, &bytes::io(opcode::WRITE, 1, 0, 64), &[]).answer(IO, 1);
    exchange.command(IO, &bytes::io(opcode::WRITE, 2, 0, 64), &[]);
    let data = bytes::h2c_data(Digests::NONE, 2, 30, 0, &[3; 512], false);
    exchange.raw(IO, &data[..300]);
    exchange.record(op::LEAVE, &[IO, 1]).record(op::COMPLETE, &[1]).wait(100);
    exchange
}

/// A terminate request while reads are at the disk.
fn terminated() -> Exchange {
    let mut exchange = Exchange::new(QUEUE | HELD, 0);
    for cid in 0..4 {
        exchange.command(IO, &bytes::io(opcode::READ, cid, 0, 64), &[]);
    }
    exchange.record(op::DATA, &[IO, 9, 0, 9, 0, 0, 0, 0, 0, 1]);
    exchange.record(op::COMPLETE, &[0]).wait(6000).raw(IO, &[4, 0, 72, 0]);
    exchange
}

/// Nothing comes: of an ICReq, of a Connect, of keep-alives.
fn silent() -> Exchange {
    let mut exchange = Exchange::new(ADMIN, 0);
    exchange.record(op::DIAL, &[]).record(op::DIAL, &[]);
    exchange.raw(1, &bytes::ic_req(Digests::BOTH)).raw(2, &bytes::ic_req(Digests::BOTH)[..100]);
    let mut keep_alive = bytes::sqe(admin::SET_FEATURES, 3, 0);
    (keep_alive.cdw10, keep_alive.cdw11) = (0xF.into(), 1000.into());
    exchange.command(0, &keep_alive, &[]);
    exchange.wait(900).command(0, &bytes::sqe(admin::KEEP_ALIVE, 4, 0), &[]).wait(12_000);
    exchange
}

/// CC.EN = 0 while commands are under way, then again 1.
fn reset() -> Exchange {
    let mut exchange = Exchange::new(QUEUE | HELD, 0);
    exchange.command(IO, &inline(opcode::WRITE, 1, 0, 8), &[0xA5; 4096]);
    exchange.command(IO, &bytes::io(opcode::WRITE, 2, 8, 64), &[]);
    exchange.command(0, &bytes::property_set(3, 0x14, 0), &[]);
    exchange.record(op::COMPLETE, &[0]);
    exchange.command(0, &bytes::property_set(4, 0x14, 0x46_0001), &[]);
    exchange.record(op::DIAL, &[]).raw(2, &bytes::ic_req(Digests::NONE));
    let connect = bytes::connect(5, 1, 31, 0);
    exchange.command(2, &connect, &bytes::connect_data(&identity(1), 1));
    exchange.command(2, &bytes::io(opcode::READ, 6, 0, 8), &[]);
    exchange
}

/// Many connections that never finish Connect.
fn crowd() -> Exchange {
    let mut exchange = Exchange::new(NOTHING, 0);
    let capsule = bytes::capsule(Digests::NONE, &bytes::connect(1, 0, 31, 0), &[0; 8192]);
    for which in 1..8 {
        exchange.record(op::DIAL, &[]).raw(which, &bytes::ic_req(Digests::NONE));
        exchange.raw(which, &capsule[..capsule.len() - usize::from(which)]);
    }
    exchange
}
