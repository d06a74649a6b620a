//! Walking a version of a volume's map beside another: only where the two differ.

use std::rc::Rc;

use ashlar_env::Env;
use ashlar_env::spawn::yield_now;

use crate::chunks::Chunks;
use crate::map::node::Slot;
use crate::map::save::Unsaved;
use crate::map::{Entry, Tree, page};

use super::core::VolumeNumber;
use super::{Inner, LaneError};

/// What a walk meets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Met {
    /// A block below a page of the first version that is elsewhere in the other version, or nowhere in one of the two.
    Block {
        /// which
        block: u64,
        /// where in the first version; empty where it is only in the other
        this: Entry,
    },
    /// A page of the first version that the other does not have.
    Page(Entry),
}

struct Step {
    level: u32,
    first: u64,
    this: Slot,
    other: Slot,
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Meets all that `this` has and `other`, another version of `volume`, has not; below pages of `this` that were born
    /// up to `floor` it does not look.
    pub(super) async fn walk(
        &self,
        volume: VolumeNumber,
        this: &Tree,
        other: &Tree,
        floor: u32,
        mut meet: impl FnMut(Met),
    ) -> Result<(), LaneError> {
        let level = this.level().max(other.level());
        let root = |tree: &Tree| {
            let mut tree = tree.clone();
            tree.grow(tree.shape().span(level), u32::MAX, 0);
            tree.root().clone()
        };
        let shape = this.shape();
        let mut steps = vec![Step { level, first: 0, this: root(this), other: root(other) }];
        while let Some(step) = steps.pop() {
            if same(&step.this, &step.other) || !is_after(&step.this, floor) {
                continue;
            }
            if let Some(page) = step.this.saved().filter(|page| !page.is_empty()) {
                meet(Met::Page(page));
            }
            if step.level == 0 {
                let this = self.entries(volume, this, &step.this, step.first).await?;
                let other = self.entries(volume, other, &step.other, step.first).await?;
                for (block, (this, other)) in (step.first..).zip(this.iter().zip(&other)) {
                    if this != other && !(this.is_empty() && other.is_empty()) {
                        meet(Met::Block { block, this: *this });
                    }
                }
                continue;
            }
            let this = self.children(&step.this, shape.fanout()).await?;
            let other = self.children(&step.other, shape.fanout()).await?;
            let level = step.level - 1;
            for (at, (this, other)) in this.into_iter().zip(other).enumerate().rev() {
                let first = step.first + at as u64 * shape.span(level);
                steps.push(Step { level, first, this, other });
            }
            yield_now().await;
        }
        Ok(())
    }

    /// The children of an inner node.
    async fn children(&self, slot: &Slot, fanout: usize) -> Result<Vec<Slot>, LaneError> {
        match slot {
            Slot::Empty => Ok(vec![Slot::Empty; fanout]),
            Slot::Loaded(node) => Ok(node.children().borrow().to_vec()),
            Slot::Stored(page) => {
                let entries = self.decode(*page, fanout).await?;
                Ok(entries.iter().map(|entry| Slot::of(*entry)).collect())
            }
        }
    }

    /// The entries of a leaf, merged.
    async fn entries(
        &self,
        volume: VolumeNumber,
        tree: &Tree,
        slot: &Slot,
        first: u64,
    ) -> Result<Vec<Entry>, LaneError> {
        let fanout = tree.shape().fanout();
        match slot {
            Slot::Empty => Ok(vec![Entry::EMPTY; fanout]),
            Slot::Stored(page) => Ok(self.decode(*page, fanout).await?.into_vec()),
            Slot::Loaded(node) => {
                let leaf = Unsaved { first, node: Rc::clone(node) };
                self.merge(volume, tree, &[leaf]).await?;
                Ok(node.leaf().borrow().full.as_deref().expect("merged").to_vec())
            }
        }
    }

    async fn decode(&self, stored: Entry, fanout: usize) -> Result<Box<[Entry]>, LaneError> {
        let bytes = self.page(stored).await?;
        page::decode(&bytes, fanout).ok_or_else(|| LaneError::Damaged("a page of the map".into()))
    }
}

/// Whether the two hold the same for certain.
fn same(this: &Slot, other: &Slot) -> bool {
    match (this, other) {
        (Slot::Loaded(this), Slot::Loaded(other)) if Rc::ptr_eq(this, other) => true,
        _ => this.saved().is_some() && this.saved() == other.saved(),
    }
}

/// Whether anything below was born after `floor`.
fn is_after(slot: &Slot, floor: u32) -> bool {
    match slot {
        Slot::Empty => false,
        Slot::Stored(page) => page.birth() > floor,
        Slot::Loaded(node) => node.birth() > floor,
    }
}
