//! The basic header segment: what all PDUs have in common (RFC 7143, section 11.2.1).

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a basic header segment.
pub const BHS_BYTES: usize = 48;

/// The tag that names no task.
pub const NO_TAG: u32 = u32::MAX;

/// Opcodes (section 11.2.1.2).
pub mod opcode {
    /// The bit that asks for immediate delivery.
    pub const IMMEDIATE: u8 = 0x40;
    /// The bits of the opcode itself.
    pub const MASK: u8 = 0x3F;

    /// NOP-Out.
    pub const NOP_OUT: u8 = 0x00;
    /// SCSI Command.
    pub const SCSI_COMMAND: u8 = 0x01;
    /// SCSI Task Management Function Request.
    pub const TASK_MANAGEMENT: u8 = 0x02;
    /// Login Request.
    pub const LOGIN: u8 = 0x03;
    /// Text Request.
    pub const TEXT: u8 = 0x04;
    /// SCSI Data-Out.
    pub const DATA_OUT: u8 = 0x05;
    /// Logout Request.
    pub const LOGOUT: u8 = 0x06;
    /// SNACK Request.
    pub const SNACK: u8 = 0x10;

    /// NOP-In.
    pub const NOP_IN: u8 = 0x20;
    /// SCSI Response.
    pub const SCSI_RESPONSE: u8 = 0x21;
    /// SCSI Task Management Function Response.
    pub const TASK_MANAGEMENT_RESPONSE: u8 = 0x22;
    /// Login Response.
    pub const LOGIN_RESPONSE: u8 = 0x23;
    /// Text Response.
    pub const TEXT_RESPONSE: u8 = 0x24;
    /// SCSI Data-In.
    pub const DATA_IN: u8 = 0x25;
    /// Logout Response.
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    /// Ready To Transfer.
    pub const R2T: u8 = 0x31;
    /// Asynchronous Message.
    pub const ASYNC: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3F;
}

/// TotalAHSLength and DataSegmentLength: bytes 4 to 7 of each header.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Length {
    ahs_words: u8,
    data: [u8; 3],
}

impl Length {
    /// Without additional headers; `data` bytes of data, below 2^24.
    #[must_use]
    pub const fn of_data(data: u32) -> Self {
        let [_, a, b, c] = data.to_be_bytes();
        Self { ahs_words: 0, data: [a, b, c] }
    }

    /// The same with `words` of four bytes of additional header segments.
    #[must_use]
    pub const fn with_ahs_words(self, words: u8) -> Self {
        Self { ahs_words: words, ..self }
    }

    /// Bytes of additional header segments.
    #[must_use]
    pub const fn ahs_bytes(self) -> usize {
        self.ahs_words as usize * 4
    }

    /// Bytes of data, without padding.
    #[must_use]
    pub const fn data_bytes(self) -> u32 {
        u32::from_be_bytes([0, self.data[0], self.data[1], self.data[2]])
    }
}

/// A header of which only the common fields are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Bhs {
    /// The I bit and the opcode.
    pub opcode: u8,
    /// F and what is specific to the opcode.
    pub flags: u8,
    /// Specific to the opcode.
    pub specific: [u8; 2],
    /// What follows the header.
    pub length: Length,
    /// The logical unit number, or specific to the opcode.
    pub lun: U64,
    /// The initiator task tag.
    pub itt: U32,
    /// Specific to the opcode.
    pub rest: [u8; 28],
}

impl Bhs {
    /// The opcode without the I bit.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.opcode & opcode::MASK
    }

    /// Whether immediate delivery is asked for.
    #[must_use]
    pub const fn is_immediate(&self) -> bool {
        self.opcode & opcode::IMMEDIATE != 0
    }
}

/// F: the last PDU of a sequence (in login T: to the next stage).
pub const FINAL: u8 = 0x80;
/// C: the text goes on in the next PDU.
pub const CONTINUE: u8 = 0x40;

const _: () = assert!(size_of::<Bhs>() == BHS_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_24_bits_big_endian() {
        let length = Length::of_data(0x01_2345).with_ahs_words(3);
        assert_eq!(length.as_bytes(), [3, 1, 0x23, 0x45]);
        assert_eq!((length.ahs_bytes(), length.data_bytes()), (12, 0x01_2345));
    }
}
