//! Volumes and snapshots: made, changed and deleted.

use ashlar_env::Env;
use ashlar_env::units::VolumeId;

use crate::chunks::Chunks;
use crate::ids::BLOCK_SHIFT;
use crate::map::Tree;

use super::background::Want;
use super::control::Control;
use super::core::{SnapshotNumber, VolumeNumber, blocks_of};
use super::place::Place;
use super::walk::Met;
use super::write::Clear;
use super::{Lane, LaneError};

impl<E: Env, C: Chunks> Lane<E, C> {
    /// Makes an empty volume of `size_bytes`.
    ///
    /// # Errors
    /// [`LaneError::Exists`], or what the log says.
    pub async fn create_volume(&self, id: VolumeId, size_bytes: u64) -> Result<VolumeNumber, LaneError> {
        let inner = &*self.0;
        let volume = self.fresh_number(id)?;
        inner.log_control(Control::Create { volume, id, size_bytes }).await?;
        Ok(volume)
    }

    /// Takes a number for volume `id`.
    fn fresh_number(&self, id: VolumeId) -> Result<VolumeNumber, LaneError> {
        let mut core = self.0.core();
        if core.number_of(id).is_some() {
            return Err(LaneError::Exists);
        }
        core.next_volume += 1;
        Ok(core.next_volume - 1)
    }

    /// Changes a volume's size; what lies beyond the new end is lost.
    ///
    /// # Errors
    /// [`LaneError::NoVolume`], or what the log says.
    pub async fn resize_volume(&self, volume: VolumeNumber, size_bytes: u64) -> Result<(), LaneError> {
        // Whatever comes later meets the new size, whatever came before has been done.
        let from = size_bytes >> BLOCK_SHIFT;
        let place = Place::of(&self.0, volume, (from, u64::MAX), true).await;
        let resized = self.resize_inside(volume, size_bytes).await;
        place.end(resized)
    }

    async fn resize_inside(&self, volume: VolumeNumber, size_bytes: u64) -> Result<(), LaneError> {
        let inner = &*self.0;
        let _inside = inner.admitted().await?;
        let before = inner.core().volumes.get(&volume).ok_or(LaneError::NoVolume)?.size_bytes;
        if size_bytes < before {
            // Whoever grows the volume again finds zeros.
            inner.clear_inside(volume, size_bytes, before, Clear::Unmap).await?;
        }
        inner.log_control_inside(Control::Resize { volume, size_bytes }).await
    }

    /// Deletes a volume. What snapshots hold of it stays. Its space is free some time later.
    ///
    /// # Errors
    /// [`LaneError::NoVolume`], or what the log says.
    pub async fn delete_volume(&self, volume: VolumeNumber) -> Result<(), LaneError> {
        // What is being copied from it stays until the copy refers to it.
        let place = Place::of(&self.0, volume, (0, u64::MAX), true).await;
        let deleted = self.delete_inside(volume).await;
        place.end(deleted)
    }

    async fn delete_inside(&self, volume: VolumeNumber) -> Result<(), LaneError> {
        let inner = &*self.0;
        if !inner.core().volumes.contains_key(&volume) {
            return Err(LaneError::NoVolume);
        }
        inner.log_control(Control::Delete { volume }).await?;
        inner.work.notify();
        Ok(())
    }

    /// Cuts a snapshot of all volumes: all writes that completed before the call are in it, none that begins after its
    /// end. One record, whatever the volumes' number and size.
    ///
    /// # Errors
    /// What the log says.
    pub async fn snapshot(&self) -> Result<SnapshotNumber, LaneError> {
        let inner = &*self.0;
        let number = {
            let mut core = inner.core();
            let number = core.next_snapshot.max(core.birth);
            core.next_snapshot = number + 1;
            number
        };
        inner.log_control(Control::Snapshot { number }).await?;
        Ok(number)
    }

    /// Deletes a snapshot. Its space is free some time later.
    ///
    /// # Errors
    /// [`LaneError::NoSnapshot`], [`LaneError::InUse`] while a clone hangs on it, or what the log says.
    pub async fn delete_snapshot(&self, number: SnapshotNumber) -> Result<(), LaneError> {
        let inner = &*self.0;
        self.check_snapshot(number)?;
        if inner.core().has_clones(number) {
            return Err(LaneError::InUse(format!("clones hang on snapshot {number}; delete them first")));
        }
        inner.log_control(Control::DeleteSnapshot { number }).await?;
        inner.work.notify();
        Ok(())
    }

    fn check_snapshot(&self, number: SnapshotNumber) -> Result<(), LaneError> {
        let core = self.0.core();
        let found = core.snapshots.get(&number).filter(|snapshot| snapshot.leaving.is_none());
        found.map(|_| ()).ok_or(LaneError::NoSnapshot)
    }

    /// Waits for a checkpoint after the snapshot's cut: from then on its maps have places on disk.
    async fn settle(&self, number: SnapshotNumber) -> Result<(), LaneError> {
        self.check_snapshot(number)?;
        while self.0.core().snapshots.get(&number).is_some_and(|snapshot| !snapshot.settled) {
            self.0.turn(Want::Checkpoint).await?;
        }
        self.check_snapshot(number)
    }

    /// Makes a volume `id` that begins as volume `of` was in snapshot `number`.
    ///
    /// # Errors
    /// [`LaneError::NoSnapshot`], [`LaneError::NoVolume`], [`LaneError::Exists`], or what the log says.
    pub async fn clone_volume(
        &self,
        id: VolumeId,
        number: SnapshotNumber,
        of: VolumeNumber,
    ) -> Result<VolumeNumber, LaneError> {
        let inner = &*self.0;
        self.settle(number).await?;
        let held = inner.core().snapshots.get(&number).is_some_and(|held| held.volumes.contains_key(&of));
        if !held {
            return Err(LaneError::NoVolume);
        }
        let volume = self.fresh_number(id)?;
        inner.log_control(Control::Clone { volume, id, snapshot: number, of }).await?;
        inner.load_inner(volume).await?;
        Ok(volume)
    }

    /// Makes all volumes again what they were in snapshot `number`, the latest one. Writes wait meanwhile.
    ///
    /// # Errors
    /// [`LaneError::NoSnapshot`], [`LaneError::InUse`] where later snapshots are in the way, or what the log says.
    pub async fn restore(&self, number: SnapshotNumber) -> Result<(), LaneError> {
        let inner = &*self.0;
        self.settle(number).await?;
        let later = inner.core().snapshots.range(number + 1..).map(|(number, _)| *number).next();
        if let Some(later) = later {
            return Err(LaneError::InUse(format!("snapshot {later} is later; delete it first")));
        }
        let _alone = inner.gate.close().await;
        inner.log_control_inside(Control::Restore { number }).await?;
        let volumes: Vec<_> = inner.core().volumes.keys().copied().collect();
        for volume in volumes {
            inner.load_inner(volume).await?;
        }
        inner.work.notify();
        Ok(())
    }

    /// Compresses blocks from now on (LZ4), or does not any more.
    ///
    /// # Errors
    /// What the log says.
    pub async fn set_compression(&self, on: bool) -> Result<(), LaneError> {
        self.0.log_control(Control::Compress { method: u8::from(on) }).await
    }

    /// The blocks of `volume` (4 KiB each) in which snapshot `from` differs from snapshot `to`, or from the volume as it
    /// is: ranges of first block and count, ascending, adjoining ones as one.
    ///
    /// # Errors
    /// [`LaneError::NoSnapshot`], [`LaneError::NoVolume`], or what a read says.
    pub async fn diff(
        &self,
        volume: VolumeNumber,
        from: SnapshotNumber,
        to: Option<SnapshotNumber>,
    ) -> Result<Vec<(u64, u64)>, LaneError> {
        let (from, to) = (self.version(volume, Some(from))?, self.version(volume, to)?);
        let mut blocks = std::collections::BTreeSet::new();
        for (this, other) in [(&from, &to), (&to, &from)] {
            let meet = |met| {
                if let Met::Block { block, .. } = met {
                    blocks.insert(block);
                }
            };
            self.0.walk(volume, this, other, 0, meet).await?;
        }
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for block in blocks {
            match ranges.last_mut() {
                Some((first, count)) if *first + *count == block => *count += 1,
                _ => ranges.push((block, 1)),
            }
        }
        Ok(ranges)
    }

    /// The map of a volume, as it is or as a snapshot holds it.
    pub(super) fn version(
        &self,
        volume: VolumeNumber,
        snapshot: Option<SnapshotNumber>,
    ) -> Result<Tree, LaneError> {
        let core = self.0.core();
        match snapshot {
            None => core.volumes.get(&volume).map(|volume| volume.tree.clone()).ok_or(LaneError::NoVolume),
            Some(number) => {
                let snapshot = core.snapshots.get(&number).ok_or(LaneError::NoSnapshot)?;
                let held = snapshot.volumes.get(&volume).ok_or(LaneError::NoVolume)?;
                Ok(held.tree.clone())
            }
        }
    }

    /// The number of volume `id`.
    #[must_use]
    pub fn number_of(&self, id: VolumeId) -> Option<VolumeNumber> {
        self.0.core().number_of(id)
    }

    /// Blocks that a volume has.
    #[must_use]
    pub fn blocks(&self, volume: VolumeNumber) -> Option<u64> {
        self.0.core().volumes.get(&volume).map(|volume| blocks_of(volume.size_bytes))
    }
}
