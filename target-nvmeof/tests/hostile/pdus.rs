//! PDUs that break the transport's rules: N01 to N15, N18b and N29.

use ashlar_nvmeof::limits::MAX_H2C_DATA_BYTES;
use ashlar_nvmeof::wire::pdu::{flags, kind};
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, io as opcode};

use crate::bytes::{self, Digests};
use crate::rows::Expect::{At, Closed, Retry, S, T};
use crate::rows::Given::{Admin, Initialized, Io, R2t, Tcp};
use crate::rows::{Ctx, Given, R2T_BLOCKS, Row, row, row_with};

const QUEUES: &[Given] = &[Initialized, Admin, Io];
const TRANSFER: usize = R2T_BLOCKS as usize * 512;

/// ICReq with some bytes changed.
fn ic_req(ctx: &Ctx, at: usize, with: &[u8]) -> Vec<u8> {
    spoil(bytes::ic_req(ctx.digests), Digests::NONE, 128, at, with)
}

/// Changes some bytes of a PDU's header and makes its digest right again.
fn spoil(mut pdu: Vec<u8>, digests: Digests, hlen: usize, at: usize, with: &[u8]) -> Vec<u8> {
    pdu[at..at + with.len()].copy_from_slice(with);
    bytes::mend_header_digest(digests, &mut pdu, hlen);
    pdu
}

/// A read of one block.
fn read(ctx: &Ctx) -> Vec<u8> {
    bytes::capsule(ctx.digests, &bytes::io(opcode::READ, ctx.cid, 0, 1), &[])
}

/// A write of one block with its data in the capsule.
fn write(ctx: &Ctx) -> Vec<u8> {
    let mut sqe = bytes::io(opcode::WRITE, ctx.cid, 0, 1);
    sqe.sgl.identifier = SGL_IN_CAPSULE;
    bytes::capsule(ctx.digests, &sqe, &[0xEE; 512])
}

fn spoilt_write(ctx: &Ctx, at: usize, with: &[u8]) -> Vec<u8> {
    spoil(write(ctx), ctx.digests, 72, at, with)
}

fn spoilt_read(ctx: &Ctx, at: usize, with: &[u8]) -> Vec<u8> {
    spoil(read(ctx), ctx.digests, 72, at, with)
}

/// H2CData with 0xEE in it.
fn data(ctx: &Ctx, tag: u16, offset: u32, len: usize, last: bool) -> Vec<u8> {
    bytes::h2c_data(ctx.digests, ctx.cid, tag, offset, &vec![0xEE; len], last)
}

fn spoilt_data(ctx: &Ctx, at: usize, with: &[u8]) -> Vec<u8> {
    spoil(data(ctx, ctx.tag, 0, TRANSFER, true), ctx.digests, 24, at, with)
}

/// A header of 8 bytes and zeros up to `len`.
fn bare(kind: u8, plen: u32, len: usize) -> Vec<u8> {
    let mut pdu = vec![0; len];
    (pdu[0], pdu[2]) = (kind, 24);
    pdu[4..8].copy_from_slice(&plen.to_le_bytes());
    pdu
}

/// Data offset of a PDU with a header of 72 bytes.
fn pdo(ctx: &Ctx) -> u8 {
    72 + ctx.digests.header_bytes() as u8
}

fn plen(ctx: &Ctx, plen: u32) -> Vec<u8> {
    let pdu = spoil(read(ctx), ctx.digests, 72, 3, &[pdo(ctx)]);
    spoil(pdu, ctx.digests, 72, 4, &plen.to_le_bytes())
}

/// The handshake: N01 to N05.
pub const HANDSHAKE: &[Row] = &[
    row("N01 PLEN 0", &[Tcp], &[At(1, 4)], |c| ic_req(c, 4, &0u32.to_le_bytes())),
    row("N01 PLEN 127", &[Tcp], &[At(1, 4)], |c| ic_req(c, 4, &127u32.to_le_bytes())),
    row("N01 PLEN 132", &[Tcp], &[At(1, 4)], |c| ic_req(c, 4, &132u32.to_le_bytes())),
    row("N01 PLEN FFFFFFFFh", &[Tcp], &[At(1, 4)], |c| ic_req(c, 4, &[0xFF; 4])),
    row("N02a HLEN 8", &[Tcp], &[At(1, 2)], |c| ic_req(c, 2, &[8])),
    row("N02a HLEN 24", &[Tcp], &[At(1, 2)], |c| ic_req(c, 2, &[24])),
    row("N02a HLEN 255", &[Tcp], &[At(1, 2)], |c| ic_req(c, 2, &[255])),
    row("N02b PFV 1", &[Tcp], &[At(1, 8), At(6, 8)], |c| ic_req(c, 8, &[1])),
    row("N02c HPDA 32", &[Tcp], &[At(1, 10)], |c| ic_req(c, 10, &[32])),
    row("N02c HPDA 255", &[Tcp], &[At(1, 10)], |c| ic_req(c, 10, &[255])),
    row("N03 a second ICReq", QUEUES, &[T(2)], |c| bytes::ic_req(c.digests)),
    row("N03 a second ICReq with a digest", QUEUES, &[T(2)], |c| {
        let mut pdu = bytes::ic_req(c.digests);
        pdu[1] = flags::HDGST;
        pdu[4] = 132;
        pdu.extend([0; 4]);
        pdu
    }),
    row("N04a CapsuleCmd first", &[Tcp], &[T(2)], read),
    row("N04a H2CData first", &[Tcp], &[T(2)], |c| data(c, 0, 0, 512, true)),
    row("N05 H2CData before Connect", &[Initialized], &[T(2)], |c| data(c, 0, 0, 512, true)),
];

/// Data that nobody asked for, or not so: N06 to N10.
pub const DATA: &[Row] = &[
    row("N06 TTAG 0", &[Admin, Io], &[T(2), At(1, 10)], |c| data(c, 0, 0, 512, true)),
    row("N06 TTAG 128", &[Admin, Io, R2t], &[T(2), At(1, 10)], |c| data(c, 128, 0, 512, true)),
    row("N06 TTAG FFFFh", &[Admin, Io, R2t], &[T(2), At(1, 10)], |c| data(c, 0xFFFF, 0, 512, true)),
    row("N06 TTAG of no command", &[R2t], &[T(2), At(1, 10)], |c| data(c, c.tag ^ 1, 0, 512, true)),
    // Whatever tag the read had, all of them are tried.
    row("N07 for a read", &[Io], &[T(2), At(1, 10)], |c| {
        let tags = (0..128).map(|tag| data(c, tag, 0, 512, true));
        [read(c)].into_iter().chain(tags).flatten().collect()
    }),
    row("N08a DATAL 0", &[R2t], &[At(1, 16), At(1, 4)], |c| {
        bytes::pdu(c.digests, kind::H2C_DATA, flags::LAST, &header(c, 0, 0), &[])
    }),
    row("N08a DATAL not PLEN", &[R2t], &[At(1, 16), At(1, 4)], |c| spoilt_data(c, 16, &512u32.to_le_bytes())),
    row("N08b DATAL FFFFFFFFh", &[R2t], &[T(5), At(1, 16), At(1, 4)], |c| spoilt_data(c, 16, &[0xFF; 4])),
    row("N08b DATAL above MAXH2CDATA", &[R2t], &[T(5), At(1, 16), At(1, 4)], |c| {
        // The header alone: the rest will not be read.
        let len = MAX_H2C_DATA_BYTES + 512;
        let mut pdu = spoilt_data(c, 16, &len.to_le_bytes());
        let plen = 24 + (c.digests.header_bytes() + c.digests.data_bytes()) as u32 + len;
        pdu = spoil(pdu, c.digests, 24, 4, &plen.to_le_bytes());
        pdu.truncate(24 + c.digests.header_bytes());
        pdu
    }),
    row("N09 DATAO ahead", &[R2t], &[T(4)], |c| data(c, c.tag, 512, TRANSFER - 512, true)),
    row("N09 DATAO wraps", &[R2t], &[T(4)], |c| data(c, c.tag, 0xFFFF_FE00, 1024, true)),
    row("N09 DATAO repeated", &[R2t], &[T(4)], |c| {
        [data(c, c.tag, 0, 512, false), data(c, c.tag, 0, 512, false)].concat()
    }),
    row("N09 DATAO backwards", &[R2t], &[T(4)], |c| {
        [data(c, c.tag, 0, 1024, false), data(c, c.tag, 512, 512, false)].concat()
    }),
    row("N09 two overrun together", &[R2t], &[T(4)], |c| {
        [data(c, c.tag, 0, TRANSFER - 512, false), data(c, c.tag, TRANSFER as u32 - 512, 1024, true)].concat()
    }),
    row("N10a another command's identifier", &[R2t], &[T(2)], |c| {
        data(&Ctx { cid: c.cid + 1, ..*c }, c.tag, 0, TRANSFER, true)
    }),
    row("N10b LAST missing", &[R2t], &[T(2), At(1, 1)], |c| data(c, c.tag, 0, TRANSFER, false)),
    row("N10b LAST early", &[R2t], &[T(2), At(1, 1)], |c| data(c, c.tag, 0, 512, true)),
];

/// The header of H2CData.
fn header(ctx: &Ctx, offset: u32, len: u32) -> Vec<u8> {
    let mut header = vec![0; 24];
    header[8..10].copy_from_slice(&ctx.cid.to_le_bytes());
    header[10..12].copy_from_slice(&ctx.tag.to_le_bytes());
    header[12..16].copy_from_slice(&offset.to_le_bytes());
    header[16..20].copy_from_slice(&len.to_le_bytes());
    header
}

/// Digests: N11 and N12.
pub const DIGESTS: &[Row] = &[
    row_with(
        "N11 DDGST in the capsule",
        &[Io],
        |d| d.data,
        &[Retry(0, 0x22), Retry(0, 4)],
        |c| flip_last(write(c)),
    ),
    row_with(
        "N11 DDGST by R2T",
        &[R2t],
        |d| d.data,
        &[Retry(0, 0x22), Retry(0, 4)],
        |c| flip_last(data(c, c.tag, 0, TRANSFER, true)),
    )
    .ends_the_write(),
    row_with(
        "N11 DDGST of a command that fails",
        &[Io],
        |d| d.data,
        &[S(0, 0xB), Retry(0, 0x22)],
        |c| flip_last(spoilt_write(c, 8 + 4, &[9])),
    ),
    row_with(
        "N11 DDGST of Connect",
        &[Initialized],
        |d| d.data,
        &[Retry(0, 0x22), Retry(0, 4)],
        |c| {
            let data = bytes::connect_data(&crate::bench::identity(crate::bench::CULPRIT), 0xFFFF);
            flip_last(bytes::capsule(c.digests, &bytes::connect(c.cid, 0, 31, 0), &data))
        },
    ),
    row_with("N12a HDGST of a command", &[Admin, Io], |d| d.header, &[T(3)], |c| flip(read(c), 73)),
    row_with(
        "N12a HDGST of data",
        &[R2t],
        |d| d.header,
        &[T(3)],
        |c| flip(data(c, c.tag, 0, TRANSFER, true), 25),
    ),
    row_with("N12a a header with its digest", &[Admin, Io], |d| d.header, &[T(3)], |c| flip(read(c), 20)),
    row_with("N12b HDGST flag clear", &[Admin, Io], |d| d.header, &[At(1, 1)], |c| spoilt_read(c, 1, &[0])),
    row_with(
        "N12b HDGST flag set",
        QUEUES,
        |d| !d.header,
        &[At(1, 1)],
        |c| spoilt_read(c, 1, &[flags::HDGST]),
    ),
    row_with(
        "N12b DDGST flag clear",
        &[Io],
        |d| d.data,
        &[At(1, 1)],
        |c| spoilt_write(c, 1, &[if c.digests.header { flags::HDGST } else { 0 }]),
    ),
    row_with(
        "N12b DDGST flag set",
        &[Io],
        |d| !d.data,
        &[At(1, 1)],
        |c| spoilt_write(c, 1, &[flags::DDGST | if c.digests.header { flags::HDGST } else { 0 }]),
    ),
    row_with("N12b an unknown flag", &[Io], |d| !d.header, &[At(1, 1)], |c| spoilt_read(c, 1, &[0x80])),
];

fn flip(mut pdu: Vec<u8>, at: usize) -> Vec<u8> {
    pdu[at] ^= 0x10;
    pdu
}

fn flip_last(pdu: Vec<u8>) -> Vec<u8> {
    let last = pdu.len() - 1;
    flip(pdu, last)
}

/// Lengths, offsets and descriptors of capsules: N13 to N15.
pub const CAPSULES: &[Row] = &[
    row("N13 PLEN 8", QUEUES, &[At(1, 4)], |c| plen(c, 8)),
    row("N13 PLEN 71", QUEUES, &[At(1, 4)], |c| plen(c, 71)),
    row("N13 PLEN FFFFFFFFh", QUEUES, &[At(1, 4)], |c| plen(c, u32::MAX)),
    row("N13 PLEN beyond the largest capsule", QUEUES, &[At(1, 4)], |c| plen(c, 72 + 8 + 8196)),
    row_with("N13 PLEN 73 with digests", QUEUES, |d| d.data, &[At(1, 4)], |c| plen(c, 73)),
    row_with("N13 PLEN 75 with digests", QUEUES, |d| d.data, &[At(1, 4)], |c| plen(c, 75)),
    row_with("N13 PLEN 72 with a header digest", QUEUES, |d| d.header, &[At(1, 4)], |c| plen(c, 72)),
    row("N13 HLEN 8", QUEUES, &[At(1, 2)], |c| spoilt_read(c, 2, &[8])),
    row("N14 PDO 0", &[Io], &[At(1, 3)], |c| spoilt_write(c, 3, &[0])),
    row("N14 PDO before the data", &[Io], &[At(1, 3)], |c| spoilt_write(c, 3, &[pdo(c) - 4])),
    row("N14 PDO unaligned", &[Io], &[At(1, 3)], |c| spoilt_write(c, 3, &[pdo(c) + 2])),
    row("N14 PDO 255", &[Io], &[At(1, 3)], |c| spoilt_write(c, 3, &[255])),
    row("N15a offset 1", &[Io], &[S(0, 0x16), At(6, 32)], |c| spoilt_write(c, 8 + 24, &[1])),
    row("N15a offset -1", &[Io], &[S(0, 0x16), At(6, 32)], |c| spoilt_write(c, 8 + 24, &[0xFF; 8])),
    row("N15b longer than the capsule", &[Io], &[S(0, 0xF), S(0, 0x16), T(5)], |c| {
        spoilt_write(c, 8 + 32, &1024u32.to_le_bytes())
    }),
    row("N15c shorter than the capsule", &[Io], &[At(1, 4)], |c| {
        spoilt_write(c, 8 + 32, &256u32.to_le_bytes())
    }),
    row("N15d on a read", &[Io], &[S(0, 2)], |c| spoilt_read(c, 8 + 39, &[SGL_IN_CAPSULE])),
    row("N15e identifier 00h", &[Io], &[S(0, 0x11), T(6)], |c| spoilt_read(c, 8 + 39, &[0])),
    row("N15e identifier 40h", &[Io], &[S(0, 0x11), T(6)], |c| spoilt_read(c, 8 + 39, &[0x40])),
    row("N15e identifier 50h", &[Io], &[S(0, 0x11), T(6)], |c| spoilt_read(c, 8 + 39, &[0x50])),
    row("N15e identifier F0h", &[Io], &[S(0, 0x11), T(6)], |c| spoilt_read(c, 8 + 39, &[0xF0])),
    row("N15e of a write", &[Io], &[S(0, 0x11), T(6)], |c| spoilt_write(c, 8 + 39, &[0xF0])),
    row("N15f PSDT 00b", &[Io], &[S(0, 2)], |c| spoilt_read(c, 8 + 1, &[0])),
    row("N15f PSDT 11b", &[Io], &[S(0, 2)], |c| spoilt_read(c, 8 + 1, &[0xC0])),
    row("N15 data and a transport descriptor", &[Io], &[At(1, 4)], |c| spoilt_write(c, 8 + 39, &[0x5A])),
];

/// Types of PDUs: N18c and N29.
pub const TYPES: &[Row] = &[
    row("N29a ICResp", QUEUES, &[At(1, 0)], |_| bare(1, 128, 128)),
    row("N29a C2HTermReq", QUEUES, &[At(1, 0)], |_| bare(3, 24, 24)),
    row("N29a CapsuleResp", QUEUES, &[At(1, 0)], |_| bare(5, 24, 24)),
    row("N29a C2HData", QUEUES, &[At(1, 0)], |_| bare(7, 24, 24)),
    row("N29a R2T", QUEUES, &[At(1, 0)], |_| bare(9, 24, 24)),
    row("N29a type 08h", &[Tcp, Initialized, Io], &[At(1, 0)], |_| bare(8, 24, 24)),
    row("N29a type 0Ah", &[Tcp, Initialized, Io], &[At(1, 0)], |_| bare(0xA, 24, 24)),
    row("N29a type 0Bh", &[Tcp, Initialized, Io], &[At(1, 0)], |_| bare(0xB, 24, 24)),
    row("N29a type FFh", &[Tcp, Initialized, Io], &[At(1, 0)], |_| bare(0xFF, 24, 24)),
    row("N29b H2CTermReq of 24 bytes", &[Tcp, Admin, Io, R2t], &[Closed], |_| term(24, 24)),
    row("N29b H2CTermReq of 152 bytes", &[Tcp, Admin, Io, R2t], &[Closed], |_| term(152, 152)),
    row("N29c H2CTermReq of 153 bytes", &[Tcp, Admin, Io], &[Closed, At(1, 4)], |_| term(153, 153)),
    row("N29c H2CTermReq of 4 GiB", &[Tcp, Admin, Io], &[Closed, At(1, 4)], |_| term(u32::MAX, 4096)),
    row("N18c a write after the host's own H2CTermReq", &[Io, R2t], &[Closed], |c| {
        [term(24, 24), write(c)].concat()
    }),
];

fn term(plen: u32, len: usize) -> Vec<u8> {
    let mut pdu = bare(kind::H2C_TERM, plen, len);
    pdu[8..10].fill(0xFF);
    pdu
}
