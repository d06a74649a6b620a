//! The nodes of a tree in memory.
//!
//! A tree is persistent in the sense of functional data structures: a root can be kept as it is by one more reference
//! (a snapshot, or what a checkpoint is about to write), and whoever changes the tree afterwards copies the nodes on the
//! path first. So neither snapshots nor checkpoints stop writers, and both begin in constant time.
//!
//! A leaf need not be in memory to be changed: what is written to it is kept as *changes* over a *base*, and merged when
//! somebody needs the whole leaf. What a change replaces becomes known only then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::entry::Entry;

/// A child of an inner node, or a root.
#[derive(Clone, Default)]
pub enum Slot {
    /// Nothing below was ever written.
    #[default]
    Empty,
    /// A page on disk that is not in memory.
    Stored(Entry),
    /// A node in memory.
    Loaded(Rc<Node>),
}

impl Slot {
    /// A page on disk, or nothing.
    #[must_use]
    pub fn of(entry: Entry) -> Self {
        if entry.is_empty() { Self::Empty } else { Self::Stored(entry) }
    }

    /// The page on disk that holds what the slot holds; `None` for a node that is not saved.
    #[must_use]
    pub fn saved(&self) -> Option<Entry> {
        match self {
            Self::Empty => Some(Entry::EMPTY),
            Self::Stored(entry) => Some(*entry),
            Self::Loaded(node) => node.saved(),
        }
    }
}

/// A version of a node.
pub struct Node {
    /// The page that holds this version; empty while there is none.
    saved: Cell<Entry>,
    /// The page that holds the latest saved version of the node, whichever that is: shared by all versions.
    latest: Rc<Cell<Entry>>,
    /// The birth of the newest change in it.
    birth: Cell<u32>,
    /// In which generation (between two checkpoints) it changed last.
    generation: Cell<u64>,
    /// Whether a reader has come by since the cache's hand passed.
    pub(super) used: Cell<bool>,
    pub(super) body: Body,
}

/// What a node holds.
pub enum Body {
    /// Entries of blocks.
    Leaf(RefCell<Leaf>),
    /// Other nodes.
    Inner(RefCell<Box<[Slot]>>),
}

/// The entries of a leaf.
pub struct Leaf {
    /// All of them, once base and changes are merged.
    pub full: Option<Box<[Entry]>>,
    /// What was written over the base; the later of two for one index counts.
    pub changes: Vec<(u16, Entry)>,
    /// What lies below the changes.
    pub base: Base,
}

/// What lies below a leaf's changes.
#[derive(Clone)]
pub enum Base {
    /// Nothing.
    Empty,
    /// A page on disk.
    Stored(Entry),
    /// An earlier version that a checkpoint or a snapshot holds.
    Earlier(Rc<Node>),
}

impl Node {
    /// A node as it is on disk.
    #[must_use]
    pub fn loaded(page: Entry, body: Body) -> Self {
        Self {
            saved: Cell::new(page),
            latest: Rc::new(Cell::new(page)),
            birth: Cell::new(page.birth()),
            generation: Cell::new(0),
            used: Cell::new(true),
            body,
        }
    }

    /// A new node that is on no disk, over `page` (which may be empty).
    #[must_use]
    pub fn changed(page: Entry, body: Body) -> Self {
        let node = Self::loaded(page, body);
        node.saved.set(Entry::EMPTY);
        node
    }

    /// The page that holds this version; empty where the version leads nowhere and needs none.
    #[must_use]
    pub fn saved(&self) -> Option<Entry> {
        match self.saved.get() {
            page if page.is_empty() => None,
            page if page == Entry::VACANT => Some(Entry::EMPTY),
            page => Some(page),
        }
    }

    /// The page that held the latest saved version of the node.
    #[must_use]
    pub fn latest(&self) -> Entry {
        self.latest.get()
    }

    /// Whether a change has not been saved.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.saved.get().is_empty()
    }

    /// The birth of the newest change in it.
    #[must_use]
    pub fn birth(&self) -> u32 {
        self.birth.get()
    }

    /// The generation of the newest change in it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Takes note that `page` (empty: none is needed) holds this version now; gives the page that held the one before.
    pub fn set_saved(&self, page: Entry) -> Entry {
        self.saved.set(if page.is_empty() { Entry::VACANT } else { page });
        self.latest.replace(page)
    }

    /// The leaf.
    ///
    /// # Panics
    /// If it is an inner node.
    #[must_use]
    pub fn leaf(&self) -> &RefCell<Leaf> {
        match &self.body {
            Body::Leaf(leaf) => leaf,
            Body::Inner(_) => panic!("a leaf lies at level 0"),
        }
    }

    /// The children.
    ///
    /// # Panics
    /// If it is a leaf.
    #[must_use]
    pub fn children(&self) -> &RefCell<Box<[Slot]>> {
        match &self.body {
            Body::Inner(children) => children,
            Body::Leaf(_) => panic!("an inner node lies above level 0"),
        }
    }

    /// The next version of `this`, which stays as it is.
    fn fork(this: &Rc<Self>) -> Self {
        let body = match &this.body {
            Body::Inner(children) => Body::Inner(RefCell::new(children.borrow().clone())),
            Body::Leaf(leaf) => Body::Leaf(RefCell::new(leaf.borrow().fork(this))),
        };
        Self {
            saved: Cell::new(Entry::EMPTY),
            latest: Rc::clone(&this.latest),
            birth: this.birth.clone(),
            generation: this.generation.clone(),
            used: Cell::new(true),
            body,
        }
    }

    /// The node to change: `this` itself where nobody else holds it, else a copy in its place.
    pub fn own(this: &mut Rc<Self>, birth: u32, generation: u64) -> &mut Self {
        if Rc::strong_count(this) != 1 {
            *this = Rc::new(Self::fork(this));
        }
        let node = Rc::get_mut(this).expect("nobody else holds it, and there are no weak references");
        node.saved.set(Entry::EMPTY);
        node.birth.set(birth);
        node.generation.set(generation);
        node
    }
}

impl Leaf {
    /// A leaf over `base` without changes.
    #[must_use]
    pub fn over(base: Base) -> Self {
        Self { full: None, changes: Vec::new(), base }
    }

    /// A leaf that is all there.
    #[must_use]
    pub fn whole(entries: Box<[Entry]>) -> Self {
        Self { full: Some(entries), changes: Vec::new(), base: Base::Empty }
    }

    fn fork(&self, this: &Rc<Node>) -> Self {
        match (&self.full, this.is_dirty()) {
            (Some(entries), _) => Self::whole(entries.clone()),
            // What its changes replace is counted when that version is merged, once.
            (None, true) => Self::over(Base::Earlier(Rc::clone(this))),
            (None, false) => Self::over(self.base.clone()),
        }
    }

    /// The entry at `at`, or the page to load for it.
    ///
    /// # Errors
    /// The page that lies below.
    pub fn find(&self, at: usize) -> Result<Entry, Entry> {
        if let Some(entries) = &self.full {
            return Ok(entries[at]);
        }
        if let Some((_, entry)) = self.changes.iter().rev().find(|(index, _)| usize::from(*index) == at) {
            return Ok(*entry);
        }
        match &self.base {
            Base::Empty => Ok(Entry::EMPTY),
            Base::Stored(page) => Err(*page),
            Base::Earlier(node) => node.leaf().borrow().find(at),
        }
    }
}
