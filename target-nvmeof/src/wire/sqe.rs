//! Submission queue entry (Base, section 3.3.3.1) and its SGL descriptor (Base, section 4.1.2).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A command, 64 bytes, as it lies in a capsule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Sqe {
    /// Byte 0: opcode.
    pub opcode: u8,
    /// Byte 1: FUSE in bits 1:0, PSDT in bits 7:6.
    pub flags: u8,
    /// Bytes 3:2: command identifier.
    pub cid: U16,
    /// Bytes 7:4: namespace identifier. In Fabrics commands byte 4 is the command type.
    pub nsid: U32,
    /// Bytes 11:8.
    pub cdw2: U32,
    /// Bytes 15:12.
    pub cdw3: U32,
    /// Bytes 23:16: metadata pointer.
    pub mptr: U64,
    /// Bytes 39:24: data pointer.
    pub sgl: Sgl,
    /// Bytes 43:40.
    pub cdw10: U32,
    /// Bytes 47:44.
    pub cdw11: U32,
    /// Bytes 51:48.
    pub cdw12: U32,
    /// Bytes 55:52.
    pub cdw13: U32,
    /// Bytes 59:56.
    pub cdw14: U32,
    /// Bytes 63:60.
    pub cdw15: U32,
}

const _: () = assert!(size_of::<Sqe>() == 64);

/// An SGL descriptor, 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Sgl {
    /// Bytes 7:0: address, or the offset in the capsule.
    pub address: U64,
    /// Bytes 11:8: length in bytes.
    pub length: U32,
    /// Bytes 14:12: reserved.
    pub reserved: [u8; 3],
    /// Byte 15: descriptor type in bits 7:4, subtype in bits 3:0.
    pub identifier: u8,
}

const _: () = assert!(size_of::<Sgl>() == 16);

/// SGL identifier: data block, subtype offset: the data is in the capsule.
pub const SGL_IN_CAPSULE: u8 = 0x01;
/// SGL identifier: transport data block, subtype Ah: the data goes by R2T or C2HData.
pub const SGL_TRANSPORT: u8 = 0x5A;

/// FUSE: the position in a fused pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuse {
    /// 00b: not fused.
    None,
    /// 01b: the first of a pair.
    First,
    /// 10b: the second of a pair.
    Second,
    /// 11b.
    Reserved,
}

impl Sqe {
    /// An empty command, to be filled in. For clients and tests.
    #[must_use]
    pub fn zeroed() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }

    /// FUSE, bits 1:0 of byte 1.
    #[must_use]
    pub const fn fuse(&self) -> Fuse {
        match self.flags & 3 {
            0 => Fuse::None,
            1 => Fuse::First,
            2 => Fuse::Second,
            _ => Fuse::Reserved,
        }
    }

    /// PSDT, bits 7:6 of byte 1.
    #[must_use]
    pub const fn psdt(&self) -> u8 {
        self.flags >> 6
    }

    /// Dwords 10 and 11 as one number: SLBA of the I/O commands.
    #[must_use]
    pub fn cdw10_11(&self) -> u64 {
        u64::from(self.cdw10.get()) | u64::from(self.cdw11.get()) << 32
    }

    /// The type of a Fabrics command (byte 4).
    #[must_use]
    pub fn fabrics_type(&self) -> u8 {
        self.nsid.get() as u8
    }
}

/// Opcodes of admin commands (Base, section 5).
pub mod admin {
    /// Get Log Page.
    pub const GET_LOG_PAGE: u8 = 0x02;
    /// Identify.
    pub const IDENTIFY: u8 = 0x06;
    /// Abort.
    pub const ABORT: u8 = 0x08;
    /// Set Features.
    pub const SET_FEATURES: u8 = 0x09;
    /// Get Features.
    pub const GET_FEATURES: u8 = 0x0A;
    /// Asynchronous Event Request.
    pub const ASYNC_EVENT: u8 = 0x0C;
    /// Keep Alive.
    pub const KEEP_ALIVE: u8 = 0x18;
    /// Fabrics commands, on either kind of queue.
    pub const FABRICS: u8 = 0x7F;
}

/// Opcodes of I/O commands (NVM, section 3; Base, section 7 for reservations).
pub mod io {
    /// Flush.
    pub const FLUSH: u8 = 0x00;
    /// Write.
    pub const WRITE: u8 = 0x01;
    /// Read.
    pub const READ: u8 = 0x02;
    /// Compare.
    pub const COMPARE: u8 = 0x05;
    /// Write Zeroes.
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: u8 = 0x09;
    /// Verify.
    pub const VERIFY: u8 = 0x0C;
    /// Reservation Register.
    pub const RESERVATION_REGISTER: u8 = 0x0D;
    /// Reservation Report.
    pub const RESERVATION_REPORT: u8 = 0x0E;
    /// Reservation Acquire.
    pub const RESERVATION_ACQUIRE: u8 = 0x11;
    /// Reservation Release.
    pub const RESERVATION_RELEASE: u8 = 0x15;
    /// Copy.
    pub const COPY: u8 = 0x19;
}

/// Types of Fabrics commands (Base, section 6).
pub mod fabrics {
    /// Property Set.
    pub const PROPERTY_SET: u8 = 0x00;
    /// Connect.
    pub const CONNECT: u8 = 0x01;
    /// Property Get.
    pub const PROPERTY_GET: u8 = 0x04;
    /// Authentication Send.
    pub const AUTHENTICATION_SEND: u8 = 0x05;
    /// Authentication Receive.
    pub const AUTHENTICATION_RECEIVE: u8 = 0x06;
    /// Disconnect.
    pub const DISCONNECT: u8 = 0x08;
}
