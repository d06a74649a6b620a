//! A host of one volume, with a ledger of all it did.

use std::cell::RefCell;
use std::rc::Rc;

use ashlar_env::disk::{Disk, DiskError, Durability};
use ashlar_env::units::ByteRange;
use ashlar_env::{Env, Rng};
use ashlar_sim::check::ledger::{Ledger, WriteEnd};

use super::world::{SimLane, World};

/// A volume, and what is known of it.
#[derive(Clone)]
pub struct Host {
    pub world: World,
    pub number: u32,
    pub block: u32,
    pub blocks: u64,
    pub ledger: Rc<RefCell<Ledger>>,
    /// Whether a full disk is no failure.
    pub may_fill: bool,
}

impl Host {
    pub fn new(world: &World, number: u32, block: u32, blocks: u64) -> Self {
        let ledger = Rc::new(RefCell::new(Ledger::new(u64::from(number), block, false)));
        Self { world: world.clone(), number, block, blocks, ledger, may_fill: false }
    }

    pub fn fail(&self, what: impl std::fmt::Display) {
        self.world.control.fail("lane", format!("volume {}: {what}", self.number));
    }

    fn range(&self, first: u64, count: u64) -> ByteRange {
        ByteRange { start: first * u64::from(self.block), len: count * u64::from(self.block) }
    }

    /// One operation of `writer`, at random.
    pub async fn step(&self, lane: &SimLane, writer: u32) {
        let env = self.world.env();
        let longest = u64::from(8 * 4096 / self.block);
        let first = env.random_below(self.blocks);
        let count = 1 + env.random_below((self.blocks - first).min(longest));
        match env.random_below(12) {
            0..4 => self.read(lane, first, count).await,
            4..10 => self.write(lane, writer, first, count).await,
            10 => self.clear(lane, first, count, false).await,
            _ => self.clear(lane, first, count, true).await,
        }
    }

    pub async fn read(&self, lane: &SimLane, first: u64, count: u64) {
        let range = self.range(first, count);
        let pool = self.world.env().buffers().clone();
        let mut done = 0;
        // Pools of the simulator may be tiny, but have a buffer of each size.
        while done < range.len {
            let len = (range.len - done).min(16 << 10);
            let (first, count) = ((range.start + done) / u64::from(self.block), len / u64::from(self.block));
            let buf = pool.alloc(len as usize).await;
            let ticket = self.ledger.borrow_mut().begin_read(first, count);
            match lane.disk(self.number, self.block).read(range.start + done, buf).await {
                Ok(data) => {
                    if let Err(wrong) = self.ledger.borrow_mut().end_read(ticket, &data) {
                        self.fail(wrong);
                    }
                }
                Err(error) => self.fail(format!("read of {count} blocks from {first}: {error}")),
            }
            done += len;
        }
    }

    pub async fn write(&self, lane: &SimLane, writer: u32, first: u64, count: u64) {
        let range = self.range(first, count);
        let mut data = self.world.env().buffers().alloc(range.len as usize).await;
        let ticket = self.ledger.borrow_mut().begin_write(writer, first, &mut data, true);
        let disk = lane.disk(self.number, self.block);
        let result = disk.write(range.start, data.freeze(), Durability::Fua).await;
        self.end(ticket, result);
    }

    async fn clear(&self, lane: &SimLane, first: u64, count: u64, unmap: bool) {
        let range = self.range(first, count);
        let ticket = self.ledger.borrow_mut().begin_zeroes(first, count, true);
        let disk = lane.disk(self.number, self.block);
        let result = if unmap {
            disk.discard(range).await
        } else {
            disk.write_zeroes(range, true, Durability::Fua).await
        };
        self.end(ticket, result);
    }

    fn end(&self, ticket: ashlar_sim::check::ledger::WriteTicket, result: Result<(), DiskError>) {
        let end = match result {
            Ok(()) => WriteEnd::Done,
            Err(DiskError::NoSpace) if self.may_fill => WriteEnd::Unknown,
            Err(error) => {
                self.fail(format!("write: {error}"));
                WriteEnd::Unknown
            }
        };
        if let Err(violation) = self.ledger.borrow_mut().end_write(ticket, end) {
            self.fail(violation);
        }
    }

    /// Reads all of it.
    pub async fn read_all(&self, lane: &SimLane) {
        let step = (16 << 10) / u64::from(self.block);
        for first in (0..self.blocks).step_by(step as usize) {
            self.read(lane, first, step.min(self.blocks - first)).await;
        }
    }

    /// The bytes of volume `number`, which nobody writes.
    pub async fn bytes_of(&self, lane: &SimLane, number: u32) -> Vec<u8> {
        let (pool, disk) = (self.world.env().buffers().clone(), lane.disk(number, 4096));
        let mut bytes = Vec::new();
        while bytes.len() < (self.blocks * u64::from(self.block)) as usize {
            let buf = pool.alloc(4096).await;
            match disk.read(bytes.len() as u64, buf).await {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(error) => {
                    self.fail(format!("read of volume {number} at byte {}: {error}", bytes.len()));
                    break;
                }
            }
        }
        bytes
    }
}
