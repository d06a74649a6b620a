//! The control state as the NVMe/TCP target sees it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ashlar_cluster::state::{self, State};
use ashlar_config::Nvmeof;
use ashlar_env::units::VolumeId;
use ashlar_env::volume::VolumeInfo;
use ashlar_nvmeof::view::{Access, AnaState, Namespace, Port, Subsystem, Targets};

/// The targets of `state`, with the volumes that are open.
pub(crate) fn targets(
    state: &State,
    volumes: &BTreeMap<VolumeId, VolumeInfo>,
    ports: &[Port],
    referrals: &[SocketAddr],
) -> Targets {
    let subsystems = state.targets().values().map(|target| {
        let namespaces = target.namespaces.iter().filter_map(|(&nsid, id)| {
            let volume = *volumes.get(&VolumeId(id.0))?;
            let group = state.volumes().get(id)?.group();
            let ana_group = state.groups().get(&group)?.ana_group_id;
            Some((nsid, Namespace { volume, ana_group }))
        });
        let groups = target.namespaces.values().filter_map(|id| {
            let group = state.volumes().get(id)?.group();
            let number = state.groups().get(&group)?.ana_group_id;
            Some((number, ana_state(target.ana.get(&group).copied().unwrap_or_default())))
        });
        let access = if target.access.any_host {
            Access::AnyHost
        } else {
            let allowed = target.access.hosts.iter().filter_map(|name| state.hosts().get(name));
            Access::Hosts(allowed.filter_map(|host| Some(host.nqn.as_ref()?.to_string())).collect())
        };
        let subsystem = Subsystem {
            serial: target.serial.clone(),
            access,
            listen: target.listen.clone(),
            namespaces: namespaces.collect(),
            ana_groups: groups.collect(),
        };
        (target.nqn.to_string(), subsystem)
    });
    Targets { subsystems: subsystems.collect(), ports: ports.to_vec(), referrals: referrals.to_vec() }
}

/// The ports of a node that listens on `bound` for I/O. Ports for discovery only are not among them: the hub serves
/// volumes at these ports alone, and discovery everywhere.
pub(crate) fn ports(bound: &[SocketAddr], nvmeof: &Nvmeof) -> Vec<Port> {
    let port = |(at, &listen): (usize, &SocketAddr)| Port {
        id: at as u16 + 1,
        listen,
        advertise: super::advertised(&nvmeof.advertise, at, listen),
    };
    bound.iter().enumerate().map(port).collect()
}

fn ana_state(state: state::AnaState) -> AnaState {
    match state {
        state::AnaState::Optimized => AnaState::Optimized,
        state::AnaState::NonOptimized => AnaState::NonOptimized,
        state::AnaState::Inaccessible => AnaState::Inaccessible,
        state::AnaState::PersistentLoss => AnaState::PersistentLoss,
        state::AnaState::Change => AnaState::Change,
    }
}
