//! Round trips, damage, and hostile bytes.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Part {
    Data(u32, u64, Vec<(u8, u8)>),
    Zero(u32, u64, u32),
    Unmap(u32, u64, u32),
    Control(Vec<u8>),
}

fn part() -> impl Strategy<Value = Part> {
    let first = 0..BLOCK_END_MAX - (1 << 32);
    prop_oneof![
        (any::<u32>(), first.clone(), proptest::collection::vec((1u8..=64, any::<u8>()), 1..6))
            .prop_map(|(volume, first, blocks)| Part::Data(volume, first, blocks)),
        (any::<u32>(), first.clone(), 1..u32::MAX).prop_map(|(v, f, c)| Part::Zero(v, f, c)),
        (any::<u32>(), first, 1..u32::MAX).prop_map(|(v, f, c)| Part::Unmap(v, f, c)),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Part::Control),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (any::<u64>(), any::<[u16; 2]>(), any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>(), 9u8..=12)
        .prop_map(|(group, [lane, in_flight], segment, epoch, sequence, previous, align_shift)| Header {
            in_flight,
            lane: LaneId { group: GroupId(group), lane },
            segment: SegmentId(segment),
            epoch: Epoch(epoch),
            sequence,
            previous,
            payload_bytes: 0,
            align_shift,
        })
}

/// The record's bytes, and the extents that went in.
fn build(mut header: Header, parts: &[Part]) -> Vec<u8> {
    let (mut payload, mut sums) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Data(_, _, blocks) => {
                let blocks: Vec<_> = blocks
                    .iter()
                    .map(|&(granules, fill)| {
                        let bytes = vec![fill; usize::from(granules) * GRANULE_BYTES];
                        payload.extend_from_slice(&bytes);
                        BlockSum { crc: crc32c(&bytes), granules }
                    })
                    .collect();
                sums.push(blocks);
            }
            Part::Control(bytes) => {
                payload.extend_from_slice(bytes);
                payload.resize(payload.len().next_multiple_of(GRANULE_BYTES), 0);
                sums.push(Vec::new());
            }
            Part::Zero(..) | Part::Unmap(..) => sums.push(Vec::new()),
        }
    }
    header.payload_bytes = payload.len() as u32;
    let mut out = Vec::new();
    let extents = parts.iter().zip(&sums).map(|(part, sums)| extent(part, sums));
    encode_header(&header, extents, &mut out);
    let align = 1 << header.align_shift;
    out.resize(out.len().next_multiple_of(align), 0);
    out.extend_from_slice(&payload);
    out.resize(out.len().next_multiple_of(align), 0);
    out
}

fn extent<'a>(part: &'a Part, sums: &'a [BlockSum]) -> Extent<'a> {
    match part {
        &Part::Data(volume, first, _) => Extent::Data { volume, first, sums },
        &Part::Zero(volume, first, count) => Extent::Zero { volume, first, count },
        &Part::Unmap(volume, first, count) => Extent::Unmap { volume, first, count },
        Part::Control(bytes) => Extent::Control { bytes: bytes.len() as u32, crc: crc32c(bytes) },
    }
}

fn check(bytes: &[u8]) -> Result<(), RecordError> {
    verify_payload(&decode_header(bytes)?, bytes)
}

fn sample() -> Vec<u8> {
    let lane = LaneId { group: GroupId(7), lane: 1 };
    let header = Header {
        lane,
        segment: SegmentId(3),
        epoch: Epoch(2),
        sequence: 9,
        previous: 0x1234_5678,
        in_flight: 3,
        payload_bytes: 0,
        align_shift: 9,
    };
    let parts =
        [Part::Data(1, 5, vec![(3, 0xAB), (1, 0)]), Part::Control(b"made".to_vec()), Part::Unmap(2, 100, 50)];
    build(header, &parts)
}

#[test]
fn every_flip_of_a_bit_and_every_cut_is_noticed() {
    let good = sample();
    assert_eq!(check(&good), Ok(()));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(check(&bad).is_err(), "bit {bit} of byte {at}");
        }
        assert!(check(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn sound_checksums_do_not_excuse_impossible_fields() {
    let good = sample();
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        let length = u32_at(&bad, 12) as usize;
        let crc = header_crc(&bad[..length]);
        bad[CRC_AT..FIXED_BYTES].copy_from_slice(&crc.to_le_bytes());
        check(&bad).unwrap_err()
    };
    assert_eq!(with(8, 2), RecordError::Version(2));
    assert_eq!(with(10, 13), RecordError::Align(13));
    assert_eq!(with(11, 1), RecordError::Reserved(11));
    assert!(matches!(with(52, 1), RecordError::PayloadBytes(_)));
    assert_eq!(with(56, 2), RecordError::Extents);
    assert_eq!(with(56, 4), RecordError::Extents);
    assert_eq!(with(FIXED_BYTES, 9), RecordError::Kind(9));
    assert_eq!(with(FIXED_BYTES, 5), RecordError::Next);
    assert_eq!(with(FIXED_BYTES + 1, 5), RecordError::Reserved(FIXED_BYTES + 1));
    assert!(matches!(with(FIXED_BYTES + 16, 0), RecordError::Range { .. }));
    assert!(matches!(with(FIXED_BYTES + 15, 1), RecordError::Range { .. }));
    assert_eq!(with(FIXED_BYTES + EXTENT_BYTES + 4, 65), RecordError::Granules(65));
    assert_eq!(with(FIXED_BYTES + EXTENT_BYTES + 4, 0), RecordError::Granules(0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_written_is_read(header in header(), parts in proptest::collection::vec(part(), 0..12)) {
        let bytes = build(header, &parts);
        let record = decode_header(&bytes).unwrap();
        prop_assert_eq!(Header { payload_bytes: 0, ..record.header }, header);
        prop_assert_eq!(record.total_bytes(), bytes.len());
        prop_assert_eq!(verify_payload(&record, &bytes), Ok(()));
        let (mut at, mut room) = (0, Vec::new());
        record.for_each(&mut room, |extent, place| {
            match (&parts[at], extent) {
                (Part::Data(v, f, blocks), Extent::Data { volume, first, sums }) => {
                    assert_eq!((volume, first, sums.len()), (*v, *f, blocks.len()));
                    let mut from = place;
                    for (sum, &(granules, fill)) in sums.iter().zip(blocks) {
                        let end = from + usize::from(granules) * GRANULE_BYTES;
                        assert_eq!(sum.granules, granules);
                        assert!(bytes[from..end].iter().all(|&byte| byte == fill));
                        from = end;
                    }
                }
                (Part::Zero(v, f, c), Extent::Zero { volume, first, count })
                | (Part::Unmap(v, f, c), Extent::Unmap { volume, first, count }) => {
                    assert_eq!((volume, first, count), (*v, *f, *c));
                }
                (Part::Control(sent), Extent::Control { bytes: length, .. }) => {
                    assert_eq!(&bytes[place..place + length as usize], &sent[..]);
                }
                (sent, got) => panic!("{sent:?} became {got:?}"),
            }
            at += 1;
        });
        prop_assert_eq!(at, parts.len());
    }

    #[test]
    fn hostile_bytes_give_an_answer(mut bytes in proptest::collection::vec(any::<u8>(), 0..1024), kind in 0u8..4) {
        // Random bytes, with ever more of a header that is right.
        if kind > 0 && bytes.len() >= FIXED_BYTES {
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
            if kind > 1 {
                let length = bytes.len() as u32;
                bytes[12..16].copy_from_slice(&length.to_le_bytes());
            }
            if kind > 2 {
                bytes[10..12].copy_from_slice(&[12, 0]);
                bytes[54..60].copy_from_slice(&[0, 0, 1, 0, 0, 0]);
                let crc = header_crc(&bytes);
                bytes[CRC_AT..FIXED_BYTES].copy_from_slice(&crc.to_le_bytes());
            }
        }
        let _ = check(&bytes);
    }
}
