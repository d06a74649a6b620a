//! The parameter list of EXTENDED COPY (LID1) (SPC-4, sections 6.4 and 6.4.3).

use ashlar_env::units::Lba;

use crate::scsi::sense::{Asc, Failure, Sense};

/// Bytes before the descriptors.
pub const HEADER_BYTES: usize = 16;
/// Bytes of every CSCD descriptor.
pub const CSCD_BYTES: usize = 32;
/// Bytes of a block to block segment descriptor.
pub const SEGMENT_BYTES: usize = 28;
/// MAXIMUM CSCD DESCRIPTOR COUNT.
pub const CSCDS_MAX: usize = 16;
/// MAXIMUM SEGMENT DESCRIPTOR COUNT.
pub const SEGMENTS_MAX: usize = 64;
/// MAXIMUM DESCRIPTOR LIST LENGTH: as many of both.
pub const DESCRIPTORS_BYTES_MAX: usize = CSCDS_MAX * CSCD_BYTES + SEGMENTS_MAX * SEGMENT_BYTES;
/// The type of the CSCD descriptor that names a unit by a designator.
pub const CSCD_BY_DESIGNATOR: u8 = 0xE4;
/// The type of the segment descriptor from block device to block device.
pub const BLOCK_TO_BLOCK: u8 = 0x02;
/// The CSCD that is the unit that the command is for.
pub const CSCD_SELF: u16 = 0xFFFF;

/// What becomes of the list when the copy has ended (LIST ID USAGE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// It is kept for RECEIVE COPY RESULTS.
    Hold,
    /// Nobody will ask.
    Discard,
    /// There is no list identifier.
    None,
}

/// A unit, by a designator of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cscd {
    /// The designator's type: 1 T10 vendor, 2 EUI-64, 3 NAA.
    pub kind: u8,
    /// The designator.
    pub designator: Vec<u8>,
    /// The unit's block size, as the initiator has it; 0 where it says none.
    pub block_bytes: u32,
}

/// A segment from block device to block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From which CSCD.
    pub source: u16,
    /// To which CSCD.
    pub destination: u16,
    /// How many blocks.
    pub blocks: u16,
    /// Whether these are the destination's blocks (DC), not the source's.
    pub in_destination_blocks: bool,
    /// Where to read.
    pub from: Lba,
    /// Where to write.
    pub to: Lba,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// LIST IDENTIFIER.
    pub id: u8,
    /// LIST ID USAGE.
    pub usage: Usage,
    /// The units.
    pub cscds: Vec<Cscd>,
    /// The segments, in order.
    pub segments: Vec<Segment>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    (usize::from(u16_at(bytes, at)) << 16) | usize::from(u16_at(bytes, at + 2))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    (u32_at(bytes, at) as u64) << 32 | u32_at(bytes, at + 4) as u64
}

/// Reads a list. The lengths come first, then the numbers of descriptors, then their types.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR, TOO MANY TARGET or SEGMENT DESCRIPTORS, UNSUPPORTED TARGET or SEGMENT DESCRIPTOR TYPE
/// CODE, INVALID FIELD IN PARAMETER LIST.
pub fn parse(bytes: &[u8]) -> Result<List, Failure> {
    let wrong_length = || Failure::from(Sense::illegal(Asc::PARAMETER_LENGTH));
    let header = bytes.get(..HEADER_BYTES).ok_or_else(wrong_length)?;
    let usage = match header[1] >> 3 & 0x03 {
        0b10 => Usage::Discard,
        0b11 if header[0] != 0 => return Err(Sense::parameter(0).into()),
        0b11 => Usage::None,
        _ => Usage::Hold,
    };
    let (cscds, segments) = (usize::from(u16_at(header, 2)), u32_at(header, 8));
    if u32_at(header, 12) != 0 {
        // Inline data: there is no segment that would take any.
        return Err(Sense::parameter(12).into());
    }
    let descriptors = cscds.saturating_add(segments);
    if descriptors > DESCRIPTORS_BYTES_MAX || bytes.len() < HEADER_BYTES + descriptors {
        return Err(wrong_length());
    }
    let (cscds, rest) = bytes[HEADER_BYTES..].split_at(cscds);
    let rest = &rest[..segments];
    if cscds.len() > CSCDS_MAX * CSCD_BYTES {
        return Err(Sense::illegal(Asc::TOO_MANY_CSCDS).into());
    }
    let segments = split_segments(rest)?;
    if !cscds.len().is_multiple_of(CSCD_BYTES) {
        return Err(Sense::parameter(2).into());
    }
    let cscds = cscds.chunks(CSCD_BYTES).map(cscd).collect::<Result<_, _>>()?;
    let segments = segments.into_iter().map(segment).collect::<Result<_, _>>()?;
    Ok(List { id: header[0], usage, cscds, segments })
}

/// Where each segment descriptor is. Their lengths are their own, so that one of an unknown type can be told.
fn split_segments(mut rest: &[u8]) -> Result<Vec<&[u8]>, Failure> {
    let mut segments = Vec::new();
    while !rest.is_empty() {
        let len = rest.get(2..4).map(|len| 4 + usize::from(u16_at(len, 0)));
        let Some((segment, after)) = len.and_then(|len| rest.split_at_checked(len)) else {
            return Err(Sense::parameter(8).into());
        };
        if segments.len() == SEGMENTS_MAX {
            return Err(Sense::illegal(Asc::TOO_MANY_SEGMENTS).into());
        }
        segments.push(segment);
        rest = after;
    }
    Ok(segments)
}

fn cscd(bytes: &[u8]) -> Result<Cscd, Failure> {
    if bytes[0] != CSCD_BY_DESIGNATOR {
        return Err(Sense::illegal(Asc::CSCD_TYPE).into());
    }
    let (device, association, len) = (bytes[1] & 0x1F, bytes[5] >> 4 & 0x03, usize::from(bytes[7]));
    // A block device, by a designator of the unit.
    if device != 0 || association != 0 || len > 20 {
        return Err(Sense::illegal(Asc::PARAMETER_FIELD).into());
    }
    let designator = bytes[8..8 + len].to_vec();
    Ok(Cscd { kind: bytes[5] & 0x0F, designator, block_bytes: u32_at(bytes, 28) as u32 & 0x00FF_FFFF })
}

fn segment(bytes: &[u8]) -> Result<Segment, Failure> {
    if bytes[0] != BLOCK_TO_BLOCK {
        return Err(Sense::illegal(Asc::SEGMENT_TYPE).into());
    }
    if bytes.len() != SEGMENT_BYTES {
        return Err(Sense::illegal(Asc::PARAMETER_FIELD).into());
    }
    Ok(Segment {
        source: u16_at(bytes, 4),
        destination: u16_at(bytes, 6),
        blocks: u16_at(bytes, 10),
        in_destination_blocks: bytes[1] & 0x02 != 0,
        from: Lba(u64_at(bytes, 12)),
        to: Lba(u64_at(bytes, 20)),
    })
}

#[cfg(test)]
pub(in crate::scsi) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A CSCD descriptor by NAA designator.
    pub fn naa_cscd(naa: &[u8; 16]) -> Vec<u8> {
        let mut bytes = vec![CSCD_BY_DESIGNATOR, 0, 0, 0, 0x01, 0x03, 0, 16];
        bytes.extend(naa);
        bytes.resize(CSCD_BYTES, 0);
        bytes[30] = 2;
        bytes
    }

    /// A block to block segment.
    pub fn block_segment(source: u16, destination: u16, blocks: u16, from: u64, to: u64) -> Vec<u8> {
        let mut bytes = vec![BLOCK_TO_BLOCK, 0, 0, 0x18];
        bytes.extend([source, destination, 0, blocks].map(u16::to_be_bytes).concat());
        bytes.extend([from, to].map(u64::to_be_bytes).concat());
        bytes
    }

    /// A list of these descriptors.
    pub fn list(id: u8, usage: u8, cscds: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
        let (cscds, segments) = (cscds.concat(), segments.concat());
        let mut bytes = vec![id, usage << 3];
        bytes.extend((cscds.len() as u16).to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend((segments.len() as u32).to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(cscds);
        bytes.extend(segments);
        bytes
    }

    fn asc(bytes: &[u8]) -> Option<(u8, u8)> {
        match parse(bytes) {
            Ok(_) => None,
            Err(Failure::Check(sense)) => Some((sense.asc.0, sense.asc.1)),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn sample(cscds: usize, segments: usize) -> Vec<u8> {
        list(1, 0, &vec![naa_cscd(&[6; 16]); cscds], &vec![block_segment(0, 0, 8, 0, 9); segments])
    }

    #[test]
    fn a_list_is_read() {
        let read = parse(&sample(1, 2)).unwrap();
        let segment = Segment {
            source: 0,
            destination: 0,
            blocks: 8,
            in_destination_blocks: false,
            from: Lba(0),
            to: Lba(9),
        };
        let cscd = Cscd { kind: 3, designator: vec![6; 16], block_bytes: 512 };
        assert_eq!(read, List { id: 1, usage: Usage::Hold, cscds: vec![cscd], segments: vec![segment; 2] });
        assert_eq!(asc(&sample(CSCDS_MAX, SEGMENTS_MAX)), None);
        assert_eq!(asc(&sample(0, 0)), None);
    }

    #[test]
    fn limits_are_told_apart() {
        assert_eq!(asc(&sample(CSCDS_MAX + 1, 1)), Some((0x26, 0x06)));
        assert_eq!(asc(&sample(1, SEGMENTS_MAX + 1)), Some((0x26, 0x08)));
        assert_eq!(asc(&sample(CSCDS_MAX + 1, SEGMENTS_MAX + 1)), Some((0x1A, 0x00)));
        for len in 0..sample(1, 1).len() {
            assert_eq!(asc(&sample(1, 1)[..len]), Some((0x1A, 0x00)), "{len}");
        }
        let mut lies = sample(1, 1);
        lies[8..12].copy_from_slice(&(65535_u32 * 28).to_be_bytes());
        assert_eq!(asc(&lies), Some((0x1A, 0x00)));
        lies[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(asc(&lies), Some((0x1A, 0x00)));
    }

    #[test]
    fn types_and_fields_are_checked() {
        let changed = |at: usize, value: u8| {
            let mut bytes = sample(1, 1);
            bytes[at] = value;
            asc(&bytes)
        };
        let (cscd, segment) = (HEADER_BYTES, HEADER_BYTES + CSCD_BYTES);
        for (at, value, want) in [
            (cscd, 0xE0, (0x26, 0x07)),
            (cscd, 0xFF, (0x26, 0x07)),
            (segment, 0x03, (0x26, 0x09)),
            (segment, 0x00, (0x26, 0x09)),
            (cscd + 1, 0x01, (0x26, 0x00)),
            (cscd + 5, 0x13, (0x26, 0x00)),
            (cscd + 7, 21, (0x26, 0x00)),
            (segment + 3, 0x17, (0x26, 0x00)),
            (segment + 3, 0x19, (0x26, 0x00)),
            (15, 1, (0x26, 0x00)),
            (1, 0b11 << 3, (0x26, 0x00)),
            (3, 31, (0x26, 0x00)),
        ] {
            assert_eq!(changed(at, value), Some(want), "{at} {value}");
        }
        // LU ID TYPE and NUL have no meaning any more.
        assert_eq!(changed(cscd + 1, 0xE0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_are_too_bad(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), small in any::<bool>()) {
            if small && bytes.len() >= HEADER_BYTES {
                // Lengths that fit now and then.
                bytes[2] = 0;
                bytes[8..11].fill(0);
                bytes[12..16].fill(0);
            }
            if let Ok(list) = parse(&bytes) {
                prop_assert!(list.cscds.len() <= CSCDS_MAX && list.segments.len() <= SEGMENTS_MAX);
            }
        }
    }
}
