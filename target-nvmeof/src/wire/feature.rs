//! Features (Base, section 5.27).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Feature identifiers (Base, section 5.27.1).
pub mod fid {
    /// Arbitration.
    pub const ARBITRATION: u8 = 0x01;
    /// Power management.
    pub const POWER: u8 = 0x02;
    /// Temperature threshold.
    pub const TEMPERATURE: u8 = 0x04;
    /// Error recovery.
    pub const ERROR_RECOVERY: u8 = 0x05;
    /// Volatile write cache.
    pub const WRITE_CACHE: u8 = 0x06;
    /// Number of queues.
    pub const QUEUES: u8 = 0x07;
    /// Write atomicity.
    pub const WRITE_ATOMICITY: u8 = 0x0A;
    /// Asynchronous event configuration.
    pub const ASYNC_EVENTS: u8 = 0x0B;
    /// Timestamp.
    pub const TIMESTAMP: u8 = 0x0E;
    /// Keep-alive timer.
    pub const KEEP_ALIVE: u8 = 0x0F;
    /// Host behavior support.
    pub const HOST_BEHAVIOR: u8 = 0x16;
    /// Host identifier.
    pub const HOST_ID: u8 = 0x81;
    /// Reservation notification mask.
    pub const RESERVATION_MASK: u8 = 0x82;
    /// Reservation persistence.
    pub const RESERVATION_PERSISTENCE: u8 = 0x83;
}

/// Bytes of the Timestamp feature (Base, section 5.27.1.13).
pub const TIMESTAMP_BYTES: u32 = 8;
/// Bytes of the Host Behavior Support feature (Base, section 5.27.1.18).
pub const HOST_BEHAVIOR_BYTES: u32 = 512;
/// Bytes of the Host Identifier feature in its extended form (Base, section 5.27.1.25).
pub const HOST_ID_BYTES: u32 = 16;

/// Timestamp (Base, section 5.27.1.13).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Timestamp {
    /// 0: milliseconds, little-endian.
    pub milliseconds: [u8; 6],
    /// 6: bit 0: the clock may have stood still; bits 3:1: 0 counted from reset, 1 set by the host.
    pub attributes: u8,
    /// 7: reserved.
    pub reserved: u8,
}

const _: () = assert!(size_of::<Timestamp>() == TIMESTAMP_BYTES as usize);

/// SEL of Get Features, CDW10 bits 10:8 (Base, section 5.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// 000b: the value in force.
    Current,
    /// 001b: the value after a reset.
    Default,
    /// 010b: the value saved; the default where none can be.
    Saved,
    /// 011b: what can be done with the feature.
    Capabilities,
}

impl Select {
    /// SEL of CDW10; `None` where reserved.
    #[must_use]
    pub const fn of(cdw10: u32) -> Option<Self> {
        Some(match cdw10 >> 8 & 7 {
            0 => Self::Current,
            1 => Self::Default,
            2 => Self::Saved,
            3 => Self::Capabilities,
            _ => return None,
        })
    }
}
