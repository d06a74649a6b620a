//! Completion status (Base, section 3.3.3.2.1 and figures "Status Code").

use std::fmt;

/// A status: SCT in bits 11:8, SC in bits 7:0, and the Do Not Retry bit in bit 14; as the 15-bit status field
/// of a completion has them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

const DNR: u16 = 1 << 14;

impl Status {
    const fn generic(sc: u8) -> Self {
        Self(sc as u16 | DNR)
    }

    const fn specific(sc: u8) -> Self {
        Self(0x100 | sc as u16 | DNR)
    }

    const fn media(sc: u8) -> Self {
        Self(0x200 | sc as u16 | DNR)
    }

    const fn path(sc: u8) -> Self {
        Self(0x300 | sc as u16)
    }

    /// 0/00h. Success.
    pub const SUCCESS: Self = Self(0);
    /// 0/01h. The opcode is not known here.
    pub const INVALID_OPCODE: Self = Self::generic(0x01);
    /// 0/02h. A field has a value that is not allowed.
    pub const INVALID_FIELD: Self = Self::generic(0x02);
    /// 0/03h. The command identifier is in use.
    pub const COMMAND_ID_CONFLICT: Self = Self::generic(0x03);
    /// 0/04h. The transfer failed.
    pub const DATA_TRANSFER_ERROR: Self = Self(0x04);
    /// 0/06h. Something inside failed.
    pub const INTERNAL_ERROR: Self = Self(0x06);
    /// 0/07h. Ended by Abort.
    pub const ABORTED_BY_REQUEST: Self = Self::generic(0x07);
    /// 0/08h. Ended because its queue was deleted.
    pub const ABORTED_SQ_DELETION: Self = Self::generic(0x08);
    /// 0/09h. The other command of the fused pair failed.
    pub const ABORTED_FAILED_FUSED: Self = Self::generic(0x09);
    /// 0/0Ah. The other command of the fused pair is missing.
    pub const ABORTED_MISSING_FUSED: Self = Self::generic(0x0A);
    /// 0/0Bh. The namespace or its format is invalid.
    pub const INVALID_NAMESPACE: Self = Self::generic(0x0B);
    /// 0/0Ch. Not allowed in this state.
    pub const COMMAND_SEQUENCE_ERROR: Self = Self::generic(0x0C);
    /// 0/0Fh. The data length disagrees with the command.
    pub const DATA_SGL_LENGTH_INVALID: Self = Self::generic(0x0F);
    /// 0/11h. The SGL descriptor type is not supported.
    pub const SGL_TYPE_INVALID: Self = Self::generic(0x11);
    /// 0/16h. The SGL offset is invalid.
    pub const SGL_OFFSET_INVALID: Self = Self::generic(0x16);
    /// 0/18h. Hosts' identifiers differ in format.
    pub const HOST_ID_INCONSISTENT: Self = Self::generic(0x18);
    /// 0/1Ah. The keep-alive timeout is invalid.
    pub const KEEP_ALIVE_INVALID: Self = Self::generic(0x1A);
    /// 0/1Bh. Ended by Preempt and Abort.
    pub const ABORTED_PREEMPT: Self = Self::generic(0x1B);
    /// 0/20h. The namespace is write protected.
    pub const WRITE_PROTECTED: Self = Self::generic(0x20);
    /// 0/22h. The transfer failed on its way; a retry may do. Without Do Not Retry.
    pub const TRANSIENT_TRANSPORT: Self = Self(0x22);
    /// 0/80h. Beyond the end of the namespace.
    pub const LBA_OUT_OF_RANGE: Self = Self::generic(0x80);
    /// 0/81h. No space is left below the namespace.
    pub const CAPACITY_EXCEEDED: Self = Self::generic(0x81);
    /// 0/82h. The namespace is not ready.
    pub const NAMESPACE_NOT_READY: Self = Self(0x82);
    /// 0/83h. A reservation forbids it.
    pub const RESERVATION_CONFLICT: Self = Self::generic(0x83);

    /// 1/02h. Log page 1/09h: the page is not supported.
    pub const INVALID_LOG_PAGE: Self = Self::specific(0x09);
    /// 1/03h. Too many Aborts at once.
    pub const ABORT_LIMIT: Self = Self::specific(0x03);
    /// 1/05h. Too many Asynchronous Event Requests.
    pub const AER_LIMIT: Self = Self::specific(0x05);
    /// 1/0Dh. The feature cannot be saved.
    pub const FEATURE_NOT_SAVEABLE: Self = Self::specific(0x0D);
    /// 1/0Eh. The feature cannot be changed.
    pub const FEATURE_NOT_CHANGEABLE: Self = Self::specific(0x0E);
    /// 1/80h (Fabrics). The record format is not known.
    pub const CONNECT_FORMAT: Self = Self::specific(0x80);
    /// 1/81h (Fabrics). The controller is in use; a retry may do.
    pub const CONNECT_BUSY: Self = Self(0x181);
    /// 1/82h (Fabrics). A parameter of Connect is invalid; DW0 says which.
    pub const CONNECT_PARAMETER: Self = Self::specific(0x82);
    /// 1/84h (Fabrics). The host may not connect.
    pub const CONNECT_HOST: Self = Self::specific(0x84);
    /// 1/91h (Fabrics). Authentication comes first.
    pub const AUTHENTICATION_REQUIRED: Self = Self::specific(0x91);
    /// 1/82h (NVM). A write to a read-only range.
    pub const WRITE_TO_READ_ONLY: Self = Self::specific(0x82);
    /// 1/83h (NVM). The command is larger than its limits.
    pub const COMMAND_SIZE_LIMIT: Self = Self::specific(0x83);

    /// 2/80h. The medium did not take the data.
    pub const WRITE_FAULT: Self = Self::media(0x80);
    /// 2/81h. The medium did not give the data.
    pub const UNRECOVERED_READ: Self = Self::media(0x81);
    /// 2/85h. Compare found a difference.
    pub const COMPARE_FAILURE: Self = Self::media(0x85);

    /// 3/00h. Something inside failed; another path may do.
    pub const PATH_INTERNAL: Self = Self::path(0x00);
    /// 3/01h. This path will never serve the namespace again.
    pub const ANA_PERSISTENT_LOSS: Self = Self::path(0x01);
    /// 3/02h. This path does not serve the namespace now.
    pub const ANA_INACCESSIBLE: Self = Self::path(0x02);
    /// 3/03h. This path is changing its state.
    pub const ANA_TRANSITION: Self = Self::path(0x03);

    /// Whether the command succeeded.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 & !DNR == 0
    }

    /// The status field as a completion carries it, with the phase bit (bit 0) clear.
    #[must_use]
    pub const fn field(self) -> u16 {
        self.0 << 1
    }

    /// The status of a completion's status field.
    #[must_use]
    pub const fn from_field(field: u16) -> Self {
        Self(field >> 1)
    }

    /// Status code type.
    #[must_use]
    pub const fn sct(self) -> u8 {
        (self.0 >> 8) as u8 & 7
    }

    /// Status code.
    #[must_use]
    pub const fn sc(self) -> u8 {
        self.0 as u8
    }

    /// The same status with the More bit (bit 13): the error log tells more.
    #[must_use]
    pub const fn more(self) -> Self {
        Self(self.0 | 1 << 13)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:02X}h", self.sct(), self.sc())?;
        if self.0 & DNR != 0 { f.write_str(" DNR") } else { Ok(()) }
    }
}
