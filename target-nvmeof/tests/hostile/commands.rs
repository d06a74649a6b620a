//! Commands that no controller may obey: N15 to N17, N20 to N22, N26 to N28, N32 and N33.

use ashlar_nvmeof::wire::Sqe;
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, admin, io as opcode};

use crate::bytes;
use crate::rows::Expect::{S, T};
use crate::rows::Given::{Admin, Disabled, Discovery, Io};
use crate::rows::{Ctx, Row, row};

fn capsule(c: &Ctx, sqe: &Sqe) -> Vec<u8> {
    bytes::capsule(c.digests, sqe, &[])
}

fn log(c: &Ctx, page: u32, dwords: u64, offset: u64) -> Vec<u8> {
    let mut sqe = bytes::sqe(admin::GET_LOG_PAGE, c.cid, (dwords * 4) as u32);
    let numd = dwords - 1;
    sqe.cdw10 = (page | (numd as u32) << 16).into();
    sqe.cdw11 = ((numd >> 16) as u32).into();
    (sqe.cdw12, sqe.cdw13) = ((offset as u32).into(), ((offset >> 32) as u32).into());
    capsule(c, &sqe)
}

fn identify(c: &Ctx, cns: u32, csi: u32, nsid: u32) -> Vec<u8> {
    let mut sqe = bytes::sqe(admin::IDENTIFY, c.cid, 4096);
    (sqe.nsid, sqe.cdw10, sqe.cdw11) = (nsid.into(), cns.into(), (csi << 24).into());
    capsule(c, &sqe)
}

fn property(c: &Ctx, of: u32, long: bool) -> Vec<u8> {
    let mut sqe = bytes::property_set(c.cid, of, 0x46_0001);
    sqe.cdw10 = u32::from(long).into();
    capsule(c, &sqe)
}

/// An admin command without data.
fn plain(c: &Ctx, op: u8, dword10: u32) -> Vec<u8> {
    let mut sqe = bytes::sqe(op, c.cid, 0);
    sqe.cdw10 = dword10.into();
    capsule(c, &sqe)
}

/// An I/O command with its SGL's length changed.
fn io_len(c: &Ctx, op: u8, len: u32) -> Vec<u8> {
    let mut sqe = bytes::io(op, c.cid, 0, 1);
    sqe.sgl.length = len.into();
    capsule(c, &sqe)
}

/// A command with a list in its capsule.
fn list(c: &Ctx, op: u8, dwords: [u32; 3], data: &[u8]) -> Vec<u8> {
    let mut sqe = bytes::sqe(op, c.cid, data.len() as u32);
    (sqe.sgl.identifier, sqe.nsid) = (SGL_IN_CAPSULE, 1.into());
    (sqe.cdw10, sqe.cdw11, sqe.cdw12) = (dwords[0].into(), dwords[1].into(), dwords[2].into());
    bytes::capsule(c.digests, &sqe, data)
}

fn dsm_range(first: u64, blocks: u32) -> Vec<u8> {
    [&[0; 4], &blocks.to_le_bytes()[..], &first.to_le_bytes()].concat()
}

fn copy_range(first: u64, blocks: u16) -> Vec<u8> {
    [&[0; 8], &first.to_le_bytes()[..], &(blocks - 1).to_le_bytes(), &[0; 14]].concat()
}

fn fused(c: &Ctx, bits: u8, op: u8) -> Vec<u8> {
    let mut sqe = bytes::io(op, c.cid, 0, 1);
    (sqe.flags, sqe.sgl.identifier) = (sqe.flags | bits, SGL_IN_CAPSULE);
    bytes::capsule(c.digests, &sqe, &[0xEE; 512])
}

pub const ADMIN: &[Row] = &[
    row("N20 ANA log at FFFFFFFFFFFFFFFCh", &[Admin], &[S(0, 2)], |c| log(c, 0xC, 16, u64::MAX - 3)),
    row("N20 ANA log unaligned", &[Admin], &[S(0, 2)], |c| log(c, 0xC, 16, 2)),
    row("N20 ANA log beyond its end", &[Admin], &[S(0, 2)], |c| log(c, 0xC, 16, 1 << 20)),
    row("N20 ANA log, NUMD FFFFFFFFh", &[Admin], &[S(0, 2)], |c| log(c, 0xC, 1 << 32, 0)),
    row("N20 discovery log at FFFFFFFFFFFFFFFCh", &[Discovery], &[S(0, 2)], |c| {
        log(c, 0x70, 256, u64::MAX - 3)
    }),
    row("N20 discovery log unaligned", &[Discovery], &[S(0, 2)], |c| log(c, 0x70, 256, 1)),
    row("N20 discovery log beyond its end", &[Discovery], &[S(0, 2)], |c| log(c, 0x70, 256, 1 << 30)),
    row("N20 discovery log, NUMD FFFFFFFFh", &[Discovery], &[S(0, 2)], |c| log(c, 0x70, 1 << 32, 0)),
    row("N21 CNS FFh", &[Admin, Discovery], &[S(0, 2)], |c| identify(c, 0xFF, 0, 1)),
    row("N21 CNS 05h, CSI 2", &[Admin], &[S(0, 2)], |c| identify(c, 5, 2, 1)),
    row("N21 CNS 06h, CSI 2", &[Admin], &[S(0, 2)], |c| identify(c, 6, 2, 0)),
    row("N21 NSID 0", &[Admin], &[S(0, 0xB)], |c| identify(c, 0, 0, 0)),
    row("N21 NSID FFFFFFFEh", &[Admin], &[S(0, 0xB)], |c| identify(c, 0, 0, 0xFFFF_FFFE)),
    row("N22e FFFFh I/O queues", &[Admin], &[S(0, 2)], |c| {
        let mut sqe = bytes::sqe(admin::SET_FEATURES, c.cid, 0);
        (sqe.cdw10, sqe.cdw11) = (7.into(), u32::MAX.into());
        capsule(c, &sqe)
    }),
    row("N26e a fused admin command", &[Admin], &[S(0, 2)], |c| {
        let mut sqe = bytes::sqe(admin::IDENTIFY, c.cid, 4096);
        (sqe.flags, sqe.cdw10) = (sqe.flags | 1, 1.into());
        capsule(c, &sqe)
    }),
    row("N32 Identify before CC.EN", &[Disabled], &[S(0, 0xC)], |c| identify(c, 1, 0, 0)),
    row("N32 Get Log Page before CC.EN", &[Disabled], &[S(0, 0xC)], |c| log(c, 2, 128, 0)),
    row("N32 Get Features before CC.EN", &[Disabled], &[S(0, 0xC)], |c| plain(c, admin::GET_FEATURES, 7)),
    row("N32 Set Features before CC.EN", &[Disabled], &[S(0, 0xC)], |c| plain(c, admin::SET_FEATURES, 0xF)),
    row("N32 Asynchronous Event Request before CC.EN", &[Disabled], &[S(0, 0xC)], |c| {
        plain(c, admin::ASYNC_EVENT, 0)
    }),
    row("N32 Keep Alive before CC.EN", &[Disabled], &[S(0, 0xC)], |c| plain(c, admin::KEEP_ALIVE, 0)),
    row("N32 Abort before CC.EN", &[Disabled], &[S(0, 0xC)], |c| plain(c, admin::ABORT, 1)),
    // There is no such command on an admin queue at any time.
    row("N32 I/O on the admin queue", &[Disabled, Admin], &[S(0, 0xC), S(0, 1)], |c| {
        capsule(c, &bytes::io(opcode::WRITE, c.cid, 0, 1))
    }),
    row("N33 Property Set on CAP", &[Admin, Disabled], &[S(0, 2)], |c| property(c, 0, true)),
    row("N33 Property Set on VS", &[Admin, Disabled], &[S(0, 2)], |c| property(c, 8, false)),
    row("N33 Property Set on CSTS", &[Admin, Disabled], &[S(0, 2)], |c| property(c, 0x1C, false)),
    row("N33 8 bytes of CC", &[Admin, Disabled], &[S(0, 2)], |c| property(c, 0x14, true)),
    row("N33 a property at FFFFFFFFh", &[Admin, Disabled], &[S(0, 2)], |c| property(c, u32::MAX, false)),
];

/// A command with its metadata pointer, and what kind of pointer that is (PSDT).
fn metadata(c: &Ctx, op: u8, psdt: u8) -> Vec<u8> {
    let mut sqe = bytes::io(op, c.cid, 0, 1);
    (sqe.flags, sqe.mptr) = (psdt << 6, 0x1000.into());
    capsule(c, &sqe)
}

pub const IO: &[Row] = &[
    row("N15d a metadata segment of a read", &[Io], &[S(0, 2)], |c| metadata(c, opcode::READ, 2)),
    row("N15d a metadata segment of a write", &[Io], &[S(0, 2)], |c| metadata(c, opcode::WRITE, 2)),
    row("N15d protection information of a read", &[Io], &[S(0, 2)], |c| {
        let mut sqe = bytes::io(opcode::READ, c.cid, 0, 1);
        sqe.cdw12 = (1 << 29).into();
        capsule(c, &sqe)
    }),
    row("N15d protection information of a write", &[Io], &[S(0, 2)], |c| {
        let mut sqe = bytes::io(opcode::WRITE, c.cid, 0, 1);
        sqe.cdw12 = (0xF << 26).into();
        capsule(c, &sqe)
    }),
    row("N16 SGL length FFFFFFFFh", &[Io], &[S(0, 0xF), T(5)], |c| io_len(c, opcode::WRITE, u32::MAX)),
    row("N16 SGL length above MDTS", &[Io], &[S(0, 0xF), T(5)], |c| io_len(c, opcode::WRITE, 256 << 10)),
    row("N17a a write's SGL is short", &[Io], &[S(0, 0xF)], |c| io_len(c, opcode::WRITE, 256)),
    row("N17a a write's SGL is long", &[Io], &[S(0, 0xF)], |c| io_len(c, opcode::WRITE, 1024)),
    row("N17a a read's SGL is short", &[Io], &[S(0, 0xF)], |c| io_len(c, opcode::READ, 256)),
    row("N17a a read's SGL is long", &[Io], &[S(0, 0xF)], |c| io_len(c, opcode::READ, 1024)),
    row("N17b NLB FFFFh", &[Io], &[S(0, 0x80), S(0, 2)], |c| {
        capsule(c, &bytes::io(opcode::READ, c.cid, 0, 0x10000))
    }),
    row("N17b SLBA 2^64-1", &[Io], &[S(0, 0x80)], |c| {
        capsule(c, &bytes::io(opcode::READ, c.cid, u64::MAX, 2))
    }),
    row("N17b the end is passed by one", &[Io], &[S(0, 0x80)], |c| {
        capsule(c, &bytes::io(opcode::WRITE, c.cid, 8191, 2))
    }),
    row("N26b a second alone", &[Io], &[S(0, 0xA)], |c| fused(c, 2, opcode::WRITE)),
    row("N26e FUSE 11b", &[Io], &[S(0, 2)], |c| fused(c, 3, opcode::COMPARE)),
    row("N27a more ranges than data", &[Io], &[S(0, 0xF)], |c| {
        list(c, opcode::DATASET_MANAGEMENT, [1, 4, 0], &dsm_range(0, 8))
    }),
    row("N27a SLBA and length wrap", &[Io], &[S(0, 0x80)], |c| {
        list(c, opcode::DATASET_MANAGEMENT, [0, 4, 0], &dsm_range(u64::MAX, u32::MAX))
    }),
    row("N27b more ranges than MSRC", &[Io], &[S(1, 0x83)], |c| {
        list(c, opcode::COPY, [0, 0, 128], &copy_range(0, 1).repeat(129))
    }),
    row("N27b more blocks than MSSRL", &[Io], &[S(1, 0x83)], |c| {
        list(c, opcode::COPY, [0, 0, 0], &copy_range(0, 4096))
    }),
    row("N27b more blocks than MCL", &[Io], &[S(1, 0x83)], |c| {
        list(c, opcode::COPY, [0, 0, 16], &copy_range(0, 2048).repeat(17))
    }),
    row("N27b the source is out of range", &[Io], &[S(0, 0x80)], |c| {
        list(c, opcode::COPY, [0, 0, 0], &copy_range(u64::MAX, 1))
    }),
    row("N27b the destination is out of range", &[Io], &[S(0, 0x80)], |c| {
        list(c, opcode::COPY, [u32::MAX, u32::MAX, 0], &copy_range(0, 8))
    }),
    row("N28a Register with 8 bytes", &[Io], &[S(0, 0xF)], |c| {
        list(c, opcode::RESERVATION_REGISTER, [0; 3], &[1; 8])
    }),
    row("N21 I/O on NSID 0", &[Io], &[S(0, 0xB)], |c| {
        let mut sqe = bytes::io(opcode::READ, c.cid, 0, 1);
        sqe.nsid = 0.into();
        capsule(c, &sqe)
    }),
    row("an opcode of nothing", &[Io], &[S(0, 1)], |c| capsule(c, &bytes::io(0x7D, c.cid, 0, 1))),
];
