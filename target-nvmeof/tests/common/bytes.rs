//! What a host sends, as bytes: well-formed PDUs to be sent or spoilt. Shared by the tests and the fuzz targets.

use ashlar_codec::crc32c;
use ashlar_nvmeof::wire::Sqe;
use ashlar_nvmeof::wire::pdu::{DataPdu, Header, IcReq, flags, kind};
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, SGL_TRANSPORT, admin, fabrics};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

/// Which digests a connection carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// CRC32C over every header.
    pub header: bool,
    /// CRC32C over the data of every PDU that has any.
    pub data: bool,
}

impl Digests {
    /// No digests.
    pub const NONE: Self = Self { header: false, data: false };
    /// Both digests.
    pub const BOTH: Self = Self { header: true, data: true };

    /// The DGST field of ICReq and ICResp.
    #[must_use]
    pub const fn field(self) -> u8 {
        self.header as u8 | (self.data as u8) << 1
    }

    /// The digests of a DGST field.
    #[must_use]
    pub const fn of_field(field: u8) -> Self {
        Self { header: field & 1 != 0, data: field & 2 != 0 }
    }

    /// Bytes that a header digest adds.
    #[must_use]
    pub const fn header_bytes(self) -> usize {
        if self.header { 4 } else { 0 }
    }

    /// Bytes that a data digest adds.
    #[must_use]
    pub const fn data_bytes(self) -> usize {
        if self.data { 4 } else { 0 }
    }
}

/// ICReq.
#[must_use]
pub fn ic_req(digests: Digests) -> Vec<u8> {
    let mut request = IcReq::new_zeroed();
    request.header = Header { kind: kind::IC_REQ, flags: 0, hlen: 128, pdo: 0, plen: U32::new(128) };
    request.dgst = digests.field();
    request.as_bytes().to_vec()
}

/// A PDU of `header` (its first 8 bytes are filled in here) and data.
///
/// # Panics
/// If `header` is shorter than 8 bytes.
#[must_use]
pub fn pdu(digests: Digests, kind: u8, bits: u8, header: &[u8], data: &[u8]) -> Vec<u8> {
    let pdo = header.len() + digests.header_bytes();
    let trailer = if data.is_empty() { 0 } else { digests.data_bytes() };
    let mut bits = bits | if digests.header { flags::HDGST } else { 0 };
    bits |= if trailer > 0 { flags::DDGST } else { 0 };
    let common = Header {
        kind,
        flags: bits,
        hlen: header.len() as u8,
        pdo: if data.is_empty() { 0 } else { pdo as u8 },
        plen: U32::new((pdo + data.len() + trailer) as u32),
    };
    let mut bytes = [common.as_bytes(), &header[8..]].concat();
    if digests.header {
        bytes.extend(crc32c(&bytes).to_le_bytes());
    }
    bytes.extend(data);
    if trailer > 0 {
        bytes.extend(crc32c(data).to_le_bytes());
    }
    bytes
}

/// A command capsule with `data` in it.
#[must_use]
pub fn capsule(digests: Digests, sqe: &Sqe, data: &[u8]) -> Vec<u8> {
    pdu(digests, kind::CAPSULE_CMD, 0, &[&[0; 8], sqe.as_bytes()].concat(), data)
}

/// An H2CData PDU.
#[must_use]
pub fn h2c_data(digests: Digests, cid: u16, tag: u16, offset: u32, data: &[u8], last: bool) -> Vec<u8> {
    let header = DataPdu {
        header: Header::new_zeroed(),
        cccid: U16::new(cid),
        ttag: U16::new(tag),
        offset: U32::new(offset),
        length: U32::new(data.len() as u32),
        reserved: [0; 4],
    };
    pdu(digests, kind::H2C_DATA, if last { flags::LAST } else { 0 }, header.as_bytes(), data)
}

/// Makes the header digest of a PDU right again after a change of its header of `hlen` bytes.
pub fn mend_header_digest(digests: Digests, bytes: &mut [u8], hlen: usize) {
    if digests.header && bytes.len() >= hlen + 4 {
        let digest = crc32c(&bytes[..hlen]).to_le_bytes();
        bytes[hlen..hlen + 4].copy_from_slice(&digest);
    }
}

/// A command whose data, `len` bytes, go by R2T or C2HData.
#[must_use]
pub fn sqe(opcode: u8, cid: u16, len: u32) -> Sqe {
    let mut sqe = Sqe::zeroed();
    (sqe.opcode, sqe.flags, sqe.cid) = (opcode, 0x40, U16::new(cid));
    sqe.sgl.identifier = SGL_TRANSPORT;
    sqe.sgl.length = U32::new(len);
    sqe
}

/// An I/O command on `blocks` blocks of 512 bytes from `first`.
#[must_use]
pub fn io(opcode: u8, cid: u16, first: u64, blocks: u32) -> Sqe {
    let mut sqe = sqe(opcode, cid, blocks * 512);
    sqe.nsid = U32::new(1);
    (sqe.cdw10, sqe.cdw11) = (U32::new(first as u32), U32::new((first >> 32) as u32));
    sqe.cdw12 = U32::new(blocks.wrapping_sub(1) & 0xFFFF);
    sqe
}

/// A Fabrics command.
#[must_use]
pub fn fabrics(of_type: u8, cid: u16) -> Sqe {
    let mut sqe = sqe(admin::FABRICS, cid, 0);
    sqe.nsid = U32::new(u32::from(of_type));
    sqe
}

/// Connect for queue `qid` of `sqsize` + 1 entries, with its 1024 bytes of data in the capsule (Base, section 6.3).
#[must_use]
pub fn connect(cid: u16, qid: u16, sqsize: u16, kato_ms: u32) -> Sqe {
    let mut sqe = fabrics(fabrics::CONNECT, cid);
    (sqe.sgl.identifier, sqe.sgl.length) = (SGL_IN_CAPSULE, U32::new(1024));
    sqe.cdw10 = U32::new(u32::from(qid) << 16);
    sqe.cdw11 = U32::new(u32::from(sqsize));
    sqe.cdw12 = U32::new(kato_ms);
    sqe
}

/// Who connects to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The host identifier.
    pub host_id: [u8; 16],
    /// The host's NQN.
    pub host_nqn: String,
    /// The subsystem's NQN.
    pub subsystem: String,
}

/// The data of Connect; `cntlid` is FFFFh for an admin queue.
#[must_use]
pub fn connect_data(identity: &Identity, cntlid: u16) -> Vec<u8> {
    let mut data = vec![0; 1024];
    data[0..16].copy_from_slice(&identity.host_id);
    data[16..18].copy_from_slice(&cntlid.to_le_bytes());
    data[256..256 + identity.subsystem.len()].copy_from_slice(identity.subsystem.as_bytes());
    data[512..512 + identity.host_nqn.len()].copy_from_slice(identity.host_nqn.as_bytes());
    data
}

/// Property Set of a property of 4 bytes.
#[must_use]
pub fn property_set(cid: u16, offset: u32, value: u32) -> Sqe {
    let mut sqe = fabrics(fabrics::PROPERTY_SET, cid);
    (sqe.cdw11, sqe.cdw12) = (U32::new(offset), U32::new(value));
    sqe
}

/// Property Get, of 8 bytes where `long`.
#[must_use]
pub fn property_get(cid: u16, offset: u32, long: bool) -> Sqe {
    let mut sqe = fabrics(fabrics::PROPERTY_GET, cid);
    (sqe.cdw10, sqe.cdw11) = (U32::new(u32::from(long)), U32::new(offset));
    sqe
}
