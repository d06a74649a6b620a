//! PERSISTENT RESERVE OUT (SPC-4, section 6.15): from CDB and parameter list to an operation of the volume.

use std::sync::Arc;

use ashlar_env::VolumeError;
use ashlar_env::reservation::{Nexus, NexusAction, ReservationAction, ReservationType};
use ashlar_env::volume::Operation;

use super::{kind, transport_id};
use crate::scsi::Cdb;
use crate::scsi::finish;
use crate::scsi::sense::{Asc, Failure, Sense};

/// Bytes of the parameter list, but for REGISTER AND MOVE, which has a TransportID behind.
pub const LIST_BYTES: usize = 24;
/// The most bytes of a parameter list that are looked at: REGISTER AND MOVE with the longest name.
pub const LIST_BYTES_MAX: u32 = 512;

/// Byte 20: SPEC_I_PT, ALL_TG_PT, APTPL.
const FLAGS: usize = 20;
const SPEC_I_PT: u8 = 0x08;
const ALL_TG_PT: u8 = 0x04;
const APTPL: u8 = 0x01;
/// Byte 17 of REGISTER AND MOVE: UNREG, APTPL.
const MOVE_FLAGS: usize = 17;
const UNREG: u8 = 0x02;

/// The byte of the CDB with SCOPE and TYPE.
const SCOPE_AND_TYPE: u16 = 2;
/// The byte of the parameter list where SERVICE ACTION RESERVATION KEY begins.
const ACTION_KEY: u16 = 8;

/// Service actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// 00h
    Register,
    /// 01h
    Reserve,
    /// 02h
    Release,
    /// 03h
    Clear,
    /// 04h
    Preempt,
    /// 05h
    PreemptAndAbort,
    /// 06h
    RegisterAndIgnore,
    /// 07h
    RegisterAndMove,
}

impl Action {
    /// The service action of a CDB.
    #[must_use]
    pub fn of(cdb: &Cdb) -> Option<Self> {
        Some(match cdb.head[1] & 0x1F {
            0x00 => Self::Register,
            0x01 => Self::Reserve,
            0x02 => Self::Release,
            0x03 => Self::Clear,
            0x04 => Self::Preempt,
            0x05 => Self::PreemptAndAbort,
            0x06 => Self::RegisterAndIgnore,
            0x07 => Self::RegisterAndMove,
            _ => return None,
        })
    }

    /// What an error of the volume means to the initiator.
    #[must_use]
    pub fn failure(self, error: &VolumeError) -> Failure {
        match (error, self) {
            (VolumeError::Invalid, Self::Release) => Sense::illegal(Asc::INVALID_RELEASE).into(),
            (VolumeError::Invalid, _) => Sense::parameter(ACTION_KEY).into(),
            (VolumeError::TooManyRegistrants, _) => Sense::illegal(Asc::NO_REGISTRATION_RESOURCES).into(),
            // Nothing of this volume is kept through power loss.
            (VolumeError::Unsupported, Self::RegisterAndMove) => Sense::parameter(MOVE_FLAGS as u16).into(),
            (VolumeError::Unsupported, _) => Sense::parameter(FLAGS as u16).into(),
            _ => finish::failure(error),
        }
    }
}

/// Who asks, and what else the command needs to know.
pub struct Asker<'a> {
    /// The nexus.
    pub nexus: Arc<Nexus>,
    /// Whether a relative target port identifier is one of this target.
    pub has_port: &'a dyn Fn(u16) -> bool,
}

/// A field of eight bytes, in a list whose length was checked.
fn key(list: &[u8], at: usize) -> u64 {
    list[at..at + 8].iter().fold(0, |key, &byte| key << 8 | u64::from(byte))
}

/// The operation that a command asks for.
///
/// # Errors
/// Why it asks for none: a wrong list length (5/1A/00), scope, type (5/24/00) or parameter (5/26/00).
pub fn operation(action: Action, cdb: &Cdb, list: &[u8], asker: &Asker<'_>) -> Result<Operation, Failure> {
    check_length(action, cdb, list)?;
    let (own, second) = (key(list, 0), key(list, 8));
    let common = match action {
        Action::Register | Action::RegisterAndIgnore => {
            if list[FLAGS] & (SPEC_I_PT | ALL_TG_PT) != 0 {
                return Err(Sense::parameter(FLAGS as u16).into());
            }
            let register = NexusAction::Register {
                nexus: Arc::clone(&asker.nexus),
                key: own,
                new_key: second,
                ignore_key: action == Action::RegisterAndIgnore,
                persist: list[FLAGS] & APTPL != 0,
            };
            return Ok(Operation::ReserveNexus(Box::new(register)));
        }
        Action::RegisterAndMove => return move_to(list, asker),
        Action::Reserve => ReservationAction::Acquire { key: own, kind: held(cdb)? },
        Action::Release => ReservationAction::Release { key: own, kind: held(cdb)? },
        Action::Clear => ReservationAction::Clear { key: own },
        Action::Preempt | Action::PreemptAndAbort => {
            let abort = action == Action::PreemptAndAbort;
            ReservationAction::Preempt { key: own, victim: second, kind: held(cdb)?, abort }
        }
    };
    Ok(Operation::Reserve(common))
}

/// The list is of exactly the length that the command needs, and all of it is here.
fn check_length(action: Action, cdb: &Cdb, list: &[u8]) -> Result<(), Failure> {
    let said = cdb.u32(5) as usize;
    let longer = action == Action::RegisterAndMove;
    // What SPEC_I_PT would make longer is refused for that bit.
    let flagged = matches!(action, Action::Register | Action::RegisterAndIgnore)
        && list.get(FLAGS).is_some_and(|flags| flags & SPEC_I_PT != 0);
    let right = said == LIST_BYTES || said > LIST_BYTES && (longer || flagged);
    if right && list.len() >= said.min(LIST_BYTES_MAX as usize) {
        Ok(())
    } else {
        Err(Sense::illegal(Asc::PARAMETER_LENGTH).into())
    }
}

/// SCOPE, which is the logical unit, and TYPE.
fn held(cdb: &Cdb) -> Result<ReservationType, Failure> {
    let byte = cdb.head[usize::from(SCOPE_AND_TYPE)];
    if byte >> 4 != 0 {
        return Err(Sense::cdb_bit(SCOPE_AND_TYPE, 7).into());
    }
    kind::of_code(byte & 0x0F).ok_or_else(|| Sense::cdb_bit(SCOPE_AND_TYPE, 3).into())
}

fn move_to(list: &[u8], asker: &Asker<'_>) -> Result<Operation, Failure> {
    let port = u16::from_be_bytes([list[18], list[19]]);
    if !(asker.has_port)(port) {
        return Err(Sense::parameter(18).into());
    }
    let said = u32::from_be_bytes([list[20], list[21], list[22], list[23]]) as usize;
    let Some(id) = list[LIST_BYTES..].get(..said) else {
        return Err(Sense::illegal(Asc::PARAMETER_LENGTH).into());
    };
    let to = transport_id::nexus(id, port).ok_or_else(|| Sense::parameter(LIST_BYTES as u16))?;
    let action = NexusAction::Move {
        to: Arc::new(to),
        key: key(list, 0),
        new_key: key(list, 8),
        unregister: list[MOVE_FLAGS] & UNREG != 0,
        persist: list[MOVE_FLAGS] & APTPL != 0,
    };
    Ok(Operation::ReserveNexus(Box::new(action)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::sense::Key;

    fn me() -> Arc<Nexus> {
        Arc::new(Nexus::new("iqn.2026-01.test:a", [1; 6], 1).unwrap())
    }

    fn cdb(action: u8, scope_and_type: u8, len: u32) -> Cdb {
        let mut bytes = [0x5F, action, scope_and_type, 0, 0, 0, 0, 0, 0, 0];
        bytes[5..9].copy_from_slice(&len.to_be_bytes());
        Cdb::new(&bytes)
    }

    fn list(key: u64, second: u64, flags: u8) -> Vec<u8> {
        let mut list = vec![0; LIST_BYTES];
        list[..8].copy_from_slice(&key.to_be_bytes());
        list[8..16].copy_from_slice(&second.to_be_bytes());
        list[FLAGS] = flags;
        list
    }

    fn ask(cdb: &Cdb, list: &[u8]) -> Result<Operation, Failure> {
        let asker = Asker { nexus: me(), has_port: &|port| port < 3 };
        operation(Action::of(cdb).unwrap(), cdb, list, &asker)
    }

    fn common(cdb: &Cdb, list: &[u8]) -> ReservationAction {
        match ask(cdb, list) {
            Ok(Operation::Reserve(action)) => action,
            other => panic!("{other:?}"),
        }
    }

    fn own(cdb: &Cdb, list: &[u8]) -> NexusAction {
        match ask(cdb, list) {
            Ok(Operation::ReserveNexus(action)) => *action,
            other => panic!("{other:?}"),
        }
    }

    fn sense(result: Result<Operation, Failure>) -> (u8, u8) {
        match result {
            Err(Failure::Check(Sense { key: Key::IllegalRequest, asc, .. })) => (asc.0, asc.1),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_service_action_is_read() {
        let list = list(0xA, 0xB, APTPL);
        let register = |ignore_key| NexusAction::Register {
            nexus: me(),
            key: 0xA,
            new_key: 0xB,
            ignore_key,
            persist: true,
        };
        assert_eq!(own(&cdb(0, 0xFF, 24), &list), register(false));
        assert_eq!(own(&cdb(6, 0, 24), &list), register(true));
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        assert_eq!(common(&cdb(1, 5, 24), &list), ReservationAction::Acquire { key: 0xA, kind });
        assert_eq!(common(&cdb(2, 5, 24), &list), ReservationAction::Release { key: 0xA, kind });
        assert_eq!(common(&cdb(3, 0xFF, 24), &list), ReservationAction::Clear { key: 0xA });
        for (action, abort) in [(4, false), (5, true)] {
            let preempt = ReservationAction::Preempt { key: 0xA, victim: 0xB, kind, abort };
            assert_eq!(common(&cdb(action, 5, 24), &list), preempt);
        }
        assert_eq!(Action::of(&cdb(8, 0, 24)), None);
    }

    #[test]
    fn lists_of_another_length_are_refused() {
        for action in 0..=6 {
            for len in [0, 1, 8, 23, 25, 32, 1 << 16, u32::MAX] {
                let list = list(0, 1, 0);
                assert_eq!(sense(ask(&cdb(action, 5, len), &list)), (0x1A, 0), "{action} {len}");
            }
            // The initiator sends less than it says.
            for len in 0..24 {
                assert_eq!(sense(ask(&cdb(action, 5, 24), &list(0, 1, 0)[..len])), (0x1A, 0));
            }
        }
        assert_eq!(sense(ask(&cdb(7, 5, 23), &[0; 23])), (0x1A, 0));
    }

    #[test]
    fn other_ports_and_scopes_and_types_are_refused() {
        for flags in [SPEC_I_PT, ALL_TG_PT, SPEC_I_PT | APTPL] {
            assert_eq!(sense(ask(&cdb(0, 0, 24), &list(0, 1, flags))), (0x26, 0));
        }
        let mut long = list(0, 1, SPEC_I_PT);
        long.resize(60, 0xFF);
        assert_eq!(sense(ask(&cdb(0, 0, 60), &long)), (0x26, 0));
        for byte in [0x15, 0x25, 0x00, 0x02, 0x04, 0x09, 0x0F] {
            for action in [1, 2, 4, 5] {
                assert_eq!(sense(ask(&cdb(action, byte, 24), &list(0, 1, 0))), (0x24, 0));
            }
        }
    }

    fn move_list(port: u16, id: &[u8], said: u32, flags: u8) -> Vec<u8> {
        let mut list = list(0xA, 0xB, 0);
        list[MOVE_FLAGS] = flags;
        list[18..20].copy_from_slice(&port.to_be_bytes());
        list[20..24].copy_from_slice(&said.to_be_bytes());
        list.extend(id);
        list
    }

    #[test]
    fn a_move_names_a_port_and_a_transport_id() {
        let to = Nexus::new("iqn.2026-01.test:b", [2; 6], 2).unwrap();
        let id = transport_id::of_nexus(&to);
        let len = id.len() as u32;
        let good = move_list(2, &id, len, UNREG);
        let action = own(&cdb(7, 0, 24 + len), &good);
        let expected =
            NexusAction::Move { to: Arc::new(to), key: 0xA, new_key: 0xB, unregister: true, persist: false };
        assert_eq!(action, expected);
        for (list, want) in [
            (move_list(3, &id, len, 0), 0x26),
            (move_list(2, &id, len + 4, 0), 0x1A),
            (move_list(2, &id, u32::MAX, 0), 0x1A),
            (move_list(2, &id, len - 4, 0), 0x26),
            (move_list(2, &id, 0, 0), 0x26),
            (move_list(2, &[0xFF; 24], 24, 0), 0x26),
        ] {
            assert_eq!(sense(ask(&cdb(7, 0, list.len() as u32), &list)), (want, 0));
        }
    }

    #[test]
    fn errors_of_the_volume_have_their_sense() {
        let asc = |action: Action, error| match action.failure(&error) {
            Failure::Check(sense) => (sense.asc.0, sense.asc.1),
            Failure::Status(status) => (status as u8, 0xFF),
        };
        assert_eq!(asc(Action::Release, VolumeError::Invalid), (0x26, 0x04));
        assert_eq!(asc(Action::Preempt, VolumeError::Invalid), (0x26, 0x00));
        assert_eq!(asc(Action::Register, VolumeError::TooManyRegistrants), (0x55, 0x04));
        assert_eq!(asc(Action::Register, VolumeError::Unsupported), (0x26, 0x00));
        assert_eq!(asc(Action::Reserve, VolumeError::ReservationConflict), (0x18, 0xFF));
    }
}
