//! Commands that report: sense data, LUNs, capacity, allocation.

use ashlar_env::Volume;
use ashlar_env::volume::{Extent, VolumeInfo};

use super::lun;
use super::sense::{Asc, Failure, Key, Sense};
use super::units::Context;

/// REQUEST SENSE (SPC-4, section 6.39). Sense data are the command's Data-In: `instead`, or the unit attention that
/// waits, which is then told, or that there is nothing to tell.
pub(super) fn request_sense<V: Volume>(command: &Context<'_, V>, instead: Option<Sense>) -> Vec<u8> {
    let cdb = &command.request.cdb;
    let attention = || {
        let unit = command.unit?.volume.info().id;
        Some(Sense::new(Key::UnitAttention, command.nexus.state.take(unit)?))
    };
    let sense = instead.or_else(attention).unwrap_or(Sense::new(Key::NoSense, Asc::NONE));
    let mut data = sense.bytes(cdb.head[1] & 0x01 != 0).into_vec();
    data.truncate(usize::from(cdb.head[4]));
    data
}

/// REPORT LUNS (SPC-4, section 6.33). There are no well known and no administrative units.
pub(super) fn luns<V: Volume>(command: &Context<'_, V>) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    let all = match cdb.head[2] {
        0x00 | 0x02 | 0x11 => true,
        0x01 | 0x10 | 0x12 => false,
        _ => return Err(Sense::cdb(2).into()),
    };
    let luns: Vec<u64> =
        if all { command.units.iter().map(|unit| lun::encode(unit.lun)).collect() } else { vec![] };
    let mut data = ((luns.len() * 8) as u32).to_be_bytes().to_vec();
    data.extend([0; 4]);
    data.extend(luns.iter().flat_map(|lun| lun.to_be_bytes()));
    data.truncate(cdb.u32(6) as usize);
    command.nexus.state.clear(Asc::LUNS_CHANGED);
    Ok(data)
}

/// READ CAPACITY (10) (SBC-3, section 5.15).
pub(super) fn capacity_10(info: &VolumeInfo) -> Vec<u8> {
    let last = u32::try_from(info.blocks - 1).unwrap_or(u32::MAX);
    [last.to_be_bytes(), info.block_size.bytes().to_be_bytes()].concat()
}

/// READ CAPACITY (16) (SBC-3, section 5.16).
pub(super) fn capacity_16<V: Volume>(command: &Context<'_, V>, info: &VolumeInfo) -> Vec<u8> {
    let mut data = (info.blocks - 1).to_be_bytes().to_vec();
    data.extend(info.block_size.bytes().to_be_bytes());
    data.resize(32, 0);
    // Logical blocks per physical block, as an exponent.
    data[13] = info.preferred_write_blocks.checked_ilog2().unwrap_or(0).min(15) as u8;
    if info.thin {
        // LBPME, LBPRZ.
        data[14] = 0xC0;
    }
    data.truncate(command.request.cdb.u32(10) as usize);
    data
}

/// The most descriptors in the answer to one GET LBA STATUS.
const LBA_STATUS_MAX: usize = 1024;

/// The parameter data of GET LBA STATUS (SBC-3, section 5.4.2).
pub(super) fn lba_status(extents: &[Extent]) -> Vec<u8> {
    let mut data = vec![0; 8];
    for extent in extents {
        let mut first = extent.range.first().0;
        let mut left = extent.range.blocks();
        while left > 0 && data.len() < 8 + 16 * LBA_STATUS_MAX {
            let blocks = u32::try_from(left).unwrap_or(u32::MAX);
            data.extend(first.to_be_bytes());
            data.extend(blocks.to_be_bytes());
            data.extend([if extent.allocated { 0x00 } else { 0x01 }, 0, 0, 0]);
            (first, left) = (first + u64::from(blocks), left - u64::from(blocks));
        }
    }
    let len = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&len.to_be_bytes());
    data
}
