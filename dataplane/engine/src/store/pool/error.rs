//! Why a pool did not do what it was asked, for people.

use uuid::Uuid;

use crate::chunks::StoreError;

/// Why a pool did not do what it was asked. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// it is in the pool
    #[error("the device {device} is in the pool already")]
    Present {
        /// the device
        device: Uuid,
    },
    /// it is not in the pool
    #[error("the pool has no device {device}")]
    Unknown {
        /// the device
        device: Uuid,
    },
    /// its chunks have another size
    #[error(
        "the device {device} was formatted for chunks of {chunk_bytes} bytes, those of the pool have {pool}; format it \
         for the same, if what it holds may be lost"
    )]
    ChunkSize {
        /// the device
        device: Uuid,
        /// what a chunk on it holds
        chunk_bytes: u32,
        /// what a chunk of the pool holds
        pool: u32,
    },
    /// it writes in larger pieces than the pool
    #[error(
        "the device {device} writes pieces of {align_bytes} bytes, the pool pieces of {pool}. Begin the pool with \
         the device of the largest, or format the others for pieces of {align_bytes}, too"
    )]
    Alignment {
        /// the device
        device: Uuid,
        /// its granule
        align_bytes: u32,
        /// the pool's granule
        pool: u32,
    },
    /// old writers could not be kept out everywhere
    #[error("the device {device} was not added, because not all fences could be raised everywhere: {error}")]
    Fences {
        /// the device
        device: Uuid,
        /// why
        error: StoreError,
    },
    /// chunks are on it
    #[error(
        "{chunks} chunks are on the device {device}; it stays in the pool. Drain it first, or say explicitly that \
         they are given up"
    )]
    NotEmpty {
        /// the device
        device: Uuid,
        /// how many
        chunks: usize,
    },
    /// the other stores do not take the chunks
    #[error(
        "{left} chunks of the device {device} have no place on the other devices ({error}). Those that were moved \
         before stay there, nothing is lost; add a device or free some space, and drain again"
    )]
    NoPlace {
        /// the device
        device: Uuid,
        /// sealed chunks that are on it still
        left: usize,
        /// what the last store said
        error: StoreError,
    },
}
