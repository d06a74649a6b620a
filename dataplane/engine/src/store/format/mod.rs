//! What a chunk store writes on its device.
//!
//! All numbers are little endian. What is reserved is written as zero and checked to be zero. Every structure begins
//! with eight bytes of magic and the CRC32C of all its other bytes.
//!
//! ```text
//! byte 0       4096                      slots_start                                          size_bytes - 4096
//! +------------+-------------------------+-----------+-----------+--     --+-----------+-----+------------+
//! | superblock | fence pages, A and B of | slot 0    | slot 1    |   ...   | last slot |     | superblock |
//! | (A)        | each side by side       |           |           |         |           |     | (B)        |
//! +------------+-------------------------+-----------+-----------+--     --+-----------+-----+------------+
//!                                        |           |
//!                                        +-----------+---------+------------------------------+
//!                                        | header A  | header B| data: StoreInfo::chunk_bytes |
//!                                        | 4096      | 4096    |                              |
//!                                        +-----------+---------+------------------------------+
//! ```
//!
//! **Pairs.** What changes (fence pages and slot headers) exists twice, each copy in a page of 4096 bytes of its own. A
//! change is written durably to one copy, then to the other, and is complete after both. The valid copy with the
//! greater sequence number holds. So
//!
//! * a crash while the first copy is written leaves the other one: the old state;
//! * a crash while the second is written leaves the first: the new state;
//! * rot of either copy at rest loses nothing, because both say the same. Without the second write, rot of the newer
//!   copy would bring back the older state: a deleted chunk, or worse, a slot that looks free;
//! * the copy that is not valid, or the older one, is always written first, so one valid copy is there at any time.
//!
//! The superblock is written once, last of all, when a device is formatted, and never again.
//!
//! **Versions.** The superblock alone has a version and feature flags; they are for the whole device. See [`Version`].

mod bytes;
mod fence;
mod slot;
mod superblock;

pub use fence::{FENCE_PAGE_ENTRIES, FenceEntry, FencePage};
pub use slot::{Content, HEADER_BYTES, Label, SlotHeader};
pub use superblock::{Geometry, SUPERBLOCK_BYTES, Superblock};

/// The room of one copy of anything, in bytes: as large as any device's block, so that no two share one.
pub const PAGE_BYTES: u32 = 4096;

/// What precedes the data of a slot, in bytes: the two copies of its header.
pub const SLOT_HEADERS_BYTES: u32 = 2 * PAGE_BYTES;

/// The versions of the format, each with what it brought. A store writes the newest and reads all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Version {
    /// The first.
    V1 = 1,
}

/// The version that is written.
pub const VERSION: Version = Version::V1;

/// The incompatible features this code knows, as bits: with any other set, a device cannot be read. None so far.
pub const INCOMPATIBLE_KNOWN: u64 = 0;

/// The compatible features this code knows, as bits: others may be set, and may use what is reserved here. None so far.
pub const COMPATIBLE_KNOWN: u64 = 0;

/// What is wrong with a structure read from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// nothing but zeros
    #[error("it is blank")]
    Blank,
    /// something else is there
    #[error("it is not ours")]
    Magic,
    /// ours once, and changed since
    #[error("its checksum does not match")]
    Checksum,
    /// written by a newer version
    #[error("it has version {0}")]
    Newer(u16),
    /// it uses features that this version does not know
    #[error("it has unknown features {0:#x}")]
    Features(u64),
    /// a field has a value that it cannot have
    #[error("its {0} cannot be")]
    Field(&'static str),
}
