//! A host of one volume, with a ledger of all it did.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ashlar_env::disk::{Disk, DiskError, Durability};
use ashlar_env::units::ByteRange;
use ashlar_env::{Clock, Env, Rng};
use ashlar_sim::check::Value;
use ashlar_sim::check::ledger::{Ledger, WriteEnd};
use ashlar_sim::check::stamp::{Damage, value_of};

use super::world::{SimLane, World};

/// Errors that are none of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerance {
    /// The disk may be full.
    pub full: bool,
    /// The volume may be smaller for a while.
    pub range: bool,
    /// Devices fail.
    pub faults: bool,
}

impl Tolerance {
    fn forgives(self, error: &DiskError) -> bool {
        match error {
            DiskError::NoSpace => self.full || self.faults,
            DiskError::OutOfRange => self.range,
            _ => self.faults,
        }
    }
}

/// A volume, and what is known of it.
#[derive(Clone)]
pub struct Host {
    pub world: World,
    pub number: u32,
    pub block: u32,
    pub blocks: u64,
    pub ledger: Rc<RefCell<Ledger>>,
    pub tolerance: Rc<Cell<Tolerance>>,
    /// Nothing begins while this is set.
    pub held: Rc<Cell<bool>>,
    /// Operations under way.
    pub active: Rc<Cell<u32>>,
    /// The longest operation in bytes.
    pub longest: u64,
    /// One in so many operations is dropped on its way; 0 for none.
    pub drops: u64,
    /// Errors that were forgiven.
    pub errors: Rc<Cell<u64>>,
    pub first_writer: Rc<Cell<u32>>,
    /// The volume that the first bytes of this one were written to.
    pub origin: u32,
    /// The volume is deleted.
    pub gone: Rc<Cell<bool>>,
}

/// Writers that a host has at most.
const WRITERS_MAX: u32 = 16;

impl Host {
    pub fn new(world: &World, number: u32, block: u32, blocks: u64) -> Self {
        let ledger = Rc::new(RefCell::new(Ledger::new(u64::from(number), block, false)));
        Self {
            world: world.clone(),
            number,
            block,
            blocks,
            ledger,
            tolerance: Rc::default(),
            held: Rc::default(),
            active: Rc::default(),
            longest: 32 << 10,
            drops: 0,
            errors: Rc::default(),
            first_writer: Rc::default(),
            origin: number,
            gone: Rc::default(),
        }
    }

    /// The host of volume `number`, which is like this one.
    pub fn another(&self, number: u32) -> Self {
        let tolerance = Rc::new(Cell::new(self.tolerance.get()));
        Self {
            tolerance,
            errors: Rc::clone(&self.errors),
            ..Self::new(&self.world, number, self.block, self.blocks)
        }
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
        while self.held.get() {
            env.sleep_until(env.now().plus(Duration::from_micros(200))).await;
        }
        if self.gone.get() {
            return;
        }
        self.active.set(self.active.get() + 1);
        let longest = self.longest / u64::from(self.block);
        let first = env.random_below(self.blocks);
        let count = 1 + env.random_below((self.blocks - first).min(longest));
        match env.random_below(12) {
            0..4 => self.read(lane, first, count).await,
            4..10 => self.write(lane, writer, first, count).await,
            10 => self.clear(lane, first, count, false).await,
            _ => self.clear(lane, first, count, true).await,
        }
        self.active.set(self.active.get() - 1);
    }

    /// Waits until nothing is under way; nothing begins before [`Self::release`].
    pub async fn hold(&self) {
        let env = self.world.env();
        self.held.set(true);
        while self.active.get() > 0 {
            env.sleep_until(env.now().plus(Duration::from_micros(200))).await;
        }
    }

    /// Ends [`Self::hold`].
    pub fn release(&self) {
        self.held.set(false);
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
                Err(error) => {
                    self.ledger.borrow_mut().drop_read(ticket);
                    self.erred(&format!("read of {count} blocks from {first}"), &error);
                }
            }
            done += len;
        }
    }

    fn erred(&self, what: &str, error: &DiskError) {
        if self.tolerance.get().forgives(error) {
            self.errors.set(self.errors.get() + 1);
        } else {
            self.fail(format!("{what}: {error}"));
        }
    }

    pub async fn write(&self, lane: &SimLane, writer: u32, first: u64, count: u64) {
        let range = self.range(first, count);
        let mut data = self.world.env().buffers().alloc(range.len as usize).await;
        let ticket =
            self.ledger.borrow_mut().begin_write(self.first_writer.get() + writer, first, &mut data, true);
        let disk = lane.disk(self.number, self.block);
        let result = self.perhaps_dropped(disk.write(range.start, data.freeze(), Durability::Fua)).await;
        self.end(ticket, result);
    }

    pub async fn clear(&self, lane: &SimLane, first: u64, count: u64, unmap: bool) {
        let range = self.range(first, count);
        let ticket = self.ledger.borrow_mut().begin_zeroes(first, count, true);
        let disk = lane.disk(self.number, self.block);
        let result = if unmap {
            self.perhaps_dropped(disk.discard(range)).await
        } else {
            self.perhaps_dropped(disk.write_zeroes(range, true, Durability::Fua)).await
        };
        self.end(ticket, result);
    }

    /// Drops some futures before they are ready: what was begun may happen or not.
    async fn perhaps_dropped<T>(&self, operation: impl Future<Output = T>) -> Option<T> {
        let env = self.world.env();
        if self.drops == 0 || env.random_below(self.drops) > 0 {
            return Some(operation.await);
        }
        let time = Duration::from_micros(env.random_below(3000));
        let mut timer = pin!(env.sleep_until(env.now().plus(time)));
        let mut operation = pin!(operation);
        std::future::poll_fn(|cx| match operation.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    fn end(&self, ticket: ashlar_sim::check::ledger::WriteTicket, result: Option<Result<(), DiskError>>) {
        let end = match result {
            None => {
                self.world.control.marks().hit("a write was dropped on its way");
                WriteEnd::Unknown
            }
            Some(Ok(())) => WriteEnd::Done,
            // A long write may have been done in part; a device may have what it called failed.
            Some(Err(error)) => {
                self.erred("write", &error);
                if error == DiskError::NoSpace {
                    self.world.control.marks().hit("a write found no space");
                    WriteEnd::Fenced
                } else {
                    WriteEnd::Unknown
                }
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

    pub fn size_bytes(&self) -> u64 {
        self.blocks * u64::from(self.block)
    }

    /// The bytes of volume `number` of this one's size, which nobody writes.
    pub async fn bytes_of(&self, lane: &SimLane, number: u32) -> Option<Vec<u8>> {
        let (pool, disk) = (self.world.env().buffers().clone(), lane.disk(number, 512));
        let size = self.size_bytes();
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let len = (size - bytes.len() as u64).min(16 << 10);
            let buf = pool.alloc(len as usize).await;
            match disk.read(bytes.len() as u64, buf).await {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(error) => {
                    self.erred(&format!("read of volume {number} at byte {}", bytes.len()), &error);
                    return None;
                }
            }
        }
        Some(bytes)
    }

    /// The blocks of `bytes` that are not zero: where each is, where it was written to first, and its value. A copy keeps the
    /// stamp of what it was copied from.
    fn stamps(&self, origin: u32, bytes: &[u8]) -> Vec<(u64, u64, Value)> {
        let sectors = u64::from(self.block / 512);
        let mut stamps = Vec::new();
        for (unit, block) in (0..).zip(bytes.chunks(self.block as usize)) {
            let volume = u64::from(origin);
            let (from, value) = match value_of(volume, unit * sectors, block) {
                Err(Damage::Misdirected { of, .. }) => (of / sectors, value_of(volume, of, block)),
                value => (unit, value),
            };
            match value {
                Ok(Value::ZERO) => {}
                Ok(value) => stamps.push((unit, from, value)),
                Err(damage) => self.fail(damage),
            }
        }
        stamps
    }

    /// From now on the volume holds `bytes`, which hosts of volume `origin` wrote.
    pub fn begin_with(&self, origin: u32, bytes: &[u8]) {
        let mut ledger = Ledger::new(u64::from(origin), self.block, false);
        for (unit, from, value) in self.stamps(origin, bytes) {
            let ticket = ledger.begin_copy(&[(from, value)], unit, true);
            ledger.end_write(ticket, WriteEnd::Done).expect("it was not refused");
        }
        *self.ledger.borrow_mut() = ledger;
        // Numbers of writes begin anew, so they need new writers.
        self.world.next_writer.set(self.world.next_writer.get() + WRITERS_MAX);
        self.first_writer.set(self.world.next_writer.get());
    }

    /// Copies `count` blocks from `from` to `to`; nobody writes to the volume meanwhile, and `bytes` are all that it holds.
    pub async fn copy(&self, lane: &SimLane, bytes: &[u8], from: u64, to: u64, count: u64) {
        let mut values: Vec<_> = (from..from + count).map(|unit| (unit, Value::ZERO)).collect();
        for (unit, stamped, value) in self.stamps(self.origin, bytes) {
            if (from..from + count).contains(&unit) {
                values[(unit - from) as usize] = (stamped, value);
            }
        }
        let ticket = self.ledger.borrow_mut().begin_copy(&values, to, true);
        let copy =
            lane.disk(self.number, self.block).copy(self.range(from, count), to * u64::from(self.block));
        let result = copy.await;
        self.end(ticket, Some(result));
    }
}
