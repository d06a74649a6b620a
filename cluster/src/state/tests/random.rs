//! Random sequences of commands over a few names, so that they meet each other often.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::state::testing::*;
use crate::state::*;

fn volume_names() -> impl Strategy<Value = VolumeName> {
    prop::sample::select(vec!["a", "b", "a/x", "a/y", "b/x", "c-1"]).prop_map(volume_name)
}

fn target_names() -> impl Strategy<Value = Name> {
    prop::sample::select(vec!["t", "T", "u"]).prop_map(name)
}

fn host_names() -> impl Strategy<Value = Name> {
    prop::sample::select(vec!["h", "i", "j"]).prop_map(name)
}

fn groups() -> impl Strategy<Value = Name> {
    prop::sample::select(vec!["a", "b", "c-1", "none"]).prop_map(name)
}

/// Identities come from a small set as well; a clash must be refused.
fn ids() -> impl Strategy<Value = Uuid> {
    (1u128..12).prop_map(|n| Uuid::from_u128(n << 100))
}

fn new_volumes() -> impl Strategy<Value = Action> {
    let backings = prop_oneof![
        Just(Backing::Memory),
        Just(Backing::Null),
        any::<bool>().prop_map(|thick| Backing::Log { thick }),
        Just(Backing::Log { thick: false }),
        (0..3).prop_map(|i| Backing::Image { path: format!("/img{i}") }),
    ];
    let sizes = prop::option::of(prop::sample::select(vec![0u64, 512, 4096, 1 << 30, 1 << 61, 1000]));
    let blocks = prop::option::of(prop::sample::select(vec![512u32, 4096, 520]));
    let compressions = prop_oneof![3 => Just(None), 1 => compressions().prop_map(Some)];
    let copies = prop_oneof![3 => Just(None), 1 => (0u8..5).prop_map(Some)];
    (ids(), volume_names(), backings, sizes, blocks, any::<bool>(), compressions, copies).prop_map(
        |(id, name, backing, size_bytes, block_size_bytes, read_only, compression, copies)| {
            Action::CreateVolume(NewVolume {
                id: VolumeId(id),
                name,
                backing,
                size_bytes,
                block_size_bytes,
                read_only,
                compression,
                copies,
            })
        },
    )
}

fn compressions() -> impl Strategy<Value = Compression> {
    prop::sample::select(vec![Compression::None, Compression::Lz4])
}

/// Paths of devices meet those of images.
fn new_devices() -> impl Strategy<Value = Action> {
    let sizes = prop::option::of(prop::sample::select(vec![1u64 << 40, 1 << 30, 4096]));
    (ids(), 0..4, sizes).prop_map(|(id, i, size_bytes)| {
        Action::AddDevice(NewDevice { id, path: format!("/img{i}"), size_bytes, force: false })
    })
}

fn lane_notes() -> impl Strategy<Value = LaneNote> {
    let seal = |epoch| LaneSeal { epoch, length: 4096, without: 1, next: 9, next_shards: 2 };
    prop_oneof![
        3 => (1u64..5, 1u32..9)
            .prop_map(move |(epoch, segment)| LaneNote::Seal { segment, seal: seal(epoch) }),
        2 => (1u64..5, 1u64..9, 1u32..9)
            .prop_map(|(epoch, checkpoint, begins)| LaneNote::Checkpoint { epoch, checkpoint, begins }),
        1 => Just(LaneNote::Forget),
    ]
}

fn snapshots() -> impl Strategy<Value = SnapshotName> {
    (groups(), prop::sample::select(vec!["s", "t"]))
        .prop_map(|(group, snapshot)| SnapshotName { group, snapshot: name(snapshot) })
}

/// What concerns the engine.
fn storage_actions() -> impl Strategy<Value = Action> {
    let ends = (1u64..8, prop::option::of(Just("stopped".to_owned())));
    let sources =
        (snapshots(), prop::option::of(prop::sample::select(vec!["a", "b", "x", "y"]).prop_map(name)));
    let clones = (ids(), sources, volume_names());
    prop_oneof![
        4 => new_devices(),
        2 => ids().prop_map(|device| Action::DrainDevice { device }),
        1 => ids().prop_map(|device| Action::FailDevice { device, why: "it burns".into() }),
        3 => (ids(), any::<bool>()).prop_map(|(device, force)| Action::RemoveDevice { device, force }),
        2 => ends.prop_map(|(operation, failure)| Action::FinishOperation { operation, failure }),
        1 => Just(Action::RebuildCopies),
        1 => (0u64..3, lane_notes())
            .prop_map(|(group, note)| Action::NoteLane { group: GroupId(group), lane: 0, note }),
        4 => (snapshots(), 1u64..30)
            .prop_map(|(snapshot, id)| Action::CreateSnapshot { snapshot, id: Some(id) }),
        2 => snapshots().prop_map(|snapshot| Action::DeleteSnapshot { snapshot }),
        2 => (snapshots(), any::<bool>())
            .prop_map(|(snapshot, force)| Action::RestoreSnapshot { snapshot, force }),
        4 => clones.prop_map(|(id, (snapshot, volume), name)| {
            Action::CloneVolume(NewClone {
                id: VolumeId(id),
                from: SnapshotVolumeName { snapshot, volume },
                name,
            })
        }),
        1 => (groups(), prop::option::of(compressions()))
            .prop_map(|(group, compression)| Action::SetGroupPolicy { group, compression }),
    ]
}

fn new_hosts() -> impl Strategy<Value = Action> {
    let number = || prop::option::of(0..3);
    (ids(), host_names(), number(), number()).prop_map(|(id, name, nqn, iqn)| {
        let nqn = nqn.map(|i| Nqn::parse(&format!("nqn.2014-08.org.example:{i}")).unwrap());
        let iqn = iqn.map(|i| Iqn::parse(&format!("iqn.2014-08.org.example:{i}")).unwrap());
        // Without an IQN it is refused.
        let chap = iqn.is_some() || name.as_str() == "j";
        let chap = chap.then(|| Chap { secret: secret(id.as_u128() as u32), mutual: None });
        Action::CreateHost(NewHost { id, name, nqn, iqn, chap })
    })
}

/// A few secrets, so that those of both directions meet.
fn secret(pick: u32) -> ChapSecret {
    ChapSecret::parse(&format!("secret-number-{}", pick % 3)).unwrap()
}

fn chap_actions() -> impl Strategy<Value = Action> {
    let some = || prop::option::of((0u32..3).prop_map(secret));
    prop_oneof![
        3 => (host_names(), some(), some())
            .prop_map(|(host, secret, mutual)| Action::SetChap { host, secret, mutual }),
        1 => host_names().prop_map(|host| Action::ClearChap { host }),
    ]
}

fn new_targets() -> impl Strategy<Value = Action> {
    (ids(), target_names(), prop::option::of(0..3), any::<bool>()).prop_map(|(id, name, nqn, any_host)| {
        let nqn = nqn.map(|i| Nqn::parse(&format!("nqn.2014-08.org.example:{i}")).unwrap());
        Action::CreateTarget(NewTarget { id, name, nqn, iqn: None, listen: BTreeSet::new(), any_host })
    })
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        14 => storage_actions(),
        6 => new_volumes(),
        2 => new_hosts(),
        2 => new_targets(),
        2 => chap_actions(),
        1 => volume_names().prop_map(|volume| Action::DeleteVolume { volume }),
        1 => (target_names(), any::<bool>()).prop_map(|(target, force)| Action::DeleteTarget { target, force }),
        1 => host_names().prop_map(|host| Action::DeleteHost { host }),
        4 => (target_names(), volume_names(), prop::option::of(0u32..4))
            .prop_map(|(target, volume, nsid)| Action::AttachVolume { target, volume, nsid }),
        1 => (target_names(), volume_names())
            .prop_map(|(target, volume)| Action::DetachVolume { target, volume }),
        2 => (target_names(), host_names()).prop_map(|(target, host)| Action::AllowHost { target, host }),
        1 => (target_names(), host_names()).prop_map(|(target, host)| Action::DenyHost { target, host }),
        1 => (target_names(), any::<bool>())
            .prop_map(|(target, any_host)| Action::SetAnyHost { target, any_host }),
        2 => (target_names(), groups(), prop::sample::select(AnaState::ALL.to_vec()))
            .prop_map(|(target, group, state)| Action::SetAnaState { target, group, state }),
        1 => (volume_names(), volume_names()).prop_map(|(volume, to)| Action::RenameVolume { volume, to }),
        1 => (volume_names(), prop::sample::select(vec![0u64, 512, 4096, 8192, 1000]), any::<bool>()).prop_map(
            |(volume, size_bytes, allow_shrink)| Action::ResizeVolume { volume, size_bytes, allow_shrink }
        ),
        1 => (ids(), 0u64..4, prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(id, generation, blob)| {
            Action::SetReservation { volume: VolumeId(id), generation, blob }
        }),
        1 => (target_names(), 0u16..3).prop_map(|(target, port)| {
            let listen = [core::net::SocketAddr::from(([10, 0, 0, 1], port))].into();
            Action::SetListen { target, listen }
        }),
    ]
}

/// Whether `event` speaks of objects that exist in `state`, or of one that no longer does.
fn event_fits(state: &State, event: &Event) -> bool {
    let target = |name: &Name| state.targets().get(name);
    match event {
        Event::AccessChanged { target: name }
        | Event::TargetCreated { target: name }
        | Event::TargetMoved { target: name } => target(name).is_some(),
        Event::AnaStateChanged { target: name, group, ana_group_id, state: ana } => {
            target(name).unwrap().ana_state(group) == *ana
                && state.groups()[group].ana_group_id == *ana_group_id
        }
        Event::DeviceAdded { device } => state.devices()[device].state == DeviceState::Active,
        Event::DeviceClosed { device } => {
            state.devices().get(device).is_none_or(|device| device.state == DeviceState::Removed)
        }
        Event::DeviceDraining { device, operation } => {
            state.devices()[device].state == DeviceState::Draining
                && state.operations()[operation].is_running()
        }
        Event::DeviceFailed { device } => state.devices()[device].failure.is_some(),
        Event::DeviceForgotten { device } => !state.devices().contains_key(device),
        Event::GroupPolicyChanged { group } => state.groups().contains_key(group),
        Event::LaneNoted { group, lane } => {
            let record = state.lanes().get(group).and_then(|lanes| lanes.get(lane));
            record.is_none_or(|record| record.seals.len() <= LANE_SEALS_MAX && record.epoch > 0)
        }
        Event::RebuildBegan { operation } => {
            state.operations()[operation].kind == OperationKind::RebuildCopies {}
        }
        Event::OperationEnded { operation } => !state.operations()[operation].is_running(),
        Event::SnapshotCreated { group, snapshot } => {
            state.groups()[group].snapshots.last_key_value().unwrap().0 == snapshot
        }
        Event::SnapshotDeleted { group, group_id, snapshot } => {
            let group = &state.groups()[group];
            group.id == *group_id && !group.snapshots.contains_key(snapshot)
        }
        Event::SnapshotRestored { group, snapshot, volumes } => {
            let snapshot = &state.groups()[group].snapshots[snapshot];
            let as_held = |(id, size): (&VolumeId, &u64)| state.volumes()[id].size_bytes == *size;
            snapshot.volumes.iter().all(as_held) && snapshot.volumes.keys().eq(volumes)
        }
        Event::DiscoveryChanged { generation } => state.discovery_generation() == *generation,
        Event::HostChanged { host } => state.hosts()[host].iqn.is_some(),
        Event::HostCreated { host } => state.hosts().contains_key(host),
        Event::HostDeleted { host } => !state.hosts().contains_key(host),
        Event::NamespaceAttached { target: name, nsid, volume } => {
            target(name).unwrap().namespaces.get(nsid) == Some(volume)
        }
        Event::NamespaceDetached { target: name, nsid, .. } => {
            target(name).is_none_or(|target| !target.namespaces.contains_key(nsid))
        }
        Event::NodeNamed { name } => state.node().unwrap().name == *name,
        Event::ReservationSaved { volume, generation } => {
            state.volumes()[volume].reservation.as_ref().unwrap().generation == *generation
        }
        Event::TargetDeleted { target: name, .. } => target(name).is_none(),
        Event::VolumeCreated { volume } => state.volumes().contains_key(volume),
        Event::VolumeDeleted { volume, .. } => !state.volumes().contains_key(&volume.id),
        Event::VolumeRenamed { volume, from } => state.volumes()[volume].name != *from,
        Event::VolumeResized { volume, size_bytes, size_bytes_before, .. } => {
            state.volumes()[volume].size_bytes == *size_bytes && size_bytes != size_bytes_before
        }
    }
}

/// The `pick`th of what there is, in turn; nothing if there is nothing.
fn nth<T>(pick: usize, mut all: impl Iterator<Item = T> + Clone) -> Option<T> {
    let count = all.clone().count();
    all.nth(pick % count.max(1))
}

fn some_snapshot(state: &State, pick: usize) -> Option<SnapshotName> {
    let all = state.groups().iter().flat_map(|(group, of)| {
        let name =
            |snapshot: &Snapshot| SnapshotName { group: group.clone(), snapshot: snapshot.name.clone() };
        of.snapshots.values().map(name).collect::<Vec<_>>()
    });
    nth(pick, all.collect::<Vec<_>>().into_iter())
}

/// Names what exists instead of what was drawn, and fresh identities instead of small ones, for three draws of four:
/// without, sequences would hardly get anywhere.
fn steer(state: &State, action: &mut Action, pick: usize) -> Option<()> {
    if pick.is_multiple_of(4) {
        return None;
    }
    let fresh = Uuid::from_u128(u128::from(state.applied()) + 1000);
    let a_volume = || nth(pick, state.volume_names().keys()).cloned();
    let a_target = || nth(pick, state.targets().keys()).cloned();
    let a_host = || nth(pick / 7, state.hosts().keys()).cloned();
    match action {
        Action::AddDevice(new) => {
            (new.id, new.size_bytes) = (fresh, Some(1 << 40));
        }
        Action::CreateVolume(new) => {
            (new.id, new.size_bytes, new.block_size_bytes) = (VolumeId(fresh), Some(1 << 20), None);
            new.compression = None;
            if pick % 8 < 6 && state.active_devices().next().is_some() {
                new.backing = Backing::Log { thick: false };
            }
        }
        Action::CreateHost(new) => new.id = fresh,
        Action::CreateTarget(new) => new.id = fresh,
        Action::DrainDevice { device } | Action::FailDevice { device, .. } => {
            *device = *nth(pick, state.devices().keys())?;
        }
        Action::RemoveDevice { device, .. } => {
            let over = |device: &&Device| device.state != DeviceState::Active;
            *device = nth(pick, state.devices().values().filter(over))?.id;
        }
        Action::FinishOperation { operation, .. } => {
            *operation = nth(pick, state.operations().values().filter(|o| o.is_running()))?.id;
        }
        Action::CreateSnapshot { snapshot, id } => {
            snapshot.group = nth(pick, state.log_volumes().collect::<Vec<_>>().into_iter())?.group();
            let last = state.groups()[&snapshot.group].snapshots.last_key_value();
            *id = Some(last.map_or(0, |(last, _)| *last) + 1 + pick as u64 % 3);
        }
        Action::DeleteSnapshot { snapshot } | Action::RestoreSnapshot { snapshot, .. } => {
            *snapshot = some_snapshot(state, pick)?;
        }
        Action::CloneVolume(new) => {
            new.id = VolumeId(fresh);
            let name = some_snapshot(state, pick)?;
            let held = &state.groups()[&name.group].snapshot(&name.snapshot)?.volumes;
            let volume = &state.volumes()[nth(pick / 5, held.keys())?].name;
            new.from.volume = Some(Name::parse(in_group(volume)).unwrap());
            new.name = volume_name(&format!("{}/{}", name.group, ["x", "y", "z"][pick / 3 % 3]));
            new.from.snapshot = name;
        }
        Action::SetGroupPolicy { group, compression } => {
            *group = nth(pick, state.log_volumes().collect::<Vec<_>>().into_iter())?.group();
            *compression = Some([Compression::Lz4, Compression::None][pick / 4 % 2]);
        }
        Action::DeleteVolume { volume } | Action::ResizeVolume { volume, .. } => *volume = a_volume()?,
        Action::RenameVolume { volume, .. } => *volume = a_volume()?,
        Action::AttachVolume { target, volume, nsid } => {
            (*target, *volume, *nsid) = (a_target()?, a_volume()?, None);
        }
        Action::DetachVolume { target, volume } => {
            let attached = state.targets().values().filter(|target| !target.namespaces.is_empty());
            let found = nth(pick, attached)?;
            *target = found.name.clone();
            *volume = state.volumes()[nth(pick / 5, found.namespaces.values())?].name.clone();
        }
        Action::SetChap { host, .. } | Action::ClearChap { host } => *host = a_host()?,
        Action::AllowHost { target, host } => (*target, *host) = (a_target()?, a_host()?),
        Action::DenyHost { target, host } => {
            let found = nth(pick, state.targets().values().filter(|target| !target.access.hosts.is_empty()))?;
            *target = found.name.clone();
            *host = nth(pick / 5, found.access.hosts.iter())?.clone();
        }
        Action::SetAnyHost { target, .. } | Action::SetListen { target, .. } => *target = a_target()?,
        Action::SetAnaState { target, group, .. } => {
            let attached = state.targets().values().filter(|target| !target.namespaces.is_empty());
            let found = nth(pick, attached)?;
            *target = found.name.clone();
            *group = state.volumes()[nth(pick / 5, found.namespaces.values())?].group();
        }
        Action::SetReservation { volume, .. } => *volume = state.volume_names()[&a_volume()?],
        _ => {}
    }
    Some(())
}

fn steered() -> impl Strategy<Value = Vec<(Action, usize)>> {
    prop::collection::vec((actions(), 0..10_000usize), 1..120)
}

/// Every action is carried out often enough in the sequences that are drawn.
#[test]
fn sequences_get_somewhere() {
    let mut runner = TestRunner::deterministic();
    let mut carried_out = BTreeMap::<&str, u32>::new();
    for _ in 0..128 {
        let mut state = State::default();
        for (mut action, pick) in steered().new_tree(&mut runner).unwrap().current() {
            steer(&state, &mut action, pick);
            let label = action.label();
            let changed = state.apply(&command(action)).is_ok_and(|events| !events.is_empty());
            *carried_out.entry(label).or_default() += u32::from(changed);
        }
    }
    let rare: Vec<_> = carried_out.iter().filter(|(_, count)| **count < 10).collect();
    assert!(rare.is_empty() && carried_out.len() == 30, "{rare:?} of {carried_out:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_command(actions in steered()) {
        let mut state = State::default();
        let mut twin = State::default();
        for (time_ms, (mut action, pick)) in actions.into_iter().enumerate() {
            steer(&state, &mut action, pick);
            let command = Command { time_ms: time_ms as u64, action };
            let before = state.clone();
            let outcome = state.apply(&command);
            prop_assert_eq!(state.check(), Ok(()), "after {:?}", command);
            match &outcome {
                Ok(events) => {
                    prop_assert_eq!(state.applied(), before.applied() + 1);
                    for event in events {
                        prop_assert!(event_fits(&state, event), "{:?} of {:?}", event, command);
                    }
                    if events.is_empty() {
                        // Nothing changed but the count, so the service need not keep it.
                        let mut counted = before.clone();
                        counted.applied += 1;
                        prop_assert_eq!(&state, &counted);
                    }
                }
                Err(_) => prop_assert_eq!(&state, &before),
            }
            // A machine that restarts from the serialized form now and then goes the same way.
            let twin_outcome = twin.apply(&command);
            prop_assert_eq!(twin_outcome, outcome);
            if pick.is_multiple_of(8) {
                twin = State::decode(&twin.encode()).unwrap();
                prop_assert_eq!(twin.hash(), state.hash());
            }
        }
    }
}
