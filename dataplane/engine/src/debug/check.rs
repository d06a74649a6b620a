//! Verifying a stopped store.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_env::buf::{BufPool, MAX_BYTES, PoolPlan};
use ashlar_env::units::VolumeId;
use ashlar_env::{Disk, Env};
use uuid::Uuid;

use super::overlay::Overlay;
use super::scan::{Scanned, scan};
use crate::chunks::{Chunk, ChunkStat, Chunks};
use crate::groups::Groups;
use crate::ids::{ChunkId, GRANULE_BYTES, GroupId, SegmentId, SegmentKind};
use crate::lane::{CheckReport, DamagedBlock, LaneConfig, LaneError};
use crate::store::{ChunkStore, OpenReport};

/// Something that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The device, as it was named to [`check`].
    pub device: Option<String>,
    /// The group.
    pub group: Option<GroupId>,
    /// The volume.
    pub volume: Option<VolumeId>,
    /// The earliest snapshot that holds it; `None` where it is the volume as it is.
    pub snapshot: Option<u32>,
    /// The volume's block of 4 KiB.
    pub block: Option<u64>,
    /// The segment.
    pub segment: Option<u32>,
    /// Where in the segment, in bytes.
    pub byte: Option<u32>,
    /// What is wrong, for people.
    pub what: String,
}

/// What was found on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCheck {
    /// As it was named to [`check`].
    pub path: String,
    /// Its identity.
    pub device: Uuid,
    /// Its slots.
    pub slots: u32,
    /// Chunks in them.
    pub chunks: u64,
    /// Bytes of chunks that were read and verified.
    pub bytes: u64,
    /// Records, batches and checkpoints that are whole.
    pub whole: u64,
}

/// What was found of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCheck {
    /// The group.
    pub group: GroupId,
    /// Whether it can be recovered.
    pub opened: bool,
    /// Its volumes.
    pub volumes: u64,
    /// Its snapshots.
    pub snapshots: u64,
    /// Blocks that volumes and snapshots hold, each once.
    pub blocks: u64,
    /// Pages of their maps.
    pub pages: u64,
    /// Operations in the log since the last checkpoint.
    pub replayed: u64,
}

/// What was found in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCheck {
    /// Device by device.
    pub devices: Vec<DeviceCheck>,
    /// Group by group.
    pub groups: Vec<GroupCheck>,
    /// What is damaged.
    pub damages: Vec<Found>,
    /// What a crash may have left, and harms nobody.
    pub notes: Vec<Found>,
}

impl StoreCheck {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty()
    }

    fn damage(&mut self, device: &str, what: String) {
        self.damages.push(Found { device: Some(device.to_owned()), what, ..Found::default() });
    }
}

/// A chunk in which something is wrong.
struct Flawed {
    device: String,
    id: ChunkId,
    scanned: Scanned,
}

type Stores<E, D> = Vec<(String, ChunkStore<E, Overlay<D>>)>;

/// Verifies the store on `disks`, each with the name it has for people, and changes nothing on them. They should be all
/// that the node has: what lies on a device that is not given is reported as missing. Takes memory for what a recovery
/// would write: about the pages of maps that were changed since the last checkpoint.
pub async fn check<E: Env, D: Disk>(env: &E, disks: Vec<(String, D)>) -> StoreCheck {
    let mut report = StoreCheck::default();
    let mut stores: Stores<E, D> = Vec::new();
    for (path, disk) in disks {
        match ChunkStore::open(env.clone(), Overlay::new(disk)).await {
            Ok(store) => {
                structures(&path, store.report(), &mut report);
                stores.push((path, store));
            }
            Err(error) => report.damage(&path, error.to_string()),
        }
    }
    let mut flawed = Vec::new();
    for (path, store) in &stores {
        chunks(path, store, &mut report, &mut flawed).await;
    }
    let found = groups(env, &stores, &mut report, &flawed).await;
    flaws(flawed, &found, &mut report);
    report
}

/// What opening a store found.
fn structures(path: &str, found: &OpenReport, report: &mut StoreCheck) {
    if let Some(why) = &found.superblock {
        report.damage(
            path,
            format!("one of the two superblocks cannot be read: {why}; the other one is whole"),
        );
    }
    for page in &found.fences_impaired {
        report.damage(path, format!("one copy of fence page {page} cannot be read; the other one is whole"));
    }
    for page in &found.fences_lost {
        report.damage(path, format!("both copies of fence page {page} cannot be read"));
    }
    for slot in &found.slots_impaired {
        report.damage(path, format!("one header of slot {slot} cannot be read; the other one is whole"));
    }
    for (slot, why) in &found.slots_lost {
        report.damage(path, format!("slot {slot} is lost: {why}"));
    }
}

/// Verifies the chunks of a store.
async fn chunks<E: Env, D: Disk>(
    path: &str,
    store: &ChunkStore<E, Overlay<D>>,
    report: &mut StoreCheck,
    flawed: &mut Vec<Flawed>,
) {
    let info = store.info();
    let mut device = DeviceCheck {
        path: path.to_owned(),
        device: info.device,
        slots: info.slots,
        chunks: 0,
        bytes: 0,
        whole: 0,
    };
    for stat in store.list(None) {
        device.chunks += 1;
        let (bytes, unreadable) = read(store, &stat).await;
        device.bytes += bytes.len() as u64;
        let scanned = scan(stat.id, stat.sealed.is_some(), info.align_bytes as usize, &bytes);
        device.whole += scanned.whole;
        let place = |byte: u32, what: String| Found {
            device: Some(path.to_owned()),
            group: Some(stat.id.lane.group),
            segment: Some(stat.id.segment.0),
            byte: Some(byte),
            what,
            ..Found::default()
        };
        report.damages.extend(unreadable.into_iter().map(|(at, why)| place(at, why)));
        if let Some(byte) = scanned.torn {
            let what = "the last checkpoint is not whole: a crash while it was written, or damage";
            report.notes.push(place(byte, what.into()));
        }
        if !scanned.flaws.is_empty() {
            flawed.push(Flawed { device: path.to_owned(), id: stat.id, scanned });
        }
    }
    report.devices.push(device);
}

/// All bytes of a chunk, with zeros where they cannot be read; and where that is.
async fn read<E: Env, D: Disk>(
    store: &ChunkStore<E, Overlay<D>>,
    stat: &ChunkStat,
) -> (Vec<u8>, Vec<(u32, String)>) {
    let info = store.info();
    let len = stat.sealed.map_or(info.chunk_bytes, |seal| seal.length) as usize;
    let pool = BufPool::on_heap(PoolPlan { limits: [1; 5] });
    let (mut bytes, mut unreadable) = (Vec::with_capacity(len), Vec::new());
    let Some(chunk) = store.open(stat.id) else { return (bytes, unreadable) };
    while bytes.len() < len {
        let want = (len - bytes.len()).min(MAX_BYTES);
        match chunk.read(bytes.len() as u32, pool.alloc(want).await).await {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => {
                unreadable.push((bytes.len() as u32, format!("{want} bytes cannot be read: {error}")));
                bytes.resize(bytes.len() + want, 0);
            }
        }
    }
    (bytes, unreadable)
}

/// What recovery and the maps of a group told.
struct Told {
    /// Damaged blocks that some version holds, by segment and byte.
    places: BTreeSet<(SegmentId, u32)>,
    /// All that is not among these is held by nobody.
    complete: bool,
    volumes: BTreeMap<u32, VolumeId>,
}

/// Recovers every group, on top of the devices, and verifies what its maps refer to.
async fn groups<E: Env, D: Disk>(
    env: &E,
    stores: &Stores<E, D>,
    report: &mut StoreCheck,
    flawed: &[Flawed],
) -> BTreeMap<GroupId, Told> {
    let mut told = BTreeMap::new();
    let Some(cluster) = stores.first().map(|(_, store)| store.cluster()) else { return told };
    // Nothing is to be compacted: that would only fill memory.
    let config = LaneConfig { free_part: 0, ..LaneConfig::default() };
    let groups = Groups::new(env.clone(), cluster, config);
    for (path, store) in stores {
        match groups.add(store.clone()).await {
            Ok(added) => {
                for id in added.differing {
                    let what = format!("segment {} is on another device, too, and differs", id.segment.0);
                    report.damage(path, what);
                }
            }
            Err(error) => report.damage(path, error.to_string()),
        }
    }
    for group in groups.found() {
        if is_leftover(&groups, group, report, flawed) {
            let what =
                "it has no checkpoint: what is left of a group that was deleted or never finished".into();
            report.notes.push(Found { group: Some(group), what, ..Found::default() });
            continue;
        }
        let known = one_group(&groups, group, report).await;
        told.insert(group, known);
    }
    told
}

/// Whether the group was about to go or to come: it has no checkpoint, and none can have been lost.
fn is_leftover<E: Env, D: Disk>(
    groups: &Groups<E, Overlay<D>>,
    group: GroupId,
    report: &StoreCheck,
    flawed: &[Flawed],
) -> bool {
    let chunks = groups.pool().list(Some(group));
    let has_one = chunks.iter().any(|stat| stat.id.kind == SegmentKind::Checkpoint);
    let all_there = groups.pool().stores().iter().all(|store| store.lost().is_empty());
    let flawless = flawed.iter().all(|flawed| flawed.id.lane.group != group);
    !has_one && all_there && flawless && report.devices.len() == groups.pool().stores().len()
}

async fn one_group<E: Env, D: Disk>(
    groups: &Groups<E, Overlay<D>>,
    group: GroupId,
    report: &mut StoreCheck,
) -> Told {
    let mut told = Told { places: BTreeSet::new(), complete: false, volumes: BTreeMap::new() };
    let mut checked =
        GroupCheck { group, opened: false, volumes: 0, snapshots: 0, blocks: 0, pages: 0, replayed: 0 };
    let damage = |what: String| Found { group: Some(group), what, ..Found::default() };
    match recovered(groups, group, &mut checked).await {
        Ok((volumes, found)) => {
            told.volumes = volumes;
            told.complete = !found.is_partial;
            told.places = found.blocks_damaged.iter().filter_map(|block| block.place).collect();
            add_check(group, &told, &found, report);
        }
        Err(error) => report.damages.push(damage(format!("the group cannot be recovered: {error}"))),
    }
    report.groups.push(checked);
    told
}

async fn recovered<E: Env, D: Disk>(
    groups: &Groups<E, Overlay<D>>,
    group: GroupId,
    checked: &mut GroupCheck,
) -> Result<(BTreeMap<u32, VolumeId>, CheckReport), LaneError> {
    checked.replayed = groups.open(group).await?.replayed;
    let lane = groups.lane(group).ok_or(LaneError::Closed)?;
    checked.opened = true;
    let before = lane.report();
    checked.volumes = before.volumes.len() as u64;
    checked.snapshots = before.snapshots.len() as u64;
    let found = lane.check().await;
    lane.abandon().await;
    let found = found?;
    (checked.blocks, checked.pages) = (found.blocks, found.pages);
    Ok((before.volumes.iter().map(|volume| (volume.number, volume.id)).collect(), found))
}

/// Takes over what the maps of a group told.
fn add_check(group: GroupId, told: &Told, found: &CheckReport, report: &mut StoreCheck) {
    let blank = || Found { group: Some(group), ..Found::default() };
    for &DamagedBlock { volume, snapshot, block, place } in &found.blocks_damaged {
        let (volume_id, block) = (told.volumes.get(&volume).copied(), Some(block));
        let (segment, byte) = (place.map(|(segment, _)| segment.0), place.map(|(_, byte)| byte));
        let what = match place {
            Some(_) => format!("a block of volume {volume} has a wrong checksum or cannot be read"),
            None => format!("a block of volume {volume} is in no segment"),
        };
        report.damages.push(Found { volume: volume_id, snapshot, block, segment, byte, what, ..blank() });
    }
    let texts = found.damaged.iter().filter(|text| !text.contains(", block "));
    report.damages.extend(texts.map(|text| Found { what: text.clone(), ..blank() }));
    if found.is_partial || !found.damaged.is_empty() {
        return;
    }
    for (segment, counted, found) in &found.miscounted {
        let what = format!("{counted} granules of 64 bytes are counted as live, and {found} are");
        report.damages.push(Found { segment: Some(segment.0), what, ..blank() });
    }
    for (address, counted, found) in &found.miscounted_copies {
        let (segment, byte) = (Some(address.segment.0), Some(address.position * GRANULE_BYTES as u32));
        let what = format!("{counted:?} holders (original, copies) are counted, and {found:?} are");
        report.damages.push(Found { segment, byte, what, ..blank() });
    }
}

/// Takes over what the chunks themselves told, but for what the maps have told already.
fn flaws(flawed: Vec<Flawed>, told: &BTreeMap<GroupId, Told>, report: &mut StoreCheck) {
    for Flawed { device, id, scanned } in flawed {
        let group = id.lane.group;
        let known = told.get(&group);
        for flaw in scanned.flaws {
            let place = (id.segment, flaw.byte);
            if known.is_some_and(|known| known.places.contains(&place)) {
                let same = |found: &&mut Found| {
                    found.group == Some(group)
                        && (found.segment, found.byte) == (Some(place.0.0), Some(place.1))
                };
                report.damages.iter_mut().filter(same).for_each(|found| found.device = Some(device.clone()));
                continue;
            }
            let needed = match known {
                Some(known) if known.complete => "; no volume and no snapshot holds it any more",
                _ => "",
            };
            let volume =
                known.zip(flaw.volume).and_then(|(known, volume)| known.volumes.get(&volume).copied());
            let what = match flaw.volume {
                Some(volume) => format!("{} (volume {volume}){needed}", flaw.what),
                None => flaw.what,
            };
            report.damages.push(Found {
                device: Some(device.clone()),
                group: Some(group),
                volume,
                snapshot: None,
                block: flaw.block,
                segment: Some(id.segment.0),
                byte: Some(flaw.byte),
                what,
            });
        }
    }
}
