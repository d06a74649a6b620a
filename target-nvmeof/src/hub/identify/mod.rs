//! Identify (Base, section 5.17).

mod controller;
mod namespace;

use zerocopy::IntoBytes;

use crate::view::{Namespace, Subsystem};
use crate::wire::identify::{CSI_NVM, IDENTIFY_BYTES, NamespaceDescriptor, cns, nidt};
use crate::wire::{Sqe, Status};

use super::answer::{Answer, Outcome};
use super::reservation::NSID_ALL;
pub(super) use controller::{has_volatile_cache, padded};

use super::{Hub, NAMESPACES_MAX, ana};

impl Hub {
    /// Identify.
    pub(super) fn identify(&mut self, cntlid: u16, sqe: &Sqe) -> Outcome {
        let which = sqe.cdw10.get() as u8;
        let csi = (sqe.cdw11.get() >> 24) as u8;
        let nsid = sqe.nsid.get();
        if which == cns::CONTROLLER {
            let has_cache = self.subsystem_of(cntlid).is_some_and(has_volatile_cache);
            self.controller_mut(cntlid).note_identified(has_cache);
            return answer(self.identify_controller(self.controller(cntlid)).as_bytes());
        }
        // A discovery controller has no namespaces to tell of.
        let subsystem = self.subsystem_of(cntlid).ok_or(Status::INVALID_FIELD)?;
        let of_command_set = matches!(
            which,
            cns::NAMESPACE_OF_COMMAND_SET
                | cns::CONTROLLER_OF_COMMAND_SET
                | cns::ACTIVE_NAMESPACES_OF_COMMAND_SET
        );
        if of_command_set && csi != CSI_NVM {
            return Err(Status::INVALID_FIELD);
        }
        match which {
            cns::NAMESPACE => match find(subsystem, nsid)? {
                Some(namespace) => answer(namespace::identify(namespace).as_bytes()),
                None => answer(&[]),
            },
            cns::NAMESPACE_INDEPENDENT => match find(subsystem, nsid)? {
                Some(namespace) => answer(namespace::independent(namespace).as_bytes()),
                None => answer(&[]),
            },
            // Nothing in it concerns namespaces without protection information; nor are there limits beyond
            // MDTS that the structure of CNS 06h could tell.
            cns::NAMESPACE_OF_COMMAND_SET => find(subsystem, nsid).and_then(|_| answer(&[])),
            cns::CONTROLLER_OF_COMMAND_SET => answer(&[]),
            cns::ACTIVE_NAMESPACES | cns::ACTIVE_NAMESPACES_OF_COMMAND_SET => active(subsystem, nsid),
            cns::NAMESPACE_DESCRIPTORS => {
                let namespace = find(subsystem, nsid)?.ok_or(Status::INVALID_NAMESPACE)?;
                answer(&descriptors(namespace))
            }
            cns::COMMAND_SETS => command_sets(cntlid, (sqe.cdw10.get() >> 16) as u16),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// The subsystem of a controller; `None` of a discovery controller.
    pub(super) fn subsystem_of(&self, cntlid: u16) -> Option<&Subsystem> {
        let controller = self.controller(cntlid);
        if controller.discovery { None } else { self.targets.subsystems.get(&controller.subsystem) }
    }

    /// An active namespace of the controller's subsystem.
    pub(super) fn active_namespace(&self, cntlid: u16, nsid: u32) -> Result<&Namespace, Status> {
        let subsystem = self.subsystem_of(cntlid).ok_or(Status::INVALID_FIELD)?;
        find(subsystem, nsid)?.ok_or(Status::INVALID_NAMESPACE)
    }
}

fn answer(bytes: &[u8]) -> Outcome {
    Ok(Answer::data(bytes, IDENTIFY_BYTES).into())
}

/// The namespace of a valid NSID, where it is active.
fn find(subsystem: &Subsystem, nsid: u32) -> Result<Option<&Namespace>, Status> {
    if nsid == 0 || nsid > NAMESPACES_MAX {
        return Err(Status::INVALID_NAMESPACE);
    }
    Ok(subsystem.namespaces.get(&nsid).filter(|namespace| ana::is_shown(nsid, namespace)))
}

/// The active NSIDs above `nsid`, ascending.
fn active(subsystem: &Subsystem, nsid: u32) -> Outcome {
    if nsid >= NSID_ALL - 1 {
        return Err(Status::INVALID_NAMESPACE);
    }
    let above = ana::shown(subsystem).map(|(id, _)| id).filter(|&id| id > nsid);
    let list: Vec<u8> = above.take(IDENTIFY_BYTES as usize / 4).flat_map(u32::to_le_bytes).collect();
    answer(&list)
}

/// NGUID, UUID and command set.
fn descriptors(namespace: &Namespace) -> Vec<u8> {
    let mut list = Vec::new();
    let mut add = |kind, id: &[u8]| {
        let head = NamespaceDescriptor { kind, len: id.len() as u8, reserved: [0; 2] };
        list.extend_from_slice(head.as_bytes());
        list.extend_from_slice(id);
    };
    add(nidt::NGUID, &namespace.nguid());
    add(nidt::UUID, &namespace.uuid());
    add(nidt::CSI, &[CSI_NVM]);
    list
}

/// The combinations of command sets: the first and only one is the NVM command set.
fn command_sets(cntlid: u16, asked: u16) -> Outcome {
    const THIS_CONTROLLER: u16 = 0xFFFF;
    if asked != THIS_CONTROLLER && asked != cntlid {
        return Err(Status::INVALID_FIELD);
    }
    answer(&(1_u64 << CSI_NVM).to_le_bytes())
}
