//! The books of one volume, kept by whoever plays its hosts: registers, crash oracle and stamps together, in
//! commands over runs of blocks.
//!
//! A host asks the ledger to begin a command, issues it, and tells how it ended. A command covering several
//! blocks is a set of independent register operations with the interval of the command. Retries of one command
//! are one command from the first submission to the final reply. One ledger serves all hosts and paths of a
//! volume; its calls must be made in the order of the events.

use std::collections::BTreeSet;

use super::crash::{FlushId, Oracle, WriteId};
use super::register::{Checker, OperationId};
use super::stamp::{Damage, SECTOR_BYTES, Stamp, value_of};
use super::{Time, Value, Violation};

/// The ledger of one volume.
#[derive(Clone, Debug)]
pub struct Ledger {
    volume: u64,
    /// Sectors of 512 bytes in a block.
    block_sectors: u64,
    checker: Checker,
    oracle: Oracle,
    now: Time,
    sequence: u64,
    /// Power failures so far.
    lives: u64,
    /// Copies: where a value was copied to, where it is stamped for, and which.
    copies: BTreeSet<(u64, u64, Value)>,
}

/// A write, write-zeroes, deallocate or copy under way.
#[derive(Debug)]
#[must_use = "tell the ledger how the write ended"]
pub struct WriteTicket {
    fua: bool,
    ids: Vec<(OperationId, WriteId)>,
}

/// A read or compare under way.
#[derive(Debug)]
#[must_use = "tell the ledger how the read ended"]
pub struct ReadTicket {
    lba: u64,
    lives: u64,
    ids: Vec<OperationId>,
}

/// A flush under way.
#[derive(Clone, Copy, Debug)]
#[must_use = "tell the ledger how the flush ended"]
pub struct FlushTicket {
    flush: FlushId,
    lives: u64,
}

/// How a write ended, as far as its host knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEnd {
    /// Acknowledged.
    Done,
    /// Reported failed or aborted, or its controller is known to be gone: it happened by now or never will.
    Fenced,
    /// Refused before anything was written: a conflict, a miscompare, a range beyond the end.
    Refused,
    /// No reply, and nobody will say that it is over. Where somebody will, keep the ticket until then.
    Unknown,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lba={lba}: {cause}")]
pub struct Wrong {
    /// The block.
    pub lba: u64,
    /// What is wrong with it.
    pub cause: Cause,
}

/// See [`Wrong`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// the block is not what was written by anybody
    #[error("{0}")]
    Damage(#[from] Damage),
    /// the block is not what it may be now
    #[error("{0}")]
    Violation(#[from] Violation),
    /// the read gave another number of bytes
    #[error("a read of {wanted_bytes} bytes gave {got_bytes}")]
    Length {
        /// asked for
        wanted_bytes: usize,
        /// given
        got_bytes: usize,
    },
}

impl Ledger {
    /// A volume of zeros with blocks of `block_bytes`. `volume` marks its sectors; `volatile_cache` is what it
    /// reports to its hosts.
    ///
    /// # Panics
    /// If a block is not made of sectors of 512 bytes.
    #[must_use]
    pub fn new(volume: u64, block_bytes: u32, volatile_cache: bool) -> Self {
        let block_sectors = u64::from(block_bytes) / SECTOR_BYTES as u64;
        assert!(block_sectors * SECTOR_BYTES as u64 == u64::from(block_bytes) && block_sectors > 0);
        Self {
            volume,
            block_sectors,
            checker: Checker::new(),
            oracle: Oracle::new(volatile_cache),
            now: 0,
            sequence: 0,
            lives: 0,
            copies: BTreeSet::new(),
        }
    }

    fn tick(&mut self) -> Time {
        self.now += 1;
        self.now
    }

    fn block_bytes(&self) -> usize {
        self.block_sectors as usize * SECTOR_BYTES
    }

    /// Begins a write by `writer` (below 2^16) to the blocks from `lba`, as many as `data` holds, and fills
    /// `data` with what to write.
    pub fn begin_write(&mut self, writer: u32, lba: u64, data: &mut [u8], fua: bool) -> WriteTicket {
        assert!(data.len().is_multiple_of(self.block_bytes()), "a write is made of blocks");
        self.sequence += 1;
        let stamp =
            Stamp { volume: self.volume, writer, sequence: self.sequence, attempt: 0, epoch: self.lives };
        stamp.fill(lba * self.block_sectors, data);
        let blocks = (data.len() / self.block_bytes()) as u64;
        self.begin(fua, (lba..lba + blocks).map(|unit| (unit, stamp.value())))
    }

    /// Begins write-zeroes or deallocate of `blocks` blocks from `lba`.
    pub fn begin_zeroes(&mut self, lba: u64, blocks: u64, fua: bool) -> WriteTicket {
        self.begin(fua, (lba..lba + blocks).map(|unit| (unit, Value::ZERO)))
    }

    /// Begins a copy to the blocks from `to`. `values` are what the sources hold, each with its block: the
    /// caller must know them, because nobody else writes there meanwhile. A copy of a copy is not followed.
    pub fn begin_copy(&mut self, values: &[(u64, Value)], to: u64, fua: bool) -> WriteTicket {
        let placed = (to..).zip(values).filter(|(_, (_, value))| *value != Value::ZERO);
        self.copies.extend(placed.map(|(unit, &(from, value))| (unit, from, value)));
        self.begin(fua, (to..).zip(values.iter().map(|&(_, value)| value)))
    }

    fn begin(&mut self, fua: bool, units: impl Iterator<Item = (u64, Value)>) -> WriteTicket {
        let at = self.tick();
        let ids = units
            .map(|(unit, value)| {
                (self.checker.begin_write(unit, value, at), self.oracle.begin_write(unit, value, at))
            })
            .collect();
        WriteTicket { fua, ids }
    }

    /// A write ended.
    ///
    /// # Errors
    /// Where a refused write has been seen.
    pub fn end_write(&mut self, ticket: WriteTicket, end: WriteEnd) -> Result<(), Violation> {
        let at = self.tick();
        let mut result = Ok(());
        for (write, oracle) in ticket.ids {
            match end {
                WriteEnd::Done => {
                    self.checker.end_write(write, at);
                    self.oracle.end_write(oracle, ticket.fua, at);
                }
                WriteEnd::Fenced => {
                    self.checker.fence_write(write, at);
                    self.oracle.fence_write(oracle, at);
                }
                WriteEnd::Refused => {
                    result = result.and(self.checker.refuse_write(write, at));
                    self.oracle.refuse_write(oracle);
                }
                WriteEnd::Unknown => {}
            }
        }
        result
    }

    /// Begins a read or compare of `blocks` blocks from `lba`.
    pub fn begin_read(&mut self, lba: u64, blocks: u64) -> ReadTicket {
        let at = self.tick();
        let ids = (lba..lba + blocks).map(|unit| self.checker.begin_read(unit, at)).collect();
        ReadTicket { lba, lives: self.lives, ids }
    }

    /// A read ended with `data`, or a compare found the blocks equal to `data`. Gives the blocks' values.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn end_read(&mut self, ticket: ReadTicket, data: &[u8]) -> Result<Vec<Value>, Wrong> {
        let at = self.tick();
        let wanted_bytes = ticket.ids.len() * self.block_bytes();
        if data.len() != wanted_bytes {
            let cause = Cause::Length { wanted_bytes, got_bytes: data.len() };
            return Err(Wrong { lba: ticket.lba, cause });
        }
        let units = (ticket.lba..).zip(ticket.ids).zip(data.chunks(self.block_bytes()));
        units
            .map(|((lba, id), block)| {
                let wrong = |cause| Wrong { lba, cause };
                let value = self.value_of(lba, block).map_err(|damage| wrong(damage.into()))?;
                if self.lives == ticket.lives {
                    self.oracle.settle(lba, value);
                }
                self.checker.end_read(id, value, at).map_err(|violation| wrong(violation.into()))?;
                Ok(value)
            })
            .collect()
    }

    fn value_of(&self, lba: u64, block: &[u8]) -> Result<Value, Damage> {
        let result = value_of(self.volume, lba * self.block_sectors, block);
        if let Err(Damage::Misdirected { of, stamp, .. }) = &result {
            let from = of / self.block_sectors;
            if self.copies.contains(&(lba, from, stamp.value())) {
                return value_of(self.volume, from * self.block_sectors, block);
            }
        }
        result
    }

    /// A read ended without data.
    pub fn drop_read(&mut self, ticket: ReadTicket) {
        let at = self.tick();
        ticket.ids.into_iter().for_each(|id| self.checker.drop_read(id, at));
    }

    /// Begins a flush.
    pub fn begin_flush(&mut self) -> FlushTicket {
        FlushTicket { flush: self.oracle.begin_flush(), lives: self.lives }
    }

    /// A flush was acknowledged. One that failed covers nothing: do not tell.
    pub fn end_flush(&mut self, ticket: FlushTicket) {
        if ticket.lives == self.lives {
            self.oracle.end_flush(ticket.flush);
        }
    }

    /// The process that executes commands died, and the device did not.
    pub fn process_died(&mut self) {
        let at = self.tick();
        self.oracle.process_died(at);
        self.checker.fence_all(at);
    }

    /// The power failed under the device.
    pub fn power_failed(&mut self) {
        let at = self.tick();
        self.lives += 1;
        self.checker.fence_all(at);
        for (unit, allowed) in self.oracle.power_failed(at) {
            self.checker.restart(unit, &allowed, at);
        }
    }

    /// The registers, for their counters.
    #[must_use]
    pub fn checker(&self) -> &Checker {
        &self.checker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(it: &mut Ledger, lba: u64, data: &[u8]) -> Result<Vec<Value>, Wrong> {
        let ticket = it.begin_read(lba, data.len() as u64 / 4096);
        it.end_read(ticket, data)
    }

    fn write(it: &mut Ledger, lba: u64, blocks: usize, end: WriteEnd) -> Vec<u8> {
        let mut data = vec![0; blocks * 4096];
        let ticket = it.begin_write(1, lba, &mut data, false);
        it.end_write(ticket, end).expect("nobody has read it");
        data
    }

    #[test]
    fn a_block_is_what_was_written_last() {
        let mut it = Ledger::new(7, 4096, true);
        let old = write(&mut it, 10, 2, WriteEnd::Done);
        assert!(read(&mut it, 10, &old).is_ok());
        let new = write(&mut it, 10, 2, WriteEnd::Done);
        assert!(read(&mut it, 10, &new).is_ok());
        let wrong = read(&mut it, 10, &old).expect_err("a stale read");
        assert_eq!(wrong.lba, 10);
        assert!(wrong.to_string().starts_with("lba=10: read Value"), "{wrong}");
        let wrong = read(&mut it, 11, &new[..4096]).expect_err("a misdirected read");
        assert!(matches!(wrong.cause, Cause::Damage(Damage::Misdirected { .. })));
        let ticket = it.begin_read(0, 1);
        assert!(matches!(it.end_read(ticket, &[]), Err(Wrong { cause: Cause::Length { .. }, .. })));
    }

    #[test]
    fn zeroes_and_refusals() {
        let mut it = Ledger::new(7, 4096, true);
        let data = write(&mut it, 0, 1, WriteEnd::Done);
        let refused = write(&mut it, 0, 1, WriteEnd::Refused);
        assert!(read(&mut it.clone(), 0, &refused).is_err());
        assert!(read(&mut it, 0, &data).is_ok());
        let ticket = it.begin_zeroes(0, 1, false);
        it.end_write(ticket, WriteEnd::Done).expect("zeroes");
        assert!(read(&mut it, 0, &[0; 4096]).is_ok());
        assert!(read(&mut it, 0, &data).is_err());
    }

    #[test]
    fn a_copy_carries_its_stamp() {
        let mut it = Ledger::new(7, 4096, true);
        let data = write(&mut it, 0, 1, WriteEnd::Done);
        let values = read(&mut it, 0, &data).expect("a read");
        assert!(read(&mut it.clone(), 5, &data).is_err(), "nobody copied it");
        let ticket = it.begin_copy(&[(0, values[0])], 5, false);
        it.end_write(ticket, WriteEnd::Done).expect("a copy");
        assert_eq!(read(&mut it, 5, &data), Ok(values));
        assert!(read(&mut it, 6, &data).is_err());
    }

    #[test]
    fn a_power_failure_takes_back_what_was_not_flushed() {
        let mut it = Ledger::new(7, 4096, true);
        let first = write(&mut it, 0, 1, WriteEnd::Done);
        let flush = it.begin_flush();
        it.end_flush(flush);
        let second = write(&mut it, 0, 1, WriteEnd::Done);
        let mut died = it.clone();
        died.process_died();
        assert!(read(&mut died.clone(), 0, &first).is_err(), "a process takes nothing back");
        it.power_failed();
        assert!(read(&mut it.clone(), 0, &[0; 4096]).is_err(), "the flush was a promise");
        assert!(read(&mut it.clone(), 0, &second).is_ok());
        assert!(read(&mut it, 0, &first).is_ok());
        assert!(read(&mut it.clone(), 0, &second).is_err(), "the first read settles it");
        it.power_failed();
        assert!(read(&mut it, 0, &second).is_err(), "for ever");
    }
}
