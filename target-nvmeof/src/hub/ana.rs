//! ANA groups and the namespaces in them, as hosts see them (Base, section 8.1).

use std::collections::BTreeMap;

use zerocopy::IntoBytes;

use crate::view::{AnaState, Namespace, Subsystem};
use crate::wire::log::{AnaGroup, AnaHeader};

use super::config::SubsystemState;
use super::{ANA_GROUPS_MAX, NAMESPACES_MAX};

/// Whether a namespace lies within what Identify Controller promises.
pub(super) fn is_shown(nsid: u32, namespace: &Namespace) -> bool {
    (1..=NAMESPACES_MAX).contains(&nsid) && (1..=ANA_GROUPS_MAX).contains(&namespace.ana_group)
}

/// The namespaces hosts see, ascending.
pub(super) fn shown(subsystem: &Subsystem) -> impl Iterator<Item = (u32, &Namespace)> {
    (subsystem.namespaces.iter().map(|(&nsid, namespace)| (nsid, namespace)))
        .filter(|(nsid, namespace)| is_shown(*nsid, namespace))
}

/// A group that has namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub state: AnaState,
    /// Ascending, as Linux demands.
    pub nsids: Vec<u32>,
}

/// The groups that have namespaces. One whose state nobody told is not served here.
pub(super) fn groups(subsystem: &Subsystem) -> BTreeMap<u32, Group> {
    let mut groups = BTreeMap::new();
    for (nsid, namespace) in shown(subsystem) {
        let id = namespace.ana_group;
        let state = subsystem.ana_groups.get(&id).copied().unwrap_or(AnaState::Inaccessible);
        groups.entry(id).or_insert(Group { state, nsids: Vec::new() }).nsids.push(nsid);
    }
    groups
}

/// Bytes of the ANA log page at its largest, as hosts work it out from NANAGRPID and MNAN.
pub(super) const PAGE_BYTES_MAX: u64 = 16 + 32 * ANA_GROUPS_MAX as u64 + 4 * NAMESPACES_MAX as u64;

/// The ANA log page (Base, section 5.16.1.13).
pub(super) fn page(subsystem: &Subsystem, state: &SubsystemState, groups_only: bool) -> Vec<u8> {
    let groups = groups(subsystem);
    let header = AnaHeader {
        change_count: state.ana_changes.into(),
        groups: (groups.len() as u16).into(),
        reserved: [0; 6],
    };
    let mut page = header.as_bytes().to_vec();
    for (&id, group) in &groups {
        let nsids: &[u32] = if groups_only { &[] } else { &group.nsids };
        let descriptor = AnaGroup {
            id: id.into(),
            namespaces: (nsids.len() as u32).into(),
            change_count: state.group_changes.get(&id).copied().unwrap_or(0).into(),
            state: group.state as u8,
            reserved: [0; 15],
        };
        page.extend_from_slice(descriptor.as_bytes());
        page.extend(nsids.iter().flat_map(|nsid| nsid.to_le_bytes()));
    }
    page
}
