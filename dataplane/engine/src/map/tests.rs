//! A tree against a plain map: contents of all its versions, and an exact count of what each change let go of.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::save::{encode, unsaved};
use super::*;
use crate::ids::SegmentId;

const BLOCKS: u64 = 200;

#[derive(Clone, Debug)]
enum Step {
    Write(u64),
    Unmap(u64),
    Keep,
    Checkpoint,
    Unload(u64),
    Read(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..BLOCKS).prop_map(Step::Write),
        2 => (0..BLOCKS).prop_map(Step::Unmap),
        1 => Just(Step::Keep),
        1 => Just(Step::Checkpoint),
        2 => (0..BLOCKS).prop_map(Step::Unload),
        4 => (0..BLOCKS).prop_map(Step::Read),
    ]
}

/// Pages on a pretended disk, and the account.
#[derive(Default)]
struct World {
    pages: Vec<Vec<u8>>,
    next_block: u32,
    released: BTreeMap<u32, u32>,
    mapped: i64,
}

impl Counts for World {
    fn replaced(&mut self, old: Entry, new: Entry, _generation: u64) {
        self.mapped += i64::from(!new.is_empty()) - i64::from(!old.is_empty());
        if !old.is_empty() {
            *self.released.entry(old.crc()).or_default() += 1;
        }
    }

    fn dropped(&mut self, old: Entry, _generation: u64) {
        if !old.is_empty() {
            *self.released.entry(old.crc()).or_default() += 1;
        }
    }

    fn leaf_in_memory(&mut self, _block: u64) {}
}

impl World {
    fn block(&mut self, birth: u32) -> Entry {
        self.next_block += 1;
        Entry::new(Address { segment: SegmentId(1), position: 0 }, 64, self.next_block, birth)
    }

    fn page(&self, page: Entry) -> Vec<u8> {
        self.pages[page.crc() as usize].clone()
    }

    fn find(&mut self, tree: &mut Tree, block: u64) -> Entry {
        loop {
            match tree.find(block) {
                Ok(entry) => return entry,
                Err(missing) => {
                    let bytes = self.page(missing.page);
                    tree.install(missing, &bytes, self).unwrap();
                }
            }
        }
    }

    fn set(&mut self, tree: &mut Tree, block: u64, entry: Entry, generation: u64) {
        while let Err(missing) = tree.set(block, [entry].into_iter(), 1, generation, self) {
            let bytes = self.page(missing.page);
            tree.install(missing, &bytes, self).unwrap();
        }
    }

    fn save(&mut self, tree: &Tree) {
        for (level, nodes) in unsaved(tree).into_iter().enumerate() {
            for unsaved in nodes {
                while level == 0
                    && let Err(missing) = tree.merge_leaf(&unsaved.node, unsaved.first, self)
                {
                    let bytes = self.page(missing.page);
                    merge_with(&unsaved.node, tree.shape(), missing.page, &bytes, self).unwrap();
                }
                let mut bytes = Vec::new();
                let page = match encode(&unsaved.node, &mut bytes) {
                    0 => Entry::EMPTY,
                    len => {
                        self.pages.push(bytes);
                        let number = self.pages.len() as u32 - 1;
                        let address = Address { segment: SegmentId(2), position: 0 };
                        Entry::new(address, (len / 64) as u8, number, 1)
                    }
                };
                unsaved.node.set_saved(page);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_tree_is_a_map_and_its_versions_stay(bits in 1u32..5, steps in proptest::collection::vec(step(), 1..250)) {
        let shape = Shape::new(bits).unwrap();
        let mut world = World::default();
        let mut tree = Tree::new(shape, BLOCKS, Entry::EMPTY);
        let mut model = BTreeMap::new();
        let mut kept: Vec<(Tree, BTreeMap<u64, Entry>)> = Vec::new();
        let mut released: BTreeMap<u32, u32> = BTreeMap::new();
        let mut generation = 1;
        for step in steps {
            match step {
                Step::Write(block) => {
                    let entry = world.block(1);
                    world.set(&mut tree, block, entry, generation);
                    if let Some(old) = model.insert(block, entry) {
                        *released.entry(old.crc()).or_default() += 1;
                    }
                }
                Step::Unmap(block) => {
                    world.set(&mut tree, block, Entry::hole(1), generation);
                    if let Some(old) = model.remove(&block) {
                        *released.entry(old.crc()).or_default() += 1;
                    }
                }
                Step::Keep => kept.push((tree.clone(), model.clone())),
                Step::Checkpoint => {
                    let frozen = tree.clone();
                    generation += 1;
                    for (version, _) in &kept {
                        world.save(version);
                    }
                    world.save(&frozen);
                    for (version, _) in &mut kept {
                        version.unload();
                    }
                    prop_assert_eq!(&world.released, &released);
                    prop_assert_eq!(world.mapped, model.len() as i64);
                }
                Step::Unload(block) => {
                    tree.unload_leaf(block, |_| true);
                }
                Step::Read(block) => {
                    let found = world.find(&mut tree, block);
                    prop_assert_eq!(found.crc(), model.get(&block).map_or(0, |entry| entry.crc()));
                }
            }
        }
        kept.push((tree, model));
        for (mut version, model) in kept {
            for block in 0..BLOCKS {
                let found = world.find(&mut version, block);
                let (mapped, end) = version.extent(block).expect("its path is in memory");
                prop_assert_eq!((mapped, end > block), (!found.is_empty(), true));
                prop_assert!(mapped || (block..end.min(BLOCKS)).all(|block| !model.contains_key(&block)));
                prop_assert_eq!(found.crc(), model.get(&block).map_or(0, |entry| entry.crc()), "block {}", block);
            }
        }
    }
}
