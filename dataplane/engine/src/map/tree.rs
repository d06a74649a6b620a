//! A volume's map: a radix tree over its blocks.

use std::cell::RefCell;
use std::rc::Rc;

use super::entry::Entry;
use super::node::{Base, Body, Leaf, Node, Slot};
use super::page;

/// The shape of all trees of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    bits: u32,
}

impl Shape {
    /// Fan-out 512: a leaf maps 2 MiB.
    pub const DEFAULT: Self = Self { bits: 9 };

    /// Fan-out 2 to the power of `bits`, from 1 to 9.
    #[must_use]
    pub const fn new(bits: u32) -> Option<Self> {
        if bits >= 1 && bits <= 9 { Some(Self { bits }) } else { None }
    }

    /// The binary logarithm of the fan-out.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// Children of a node.
    #[must_use]
    pub const fn fanout(self) -> usize {
        1 << self.bits
    }

    /// Which child of a node at `level` leads to `block`.
    #[must_use]
    pub const fn index(self, level: u32, block: u64) -> usize {
        (block >> (self.bits * level)) as usize & (self.fanout() - 1)
    }

    /// Blocks below a node at `level`; 2^64 - 1 where that does not fit.
    #[must_use]
    pub const fn span(self, level: u32) -> u64 {
        let shift = self.bits * (level + 1);
        if shift >= 64 { u64::MAX } else { 1 << shift }
    }

    /// The level of the root of a tree for `blocks` blocks.
    #[must_use]
    pub const fn root_level(self, blocks: u64) -> u32 {
        let mut level = 0;
        while self.span(level) < blocks {
            level += 1;
        }
        level
    }
}

/// A leaf with changes for one in so many of its blocks is merged if what lies below is in memory.
const CHANGES_PART: usize = 8;

/// A page that must be in memory before an operation can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The level of its node; leaves are at 0.
    pub level: u32,
    /// A block below it.
    pub block: u64,
    /// Where it is.
    pub page: Entry,
}

/// Who keeps count of what the changes of a tree do.
pub trait Counts {
    /// The block that was at `old` (perhaps nowhere) is at `new` (perhaps nowhere), by a change of `generation`.
    fn replaced(&mut self, old: Entry, new: Entry, generation: u64);

    /// What was written to `old` in `generation` was written again before it was merged.
    fn dropped(&mut self, old: Entry, generation: u64);

    /// The leaf of `block` takes memory now.
    fn leaf_in_memory(&mut self, block: u64);
}

/// A volume's map. Cloning keeps a version: constant time, and later changes of either do not show in the other.
#[derive(Clone)]
pub struct Tree {
    shape: Shape,
    level: u32,
    root: Slot,
}

impl Tree {
    /// A map of `blocks` blocks whose root is at `root` (empty: nothing is written).
    #[must_use]
    pub fn new(shape: Shape, blocks: u64, root: Entry) -> Self {
        Self::at_level(shape, shape.root_level(blocks), root)
    }

    /// A map whose root, at `root`, is at `level`.
    #[must_use]
    pub fn at_level(shape: Shape, level: u32, root: Entry) -> Self {
        Self { shape, level, root: Slot::of(root) }
    }

    /// The level of the root.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Slot {
        &self.root
    }

    /// Whether `blocks` are within what it can map without growing.
    #[must_use]
    pub fn covers(&self, blocks: u64) -> bool {
        self.shape.span(self.level) >= blocks
    }

    /// Adds levels until `blocks` blocks can be mapped.
    pub fn grow(&mut self, blocks: u64, birth: u32, generation: u64) {
        while !self.covers(blocks) {
            let old = std::mem::take(&mut self.root);
            self.level += 1;
            if matches!(old, Slot::Empty) {
                continue;
            }
            let mut children = empty_children(self.shape);
            children[0] = old;
            let mut node = Rc::new(Node::changed(Entry::EMPTY, Body::Inner(RefCell::new(children))));
            Node::own(&mut node, birth, generation);
            self.root = Slot::Loaded(node);
        }
    }

    /// Where `block` is.
    ///
    /// # Errors
    /// The page to load and [`Self::install`] first.
    pub fn find(&self, block: u64) -> Result<Entry, Missing> {
        debug_assert!(block < self.shape.span(self.level), "the caller checks the size");
        let mut level = self.level;
        let mut node = match &self.root {
            Slot::Empty => return Ok(Entry::EMPTY),
            Slot::Stored(page) => return Err(Missing { level, block, page: *page }),
            Slot::Loaded(node) => Rc::clone(node),
        };
        while level > 0 {
            let child = {
                let children = node.children().borrow();
                match &children[self.shape.index(level, block)] {
                    Slot::Empty => return Ok(Entry::EMPTY),
                    Slot::Stored(page) => return Err(Missing { level: level - 1, block, page: *page }),
                    Slot::Loaded(child) => Rc::clone(child),
                }
            };
            node = child;
            level -= 1;
        }
        node.used.set(true);
        let found = node.leaf().borrow().find(self.shape.index(0, block));
        found.map_err(|page| Missing { level: 0, block, page })
    }

    /// Puts the page that was missing into memory. Without effect where it is not missing any more.
    ///
    /// # Errors
    /// `bytes` are not a page of this tree.
    pub fn install(
        &mut self,
        missing: Missing,
        bytes: &[u8],
        counts: &mut impl Counts,
    ) -> Result<(), NotAPage> {
        let entries = page::decode(bytes, self.shape.fanout()).ok_or(NotAPage)?;
        let mut level = self.level;
        if level == missing.level {
            match &self.root {
                Slot::Stored(page) if *page == missing.page => {
                    self.root = Slot::Loaded(Rc::new(load(missing, entries, counts)));
                }
                Slot::Loaded(node) if level == 0 => merge(node, missing.page, &entries, counts),
                _ => {}
            }
            return Ok(());
        }
        let Slot::Loaded(mut node) = self.root.clone() else { return Ok(()) };
        while level > missing.level + 1 {
            let child = node.children().borrow()[self.shape.index(level, missing.block)].clone();
            let Slot::Loaded(child) = child else { return Ok(()) };
            node = child;
            level -= 1;
        }
        let mut children = node.children().borrow_mut();
        let slot = &mut children[self.shape.index(level, missing.block)];
        match slot {
            Slot::Stored(page) if *page == missing.page => {
                *slot = Slot::Loaded(Rc::new(load(missing, entries, counts)));
            }
            Slot::Loaded(leaf) if missing.level == 0 => merge(leaf, missing.page, &entries, counts),
            _ => {}
        }
        Ok(())
    }

    /// Sets the entries of `block` and those after it, all in one leaf.
    ///
    /// # Errors
    /// An inner page to load and [`Self::install`] first; nothing is changed then.
    pub fn set(
        &mut self,
        block: u64,
        entries: impl ExactSizeIterator<Item = Entry> + Clone,
        birth: u32,
        generation: u64,
        counts: &mut impl Counts,
    ) -> Result<(), Missing> {
        debug_assert!(self.shape.index(0, block) + entries.len() <= self.shape.fanout(), "a leaf at a time");
        if entries.clone().all(Entry::is_empty) && self.is_empty_at(block) {
            return Ok(());
        }
        let shape = self.shape;
        let mut level = self.level;
        let mut slot = &mut self.root;
        while level > 0 {
            let node =
                own_inner(slot, shape, birth, generation).map_err(|page| Missing { level, block, page })?;
            let Body::Inner(children) = &mut node.body else {
                unreachable!("levels above 0 are inner nodes")
            };
            slot = &mut children.get_mut()[shape.index(level, block)];
            level -= 1;
        }
        let Body::Leaf(leaf) = &mut own_leaf(slot, block, birth, generation, counts).body else {
            unreachable!("level 0 is a leaf")
        };
        let leaf = leaf.get_mut();
        for (at, new) in (shape.index(0, block)..).zip(entries) {
            match &mut leaf.full {
                Some(all) => counts.replaced(std::mem::replace(&mut all[at], new), new, generation),
                None => change(leaf, at, new, generation, counts),
            }
        }
        if leaf.full.is_none() && leaf.changes.len() * CHANGES_PART >= shape.fanout() {
            merge_in_memory(leaf, shape, generation, counts);
        }
        Ok(())
    }

    /// Whether `block` is anywhere, and the end of the run from it of which the same is known by this look: the block
    /// alone, or all below the node that is missing.
    ///
    /// # Errors
    /// As for [`Self::find`].
    pub fn extent(&self, block: u64) -> Result<(bool, u64), Missing> {
        match self.empty_level(block) {
            Some(level) => {
                let span = self.shape.span(level);
                Ok((false, (block - block % span).saturating_add(span)))
            }
            None => Ok((!self.find(block)?.is_empty(), block + 1)),
        }
    }

    /// Whether no node leads to `block`.
    fn is_empty_at(&self, block: u64) -> bool {
        self.empty_level(block).is_some()
    }

    /// The level of the node that would lead to `block`, where there is none.
    fn empty_level(&self, block: u64) -> Option<u32> {
        let mut level = self.level;
        let mut slot = self.root.clone();
        loop {
            match slot {
                Slot::Empty => return Some(level),
                Slot::Stored(_) => return None,
                Slot::Loaded(_) if level == 0 => return None,
                Slot::Loaded(node) => {
                    slot = node.children().borrow()[self.shape.index(level, block)].clone();
                    level -= 1;
                }
            }
        }
    }

    /// Inner pages that are not in memory, at most `count`: those below them are not known yet.
    #[must_use]
    pub fn missing_inner(&self, count: usize) -> Vec<Missing> {
        let mut missing = Vec::new();
        if self.level > 0 {
            self.gather_missing(&self.root, self.level, 0, count, &mut missing);
        }
        missing
    }

    fn gather_missing(&self, slot: &Slot, level: u32, first: u64, count: usize, missing: &mut Vec<Missing>) {
        match slot {
            Slot::Stored(page) if missing.len() < count => {
                missing.push(Missing { level, block: first, page: *page });
            }
            Slot::Loaded(node) if level > 1 => {
                let span = self.shape.span(level - 1);
                for (at, child) in node.children().borrow().iter().enumerate() {
                    self.gather_missing(child, level - 1, first + at as u64 * span, count, missing);
                }
            }
            _ => {}
        }
    }

    /// The page that last held the node at `level` over `block`; empty where none did.
    ///
    /// # Errors
    /// The page to load and [`Self::install`] first.
    pub fn page_at(&self, level: u32, block: u64) -> Result<Entry, Missing> {
        if level > self.level || block >= self.shape.span(self.level) {
            return Ok(Entry::EMPTY);
        }
        let mut at = self.level;
        let mut slot = self.root.clone();
        loop {
            match slot {
                Slot::Empty => return Ok(Entry::EMPTY),
                Slot::Stored(page) if at == level => return Ok(page),
                Slot::Stored(page) => return Err(Missing { level: at, block, page }),
                Slot::Loaded(node) if at == level => return Ok(node.saved().unwrap_or(node.latest())),
                Slot::Loaded(node) => {
                    slot = node.children().borrow()[self.shape.index(at, block)].clone();
                    at -= 1;
                }
            }
        }
    }

    /// Gives the memory of the leaf of `block` back, if it is saved where it `may` be read back from and nobody has used
    /// it since the last time this was asked. Says whether the leaf still takes memory.
    pub fn unload_leaf(&mut self, block: u64, may: impl Fn(Entry) -> bool) -> bool {
        let mut level = self.level;
        if level == 0 {
            return unload(&mut self.root, may);
        }
        let Slot::Loaded(mut node) = self.root.clone() else { return false };
        while level > 1 {
            let child = node.children().borrow()[self.shape.index(level, block)].clone();
            let Slot::Loaded(child) = child else { return false };
            node = child;
            level -= 1;
        }
        let mut children = node.children().borrow_mut();
        unload(&mut children[self.shape.index(1, block)], may)
    }

    /// Replaces the root of a tree that is saved by its page, so that its nodes need not stay in memory.
    pub fn unload(&mut self) {
        if let Some(page) = self.root.saved() {
            self.root = Slot::of(page);
        }
    }
}

/// Bytes that are no page although their checksum says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a page of the map")]
pub struct NotAPage;

fn empty_children(shape: Shape) -> Box<[Slot]> {
    (0..shape.fanout()).map(|_| Slot::Empty).collect()
}

fn load(missing: Missing, entries: Box<[Entry]>, counts: &mut impl Counts) -> Node {
    let body = if missing.level == 0 {
        counts.leaf_in_memory(missing.block);
        Body::Leaf(RefCell::new(Leaf::whole(entries)))
    } else {
        Body::Inner(RefCell::new(entries.iter().map(|entry| Slot::of(*entry)).collect()))
    };
    Node::loaded(missing.page, body)
}

/// See [`Tree::unload_leaf`].
fn unload(slot: &mut Slot, may: impl Fn(Entry) -> bool) -> bool {
    let Slot::Loaded(leaf) = slot else { return false };
    let Some(page) = leaf.saved().filter(|page| Rc::strong_count(leaf) == 1 && may(*page)) else {
        return true;
    };
    if leaf.used.replace(false) {
        return true;
    }
    *slot = Slot::of(page);
    false
}

/// The inner node in `slot` to change, or its page to load first.
fn own_inner(slot: &mut Slot, shape: Shape, birth: u32, generation: u64) -> Result<&mut Node, Entry> {
    if matches!(slot, Slot::Empty) {
        let body = Body::Inner(RefCell::new(empty_children(shape)));
        *slot = Slot::Loaded(Rc::new(Node::changed(Entry::EMPTY, body)));
    }
    match slot {
        Slot::Loaded(node) => Ok(Node::own(node, birth, generation)),
        Slot::Stored(page) => Err(*page),
        Slot::Empty => unreachable!("filled above"),
    }
}

fn own_leaf<'a>(
    slot: &'a mut Slot,
    block: u64,
    birth: u32,
    generation: u64,
    counts: &mut impl Counts,
) -> &'a mut Node {
    let (page, base) = match slot {
        Slot::Empty => (Entry::EMPTY, Base::Empty),
        Slot::Stored(page) => (*page, Base::Stored(*page)),
        Slot::Loaded(node) => return Node::own(node, birth, generation),
    };
    counts.leaf_in_memory(block);
    *slot = Slot::Loaded(Rc::new(Node::changed(page, Body::Leaf(RefCell::new(Leaf::over(base))))));
    let Slot::Loaded(node) = slot else { unreachable!("just made") };
    Node::own(node, birth, generation)
}

/// Notes `new` at `at` over the base. Over nothing, what it replaces is known and counted at once; else only that an
/// earlier change of the same version is not there any more.
fn change(leaf: &mut Leaf, at: usize, new: Entry, generation: u64, counts: &mut impl Counts) {
    let over_nothing = matches!(leaf.base, Base::Empty);
    let earlier = leaf.changes.iter_mut().find(|(index, _)| usize::from(*index) == at);
    let old = earlier.as_ref().map_or(Entry::EMPTY, |(_, entry)| *entry);
    if over_nothing {
        counts.replaced(old, new, generation);
    } else if !old.is_empty() {
        counts.dropped(old, generation);
    }
    match earlier {
        Some((_, entry)) => *entry = new,
        None => leaf.changes.push((at as u16, new)),
    }
}

/// Merges a leaf if no page from disk is needed for that.
fn merge_in_memory(leaf: &mut Leaf, shape: Shape, generation: u64, counts: &mut impl Counts) {
    let below = match &leaf.base {
        Base::Empty => Some(vec![Entry::EMPTY; shape.fanout()].into_boxed_slice()),
        Base::Stored(_) => None,
        Base::Earlier(node) => node.leaf().borrow().full.clone(),
    };
    if let Some(entries) = below {
        merge_over(leaf, entries, generation, counts);
    }
}

fn merge_over(leaf: &mut Leaf, mut entries: Box<[Entry]>, generation: u64, counts: &mut impl Counts) {
    let counted = matches!(leaf.base, Base::Empty);
    for (at, new) in leaf.changes.drain(..) {
        let old = std::mem::replace(&mut entries[usize::from(at)], new);
        if !counted {
            counts.replaced(old, new, generation);
        }
    }
    *leaf = Leaf::whole(entries);
}

/// Merges `node` over `page`, whose entries are at hand; the versions below it first.
fn merge(node: &Rc<Node>, page: Entry, entries: &[Entry], counts: &mut impl Counts) {
    let mut leaf = node.leaf().borrow_mut();
    if leaf.full.is_some() {
        return;
    }
    let below = match &leaf.base {
        Base::Stored(stored) if *stored == page => entries.into(),
        Base::Stored(_) => return,
        Base::Empty => vec![Entry::EMPTY; entries.len()].into_boxed_slice(),
        Base::Earlier(earlier) => {
            merge(earlier, page, entries, counts);
            match &earlier.leaf().borrow().full {
                Some(entries) => entries.clone(),
                None => return,
            }
        }
    };
    merge_over(&mut leaf, below, node.generation(), counts);
}

impl Tree {
    /// Merges the leaf of `block`, as far as that can be done without a page from disk.
    ///
    /// # Errors
    /// The page to load and [`Self::install`] first, which merges it.
    pub fn merge_leaf(&self, node: &Rc<Node>, block: u64, counts: &mut impl Counts) -> Result<(), Missing> {
        let page = lowest_page(node);
        match page {
            Some(page) if node.leaf().borrow().full.is_none() => Err(Missing { level: 0, block, page }),
            _ => {
                merge(node, Entry::EMPTY, &vec![Entry::EMPTY; self.shape.fanout()], counts);
                Ok(())
            }
        }
    }
}

/// The page on disk below all versions of a leaf that is not merged.
fn lowest_page(node: &Rc<Node>) -> Option<Entry> {
    let leaf = node.leaf().borrow();
    if leaf.full.is_some() {
        return None;
    }
    match &leaf.base {
        Base::Empty => None,
        Base::Stored(page) => Some(*page),
        Base::Earlier(earlier) => lowest_page(earlier),
    }
}

/// Merges `node`, the bytes of whose lowest page are at hand.
///
/// # Errors
/// `bytes` are not a page of this shape.
pub fn merge_with(
    node: &Rc<Node>,
    shape: Shape,
    page: Entry,
    bytes: &[u8],
    counts: &mut impl Counts,
) -> Result<(), NotAPage> {
    let entries = page::decode(bytes, shape.fanout()).ok_or(NotAPage)?;
    merge(node, page, &entries, counts);
    Ok(())
}
