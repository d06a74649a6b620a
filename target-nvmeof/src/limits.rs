//! What this target bounds, and to what. Everything a host learns of these comes from here.

use std::time::Duration;

/// Settings of the target that an operator may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest transfer of one command, in bytes: a power of two from 128 KiB to
    /// [`ashlar_env::buf::MAX_BYTES`] (MDTS).
    pub max_transfer_bytes: u32,
    /// Entries of an I/O queue, at most (MQES + 1): 128 to 1024.
    pub io_queue_entries_max: u16,
    /// I/O queues of one controller, at most.
    pub io_queues_max: u16,
    /// Controllers over all subsystems, at most.
    pub controllers_max: u16,
    /// Connections of the node, at most.
    pub connections_max: u32,
    /// Connections (queues) of one host NQN that have finished Connect, over all subsystems, at most.
    pub connections_per_host_max: u32,
    /// Connections that have not finished Connect, per source address, at most.
    pub unauthenticated_per_address_max: u32,
    /// How long a connection may take for each step before Connect succeeds.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_transfer_bytes: 1 << 20,
            io_queue_entries_max: 1024,
            io_queues_max: 64,
            controllers_max: 4096,
            connections_max: 8192,
            connections_per_host_max: 1024,
            unauthenticated_per_address_max: 64,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Entries of an admin queue, at most.
pub const ADMIN_QUEUE_ENTRIES_MAX: u16 = 128;
/// Bytes of data that a command capsule may carry on any queue (IOCCSZ, and what the admin queue takes).
pub const IN_CAPSULE_BYTES: u32 = 8192;
/// The largest H2CData PDU's data, in bytes (MAXH2CDATA).
pub const MAX_H2C_DATA_BYTES: u32 = 256 << 10;
/// Abort commands that may be outstanding (ACL + 1).
pub const ABORTS_MAX: u8 = 4;
/// Asynchronous Event Requests that may be outstanding (AERL + 1).
pub const AERS_MAX: u8 = 4;
/// Ranges of a Dataset Management command, at most (DMRL).
pub const DSM_RANGES_MAX: u16 = 256;
/// Source ranges of a Copy command, at most (MSRC + 1).
pub const COPY_RANGES_MAX: u16 = 128;
/// Bytes of one source range of a Copy command, at most (MSSRL in blocks of the namespace).
pub const COPY_RANGE_BYTES_MAX: u32 = 1 << 20;
/// Bytes of a Copy command, at most (MCL in blocks of the namespace).
pub const COPY_BYTES_MAX: u32 = 16 << 20;
