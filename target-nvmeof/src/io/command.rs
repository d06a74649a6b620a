//! What an I/O command asks for (NVM, section 3). Each is parsed twice from its entry, which is cheaper than keeping
//! the result: [`transfer`] when it arrives, [`operation`] when its data are there.

use ashlar_env::Buf;
use ashlar_env::disk::Durability;
use ashlar_env::units::{BlockRange, Lba};
use ashlar_env::volume::{Operation, VolumeInfo};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::reservation;
use crate::limits::{COPY_BYTES_MAX, COPY_RANGE_BYTES_MAX, COPY_RANGES_MAX, DSM_RANGES_MAX};
use crate::transport::Transfer;
use crate::wire::sqe::io;
use crate::wire::{Sqe, Status};

/// Range of a Dataset Management command (NVM, figure "Dataset Management - Range Definition").
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DsmRange {
    /// Bytes 3:0: context attributes, hints only.
    attributes: U32,
    /// Bytes 7:4: length in blocks, not 0's based.
    blocks: U32,
    /// Bytes 15:8: first block.
    first: U64,
}

/// Source range of a Copy command, format 0 (NVM, figure "Copy - Source Range Entries Descriptor Format 0h").
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CopyRange {
    /// Bytes 7:0: reserved.
    reserved: U64,
    /// Bytes 15:8: first block.
    first: U64,
    /// Bytes 17:16: length in blocks, 0's based.
    blocks: U16,
    /// Bytes 31:18: reserved, and protection information.
    rest: [u8; 14],
}

const DSM_RANGE_BYTES: u32 = size_of::<DsmRange>() as u32;
const COPY_RANGE_BYTES: u32 = size_of::<CopyRange>() as u32;
const _: () = assert!(DSM_RANGE_BYTES == 16 && COPY_RANGE_BYTES == 32);

/// Deallocate, bit 2 of dword 11 of Dataset Management.
const DSM_DEALLOCATE: u32 = 1 << 2;
/// Deallocate, bit 25 of dword 12 of Write Zeroes.
const DEAC: u32 = 1 << 25;
/// Force unit access, bit 30 of dword 12.
const FUA: u32 = 1 << 30;
/// Protection information field, bits 29:26 of dword 12. No namespace here has protection information.
const PRINFO: u32 = 0xF << 26;

/// What the command transfers. The checks are those that its entry alone allows: opcode, fields, range.
///
/// # Errors
/// The status to complete the command with.
pub fn transfer(sqe: &Sqe, volume: &VolumeInfo, max_transfer_bytes: u32) -> Result<Transfer, Status> {
    match sqe.opcode {
        io::FLUSH => Ok(Transfer::None),
        io::READ => Ok(Transfer::ToHost(data_len(sqe, volume, max_transfer_bytes)?)),
        io::WRITE | io::COMPARE => Ok(Transfer::FromHost(data_len(sqe, volume, max_transfer_bytes)?)),
        io::WRITE_ZEROES | io::VERIFY => range(sqe, volume).map(|_| Transfer::None),
        io::DATASET_MANAGEMENT => {
            list(sqe, ranges(sqe) * DSM_RANGE_BYTES, u32::from(DSM_RANGES_MAX) * DSM_RANGE_BYTES)
        }
        io::COPY => {
            copy_format(sqe)?;
            list(sqe, ranges(sqe) * COPY_RANGE_BYTES, 256 * COPY_RANGE_BYTES)
        }
        io::RESERVATION_REGISTER
        | io::RESERVATION_REPORT
        | io::RESERVATION_ACQUIRE
        | io::RESERVATION_RELEASE => reservation::transfer(sqe, max_transfer_bytes),
        _ => Err(Status::INVALID_OPCODE),
    }
}

/// The operation, given the data from the host, if there are any.
///
/// # Errors
/// The status to complete the command with.
pub fn operation(sqe: &Sqe, volume: &VolumeInfo, data: Option<Buf>) -> Result<Operation, Status> {
    let durability = if sqe.cdw12.get() & FUA != 0 { Durability::Fua } else { Durability::Cached };
    let data = data.ok_or(Status::INTERNAL_ERROR);
    Ok(match sqe.opcode {
        io::FLUSH => Operation::Flush,
        io::READ => Operation::Read { range: range(sqe, volume)? },
        io::WRITE => Operation::Write { range: range(sqe, volume)?, data: data?, durability },
        io::COMPARE => Operation::Compare { range: range(sqe, volume)?, expected: data? },
        io::WRITE_ZEROES => {
            let free = sqe.cdw12.get() & DEAC != 0;
            Operation::WriteZeroes { range: range(sqe, volume)?, free, durability }
        }
        io::VERIFY => Operation::Verify { range: range(sqe, volume)? },
        io::DATASET_MANAGEMENT => Operation::Unmap { ranges: dsm_ranges(sqe, volume, &data?)? },
        io::COPY => copy(sqe, volume, &data?, durability)?,
        io::RESERVATION_REGISTER
        | io::RESERVATION_REPORT
        | io::RESERVATION_ACQUIRE
        | io::RESERVATION_RELEASE => Operation::Reserve(reservation::action(sqe, data.ok().as_deref())?),
        _ => return Err(Status::INVALID_OPCODE),
    })
}

/// SLBA (dwords 10 and 11) and NLB (dword 12, bits 15:0, 0's based) as a range within the namespace.
fn range(sqe: &Sqe, volume: &VolumeInfo) -> Result<BlockRange, Status> {
    if sqe.cdw12.get() & PRINFO != 0 && sqe.opcode != io::WRITE_ZEROES {
        return Err(Status::INVALID_FIELD);
    }
    within(sqe.cdw10_11(), u64::from(sqe.cdw12.get() & 0xFFFF) + 1, volume)
}

fn within(first: u64, blocks: u64, volume: &VolumeInfo) -> Result<BlockRange, Status> {
    match BlockRange::new(Lba(first), blocks) {
        Some(range) if range.end().0 <= volume.blocks => Ok(range),
        _ => Err(Status::LBA_OUT_OF_RANGE),
    }
}

fn data_len(sqe: &Sqe, volume: &VolumeInfo, max_transfer_bytes: u32) -> Result<u32, Status> {
    let blocks = range(sqe, volume)?.blocks() as u32;
    // At most 2^16 blocks of 2^12 bytes.
    let len = blocks << volume.block_size.shift();
    if len > max_transfer_bytes { Err(Status::INVALID_FIELD) } else { Ok(len) }
}

/// Number of ranges of Dataset Management and Copy: bits 7:0, 0's based, of dword 10 and 12.
fn ranges(sqe: &Sqe) -> u32 {
    let dword = if sqe.opcode == io::COPY { sqe.cdw12 } else { sqe.cdw10 };
    (dword.get() & 0xFF) + 1
}

/// A list of `needed` bytes. The host may send more: Linux always sends room for 256 ranges.
fn list(sqe: &Sqe, needed: u32, most: u32) -> Result<Transfer, Status> {
    let given = sqe.sgl.length.get();
    if (needed..=most).contains(&given) {
        Ok(Transfer::FromHost(given))
    } else {
        Err(Status::DATA_SGL_LENGTH_INVALID)
    }
}

fn dsm_ranges(sqe: &Sqe, volume: &VolumeInfo, data: &[u8]) -> Result<Box<[BlockRange]>, Status> {
    let mut checked = Vec::with_capacity(ranges(sqe) as usize);
    for at in 0..ranges(sqe) as usize {
        let (range, _) = DsmRange::ref_from_prefix(&data[at * DSM_RANGE_BYTES as usize..])
            .map_err(|_| Status::DATA_SGL_LENGTH_INVALID)?;
        let _ = range.attributes;
        let blocks = u64::from(range.blocks.get());
        let range = within(range.first.get(), blocks, volume)?;
        if blocks > 0 {
            checked.push(range);
        }
    }
    // Without the deallocate attribute the ranges are hints, and this target takes none.
    if sqe.cdw11.get() & DSM_DEALLOCATE == 0 {
        checked.clear();
    }
    Ok(checked.into_boxed_slice())
}

/// Copy descriptor format, bits 11:8 of dword 12: format 0 only. No protection information (bits 29:26, 15:12).
fn copy_format(sqe: &Sqe) -> Result<(), Status> {
    let dword = sqe.cdw12.get();
    if dword >> 8 & 0xF != 0 || dword & PRINFO != 0 || dword >> 12 & 0xF != 0 {
        return Err(Status::INVALID_FIELD);
    }
    if ranges(sqe) > u32::from(COPY_RANGES_MAX) { Err(Status::COMMAND_SIZE_LIMIT) } else { Ok(()) }
}

fn copy(sqe: &Sqe, volume: &VolumeInfo, data: &[u8], durability: Durability) -> Result<Operation, Status> {
    let shift = volume.block_size.shift();
    let mut sources = Vec::with_capacity(ranges(sqe) as usize);
    let mut total = 0;
    for at in 0..ranges(sqe) as usize {
        let (range, _) = CopyRange::ref_from_prefix(&data[at * COPY_RANGE_BYTES as usize..])
            .map_err(|_| Status::DATA_SGL_LENGTH_INVALID)?;
        let _ = (range.reserved, range.rest);
        let blocks = u64::from(range.blocks.get()) + 1;
        total += blocks;
        if blocks > u64::from(COPY_RANGE_BYTES_MAX >> shift) || total > u64::from(COPY_BYTES_MAX >> shift) {
            return Err(Status::COMMAND_SIZE_LIMIT);
        }
        sources.push(within(range.first.get(), blocks, volume)?);
    }
    let to = sqe.cdw10_11();
    within(to, total, volume)?;
    Ok(Operation::Copy { sources: sources.into_boxed_slice(), to: Lba(to), durability })
}

/// Whether the command changes data, for ANA, write protection and statistics.
#[must_use]
pub const fn is_write(opcode: u8) -> bool {
    matches!(opcode, io::WRITE | io::WRITE_ZEROES | io::DATASET_MANAGEMENT | io::COPY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_env::units::{BlockSize, VolumeId};

    fn volume() -> VolumeInfo {
        VolumeInfo {
            id: VolumeId(Default::default()),
            block_size: BlockSize::B512,
            blocks: 2048,
            read_only: false,
            volatile_cache: true,
            thin: true,
            unmap_granularity_blocks: 8,
            preferred_write_blocks: 8,
            atomic_write_blocks: 1,
        }
    }

    fn sqe(opcode: u8, slba: u64, dword12: u32) -> Sqe {
        let mut sqe = Sqe::zeroed();
        sqe.opcode = opcode;
        sqe.cdw10 = U32::new(slba as u32);
        sqe.cdw11 = U32::new((slba >> 32) as u32);
        sqe.cdw12 = U32::new(dword12);
        sqe
    }

    #[test]
    fn ranges_are_checked_without_overflow() {
        let cases = [
            (0, 7, Ok(Transfer::ToHost(4096))),
            (2047, 0, Ok(Transfer::ToHost(512))),
            (2047, 1, Err(Status::LBA_OUT_OF_RANGE)),
            (2048, 0, Err(Status::LBA_OUT_OF_RANGE)),
            (u64::MAX, 0, Err(Status::LBA_OUT_OF_RANGE)),
            (u64::MAX, 0xFFFF, Err(Status::LBA_OUT_OF_RANGE)),
            (0, 0xFFFF, Err(Status::LBA_OUT_OF_RANGE)),
        ];
        for (slba, nlb, expected) in cases {
            assert_eq!(transfer(&sqe(io::READ, slba, nlb), &volume(), 1 << 20), expected, "{slba} {nlb}");
        }
        assert_eq!(transfer(&sqe(io::READ, 0, 1023), &volume(), 128 << 10), Err(Status::INVALID_FIELD));
    }

    #[test]
    fn linux_sends_room_for_256_ranges_whatever_their_number() {
        let mut command = sqe(io::DATASET_MANAGEMENT, 0, 0);
        command.cdw11 = U32::new(DSM_DEALLOCATE);
        for (given, expected) in [
            (15, Err(Status::DATA_SGL_LENGTH_INVALID)),
            (16, Ok(Transfer::FromHost(16))),
            (4096, Ok(Transfer::FromHost(4096))),
            (4097, Err(Status::DATA_SGL_LENGTH_INVALID)),
        ] {
            command.sgl.length = U32::new(given);
            assert_eq!(transfer(&command, &volume(), 1 << 20), expected, "{given}");
        }
        let mut data = [0; 4096];
        data[4..8].copy_from_slice(&8u32.to_le_bytes());
        data[8..16].copy_from_slice(&2040u64.to_le_bytes());
        let ranges = dsm_ranges(&command, &volume(), &data).unwrap();
        assert_eq!(*ranges, [BlockRange::new(Lba(2040), 8).unwrap()]);
        data[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        data[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(dsm_ranges(&command, &volume(), &data), Err(Status::LBA_OUT_OF_RANGE));
    }

    #[test]
    fn unknown_opcodes_are_refused() {
        for opcode in [0x04, 0x10, 0x79, 0x7A, 0x7D, 0xFF] {
            assert_eq!(transfer(&sqe(opcode, 0, 0), &volume(), 1 << 20), Err(Status::INVALID_OPCODE));
        }
    }

    #[test]
    fn a_copy_has_limits() {
        let mut command = sqe(io::COPY, 1024, 1);
        command.sgl.length = U32::new(64);
        assert_eq!(transfer(&command, &volume(), 1 << 20), Ok(Transfer::FromHost(64)));
        let mut data = [0; 64];
        data[16] = 7;
        data[40] = 100;
        data[48] = 1;
        let Ok(Operation::Copy { sources, to, .. }) = copy(&command, &volume(), &data, Durability::Cached)
        else {
            panic!("a copy")
        };
        let range = |first, blocks| BlockRange::new(Lba(first), blocks).unwrap();
        assert_eq!((&*sources, to), (&[range(0, 8), range(100, 2)][..], Lba(1024)));
        data[16..18].copy_from_slice(&u16::MAX.to_le_bytes());
        let refused = copy(&command, &volume(), &data, Durability::Cached);
        assert_eq!(refused.err(), Some(Status::COMMAND_SIZE_LIMIT));
        command.cdw12 = U32::new(255);
        command.sgl.length = U32::new(256 * 32);
        assert_eq!(transfer(&command, &volume(), 1 << 20), Err(Status::COMMAND_SIZE_LIMIT));
    }
}
