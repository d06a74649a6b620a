//! What a session tells the initiator.

use crate::scsi::{Data, Status};
use crate::wire::Bhs;
use crate::wire::response::{LoginResponse, OVERFLOW, RejectReason, TmfStatus, UNDERFLOW};

/// The end of a command.
pub(super) struct Done {
    pub tag: u32,
    pub status: Status,
    pub sense: Option<Box<[u8]>>,
    /// Data-In, of which no more than `in_bytes` go.
    pub data: Data,
    pub in_bytes: u32,
    pub residual: Residual,
    /// How many R2Ts there were.
    pub r2ts: u32,
}

/// What was moved against what the initiator expected (RFC 7143, section 11.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Residual {
    None,
    /// The command wanted so many bytes more.
    Overflow(u32),
    /// So many bytes fewer were moved.
    Underflow(u32),
}

impl Residual {
    /// Of a command that needed `needed` bytes where the initiator expected `expected`.
    pub fn of(needed: u32, expected: u32) -> Self {
        match needed.cmp(&expected) {
            std::cmp::Ordering::Equal => Self::None,
            std::cmp::Ordering::Greater => Self::Overflow(needed - expected),
            std::cmp::Ordering::Less => Self::Underflow(expected - needed),
        }
    }

    pub fn fields(self) -> (u8, u32) {
        match self {
            Self::None => (0, 0),
            Self::Overflow(bytes) => (OVERFLOW, bytes),
            Self::Underflow(bytes) => (UNDERFLOW, bytes),
        }
    }
}

/// Something to tell the initiator.
pub(super) enum Reply {
    Done(Done),
    R2t { lun: u64, tag: u32, ttt: u32, number: u32, offset: u32, bytes: u32 },
    Login { header: Box<LoginResponse>, text: Vec<u8> },
    TaskManagement { tag: u32, status: TmfStatus },
    Nop { tag: u32, ttt: u32, data: Box<[u8]> },
    Text { tag: u32, ttt: u32, flags: u8, text: Vec<u8> },
    Logout { tag: u32, response: u8, wait: u16, retain: u16 },
    Async { event: u8, seconds: u16 },
    Reject { reason: RejectReason, header: Box<Bhs> },
}
