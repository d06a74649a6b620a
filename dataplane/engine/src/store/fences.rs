//! The fences of a store: per group the epoch below which writers are refused.
//!
//! A fence holds from the moment it is asked for, since to refuse too early does no harm; it is promised when its page
//! is durable. Pages are written one after the other.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use uuid::Uuid;

use super::device::Side;
use super::format::{FENCE_PAGE_ENTRIES, FenceEntry, FencePage};
use super::wait::Waiters;
use crate::ids::{Epoch, GroupId};

/// An entry of a page.
#[derive(Clone, Copy, Default)]
struct Entry {
    now: Option<FenceEntry>,
    /// What is on the device.
    durable: Option<FenceEntry>,
}

/// A page, but for its entries.
#[derive(Clone, Copy)]
struct Page {
    sequence: u64,
    /// The copy to be written first.
    first: Side,
}

struct Table {
    entries: Vec<Entry>,
    index: BTreeMap<GroupId, u32>,
    pages: Vec<Page>,
}

/// All fences.
pub(crate) struct Fences {
    table: RefCell<Table>,
    /// A page is being written.
    pub writing: Cell<bool>,
    pub written: Waiters,
}

/// A page to be written.
pub(crate) struct Draft {
    pub page: FencePage,
    pub first: Side,
}

impl Fences {
    pub fn new(pages: u32) -> Self {
        let table = Table {
            entries: vec![Entry::default(); pages as usize * FENCE_PAGE_ENTRIES],
            index: BTreeMap::new(),
            pages: vec![Page { sequence: 0, first: Side::A }; pages as usize],
        };
        Self { table: RefCell::new(table), writing: Cell::new(false), written: Waiters::default() }
    }

    /// Takes a page over as it was read. A group that was forgotten and fenced again may have two entries, if a crash
    /// came in between: the higher one holds.
    pub fn load(&self, read: FencePage, first: Side) {
        let mut table = self.table.borrow_mut();
        let begin = read.page as usize * FENCE_PAGE_ENTRIES;
        table.pages[read.page as usize] = Page { sequence: read.sequence, first };
        for (at, entry) in (begin..).zip(read.entries) {
            table.entries[at] = Entry { now: entry, durable: entry };
            let Some(FenceEntry { group, epoch }) = entry else { continue };
            let other = table.index.get(&group).copied().unwrap_or(at as u32) as usize;
            let is_higher = table.entries[other].now.is_none_or(|other| epoch >= other.epoch);
            let (holds, falls) = if is_higher { (at, other) } else { (other, at) };
            table.index.insert(group, holds as u32);
            if holds != falls {
                table.entries[falls].now = None;
            }
        }
    }

    /// The group's fence; epoch 0 where it has none.
    pub fn get(&self, group: GroupId) -> Epoch {
        let table = self.table.borrow();
        table.index.get(&group).and_then(|&at| table.entries[at as usize].now).map_or(Epoch(0), |e| e.epoch)
    }

    /// All fences, in the order of groups.
    pub fn all(&self) -> Vec<FenceEntry> {
        let table = self.table.borrow();
        table.index.values().filter_map(|&at| table.entries[at as usize].now).collect()
    }

    /// Sets or takes away the fence of `group` in memory. The entry, or `None` where all are taken.
    pub fn set(&self, group: GroupId, epoch: Option<Epoch>) -> Option<u32> {
        let mut table = self.table.borrow_mut();
        let known = table.index.get(&group).copied();
        let at = match known {
            Some(at) => at,
            // An entry is free again when it is so on the device, too: another group's failure to be written must not
            // take this one's along.
            None => table.entries.iter().position(|e| e.now.is_none() && e.durable.is_none())? as u32,
        };
        table.entries[at as usize].now = epoch.map(|epoch| FenceEntry { group, epoch });
        match epoch {
            Some(_) => table.index.insert(group, at),
            None => table.index.remove(&group),
        };
        Some(at)
    }

    /// The page of entry `at`, if what is on the device differs from what holds.
    pub fn draft(&self, at: u32, device: Uuid) -> Option<Draft> {
        let table = self.table.borrow();
        let number = at as usize / FENCE_PAGE_ENTRIES;
        let entry = &table.entries[at as usize];
        if entry.now == entry.durable {
            return None;
        }
        let begin = number * FENCE_PAGE_ENTRIES;
        let entries =
            table.entries[begin..begin + FENCE_PAGE_ENTRIES].iter().map(|entry| entry.now).collect();
        let Page { sequence, first } = table.pages[number];
        let page = FencePage { device, page: number as u32, sequence: sequence + 1, entries };
        Some(Draft { page, first })
    }

    /// `page` is durable.
    pub fn settle(&self, page: FencePage) {
        let mut table = self.table.borrow_mut();
        table.pages[page.page as usize] = Page { sequence: page.sequence, first: Side::A };
        let begin = page.page as usize * FENCE_PAGE_ENTRIES;
        for (at, entry) in (begin..).zip(page.entries) {
            table.entries[at].durable = entry;
        }
    }
}
