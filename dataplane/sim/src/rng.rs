//! Randomness that depends on the seed alone.
//!
//! Each component has a generator of its own, split from the seed by the component's name and number and not
//! by drawing, so that a change in one component leaves the draws of the others alone. The generators are
//! xoshiro256++ seeded by SplitMix64 (Blackman and Vigna, public domain algorithms), written out here because
//! a seed must mean the same in every version of every dependency.

/// A deterministic generator of random numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prng {
    state: [u64; 4],
}

/// One step of SplitMix64: advances `state`, returns 64 mixed bits.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mix(*state)
}

/// Mixes 64 bits so that each bit of the input touches each of the output (the finalizer of SplitMix64).
#[must_use]
pub(crate) const fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A 64-bit digest of bytes; not cryptographic.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hash = 0xA076_1D64_78BD_642F_u64 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks of 8 bytes"));
        hash = (hash ^ word).wrapping_mul(0xE703_7ED1_A0B4_28DB).rotate_left(31);
    }
    for &byte in chunks.remainder() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0xE703_7ED1_A0B4_28DB).rotate_left(31);
    }
    mix(hash)
}

impl Prng {
    /// The generator of `seed` itself.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut s = seed;
        Self { state: [split_mix(&mut s), split_mix(&mut s), split_mix(&mut s), split_mix(&mut s)] }
    }

    /// The generator of the component `label`, number `number`, under `seed`.
    #[must_use]
    pub fn split(seed: u64, label: &str, number: u64) -> Self {
        Self::new(mix(seed ^ digest(label.as_bytes())).wrapping_add(mix(number.wrapping_add(1))))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number below `bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index below `bound`; 0 where `bound` is 0.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// A number from `low` to `high`, both included; `low` where `high` is lower.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low {
            self.next_u64();
            return low;
        }
        low + self.below((high - low).saturating_add(1))
    }

    /// Whether an event of this rate happens now. Draws once, whatever the rate.
    pub fn hits(&mut self, rate: Rate) -> bool {
        self.below(1_000_000) < u64::from(rate.0)
    }

    /// An exponentially distributed number with this mean, at most 16 times the mean: a long tail.
    pub fn tail(&mut self, mean: u64) -> u64 {
        // Sixteenths of the mean per halving: 11/16 is ln 2 to 1 %.
        let bits = self.next_u64();
        let halvings = u64::from(bits.leading_zeros().min(20));
        let fraction = self.below(mean.saturating_mul(11) / 16 + 1);
        (halvings.saturating_mul(mean.saturating_mul(11) / 16)).saturating_add(fraction)
    }

    /// Fills `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// How often something happens, in parts per million of the occasions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u32);

impl Rate {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// On every occasion.
    pub const ALWAYS: Self = Self(1_000_000);

    /// `percent` in a hundred.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self(percent * 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Old seeds must keep their meaning: these values may change only with a line in the changelog.
    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut a = Prng::new(0);
        assert_eq!(a.next_u64(), 0x5317_5D61_490B_23DF);
        let mut b = Prng::split(1, "disk", 2);
        let mut c = Prng::split(1, "disk", 3);
        let mut d = Prng::split(1, "net", 2);
        let first = b.next_u64();
        assert_ne!(first, c.next_u64());
        assert_ne!(first, d.next_u64());
        assert_eq!(first, Prng::split(1, "disk", 2).next_u64());
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_them() {
        let mut rng = Prng::new(7);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[rng.between(10, 14) as usize - 10] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.between(9, 3), 9);
        assert!((0..1000).all(|_| !rng.hits(Rate::NEVER)));
        assert!((0..1000).all(|_| rng.hits(Rate::ALWAYS)));
        let hits = (0..10_000).filter(|_| rng.hits(Rate::percent(20))).count();
        assert!((1800..2200).contains(&hits), "{hits}");
    }

    #[test]
    fn the_tail_has_its_mean() {
        let mut rng = Prng::new(3);
        let sum: u64 = (0..100_000).map(|_| rng.tail(1000)).sum();
        let mean = sum / 100_000;
        assert!((900..1150).contains(&mean), "{mean}");
    }
}
