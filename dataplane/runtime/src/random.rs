//! Random numbers from the kernel, fetched in batches.

use crate::sys;

const BATCH_BYTES: usize = 512;

/// Hands out the kernel's random numbers; a number is never handed out twice.
#[derive(Debug)]
pub(crate) struct Random {
    batch: [u8; BATCH_BYTES],
    used: usize,
}

impl Random {
    pub(crate) fn new() -> Self {
        Self { batch: [0; BATCH_BYTES], used: BATCH_BYTES }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        if self.used == BATCH_BYTES {
            sys::fill_random(&mut self.batch);
            self.used = 0;
        }
        let (bytes, _) =
            self.batch[self.used..].split_first_chunk_mut::<8>().expect("batches hold whole numbers");
        self.used += 8;
        // What was handed out is wiped.
        u64::from_le_bytes(std::mem::take(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_repeat_over_batches() {
        let mut random = Random::new();
        let mut seen: Vec<u64> = (0..1000).map(|_| random.next_u64()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
