//! Blocks that copies refer to: which, by how many copies, and whether the block that they were written for still does.
//!
//! What is live of a segment is counted once per stored block, however many refer to it ([`super::table`]). For a block
//! that no copy refers to nothing is kept: it is live as long as the block that it was written for holds it. A block with
//! copies has a place here until the last copy is let go of. How many there are is bounded by the configuration: beyond
//! it a copy copies the data.
//!
//! Changes are told in any order of the two sides of a checkpoint's cut (what a change replaced may become known late).
//! So both numbers are [`Counter`]s, and whether the stored block is live is derived on each side for itself.

use std::collections::BTreeMap;

use crate::map::{Address, Entry};

use super::counter::Counter;

/// The blocks with copies.
#[derive(Default)]
pub struct Shared(BTreeMap<Address, Block>);

struct Block {
    granules: u8,
    /// 1 while the block that it was written for holds it, in any version; then 0.
    original: Counter,
    /// How many copies hold it.
    copies: Counter,
}

/// A block with copies, as a checkpoint knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedState {
    /// Where it is.
    pub address: Address,
    /// How many granules are stored.
    pub granules: u8,
    /// Whether the block that it was written for holds it.
    pub original: bool,
    /// How many copies hold it.
    pub copies: u32,
}

/// By how much the number of live stored blocks changed before the cut, and after it.
pub type Change = (i64, i64);

impl Block {
    /// Whether the stored block is live at the cut, and now.
    fn live(&self) -> (bool, bool) {
        let at_cut = self.original.at_cut() + self.copies.at_cut();
        (at_cut > 0, self.original.now() + self.copies.now() > 0)
    }

    fn change(&mut self, is_copy: bool, by: i64, within: bool) -> Change {
        let before = self.live();
        let counter = if is_copy { &mut self.copies } else { &mut self.original };
        counter.add(by, within);
        let after = self.live();
        let at_cut = i64::from(after.0) - i64::from(before.0);
        (at_cut, i64::from(after.1) - i64::from(before.1) - at_cut)
    }

    /// Whether it is as if there had never been a copy, for the running checkpoint as well.
    fn is_over(&self) -> bool {
        self.copies.at_cut() == 0 && self.copies.now() == 0
    }
}

impl Shared {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether what is at `address` has a place here.
    #[must_use]
    pub fn contains(&self, address: Address) -> bool {
        !self.0.is_empty() && self.0.contains_key(&address)
    }

    /// Whether any copy holds what is at `address`.
    #[must_use]
    pub fn has_copies(&self, address: Address) -> bool {
        self.0.get(&address).is_some_and(|block| block.copies.now() > 0)
    }

    /// How many hold what is at `address`, which has a place here.
    #[must_use]
    pub fn holders(&self, address: Address) -> i64 {
        self.0.get(&address).map_or(1, |block| block.original.now() + block.copies.now())
    }

    /// One copy more holds what `entry` names. `written_within`: whether that was written before the cut.
    pub fn take(&mut self, entry: Entry, within: bool, written_within: bool) -> Change {
        let block = self.0.entry(entry.address()).or_insert_with(|| {
            let mut original = Counter::default();
            original.add(1, written_within);
            Block { granules: entry.granules(), original, copies: Counter::default() }
        });
        block.change(true, 1, within)
    }

    /// `entry`, a copy or not, is let go of. `None` where it has no place here.
    pub fn release(&mut self, entry: Entry, within: bool) -> Option<Change> {
        if self.0.is_empty() {
            return None;
        }
        let block = self.0.get_mut(&entry.address())?;
        let change = block.change(entry.is_copy(), -1, within);
        if block.is_over() {
            self.0.remove(&entry.address());
        }
        Some(change)
    }

    /// A checkpoint that saw all changes *within* is durable, or was given up.
    pub fn settle(&mut self) {
        self.0.retain(|_, block| {
            block.original.settle();
            block.copies.settle();
            !block.is_over()
        });
    }

    /// What the running checkpoint writes.
    pub fn at_cut(&self) -> impl Iterator<Item = SharedState> {
        let kept = self.0.iter().filter(|(_, block)| block.copies.at_cut() > 0);
        kept.map(|(&address, block)| SharedState {
            address,
            granules: block.granules,
            original: block.original.at_cut() > 0,
            copies: block.copies.at_cut() as u32,
        })
    }

    /// All of them now: address, whether the block that it was written for holds it, and how many copies do.
    pub fn all(&self) -> impl Iterator<Item = (Address, i64, i64)> {
        self.0.iter().map(|(&address, block)| (address, block.original.now(), block.copies.now()))
    }

    /// Adds one as a checkpoint knew it.
    pub fn restore(&mut self, state: SharedState) {
        let (original, copies) = (Counter::of(i64::from(state.original)), Counter::of(state.copies.into()));
        self.0.insert(state.address, Block { granules: state.granules, original, copies });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SegmentId;
    use proptest::prelude::*;

    fn entry() -> Entry {
        Entry::new(Address { segment: SegmentId(3), position: 64 }, 64, 1, 1)
    }

    /// The number of holders decides, on each side of the cut, in whatever order changes are told.
    #[derive(Clone, Copy, Debug)]
    enum Told {
        Copy,
        ReleaseCopy(bool),
        ReleaseOriginal(bool),
    }

    proptest! {
        #[test]
        fn a_stored_block_is_live_while_anybody_holds_it(
            told in proptest::collection::vec(prop_oneof![
                Just(Told::Copy), any::<bool>().prop_map(Told::ReleaseCopy), any::<bool>().prop_map(Told::ReleaseOriginal)
            ], 1..12),
            cut in 0usize..12,
            late in any::<u16>(),
        ) {
            let mut shared = Shared::default();
            // Live before and after the cut: it was written before.
            let mut live = (1, 0);
            let (mut original, mut copies) = (1, 0);
            let mut later = Vec::new();
            let mut held_at_cut = None;
            for (at, told) in told.into_iter().enumerate() {
                if at == cut { held_at_cut = Some((original, copies)); }
                let within = at < cut;
                let mut note = |change: Change| { live.0 += change.0; live.1 += change.1; };
                let (released, held_back) = match told {
                    Told::Copy if original + copies > 0 => {
                        note(shared.take(entry(), within, true));
                        copies += 1;
                        continue;
                    }
                    Told::ReleaseCopy(late) if copies > 0 => { copies -= 1; (entry().copied(2), late) }
                    Told::ReleaseOriginal(late) if original > 0 => { original -= 1; (entry(), late) }
                    _ => continue,
                };
                if held_back && within && late & (1 << at) != 0 {
                    later.push(released);
                } else {
                    note(shared.release(released, within).unwrap_or(if within { (-1, 0) } else { (0, -1) }));
                }
            }
            for released in later {
                let change = shared.release(released, true).unwrap_or((-1, 0));
                live.0 += change.0;
                live.1 += change.1;
            }
            let at_cut = held_at_cut.unwrap_or((original, copies));
            prop_assert_eq!(live.0, i64::from(at_cut.0 + at_cut.1 > 0));
            prop_assert_eq!(live.0 + live.1, i64::from(original + copies > 0));
            let kept: Vec<_> = shared.at_cut().map(|kept| (i64::from(kept.original), i64::from(kept.copies))).collect();
            prop_assert_eq!(kept, if at_cut.1 > 0 { vec![at_cut] } else { vec![] });
            shared.settle();
            prop_assert_eq!(shared.len(), usize::from(copies > 0));
            prop_assert!(shared.all().all(|found| found == (entry().address(), original, copies)));
        }
    }
}
