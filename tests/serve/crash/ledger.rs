//! What a volume must hold: what was acknowledged, and what may have happened besides. It outlives the node.
//!
//! The unit of account is a block of 4 KiB. At most one change of a block is in flight, and no read meanwhile. A change
//! that was never answered has happened to a block as a whole or not at all; the first look after a restart settles
//! which, and from then on that is what the block must hold.

use std::ops::Range;

use ashlar_perf::load::{Fault, Known, check_sectors, fill_sectors};

use super::random::Random;

pub const SECTOR_BYTES: usize = 512;
pub const BLOCK_BYTES: usize = 4096;
pub const SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;
/// The longest access, in blocks.
pub const BLOCKS_MAX: u64 = 16;

/// The number of the write that each sector of a block comes from; 0 for zeros.
pub type Content = [u64; SECTORS];

/// What each block of a snapshot may hold.
pub type Cut = Vec<Vec<Content>>;

#[derive(Clone, Copy, Default)]
struct Block {
    known: Content,
    /// What a change in flight makes of it.
    pending: Option<Content>,
    readers: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Zeroes,
    Deallocate,
}

/// A command in flight.
#[derive(Clone, Debug)]
pub struct Op {
    pub kind: Kind,
    /// Sectors of the volume.
    pub sectors: Range<u64>,
    sequence: u64,
}

impl Op {
    pub fn bytes(&self) -> usize {
        (self.sectors.end - self.sectors.start) as usize * SECTOR_BYTES
    }

    fn blocks(&self) -> Range<usize> {
        self.sectors.start as usize / SECTORS..(self.sectors.end as usize).div_ceil(SECTORS)
    }
}

pub struct Ledger {
    blocks: Vec<Block>,
    /// Tells the data of one test from another's.
    run: u64,
    sequence: u64,
    cut: Option<Cut>,
}

impl Ledger {
    /// Of a new volume of so many blocks, which is all zeros.
    pub fn new(blocks: u64, run: u64) -> Self {
        Self { blocks: vec![Block::default(); blocks as usize], run, sequence: 0, cut: None }
    }

    pub fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Chooses the next command, if it finds blocks that are free for one.
    pub fn plan(&mut self, random: &mut Random) -> Option<Op> {
        let kind = match random.below(100) {
            0..10 => Kind::Read,
            10..92 => Kind::Write,
            92..96 => Kind::Zeroes,
            _ => Kind::Deallocate,
        };
        let count = if random.one_in(4) { random.within(2, BLOCKS_MAX) } else { 1 };
        let first = random.below(self.blocks() - count + 1);
        let mut sectors = first * SECTORS as u64..(first + count) * SECTORS as u64;
        // A part of a block, or a run that begins or ends within one. Space is given back by whole blocks only.
        if kind != Kind::Deallocate && random.one_in(6) {
            sectors.start += random.below(SECTORS as u64);
            sectors.end -= random.below((sectors.end - sectors.start).min(SECTORS as u64));
        }
        self.claim(kind, sectors)
    }

    /// Begins a command where no other is in the way.
    pub fn claim(&mut self, kind: Kind, sectors: Range<u64>) -> Option<Op> {
        let op = Op { kind, sectors, sequence: self.sequence + 1 };
        let busy = |block: &Block| block.pending.is_some() || (kind != Kind::Read && block.readers > 0);
        if self.blocks[op.blocks()].iter().any(busy) {
            return None;
        }
        if kind == Kind::Read {
            self.blocks[op.blocks()].iter_mut().for_each(|block| block.readers += 1);
            return Some(op);
        }
        self.sequence = op.sequence;
        let value = if kind == Kind::Write { op.sequence } else { 0 };
        for index in op.blocks() {
            let block = &mut self.blocks[index];
            let mut content = block.known;
            for (sector, held) in (index as u64 * SECTORS as u64..).zip(&mut content) {
                if op.sectors.contains(&sector) {
                    *held = value;
                }
            }
            block.pending = Some(content);
            if let Some(cut) = &mut self.cut {
                cut[index].push(content);
            }
        }
        Some(op)
    }

    /// What `op` writes.
    pub fn fill(&self, op: &Op, payload: &mut [u8]) {
        fill_sectors(&mut payload[..op.bytes()], op.sectors.start, op.sequence, self.run);
    }

    /// `op` has succeeded; `data`: what it read.
    pub fn done(&mut self, op: &Op, data: &[u8]) -> Result<(), Fault> {
        for index in op.blocks() {
            let block = &mut self.blocks[index];
            if op.kind == Kind::Read {
                block.readers -= 1;
            } else {
                block.known = block.pending.take().expect("a change in flight");
            }
        }
        if op.kind != Kind::Read {
            return Ok(());
        }
        for (sector, bytes) in op.sectors.clone().zip(data.chunks(SECTOR_BYTES)) {
            let held = self.blocks[sector as usize / SECTORS].known[sector as usize % SECTORS];
            check_sectors(bytes, sector, known(held), self.run)?;
        }
        Ok(())
    }

    /// Compares what is in the volume from block `first` on with what may be there, and settles what was open. No
    /// command may be under way any more.
    pub fn settle(&mut self, first: u64, data: &[u8]) -> Result<(), Fault> {
        for (index, bytes) in (first as usize..).zip(data.chunks(BLOCK_BYTES)) {
            let block = self.blocks[index];
            let may: Vec<Content> = [Some(block.known), block.pending].into_iter().flatten().collect();
            let known = one_of(bytes, index, &may, self.run)?;
            self.blocks[index] = Block { known, ..Block::default() };
        }
        Ok(())
    }

    /// Begins to note what a snapshot made now may hold.
    pub fn begin_cut(&mut self) {
        let may = |block: &Block| [Some(block.known), block.pending].into_iter().flatten().collect();
        self.cut = Some(self.blocks.iter().map(may).collect());
    }

    /// The snapshot was made, or was not.
    pub fn end_cut(&mut self) -> Cut {
        self.cut.take().expect("a cut was begun")
    }

    /// The volume was put back to the snapshot `cut`; the next look settles which of the possible it is.
    pub fn restored(&mut self, cut: &Cut, first: u64, data: &[u8]) -> Result<(), Fault> {
        for (index, bytes) in (first as usize..).zip(data.chunks(BLOCK_BYTES)) {
            let known = one_of(bytes, index, &cut[index], self.run)?;
            self.blocks[index] = Block { known, ..Block::default() };
        }
        Ok(())
    }

    /// Compares what a clone of `cut` holds from block `first` on.
    pub fn check_cut(&self, cut: &Cut, first: u64, data: &[u8]) -> Result<(), Fault> {
        for (index, bytes) in (first as usize..).zip(data.chunks(BLOCK_BYTES)) {
            one_of(bytes, index, &cut[index], self.run)?;
        }
        Ok(())
    }
}

fn known(sequence: u64) -> Known {
    if sequence == 0 { Known::Zeros } else { Known::Written(sequence) }
}

/// Which of `may` a block holds; the fault is that against the first.
fn one_of(bytes: &[u8], index: usize, may: &[Content], run: u64) -> Result<Content, Fault> {
    let check = |content: &Content| {
        let first = (index * SECTORS) as u64;
        let mut sectors = (first..).zip(bytes.chunks(SECTOR_BYTES)).zip(content);
        sectors.try_for_each(|((sector, bytes), &held)| check_sectors(bytes, sector, known(held), run))
    };
    let mut fault = None;
    for content in may {
        match check(content) {
            Ok(()) => return Ok(*content),
            Err(found) => fault = fault.or(Some(found)),
        }
    }
    Err(fault.expect("a block may hold something"))
}

#[test]
fn a_block_is_old_or_new_as_a_whole() {
    let mut ledger = Ledger::new(2, 7);
    let write = |ledger: &mut Ledger, sectors| {
        let op = ledger.claim(Kind::Write, sectors).unwrap();
        let mut data = vec![0; op.bytes()];
        ledger.fill(&op, &mut data);
        (op, data)
    };
    let (op, old) = write(&mut ledger, 0..16);
    ledger.done(&op, &[]).unwrap();
    let (op, new) = write(&mut ledger, 4..16);
    assert!(ledger.claim(Kind::Read, 0..1).is_none() && op.blocks() == (0..2));
    let mut torn = old.clone();
    torn[6 * SECTOR_BYTES..BLOCK_BYTES].copy_from_slice(&new[2 * SECTOR_BYTES..4 * SECTOR_BYTES]);
    assert!(ledger.settle(0, &torn).is_err(), "a torn block");
    assert!(ledger.settle(0, &[0; BLOCK_BYTES]).is_err(), "a lost block");
    let mut half = old.clone();
    half[4 * SECTOR_BYTES..BLOCK_BYTES].copy_from_slice(&new[..4 * SECTOR_BYTES]);
    ledger.settle(0, &half).unwrap();
    assert!(ledger.settle(0, &old).is_err(), "settled as new");
    ledger.settle(1, &old[BLOCK_BYTES..]).unwrap();
}
