//! Writes the corpora anew: `cargo run --example seeds` in this folder. Inputs that a fuzzer found are added to
//! them by hand, with a name that says what they showed.

mod connection;

use std::path::Path;
use std::{fs, io};

use ashlar_nvmeof::view::DISCOVERY_NQN;
use ashlar_nvmeof::wire::Sqe;
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, admin as opcode_admin, io as opcode};
use ashlar_nvmeof_fuzz::bytes::{self, Digests, Identity};
use ashlar_nvmeof_fuzz::hub;
use ashlar_nvmeof_fuzz::script::push;
use ashlar_nvmeof_fuzz::transport::op;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let all = [
        ("transport", transport()),
        ("io_command", io_command()),
        ("connect", connect()),
        ("admin", admin()),
        ("connection", connection::seeds()),
    ];
    for (target, seeds) in all {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

type Seeds = Vec<(String, Vec<u8>)>;

/// A host like any other.
fn identity() -> Identity {
    Identity {
        host_id: *b"0123456789abcdef",
        host_nqn: "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001".into(),
        subsystem: "nqn.2026-11.io.ashlar:one".into(),
    }
}

fn capsule(sqe: &Sqe, data: &[u8]) -> Vec<u8> {
    [sqe.as_bytes(), data].concat()
}

fn h2c_data(cid: u16, tag: u16, offset: u32, last: bool, data: &[u8]) -> Vec<u8> {
    let head = [cid.to_le_bytes(), tag.to_le_bytes()].concat();
    [&head, &offset.to_le_bytes()[..], &[u8::from(last)], data].concat()
}

fn transport() -> Seeds {
    let mut seeds = Seeds::new();
    for digest in 0..4 {
        for (name, step) in [("whole", 0), ("bytes", 1), ("pieces", 77)] {
            let mut script = vec![digest | 0x60, step];
            reads_and_writes(&mut script);
            seeds.push((format!("queue-{name}-{digest}"), script));
        }
        let digests = Digests::of_field(digest);
        let mut script = vec![digest | 4, 0];
        let connect = bytes::connect(0, 0, 31, 5000);
        push(&mut script, op::RAW, &bytes::ic_req(digests));
        push(&mut script, op::CAPSULE, &capsule(&connect, &bytes::connect_data(&identity(), 0xFFFF)));
        push(&mut script, op::COMPLETE, &[1]);
        seeds.push((format!("connect-refused-{digest}"), script.clone()));
        push(&mut script, op::RAW, &bytes::ic_req(digests));
        seeds.push((format!("second-icreq-{digest}"), script));
    }
    seeds.push(("silence".into(), [&[4, 0][..], &record(op::WAIT, &20_000u16.to_le_bytes())].concat()));
    let mut starved = vec![0x60, 0];
    for _ in 0..8 {
        push(&mut starved, op::STARVE, &1u16.to_le_bytes());
    }
    reads_and_writes(&mut starved);
    push(&mut starved, op::STARVE, &[0, 0]);
    push(&mut starved, op::READ, &[0xFF, 0xFF]);
    seeds.push(("starved".into(), starved));
    let mut unread = vec![0x60, 0];
    push(&mut unread, op::READ, &[0, 0]);
    for cid in 0..80 {
        push(&mut unread, op::CAPSULE, &capsule(&bytes::io(opcode::READ, cid, 0, 128), &[]));
        push(&mut unread, op::COMPLETE, &[0]);
    }
    push(&mut unread, op::READ, &[0xFF, 0x0F]);
    push(&mut unread, op::WAIT, &31_000u16.to_le_bytes());
    seeds.push(("unread".into(), unread));
    seeds
}

fn record(operation: u8, bytes: &[u8]) -> Vec<u8> {
    let mut script = Vec::new();
    push(&mut script, operation, bytes);
    script
}

/// A write in the capsule, a write by R2T in two PDUs, a read, and a pair that shares an identifier.
fn reads_and_writes(script: &mut Vec<u8>) {
    let mut write = bytes::io(opcode::WRITE, 1, 8, 1);
    write.sgl.identifier = SGL_IN_CAPSULE;
    push(script, op::CAPSULE, &capsule(&write, &[0xA5; 512]));
    push(script, op::COMPLETE, &[0]);
    push(script, op::CAPSULE, &capsule(&bytes::io(opcode::WRITE, 2, 8, 2), &[]));
    // Slots are given from the last: 2 << 3 entries.
    for slot in [15, 14] {
        push(script, op::DATA, &h2c_data(2, slot, 0, false, &[0x5A; 512]));
        push(script, op::DATA, &h2c_data(2, slot, 512, true, &[0x5A; 512]));
    }
    push(script, op::CAPSULE, &capsule(&bytes::io(opcode::READ, 3, 8, 2), &[]));
    push(script, op::CAPSULE, &capsule(&bytes::io(opcode::READ, 3, 8, 2), &[]));
    push(script, op::COMPLETE, &[0]);
    push(script, op::COMPLETE, &[1]);
    push(script, op::CAPSULE, &capsule(&bytes::sqe(opcode::FLUSH, 4, 0), &[]));
    push(script, op::COMPLETE, &[0]);
}

fn connect_record(sqe: &Sqe, data: &[u8]) -> Vec<u8> {
    record(hub::op::CONNECT, &[sqe.as_bytes(), data].concat())
}

fn connect() -> Seeds {
    let host = identity();
    let stranger = Identity { host_nqn: "nqn.2014-08.org.nvmexpress:uuid:stranger".into(), ..identity() };
    let lost = Identity { subsystem: "nqn.2026-11.io.ashlar:none".into(), ..identity() };
    let discovery = Identity { subsystem: DISCOVERY_NQN.into(), ..identity() };
    let one = |identity: &Identity, qid, sqsize, cntlid| {
        connect_record(&bytes::connect(1, qid, sqsize, 5000), &bytes::connect_data(identity, cntlid))
    };
    let admin = one(&host, 0, 31, 0xFFFF);
    // The first controller of a run has the smallest number.
    let queue = one(&host, 1, 127, 0x100);
    let seeds = [
        ("admin", vec![admin.clone()]),
        ("discovery", vec![one(&discovery, 0, 31, 0xFFFF), one(&discovery, 1, 31, 0x100)]),
        ("refused", vec![one(&stranger, 0, 31, 0xFFFF), one(&lost, 0, 31, 0xFFFF)]),
        ("sizes", vec![one(&host, 0, 0, 0xFFFF), one(&host, 0, 0xFFFF, 0xFFFF), one(&host, 0, 31, 5)]),
        ("queue-before-ready", vec![admin.clone(), queue.clone()]),
        ("queues", vec![admin, enable(), queue.clone(), queue, one(&host, 65535, 127, 0x100)]),
    ];
    seeds.into_iter().map(|(name, records)| (name.to_owned(), records.concat())).collect()
}

/// CC.EN = 1 on the first connection.
fn enable() -> Vec<u8> {
    command(&bytes::property_set(2, 0x14, 0x46_0001), &[])
}

fn command(sqe: &Sqe, data: &[u8]) -> Vec<u8> {
    record(hub::op::COMMAND, &[&[0], sqe.as_bytes(), data].concat())
}

fn admin() -> Seeds {
    let sqe = |opcode, len, cdw10: u32, cdw11: u32| {
        let mut sqe = bytes::sqe(opcode, 7, len);
        (sqe.cdw10, sqe.cdw11) = (U32::new(cdw10), U32::new(cdw11));
        sqe.nsid = U32::new(1);
        sqe
    };
    let log = |page: u32, len: u32| sqe(opcode_admin::GET_LOG_PAGE, len, page | (len / 4 - 1) << 16, 0);
    let mut seeds = Seeds::new();
    for (kind, subsystem) in [("io", identity().subsystem), ("discovery", DISCOVERY_NQN.to_owned())] {
        let identity = Identity { subsystem, ..identity() };
        let mut one = |name: &str, records: &[Vec<u8>]| {
            let data = bytes::connect_data(&identity, 0xFFFF);
            let start = [connect_record(&bytes::connect(1, 0, 31, 5000), &data), enable()].concat();
            seeds.push((format!("{kind}-{name}"), [start, records.concat()].concat()));
        };
        one("properties", &[0, 8, 0x14, 0x1C].map(|at| command(&bytes::property_get(1, at, at == 0), &[])));
        let cns = [0, 1, 2, 3, 5, 6, 8, 0x10, 0x11, 0x1C];
        one("identify", &cns.map(|cns| command(&sqe(opcode_admin::IDENTIFY, 4096, cns, 0), &[])));
        let pages = [0, 1, 2, 3, 4, 5, 0xC, 0x70, 0x80];
        one("logs", &pages.map(|page| command(&log(page, 1024), &[])));
        let features = [1, 2, 4, 5, 6, 7, 0xA, 0xB, 0xF, 0x82, 0x83];
        one("get", &features.map(|of| command(&sqe(opcode_admin::GET_FEATURES, 0, of, 0), &[])));
        one("set", &features.map(|of| command(&sqe(opcode_admin::SET_FEATURES, 0, of, 3), &[])));
        one(
            "set-data",
            &[(0xE, 8), (0x16, 512), (0x81, 8)]
                .map(|(of, len)| command(&sqe(opcode_admin::SET_FEATURES, len, of, 0), &[1; 512])),
        );
        let aer = command(&sqe(opcode_admin::ASYNC_EVENT, 0, 0, 0), &[]);
        let change = record(hub::op::TARGETS, &[3]);
        one("events", &[aer.clone(), aer.clone(), change.clone(), command(&log(4, 4096), &[])]);
        one("events-many", &[aer.clone(), aer.clone(), aer.clone(), aer.clone(), aer, change]);
        one("abort", &[command(&sqe(opcode_admin::ABORT, 0, 0x7_0001, 0), &[])]);
        let keep_alive = command(&sqe(opcode_admin::KEEP_ALIVE, 0, 0, 0), &[]);
        let wait = record(hub::op::WAIT, &6000u16.to_le_bytes());
        one("keep-alive", &[wait.clone(), keep_alive, wait.clone(), wait.clone(), wait]);
        one("disable", &[command(&bytes::property_set(2, 0x14, 0), &[]), enable()]);
        one("shutdown", &[command(&bytes::property_set(2, 0x14, 0x46_4001), &[])]);
    }
    seeds
}

fn io_command() -> Seeds {
    let mut seeds = Seeds::new();
    let mut one = |name: &str, records: &[(Sqe, &[u8])]| {
        for volume in 0..4 {
            let mut script = vec![volume];
            for (sqe, data) in records {
                push(&mut script, 0, &capsule(sqe, data));
            }
            seeds.push((format!("{name}-{volume}"), script));
        }
    };
    one("read", &[(bytes::io(opcode::READ, 1, 0, 8), &[])]);
    one("write", &[(bytes::io(opcode::WRITE, 1, 2040, 8), &[1; 64])]);
    one("zeroes", &[(bytes::io(opcode::WRITE_ZEROES, 1, 1, 2000), &[])]);
    let mut unmap = bytes::sqe(opcode::DATASET_MANAGEMENT, 1, 32);
    (unmap.cdw10, unmap.cdw11) = (U32::new(1), U32::new(4));
    let ranges = [[0u32, 8, 16, 0], [0, 1, 2047, 0]].concat();
    let ranges: Vec<u8> = ranges.iter().flat_map(|word| word.to_le_bytes()).collect();
    one("unmap", &[(unmap, &ranges)]);
    let mut copy = bytes::io(opcode::COPY, 1, 100, 1);
    copy.sgl.length = U32::new(32);
    let mut range = [0; 32];
    (range[8], range[16]) = (5, 7);
    one("copy", &[(copy, &range)]);
    let mut compare = bytes::io(opcode::COMPARE, 1, 8, 1);
    compare.flags |= 1;
    let mut write = bytes::io(opcode::WRITE, 2, 8, 1);
    write.flags |= 2;
    one("fused", &[(compare, &[1]), (write, &[1])]);
    one("fused-failed", &[(compare, &[1]), (write, &[0])]);
    one("fused-orphans", &[(compare, &[2]), (compare, &[2]), (compare, &[2]), (write, &[2]), (write, &[2])]);
    let mut register = bytes::sqe(opcode::RESERVATION_REGISTER, 1, 16);
    register.cdw10 = U32::new(3 << 30);
    let mut acquire = bytes::sqe(opcode::RESERVATION_ACQUIRE, 2, 16);
    acquire.cdw10 = U32::new(0x101);
    let mut report = bytes::sqe(opcode::RESERVATION_REPORT, 3, 256);
    (report.cdw10, report.cdw11) = (U32::new(63), U32::new(1));
    one("reserve", &[(register, &[7; 16]), (acquire, &[7; 16]), (report, &[])]);
    seeds
}
