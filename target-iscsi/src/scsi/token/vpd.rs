//! Third-party Copy VPD page (8Fh; SPC-4, section 7.8.17; SBC-3, section 6.6.6).

use ashlar_env::volume::VolumeInfo;

use super::list::{RANGES_MAX, TIMEOUT_S_DEFAULT, TIMEOUT_S_MAX, TRANSFER_BYTES_MAX};
use super::rod::{ACCESS_UPON_REFERENCE, ZEROS};
use crate::scsi::copy::list::{
    BLOCK_TO_BLOCK, CSCD_BY_DESIGNATOR, CSCD_SELF, CSCDS_MAX, DESCRIPTORS_BYTES_MAX, SEGMENTS_MAX,
};
use crate::scsi::copy::registry::RUNNING_MAX;

/// What is best to copy at once, in bytes.
const OPTIMAL_BYTES: u64 = 64 << 20;

/// A third-party copy descriptor, padded to a multiple of 4.
fn descriptor(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    let len = body.len().next_multiple_of(4);
    out.extend(kind.to_be_bytes());
    out.extend((len as u16).to_be_bytes());
    out.extend(body);
    out.resize(out.len() + len - body.len(), 0);
}

/// The page, without its header. With tokens or without.
#[must_use]
pub fn page(info: &VolumeInfo, tokens: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if tokens {
        descriptor(&mut out, 0x0000, &token_limits(info));
    }
    descriptor(&mut out, 0x0001, &commands(tokens));
    descriptor(&mut out, 0x0004, &parameters());
    // Supported descriptors, and CSCD identifiers.
    descriptor(&mut out, 0x0008, &[2, BLOCK_TO_BLOCK, CSCD_BY_DESIGNATOR]);
    let [high, low] = CSCD_SELF.to_be_bytes();
    descriptor(&mut out, 0x000C, &[0, 2, high, low]);
    if tokens {
        descriptor(&mut out, 0x0106, &token_features(info));
        descriptor(&mut out, 0x0108, &token_types());
    }
    descriptor(&mut out, 0x8001, &general(info));
    out
}

/// Block Device ROD Token Limits.
fn token_limits(info: &VolumeInfo) -> Vec<u8> {
    let shift = info.block_size.shift();
    let mut out = vec![0; 6];
    out.extend((RANGES_MAX as u16).to_be_bytes());
    out.extend(TIMEOUT_S_MAX.to_be_bytes());
    out.extend(TIMEOUT_S_DEFAULT.to_be_bytes());
    out.extend((TRANSFER_BYTES_MAX >> shift).to_be_bytes());
    out.extend((OPTIMAL_BYTES >> shift).to_be_bytes());
    out
}

/// Supported Commands.
fn commands(tokens: bool) -> Vec<u8> {
    let (copies, results): (&[u8], &[u8]) = if tokens {
        (&[0x00, 0x10, 0x11], &[0x00, 0x03, 0x04, 0x07])
    } else {
        (&[0x00], &[0x00, 0x03, 0x04])
    };
    let mut list = Vec::new();
    for (opcode, actions) in [(0x83, copies), (0x84, results)] {
        list.extend([opcode, actions.len() as u8]);
        list.extend(actions);
    }
    [&[list.len() as u8][..], &list].concat()
}

/// Parameter Data.
fn parameters() -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend((CSCDS_MAX as u16).to_be_bytes());
    out.extend((SEGMENTS_MAX as u16).to_be_bytes());
    out.extend((DESCRIPTORS_BYTES_MAX as u32).to_be_bytes());
    out.extend([0; 16]);
    out
}

/// ROD Token Features, with those of block devices.
fn token_features(info: &VolumeInfo) -> Vec<u8> {
    // Tokens of other copy managers are not known here.
    let mut out = vec![0; 12];
    out.extend(1_u32.to_be_bytes());
    out.extend(TIMEOUT_S_MAX.to_be_bytes());
    out.extend(TIMEOUT_S_MAX.to_be_bytes());
    out.resize(40, 0);
    // Device type specific: block devices.
    let mut blocks = vec![0x00, 0];
    blocks.extend(44_u16.to_be_bytes());
    blocks.extend([0, 0]);
    // OPTIMAL BLOCK ROD LENGTH GRANULARITY, in blocks.
    blocks.extend((info.preferred_write_blocks.min(u32::from(u16::MAX)) as u16).to_be_bytes());
    for bytes in [TRANSFER_BYTES_MAX, OPTIMAL_BYTES, OPTIMAL_BYTES, OPTIMAL_BYTES] {
        blocks.extend(bytes.to_be_bytes());
    }
    blocks.resize(48, 0);
    out.extend(0_u16.to_be_bytes());
    out.extend((blocks.len() as u16).to_be_bytes());
    out.extend(blocks);
    out
}

/// Supported ROD Types.
fn token_types() -> Vec<u8> {
    const TOKEN_OUT: u8 = 0x01;
    const TOKEN_IN: u8 = 0x02;
    let mut out = vec![0, 0];
    out.extend((2_u16 * 64).to_be_bytes());
    for (kind, flags) in [(ACCESS_UPON_REFERENCE, TOKEN_IN | TOKEN_OUT), (ZEROS, TOKEN_IN)] {
        let mut one = kind.to_be_bytes().to_vec();
        one.extend([flags, 0]);
        one.resize(64, 0);
        out.extend(one);
    }
    out
}

/// General Copy Operations.
fn general(info: &VolumeInfo) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((RUNNING_MAX as u32).to_be_bytes());
    out.extend((RUNNING_MAX as u32).to_be_bytes());
    out.extend((u32::from(u16::MAX) << info.block_size.shift()).to_be_bytes());
    // Granularities, as exponents.
    out.extend([info.block_size.shift(), 0]);
    out.resize(32, 0);
    out
}

#[cfg(test)]
mod tests {
    use ashlar_env::Volume;
    use ashlar_env::units::BlockSize;

    use super::*;
    use crate::scsi::testing::Store;

    /// The descriptors of a page: type and body.
    fn split(mut page: &[u8]) -> Vec<(u16, &[u8])> {
        let mut descriptors = Vec::new();
        while !page.is_empty() {
            let (kind, len) =
                (u16::from_be_bytes([page[0], page[1]]), u16::from_be_bytes([page[2], page[3]]));
            assert!(len.is_multiple_of(4));
            let (body, rest) = page[4..].split_at(usize::from(len));
            descriptors.push((kind, body));
            page = rest;
        }
        descriptors
    }

    #[test]
    fn descriptors_are_ascending_and_of_their_length() {
        let info = Store::new(1, BlockSize::B512, 8).info();
        let page = page(&info, true);
        assert!(page.len() >= 0x24);
        let lengths: Vec<_> = split(&page).into_iter().map(|(kind, body)| (kind, body.len())).collect();
        let want = [
            (0x0000, 32),
            (0x0001, 12),
            (0x0004, 28),
            (0x0008, 4),
            (0x000C, 4),
            (0x0106, 92),
            (0x0108, 132),
            (0x8001, 32),
        ];
        assert_eq!(lengths, want);
        let without = super::page(&info, false);
        assert!(split(&without).iter().all(|(kind, _)| ![0, 0x106, 0x108].contains(kind)));
    }

    #[test]
    fn commands_are_those_of_the_table() {
        let list = commands(true);
        assert_eq!(usize::from(list[0]), list.len() - 1);
        let mut rest = &list[1..];
        while let [opcode, count, after @ ..] = rest {
            let (actions, after) = after.split_at(usize::from(*count));
            let there: Vec<u8> = (crate::scsi::table::COMMANDS.iter())
                .filter(|entry| entry.opcode == *opcode)
                .filter_map(|entry| entry.action)
                .collect();
            assert_eq!(there, actions);
            rest = after;
        }
    }
}
