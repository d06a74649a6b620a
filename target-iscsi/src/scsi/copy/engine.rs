//! Moving blocks without the initiator: how a copy is done is decided here alone.

use ashlar_env::buf::MAX_BYTES;
use ashlar_env::disk::Durability;
use ashlar_env::spawn::yield_now;
use ashlar_env::units::{BlockRange, Lba};
use ashlar_env::volume::{Issuer, Operation, Outcome};
use ashlar_env::{Volume, VolumeError};

/// How much one operation of the volume copies within it, in bytes: what comes between two looks at whether to go on.
const STEP_BYTES: u64 = 32 << 20;

/// What is to be copied. Both places are of the same number of bytes, which is a multiple of both block sizes.
pub struct Copy<V> {
    /// The volume to read.
    pub from: V,
    /// What to read.
    pub source: BlockRange,
    /// The volume to write.
    pub to: V,
    /// Where to write.
    pub at: Lba,
}

/// Why a copy ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// the volume read refused or failed
    Source(VolumeError),
    /// the volume written refused or failed
    Destination(VolumeError),
    /// nobody waits for it any more
    Cancelled,
}

/// Which way a copy takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The volume copies within itself: of the map alone, where it can.
    Within,
    /// Read and write, from the first block on.
    Forward,
    /// Read and write, from the last block on: the destination lies behind the source, and overlaps it.
    Backward,
}

/// How to copy. Volumes of one group could share blocks as well; that would be one more way.
fn way<V: Volume>(copy: &Copy<V>) -> Way {
    if copy.from.info().id != copy.to.info().id {
        return Way::Forward;
    }
    let target = BlockRange::new(copy.at, copy.source.blocks());
    match target {
        Some(target) if target.overlaps(copy.source) => {
            if copy.at > copy.source.first() {
                Way::Backward
            } else {
                Way::Forward
            }
        }
        _ => Way::Within,
    }
}

impl<V: Volume> Copy<V> {
    /// How many bytes it moves.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.source.blocks() << self.from.info().block_size.shift()
    }

    /// Copies for `issuer`, in bounded steps: at most one buffer is held at a time. After each step `goes_on` learns how
    /// many bytes were moved, and says whether to go on. What the destination holds of a copy that failed is, block by
    /// block, either what was there before or what was to be there.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(&self, issuer: Issuer, goes_on: impl Fn(u64) -> bool) -> Result<(), Failed> {
        let (way, bytes) = (way(self), self.bytes());
        let step = if way == Way::Within { STEP_BYTES } else { MAX_BYTES as u64 };
        let mut done = 0;
        while done < bytes {
            let len = step.min(bytes - done);
            let offset = if way == Way::Backward { bytes - done - len } else { done };
            if way == Way::Within {
                self.within(issuer, offset, len).await?;
            } else {
                self.transfer(issuer, offset, len).await?;
            }
            done += len;
            if !goes_on(len) {
                return Err(Failed::Cancelled);
            }
            yield_now().await;
        }
        Ok(())
    }

    /// The blocks of the source, from byte `offset` of it on.
    fn read_range(&self, offset: u64, len: u64) -> BlockRange {
        let shift = self.from.info().block_size.shift();
        let first = Lba(self.source.first().0 + (offset >> shift));
        BlockRange::new(first, len >> shift).expect("a part of the source")
    }

    /// The first block of the destination for byte `offset`, and the range from there.
    fn write_range(&self, offset: u64, len: u64) -> Result<BlockRange, Failed> {
        let shift = self.to.info().block_size.shift();
        let first = self.at.0.checked_add(offset >> shift);
        let range = first.and_then(|first| BlockRange::new(Lba(first), len >> shift));
        range.ok_or(Failed::Destination(VolumeError::OutOfRange))
    }

    async fn within(&self, issuer: Issuer, offset: u64, len: u64) -> Result<(), Failed> {
        let to = self.write_range(offset, len)?.first();
        let sources = Box::from([self.read_range(offset, len)]);
        let copy = Operation::Copy { sources, to, durability: Durability::Cached };
        self.to.execute(issuer, copy).await.map(drop).map_err(Failed::Destination)
    }

    async fn transfer(&self, issuer: Issuer, offset: u64, len: u64) -> Result<(), Failed> {
        let range = self.write_range(offset, len)?;
        let read = Operation::Read { range: self.read_range(offset, len) };
        let data = match self.from.execute(issuer, read).await.map_err(Failed::Source)? {
            Outcome::Data(data) => data,
            other => unreachable!("a read is answered by data, not by {other:?}"),
        };
        let write = Operation::Write { range, data, durability: Durability::Cached };
        self.to.execute(issuer, write).await.map(drop).map_err(Failed::Destination)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ashlar_env::units::BlockSize;

    use super::*;
    use crate::scsi::testing::{Store, block_on, issuer};

    fn copy(from: &Store, first: u64, blocks: u64, to: &Store, at: u64) -> Copy<Store> {
        let source = BlockRange::new(Lba(first), blocks).unwrap();
        Copy { from: from.clone(), source, to: to.clone(), at: Lba(at) }
    }

    /// Blocks that all differ.
    fn numbered(id: u128, size: BlockSize, blocks: u64) -> Store {
        let store = Store::new(id, size, blocks);
        store.fill(|at| (at as u64 / 512 * 7 + at as u64 / 5) as u8);
        store
    }

    #[test]
    fn every_overlap_copies_as_if_all_were_read_first() {
        for (first, blocks, at) in [
            (0, 5000, 5000),
            (0, 5000, 1),
            (1, 5000, 0),
            (0, 5000, 2500),
            (2600, 5000, 0),
            (9, 4000, 9),
            (0, 1, 9),
        ] {
            let store = numbered(1, BlockSize::B512, 10_000);
            let before = store.bytes();
            block_on(copy(&store, first, blocks, &store, at).run(issuer(1), |_| true)).unwrap();
            let (from, to, len) = (first as usize * 512, at as usize * 512, blocks as usize * 512);
            let mut expected = before.clone();
            expected[to..to + len].copy_from_slice(&before[from..from + len]);
            assert!(store.bytes() == expected, "{first} {blocks} {at}");
        }
    }

    #[test]
    fn within_a_volume_nothing_is_transferred_and_between_volumes_one_buffer_at_a_time() {
        let (one, two) = (numbered(1, BlockSize::B512, 10_000), Store::new(2, BlockSize::B4096, 2_000));
        block_on(copy(&one, 0, 4000, &one, 5000).run(issuer(1), |_| true)).unwrap();
        assert_eq!((one.count("copy"), one.count("read"), one.count("write")), (1, 0, 0));
        block_on(copy(&one, 8, 4096, &two, 3).run(issuer(1), |_| true)).unwrap();
        assert_eq!((one.count("read"), two.count("write")), (2, 2));
        assert!(two.bytes()[3 * 4096..][..4096 * 512] == one.bytes()[8 * 512..][..4096 * 512]);
    }

    #[test]
    fn it_ends_where_nobody_wants_more_and_says_which_side_failed() {
        let (one, two) = (numbered(1, BlockSize::B512, 10_000), Store::new(2, BlockSize::B512, 10_000));
        let told = Cell::new(0);
        let stop = |bytes| {
            told.set(told.get() + bytes);
            false
        };
        let ended = block_on(copy(&one, 0, 8000, &two, 0).run(issuer(1), stop));
        assert_eq!((ended, told.get()), (Err(Failed::Cancelled), 1 << 20));
        let ended = block_on(copy(&one, 9_999, 2, &two, 0).run(issuer(1), |_| true));
        assert_eq!(ended, Err(Failed::Source(VolumeError::OutOfRange)));
        let ended = block_on(copy(&one, 0, 2, &two, 9_999).run(issuer(1), |_| true));
        assert_eq!(ended, Err(Failed::Destination(VolumeError::OutOfRange)));
        let ended = block_on(copy(&one, 0, 2, &two, u64::MAX).run(issuer(1), |_| true));
        assert_eq!(ended, Err(Failed::Destination(VolumeError::OutOfRange)));
    }
}
