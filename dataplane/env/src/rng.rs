//! Randomness.

/// A source of random numbers: the kernel's in production, split from the seed in the simulator.
pub trait Rng {
    /// 64 bits, each equally likely; unpredictable to a peer in production.
    fn random_u64(&self) -> u64;

    /// A number below `bound`; 0 where `bound` is 0. The bias is below `bound / 2^64`.
    fn random_below(&self, bound: u64) -> u64 {
        ((u128::from(self.random_u64()) * u128::from(bound)) >> 64) as u64
    }
}
