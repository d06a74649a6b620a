//! Sets of stores.

/// The most replicas a segment has.
pub const SHARDS_MAX: usize = 4;

/// A set of shard numbers below [`SHARDS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardSet(pub u8);

impl ShardSet {
    /// No shard.
    pub const EMPTY: Self = Self(0);

    /// Shards 0 to `count` - 1.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        assert!(count <= SHARDS_MAX);
        Self(((1u16 << count) - 1) as u8)
    }

    /// One shard.
    #[must_use]
    pub const fn of(shard: u8) -> Self {
        assert!((shard as usize) < SHARDS_MAX);
        Self(1 << shard)
    }

    /// Whether `shard` is in it.
    #[must_use]
    pub const fn contains(self, shard: u8) -> bool {
        self.0 >> shard & 1 == 1
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many it has.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Those of either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Its shards, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..SHARDS_MAX as u8).filter(move |&shard| self.contains(shard))
    }
}

impl FromIterator<u8> for ShardSet {
    fn from_iter<I: IntoIterator<Item = u8>>(shards: I) -> Self {
        shards.into_iter().fold(Self::EMPTY, |set, shard| set.with(Self::of(shard)))
    }
}
