//! How long a replica's appends took of late.

use std::time::Duration;

/// Four buckets for each power of two of microseconds, up to about an hour.
const BUCKETS: usize = 128;

/// Samples after which all counts are halved, so that the past fades.
const SAMPLES_MAX: u32 = 8192;

/// With fewer samples the floor alone holds.
const SAMPLES_MIN: u32 = 256;

/// A fading histogram.
#[derive(Clone)]
pub(super) struct Latency {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Latency {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

fn bucket(time: Duration) -> usize {
    let micros = (time.as_micros() as u64).max(4);
    let power = 63 - micros.leading_zeros();
    let quarter = (micros >> (power - 2)) & 3;
    (((power - 2) * 4) as usize + quarter as usize).min(BUCKETS - 1)
}

/// The least time above those of the bucket.
fn upper(bucket: usize) -> Duration {
    let (power, quarter) = (bucket / 4, bucket % 4);
    Duration::from_micros(((5 + quarter) as u64) << power)
}

impl Latency {
    pub fn add(&mut self, time: Duration) {
        self.counts[bucket(time)] += 1;
        self.total += 1;
        if self.total >= SAMPLES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// The time above which an append is too slow.
    pub fn bound(&self, multiple: u32, floor: Duration) -> Duration {
        if self.total < SAMPLES_MIN {
            return floor;
        }
        // The bucket of the 99.9th percentile, from above.
        let mut above = self.total / 1000;
        for (bucket, &count) in self.counts.iter().enumerate().rev() {
            if count > above {
                return floor.max(upper(bucket) * multiple);
            }
            above -= count;
        }
        floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_below_its_buckets_upper_end() {
        for micros in [0, 1, 4, 5, 7, 8, 9, 100, 1000, 12_345, 10_000_000] {
            let time = Duration::from_micros(micros);
            assert!(time < upper(bucket(time)), "{micros}");
            assert!(upper(bucket(time)) <= time * 2 + Duration::from_micros(8), "{micros}");
        }
    }

    #[test]
    fn the_bound_follows_the_slow_ones_and_not_the_slowest() {
        let mut latency = Latency::default();
        let floor = Duration::from_micros(100);
        assert_eq!(latency.bound(10, floor), floor);
        for n in 0..2000 {
            latency.add(Duration::from_micros(if n == 7 { 1_000_000 } else { 50 }));
        }
        let bound = latency.bound(10, floor);
        assert!((500..=700).contains(&bound.as_micros()), "{bound:?}");
        for _ in 0..100_000 {
            latency.add(Duration::from_millis(3));
        }
        assert!(latency.bound(10, floor) > Duration::from_millis(30));
    }
}
