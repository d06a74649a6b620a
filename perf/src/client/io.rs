//! The I/O commands, as a host builds them (NVM, section 3).

use ashlar_nvmeof::wire::Sqe;
use ashlar_nvmeof::wire::sqe::io;
use zerocopy::little_endian::U32;

use super::fabrics::command;

/// CDW12 bit 30: Force Unit Access.
const FUA: u32 = 1 << 30;

/// A command on `blocks` blocks from `lba`; at least one block.
#[must_use]
pub fn ranged(opcode: u8, nsid: u32, lba: u64, blocks: u32) -> Sqe {
    let mut sqe = command(opcode, nsid);
    set_range(&mut sqe, lba, blocks);
    sqe
}

/// Moves a ranged command to `blocks` blocks from `lba`, leaving its flags.
#[inline]
pub fn set_range(sqe: &mut Sqe, lba: u64, blocks: u32) {
    sqe.cdw10 = U32::new(lba as u32);
    sqe.cdw11 = U32::new((lba >> 32) as u32);
    sqe.cdw12 = U32::new(sqe.cdw12.get() & 0xFFFF_0000 | (blocks - 1) & 0xFFFF);
}

/// Read.
#[must_use]
pub fn read(nsid: u32, lba: u64, blocks: u32) -> Sqe {
    ranged(io::READ, nsid, lba, blocks)
}

/// Write; with `fua` it is durable when it completes.
#[must_use]
pub fn write(nsid: u32, lba: u64, blocks: u32, fua: bool) -> Sqe {
    let mut sqe = ranged(io::WRITE, nsid, lba, blocks);
    if fua {
        sqe.cdw12 = U32::new(sqe.cdw12.get() | FUA);
    }
    sqe
}

/// Compare with the data sent.
#[must_use]
pub fn compare(nsid: u32, lba: u64, blocks: u32) -> Sqe {
    ranged(io::COMPARE, nsid, lba, blocks)
}

/// Write Zeroes.
#[must_use]
pub fn write_zeroes(nsid: u32, lba: u64, blocks: u32) -> Sqe {
    ranged(io::WRITE_ZEROES, nsid, lba, blocks)
}

/// Flush.
#[must_use]
pub fn flush(nsid: u32) -> Sqe {
    command(io::FLUSH, nsid)
}
