//! Bugs planted into the volumes of the node under test, to show that the simulation finds them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use ashlar_env::disk::Durability;
use ashlar_env::units::BlockRange;
use ashlar_env::volume::{Issuer, Operation, Outcome, VolumeInfo};
use ashlar_env::{Buf, Volume, VolumeError};

/// What is wrong with a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    #[default]
    None,
    /// A write with force unit access is acknowledged while it rests in the volatile cache.
    EarlyFua,
    /// A flush is acknowledged without being executed.
    NoFlush,
    /// Now and then a write is acknowledged without being executed.
    DroppedWrite,
    /// Now and then the two halves of a write change places.
    SwappedBlocks,
    /// Now and then a read gives what an earlier read of the same range gave.
    StaleRead,
    /// Compare-and-write compares, then writes, and anything may come between.
    OpenCompareAndWrite,
    /// Now and then a read gives the data of another read of the same length.
    ForeignBuffer,
    /// Now and then a read is never answered.
    LostReply,
    /// Now and then a buffer is never given back.
    LeakedBuffer,
}

/// How often a flaw shows: once in so many of the operations it concerns.
const EVERY: u64 = 8;

/// A volume with a flaw.
#[derive(Clone)]
pub struct Flawed<V> {
    inner: V,
    flaw: Flaw,
    memory: Rc<Memory>,
}

#[derive(Default)]
struct Memory {
    count: Cell<u64>,
    reads: RefCell<BTreeMap<(u64, u64), Buf>>,
    last: RefCell<Option<Buf>>,
}

impl Memory {
    /// Whether the flaw shows now.
    fn is_time(&self) -> bool {
        self.count.set(self.count.get() + 1);
        self.count.get().is_multiple_of(EVERY)
    }
}

/// A copy outside the pools, so that what the flaw remembers takes no buffer.
fn copy(data: &Buf) -> Buf {
    Buf::from_heap(data.to_vec().into())
}

impl<V: Volume> Flawed<V> {
    pub fn new(inner: V, flaw: Flaw) -> Self {
        Self { inner, flaw, memory: Rc::default() }
    }

    async fn flawed(self, issuer: Issuer, mut operation: Operation) -> Result<Outcome, VolumeError> {
        let Self { inner, flaw, memory } = self;
        match (flaw, &mut operation) {
            (
                Flaw::EarlyFua,
                Operation::Write { durability, .. } | Operation::CompareAndWrite { durability, .. },
            ) => *durability = Durability::Cached,
            (Flaw::NoFlush, Operation::Flush) => return Ok(Outcome::Done),
            (Flaw::DroppedWrite, Operation::Write { .. }) if memory.is_time() => return Ok(Outcome::Done),
            (Flaw::SwappedBlocks, Operation::Write { range, data, .. })
                if range.blocks().is_multiple_of(2) && memory.is_time() =>
            {
                let mut swapped = data.to_vec();
                swapped.rotate_left(data.len() / 2);
                *data = Buf::from_heap(swapped.into());
            }
            (Flaw::OpenCompareAndWrite, Operation::CompareAndWrite { range, expected, data, durability }) => {
                let (range, durability) = (*range, *durability);
                let compare = Operation::Compare { range, expected: expected.clone() };
                inner.execute(issuer, compare).await?;
                let write = Operation::Write { range, data: data.clone(), durability };
                return inner.execute(issuer, write).await;
            }
            (Flaw::LostReply, Operation::Read { .. }) if memory.is_time() => std::future::pending().await,
            (Flaw::LeakedBuffer, Operation::Write { data, .. }) if memory.is_time() => {
                std::mem::forget(data.clone());
            }
            _ => {}
        }
        let read = if let Operation::Read { range } = &operation { Some(*range) } else { None };
        let outcome = inner.execute(issuer, operation).await?;
        Ok(match (outcome, read) {
            (Outcome::Data(data), Some(range)) => Outcome::Data(memory.spoil(flaw, range, data)),
            (outcome, _) => outcome,
        })
    }
}

impl Memory {
    /// What a flawed read gives instead of `data`.
    fn spoil(&self, flaw: Flaw, range: BlockRange, data: Buf) -> Buf {
        match flaw {
            Flaw::StaleRead => {
                let key = (range.first().0, range.blocks());
                let before = self.reads.borrow_mut().insert(key, copy(&data));
                before.filter(|_| self.is_time()).unwrap_or(data)
            }
            Flaw::ForeignBuffer => {
                let before = self.last.replace(Some(copy(&data)));
                before.filter(|before| before.len() == data.len() && self.is_time()).unwrap_or(data)
            }
            _ => data,
        }
    }
}

impl<V: Volume> Volume for Flawed<V> {
    fn info(&self) -> VolumeInfo {
        self.inner.info()
    }

    fn execute(
        &self,
        issuer: Issuer,
        operation: Operation,
    ) -> impl Future<Output = Result<Outcome, VolumeError>> + 'static {
        let ended: Pin<Box<dyn Future<Output = _>>> = if self.flaw == Flaw::None {
            Box::pin(self.inner.execute(issuer, operation))
        } else {
            Box::pin(self.clone().flawed(issuer, operation))
        };
        ended
    }
}
