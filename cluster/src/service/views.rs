//! Replies made of the state and of what goes on in the node.

use super::{Live, LiveTarget};
use crate::api::{
    AttachmentView, CapacityView, ChapMode, ControllerView, CountsView, GroupView, HostView, NamespaceView,
    NodeView, Phase, SessionView, StatusView, TargetView, VolumeView,
};
use crate::state::{Host, State, Target, Volume};

/// The reply about one volume.
pub fn volume_view(state: &State, live: &Live, volume: &Volume) -> VolumeView {
    let attached = state.attachments(volume.id);
    let group = &state.groups()[&volume.group()];
    VolumeView {
        id: volume.id.0,
        name: volume.name.to_string(),
        group: volume.group().to_string(),
        size_bytes: volume.size_bytes,
        block_size_bytes: volume.block_size_bytes,
        backing: volume.backing.clone(),
        read_only: volume.read_only,
        created_ms: volume.created_ms,
        origin: volume.origin.map(|origin| {
            let (name, snapshot) = (volume.group(), &group.snapshots[&origin.snapshot]);
            format!("{name}@{}", snapshot.name)
        }),
        snapshots: group.snapshots_of(volume.id).count() as u64,
        space: live.storage.volumes.get(&volume.id).copied().unwrap_or_default(),
        attached: attached
            .into_iter()
            .map(|(target, nsid)| AttachmentView { target: target.to_string(), nsid })
            .collect(),
        io: live.io.get(&volume.id).copied(),
        fault: live.faults.get(&volume.id).cloned(),
    }
}

/// The reply about one target.
pub fn target_view(state: &State, live: &Live, target: &Target) -> TargetView {
    let nothing = LiveTarget::default();
    let here = live.targets.get(&target.name).unwrap_or(&nothing);
    let mut namespaces = Vec::with_capacity(target.namespaces.len());
    let mut groups = std::collections::BTreeMap::new();
    for (nsid, id) in &target.namespaces {
        let volume = &state.volumes()[id];
        let (group, name) = (volume.group(), volume.name.to_string());
        namespaces.push(NamespaceView {
            nsid: *nsid,
            volume: name,
            volume_id: id.0,
            size_bytes: volume.size_bytes,
        });
        groups.entry(group.clone()).or_insert_with(|| GroupView {
            ana_group_id: state.groups()[&group].ana_group_id,
            state: target.ana_state(&group),
            group: group.to_string(),
        });
    }
    TargetView {
        id: target.id,
        name: target.name.to_string(),
        nqn: target.nqn.to_string(),
        iqn: target.iqn.to_string(),
        serial: target.serial.clone(),
        namespaces,
        any_host: target.access.any_host,
        hosts: target.access.hosts.iter().map(ToString::to_string).collect(),
        listen: target.listen.iter().copied().collect(),
        nvme_addresses: here.nvme_addresses.clone(),
        iscsi_addresses: here.iscsi_addresses.clone(),
        groups: groups.into_values().collect(),
        created_ms: target.created_ms,
        connections: here.connections,
        controllers: here.controllers.iter().map(|controller| controller_view(state, controller)).collect(),
        sessions: here.sessions.iter().map(|session| session_view(state, session)).collect(),
    }
}

fn controller_view(state: &State, controller: &super::LiveController) -> ControllerView {
    let host = state.hosts().values().find(|host| is_host(host, &controller.host_nqn));
    ControllerView {
        controller_id: controller.controller_id,
        host_nqn: controller.host_nqn.clone(),
        host: host.map(|host| host.name.to_string()),
        io_queues: controller.io_queues,
        age_ms: controller.age_ms,
    }
}

fn session_view(state: &State, session: &super::LiveSession) -> SessionView {
    let host = state.hosts().values().find(|host| is_initiator(host, &session.initiator));
    SessionView {
        tsih: session.tsih,
        isid: session.isid.iter().map(|byte| format!("{byte:02x}")).collect(),
        initiator: session.initiator.clone(),
        host: host.map(|host| host.name.to_string()),
        portal: session.portal,
        age_ms: session.age_ms,
    }
}

/// Initiator names compare without regard to case (RFC 7143, section 4.2.7.1).
fn is_initiator(host: &Host, name: &str) -> bool {
    host.iqn.as_ref().is_some_and(|own| own.as_str().eq_ignore_ascii_case(name))
}

fn is_host(host: &Host, nqn: &str) -> bool {
    host.nqn.as_ref().is_some_and(|own| own.as_str() == nqn)
}

/// The reply about one host.
pub fn host_view(state: &State, live: &Live, host: &Host) -> HostView {
    let controllers = live.targets.values().flat_map(|target| &target.controllers);
    let sessions = live.targets.values().flat_map(|target| &target.sessions);
    HostView {
        id: host.id,
        name: host.name.to_string(),
        nqn: host.nqn.as_ref().map(ToString::to_string),
        iqn: host.iqn.as_ref().map(ToString::to_string),
        targets: state
            .targets()
            .values()
            .filter(|target| target.access.hosts.contains(&host.name))
            .map(|target| target.name.to_string())
            .collect(),
        controllers: controllers.filter(|controller| is_host(host, &controller.host_nqn)).count() as u64,
        chap: match &host.chap {
            None => ChapMode::None,
            Some(chap) if chap.mutual.is_none() => ChapMode::OneWay,
            Some(_) => ChapMode::Mutual,
        },
        sessions: sessions.filter(|session| is_initiator(host, &session.initiator)).count() as u64,
        created_ms: host.created_ms,
    }
}

/// The reply about the node as a whole.
pub fn status_view(state: &State, live: &Live, phase: Phase) -> StatusView {
    let (id, name, created_ms) = match state.node() {
        Some(node) => (node.id, node.name.to_string(), node.created_ms),
        None => (uuid::Uuid::nil(), String::new(), 0),
    };
    StatusView {
        node: NodeView {
            id,
            name,
            version: env!("CARGO_PKG_VERSION").into(),
            phase,
            uptime_ms: live.uptime_ms,
            created_ms,
            reactors: live.reactors,
            nvme_listen: live.nvme_listen.clone(),
            iscsi_listen: live.iscsi_listen.clone(),
            changes: state.applied(),
            state_hash: state.hash().to_string(),
        },
        counts: CountsView {
            volumes: state.volumes().len() as u64,
            snapshots: state.groups().values().map(|group| group.snapshots.len() as u64).sum(),
            devices: state.devices().len() as u64,
            targets: state.targets().len() as u64,
            hosts: state.hosts().len() as u64,
            connections: live.connections,
            controllers: live.controllers,
            sessions: live.sessions,
        },
        capacity: CapacityView {
            // A million volumes of 1 EiB do not fit 64 bits; a sum that is off the scale reads as its end.
            provisioned_bytes: state
                .volumes()
                .values()
                .fold(0, |sum, volume| volume.size_bytes.saturating_add(sum)),
            device_bytes: state.active_devices().map(|device| device.size_bytes).sum(),
            used_bytes: state
                .active_devices()
                .map(|device| live.storage.devices.get(&device.id).and_then(|space| space.used_bytes))
                .sum(),
        },
        attention: attention(state, live),
    }
}

/// What an operator should look at, one sentence each.
fn attention(state: &State, live: &Live) -> Vec<String> {
    let mut attention = live.attention.clone();
    for (id, fault) in &live.faults {
        if let Some(volume) = state.volumes().get(id) {
            attention.push(format!("volume {} cannot be served: {fault}", volume.name));
        }
    }
    for device in state.devices().values() {
        let fault = device.failure.as_ref().or_else(|| live.storage.faults.get(&device.id));
        if let Some(fault) = fault
            && device.is_open()
        {
            attention.push(format!("device {} cannot be used: {fault}", device.path));
        }
    }
    for (name, group) in state.groups() {
        if let Some(bytes) = live.storage.degraded.get(&group.id) {
            let copies = group.policy.copies;
            attention.push(format!(
                "group {name} is degraded: {bytes} bytes of it, and what is written now, are on fewer than {copies} \
                 devices. Bring the missing device back, or add another: `ashlar device add PATH`"
            ));
        }
    }
    for target in state.targets().values() {
        if !target.namespaces.is_empty() && !target.access.any_host && target.access.hosts.is_empty() {
            let name = &target.name;
            attention.push(format!(
                "target {name} lets no host in; `ashlar target allow {name} HOST` changes that"
            ));
        }
    }
    attention
}
