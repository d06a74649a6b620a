//! A volume in memory for the tests of reservations, copies and tokens.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::buf::Buf;
use ashlar_env::reservation::{HostId, Notice};
use ashlar_env::units::{BlockRange, BlockSize, VolumeId};
use ashlar_env::volume::{Issuer, Operation, Outcome, VolumeInfo};
use ashlar_env::{Volume, VolumeError};
use ashlar_volume::Reservations;
use ashlar_volume::check::{access, check};
use ashlar_volume::reservation::Effect;

/// A volume that answers at once.
#[derive(Clone)]
pub struct Store(Rc<RefCell<Inner>>);

struct Inner {
    info: VolumeInfo,
    bytes: Vec<u8>,
    reservations: Reservations,
    counts: BTreeMap<&'static str, usize>,
    failing: Option<VolumeError>,
}

pub fn issuer(n: u8) -> Issuer {
    Issuer { host: HostId([n; 16]), session: u64::from(n) }
}

/// Polls until it is ready; whatever waits here waits for a turn only.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..1_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("it waits for something that never comes")
}

impl Store {
    pub fn new(id: u128, block_size: BlockSize, blocks: u64) -> Self {
        let info = VolumeInfo {
            id: VolumeId(uuid::Uuid::from_u128(id)),
            block_size,
            blocks,
            read_only: false,
            volatile_cache: false,
            thin: true,
            unmap_granularity_blocks: 1,
            preferred_write_blocks: 1,
            atomic_write_blocks: 1,
        };
        let bytes = vec![0; (blocks << block_size.shift()) as usize];
        let (reservations, counts) = (Reservations::default(), BTreeMap::new());
        Self(Rc::new(RefCell::new(Inner { info, bytes, reservations, counts, failing: None })))
    }

    pub fn fill(&self, byte: impl Fn(usize) -> u8) {
        self.0.borrow_mut().bytes.iter_mut().enumerate().for_each(|(at, to)| *to = byte(at));
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.borrow().bytes.clone()
    }

    /// How many operations of a kind were executed.
    pub fn count(&self, kind: &str) -> usize {
        self.0.borrow().counts.get(kind).copied().unwrap_or(0)
    }

    /// Fails everything that changes data.
    pub fn fail(&self, error: Option<VolumeError>) {
        self.0.borrow_mut().failing = error;
    }

    pub fn change(&self, change: impl FnOnce(&mut VolumeInfo)) {
        change(&mut self.0.borrow_mut().info);
    }
}

impl Inner {
    fn place(&self, range: BlockRange) -> std::ops::Range<usize> {
        let shift = self.info.block_size.shift();
        (range.first().0 << shift) as usize..(range.end().0 << shift) as usize
    }

    fn told(&self, effect: Effect) -> Outcome {
        let volume = self.info.id;
        let notices = effect.notices.into_iter().map(|(host, kind)| Notice { volume, host, kind }).collect();
        Outcome::Reservation { report: Some(Box::new(self.reservations.report())), notices }
    }

    fn counted(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    fn execute(&mut self, issuer: Issuer, operation: Operation) -> Result<Outcome, VolumeError> {
        check(&self.info, &operation)?;
        if let Some(access) = access(&operation)
            && !self.reservations.allows(issuer.host, access)
        {
            return Err(VolumeError::ReservationConflict);
        }
        let changes = !matches!(operation, Operation::Read { .. } | Operation::Permit(_));
        if let Some(error) = self.failing.clone().filter(|_| changes) {
            return Err(error);
        }
        match operation {
            Operation::Read { range } => {
                self.counted("read");
                return Ok(Outcome::Data(Buf::from_heap(self.bytes[self.place(range)].into())));
            }
            Operation::Write { range, data, .. } => {
                self.counted("write");
                let place = self.place(range);
                self.bytes[place].copy_from_slice(&data);
            }
            Operation::WriteZeroes { range, .. } => {
                self.counted("zero");
                let place = self.place(range);
                self.bytes[place].fill(0);
            }
            Operation::Unmap { ranges } => ranges.iter().for_each(|range| {
                let place = self.place(*range);
                self.bytes[place].fill(0);
            }),
            Operation::CompareAndWrite { range, expected, data, .. } => {
                let place = self.place(range);
                let differs = self.bytes[place.clone()].iter().zip(expected.iter()).position(|(a, b)| a != b);
                if let Some(at) = differs {
                    return Err(VolumeError::Miscompare { at_bytes: at as u64 });
                }
                self.bytes[place].copy_from_slice(&data);
            }
            Operation::Copy { sources, to, .. } => {
                self.counted("copy");
                let data: Vec<u8> =
                    sources.iter().flat_map(|from| self.bytes[self.place(*from)].to_vec()).collect();
                let start = (to.0 << self.info.block_size.shift()) as usize;
                self.bytes[start..start + data.len()].copy_from_slice(&data);
            }
            Operation::Reserve(action) => {
                let effect = self.reservations.apply(issuer.host, action)?;
                return Ok(self.told(effect));
            }
            Operation::ReserveNexus(action) => {
                let effect = self.reservations.apply_nexus(issuer, &action)?;
                return Ok(self.told(effect));
            }
            Operation::Flush | Operation::Permit(_) => {}
            other => panic!("nobody asks for {other:?} here"),
        }
        Ok(Outcome::Done)
    }
}

impl Volume for Store {
    fn info(&self) -> VolumeInfo {
        self.0.borrow().info
    }

    fn execute(
        &self,
        issuer: Issuer,
        operation: Operation,
    ) -> impl Future<Output = Result<Outcome, VolumeError>> + 'static {
        ready(self.0.borrow_mut().execute(issuer, operation))
    }
}
