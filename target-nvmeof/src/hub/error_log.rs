//! The error information log (Base, section 5.16.1.2).

use std::collections::VecDeque;

use ashlar_env::clock::Instant;
use zerocopy::{FromZeros, IntoBytes};

use crate::wire::Status;
use crate::wire::log::ErrorEntry;

use super::{ConnectionId, Hub};

/// Entries kept, the newest (ELPE + 1).
pub(super) const ERROR_ENTRIES_MAX: usize = 64;
/// TRTYPE of TCP.
pub(super) const TRTYPE_TCP: u8 = 3;
const NO_PARAMETER: u16 = 0xFFFF;

/// An I/O command that failed, for the error log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoError {
    /// The command.
    pub cid: u16,
    /// How it was completed.
    pub status: Status,
    /// The first block of its range.
    pub lba: u64,
    /// Its namespace.
    pub nsid: u32,
    /// Its queue.
    pub sqid: u16,
}

/// The errors of one controller.
#[derive(Debug, Default)]
pub(super) struct ErrorLog {
    /// The newest first.
    entries: VecDeque<ErrorEntry>,
    /// Errors ever.
    pub count: u64,
    /// Errors of the medium among them.
    pub media: u64,
}

impl ErrorLog {
    fn add(&mut self, error: &IoError) {
        self.count += 1;
        if matches!(error.status, Status::WRITE_FAULT | Status::UNRECOVERED_READ) {
            self.media += 1;
        }
        self.entries.truncate(ERROR_ENTRIES_MAX - 1);
        self.entries.push_front(ErrorEntry {
            count: self.count.into(),
            sq_id: error.sqid.into(),
            cid: error.cid.into(),
            status: error.status.field().into(),
            parameter: NO_PARAMETER.into(),
            lba: error.lba.into(),
            nsid: error.nsid.into(),
            transport: TRTYPE_TCP,
            ..ErrorEntry::new_zeroed()
        });
    }

    /// The log page.
    pub fn page(&self) -> Vec<u8> {
        let mut page: Vec<u8> = self.entries.iter().flat_map(|entry| entry.as_bytes()).copied().collect();
        page.resize(ERROR_ENTRIES_MAX * size_of::<ErrorEntry>(), 0);
        page
    }
}

impl Hub {
    /// An I/O command of this connection failed in a way the error log should tell.
    pub fn io_error(&mut self, connection: ConnectionId, entry: IoError, _now: Instant) {
        if let Some(queue) = self.queues.get(&connection) {
            let cntlid = queue.cntlid;
            self.controller_mut(cntlid).errors.add(&entry);
        }
    }
}
