//! Headers to the initiator. All carry StatSN, ExpCmdSN and MaxCmdSN in the same place: [`Numbers`].

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bhs::{BHS_BYTES, Length};
use super::request::Isid;

/// StatSN, ExpCmdSN and MaxCmdSN (RFC 7143, section 4.2.2): bytes 24 to 35.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Numbers {
    /// The number of this status, or the next.
    pub stat_sn: U32,
    /// The next command expected.
    pub exp_cmd_sn: U32,
    /// The last command that may be sent.
    pub max_cmd_sn: U32,
}

/// SCSI Response (section 11.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ScsiResponse {
    /// 21h.
    pub opcode: u8,
    /// 80h, O and U.
    pub flags: u8,
    /// 0: the command completed at the target.
    pub response: u8,
    /// The SCSI status.
    pub status: u8,
    /// What follows: sense data behind their length.
    pub length: Length,
    /// Reserved.
    pub reserved: [u8; 8],
    /// The initiator task tag.
    pub itt: U32,
    /// The SNACK tag: 0.
    pub snack_tag: U32,
    /// Numbers.
    pub numbers: Numbers,
    /// How many Data-In PDUs and R2Ts were sent.
    pub exp_data_sn: U32,
    /// Of bidirectional commands.
    pub bidirectional_residual: U32,
    /// The residual count, bytes.
    pub residual: U32,
}

/// O: the command needed more than the initiator offered.
pub const OVERFLOW: u8 = 0x04;
/// U: the command moved less than the initiator offered.
pub const UNDERFLOW: u8 = 0x02;

/// SCSI Task Management Function Response (section 11.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TaskManagementResponse {
    /// 22h.
    pub opcode: u8,
    /// 80h.
    pub flags: u8,
    /// See [`TmfStatus`].
    pub response: u8,
    /// Reserved.
    pub reserved: u8,
    /// What follows: nothing.
    pub length: Length,
    /// Reserved.
    pub reserved2: [u8; 8],
    /// The initiator task tag of the function.
    pub itt: U32,
    /// Reserved.
    pub reserved3: [u8; 4],
    /// Numbers.
    pub numbers: Numbers,
    /// Reserved.
    pub reserved4: [u8; 12],
}

/// How a task management function ended (section 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TmfStatus {
    /// done
    Complete = 0,
    /// there is no such task
    NoTask = 1,
    /// there is no such logical unit
    NoUnit = 2,
    /// reassignment needs ErrorRecoveryLevel 2
    ReassignNotSupported = 4,
    /// an unknown function
    NotSupported = 5,
    /// refused
    Rejected = 0xFF,
}

/// SCSI Data-In (section 11.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataIn {
    /// 25h.
    pub opcode: u8,
    /// F, A, O, U and S.
    pub flags: u8,
    /// Reserved.
    pub reserved: u8,
    /// The SCSI status, with S.
    pub status: u8,
    /// What follows.
    pub length: Length,
    /// The logical unit number, with A: 0.
    pub lun: U64,
    /// The initiator task tag.
    pub itt: U32,
    /// All ones: no SNACK is expected.
    pub ttt: U32,
    /// Numbers; StatSN only with S.
    pub numbers: Numbers,
    /// The number of the PDU in its command.
    pub data_sn: U32,
    /// Where the data belong, bytes from the beginning of the transfer.
    pub offset: U32,
    /// The residual count, with S: 0.
    pub residual: U32,
}

impl DataIn {
    /// S: the PDU carries the status, too.
    pub const STATUS: u8 = 0x01;
}

/// Ready To Transfer (section 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct R2t {
    /// 31h.
    pub opcode: u8,
    /// 80h.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows: nothing.
    pub length: Length,
    /// The logical unit number of the command.
    pub lun: U64,
    /// The initiator task tag.
    pub itt: U32,
    /// The target transfer tag.
    pub ttt: U32,
    /// Numbers; StatSN is the next.
    pub numbers: Numbers,
    /// The number of the R2T in its command.
    pub r2t_sn: U32,
    /// Where the data begin, bytes from the beginning of the transfer.
    pub offset: U32,
    /// How many bytes are wanted.
    pub wanted_bytes: U32,
}

/// Asynchronous Message (section 11.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Async {
    /// 32h.
    pub opcode: u8,
    /// 80h.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows: nothing.
    pub length: Length,
    /// The logical unit number of a SCSI event.
    pub lun: U64,
    /// All ones.
    pub itt: U32,
    /// Reserved.
    pub reserved2: [u8; 4],
    /// Numbers.
    pub numbers: Numbers,
    /// 1: the target wants the initiator to log out; 2: the connection ends; 3: all connections end.
    pub event: u8,
    /// Of vendors.
    pub vendor_code: u8,
    /// Specific to the event.
    pub parameter1: U16,
    /// Specific to the event.
    pub parameter2: U16,
    /// Specific to the event; event 1: within how many seconds.
    pub parameter3: U16,
    /// Reserved.
    pub reserved3: [u8; 4],
}

/// Text Response (section 11.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TextResponse {
    /// 24h.
    pub opcode: u8,
    /// F and C.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows.
    pub length: Length,
    /// 0.
    pub lun: U64,
    /// The initiator task tag.
    pub itt: U32,
    /// The target transfer tag; all ones with F.
    pub ttt: U32,
    /// Numbers.
    pub numbers: Numbers,
    /// Reserved.
    pub reserved2: [u8; 12],
}

/// Login Response (section 11.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LoginResponse {
    /// 23h.
    pub opcode: u8,
    /// T, C, CSG and NSG.
    pub flags: u8,
    /// The highest version the target knows: 0.
    pub version_max: u8,
    /// The version in force: 0.
    pub version_active: u8,
    /// What follows.
    pub length: Length,
    /// As in the request.
    pub isid: Isid,
    /// The session's number, in the last response of a login that succeeds.
    pub tsih: U16,
    /// The initiator task tag.
    pub itt: U32,
    /// Reserved.
    pub reserved: [u8; 4],
    /// Numbers.
    pub numbers: Numbers,
    /// The status, class and detail.
    pub status: U16,
    /// Reserved.
    pub reserved2: [u8; 10],
}

/// How a login goes (section 11.13.5): class and detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum LoginStatus {
    /// so far so good
    Success = 0x0000,
    /// the initiator broke the rules
    InitiatorError = 0x0200,
    /// the initiator could not show who it is
    AuthenticationFailed = 0x0201,
    /// the initiator may not use the target
    NotAuthorized = 0x0202,
    /// there is no such target here
    TargetNotFound = 0x0203,
    /// the target is gone
    TargetRemoved = 0x0204,
    /// no common version
    UnsupportedVersion = 0x0205,
    /// the session has all the connections it may have
    TooManyConnections = 0x0206,
    /// a key that must be there is not
    MissingParameter = 0x0207,
    /// SessionType is neither Normal nor Discovery
    SessionTypeNotSupported = 0x0209,
    /// there is no such session
    NoSuchSession = 0x020A,
    /// another PDU in the middle of a login
    InvalidDuringLogin = 0x020B,
    /// not now
    ServiceUnavailable = 0x0301,
    /// no room for another session
    OutOfResources = 0x0302,
}

/// Logout Response (section 11.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogoutResponse {
    /// 26h.
    pub opcode: u8,
    /// 80h.
    pub flags: u8,
    /// 0 closed; 1 no such connection; 2 recovery is not supported.
    pub response: u8,
    /// Reserved.
    pub reserved: u8,
    /// What follows: nothing.
    pub length: Length,
    /// Reserved.
    pub reserved2: [u8; 8],
    /// The initiator task tag.
    pub itt: U32,
    /// Reserved.
    pub reserved3: [u8; 4],
    /// Numbers.
    pub numbers: Numbers,
    /// Reserved.
    pub reserved4: [u8; 4],
    /// Seconds to wait before logging in again.
    pub time_to_wait: U16,
    /// Seconds for which tasks are kept.
    pub time_to_retain: U16,
    /// Reserved.
    pub reserved5: [u8; 4],
}

/// Reject (section 11.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Reject {
    /// 3Fh.
    pub opcode: u8,
    /// 80h.
    pub flags: u8,
    /// See [`RejectReason`].
    pub reason: u8,
    /// Reserved.
    pub reserved: u8,
    /// What follows: the header rejected.
    pub length: Length,
    /// Reserved.
    pub reserved2: [u8; 8],
    /// All ones.
    pub itt: U32,
    /// Reserved.
    pub reserved3: [u8; 4],
    /// Numbers.
    pub numbers: Numbers,
    /// Of Data-Out and SNACK.
    pub data_sn: U32,
    /// Reserved.
    pub reserved4: [u8; 8],
}

/// Why a PDU is rejected (section 11.17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RejectReason {
    /// the data digest is wrong
    DataDigest = 0x02,
    /// there is no SNACK at ErrorRecoveryLevel 0
    Snack = 0x03,
    /// it breaks the protocol
    ProtocolError = 0x04,
    /// the opcode is not known
    NotSupported = 0x05,
    /// too many immediate commands
    ImmediateRejected = 0x06,
    /// the tag is that of a task in progress
    TaskInProgress = 0x07,
    /// a field is invalid
    InvalidField = 0x09,
    /// no room for it
    NoResources = 0x0A,
}

/// NOP-In (section 11.19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NopIn {
    /// 20h.
    pub opcode: u8,
    /// 80h.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What follows.
    pub length: Length,
    /// 0.
    pub lun: U64,
    /// The initiator task tag of the NOP-Out answered, or all ones.
    pub itt: U32,
    /// The target transfer tag of a ping, or all ones.
    pub ttt: U32,
    /// Numbers.
    pub numbers: Numbers,
    /// Reserved.
    pub reserved2: [u8; 12],
}

const _: () = assert!(size_of::<ScsiResponse>() == BHS_BYTES);
const _: () = assert!(size_of::<TaskManagementResponse>() == BHS_BYTES);
const _: () = assert!(size_of::<DataIn>() == BHS_BYTES);
const _: () = assert!(size_of::<R2t>() == BHS_BYTES);
const _: () = assert!(size_of::<Async>() == BHS_BYTES);
const _: () = assert!(size_of::<TextResponse>() == BHS_BYTES);
const _: () = assert!(size_of::<LoginResponse>() == BHS_BYTES);
const _: () = assert!(size_of::<LogoutResponse>() == BHS_BYTES);
const _: () = assert!(size_of::<Reject>() == BHS_BYTES);
const _: () = assert!(size_of::<NopIn>() == BHS_BYTES);
