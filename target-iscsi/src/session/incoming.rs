//! The Data-Out of one command (RFC 7143, sections 4.2.5.2 and 11.7): with the command, behind it, and asked for.

use super::store::Store;
use crate::wire::NO_TAG;
use crate::wire::bhs::FINAL;
use crate::wire::request::DataOut;

/// Data on their way to the target. One sequence is open at a time: the unsolicited one, then one R2T after the other.
pub(super) struct Incoming {
    pub store: Store,
    /// How many bytes are wanted.
    pub take: u32,
    /// The offset of the next byte.
    pub at: u32,
    /// Where the open sequence ends, or must end at the latest.
    pub burst_end: u32,
    /// Unsolicited data are still to come.
    pub unsolicited: bool,
    /// The number of the next PDU of the sequence.
    data_sn: u32,
    /// The tag of the R2T that is open.
    pub ttt: u32,
    /// The number of the next R2T.
    pub r2t_sn: u32,
    /// The command is not to be executed for want of memory: it is ended when the initiator has sent what it began.
    pub starved: bool,
}

/// What is wrong with a Data-Out PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// nobody asked for it
    Unexpected,
    /// it is not the next of its sequence, or beyond its end, or F is where it must not be
    Sequence,
}

impl Incoming {
    /// The data that come with a command are `immediate` bytes; with `unsolicited`, more follow until `first_end`.
    pub fn new(store: Store, take: u32, immediate: u32, unsolicited: bool, first_end: u32) -> Self {
        let burst_end = if unsolicited { first_end } else { immediate };
        Self {
            store,
            take,
            at: 0,
            burst_end,
            unsolicited,
            data_sn: 0,
            ttt: NO_TAG,
            r2t_sn: 0,
            starved: false,
        }
    }

    /// Checks a header, and notes that its sequence goes on. Whether the sequence ends with it.
    pub fn check(&mut self, pdu: &DataOut) -> Result<bool, Wrong> {
        let len = pdu.length.data_bytes();
        let is_final = pdu.flags & FINAL != 0;
        let open = if pdu.ttt.get() == NO_TAG { self.unsolicited } else { pdu.ttt.get() == self.ttt };
        if !open {
            return Err(Wrong::Unexpected);
        }
        let end = u64::from(pdu.offset.get()) + u64::from(len);
        let at_end = end == u64::from(self.burst_end);
        let in_order = pdu.data_sn.get() == self.data_sn && pdu.offset.get() == self.at;
        // Unsolicited data may end early; what was asked for may not.
        let ends_right = is_final == at_end || is_final && self.unsolicited;
        if !in_order || end > u64::from(self.burst_end) || !ends_right {
            return Err(Wrong::Sequence);
        }
        self.data_sn += 1;
        Ok(is_final)
    }

    /// The open sequence is over.
    pub fn close_burst(&mut self) {
        self.unsolicited = false;
        self.ttt = NO_TAG;
    }

    /// Whether a sequence is open.
    pub fn is_open(&self) -> bool {
        self.unsolicited || self.ttt != NO_TAG
    }

    /// Whether all that is wanted is here.
    pub fn is_whole(&self) -> bool {
        self.at >= self.take
    }

    /// Opens the next sequence under `ttt`: its number, offset and length.
    pub fn ask(&mut self, ttt: u32, burst_bytes: u32) -> (u32, u32, u32) {
        let len = burst_bytes.min(self.take - self.at);
        assert!(len > 0 && !self.is_open(), "data are asked for while some are missing, and once");
        self.ttt = ttt;
        self.data_sn = 0;
        self.burst_end = self.at + len;
        self.r2t_sn += 1;
        (self.r2t_sn - 1, self.at, len)
    }
}
