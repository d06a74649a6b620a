//! The PDUs of iSCSI as an initiator sees them (RFC 7143, section 11).
//!
//! All requests share one layout and all answers another, apart from a few fields that [`Request`] and [`Answer`]
//! name by their place. The structures are this initiator's own, on purpose: read with those of the target, a
//! field in the wrong place would look right.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The length of a basic header segment, in bytes.
pub const BHS_BYTES: usize = 48;
/// The tag that stands for none, in ITT and TTT.
pub const NO_TAG: u32 = u32::MAX;

/// Opcodes of an initiator.
pub mod request {
    /// NOP-Out.
    pub const NOP_OUT: u8 = 0x00;
    /// SCSI Command.
    pub const COMMAND: u8 = 0x01;
    /// Login Request.
    pub const LOGIN: u8 = 0x03;
    /// SCSI Data-Out.
    pub const DATA_OUT: u8 = 0x05;
    /// Logout Request.
    pub const LOGOUT: u8 = 0x06;
    /// To be or-ed to an opcode: immediate delivery, outside the order of CmdSN.
    pub const IMMEDIATE: u8 = 0x40;
}

/// Opcodes of a target.
pub mod answer {
    /// NOP-In.
    pub const NOP_IN: u8 = 0x20;
    /// SCSI Response.
    pub const RESPONSE: u8 = 0x21;
    /// Login Response.
    pub const LOGIN: u8 = 0x23;
    /// SCSI Data-In.
    pub const DATA_IN: u8 = 0x25;
    /// Logout Response.
    pub const LOGOUT: u8 = 0x26;
    /// Ready To Transfer.
    pub const R2T: u8 = 0x31;
    /// Asynchronous Message.
    pub const ASYNC: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3F;
}

/// Bits of byte 1.
pub mod flags {
    /// Final; in a login PDU: transit.
    pub const FINAL: u8 = 0x80;
    /// SCSI Command: data come.
    pub const READ: u8 = 0x40;
    /// SCSI Command: data go.
    pub const WRITE: u8 = 0x20;
    /// SCSI Command: the task attribute SIMPLE.
    pub const SIMPLE: u8 = 0x01;
    /// Login: the text goes on in the next PDU.
    pub const CONTINUE: u8 = 0x40;
    /// SCSI Response and Data-In: more was there than was asked for.
    pub const OVERFLOW: u8 = 0x04;
    /// SCSI Response and Data-In: less was there than was asked for.
    pub const UNDERFLOW: u8 = 0x02;
    /// Data-In: the status of the command is here.
    pub const STATUS: u8 = 0x01;
}

/// A header from the initiator.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Request {
    /// Opcode and the immediate bit.
    pub opcode: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Login: the highest and the lowest version. Elsewhere zero.
    pub versions: [u8; 2],
    /// Length of additional header segments, in words of 4 bytes.
    pub ahs_words: u8,
    /// Length of the data segment without padding, in bytes.
    pub data_bytes: [u8; 3],
    /// The LUN; Login: ISID and TSIH.
    pub lun: [u8; 8],
    /// Initiator task tag.
    pub itt: U32,
    /// SCSI Command: expected data transfer length. Data-Out, NOP-Out: target transfer tag. Login, Logout: CID in
    /// the upper half.
    pub tag: U32,
    /// CmdSN; zero in Data-Out.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// SCSI Command: the CDB. Data-Out: 4 bytes, DataSN, buffer offset, 4 bytes.
    pub cdb: [u8; 16],
}

/// A header from the target.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Answer {
    /// Opcode.
    pub opcode: u8,
    /// See [`flags`].
    pub flags: u8,
    /// SCSI Response, Logout Response: the response. Reject: the reason. Login: the highest version.
    pub response: u8,
    /// SCSI Response, Data-In: SCSI status. Login: the active version.
    pub status: u8,
    /// Length of additional header segments, in words of 4 bytes.
    pub ahs_words: u8,
    /// Length of the data segment without padding, in bytes.
    pub data_bytes: [u8; 3],
    /// The LUN; Login: ISID and TSIH.
    pub lun: [u8; 8],
    /// Initiator task tag.
    pub itt: U32,
    /// Target transfer tag.
    pub ttt: U32,
    /// StatSN.
    pub stat_sn: U32,
    /// ExpCmdSN.
    pub exp_cmd_sn: U32,
    /// MaxCmdSN.
    pub max_cmd_sn: U32,
    /// Data-In: DataSN. R2T: R2TSN. SCSI Response: ExpDataSN. Login: status class, status detail and two more
    /// bytes. Async Message: event, vendor code and two bytes.
    pub sn: U32,
    /// Data-In, R2T: buffer offset.
    pub offset: U32,
    /// SCSI Response, Data-In: residual count. R2T: desired data transfer length.
    pub length: U32,
}

const _: () = assert!(size_of::<Request>() == BHS_BYTES && size_of::<Answer>() == BHS_BYTES);

impl Request {
    /// A header of `opcode` with `flags`, everything else zero.
    #[must_use]
    pub fn new(opcode: u8, flags: u8) -> Self {
        let mut request = Self::new_zeroed();
        (request.opcode, request.flags) = (opcode, flags);
        request
    }

    /// Sets the length of the data segment; at most 2^24 - 1 bytes.
    pub fn set_data_bytes(&mut self, bytes: u32) {
        self.data_bytes.copy_from_slice(&bytes.to_be_bytes()[1..]);
    }

    /// Sets DataSN and buffer offset of a Data-Out.
    pub fn set_data_place(&mut self, data_sn: u32, offset: u32) {
        self.cdb[4..8].copy_from_slice(&data_sn.to_be_bytes());
        self.cdb[8..12].copy_from_slice(&offset.to_be_bytes());
    }
}

impl Answer {
    /// The length of the data segment without padding, in bytes.
    #[inline]
    #[must_use]
    pub fn data_bytes(&self) -> u32 {
        let [high, middle, low] = self.data_bytes;
        u32::from_be_bytes([0, high, middle, low])
    }
}

/// Bytes that fill `bytes` up to a multiple of 4.
#[inline]
#[must_use]
pub const fn padding(bytes: u32) -> u32 {
    bytes.wrapping_neg() & 3
}

/// LUN `lun` as 8 bytes: single level, peripheral addressing below 256, flat space addressing above (SAM-5,
/// section 4.7). None above 16383.
#[must_use]
pub fn lun_field(lun: u16) -> Option<[u8; 8]> {
    let field = match lun {
        0..256 => lun,
        256..0x4000 => 0x4000 | lun,
        _ => return None,
    };
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(U16::new(field).as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_has_them() {
        let mut request = Request::new(request::DATA_OUT, flags::FINAL);
        request.set_data_bytes(0x0001_0203);
        (request.itt, request.tag) = (U32::new(0x1011_1213), U32::new(0x1415_1617));
        (request.cmd_sn, request.exp_stat_sn) = (U32::new(0x1819_1A1B), U32::new(0x1C1D_1E1F));
        request.set_data_place(0x2425_2627, 0x2829_2A2B);
        let bytes = request.as_bytes();
        assert_eq!(bytes[..8], [5, 0x80, 0, 0, 0, 1, 2, 3]);
        assert!(bytes[16..32].iter().zip(0x10..).all(|(&byte, at)| byte == at));
        assert!(bytes[36..44].iter().zip(0x24..).all(|(&byte, at)| byte == at));
        let bytes: [u8; BHS_BYTES] = std::array::from_fn(|at| at as u8);
        let answer = Answer::read_from_bytes(&bytes).unwrap();
        assert_eq!((answer.response, answer.status, answer.data_bytes()), (2, 3, 0x0005_0607));
        assert_eq!((answer.itt.get(), answer.ttt.get()), (0x1011_1213, 0x1415_1617));
        assert_eq!((answer.stat_sn.get(), answer.max_cmd_sn.get()), (0x1819_1A1B, 0x2021_2223));
        assert_eq!((answer.sn.get(), answer.offset.get()), (0x2425_2627, 0x2829_2A2B));
        assert_eq!(answer.length.get(), 0x2C2D_2E2F);
    }

    #[test]
    fn padding_fills_words() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(padding), [0, 3, 2, 1, 0, 3]);
    }

    #[test]
    fn luns_are_encoded_by_size() {
        assert_eq!(lun_field(7), Some([0, 7, 0, 0, 0, 0, 0, 0]));
        assert_eq!(lun_field(0x1234), Some([0x52, 0x34, 0, 0, 0, 0, 0, 0]));
        assert_eq!(lun_field(0x4000), None);
    }
}
