//! The control state as the iSCSI target sees it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ashlar_cluster::state::{self, ChapSecret, Iqn, State};
use ashlar_config::Iscsi;
use ashlar_env::units::VolumeId;
use ashlar_env::volume::VolumeInfo;
use ashlar_iscsi::view::{Access, AluaState, Credentials, Host, Portal, Secret, Target, Targets, Unit};

/// The targets of `state`, with the volumes that are open.
pub(crate) fn targets(
    state: &State,
    volumes: &BTreeMap<VolumeId, VolumeInfo>,
    portals: &[Portal],
) -> Targets {
    let targets = state.targets().values().map(|target| {
        // The state keeps iSCSI names in lower case.
        (target.iqn.to_string(), self::target(state, volumes, target))
    });
    Targets { targets: targets.collect(), portals: portals.to_vec() }
}

fn target(state: &State, volumes: &BTreeMap<VolumeId, VolumeInfo>, target: &state::Target) -> Target {
    let numbers = port_group_numbers(state, target);
    let units = target.namespaces.iter().filter_map(|(&number, id)| {
        let volume = *volumes.get(&VolumeId(id.0))?;
        let stored = state.volumes().get(id)?;
        let port_group = *numbers.get(&state.groups().get(&stored.group())?.ana_group_id)?;
        Some((u16::try_from(number).ok()?, Unit { volume, name: stored.name.to_string(), port_group }))
    });
    let port_groups = target.namespaces.values().filter_map(|id| {
        let group = state.volumes().get(id)?.group();
        let number = *numbers.get(&state.groups().get(&group)?.ana_group_id)?;
        Some((number, alua_state(target.ana_state(&group))))
    });
    Target {
        name: target.iqn.to_string(),
        alias: target.name.to_string(),
        access: access(state, target),
        listen: target.listen.clone(),
        units: units.collect(),
        port_groups: port_groups.collect(),
    }
}

/// The target port group of each ANA group of `target`: the same number where it has 16 bits, which is so until there
/// are 65535 groups; beyond, the number folded into 16 bits, or the next that no other group of the target has.
fn port_group_numbers(state: &State, target: &state::Target) -> BTreeMap<u32, u16> {
    let groups = target.namespaces.values().filter_map(|id| state.volumes().get(id));
    let mut ids: Vec<u32> =
        groups.filter_map(|volume| Some(state.groups().get(&volume.group())?.ana_group_id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut numbers = BTreeMap::new();
    let mut taken = std::collections::BTreeSet::new();
    for id in ids {
        let mut number = fold(id);
        while !taken.insert(number) {
            number = fold(u32::from(number) + 1);
        }
        numbers.insert(id, number);
    }
    numbers
}

/// `id` from 1 on, in the range from 1 to 65535.
fn fold(id: u32) -> u16 {
    (id.saturating_sub(1) % u32::from(u16::MAX)) as u16 + 1
}

fn access(state: &State, target: &state::Target) -> Access {
    if target.access.any_host {
        return Access::AnyHost;
    }
    let hosts = state.hosts_of(target).filter_map(|host| {
        let iqn = host.iqn.as_ref()?;
        let credentials = |name: &Iqn, secret: &ChapSecret| Credentials {
            user: name.to_string(),
            secret: Secret::new(secret.expose().as_bytes()),
        };
        let chap = host.chap.as_ref();
        let asked = Host {
            chap: chap.map(|chap| credentials(iqn, &chap.secret)),
            mutual: chap.and_then(|chap| Some(credentials(&target.iqn, chap.mutual.as_ref()?))),
        };
        Some((iqn.to_string(), asked))
    });
    Access::Hosts(hosts.collect())
}

/// The portals of a node that listens on `bound`. Each is a portal group of its own, numbered in the order of the
/// configuration: hosts remember the numbers.
pub(crate) fn portals(bound: &[SocketAddr], iscsi: &Iscsi) -> Vec<Portal> {
    let portal = |(at, &listen): (usize, &SocketAddr)| Portal {
        tag: at as u16 + 1,
        listen,
        advertise: super::advertised(&iscsi.advertise, at, listen),
    };
    bound.iter().enumerate().map(portal).collect()
}

fn alua_state(state: state::AnaState) -> AluaState {
    match state {
        state::AnaState::Optimized => AluaState::Optimized,
        state::AnaState::NonOptimized => AluaState::NonOptimized,
        // SCSI has no state for a loss that is final.
        state::AnaState::Inaccessible | state::AnaState::PersistentLoss => AluaState::Unavailable,
        state::AnaState::Change => AluaState::Transitioning,
    }
}

#[cfg(test)]
mod tests {
    use ashlar_cluster::state::{
        Action, AnaState, Backing, Chap, Command, Name, NewHost, NewTarget, NewVolume, VolumeName,
    };
    use ashlar_env::units::BlockSize;
    use uuid::Uuid;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn state_of(actions: Vec<Action>) -> State {
        let mut state = State::default();
        for action in actions {
            state.apply(&Command { time_ms: 0, action }).unwrap();
        }
        state
    }

    fn volume(text: &str, id: u128) -> Action {
        Action::CreateVolume(NewVolume {
            id: state::VolumeId(Uuid::from_u128(id)),
            name: VolumeName::parse(text).unwrap(),
            backing: Backing::Null,
            size_bytes: Some(1 << 20),
            block_size_bytes: None,
            read_only: false,
            compression: None,
            copies: None,
        })
    }

    fn host(text: &str, id: u128, chap: Option<Chap>) -> Action {
        let iqn = Iqn::parse(&format!("iqn.2014-08.org.example:{text}")).unwrap();
        Action::CreateHost(NewHost {
            id: Uuid::from_u128(id),
            name: name(text),
            nqn: None,
            iqn: Some(iqn),
            chap,
        })
    }

    fn bench() -> State {
        let secret = |text: &str| ChapSecret::parse(text).unwrap();
        let chap = Chap { secret: secret("of-the-host-1"), mutual: Some(secret("of-the-target-1")) };
        let attach = |volume: &str, nsid| Action::AttachVolume {
            target: name("Vm"),
            volume: VolumeName::parse(volume).unwrap(),
            nsid: Some(nsid),
        };
        let target = NewTarget {
            id: Uuid::from_u128(9),
            name: name("Vm"),
            nqn: None,
            iqn: None,
            listen: Default::default(),
            any_host: false,
        };
        state_of(vec![
            volume("a", 1),
            volume("b/x", 2),
            Action::CreateTarget(target),
            attach("a", 3),
            attach("b/x", 1),
            Action::SetAnaState { target: name("Vm"), group: name("b"), state: AnaState::PersistentLoss },
            host("one", 11, None),
            host("two", 12, Some(chap)),
            host("three", 13, None),
            Action::AllowHost { target: name("Vm"), host: name("one") },
            Action::AllowHost { target: name("Vm"), host: name("two") },
        ])
    }

    fn infos(state: &State) -> BTreeMap<VolumeId, VolumeInfo> {
        let info = |id: &state::VolumeId| {
            let null = ashlar_volume::Null::new(VolumeId(id.0), BlockSize::B512, 2048).unwrap();
            (VolumeId(id.0), ashlar_env::Volume::info(&null))
        };
        state.volumes().keys().map(info).collect()
    }

    #[test]
    fn a_target_is_what_the_state_says() {
        let state = bench();
        let listen: SocketAddr = "127.0.0.1:3260".parse().unwrap();
        let iscsi = Iscsi { listen: vec![listen], advertise: Vec::new(), ..Iscsi::default() };
        let targets = targets(&state, &infos(&state), &portals(&[listen], &iscsi));
        assert_eq!(targets.portals, [Portal { tag: 1, listen, advertise: None }]);
        let target = &targets.targets["iqn.2026-11.io.ashlar:vm"];
        assert_eq!((target.name.as_str(), target.alias.as_str()), ("iqn.2026-11.io.ashlar:vm", "Vm"));
        let units: Vec<_> =
            target.units.iter().map(|(lun, unit)| (*lun, unit.name.as_str(), unit.port_group)).collect();
        assert_eq!(units, [(1, "b/x", 2), (3, "a", 1)]);
        let groups = [(1, AluaState::Optimized), (2, AluaState::Unavailable)];
        assert_eq!(target.port_groups, groups.into());
        // A volume that is not open is no logical unit, as it is no namespace.
        let none = self::targets(&state, &BTreeMap::new(), &targets.portals);
        assert!(none.targets["iqn.2026-11.io.ashlar:vm"].units.is_empty());
    }

    #[test]
    fn hosts_come_with_what_is_asked_of_them() {
        let state = bench();
        let view = targets(&state, &BTreeMap::new(), &[]);
        let target = &view.targets["iqn.2026-11.io.ashlar:vm"];
        let Access::Hosts(hosts) = &target.access else { panic!("{:?}", target.access) };
        assert_eq!(
            hosts.keys().collect::<Vec<_>>(),
            ["iqn.2014-08.org.example:one", "iqn.2014-08.org.example:two"]
        );
        assert_eq!(hosts["iqn.2014-08.org.example:one"], Host::default());
        let two = &hosts["iqn.2014-08.org.example:two"];
        let (chap, mutual) = (two.chap.as_ref().unwrap(), two.mutual.as_ref().unwrap());
        assert_eq!(
            (chap.user.as_str(), chap.secret.bytes()),
            ("iqn.2014-08.org.example:two", &b"of-the-host-1"[..])
        );
        assert_eq!(
            (mutual.user.as_str(), mutual.secret.bytes()),
            ("iqn.2026-11.io.ashlar:vm", &b"of-the-target-1"[..])
        );
        let shown = format!("{view:?}");
        assert!(!shown.contains("of-the-host") && !shown.contains("of-the-target"), "{shown}");
    }

    #[test]
    fn large_group_numbers_are_folded_apart() {
        assert_eq!((fold(1), fold(65535), fold(65536), fold(u32::MAX)), (1, 65535, 1, 65535));
    }

    #[test]
    fn portals_are_numbered_in_order() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let bound = [address("10.0.0.1:3260"), address("10.1.0.1:3261")];
        let iscsi = Iscsi { advertise: vec![address("192.0.2.1:3261")], ..Iscsi::default() };
        let portals = portals(&bound, &iscsi);
        let seen: Vec<_> = portals.iter().map(|portal| (portal.tag, portal.advertise)).collect();
        assert_eq!(seen, [(1, Some(iscsi.advertise[0])), (2, Some(iscsi.advertise[0]))]);
    }
}
