//! What a checkpoint has to write of a tree.

use std::rc::Rc;

use super::entry::Entry;
use super::node::{Body, Node, Slot};
use super::page;
use super::tree::{Shape, Tree};

/// A node that is not saved.
#[derive(Clone)]
pub struct Unsaved {
    /// The first block below it.
    pub first: u64,
    /// The node.
    pub node: Rc<Node>,
}

/// The nodes of `tree` that are not saved: a list for each level, leaves first. A list must be written before the next:
/// pages hold the addresses of those below.
#[must_use]
pub fn unsaved(tree: &Tree) -> Vec<Vec<Unsaved>> {
    let mut levels: Vec<Vec<Unsaved>> = Vec::new();
    levels.resize_with(tree.level() as usize + 1, Vec::new);
    if let Slot::Loaded(root) = tree.root() {
        gather(tree.shape(), root, tree.level(), 0, &mut levels);
    }
    levels
}

fn gather(shape: Shape, node: &Rc<Node>, level: u32, first: u64, levels: &mut [Vec<Unsaved>]) {
    if !node.is_dirty() {
        return;
    }
    if let Body::Inner(children) = &node.body {
        let span = shape.span(level - 1);
        for (at, child) in children.borrow().iter().enumerate() {
            if let Slot::Loaded(child) = child {
                gather(shape, child, level - 1, first + at as u64 * span, levels);
            }
        }
    }
    levels[level as usize].push(Unsaved { first, node: Rc::clone(node) });
}

/// Appends the page of `node` to `out` and gives its length in bytes; 0 where it leads nowhere and needs none.
///
/// # Panics
/// If it is a leaf that is not merged, or has a child that is not saved.
pub fn encode(node: &Node, out: &mut Vec<u8>) -> usize {
    match &node.body {
        Body::Leaf(leaf) => {
            let leaf = leaf.borrow();
            let entries = leaf.full.as_deref().expect("leaves are merged before they are written");
            encode_entries(entries.iter().copied(), out)
        }
        Body::Inner(children) => {
            let children = children.borrow();
            let page_of = |child: &Slot| child.saved().expect("children are written before their parents");
            encode_entries(children.iter().map(page_of), out)
        }
    }
}

fn encode_entries(entries: impl ExactSizeIterator<Item = Entry> + Clone, out: &mut Vec<u8>) -> usize {
    if entries.clone().all(Entry::is_empty) { 0 } else { page::encode(entries, out) }
}
