//! Parsing and building of what passes for every command.

use std::hint::black_box;

use ashlar_nvmeof::wire::pdu::{CapsuleCmd, CapsuleResp, Header, kind};
use ashlar_nvmeof::wire::{Cqe, Status};
use ashlar_perf::client::Digests;
use ashlar_perf::client::io;
use ashlar_perf::client::raw::capsule;
use criterion::{Criterion, criterion_group, criterion_main};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

fn wire(c: &mut Criterion) {
    let read = capsule(io::read(1, 12_345, 8), &[], Digests::NONE);
    c.bench_function("wire/parse a command capsule", |b| {
        b.iter(|| {
            let (capsule, _) = CapsuleCmd::ref_from_prefix(black_box(&read)).unwrap();
            let sqe = &capsule.sqe;
            let valid = capsule.header.kind == kind::CAPSULE_CMD
                && capsule.header.hlen == 72
                && capsule.header.plen.get() == 72
                && sqe.psdt() == 1;
            (valid, sqe.opcode, sqe.fuse(), sqe.cdw10_11(), sqe.cdw12.get(), sqe.sgl.length.get())
        });
    });
    let header = Header { kind: kind::CAPSULE_RESP, flags: 0, hlen: 24, pdo: 0, plen: U32::new(24) };
    c.bench_function("wire/build a response capsule", |b| {
        b.iter(|| {
            let cqe = Cqe::new(black_box(9), Status::SUCCESS, 0, 0);
            let mut bytes = [0; 24];
            bytes.copy_from_slice(CapsuleResp { header, cqe }.as_bytes());
            bytes
        });
    });
}

criterion_group!(benches, wire);
criterion_main!(benches);
