//! Headers from the initiator.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bhs::{BHS_BYTES, Length};

/// SCSI Command (RFC 7143, section 11.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ScsiCommand {
    /// I and 01h.
    pub opcode: u8,
    /// F, R (40h), W (20h) and the task attribute in the low three bits.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows.
    pub length: Length,
    /// The logical unit number.
    pub lun: U64,
    /// The initiator task tag.
    pub itt: U32,
    /// Expected Data Transfer Length, bytes.
    pub expected_bytes: U32,
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// The first 16 bytes of the command descriptor block.
    pub cdb: [u8; 16],
}

impl ScsiCommand {
    /// R: the command reads.
    pub const READ: u8 = 0x40;
    /// W: the command writes.
    pub const WRITE: u8 = 0x20;
}

/// SCSI Task Management Function Request (section 11.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TaskManagement {
    /// I and 02h.
    pub opcode: u8,
    /// 80h and the function.
    pub function: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows: nothing.
    pub length: Length,
    /// The logical unit number.
    pub lun: U64,
    /// The initiator task tag of the function itself.
    pub itt: U32,
    /// The task concerned.
    pub referenced_tag: U32,
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// The CmdSN of the task concerned.
    pub referenced_cmd_sn: U32,
    /// ExpDataSN, for TASK REASSIGN.
    pub exp_data_sn: U32,
    /// Reserved.
    pub reserved2: [u8; 8],
}

/// Task management functions (section 11.5.1).
pub mod function {
    /// One task.
    pub const ABORT_TASK: u8 = 1;
    /// All of the session's tasks on a logical unit.
    pub const ABORT_TASK_SET: u8 = 2;
    /// Auto contingent allegiance.
    pub const CLEAR_ACA: u8 = 3;
    /// All tasks of all sessions on a logical unit.
    pub const CLEAR_TASK_SET: u8 = 4;
    /// The logical unit.
    pub const LOGICAL_UNIT_RESET: u8 = 5;
    /// All logical units.
    pub const TARGET_WARM_RESET: u8 = 6;
    /// All logical units, and all sessions end.
    pub const TARGET_COLD_RESET: u8 = 7;
    /// A task to another connection.
    pub const TASK_REASSIGN: u8 = 8;
}

/// SCSI Data-Out (section 11.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataOut {
    /// 05h.
    pub opcode: u8,
    /// F.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows.
    pub length: Length,
    /// The logical unit number. Windows gets it wrong.
    pub lun: U64,
    /// The initiator task tag.
    pub itt: U32,
    /// The target transfer tag of the R2T; all ones for unsolicited data.
    pub ttt: U32,
    /// Reserved.
    pub reserved2: [u8; 4],
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved.
    pub reserved3: [u8; 4],
    /// The number of the PDU in its sequence.
    pub data_sn: U32,
    /// Where the data belong, bytes from the beginning of the transfer.
    pub offset: U32,
    /// Reserved.
    pub reserved4: [u8; 4],
}

/// Text Request (section 11.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Text {
    /// I and 04h.
    pub opcode: u8,
    /// F and C.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows.
    pub length: Length,
    /// The logical unit number, as the target gave it with its tag.
    pub lun: U64,
    /// The initiator task tag.
    pub itt: U32,
    /// The target transfer tag of the last response; all ones at first.
    pub ttt: U32,
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved.
    pub reserved2: [u8; 16],
}

/// An initiator's part of a session's name (section 11.12.5).
pub type Isid = [u8; 6];

/// Login Request (section 11.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Login {
    /// 43h; some send 03h.
    pub opcode: u8,
    /// T, C, CSG (bits 3:2) and NSG (bits 1:0).
    pub flags: u8,
    /// The highest version the initiator knows.
    pub version_max: u8,
    /// The lowest version the initiator knows.
    pub version_min: u8,
    /// What follows.
    pub length: Length,
    /// The initiator's part of the session identifier.
    pub isid: Isid,
    /// The target's part; 0 for a new session.
    pub tsih: U16,
    /// The initiator task tag, the same in the whole login.
    pub itt: U32,
    /// The connection's number in its session.
    pub cid: U16,
    /// Reserved.
    pub reserved: [u8; 2],
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved.
    pub reserved2: [u8; 16],
}

/// Logout Request (section 11.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Logout {
    /// I and 06h.
    pub opcode: u8,
    /// 80h and the reason: 0 the session, 1 the connection, 2 the connection for recovery.
    pub reason: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows: nothing.
    pub length: Length,
    /// Reserved.
    pub reserved2: [u8; 8],
    /// The initiator task tag.
    pub itt: U32,
    /// The connection concerned.
    pub cid: U16,
    /// Reserved.
    pub reserved3: [u8; 2],
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved.
    pub reserved4: [u8; 16],
}

/// NOP-Out (section 11.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NopOut {
    /// I and 00h.
    pub opcode: u8,
    /// 80h.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows.
    pub length: Length,
    /// As in the NOP-In that is answered.
    pub lun: U64,
    /// The initiator task tag; all ones where no answer is wanted.
    pub itt: U32,
    /// The target transfer tag of the NOP-In that is answered, or all ones.
    pub ttt: U32,
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved.
    pub reserved2: [u8; 16],
}

const _: () = assert!(size_of::<ScsiCommand>() == BHS_BYTES);
const _: () = assert!(size_of::<TaskManagement>() == BHS_BYTES);
const _: () = assert!(size_of::<DataOut>() == BHS_BYTES);
const _: () = assert!(size_of::<Text>() == BHS_BYTES);
const _: () = assert!(size_of::<Login>() == BHS_BYTES);
const _: () = assert!(size_of::<Logout>() == BHS_BYTES);
const _: () = assert!(size_of::<NopOut>() == BHS_BYTES);
