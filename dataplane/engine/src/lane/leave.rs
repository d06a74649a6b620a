//! Letting go of what deleted snapshots and volumes alone held.
//!
//! Of a snapshot that is what neither the one before nor the one after it holds; of a volume, what was written after its
//! latest snapshot. It is gathered while writers go on, and let go of in one step in the end: a crash half-way changes
//! nothing, and the work begins anew. Nothing is gathered before a checkpoint has saved the versions concerned, so every page
//! of theirs has a place.

use ashlar_env::Env;

use crate::chunks::Chunks;
use crate::map::{Entry, Tree};

use super::core::{Core, SnapshotNumber, VolumeNumber};
use super::table::Released;
use super::walk::Met;
use super::{Inner, LaneError};

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Lets go of all that can be. Whether anything was.
    pub(super) async fn let_go(&self) -> Result<bool, LaneError> {
        let mut any = false;
        loop {
            let next = self.core().next_departure();
            let Some(number) = next else { break };
            self.let_go_of_snapshot(number).await?;
            any = true;
        }
        while self.let_go_of_version().await? {
            any = true;
        }
        Ok(any)
    }

    async fn let_go_of_snapshot(&self, number: SnapshotNumber) -> Result<(), LaneError> {
        let mut released = Released::default();
        let neighbours = self.core().neighbours_of(number).unwrap_or_default();
        for (volume, this, next, floor) in neighbours {
            self.gather(volume, &this, &next, floor, &mut released).await?;
        }
        let mut core = self.core();
        let gone = core.snapshots.remove(&number).and_then(|snapshot| snapshot.leaving);
        let under_writes = gone.as_ref().is_some_and(|departure| !departure.released.is_empty());
        self.activity.note(|activity| {
            activity.departed += 1;
            activity.departed_under_writes += u64::from(under_writes);
        });
        gone.into_iter().for_each(|departure| released.join(departure.released));
        core.release_all(&released);
        Ok(())
    }

    /// Notes what `this` has, `next` has not, and was born after `floor`.
    async fn gather(
        &self,
        volume: VolumeNumber,
        this: &Tree,
        next: &Tree,
        floor: u32,
        released: &mut Released,
    ) -> Result<(), LaneError> {
        let meet = |met| match met {
            Met::Block { this: entry, .. } | Met::Page(entry) => {
                if !entry.is_empty() && entry.birth() > floor {
                    self.core().table.note(released, entry);
                }
            }
        };
        self.walk(volume, this, next, floor, meet).await
    }

    async fn let_go_of_version(&self) -> Result<bool, LaneError> {
        let found = {
            let core = self.core();
            let version = core.leaving.first().filter(|version| version.saved);
            version.map(|version| (version.volume, version.floor, version.tree.clone()))
        };
        let Some((volume, floor, tree)) = found else { return Ok(false) };
        let mut released = Released::default();
        let nothing = Tree::at_level(tree.shape(), 0, Entry::EMPTY);
        self.gather(volume, &tree, &nothing, floor, &mut released).await?;
        let mut core = self.core();
        core.leaving.remove(0);
        self.activity.note(|activity| activity.versions_left += 1);
        core.release_all(&released);
        Ok(true)
    }
}

impl Core {
    /// For each volume of snapshot `number`: the volume, its map in the snapshot, that in the next version (of those that were
    /// there when it began to leave), and the number of the snapshot before.
    pub(super) fn neighbours_of(
        &self,
        number: SnapshotNumber,
    ) -> Option<Vec<(VolumeNumber, Tree, Tree, u32)>> {
        let snapshot = self.snapshots.get(&number)?;
        let until = snapshot.leaving.as_ref().map_or(u32::MAX, |departure| departure.birth);
        let mut all = Vec::new();
        for (volume, held) in &snapshot.volumes {
            let with = |range| {
                let others = self.snapshots.range::<SnapshotNumber, std::ops::Range<_>>(range);
                others.filter_map(|(number, other)| Some((*number, other.volumes.get(volume)?)))
            };
            let head = match &snapshot.leaving {
                Some(departure) => departure.heads.get(volume).cloned(),
                None => self.volumes.get(volume).map(|volume| volume.tree.clone()),
            };
            let next = with(number + 1..until).next().map(|(_, next)| next.tree.clone()).or(head);
            let nothing = || Tree::at_level(self.shape, 0, Entry::EMPTY);
            let before = with(0..number).next_back().map_or(0, |(number, _)| number);
            let origin = held.origin;
            let floor = before.max(origin.map_or(0, |(snapshot, _)| snapshot));
            all.push((*volume, held.tree.clone(), next.unwrap_or_else(nothing), floor));
        }
        Some(all)
    }
}
