//! Saving a map: its changed pages, leaves first.

use ashlar_codec::crc32c;
use ashlar_env::Env;
use ashlar_env::spawn::yield_now;

use crate::chunks::Chunks;
use crate::ids::SegmentId;
use crate::map::save::{Unsaved, encode, unsaved};
use crate::map::{Address, Entry, Tree, merge_with};
use crate::segment::join;

use super::batch::{Item, ItemKind};
use super::core::VolumeNumber;
use super::runs::granules;
use super::stream::Stream;
use super::{Inner, LaneError};

/// Leaves merged together: their pages are read at once.
const TOGETHER: usize = 16;

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Saves `tree`, a version of `volume` that nobody changes.
    pub(super) async fn save(
        &self,
        volume: VolumeNumber,
        tree: &Tree,
        stream: &mut Stream<C>,
    ) -> Result<(), LaneError> {
        let mut bytes = Vec::new();
        for (level, nodes) in unsaved(tree).into_iter().enumerate() {
            for group in nodes.chunks(TOGETHER) {
                if level == 0 {
                    self.merge(volume, tree, group).await?;
                }
                for unsaved in group {
                    self.save_node(volume, level as u8, unsaved, stream, &mut bytes).await?;
                }
                yield_now().await;
            }
        }
        Ok(())
    }

    /// Merges leaves with what lies below their changes.
    pub(super) async fn merge(
        &self,
        volume: VolumeNumber,
        tree: &Tree,
        leaves: &[Unsaved],
    ) -> Result<(), LaneError> {
        loop {
            let missing: Vec<_> = {
                let mut core = self.core();
                let mut books = core.quiet(volume);
                let merge = |leaf: &Unsaved| {
                    let merged = tree.merge_leaf(&leaf.node, leaf.first, &mut books);
                    merged.err().map(|missing| (leaf.clone(), missing))
                };
                leaves.iter().filter_map(merge).collect()
            };
            if missing.is_empty() {
                return Ok(());
            }
            let pages = join(missing.iter().map(|(_, missing)| self.page(missing.page))).await;
            for ((leaf, missing), page) in missing.iter().zip(pages) {
                let mut core = self.core();
                let merged =
                    merge_with(&leaf.node, tree.shape(), missing.page, &page?, &mut core.quiet(volume));
                merged.map_err(|_| LaneError::Damaged(format!("a page of the map of volume {volume}")))?;
            }
        }
    }

    async fn save_node(
        &self,
        volume: VolumeNumber,
        level: u8,
        unsaved: &Unsaved,
        stream: &mut Stream<C>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), LaneError> {
        let node = &unsaved.node;
        bytes.clear();
        let len = encode(node, bytes);
        let mut page = Entry::EMPTY;
        if len > 0 {
            let crc = crc32c(bytes);
            let item = Item {
                kind: ItemKind::Page(level),
                volume,
                block: unsaved.first,
                granules: granules(len) as u8,
                crc,
                birth: node.birth(),
                address: Address { segment: SegmentId(0), position: 0 },
                position: 0,
            };
            let address = self.push(stream, item, bytes).await?;
            page = Entry::new(address, item.granules, crc, item.birth);
        }
        let old = node.set_saved(page);
        let mut core = self.core();
        core.table.take(page, true);
        core.quiet(volume).release(old, node.birth(), node.generation());
        Ok(())
    }
}
