//! Why a device could not be formatted or opened, for people.

use ashlar_env::DiskError;
use uuid::Uuid;

use super::format::VERSION;

/// Why a device was not formatted. Unless it says otherwise, the device is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// it is a store already
    #[error(
        "the device is formatted already, as {device} of cluster {cluster}; nothing was changed. \
         To lose all that it holds and format it anew, say so explicitly"
    )]
    AlreadyFormatted {
        /// its identity
        device: Uuid,
        /// its cluster
        cluster: Uuid,
    },
    /// it is not blank
    #[error("the device was not formatted, because it is not blank; nothing was changed. {0}")]
    Occupied(OpenError),
    /// not even one chunk fits
    #[error(
        "the device has {size_bytes} bytes, too few for one slot of {slot_bytes} bytes and what comes before it; \
         nothing was changed"
    )]
    TooSmall {
        /// its size
        size_bytes: u64,
        /// a slot
        slot_bytes: u32,
    },
    /// the sizes asked for cannot be
    #[error(
        "a slot of {slot_bytes} bytes with pieces of {align_bytes} cannot be: slots are a power of two from 16 KiB to \
         16 MiB, pieces a power of two from 512 to 4096 and no smaller than the device's block; nothing was changed"
    )]
    Sizes {
        /// a slot
        slot_bytes: u32,
        /// the granule
        align_bytes: u32,
    },
    /// the device failed
    #[error("{0}. The device is not formatted, and what it held may be gone; format it again, or replace it")]
    Disk(#[from] DiskError),
    /// what was written could not be read
    #[error("the device was formatted and does not give back what was written: {0}. Replace it")]
    Reopen(OpenError),
}

/// Why a device was not opened. Nothing was written to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// blank
    #[error("the device is not formatted: it is blank where a store begins. Add it to a pool to format it")]
    NotFormatted,
    /// holds something that is not ours
    #[error(
        "the device is not formatted and not blank: it holds something that Ashlar did not write. If that may be \
         lost, format the device; if not, check that this is the right device"
    )]
    Foreign,
    /// of another cluster
    #[error(
        "the device {device} belongs to cluster {found}, not to {wanted}. It was left as it is; if what it holds may \
         be lost, format it anew"
    )]
    OtherCluster {
        /// its identity
        device: Uuid,
        /// its cluster
        found: Uuid,
        /// the cluster that was expected
        wanted: Uuid,
    },
    /// not the device that was expected
    #[error(
        "the device is {found}, and {wanted} was expected here. Check which path belongs to which device"
    )]
    OtherDevice {
        /// its identity
        found: Uuid,
        /// the one expected
        wanted: Uuid,
    },
    /// written by a newer version
    #[error(
        "the device has format version {found}, and this program knows versions up to {known}. Its data are as they \
         were; open it with the version of Ashlar that wrote it, or a newer one", known = VERSION as u16
    )]
    Newer {
        /// its version
        found: u16,
    },
    /// features that this version does not know
    #[error(
        "the device uses features {bits:#x} that this program does not know. Its data are as they were; open it with \
         the version of Ashlar that wrote it, or a newer one"
    )]
    UnknownFeatures {
        /// those, as bits
        bits: u64,
    },
    /// smaller than when it was formatted
    #[error(
        "the device has {size_bytes} bytes and had {formatted_bytes} when it was formatted: its end is missing. \
         Nothing was changed; give it its size back"
    )]
    Truncated {
        /// its size now
        size_bytes: u64,
        /// its size then
        formatted_bytes: u64,
    },
    /// its blocks have become larger
    #[error(
        "the device transfers blocks of {block_bytes} bytes and was formatted for pieces of {align_bytes}. Nothing \
         was changed; attach it as it was attached when it was formatted"
    )]
    Block {
        /// its block now
        block_bytes: u32,
        /// what it was formatted for
        align_bytes: u32,
    },
    /// both superblocks are damaged
    #[error(
        "both superblocks of the device are damaged ({first}; {second}). It was left as it is. If its chunks have \
         replicas elsewhere, remove the device from its pool and let them be rebuilt"
    )]
    Damaged {
        /// what is wrong with the first
        first: String,
        /// what is wrong with the second
        second: String,
    },
}
