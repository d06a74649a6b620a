//! Compaction: what is still live of some segments moves together into another, and their chunks become free.
//!
//! Nothing in any map changes: the segment table says where what was in a victim is now. Whether a block is live is asked
//! of one version of its volume only. Between two snapshots a block's address is held by a run of versions without gaps,
//! from the first after its birth on; so if the earliest version that could hold it does not, none does.
//!
//! A victim's chunks are deleted after the next checkpoint, which knows the new places.

use std::collections::BTreeMap;

use ashlar_codec::crc32c;
use ashlar_env::Env;
use ashlar_env::spawn::yield_now;

use crate::chunks::Chunks;
use crate::ids::{GRANULE_BYTES, SegmentId, SegmentKind};
use crate::map::{Missing, Tree};

use super::batch::{Item, ItemKind};
use super::core::{Core, SnapshotNumber, VolumeNumber};
use super::runs::{Run, Runs};
use super::stream::Stream;
use super::table::Place;
use super::{Inner, LaneError};

/// Segments with less than this part (of 256) to gain are left alone.
const GAIN_MIN: i64 = 16;

/// Items that are looked at before others get their turn.
const TOGETHER: usize = 64;

/// Versions that have been looked into, so that their pages are read once for a victim.
pub(super) type Versions = BTreeMap<(VolumeNumber, Option<SnapshotNumber>, usize), Tree>;

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Moves what is live out of the segments where that gains most. Whether it moved any.
    pub(super) async fn compact(&self) -> Result<bool, LaneError> {
        let (mut moved, mut ended) = (false, Ok(()));
        let (mut out, mut bytes) = (None, Vec::new());
        for victim in self.victims() {
            if self.core().is_letting_go() {
                break;
            }
            match self.move_out(victim, &mut out, &mut bytes).await {
                // What is damaged stays where it is, and its segment with it; everything else goes on.
                Err(LaneError::Damaged(_)) => {
                    self.immovable.borrow_mut().insert(victim);
                }
                Ok(()) => moved = true,
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        // What has been moved so far counts, whatever came then.
        if let Some(mut out) = out {
            self.finish_stream(&mut out).await?;
            self.seal_stream(out).await?;
        }
        ended.map(|()| moved)
    }

    /// The segments to compact, best first.
    fn victims(&self) -> Vec<SegmentId> {
        let core = self.core();
        let position = self.log().position().segment;
        let pages = self.pages.borrow().as_ref().map(Stream::segment);
        let capacity = i64::from(self.segments.segment_bytes()) / GRANULE_BYTES as i64;
        let mut scored: Vec<(i64, SegmentId)> = Vec::new();
        for (id, segment) in core.table.sorted() {
            let replayed = segment.kind == SegmentKind::Log && id >= position;
            if segment.sealed.is_none() || !core.table.is_here(id) || replayed || pages == Some(id) {
                continue;
            }
            if self.immovable.borrow().contains(&id) {
                continue;
            }
            let live = core.table.live_in(id).clamp(0, capacity);
            let gain = capacity - live;
            if gain * 256 < capacity * GAIN_MIN {
                continue;
            }
            scored.push((gain, id));
        }
        // Greedy: compaction runs only when slots are short, and then what counts is space per byte moved. What moved once
        // lies apart from what hosts write, so cold data are not moved with hot ones again and again.
        scored.sort_unstable_by_key(|(score, id)| (std::cmp::Reverse(*score), *id));
        scored.into_iter().take(self.config.victims_max).map(|(_, id)| id).collect()
    }

    /// Moves what is live out of `victim`, into as many segments as it takes.
    async fn move_out(
        &self,
        victim: SegmentId,
        out: &mut Option<Stream<C>>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), LaneError> {
        self.segment_bytes(victim, bytes).await?;
        let items = self.items(victim, bytes)?;
        let live = self.live_items(&items).await?;
        self.verify(victim, &live, bytes).await?;
        let mut moves: BTreeMap<SegmentId, Vec<Run>> = BTreeMap::new();
        if out.is_none() && !live.is_empty() {
            *out = Some(self.stream(SegmentKind::Moved).await?);
        }
        for (at, item) in live.iter().enumerate() {
            if at % TOGETHER == 0 {
                yield_now().await;
            }
            let start = item.position as usize * GRANULE_BYTES;
            let stored = &bytes[start..start + usize::from(item.granules) * GRANULE_BYTES];
            let stream = out.as_mut().expect("made above");
            let to = self.push(stream, *item, stored).await?;
            let (from, granules) = (item.address.position, u32::from(item.granules));
            let run = Run { from, granules, host: to.segment, to: to.position };
            moves.entry(item.address.segment).or_default().push(run);
        }
        if let Some(stream) = out {
            self.finish_stream(stream).await?;
        }
        let hosted = !self.core().table.guests(victim).is_empty();
        self.activity.note(|activity| {
            activity.moved += live.len() as u64;
            activity.victims += u64::from(!live.is_empty());
            activity.empty_victims += u64::from(live.is_empty());
            activity.moved_again += u64::from(hosted && !live.is_empty());
        });
        self.core().moved_out(victim, moves);
        if self.config.planted.delete_early {
            self.core().dead.retain(|segment| *segment != victim);
            self.segments.delete(victim, self.epoch).await?;
        }
        yield_now().await;
        Ok(())
    }

    /// Holds `live`, which lies in `victim`, against its checksums. Nothing has moved yet when that fails.
    async fn verify(&self, victim: SegmentId, live: &[Item], bytes: &[u8]) -> Result<(), LaneError> {
        for (at, item) in live.iter().enumerate() {
            if at % TOGETHER == 0 {
                yield_now().await;
            }
            let start = item.position as usize * GRANULE_BYTES;
            let stored = bytes.get(start..start + usize::from(item.granules) * GRANULE_BYTES);
            if stored.is_none_or(|stored| crc32c(stored) != item.crc) {
                return Err(LaneError::Damaged(format!(
                    "segment {} at byte {start}, block {} of volume {}: wrong checksum",
                    victim.0, item.block, item.volume
                )));
            }
        }
        Ok(())
    }

    /// Those of `items` that some version still holds.
    async fn live_items(&self, items: &[Item]) -> Result<Vec<Item>, LaneError> {
        let mut live = Vec::new();
        let mut versions = Versions::new();
        for some in items.chunks(TOGETHER) {
            for item in some {
                if self.is_live(item, &mut versions).await? {
                    live.push(*item);
                }
            }
            yield_now().await;
        }
        Ok(live)
    }

    /// Whether some version still holds `item`.
    pub(super) async fn is_live(&self, item: &Item, versions: &mut Versions) -> Result<bool, LaneError> {
        loop {
            let generation = self.core().generation;
            if self.is_held(item, versions).await? {
                return Ok(true);
            }
            if self.core().table.shared.has_copies(item.address) && !self.config.planted.forget_copies {
                self.activity.note(|activity| activity.moved_for_copies += 1);
                return Ok(true);
            }
            // While a page was read, a snapshot may have been cut that holds it, and the volume have been written again.
            if self.core().generation == generation {
                return Ok(false);
            }
        }
    }

    /// Whether a version of those that there are at the call holds it.
    async fn is_held(&self, item: &Item, versions: &mut Versions) -> Result<bool, LaneError> {
        let candidates =
            self.core().candidates(item.volume, item.birth, self.config.planted.forget_snapshots);
        for candidate in candidates {
            match candidate {
                Candidate::Head => loop {
                    let found = {
                        let core = self.core();
                        let Some(volume) = core.volumes.get(&item.volume) else { break };
                        look(&volume.tree, item)
                    };
                    match found {
                        Ok(true) => return Ok(true),
                        Ok(false) => break,
                        Err(missing) => self.load(item.volume, missing).await?,
                    }
                },
                Candidate::Version(key, tree) => {
                    let mut tree = versions.remove(&key).unwrap_or(tree);
                    let found = loop {
                        match look(&tree, item) {
                            Ok(found) => break found,
                            Err(missing) => self.load_version(item.volume, &mut tree, missing).await?,
                        }
                    };
                    versions.insert(key, tree);
                    if found {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}

/// A version that could hold an item.
pub(super) enum Candidate {
    /// The volume as it is.
    Head,
    /// A snapshot's or a leaving version, with a key to know it by.
    Version((VolumeNumber, Option<SnapshotNumber>, usize), Tree),
}

/// Whether `tree` holds `item` at its address.
fn look(tree: &Tree, item: &Item) -> Result<bool, Missing> {
    let found = match item.kind {
        ItemKind::Block => {
            if item.block >= tree.shape().span(tree.level()) {
                return Ok(false);
            }
            tree.find(item.block)?
        }
        ItemKind::Page(level) => tree.page_at(u32::from(level), item.block)?,
    };
    Ok(!found.is_empty() && found.address() == item.address)
}

impl Core {
    /// The versions that could hold what was written to `volume` at `birth`: if none of these does, no version does. What
    /// leaves after a restore is beside the line of versions: a later snapshot tells nothing of it.
    pub(super) fn candidates(&self, volume: VolumeNumber, birth: u32, forget: bool) -> Vec<Candidate> {
        let mut holding =
            self.snapshots.range(birth..).filter(|(_, snapshot)| snapshot.volumes.contains_key(&volume));
        let first = holding.next().filter(|_| !forget).map(|(number, snapshot)| {
            Candidate::Version((volume, Some(*number), 0), snapshot.volumes[&volume].tree.clone())
        });
        let leaving = self.leaving.iter().enumerate().filter(|(_, version)| version.volume == volume);
        let leaving =
            leaving.map(|(at, version)| Candidate::Version((volume, None, at), version.tree.clone()));
        let mut all = vec![first.unwrap_or(Candidate::Head)];
        all.extend(leaving);
        all
    }

    /// All that is live of `victim` is where `moves` say now, for each segment whose contents it held.
    fn moved_out(&mut self, victim: SegmentId, mut moves: BTreeMap<SegmentId, Vec<Run>>) {
        let mut guests = self.table.guests(victim).to_vec();
        guests.push(victim);
        for guest in guests {
            let mut runs = moves.remove(&guest).unwrap_or_default();
            // What moved nowhere is live no more; what is in other hosts stays there.
            if let Some(Place::Hosted { runs: before, .. }) =
                self.table.get(guest).map(|segment| &segment.place)
            {
                runs.extend(before.elsewhere(victim));
            }
            self.table.move_to(guest, Runs::of(runs));
        }
        debug_assert!(moves.is_empty(), "all that moved was in the victim");
        self.dead.push(victim);
    }
}
