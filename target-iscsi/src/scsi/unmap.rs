//! UNMAP (SBC-3, section 5.28).

use ashlar_env::Volume;
use ashlar_env::units::{BlockRange, Lba};
use ashlar_env::volume::{Operation, VolumeInfo};

use super::block::nothing;
use super::finish::Kind;
use super::sense::{Asc, Failure, Sense};
use super::units::{Context, MappedUnit};
use super::vpd::{UNMAP_BLOCKS_MAX, UNMAP_DESCRIPTORS_MAX};
use super::{Data, Finish, Step};

const HEADER_BYTES: usize = 8;
const DESCRIPTOR_BYTES: usize = 16;

pub(super) fn start<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
    data: &Data,
) -> Result<Step<V>, Failure> {
    let cdb = &command.request.cdb;
    if cdb.head[1] & 0x01 != 0 {
        // ANCHOR.
        return Err(Sense::cdb_bit(1, 0).into());
    }
    let len = usize::from(cdb.u16(7));
    if len == 0 {
        return Ok(nothing());
    }
    if data.bytes() < len {
        return Err(Sense::illegal(Asc::INFORMATION_UNIT).into());
    }
    let ranges = parse(&data.gather()[..len], info)?;
    if ranges.is_empty() {
        return Ok(nothing());
    }
    let finish = Finish { descriptor: unit.state.descriptor_sense(), kind: Kind::Plain };
    let operation = Operation::Unmap { ranges: ranges.into() };
    Ok(Step::Operate { volume: unit.volume.clone(), operation, finish })
}

/// The ranges of a parameter list; empty ones are left out.
fn parse(list: &[u8], info: &VolumeInfo) -> Result<Vec<BlockRange>, Failure> {
    let Some((header, rest)) = list.split_at_checked(HEADER_BYTES) else {
        return Err(Sense::illegal(Asc::PARAMETER_LENGTH).into());
    };
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let Some(descriptors) = rest.get(..len) else { return Err(Sense::parameter(2).into()) };
    // What is left of a descriptor at the end is none.
    let (descriptors, _) = descriptors.as_chunks::<DESCRIPTOR_BYTES>();
    if descriptors.len() > UNMAP_DESCRIPTORS_MAX as usize {
        return Err(Sense::parameter(2).into());
    }
    let mut ranges = Vec::new();
    let mut total = 0;
    for (at, descriptor) in descriptors.iter().enumerate() {
        let lba = u64::from_be_bytes(*descriptor.first_chunk().expect("16 bytes begin with 8"));
        let blocks = u32::from_be_bytes([descriptor[8], descriptor[9], descriptor[10], descriptor[11]]);
        total += u64::from(blocks);
        if total > u64::from(UNMAP_BLOCKS_MAX) {
            return Err(Sense::parameter((HEADER_BYTES + at * DESCRIPTOR_BYTES + 8) as u16).into());
        }
        let range = BlockRange::new(Lba(lba), u64::from(blocks)).filter(|range| range.end().0 <= info.blocks);
        ranges.push(range.ok_or(Sense::illegal(Asc::LBA_RANGE))?);
    }
    Ok(joined(ranges))
}

/// The same blocks in fewer ranges: those that follow each other are one, and empty ones are left out. A volume takes
/// one range after the other, and some initiators list what lies side by side block by block.
fn joined(ranges: Vec<BlockRange>) -> Vec<BlockRange> {
    let mut joined: Vec<BlockRange> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| range.blocks() > 0) {
        let last = joined.last().copied().filter(|last| last.end() == range.first());
        match last.and_then(|last| BlockRange::new(last.first(), last.blocks() + range.blocks())) {
            Some(both) => *joined.last_mut().expect("there is a last one") = both,
            None => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_range() {
        let ranges = |pairs: &[(u64, u64)]| -> Vec<BlockRange> {
            pairs.iter().map(|&(first, blocks)| BlockRange::new(Lba(first), blocks).unwrap()).collect()
        };
        assert_eq!(joined(ranges(&[(0, 1), (1, 1), (2, 3), (9, 0), (5, 1)])), ranges(&[(0, 6)]));
        let apart = [(4, 2), (0, 2), (2, 1), (8, 1)];
        assert_eq!(joined(ranges(&apart)), ranges(&[(4, 2), (0, 3), (8, 1)]));
        assert_eq!(joined(Vec::new()), []);
    }
}
