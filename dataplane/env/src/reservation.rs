//! The vocabulary of persistent reservations, one for both protocols.
//!
//! Types and actions are those of NVMe (Base specification 2.x, "Reservations"); SCSI's map onto them by the
//! NVMe SCSI translation reference, and where SCSI asks for something else it has actions of its own
//! ([`NexusAction`]). The state machine that obeys them is `ashlar_volume::reservation`.

use std::sync::Arc;

use uuid::Uuid;

use crate::units::VolumeId;

/// What a reservation is keyed by: the 128-bit NVMe Host Identifier, or what stands for a SCSI nexus
/// ([`Nexus::host`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub [u8; 16]);

/// The most bytes of an iSCSI name (RFC 7143, section 4.2.7.2).
pub const INITIATOR_NAME_BYTES_MAX: usize = 223;

/// An I_T nexus as SCSI reservations know it: the initiator port's TransportID (SPC-4, section 7.6.4.6, format 01b)
/// and the relative identifier of the target port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nexus {
    initiator: Box<str>,
    isid: [u8; 6],
    port: u16,
}

impl Nexus {
    /// The nexus of this initiator name, initiator session id and relative target port identifier. Names compare
    /// without regard to case, so it is kept in lower case. `None` where the name is empty, longer than
    /// [`INITIATOR_NAME_BYTES_MAX`], or has a comma, which ends a name in a TransportID, or a NUL.
    #[must_use]
    pub fn new(initiator: &str, isid: [u8; 6], port: u16) -> Option<Self> {
        let fits = (1..=INITIATOR_NAME_BYTES_MAX).contains(&initiator.len());
        if !fits || initiator.contains([',', '\0']) {
            return None;
        }
        // Some letters take more bytes in lower case.
        let initiator = initiator.to_lowercase();
        (initiator.len() <= INITIATOR_NAME_BYTES_MAX).then(|| Self {
            initiator: initiator.into(),
            isid,
            port,
        })
    }

    /// The initiator's name, in lower case.
    #[must_use]
    pub fn initiator(&self) -> &str {
        &self.initiator
    }

    /// The initiator session id.
    #[must_use]
    pub fn isid(&self) -> [u8; 6] {
        self.isid
    }

    /// The relative target port identifier.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What reservations are keyed by: a version 5 UUID of the TransportID and the port, the same on every node and
    /// after every restart.
    #[must_use]
    pub fn host(&self) -> HostId {
        const NAMESPACE: Uuid = Uuid::from_u128(0x6c1c_09f4_93b5_4a3e_8f0a_52d8_4b1f_7a60);
        let mut bytes = self.initiator.as_bytes().to_vec();
        bytes.push(b',');
        bytes.extend(self.isid);
        bytes.extend(self.port.to_be_bytes());
        HostId(*Uuid::new_v5(&NAMESPACE, &bytes).as_bytes())
    }
}

/// What a command does, as reservations tell commands apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads: also compare, verify, the source of a copy, and commands that SPC-4 treats so.
    Read,
    /// It changes the volume, or flushes it.
    Write,
    /// It does neither: only another's reservation of the whole unit ([`NexusAction::ReserveUnit`]) forbids it.
    Attend,
}

/// Reservation types, with the codes of NVMe's RTYPE field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReservationType {
    /// Only the holder writes.
    WriteExclusive = 1,
    /// Only the holder reads and writes.
    ExclusiveAccess = 2,
    /// Only registrants write; one of them holds.
    WriteExclusiveRegistrantsOnly = 3,
    /// Only registrants read and write; one of them holds.
    ExclusiveAccessRegistrantsOnly = 4,
    /// Only registrants write; all of them hold.
    WriteExclusiveAllRegistrants = 5,
    /// Only registrants read and write; all of them hold.
    ExclusiveAccessAllRegistrants = 6,
}

impl ReservationType {
    /// The type with this code.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::WriteExclusive,
            2 => Self::ExclusiveAccess,
            3 => Self::WriteExclusiveRegistrantsOnly,
            4 => Self::ExclusiveAccessRegistrantsOnly,
            5 => Self::WriteExclusiveAllRegistrants,
            6 => Self::ExclusiveAccessAllRegistrants,
            _ => return None,
        })
    }
}

/// What a host asks of the reservation state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationAction {
    /// Register the host under `key`. Succeeds again with the same key; conflicts with another.
    Register {
        /// the key to register
        key: u64,
        /// persist through power loss: `None` leaves it as it is
        persist: Option<bool>,
    },
    /// Give up the registration under `key` (any, with `ignore_key`), and with it a reservation held.
    Unregister {
        /// the key registered
        key: u64,
        /// do not compare the key (NVMe IEKEY)
        ignore_key: bool,
        /// persist through power loss: `None` leaves it as it is
        persist: Option<bool>,
    },
    /// Replace the registered `key` by `new_key` (registering anew where `ignore_key` is set).
    Replace {
        /// the key registered
        key: u64,
        /// the key to register
        new_key: u64,
        /// do not compare the key (NVMe IEKEY)
        ignore_key: bool,
        /// persist through power loss: `None` leaves it as it is
        persist: Option<bool>,
    },
    /// Take the reservation.
    Acquire {
        /// the host's own key
        key: u64,
        /// the type to hold
        kind: ReservationType,
    },
    /// Take over from whoever is registered under `victim`.
    Preempt {
        /// the host's own key
        key: u64,
        /// the key of those to preempt; 0 means all others, where all registrants hold
        victim: u64,
        /// the type to hold afterwards
        kind: ReservationType,
        /// also abort the victims' commands in flight, before this completes
        abort: bool,
    },
    /// Give the reservation up; the registration stays.
    Release {
        /// the host's own key
        key: u64,
        /// the type held
        kind: ReservationType,
    },
    /// Remove the reservation and all registrations.
    Clear {
        /// the host's own key
        key: u64,
    },
    /// Set persistence through power loss (NVMe feature 83h).
    SetPersist(bool),
    /// Tell the state.
    Report,
}

/// What only a SCSI nexus asks of the reservation state. Everything else it asks by a [`ReservationAction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NexusAction {
    /// SPC-4's REGISTER: a nexus that is registered changes its key or, with a new key of 0, unregisters; one that is
    /// not registers under the new key, and has no effect with a new key of 0.
    Register {
        /// who; must be the nexus whose host issues this
        nexus: Arc<Nexus>,
        /// the key registered, 0 where there is none
        key: u64,
        /// the key to register
        new_key: u64,
        /// do not compare the key (REGISTER AND IGNORE EXISTING KEY)
        ignore_key: bool,
        /// persist through power loss (APTPL)
        persist: bool,
    },
    /// SPC-4's REGISTER AND MOVE: the holder registers another nexus and gives it the reservation.
    Move {
        /// who shall hold
        to: Arc<Nexus>,
        /// the issuer's own key
        key: u64,
        /// the key to register the other under
        new_key: u64,
        /// also unregister the issuer
        unregister: bool,
        /// persist through power loss (APTPL)
        persist: bool,
    },
    /// SPC-2's RESERVE: excludes all others, NVMe hosts among them, until released; does not survive the process.
    ReserveUnit,
    /// SPC-2's RELEASE, and what the end of the issuer's session does: no effect unless the issuer's session
    /// reserved the unit.
    ReleaseUnit,
    /// What a reset of the logical unit does: ends the reservation of the unit, whosesoever it is.
    ResetUnit,
}

/// One registered host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// who
    pub host: HostId,
    /// under which key
    pub key: u64,
    /// whether it holds the reservation
    pub holder: bool,
    /// the SCSI nexus behind it; `None` for an NVMe host
    pub nexus: Option<Arc<Nexus>>,
}

/// The reservation state of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservationReport {
    /// Raised by every register, unregister, replace, preempt and clear that succeeds.
    pub generation: u32,
    /// The reservation, if any.
    pub kind: Option<ReservationType>,
    /// Whether the state survives power loss.
    pub persist: bool,
    /// The registrants, ascending by host.
    pub registrants: Vec<Registrant>,
    /// Who has reserved the unit as a whole ([`NexusAction::ReserveUnit`]).
    pub unit: Option<HostId>,
}

/// What happened to a host's registration or reservation by another host's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// its registration was removed
    RegistrationPreempted,
    /// the reservation was given up
    ReservationReleased,
    /// its reservation was taken over
    ReservationPreempted,
}

/// Who is to be told what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// on which volume
    pub volume: VolumeId,
    /// whom it befell
    pub host: HostId,
    /// what
    pub kind: NoticeKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nexus_is_its_name_isid_and_port() {
        let nexus = |name, isid, port| Nexus::new(name, [isid; 6], port).unwrap();
        let one = nexus("iqn.2026-01.test:a", 1, 1);
        assert_eq!(one, nexus("IQN.2026-01.Test:A", 1, 1));
        let others =
            [("iqn.2026-01.test:b", 1, 1), ("iqn.2026-01.test:a", 2, 1), ("iqn.2026-01.test:a", 1, 2)];
        for (name, isid, port) in others {
            assert_ne!(one.host(), nexus(name, isid, port).host());
        }
        // Stored states hold it: it must never change.
        assert_eq!(Uuid::from_bytes(one.host().0).to_string(), "e29c427e-3968-5516-a0a6-32088cdaaeac");
    }

    #[test]
    fn names_that_no_transport_id_can_hold_are_refused() {
        let long = "i".repeat(INITIATOR_NAME_BYTES_MAX + 1);
        for name in ["", "iqn.a,i,0x1", "iqn.\0", &long] {
            assert!(Nexus::new(name, [0; 6], 1).is_none(), "{name:?}");
        }
        assert!(Nexus::new(&long[1..], [0; 6], 1).is_some());
    }
}
