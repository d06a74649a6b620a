//! An iSCSI initiator in plain non-blocking sockets (RFC 7143), with as much SCSI as a load needs.
//!
//! It is as strict as the NVMe/TCP host: whatever the specification does not allow a target to send ends the
//! session with an error that says what was wrong. It asks for error recovery level 0, one connection per session,
//! one outstanding R2T per command and data in order, as every initiator in wide use does; it does not
//! authenticate.
//!
//! [`Session::log_in`] brings a session up, [`Session::poll`] and [`Session::flush`] move commands and data without
//! blocking or allocating.

mod capacity;
pub mod cdb;
mod login;
mod outcome;
mod rx;
mod session;
mod state;
mod text;
pub mod wire;

pub use capacity::Capacity;
pub use login::Agreed;
pub use outcome::{Outcome, Residual, Sense};
pub use session::{Reply, Session};
pub use state::{Completion, Data};

use std::time::Duration;

use crate::client::Digests;

/// Who logs in, to what, and what it offers.
#[derive(Clone, Debug)]
pub struct InitiatorOptions {
    /// Host name or address, and port.
    pub addr: String,
    /// Name of the target.
    pub target: String,
    /// Name of this initiator.
    pub initiator: String,
    /// The logical unit: 0 to 16383.
    pub lun: u16,
    /// Digests to ask for; the target must then agree.
    pub digests: Digests,
    /// Insist on R2T before data that do not travel with their command.
    pub initial_r2t: bool,
    /// Send data with their command if the target agrees.
    pub immediate_data: bool,
    /// The largest data segment to receive, in bytes.
    pub data_segment_bytes: u32,
    /// FirstBurstLength to offer, in bytes.
    pub first_burst_bytes: u32,
    /// MaxBurstLength to offer, in bytes.
    pub max_burst_bytes: u32,
    /// How long each step of the set-up may take.
    pub timeout: Duration,
}

impl InitiatorOptions {
    /// An initiator with a fixed name that uses LUN 0 of `target` at `addr` and offers what open-iscsi offers, but
    /// no digests; allowing 10 s for each step.
    #[must_use]
    pub fn new(addr: &str, target: &str) -> Self {
        Self {
            addr: addr.into(),
            target: target.into(),
            initiator: "iqn.2026-11.io.ashlar:load".into(),
            lun: 0,
            digests: Digests::NONE,
            initial_r2t: false,
            immediate_data: true,
            data_segment_bytes: 256 << 10,
            first_burst_bytes: 256 << 10,
            max_burst_bytes: (16 << 20) - 1024,
            timeout: Duration::from_secs(10),
        }
    }
}

/// How a session is used.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Which session of this process: part of the ISID, so that sessions do not replace each other.
    pub index: u16,
    /// Commands in flight, at most: 1 to 4096. The target's command window may allow fewer.
    pub depth: u16,
    /// The largest transfer of one command, in bytes. Each slot has a payload of this size.
    pub payload_bytes: usize,
    /// Copy what reads return into the payload; otherwise it is passed over.
    pub keep_read_data: bool,
}
