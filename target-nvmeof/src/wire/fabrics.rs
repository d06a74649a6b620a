//! Fabrics commands (Base, section 6): the command's dwords 10 to 15 by name, and Connect's data.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Sqe;

/// Connect, bytes 63:40 of the command (Base, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectCommand {
    /// Bytes 41:40: RECFMT, the format of this command and its data; 0.
    pub record_format: U16,
    /// Bytes 43:42: QID, 0 for the admin queue.
    pub queue_id: U16,
    /// Bytes 45:44: SQSIZE, the entries of the queue, 0's based.
    pub queue_size: U16,
    /// Byte 46: CATTR; bit 2 switches submission queue flow control off.
    pub attributes: u8,
    /// Byte 47: reserved.
    pub reserved: u8,
    /// Bytes 51:48: KATO, the keep-alive timeout in milliseconds; 0 for none.
    pub keep_alive_ms: U32,
    /// Bytes 63:52: reserved.
    pub reserved_52: [u8; 12],
}

const _: () = assert!(size_of::<ConnectCommand>() == 24);

/// CATTR bit 2: the host wants no submission queue flow control.
pub const CATTR_DISABLE_SQ_FLOW_CONTROL: u8 = 1 << 2;

/// Connect's data (Base, section 6.3), 1024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    /// Bytes 15:0: HOSTID.
    pub host_id: [u8; 16],
    /// Bytes 17:16: CNTLID; FFFFh asks for any controller.
    pub controller_id: U16,
    /// Bytes 255:18: reserved.
    pub reserved: [u8; 238],
    /// Bytes 511:256: SUBNQN, NUL-terminated.
    pub subsystem_nqn: [u8; 256],
    /// Bytes 767:512: HOSTNQN, NUL-terminated.
    pub host_nqn: [u8; 256],
    /// Bytes 1023:768: reserved.
    pub reserved_768: [u8; 256],
}

const _: () = assert!(size_of::<ConnectData>() == CONNECT_DATA_BYTES as usize);

/// The length of Connect's data.
pub const CONNECT_DATA_BYTES: u32 = 1024;
/// CNTLID of a Connect that takes any controller (the dynamic controller model).
pub const CONTROLLER_ANY: u16 = 0xFFFF;

/// Property Get and Property Set, bytes 63:40 of the command (Base, sections 6.5 and 6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PropertyCommand {
    /// Byte 40: ATTRIB; bits 2:0 are 000b for a property of 4 bytes, 001b for one of 8.
    pub attributes: u8,
    /// Bytes 43:41: reserved.
    pub reserved: [u8; 3],
    /// Bytes 47:44: OFST, the property's offset.
    pub offset: U32,
    /// Bytes 55:48: VALUE, of Property Set.
    pub value: U64,
    /// Bytes 63:56: reserved.
    pub reserved_56: [u8; 8],
}

const _: () = assert!(size_of::<PropertyCommand>() == 24);

/// Offsets of properties (Base, section 3.1.3).
pub mod property {
    /// CAP, controller capabilities: 8 bytes.
    pub const CAPABILITIES: u32 = 0x00;
    /// VS, version.
    pub const VERSION: u32 = 0x08;
    /// CC, controller configuration.
    pub const CONFIGURATION: u32 = 0x14;
    /// CSTS, controller status.
    pub const STATUS: u32 = 0x1C;
}

impl Sqe {
    fn command_specific(&self) -> &[u8; 24] {
        self.as_bytes().last_chunk().expect("a command has 64 bytes")
    }

    /// The command as a Connect.
    #[must_use]
    pub fn as_connect(&self) -> ConnectCommand {
        zerocopy::transmute!(*self.command_specific())
    }

    /// The command as a Property Get or Property Set.
    #[must_use]
    pub fn as_property(&self) -> PropertyCommand {
        zerocopy::transmute!(*self.command_specific())
    }
}

/// The text of a NUL-terminated field, where it is terminated, is UTF-8, has no control characters and is at
/// most 223 bytes long, as an NQN must be (Base, section 4.5).
#[must_use]
pub fn nqn(field: &[u8; 256]) -> Option<&str> {
    const NQN_BYTES_MAX: usize = 223;
    let end = field.iter().position(|&byte| byte == 0)?;
    let text = str::from_utf8(&field[..end]).ok()?;
    (end <= NQN_BYTES_MAX && !text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
}
