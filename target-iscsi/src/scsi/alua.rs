//! Target port groups (SPC-4, sections 5.15, 6.37 and 6.45).

use ashlar_env::Volume;
use ashlar_env::reservation::Access;

use super::block::nothing;
use super::long::{self, Io};
use super::sense::{Asc, Failure, Key, Sense};
use super::units::{Context, MappedUnit};
use super::{Data, Step};
use crate::view::{AluaState, Portal, Target};

/// How long a change by itself may take, in seconds (IMPLICIT TRANSITION TIME).
const TRANSITION_S: u8 = 60;

/// T_SUP, U_SUP, AN_SUP, AO_SUP.
const STATES: u8 = 0x8B;

/// The ports by which a target is reached.
pub(super) fn ports<'a>(target: &'a Target, portals: &'a [Portal]) -> impl Iterator<Item = &'a Portal> {
    portals.iter().filter(|portal| {
        let at = |listen: &core::net::SocketAddr| {
            let any = listen.ip().is_unspecified() || portal.listen.ip().is_unspecified();
            listen.port() == portal.listen.port() && (any || listen.ip() == portal.listen.ip())
        };
        target.listen.is_empty() || target.listen.iter().any(at)
    })
}

/// REPORT TARGET PORT GROUPS: the unit's group, with the ports of this node.
pub(super) fn report<V: Volume>(command: &Context<'_, V>, unit: &MappedUnit<V>) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    let mut data = match cdb.head[1] >> 5 {
        0 => vec![0; 4],
        1 => vec![0, 0, 0, 0, 0x10, TRANSITION_S, 0, 0],
        _ => return Err(Sense::cdb_bit(1, 7).into()),
    };
    let target = command.units.target();
    let group = unit.unit.port_group;
    let state = target.port_groups.get(&group).copied().unwrap_or_default();
    let ports: Vec<_> = ports(target, command.units.portals()).map(|portal| portal.tag).take(255).collect();
    let [high, low] = group.to_be_bytes();
    // The last change, if there was one, came by itself.
    data.extend([state as u8, STATES, high, low, 0, 0x02, 0, ports.len() as u8]);
    for port in ports {
        let [high, low] = port.to_be_bytes();
        data.extend([0, 0, high, low]);
    }
    let len = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&len.to_be_bytes());
    data.truncate(cdb.u32(6) as usize);
    Ok(data)
}

/// SET TARGET PORT GROUPS: asks the node for other states.
pub(super) fn set<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    data: &Data,
) -> Result<Step<V>, Failure> {
    let len = command.request.cdb.u32(6) as usize;
    if len == 0 {
        return Ok(nothing());
    }
    if data.bytes() < len.min(1 << 16) {
        return Err(Sense::illegal(Asc::INFORMATION_UNIT).into());
    }
    let list = data.gather();
    let (descriptors, rest) = list.get(4..).unwrap_or_default().as_chunks::<4>();
    if !(4..=1 << 16).contains(&len) || !rest.is_empty() {
        return Err(Sense::illegal(Asc::PARAMETER_LENGTH).into());
    }
    let mut wanted = Vec::new();
    for (at, descriptor) in descriptors.iter().enumerate() {
        let field = |byte: usize| Sense::parameter((4 + at * 4 + byte) as u16);
        let state = match descriptor[0] & 0x0F {
            0x0 => AluaState::Optimized,
            0x1 => AluaState::NonOptimized,
            0x3 => AluaState::Unavailable,
            _ => return Err(field(0).into()),
        };
        let group = u16::from_be_bytes([descriptor[2], descriptor[3]]);
        if group != unit.unit.port_group {
            return Err(field(2).into());
        }
        wanted.push((group, state));
    }
    let now = command.units.target().port_groups.get(&unit.unit.port_group).copied().unwrap_or_default();
    let ask = command.units.change_group();
    let io = Io::new(command, unit);
    Ok(long::step(unit, async move {
        io.permit(Access::Write).await?;
        for (group, state) in wanted {
            if state != now && !ask.as_ref().is_some_and(|ask| ask(group, state)) {
                return Err(Sense::new(Key::HardwareError, Asc::SET_GROUPS_FAILED).into());
            }
        }
        Ok(Data::None)
    }))
}
