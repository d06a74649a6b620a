//! The vocabulary of persistent reservations, one for both protocols.
//!
//! Types and actions are those of NVMe (Base specification 2.x, "Reservations"); SCSI's map onto them by the
//! NVMe SCSI translation reference. The state machine that obeys them is `ashlar_volume::reservation`.

use crate::units::VolumeId;

/// What a reservation is keyed by: the 128-bit NVMe Host Identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub [u8; 16]);

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

/// One registered host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// who
    pub host: HostId,
    /// under which key
    pub key: u64,
    /// whether it holds the reservation
    pub holder: bool,
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
