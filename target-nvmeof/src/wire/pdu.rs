//! PDUs of the TCP transport (TCP, section 3.6).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Cqe, Sqe};

/// PDU types (TCP, figure "PDU Types").
pub mod kind {
    /// Initialize Connection Request, host to controller.
    pub const IC_REQ: u8 = 0x00;
    /// Initialize Connection Response.
    pub const IC_RESP: u8 = 0x01;
    /// Host Terminate Connection Request.
    pub const H2C_TERM: u8 = 0x02;
    /// Controller Terminate Connection Request.
    pub const C2H_TERM: u8 = 0x03;
    /// Command capsule.
    pub const CAPSULE_CMD: u8 = 0x04;
    /// Response capsule.
    pub const CAPSULE_RESP: u8 = 0x05;
    /// Data from the host.
    pub const H2C_DATA: u8 = 0x06;
    /// Data to the host.
    pub const C2H_DATA: u8 = 0x07;
    /// Ready to Transfer.
    pub const R2T: u8 = 0x09;
}

/// Bits of the FLAGS field (TCP, section 3.6.1).
pub mod flags {
    /// A header digest follows the header.
    pub const HDGST: u8 = 1 << 0;
    /// A data digest follows the data.
    pub const DDGST: u8 = 1 << 1;
    /// The last data PDU of its transfer.
    pub const LAST: u8 = 1 << 2;
    /// The command succeeded: no response capsule follows.
    pub const SUCCESS: u8 = 1 << 3;
}

/// Fatal error status of a terminate request (TCP, section 3.6.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FatalError {
    /// A header field is invalid; the FEI is its offset.
    InvalidHeader = 1,
    /// The PDU is not expected now.
    Sequence = 2,
    /// The header digest is wrong; the FEI is the one received.
    HeaderDigest = 3,
    /// The data lie outside the transfer.
    DataOutOfRange = 4,
    /// The data are more than allowed.
    LimitExceeded = 5,
    /// A parameter is not supported; the FEI is its offset.
    UnsupportedParameter = 6,
}

/// The common header, 8 bytes (TCP, section 3.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Byte 0: PDU type.
    pub kind: u8,
    /// Byte 1: flags.
    pub flags: u8,
    /// Byte 2: length of the header in bytes, its digest not counted.
    pub hlen: u8,
    /// Byte 3: offset of the data from the start of the PDU.
    pub pdo: u8,
    /// Bytes 7:4: length of the whole PDU in bytes, digests and padding included.
    pub plen: U32,
}

/// ICReq, 128 bytes (TCP, section 3.6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcReq {
    /// Bytes 7:0.
    pub header: Header,
    /// Bytes 9:8: PDU format version, 0.
    pub pfv: U16,
    /// Byte 10: the host wants data aligned to (HPDA + 1) * 4 bytes; 0 to 31.
    pub hpda: u8,
    /// Byte 11: bit 0 asks for header digests, bit 1 for data digests.
    pub dgst: u8,
    /// Bytes 15:12: R2Ts that may be outstanding for one command, less 1.
    pub max_r2t: U32,
    /// Bytes 127:16: reserved.
    pub reserved: [u8; 112],
}

/// ICResp, 128 bytes (TCP, section 3.6.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcResp {
    /// Bytes 7:0.
    pub header: Header,
    /// Bytes 9:8: PDU format version, 0.
    pub pfv: U16,
    /// Byte 10: the alignment this controller wants of data; 0.
    pub cpda: u8,
    /// Byte 11: the digests in use, as in the request.
    pub dgst: u8,
    /// Bytes 15:12: the largest data of one H2CData PDU, in bytes.
    pub max_h2c_data: U32,
    /// Bytes 127:16: reserved.
    pub reserved: [u8; 112],
}

/// H2CTermReq and C2HTermReq, 24 bytes and up to 128 of the offending header (TCP, sections 3.6.2.3 and 3.6.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TermReq {
    /// Bytes 7:0.
    pub header: Header,
    /// Bytes 9:8: fatal error status.
    pub fes: U16,
    /// Bytes 13:10: fatal error information.
    pub fei: U32,
    /// Bytes 23:14: reserved.
    pub reserved: [u8; 10],
}

/// CapsuleCmd, 72 bytes (TCP, section 3.6.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleCmd {
    /// Bytes 7:0.
    pub header: Header,
    /// Bytes 71:8.
    pub sqe: Sqe,
}

/// CapsuleResp, 24 bytes (TCP, section 3.6.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleResp {
    /// Bytes 7:0.
    pub header: Header,
    /// Bytes 23:8.
    pub cqe: Cqe,
}

/// H2CData and C2HData, 24 bytes before the data (TCP, sections 3.6.2.7 and 3.6.2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataPdu {
    /// Bytes 7:0.
    pub header: Header,
    /// Bytes 9:8: the command these data belong to.
    pub cccid: U16,
    /// Bytes 11:10: the tag of the R2T answered; reserved in C2HData.
    pub ttag: U16,
    /// Bytes 15:12: where the data go, from the start of the command's data, in bytes.
    pub offset: U32,
    /// Bytes 19:16: length of the data in bytes.
    pub length: U32,
    /// Bytes 23:20: reserved.
    pub reserved: [u8; 4],
}

/// R2T, 24 bytes (TCP, section 3.6.2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct R2t {
    /// Bytes 7:0.
    pub header: Header,
    /// Bytes 9:8: the command whose data is wanted.
    pub cccid: U16,
    /// Bytes 11:10: a tag that the data must carry.
    pub ttag: U16,
    /// Bytes 15:12: where the data wanted begin, in bytes.
    pub offset: U32,
    /// Bytes 19:16: how much is wanted, in bytes.
    pub length: U32,
    /// Bytes 23:20: reserved.
    pub reserved: [u8; 4],
}

const _: () = assert!(size_of::<Header>() == 8);
const _: () = assert!(size_of::<IcReq>() == 128 && size_of::<IcResp>() == 128);
const _: () = assert!(size_of::<TermReq>() == 24);
const _: () = assert!(size_of::<CapsuleCmd>() == 72 && size_of::<CapsuleResp>() == 24);
const _: () = assert!(size_of::<DataPdu>() == 24 && size_of::<R2t>() == 24);

/// The largest terminate request: 24 bytes and 128 of the offending PDU.
pub const TERM_REQ_BYTES_MAX: u32 = 152;
