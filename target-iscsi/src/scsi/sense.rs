//! Sense data (SPC-4, section 4.5), and why a command ends without success.

use super::{Answer, Data, Status};

/// Sense keys (SPC-4, table 48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Key {
    /// nothing to report
    NoSense = 0x0,
    /// not accessible now
    NotReady = 0x2,
    /// the medium failed
    MediumError = 0x3,
    /// the device failed
    HardwareError = 0x4,
    /// the command is wrong
    IllegalRequest = 0x5,
    /// something changed since the last command
    UnitAttention = 0x6,
    /// the blocks are protected
    DataProtect = 0x7,
    /// a copy was ended
    CopyAborted = 0xA,
    /// the device server ended the command
    AbortedCommand = 0xB,
    /// the data differ
    Miscompare = 0xE,
}

/// An additional sense code and its qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asc(pub u8, pub u8);

impl Asc {
    /// NO ADDITIONAL SENSE INFORMATION
    pub const NONE: Self = Self(0x00, 0x00);
    /// LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION
    pub const IN_TRANSITION: Self = Self(0x04, 0x0A);
    /// LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE
    pub const PORT_UNAVAILABLE: Self = Self(0x04, 0x0C);
    /// PERIPHERAL DEVICE WRITE FAULT
    pub const WRITE_FAULT: Self = Self(0x03, 0x00);
    /// WRITE ERROR
    pub const WRITE_ERROR: Self = Self(0x0C, 0x00);
    /// THIRD PARTY DEVICE FAILURE
    pub const THIRD_PARTY_FAILURE: Self = Self(0x0D, 0x01);
    /// COPY TARGET DEVICE NOT REACHABLE
    pub const COPY_TARGET_NOT_REACHABLE: Self = Self(0x0D, 0x02);
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the initiator sends another number of bytes than the command needs
    pub const INFORMATION_UNIT: Self = Self(0x0E, 0x03);
    /// UNRECOVERED READ ERROR
    pub const READ_ERROR: Self = Self(0x11, 0x00);
    /// PARAMETER LIST LENGTH ERROR
    pub const PARAMETER_LENGTH: Self = Self(0x1A, 0x00);
    /// MISCOMPARE DURING VERIFY OPERATION
    pub const MISCOMPARE: Self = Self(0x1D, 0x00);
    /// INVALID COMMAND OPERATION CODE
    pub const OPERATION_CODE: Self = Self(0x20, 0x00);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE
    pub const LBA_RANGE: Self = Self(0x21, 0x00);
    /// INVALID FIELD IN CDB
    pub const CDB_FIELD: Self = Self(0x24, 0x00);
    /// LOGICAL UNIT NOT SUPPORTED
    pub const NO_UNIT: Self = Self(0x25, 0x00);
    /// INVALID FIELD IN PARAMETER LIST
    pub const PARAMETER_FIELD: Self = Self(0x26, 0x00);
    /// INVALID RELEASE OF PERSISTENT RESERVATION
    pub const INVALID_RELEASE: Self = Self(0x26, 0x04);
    /// TOO MANY TARGET DESCRIPTORS
    pub const TOO_MANY_CSCDS: Self = Self(0x26, 0x06);
    /// UNSUPPORTED TARGET DESCRIPTOR TYPE CODE
    pub const CSCD_TYPE: Self = Self(0x26, 0x07);
    /// TOO MANY SEGMENT DESCRIPTORS
    pub const TOO_MANY_SEGMENTS: Self = Self(0x26, 0x08);
    /// UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE
    pub const SEGMENT_TYPE: Self = Self(0x26, 0x09);
    /// WRITE PROTECTED
    pub const WRITE_PROTECTED: Self = Self(0x27, 0x00);
    /// LOGICAL UNIT SOFTWARE WRITE PROTECTED
    pub const SOFTWARE_PROTECTED: Self = Self(0x27, 0x02);
    /// SPACE ALLOCATION FAILED WRITE PROTECT
    pub const NO_SPACE: Self = Self(0x27, 0x07);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED
    pub const POWER_ON: Self = Self(0x29, 0x00);
    /// BUS DEVICE RESET FUNCTION OCCURRED: LOGICAL UNIT RESET
    pub const DEVICE_RESET: Self = Self(0x29, 0x03);
    /// I_T NEXUS LOSS OCCURRED
    pub const NEXUS_LOSS: Self = Self(0x29, 0x07);
    /// MODE PARAMETERS CHANGED
    pub const MODE_CHANGED: Self = Self(0x2A, 0x01);
    /// RESERVATIONS PREEMPTED
    pub const RESERVATIONS_PREEMPTED: Self = Self(0x2A, 0x03);
    /// RESERVATIONS RELEASED
    pub const RESERVATIONS_RELEASED: Self = Self(0x2A, 0x04);
    /// REGISTRATIONS PREEMPTED
    pub const REGISTRATIONS_PREEMPTED: Self = Self(0x2A, 0x05);
    /// ASYMMETRIC ACCESS STATE CHANGED
    pub const ALUA_CHANGED: Self = Self(0x2A, 0x06);
    /// CAPACITY DATA HAS CHANGED
    pub const CAPACITY_CHANGED: Self = Self(0x2A, 0x09);
    /// COMMANDS CLEARED BY ANOTHER INITIATOR
    pub const COMMANDS_CLEARED: Self = Self(0x2F, 0x00);
    /// THIN PROVISIONING SOFT THRESHOLD REACHED
    pub const SOFT_THRESHOLD: Self = Self(0x38, 0x07);
    /// SAVING PARAMETERS NOT SUPPORTED
    pub const NO_SAVING: Self = Self(0x39, 0x00);
    /// INQUIRY DATA HAS CHANGED
    pub const INQUIRY_CHANGED: Self = Self(0x3F, 0x03);
    /// REPORTED LUNS DATA HAS CHANGED
    pub const LUNS_CHANGED: Self = Self(0x3F, 0x0E);
    /// INTERNAL TARGET FAILURE
    pub const TARGET_FAILURE: Self = Self(0x44, 0x00);
    /// INVALID MESSAGE ERROR
    pub const INVALID_MESSAGE: Self = Self(0x49, 0x00);
    /// SYSTEM RESOURCE FAILURE
    pub const NO_RESOURCES: Self = Self(0x55, 0x00);
    /// INSUFFICIENT REGISTRATION RESOURCES
    pub const NO_REGISTRATION_RESOURCES: Self = Self(0x55, 0x04);
    /// INSUFFICIENT RESOURCES TO CREATE ROD TOKEN
    pub const NO_TOKEN_RESOURCES: Self = Self(0x55, 0x0D);
    /// SET TARGET PORT GROUPS COMMAND FAILED
    pub const SET_GROUPS_FAILED: Self = Self(0x67, 0x0A);
}

/// Where the wrong field is (SPC-4, section 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPointer {
    /// In the CDB, or in the parameter list.
    pub in_cdb: bool,
    /// Which byte.
    pub byte: u16,
    /// Its leftmost wrong bit; `None` for a field of bytes.
    pub bit: Option<u8>,
}

/// What sense data say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The sense key.
    pub key: Key,
    /// The additional sense code.
    pub asc: Asc,
    /// INFORMATION, where it is valid.
    pub information: Option<u64>,
    /// The wrong field, where it is known.
    pub field: Option<FieldPointer>,
}

impl Sense {
    /// Sense data without further information.
    #[must_use]
    pub const fn new(key: Key, asc: Asc) -> Self {
        Self { key, asc, information: None, field: None }
    }

    /// ILLEGAL REQUEST.
    #[must_use]
    pub const fn illegal(asc: Asc) -> Self {
        Self::new(Key::IllegalRequest, asc)
    }

    /// INVALID FIELD IN CDB, at `byte`.
    #[must_use]
    pub const fn cdb(byte: u16) -> Self {
        let field = FieldPointer { in_cdb: true, byte, bit: None };
        Self { field: Some(field), ..Self::illegal(Asc::CDB_FIELD) }
    }

    /// INVALID FIELD IN CDB, at `bit` of `byte`.
    #[must_use]
    pub const fn cdb_bit(byte: u16, bit: u8) -> Self {
        let field = FieldPointer { in_cdb: true, byte, bit: Some(bit) };
        Self { field: Some(field), ..Self::illegal(Asc::CDB_FIELD) }
    }

    /// INVALID FIELD IN PARAMETER LIST, at `byte`.
    #[must_use]
    pub const fn parameter(byte: u16) -> Self {
        let field = FieldPointer { in_cdb: false, byte, bit: None };
        Self { field: Some(field), ..Self::illegal(Asc::PARAMETER_FIELD) }
    }

    /// The bytes, for `descriptor` format or fixed format (18 bytes).
    #[must_use]
    pub fn bytes(&self, descriptor: bool) -> Box<[u8]> {
        if descriptor { self.descriptor_bytes().into() } else { Box::from(self.fixed_bytes()) }
    }

    fn fixed_bytes(&self) -> [u8; 18] {
        let mut out = [0; 18];
        out[0] = 0x70;
        out[2] = self.key as u8;
        // A field of 32 bits: what does not fit is left out, and so is VALID.
        if let Some(Ok(information)) = self.information.map(u32::try_from) {
            out[0] |= 0x80;
            out[3..7].copy_from_slice(&information.to_be_bytes());
        }
        out[7] = 10;
        out[12] = self.asc.0;
        out[13] = self.asc.1;
        if let Some(field) = self.field {
            out[15..18].copy_from_slice(&field.bytes());
        }
        out
    }

    fn descriptor_bytes(&self) -> Vec<u8> {
        let mut out = vec![0x72, self.key as u8, self.asc.0, self.asc.1, 0, 0, 0, 0];
        if let Some(information) = self.information {
            out.extend([0x00, 0x0A, 0x80, 0x00]);
            out.extend(information.to_be_bytes());
        }
        if let Some(field) = self.field {
            let [a, b, c] = field.bytes();
            out.extend([0x02, 0x06, 0, 0, a, b, c, 0]);
        }
        out[7] = (out.len() - 8) as u8;
        out
    }
}

impl FieldPointer {
    fn bytes(self) -> [u8; 3] {
        let bit = self.bit.map_or(0, |bit| 0x08 | (bit & 0x07));
        let [high, low] = self.byte.to_be_bytes();
        [0x80 | if self.in_cdb { 0x40 } else { 0 } | bit, high, low]
    }
}

/// Why a command ends without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// CHECK CONDITION
    Check(Sense),
    /// another status, without sense data
    Status(Status),
}

impl From<Sense> for Failure {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Failure {
    /// The answer, with sense data in `descriptor` or fixed format.
    #[must_use]
    pub fn answer(self, descriptor: bool) -> Answer {
        let (status, sense) = match self {
            Self::Check(sense) => (Status::CheckCondition, Some(sense.bytes(descriptor))),
            Self::Status(status) => (status, None),
        };
        Answer { status, sense, data: Data::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format_has_the_field_and_the_information() {
        let sense = Sense { information: Some(0x0102_0304), ..Sense::cdb_bit(9, 3) };
        let bytes = sense.bytes(false);
        assert_eq!(&bytes[..8], &[0xF0, 0, 5, 1, 2, 3, 4, 10]);
        assert_eq!(&bytes[12..], &[0x24, 0, 0, 0xCB, 0, 9]);
    }

    #[test]
    fn information_beyond_32_bits_needs_descriptors() {
        let sense = Sense { information: Some(1 << 40), ..Sense::new(Key::Miscompare, Asc::MISCOMPARE) };
        assert_eq!(sense.bytes(false)[0], 0x70);
        let want = [0x72, 0xE, 0x1D, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(&sense.bytes(true)[..], &want);
        let want = [0x72, 5, 0x26, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, 1, 2, 0];
        assert_eq!(&Sense::parameter(0x102).bytes(true)[..], &want);
    }
}
