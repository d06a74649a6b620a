//! What is known of the volumes: a ledger for each, the writes under way, and what compare-and-write has replaced.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_sim::check::Value;
use ashlar_sim::check::ledger::{Cause, FlushTicket, Ledger, ReadTicket, WriteEnd, WriteTicket, Wrong};
use ashlar_sim::{Crash, SimEnv};

use crate::node::NodePlan;

/// Names a write under way.
pub type WriteId = u64;

/// The books of a run.
pub struct Books {
    volumes: Vec<VolumeBooks>,
    next: WriteId,
    /// How often all that was under way is known to be over.
    pub fences: u64,
    /// Errors of the media that hosts were told of.
    pub media_errors: u64,
    pub reads: u64,
    pub writes: u64,
}

struct VolumeBooks {
    ledger: Ledger,
    block_bytes: usize,
    writes: BTreeMap<WriteId, WriteTicket>,
    /// What a compare-and-write has found and replaced, by block. No block holds it again.
    replaced: BTreeSet<(u64, Value)>,
}

impl Books {
    pub fn new(plan: &NodePlan) -> Self {
        let volume = |(number, volume): (usize, &crate::node::VolumePlan)| VolumeBooks {
            ledger: Ledger::new(number as u64 + 1, volume.block.bytes(), volume.volatile_cache),
            block_bytes: volume.block.bytes() as usize,
            writes: BTreeMap::new(),
            replaced: BTreeSet::new(),
        };
        let volumes = plan.volumes.iter().enumerate().map(volume).collect();
        Self { volumes, next: 0, fences: 0, media_errors: 0, reads: 0, writes: 0 }
    }

    fn add(&mut self, volume: usize, ticket: WriteTicket) -> WriteId {
        self.next += 1;
        self.volumes[volume].writes.insert(self.next, ticket);
        self.next
    }

    /// Begins a write and fills `data` with its stamp.
    pub fn begin_write(
        &mut self,
        volume: usize,
        writer: u32,
        lba: u64,
        data: &mut [u8],
        fua: bool,
    ) -> WriteId {
        let ticket = self.volumes[volume].ledger.begin_write(writer, lba, data, fua);
        self.add(volume, ticket)
    }

    pub fn begin_zeroes(&mut self, volume: usize, lba: u64, blocks: u64, fua: bool) -> WriteId {
        let ticket = self.volumes[volume].ledger.begin_zeroes(lba, blocks, fua);
        self.add(volume, ticket)
    }

    pub fn begin_copy(&mut self, volume: usize, values: &[(u64, Value)], to: u64, fua: bool) -> WriteId {
        let ticket = self.volumes[volume].ledger.begin_copy(values, to, fua);
        self.add(volume, ticket)
    }

    /// A write ended. One that the books have fenced off already is over for them.
    pub fn end_write(&mut self, env: &SimEnv, volume: usize, id: WriteId, end: WriteEnd) {
        if end == WriteEnd::Unknown {
            env.marks().hit("host: write of unknown outcome");
            return;
        }
        let it = &mut self.volumes[volume];
        let Some(ticket) = it.writes.remove(&id) else { return };
        self.writes += 1;
        if let Err(violation) = it.ledger.end_write(ticket, end) {
            env.fail("register", format!("vol={volume}: a refused write was seen: {violation}"));
        }
    }

    pub fn begin_read(&mut self, volume: usize, lba: u64, blocks: u64) -> ReadTicket {
        self.volumes[volume].ledger.begin_read(lba, blocks)
    }

    /// A read gave `data`, or a compare found the blocks equal to it. Gives the blocks' values.
    pub fn end_read(&mut self, env: &SimEnv, volume: usize, ticket: ReadTicket, data: &[u8]) -> Vec<Value> {
        self.reads += 1;
        self.volumes[volume].ledger.end_read(ticket, data).unwrap_or_else(|Wrong { lba, cause }| {
            let check = if matches!(cause, Cause::Violation(_)) { "register" } else { "stamp" };
            env.fail(check, format!("vol={volume} lba={lba}: {cause}"));
            Vec::new()
        })
    }

    pub fn drop_read(&mut self, volume: usize, ticket: ReadTicket) {
        self.volumes[volume].ledger.drop_read(ticket);
    }

    pub fn begin_flush(&mut self, volume: usize) -> FlushTicket {
        self.volumes[volume].ledger.begin_flush()
    }

    pub fn end_flush(&mut self, volume: usize, ticket: FlushTicket) {
        self.volumes[volume].ledger.end_flush(ticket);
    }

    /// A compare-and-write that began when there had been `fences` fences found `values` from `lba` and replaced
    /// them: each can happen to a block once.
    pub fn swapped(&mut self, env: &SimEnv, volume: usize, lba: u64, values: &[Value], fences: u64) {
        if fences != self.fences {
            return;
        }
        for (lba, &value) in (lba..).zip(values) {
            if value != Value::ZERO && !self.volumes[volume].replaced.insert((lba, value)) {
                env.fail(
                    "compare-and-write",
                    format!("vol={volume} lba={lba}: {value:?} was found and replaced twice"),
                );
            }
        }
    }

    /// The node died.
    pub fn crashed(&mut self, how: Crash) {
        self.fences += 1;
        for volume in &mut self.volumes {
            // The ledger fences off what was under way.
            volume.writes.clear();
            match how {
                Crash::Process => volume.ledger.process_died(),
                Crash::Power => {
                    volume.replaced.clear();
                    volume.ledger.power_failed();
                }
            }
        }
    }

    /// The target serves no connection: whatever was under way has happened by now or never will.
    pub fn fence(&mut self, env: &SimEnv) {
        self.fences += 1;
        for volume in 0..self.volumes.len() {
            let open: Vec<WriteId> = self.volumes[volume].writes.keys().copied().collect();
            for id in open {
                self.end_write(env, volume, id, WriteEnd::Fenced);
            }
        }
    }

    /// How many writes are under way or in doubt.
    pub fn open_writes(&self) -> usize {
        self.volumes.iter().map(|volume| volume.writes.len()).sum()
    }

    pub fn block_bytes(&self, volume: usize) -> usize {
        self.volumes[volume].block_bytes
    }
}
