//! What this target bounds, and to what. Everything an initiator learns of these comes from here.

use std::time::Duration;

/// Settings of the target that an operator may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the node, at most.
    pub connections_max: u32,
    /// Connections that have not finished login, per source address, at most.
    pub unauthenticated_per_address_max: u32,
    /// Sessions of the node, at most (below 65535, for each has a TSIH).
    pub sessions_max: u32,
    /// Sessions of one initiator name, over all targets, at most.
    pub sessions_per_initiator_max: u32,
    /// Commands that a session may have outstanding: 1 to [`QUEUE_DEPTH_MAX`].
    pub queue_depth: u16,
    /// How long a login may take in all.
    pub login_timeout: Duration,
    /// How long the answer to a wrong CHAP response is held back.
    pub chap_failure_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 8192,
            unauthenticated_per_address_max: 64,
            sessions_max: 4096,
            sessions_per_initiator_max: 256,
            queue_depth: 128,
            login_timeout: Duration::from_secs(15),
            chap_failure_delay: Duration::from_secs(1),
        }
    }
}

/// Commands that a session may have outstanding, at most.
pub const QUEUE_DEPTH_MAX: u16 = 1024;
/// Immediate commands that a session may have outstanding beside those of its window.
pub const IMMEDIATE_COMMANDS_MAX: u16 = 32;
/// Task management functions that a session may have outstanding.
pub const TASK_MANAGEMENT_MAX: usize = 16;
/// Bytes of text in one PDU, either way, in login and after (RFC 7143, section 6.2).
pub const TEXT_BYTES_MAX: usize = 8192;
/// Bytes of a text that spans requests.
pub const LONG_TEXT_BYTES_MAX: usize = 16 << 10;
/// Bytes of all requests of a login.
pub const LOGIN_BYTES_MAX: usize = 64 << 10;
/// Requests of a login.
pub const LOGIN_REQUESTS_MAX: u32 = 25;
/// MaxRecvDataSegmentLength as this target declares it, bytes.
pub const RECV_SEGMENT_BYTES: u32 = 256 << 10;
/// MaxBurstLength that this target agrees to, at most, bytes.
pub const BURST_BYTES_MAX: u32 = 1 << 20;
/// FirstBurstLength that this target agrees to, at most, bytes: it must have room for as much of each command of the
/// window, unasked.
pub const FIRST_BURST_BYTES_MAX: u32 = 64 << 10;
/// MaxOutstandingR2T that this target agrees to, at most.
pub const R2TS_MAX: u32 = 1;
/// Bytes of data of a ping that is answered, at most; longer ones are cut to it.
pub const PING_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(FIRST_BURST_BYTES_MAX <= RECV_SEGMENT_BYTES);
