//! Where a command's Data-Out gathers: one buffer, or several where one is too small.

use ashlar_env::buf::MAX_BYTES;
use ashlar_env::{BufMut, BufPool};

use crate::scsi::Data;

#[derive(Default)]
pub(super) enum Store {
    #[default]
    None,
    One(BufMut),
    /// All but the last are of [`MAX_BYTES`].
    Many(Vec<BufMut>),
}

impl Store {
    /// Room for `bytes`, if the pool has it now.
    pub fn try_new(pool: &BufPool, bytes: usize) -> Option<Self> {
        match bytes {
            0 => Some(Self::None),
            1..=MAX_BYTES => pool.try_alloc(bytes).map(Self::One),
            _ => {
                let lengths = (0..bytes).step_by(MAX_BYTES).map(|at| MAX_BYTES.min(bytes - at));
                lengths.map(|len| pool.try_alloc(len)).collect::<Option<_>>().map(Self::Many)
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(buf) => buf.len(),
            Self::Many(bufs) => bufs.iter().map(|buf| buf.len()).sum(),
        }
    }

    /// The room from `at` on, as far as it is in one piece; empty behind the end.
    pub fn from(&mut self, at: usize) -> &mut [u8] {
        match self {
            Self::None => &mut [],
            Self::One(buf) => buf.get_mut(at..).unwrap_or_default(),
            Self::Many(bufs) => {
                let buf = bufs.get_mut(at / MAX_BYTES);
                buf.and_then(|buf| buf.get_mut(at % MAX_BYTES..)).unwrap_or_default()
            }
        }
    }

    /// Takes over the first `bytes` of `other`.
    pub fn copy_from(&mut self, mut other: Self, bytes: usize) {
        let mut at = 0;
        while at < bytes {
            let source = other.from(at);
            let target = self.from(at);
            let n = source.len().min(target.len()).min(bytes - at);
            if n == 0 {
                return;
            }
            target[..n].copy_from_slice(&source[..n]);
            at += n;
        }
    }

    pub fn freeze(self) -> Data {
        match self {
            Self::None => Data::None,
            Self::One(buf) => Data::One(buf.freeze()),
            Self::Many(bufs) => Data::Many(bufs.into_iter().map(BufMut::freeze).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_env::buf::PoolPlan;

    #[test]
    fn large_stores_are_in_pieces_and_small_ones_are_taken_over() {
        let pool = BufPool::on_heap(PoolPlan { limits: [1, 1, 0, 0, 2] });
        let mut small = Store::try_new(&pool, 5000).unwrap();
        small.from(0).fill(7);
        let mut large = Store::try_new(&pool, 2 * MAX_BYTES + 100).unwrap();
        assert_eq!(large.len(), 2 * MAX_BYTES + 100);
        assert_eq!(large.from(MAX_BYTES - 1).len(), 1);
        assert_eq!(large.from(2 * MAX_BYTES).len(), 100);
        assert!(large.from(2 * MAX_BYTES + 100).is_empty());
        large.copy_from(small, 5000);
        assert!(large.from(0)[..5000].iter().all(|byte| *byte == 7));
        assert!(Store::try_new(&pool, MAX_BYTES).is_none());
        assert_eq!(large.freeze().bytes(), 2 * MAX_BYTES + 100);
        assert!(Store::try_new(&pool, MAX_BYTES).is_some());
    }
}
