//! Commands that read and write blocks (SBC-3).

use ashlar_env::Volume;
use ashlar_env::buf::MAX_BYTES;
use ashlar_env::disk::Durability;
use ashlar_env::units::{BlockRange, Lba};
use ashlar_env::volume::{Operation, VolumeInfo};

use super::finish::Kind;
use super::long::{self, Io, Repeat, Turn};
use super::sense::{Asc, Failure, Sense};
use super::table::{Code, Entry};
use super::units::{Context, MappedUnit, TRANSFER_BYTES_MAX};
use super::vpd::{atomic_blocks_max, compare_blocks_max, write_same_blocks_max};
use super::{Answer, Cdb, Data, Finish, Step};

/// Which blocks a CDB means: LOGICAL BLOCK ADDRESS and TRANSFER LENGTH (or what it is called), by the length of the CDB.
pub(super) fn addressed(entry: &Entry, cdb: &Cdb) -> (u64, u64) {
    match entry.code {
        Code::CompareAndWrite => return (cdb.u64(2), u64::from(cdb.head[13])),
        Code::WriteAtomic => return (cdb.u64(2), u64::from(cdb.u16(12))),
        _ => {}
    }
    match entry.usage.len() {
        6 => {
            let blocks = if cdb.head[4] == 0 { 256 } else { u64::from(cdb.head[4]) };
            (u64::from(cdb.u32(0) & 0x001F_FFFF), blocks)
        }
        10 => (u64::from(cdb.u32(2)), u64::from(cdb.u16(7))),
        12 => (u64::from(cdb.u32(2)), u64::from(cdb.u32(6))),
        _ => (cdb.u64(2), u64::from(cdb.u32(10))),
    }
}

/// Where the number of blocks is in the CDB.
fn length_field(entry: &Entry) -> u16 {
    match (entry.code, entry.usage.len()) {
        (Code::CompareAndWrite, _) => 13,
        (Code::WriteAtomic, _) => 12,
        (_, 6) => 4,
        (_, 10) => 7,
        (_, 12) => 6,
        _ => 10,
    }
}

/// BYTCHK of VERIFY and WRITE AND VERIFY.
fn byte_check(cdb: &Cdb) -> u8 {
    cdb.head[1] >> 1 & 0x03
}

/// NDOB of WRITE SAME (16): no data come, the blocks become zeros.
fn without_data(entry: &Entry, cdb: &Cdb) -> bool {
    entry.usage.len() == 16 && cdb.head[1] & 0x01 != 0
}

/// How many bytes of data a block command takes.
pub(super) fn wanted(entry: &Entry, cdb: &Cdb, info: &VolumeInfo) -> u32 {
    let (_, blocks) = addressed(entry, cdb);
    let units = match entry.code {
        Code::Write | Code::WriteAtomic | Code::WriteAndVerify | Code::OrWrite => blocks,
        Code::CompareAndWrite => 2 * blocks,
        Code::Verify => match byte_check(cdb) {
            1 => blocks,
            3 => 1.min(blocks),
            _ => 0,
        },
        Code::WriteSame => u64::from(!without_data(entry, cdb)),
        _ => 0,
    };
    let bytes = units << info.block_size.shift();
    if bytes > TRANSFER_BYTES_MAX { 0 } else { bytes as u32 }
}

/// A block command for a unit.
pub(super) struct Block<'a, V> {
    pub command: &'a Context<'a, V>,
    pub unit: &'a MappedUnit<V>,
    pub info: &'a VolumeInfo,
    pub range: BlockRange,
}

/// Does what a block command asks.
pub(super) fn start<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
    data: Data,
) -> Result<Step<V>, Failure> {
    let (entry, cdb) = (command.entry, &command.request.cdb);
    let protects = !matches!(entry.code, Code::SynchronizeCache | Code::PreFetch | Code::GetLbaStatus);
    if protects && entry.usage.len() > 6 && cdb.head[1] & 0xE0 != 0 {
        // The units are formatted without protection information.
        return Err(Sense::cdb_bit(1, 7).into());
    }
    let (lba, blocks) = match entry.code {
        Code::GetLbaStatus => (cdb.u64(2), info.blocks.saturating_sub(cdb.u64(2)).max(1)),
        _ => addressed(entry, cdb),
    };
    // An empty range may begin at the end.
    let range = BlockRange::new(Lba(lba), blocks)
        .filter(|range| range.end().0 <= info.blocks)
        .ok_or(Sense::illegal(Asc::LBA_RANGE))?;
    let block = Block { command, unit, info, range };
    match entry.code {
        Code::Read => block.read(),
        Code::Write => block.write(data),
        Code::WriteAtomic => block.write_atomic(data),
        Code::Verify => block.verify(data),
        Code::WriteAndVerify => block.write_and_verify(data),
        Code::CompareAndWrite => block.compare_and_write(&data),
        Code::OrWrite => block.or_write(data),
        Code::WriteSame => block.write_same(&data),
        Code::GetLbaStatus => Ok(block.lba_status()),
        Code::SynchronizeCache => Ok(block.operate(Operation::Flush)),
        // There is no cache to fetch into: GOOD says that not all blocks are in it.
        _ => Ok(nothing()),
    }
}

/// GOOD at once.
pub(super) fn nothing<V>() -> Step<V> {
    Step::Done(Answer::good(Data::None))
}

impl<V: Volume> Block<'_, V> {
    fn cdb(&self) -> &Cdb {
        &self.command.request.cdb
    }

    fn bytes(&self) -> u64 {
        self.range.blocks() << self.info.block_size.shift()
    }

    fn io(&self) -> Io<V> {
        Io::new(self.command, self.unit)
    }

    fn finish(&self, kind: Kind) -> Finish {
        Finish { descriptor: self.unit.state.descriptor_sense(), kind }
    }

    fn operate(&self, operation: Operation) -> Step<V> {
        Step::Operate { volume: self.unit.volume.clone(), operation, finish: self.finish(Kind::Plain) }
    }

    /// FUA.
    fn durability(&self) -> Durability {
        let forced = self.command.entry.usage.len() > 6 && self.cdb().head[1] & 0x08 != 0;
        if forced { Durability::Fua } else { Durability::Cached }
    }

    /// Whether the transfer is one that is served at all.
    fn bounded(&self) -> Result<(), Failure> {
        if self.bytes() > TRANSFER_BYTES_MAX {
            return Err(Sense::cdb(length_field(self.command.entry)).into());
        }
        Ok(())
    }

    /// The blocks for which data are here, where the initiator had fewer to send than the command takes: whole blocks
    /// are taken, part of one is not, and then none are.
    fn covered(&self, data: &Data) -> Result<BlockRange, Failure> {
        let (bytes, size) = (data.bytes() as u64, self.info.block_size);
        if bytes == self.bytes() {
            return Ok(self.range);
        }
        BlockRange::new(self.range.first(), bytes >> size.shift())
            .filter(|_| bytes < self.bytes() && bytes.is_multiple_of(size.bytes().into()))
            .ok_or(Sense::illegal(Asc::INFORMATION_UNIT).into())
    }

    /// Whether exactly so many bytes are here.
    fn complete(&self, data: &Data, bytes: u64) -> Result<(), Failure> {
        if data.bytes() as u64 == bytes { Ok(()) } else { Err(Sense::illegal(Asc::INFORMATION_UNIT).into()) }
    }

    fn fits_buffer(&self) -> bool {
        self.bytes() <= MAX_BYTES as u64
    }

    fn read(&self) -> Result<Step<V>, Failure> {
        self.bounded()?;
        let range = self.range;
        if range.blocks() == 0 {
            return Ok(nothing());
        }
        if self.fits_buffer() {
            return Ok(self.operate(Operation::Read { range }));
        }
        let turn = Turn::take(&self.command.units.long_reads)?;
        Ok(long::step(self.unit, self.io().read(range, turn)))
    }

    fn write(&self, data: Data) -> Result<Step<V>, Failure> {
        self.bounded()?;
        let (range, durability) = (self.covered(&data)?, self.durability());
        if range.blocks() == 0 {
            return Ok(nothing());
        }
        if self.fits_buffer() {
            return Ok(self.operate(Operation::Write { range, data: data.gather(), durability }));
        }
        let io = self.io();
        Ok(long::step(self.unit, async move {
            io.write(range, &data, durability).await?;
            Ok(Data::None)
        }))
    }

    fn write_atomic(&self, data: Data) -> Result<Step<V>, Failure> {
        if self.cdb().u16(10) != 0 {
            // Boundaries are not supported, as the block limits say.
            return Err(Sense::cdb(10).into());
        }
        if self.range.blocks() > u64::from(atomic_blocks_max(self.info)) {
            return Err(Sense::cdb(12).into());
        }
        // All of it or nothing.
        self.complete(&data, self.bytes())?;
        self.write(data)
    }

    fn verify(&self, data: Data) -> Result<Step<V>, Failure> {
        let range = self.range;
        match byte_check(self.cdb()) {
            0 if range.blocks() == 0 => Ok(nothing()),
            0 => Ok(self.operate(Operation::Verify { range })),
            1 => self.compare(data),
            3 => self.compare_same(data),
            _ => Err(Sense::cdb_bit(1, 2).into()),
        }
    }

    fn compare(&self, data: Data) -> Result<Step<V>, Failure> {
        self.bounded()?;
        let range = self.covered(&data)?;
        if range.blocks() == 0 {
            return Ok(nothing());
        }
        if self.fits_buffer() {
            return Ok(self.operate(Operation::Compare { range, expected: data.gather() }));
        }
        let io = self.io();
        Ok(long::step(self.unit, async move {
            io.compare(range, &data).await?;
            Ok(Data::None)
        }))
    }

    /// Whether a block repeated so often is repeated no more often than WRITE SAME does.
    fn repeats(&self, data: &Data) -> Result<(), Failure> {
        if self.range.blocks() > write_same_blocks_max(self.info) {
            return Err(Sense::cdb(length_field(self.command.entry)).into());
        }
        self.complete(data, u64::from(self.info.block_size.bytes()))
    }

    fn compare_same(&self, data: Data) -> Result<Step<V>, Failure> {
        if self.range.blocks() == 0 {
            return Ok(nothing());
        }
        self.repeats(&data)?;
        Ok(self.repeat(&data, Repeat::Compare))
    }

    fn repeat(&self, data: &Data, how: Repeat) -> Step<V> {
        let (io, range, block) = (self.io(), self.range, data.gather());
        long::step(self.unit, async move {
            io.repeat(range, &block, how).await?;
            Ok(Data::None)
        })
    }

    fn write_and_verify(&self, data: Data) -> Result<Step<V>, Failure> {
        let compares = match byte_check(self.cdb()) {
            0 => false,
            1 => true,
            _ => return Err(Sense::cdb_bit(1, 2).into()),
        };
        self.bounded()?;
        let (io, range) = (self.io(), self.covered(&data)?);
        if range.blocks() == 0 {
            return Ok(nothing());
        }
        Ok(long::step(self.unit, async move {
            // What is verified is what lies on the medium.
            io.write(range, &data, Durability::Fua).await?;
            if compares {
                io.compare(range, &data).await?;
            } else {
                io.run(Operation::Verify { range }, 0).await?;
            }
            Ok(Data::None)
        }))
    }

    fn compare_and_write(&self, data: &Data) -> Result<Step<V>, Failure> {
        if self.range.blocks() > u64::from(compare_blocks_max(self.info)) {
            return Err(Sense::cdb(13).into());
        }
        // Neither less nor more: the two halves must be known. Hosts expect to hear that the number is wrong.
        let bytes = 2 * self.bytes();
        if data.bytes() as u64 != bytes || u64::from(self.command.request.out_bytes) != bytes {
            return Err(Sense::cdb(13).into());
        }
        if self.range.blocks() == 0 {
            return Ok(nothing());
        }
        let (both, half) = (data.gather(), self.bytes() as usize);
        Ok(self.operate(Operation::CompareAndWrite {
            range: self.range,
            expected: both.slice(0, half),
            data: both.slice(half, half),
            durability: self.durability(),
        }))
    }

    fn or_write(&self, data: Data) -> Result<Step<V>, Failure> {
        self.bounded()?;
        let (io, range, durability) = (self.io(), self.covered(&data)?, self.durability());
        if range.blocks() == 0 {
            return Ok(nothing());
        }
        Ok(long::step(self.unit, async move {
            io.or(range, &data, durability).await?;
            Ok(Data::None)
        }))
    }

    fn write_same(&self, data: &Data) -> Result<Step<V>, Failure> {
        let flags = self.cdb().head[1];
        let (anchor, unmap) = (flags & 0x10 != 0, flags & 0x08 != 0);
        if anchor {
            return Err(Sense::cdb_bit(1, 4).into());
        }
        if unmap && !self.info.thin {
            return Err(Sense::cdb_bit(1, 3).into());
        }
        if flags & 0x06 != 0 {
            // PBDATA and LBDATA of old: logical block addresses written into the blocks.
            return Err(Sense::cdb_bit(1, 2).into());
        }
        if self.range.blocks() == 0 {
            // WSNZ.
            return Err(Sense::cdb(length_field(self.command.entry)).into());
        }
        let out_bytes = self.command.request.out_bytes;
        let ndob = without_data(self.command.entry, self.cdb());
        if ndob && out_bytes != 0 {
            return Err(Sense::cdb_bit(1, 0).into());
        }
        if !ndob {
            self.repeats(data)?;
            if out_bytes != self.info.block_size.bytes() {
                return Err(Sense::illegal(Asc::INFORMATION_UNIT).into());
            }
        } else if self.range.blocks() > write_same_blocks_max(self.info) {
            return Err(Sense::cdb(length_field(self.command.entry)).into());
        }
        if ndob || data.pieces().all(|piece| piece.iter().all(|byte| *byte == 0)) {
            let (range, durability) = (self.range, Durability::Cached);
            return Ok(self.operate(Operation::WriteZeroes { range, free: unmap, durability }));
        }
        Ok(self.repeat(data, Repeat::Write(Durability::Cached)))
    }

    fn lba_status(&self) -> Step<V> {
        let kind = Kind::LbaStatus { allocation_bytes: self.cdb().u32(10) };
        let operation = Operation::Allocation { range: self.range };
        Step::Operate { volume: self.unit.volume.clone(), operation, finish: self.finish(kind) }
    }
}
