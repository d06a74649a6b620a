//! Blocks as they are stored: as they are, or compressed.
//!
//! A compressed block is its length (2 bytes, little endian), LZ4's block format, and zeros up to whole granules. A block is
//! kept compressed only where that saves an eighth, so that reading it is worth the work.

use ashlar_codec::crc32c;
use ashlar_env::buf::{Buf, BufMut};
use smallvec::SmallVec;

use crate::ids::{BLOCK_BYTES, BLOCK_GRANULES, GRANULE_BYTES};
use crate::log::BlockSum;

/// Granules at and below which a compressed block is worth it.
const GRANULES_MAX: usize = BLOCK_GRANULES as usize * 7 / 8;
const PREFIX_BYTES: usize = 2;
/// What a block takes compressed at worst, in bytes.
const ROOM_BYTES: usize = lz4_flex::block::get_maximum_output_size(BLOCK_BYTES);

/// The sums of blocks stored as they are.
#[must_use]
pub fn sums_of(data: &[u8]) -> SmallVec<[BlockSum; 4]> {
    data.chunks_exact(BLOCK_BYTES)
        .map(|block| BlockSum { crc: crc32c(block), granules: BLOCK_GRANULES })
        .collect()
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<16>();
    words.iter().all(|word| u128::from_le_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Packs the blocks of `data` into `out`, which is as long; gives what is used of it. `None` where no block is worth
/// compressing, and `data` should be stored as it is.
#[must_use]
pub fn compress(data: &[u8], mut out: BufMut) -> Option<(Buf, SmallVec<[BlockSum; 4]>)> {
    let mut sums = SmallVec::new();
    let mut end = 0;
    let mut worth = false;
    for block in data.chunks_exact(BLOCK_BYTES) {
        let room = &mut out[end..end + BLOCK_BYTES];
        let granules = match compress_block(block, room) {
            Some(granules) => {
                worth = true;
                granules
            }
            None => {
                room.copy_from_slice(block);
                usize::from(BLOCK_GRANULES)
            }
        };
        let stored = &room[..granules * GRANULE_BYTES];
        sums.push(BlockSum { crc: crc32c(stored), granules: granules as u8 });
        end += stored.len();
    }
    worth.then(|| {
        out.truncate(end);
        (out.freeze(), sums)
    })
}

fn compress_block(block: &[u8], out: &mut [u8]) -> Option<usize> {
    // The compressor asks for room for the worst case.
    let mut room = [0; ROOM_BYTES];
    let len = lz4_flex::block::compress_into(block, &mut room).ok()?;
    if PREFIX_BYTES + len > GRANULES_MAX * GRANULE_BYTES {
        return None;
    }
    out[PREFIX_BYTES..PREFIX_BYTES + len].copy_from_slice(&room[..len]);
    out[..PREFIX_BYTES].copy_from_slice(&(len as u16).to_le_bytes());
    let granules = (PREFIX_BYTES + len).div_ceil(GRANULE_BYTES);
    out[PREFIX_BYTES + len..granules * GRANULE_BYTES].fill(0);
    Some(granules)
}

/// The block whose compressed form is `stored`, into `out`. `None` where it is none.
#[must_use]
pub fn decompress(stored: &[u8], out: &mut [u8]) -> Option<()> {
    let (prefix, rest) = stored.split_first_chunk::<PREFIX_BYTES>()?;
    let compressed = rest.get(..usize::from(u16::from_le_bytes(*prefix)))?;
    let len = lz4_flex::block::decompress_into(compressed, out).ok()?;
    (len == out.len()).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_env::buf::{BufPool, PoolPlan};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(seeds in proptest::collection::vec((any::<u8>(), 1usize..4096), 1..9)) {
            let mut data = Vec::new();
            for (seed, period) in seeds {
                let mut state = u32::from(seed) + 1;
                let block: Vec<u8> = (0..BLOCK_BYTES).map(|at| {
                    if at < period { state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); }
                    (state >> 24) as u8
                }).collect();
                data.extend_from_slice(&block);
            }
            let pool = BufPool::on_heap(PoolPlan::for_bytes(1 << 20));
            let room = pool.try_alloc(data.len()).unwrap();
            let Some((packed, sums)) = compress(&data, room) else { return Ok(()) };
            let mut at = 0;
            for (sum, block) in sums.iter().zip(data.chunks(BLOCK_BYTES)) {
                let stored = &packed[at..at + usize::from(sum.granules) * GRANULE_BYTES];
                prop_assert_eq!(crc32c(stored), sum.crc);
                let mut out = vec![0; BLOCK_BYTES];
                if sum.granules == BLOCK_GRANULES {
                    out.copy_from_slice(stored);
                } else {
                    prop_assert!(decompress(stored, &mut out).is_some());
                }
                prop_assert_eq!(&out[..], block);
                at += stored.len();
            }
            prop_assert_eq!(at, packed.len());
        }

        #[test]
        fn any_bytes_are_a_block_or_none(stored in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decompress(&stored, &mut [0; BLOCK_BYTES]);
        }
    }

    #[test]
    fn what_repeats_takes_less() {
        let pool = BufPool::on_heap(PoolPlan::for_bytes(1 << 20));
        let (packed, sums) =
            compress(&[7; 2 * BLOCK_BYTES], pool.try_alloc(2 * BLOCK_BYTES).unwrap()).unwrap();
        assert_eq!((packed.len(), sums.len(), sums[0].granules), (128, 2, 1));
    }

    #[test]
    fn zeros_are_seen() {
        assert!(is_zero(&[0; 4096]) && is_zero(&[]) && is_zero(&[0; 3]));
        for at in [0, 1, 15, 16, 4094, 4095] {
            let mut data = [0; 4096];
            data[at] = 1;
            assert!(!is_zero(&data));
        }
    }
}
