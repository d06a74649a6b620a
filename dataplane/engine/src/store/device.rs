//! The disk below a store: its latch, and what exists twice.

use std::cell::RefCell;

use ashlar_env::Disk;
use ashlar_env::buf::{Buf, BufMut, BufPool, PoolPlan};
use ashlar_env::disk::{DiskError, Durability};

use super::format::PAGE_BYTES;
use crate::chunks::StoreError;

/// Pages of memory for headers and fences of one store, at most, made when needed: one for each operation in flight
/// that writes one. Not of the reactor's pool, which may be in the hands of those who wait for us.
const PAGES: usize = 1024;

/// One of two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Where this copy is, if the first one is at `start`.
    pub const fn at(self, start: u64) -> u64 {
        match self {
            Self::A => start,
            Self::B => start + PAGE_BYTES as u64,
        }
    }
}

/// A disk that takes no more writes after one has failed.
pub(crate) struct Device<D> {
    pub disk: D,
    durability: Durability,
    failed: RefCell<Option<String>>,
    pages: BufPool,
}

impl<D: Disk> Device<D> {
    pub fn new(disk: D) -> Self {
        let info = disk.info();
        let durability = if info.volatile_cache { Durability::Fua } else { Durability::Cached };
        let failed = info.read_only.then(|| DiskError::ReadOnly.to_string());
        let pages = BufPool::on_heap(PoolPlan { limits: [PAGES, 0, 0, 0, 0] });
        Self { disk, durability, failed: RefCell::new(failed), pages }
    }

    pub fn is_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Why it takes no more writes.
    pub fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Nothing more is written, for this reason.
    pub fn latch(&self, why: impl ToString) {
        self.failed.borrow_mut().get_or_insert_with(|| why.to_string());
    }

    pub fn check(&self) -> Result<(), StoreError> {
        match &*self.failed.borrow() {
            None => Ok(()),
            Some(why) => Err(DiskError::Latched(why.clone()).into()),
        }
    }

    /// Makes durable whatever can be read, as far as the device can.
    pub async fn settle(&self) {
        if self.durability == Durability::Fua
            && !self.is_failed()
            && let Err(error) = self.disk.flush().await
        {
            self.latch(error);
        }
    }

    /// Writes durably.
    pub async fn write(&self, at: u64, data: Buf) -> Result<(), StoreError> {
        self.check()?;
        let written = self.disk.write(at, data, self.durability).await;
        written.map_err(|error| {
            self.latch(&error);
            error.into()
        })
    }

    /// A page of zeros to be filled.
    pub async fn page(&self) -> BufMut {
        let mut page = self.pages.alloc(PAGE_BYTES as usize).await;
        page.fill(0);
        page
    }

    /// Writes both copies durably, `first` before the other.
    pub async fn write_pair(&self, start: u64, first: Side, page: BufMut) -> Result<(), StoreError> {
        let page = page.freeze();
        self.write(first.at(start), page.clone()).await?;
        self.write(first.other().at(start), page).await
    }
}
