//! Commands of more than one operation: transfers beyond one buffer, patterns, read-modify-write.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use ashlar_env::buf::{Buf, MAX_BYTES};
use ashlar_env::disk::Durability;
use ashlar_env::reservation::Access;
use ashlar_env::spawn::yield_now;
use ashlar_env::units::{BlockRange, BlockSize, Lba};
use ashlar_env::volume::{Issuer, Operation, Outcome};
use ashlar_env::{Volume, VolumeError};

use super::finish::failure;
use super::sense::Failure;
use super::units::{Context, MappedUnit};
use super::{Answer, Data, Status, Step};

/// How many reads beyond one buffer a reactor serves at once for one target: their data lie outside the pool.
const LONG_READS_MAX: usize = 8;

/// How often ORWRITE tries again where others write the same blocks.
const OR_TRIES: usize = 100;

/// A volume, as one nexus uses it.
pub(super) struct Io<V> {
    pub volume: V,
    pub issuer: Issuer,
    pub size: BlockSize,
}

/// The operations' answer, when they have ended.
pub(super) fn step<V: Volume>(
    unit: &MappedUnit<V>,
    work: impl Future<Output = Result<Data, Failure>> + 'static,
) -> Step<V> {
    let descriptor = unit.state.descriptor_sense();
    Step::Long(Box::pin(async move {
        match work.await {
            Ok(data) => Answer::good(data),
            Err(failure) => failure.answer(descriptor),
        }
    }))
}

/// `range` in parts of at most a buffer.
pub(super) fn parts(range: BlockRange, size: BlockSize) -> impl Iterator<Item = BlockRange> {
    let most = MAX_BYTES as u64 >> size.shift();
    let mut first = range.first().0;
    std::iter::from_fn(move || {
        let blocks = (range.end().0 - first).min(most);
        let part = BlockRange::new(Lba(first), blocks).filter(|part| part.blocks() > 0)?;
        first += blocks;
        Some(part)
    })
}

impl<V: Volume> Io<V> {
    pub fn new(command: &Context<'_, V>, unit: &MappedUnit<V>) -> Self {
        let volume = unit.volume.clone();
        let size = volume.info().block_size;
        Self { volume, issuer: command.nexus.issuer(), size }
    }

    /// One operation. Where data differ, `before_bytes` came before these.
    pub async fn run(&self, operation: Operation, before_bytes: u64) -> Result<Outcome, Failure> {
        let ended = self.volume.execute(self.issuer, operation).await;
        ended.map_err(|error| match error {
            VolumeError::Miscompare { at_bytes } => {
                failure(&VolumeError::Miscompare { at_bytes: at_bytes.saturating_add(before_bytes) })
            }
            error => failure(&error),
        })
    }

    /// Fails where reservations forbid such a command.
    pub async fn permit(&self, access: Access) -> Result<(), Failure> {
        self.run(Operation::Permit(access), 0).await.map(|_| ())
    }

    fn bytes(&self, range: BlockRange) -> usize {
        (range.blocks() << self.size.shift()) as usize
    }

    async fn read_part(&self, range: BlockRange) -> Result<Buf, Failure> {
        match self.run(Operation::Read { range }, 0).await? {
            Outcome::Data(data) => Ok(data),
            _ => Err(failure(&VolumeError::ReadFault)),
        }
    }

    /// Reads more than one buffer. What was read leaves the pool before more of it is asked for.
    pub async fn read(self, range: BlockRange, turn: Turn) -> Result<Data, Failure> {
        let mut pieces = Vec::new();
        for part in parts(range, self.size) {
            let data = self.read_part(part).await?;
            pieces.push(Buf::from_heap(Arc::from(&data[..])));
        }
        drop(turn);
        Ok(Data::Many(pieces))
    }

    pub async fn write(&self, range: BlockRange, data: &Data, durability: Durability) -> Result<(), Failure> {
        for (part, data) in self.cut(range, data) {
            self.run(Operation::Write { range: part, data, durability }, 0).await?;
        }
        Ok(())
    }

    pub async fn compare(&self, range: BlockRange, data: &Data) -> Result<(), Failure> {
        let mut before = 0;
        for (part, expected) in self.cut(range, data) {
            let bytes = expected.len() as u64;
            self.run(Operation::Compare { range: part, expected }, before).await?;
            before += bytes;
        }
        Ok(())
    }

    /// Writes `block` to every block, or compares it with every block.
    pub async fn repeat(&self, range: BlockRange, block: &[u8], how: Repeat) -> Result<(), Failure> {
        let longest = self.bytes(range).min(MAX_BYTES) / block.len();
        let pattern = Buf::from_heap(block.repeat(longest).into());
        let mut before = 0;
        for part in parts(range, self.size) {
            let data = pattern.slice(0, self.bytes(part));
            let operation = match how {
                Repeat::Write(durability) => Operation::Write { range: part, data, durability },
                Repeat::Compare => Operation::Compare { range: part, expected: data },
            };
            self.run(operation, before).await?;
            before += self.bytes(part) as u64;
            yield_now().await;
        }
        Ok(())
    }

    /// Sets the bits that are set in `data`: each part at once, towards whatever else changes it.
    pub async fn or(&self, range: BlockRange, data: &Data, durability: Durability) -> Result<(), Failure> {
        for (part, bits) in self.cut(range, data) {
            self.or_part(part, &bits, durability).await?;
        }
        Ok(())
    }

    async fn or_part(&self, range: BlockRange, bits: &[u8], durability: Durability) -> Result<(), Failure> {
        for _ in 0..OR_TRIES {
            // On the heap, so that nothing of the pool is held while the volume asks for some.
            let old: Arc<[u8]> = Arc::from(&self.read_part(range).await?[..]);
            let new: Arc<[u8]> = old.iter().zip(bits).map(|(old, bits)| old | bits).collect();
            let (expected, data) = (Buf::from_heap(old), Buf::from_heap(new));
            let change = Operation::CompareAndWrite { range, expected, data, durability };
            match self.volume.execute(self.issuer, change).await {
                Ok(_) => return Ok(()),
                Err(VolumeError::Miscompare { .. }) => yield_now().await,
                Err(error) => return Err(failure(&error)),
            }
        }
        Err(Status::Busy.into())
    }

    /// The parts of `range`, each with its data.
    fn cut(&self, range: BlockRange, data: &Data) -> Vec<(BlockRange, Buf)> {
        let whole = data.gather_unless_cut(MAX_BYTES);
        let mut out = Vec::new();
        for (at, part) in parts(range, self.size).enumerate() {
            let piece = match &whole {
                Some(whole) => whole.slice(at * MAX_BYTES, self.bytes(part)),
                None => data.pieces().nth(at).cloned().unwrap_or_else(|| Buf::zeroes(0)),
            };
            out.push((part, piece));
        }
        out
    }
}

/// What to do with a block, for every block.
#[derive(Clone, Copy)]
pub(super) enum Repeat {
    Write(Durability),
    Compare,
}

/// One of the long reads that may be at once.
pub(super) struct Turn(Rc<Cell<usize>>);

impl Turn {
    /// One, unless all are taken: then the initiator is told to come again.
    pub fn take(taken: &Rc<Cell<usize>>) -> Result<Self, Failure> {
        if taken.get() >= LONG_READS_MAX {
            return Err(Status::Busy.into());
        }
        taken.set(taken.get() + 1);
        Ok(Self(Rc::clone(taken)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_range_and_fit_a_buffer() {
        for (first, blocks, count) in [(0, 0, 0), (7, 1, 1), (7, 2048, 1), (7, 2049, 2), (0, 16384, 8)] {
            let range = BlockRange::new(Lba(first), blocks).unwrap();
            let parts: Vec<_> = parts(range, BlockSize::B512).collect();
            assert_eq!(parts.len(), count);
            assert_eq!(parts.iter().map(|part| part.blocks()).sum::<u64>(), blocks);
            assert!(parts.windows(2).all(|pair| pair[0].end() == pair[1].first()));
        }
    }
}
