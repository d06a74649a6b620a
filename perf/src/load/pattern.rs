//! Where the accesses go and which kind each is.

use super::Pattern;

/// SplitMix64: the generator of the access pattern. Any seed will do.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `limit`, by multiplication: the bias is below 2^-32 for any namespace in use.
    #[inline]
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// True in `percent` of the cases.
    #[inline]
    pub(super) fn percent(&mut self, percent: u8) -> bool {
        match percent {
            0 => false,
            100.. => true,
            _ => self.below(100) < u64::from(percent),
        }
    }
}

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
#[inline]
pub(super) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The next access of one connection, as the number of a unit of the block size.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    pattern: Pattern,
    first: u64,
    next: u64,
    end: u64,
    units: u64,
}

impl Cursor {
    /// The cursor of connection `index` of `count` over `units` units. A connection whose part would be empty
    /// shares the whole.
    pub(super) fn new(pattern: Pattern, units: u64, index: u64, count: u64) -> Self {
        let share = units / count;
        let (first, end) = if share == 0 { (0, units) } else { (share * index, share * (index + 1)) };
        Self { pattern, first, next: first, end, units }
    }

    #[inline]
    pub(super) fn advance(&mut self, random: &mut Random) -> u64 {
        if self.pattern == Pattern::Random {
            return random.below(self.units);
        }
        let unit = self.next;
        self.next = if unit + 1 == self.end { self.first } else { unit + 1 };
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_connections_cover_their_parts_in_order() {
        let mut random = Random::new(7);
        let mut second = Cursor::new(Pattern::Seq, 10, 1, 3);
        let seen: Vec<u64> = (0..5).map(|_| second.advance(&mut random)).collect();
        assert_eq!(seen, [3, 4, 5, 3, 4]);
        let mut crowded = Cursor::new(Pattern::Seq, 2, 5, 8);
        assert_eq!([crowded.advance(&mut random), crowded.advance(&mut random)], [0, 1]);
    }

    #[test]
    fn random_accesses_reach_every_unit_and_none_beyond() {
        let mut random = Random::new(7);
        let mut cursor = Cursor::new(Pattern::Random, 16, 0, 1);
        let mut count = [0u32; 16];
        (0..16_000).for_each(|_| count[cursor.advance(&mut random) as usize] += 1);
        assert!(count.iter().all(|&n| (850..1150).contains(&n)), "{count:?}");
    }

    #[test]
    fn percentages_are_kept() {
        let mut random = Random::new(3);
        let hits = (0..10_000).filter(|_| random.percent(70)).count();
        assert!((6_700..7_300).contains(&hits), "{hits}");
        assert!(!random.percent(0) && random.percent(100));
    }
}
