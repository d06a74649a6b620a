//! What the control plane is told of the engine.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ashlar_cluster::api::{DeviceSpaceView, ExtentView, SpaceView};
use ashlar_cluster::service::{Diff, DiffQuery, LiveStorage, SnapshotSpace};
use ashlar_cluster::state::{GroupId, State, VolumeId};
use ashlar_engine::chunks::Chunks;
use ashlar_engine::groups::Groups;
use ashlar_engine::ids::GroupId as EngineGroup;
use ashlar_engine::lane::{LaneReport, ScrubDamage, SnapshotNumber, VolumeNumber, VolumeReport};
use ashlar_env::{Clock, Instant, Spawn};
use ashlar_runtime::{Device, ReactorEnv};
use uuid::Uuid;

use super::home::Home;
use crate::node::metrics::SpaceRow;

/// How long what a snapshot alone holds is taken for what it is.
const FRESH: Duration = Duration::from_secs(5);

/// How many times as long as it took to find out what volumes alone hold it is not looked for again.
const REST: u32 = 20;

/// Damages of a group that are told one by one.
const DAMAGES_TOLD: usize = 5;

const BLOCK_BYTES: u64 = ashlar_engine::ids::BLOCK_BYTES as u64;

impl Home {
    /// Space by volume, group and device; drains under way.
    pub fn report(&self) -> LiveStorage {
        let mut live = LiveStorage::default();
        for (group, lane) in self.groups.reports() {
            add_group(&mut live, group, &lane, &self.shares);
        }
        self.shares.refresh(self.env(), &self.groups);
        for store in self.groups.pool().stores() {
            let info = store.info();
            let slot = u64::from(info.chunk_bytes);
            let (free, slots) = (u64::from(info.free) * slot, u64::from(info.slots) * slot);
            // What is kept back for checkpoints and compaction is neither used nor free for hosts.
            let kept = u64::from(store.free_with_reserve()) * slot;
            let space =
                DeviceSpaceView { used_bytes: Some(slots.saturating_sub(kept)), free_bytes: Some(free) };
            live.devices.insert(info.device, space);
            if let Some(why) = store.failure() {
                live.faults.insert(info.device, why);
            }
        }
        live.operations = self.drains.borrow().clone();
        for (group, copies) in self.groups.copies() {
            if copies.segments_short > 0 {
                live.degraded.insert(GroupId(group.0), copies.bytes_short);
            }
        }
        live
    }

    /// What scrubbing found damaged, a sentence each: the first few of each group.
    pub fn damages(&self, state: &State) -> Vec<String> {
        let mut sentences = Vec::new();
        for (group, lane) in self.groups.reports() {
            let found = &lane.scrub.damages;
            sentences.extend(found.iter().take(DAMAGES_TOLD).map(|damage| sentence(state, group, damage)));
            if let more @ 1.. = found.len().saturating_sub(DAMAGES_TOLD) {
                sentences.push(format!("group {}: {more} more are damaged", group_name(state, group)));
            }
        }
        sentences
    }

    /// What snapshots of a group hold, and hold alone. That takes a walk through maps, so it is found out now and then.
    pub async fn snapshot_space(
        &self,
        group: GroupId,
        snapshots: &BTreeSet<u64>,
    ) -> BTreeMap<u64, SnapshotSpace> {
        let group = EngineGroup(group.0);
        let Some(report) = self.groups.lane(group).map(|lane| lane.report()) else { return BTreeMap::new() };
        let there: BTreeSet<_> = report.snapshots.iter().map(|snapshot| snapshot.number).collect();
        self.exclusive.borrow_mut().retain(|(of, number), _| *of != group || there.contains(number));
        let mut space = BTreeMap::new();
        for snapshot in report.snapshots.iter().filter(|snapshot| !snapshot.leaving) {
            let number = u64::from(snapshot.number);
            if snapshots.contains(&number) {
                let exclusive_bytes = self.exclusive_bytes(group, snapshot.number).await;
                let shared_bytes = snapshot.stored_bytes.saturating_sub(exclusive_bytes);
                space.insert(number, SnapshotSpace { exclusive_bytes, shared_bytes });
            }
        }
        space
    }

    async fn exclusive_bytes(&self, group: EngineGroup, number: SnapshotNumber) -> u64 {
        let now = self.env().now();
        let known = self.exclusive.borrow().get(&(group, number)).copied();
        match known {
            Some((bytes, at)) if now.since(at) < FRESH => bytes,
            _ => {
                let Some(lane) = self.groups.lane(group) else { return 0 };
                let bytes = lane.exclusive_bytes(number).await.unwrap_or(0);
                self.exclusive.borrow_mut().insert((group, number), (bytes, now));
                bytes
            }
        }
    }
}

fn group_name(state: &State, group: EngineGroup) -> String {
    let known = state.groups().iter().find(|(_, known)| known.id.0 == group.0);
    known.map_or_else(|| format!("{:016x}", group.0), |(name, _)| name.to_string())
}

/// What is damaged, and what to do.
fn sentence(state: &State, group: EngineGroup, damage: &ScrubDamage) -> String {
    let volume = damage.volume.and_then(|id| state.volumes().get(&VolumeId(id.0)));
    let place = format!("segment {}, byte {}", damage.segment.0, damage.byte);
    let what = &damage.what;
    match (volume, damage.block) {
        (Some(volume), Some(block)) => format!(
            "volume {}, block {block} of 4 KiB: {what} ({place}); the rest is served. Write it again, or restore it from \
             a snapshot or a copy",
            volume.name
        ),
        _ => format!("group {}: {what} ({place})", group_name(state, group)),
    }
}

/// What volumes share with snapshots, clones and copies, as it was found out last: that may take a walk through maps, so it is done beside, when somebody
/// has asked, and rests for some time after one that took long.
#[derive(Clone, Default)]
pub(super) struct Shares(Rc<Known>);

#[derive(Default)]
struct Known {
    bytes: RefCell<BTreeMap<(EngineGroup, VolumeNumber), u64>>,
    /// Not looked for again before this time; `None` while it is being looked for.
    again: Cell<Option<Instant>>,
    begun: Cell<bool>,
}

impl Shares {
    /// Of what a volume stores, in bytes; `None` where it is not known yet.
    fn of(&self, group: EngineGroup, volume: &VolumeReport) -> Option<u64> {
        if !volume.may_share {
            return Some(0);
        }
        self.0.bytes.borrow().get(&(group, volume.number)).map(|shared| volume.stored_bytes.min(*shared))
    }

    fn refresh(&self, env: &ReactorEnv, groups: &Groups<ReactorEnv, Device>) {
        let rests = self.0.again.get().is_none_or(|again| env.now() < again);
        if rests && self.0.begun.replace(true) {
            return;
        }
        self.0.again.set(None);
        let (known, clock, groups) = (Rc::clone(&self.0), env.clone(), groups.clone());
        env.spawn(async move {
            let begin = clock.now();
            let mut found = BTreeMap::new();
            for (group, report) in groups.reports() {
                let Some(lane) = groups.lane(group) else { continue };
                for volume in report.volumes {
                    if volume.may_share
                        && let Ok(alone) = lane.exclusive_bytes_of(volume.number).await
                    {
                        found.insert((group, volume.number), volume.stored_bytes.saturating_sub(alone));
                    }
                }
            }
            *known.bytes.borrow_mut() = found;
            let took = clock.now().since(begin);
            known.again.set(Some(clock.now().plus(FRESH.max(took * REST))));
        });
    }
}

fn add_group(live: &mut LiveStorage, group: EngineGroup, lane: &LaneReport, shares: &Shares) {
    let mut alone = Some(0);
    for volume in &lane.volumes {
        let shared = shares.of(group, volume);
        alone = alone.zip(shared).map(|(sum, shared)| sum + volume.stored_bytes - shared);
        live.volumes.insert(VolumeId(volume.id.0), volume_space(volume, shared));
    }
    let logical: u64 = lane.volumes.iter().map(|volume| volume.mapped_bytes).sum();
    let stored: u64 = lane.volumes.iter().map(|volume| volume.stored_bytes).sum();
    live.groups.insert(
        GroupId(group.0),
        SpaceView {
            logical_bytes: Some(logical),
            stored_bytes: Some(alone.unwrap_or(stored)),
            // All that lives and is no volume's alone: shared by several, of snapshots, and the maps.
            shared_bytes: alone.map(|alone| lane.live_bytes.saturating_sub(alone)),
            compressed_bytes: Some(logical.saturating_sub(stored)),
            physical_bytes: Some(lane.physical_bytes),
        },
    );
}

/// `shared`: what of it others hold as well, once that is known.
fn volume_space(volume: &VolumeReport, shared: Option<u64>) -> SpaceView {
    SpaceView {
        logical_bytes: Some(volume.mapped_bytes),
        stored_bytes: Some(volume.stored_bytes - shared.unwrap_or(0)),
        shared_bytes: shared,
        compressed_bytes: Some(volume.mapped_bytes.saturating_sub(volume.stored_bytes)),
        physical_bytes: None,
    }
}

/// Space by device, group and volume, for metrics.
pub(super) fn space_rows(groups: &Groups<ReactorEnv, Device>) -> Vec<SpaceRow> {
    let mut rows = Vec::new();
    let mut add = |kind: &'static str, identity: &str, values: &[(&'static str, u64)]| {
        let row = |(name, bytes): &(&'static str, u64)| SpaceRow {
            name,
            label: (kind, identity.to_owned()),
            bytes: *bytes,
        };
        rows.extend(values.iter().map(row));
    };
    for store in groups.pool().stores() {
        let info = store.info();
        let bytes = |slots: u32| u64::from(slots) * u64::from(info.chunk_bytes);
        let kept = bytes(store.free_with_reserve());
        let values = [
            ("ashlar_device_size", bytes(info.slots)),
            ("ashlar_device_used", bytes(info.slots).saturating_sub(kept)),
            ("ashlar_device_free", bytes(info.free)),
        ];
        add("device", &info.device.to_string(), &values);
    }
    for (group, lane) in groups.reports() {
        let logical = lane.volumes.iter().map(|volume| volume.mapped_bytes).sum();
        let values = [
            ("ashlar_group_logical", logical),
            ("ashlar_group_live", lane.live_bytes),
            ("ashlar_group_physical", lane.physical_bytes),
        ];
        add("group", &format!("{:016x}", group.0), &values);
        for volume in &lane.volumes {
            let values = [
                ("ashlar_volume_size", volume.size_bytes),
                ("ashlar_volume_logical", volume.mapped_bytes),
                ("ashlar_volume_stored", volume.stored_bytes),
            ];
            add("volume", &volume.id.0.to_string(), &values);
        }
    }
    rows
}

/// The part of a difference that was asked for.
pub(super) fn page_of(ranges: &[(u64, u64)], query: &DiffQuery) -> Diff {
    let mut diff = Diff::default();
    for &(first, count) in ranges {
        let (start, end) = (first * BLOCK_BYTES, (first + count) * BLOCK_BYTES);
        if end <= query.offset_bytes {
            continue;
        }
        if diff.extents.len() >= query.extents_max {
            diff.next_offset_bytes = Some(start);
            break;
        }
        let offset_bytes = start.max(query.offset_bytes);
        diff.extents.push(ExtentView { offset_bytes, length_bytes: end - offset_bytes });
    }
    diff
}

/// Faults of devices that could not be opened.
pub(super) type Faults = BTreeMap<Uuid, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_comes_in_pages() {
        let ranges = [(0, 2), (5, 1), (9, 3)];
        let query = |offset_bytes, extents_max| DiffQuery {
            group: GroupId(1),
            volume: VolumeId(Uuid::nil()),
            from: 1,
            to: None,
            offset_bytes,
            extents_max,
        };
        let first = page_of(&ranges, &query(0, 2));
        assert_eq!(first.extents.len(), 2);
        assert_eq!(first.next_offset_bytes, Some(9 * 4096));
        let rest = page_of(&ranges, &query(10 * 4096, 2));
        assert_eq!(rest.extents, vec![ExtentView { offset_bytes: 10 * 4096, length_bytes: 2 * 4096 }]);
        assert_eq!(rest.next_offset_bytes, None);
    }
}
