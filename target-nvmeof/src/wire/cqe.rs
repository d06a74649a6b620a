//! Completion queue entry (Base, section 3.3.3.2; Fabrics response capsule, section 4.2).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Status;

/// A completion, 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Cqe {
    /// Bytes 3:0: command specific.
    pub dw0: U32,
    /// Bytes 7:4: command specific.
    pub dw1: U32,
    /// Bytes 9:8: submission queue head pointer; FFFFh where flow control is off.
    pub sq_head: U16,
    /// Bytes 11:10: submission queue identifier; reserved in Fabrics.
    pub sq_id: U16,
    /// Bytes 13:12: the command this completes, as the host numbered it.
    pub cid: U16,
    /// Bytes 15:14: status in bits 15:1; the phase bit is reserved in Fabrics.
    pub status: U16,
}

const _: () = assert!(size_of::<Cqe>() == 16);

impl Cqe {
    /// The completion of `cid` with `status` and the results `dw0` and `dw1`. The transport sets the queue head.
    #[must_use]
    pub const fn new(cid: u16, status: Status, dw0: u32, dw1: u32) -> Self {
        Self {
            dw0: U32::new(dw0),
            dw1: U32::new(dw1),
            sq_head: U16::ZERO,
            sq_id: U16::ZERO,
            cid: U16::new(cid),
            status: U16::new(status.field()),
        }
    }
}
