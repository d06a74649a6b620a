//! The reservation state machine of a volume: NVMe Base specification 2.x, "Reservations".
//!
//! Pure: a state, a host and an action give the next state and the notices, or an error and the state as it
//! was. What the text leaves to the implementation, or is easily read in two ways:
//!
//! * The generation counts every register, unregister and replace that succeeds, every preempt and every
//!   clear; acquire and release do not count.
//! * Registering while all registrants hold makes the host a holder, too.
//! * A preempt that names a key nobody is registered under is a conflict. Key 0 is valid only where all
//!   registrants hold, and then names everyone else.
//! * A preempt that takes the reservation over leaves the host's own registration alone even where it is under
//!   the victims' key; one that merely removes registrations does not.
//! * A holder that acquires again with the same type succeeds; with another type it is a conflict. A release
//!   by a registrant that does not hold succeeds and does nothing.
//!
//! SCSI asks the same of it (SPC-4, section 5.13), except for what is in `reservation_nexus`. While the unit is
//! reserved as a whole, nobody changes registrations; while anyone is registered, nobody reserves the unit.

use std::sync::Arc;

use ashlar_env::VolumeError;
pub use ashlar_env::reservation::Access;
use ashlar_env::reservation::{
    HostId, Nexus, NoticeKind, Registrant, ReservationAction, ReservationReport, ReservationType,
};
use serde::{Deserialize, Serialize};

use crate::reservation_record::ReservationRecord;

/// How many hosts may be registered with a volume.
pub const REGISTRANTS_MAX: usize = 256;

/// The registrants of a volume and the reservation held, if any.
///
/// Serialises as a [`ReservationRecord`]; what does not describe a possible state is refused when read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ReservationRecord", into = "ReservationRecord")]
pub struct Reservations {
    pub(crate) generation: u32,
    pub(crate) persist: bool,
    pub(crate) held: Option<Held>,
    /// Ascending by host.
    pub(crate) registrants: Vec<Registration>,
    /// The reservation of the unit as a whole, which is never stored.
    pub(crate) unit: Option<UnitHolder>,
}

/// A registered host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) host: HostId,
    pub(crate) key: u64,
    /// The SCSI nexus that the host stands for.
    pub(crate) nexus: Option<Arc<Nexus>>,
}

/// Who has reserved the unit as a whole (SPC-2's RESERVE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitHolder {
    pub(crate) host: HostId,
    /// The session that did, which may end when the host has another one already.
    pub(crate) session: u64,
}

/// A reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) kind: ReservationType,
    /// The one that holds it; `None` where all registrants do.
    pub(crate) holder: Option<HostId>,
}

/// What an action brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Whether the state differs from before (and so has to be stored, if it persists).
    pub changed: bool,
    /// Who is to be told what, in the order of hosts.
    pub notices: Vec<(HostId, NoticeKind)>,
    /// The hosts whose commands must end before the action completes, ascending.
    pub to_abort: Vec<HostId>,
}

/// Whether the types differ in who holds: all registrants, or one of them.
pub(crate) const fn all_registrants_hold(kind: ReservationType) -> bool {
    use ReservationType as T;
    matches!(kind, T::WriteExclusiveAllRegistrants | T::ExclusiveAccessAllRegistrants)
}

/// Whether the registrants share in the reservation, so that its end concerns them.
pub(crate) const fn concerns_registrants(kind: ReservationType) -> bool {
    use ReservationType as T;
    !matches!(kind, T::WriteExclusive | T::ExclusiveAccess)
}

impl Reservations {
    /// Whether `host` may do this now.
    #[must_use]
    pub fn allows(&self, host: HostId, access: Access) -> bool {
        use ReservationType as T;
        if self.unit.is_some_and(|unit| unit.host != host) {
            return false;
        }
        let Some(held) = self.held else { return true };
        if access == Access::Attend {
            return true;
        }
        let reads = access == Access::Read;
        match held.kind {
            T::WriteExclusive => reads || held.holder == Some(host),
            T::ExclusiveAccess => held.holder == Some(host),
            T::WriteExclusiveRegistrantsOnly | T::WriteExclusiveAllRegistrants => {
                reads || self.key_of(host).is_some()
            }
            T::ExclusiveAccessRegistrantsOnly | T::ExclusiveAccessAllRegistrants => {
                self.key_of(host).is_some()
            }
        }
    }

    /// Does what `host` asks. [`ReservationAction::Report`] does nothing here; see [`Self::report`].
    ///
    /// # Errors
    /// [`VolumeError::ReservationConflict`], [`VolumeError::Invalid`], [`VolumeError::TooManyRegistrants`];
    /// the state is then as it was.
    pub fn apply(&mut self, host: HostId, action: ReservationAction) -> Result<Effect, VolumeError> {
        use ReservationAction as A;
        if self.unit.is_some() && !matches!(action, A::SetPersist(_) | A::Report) {
            return Err(VolumeError::ReservationConflict);
        }
        match action {
            A::Register { key, persist } => self.register(host, key, persist),
            A::Unregister { key, ignore_key, persist } => self.unregister(host, key, ignore_key, persist),
            A::Replace { key, new_key, ignore_key, persist } => {
                self.replace(host, key, new_key, ignore_key, persist)
            }
            A::Acquire { key, kind } => self.acquire(host, key, kind),
            A::Preempt { key, victim, kind, abort } => self.preempt(host, key, victim, kind, abort),
            A::Release { key, kind } => self.release(host, key, kind),
            A::Clear { key } => self.clear(host, key),
            A::SetPersist(persist) => {
                let changed = std::mem::replace(&mut self.persist, persist) != persist;
                Ok(Effect { changed, ..Effect::default() })
            }
            A::Report => Ok(Effect::default()),
        }
    }

    /// The state as hosts are told it.
    #[must_use]
    pub fn report(&self) -> ReservationReport {
        let holds = |host| self.held.is_some_and(|held| held.holder.is_none_or(|holder| holder == host));
        let registrant = |registration: &Registration| {
            let Registration { host, key, ref nexus } = *registration;
            Registrant { host, key, holder: holds(host), nexus: nexus.clone() }
        };
        ReservationReport {
            generation: self.generation,
            kind: self.held.map(|held| held.kind),
            persist: self.persist,
            registrants: self.registrants.iter().map(registrant).collect(),
            unit: self.unit.map(|unit| unit.host),
        }
    }

    /// Whether anything is reserved, so that commands have to ask.
    pub(crate) fn excludes(&self) -> bool {
        self.held.is_some() || self.unit.is_some()
    }

    /// Whether the two are stored alike.
    pub(crate) fn is_stored_like(&self, other: &Self) -> bool {
        let kept = |state: &Self| (state.generation, state.persist, state.held);
        kept(self) == kept(other) && self.registrants == other.registrants
    }

    /// Whether the state survives power loss.
    #[must_use]
    pub fn persists(&self) -> bool {
        self.persist
    }

    /// What is left of a stored state after a restart: all of it if it persists, else nothing.
    #[must_use]
    pub fn after_power_loss(self) -> Self {
        if self.persist { self } else { Self::default() }
    }

    pub(crate) fn key_of(&self, host: HostId) -> Option<u64> {
        self.find(host).ok().map(|at| self.registrants[at].key)
    }

    pub(crate) fn find(&self, host: HostId) -> Result<usize, usize> {
        self.registrants.binary_search_by_key(&host, |registration| registration.host)
    }

    /// Where the host is registered, if it is, and under this key.
    pub(crate) fn check_key(&self, host: HostId, key: u64) -> Result<usize, VolumeError> {
        let at = self.find(host).map_err(|_| VolumeError::ReservationConflict)?;
        if self.registrants[at].key == key { Ok(at) } else { Err(VolumeError::ReservationConflict) }
    }

    pub(crate) fn is_holder(&self, host: HostId) -> bool {
        self.held.is_some_and(|held| match held.holder {
            Some(holder) => holder == host,
            None => self.key_of(host).is_some(),
        })
    }

    fn count(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    pub(crate) fn insert(&mut self, at: usize, registration: Registration) -> Result<(), VolumeError> {
        if self.registrants.len() == REGISTRANTS_MAX {
            return Err(VolumeError::TooManyRegistrants);
        }
        self.registrants.insert(at, registration);
        Ok(())
    }

    fn register(&mut self, host: HostId, key: u64, persist: Option<bool>) -> Result<Effect, VolumeError> {
        if key == 0 {
            return Err(VolumeError::Invalid);
        }
        match self.find(host) {
            Ok(at) if self.registrants[at].key != key => return Err(VolumeError::ReservationConflict),
            Ok(_) => {}
            Err(at) => self.insert(at, Registration { host, key, nexus: None })?,
        }
        Ok(self.registered(persist))
    }

    fn replace(
        &mut self,
        host: HostId,
        key: u64,
        new_key: u64,
        ignore_key: bool,
        persist: Option<bool>,
    ) -> Result<Effect, VolumeError> {
        if new_key == 0 {
            return Err(VolumeError::Invalid);
        }
        match self.find(host) {
            Ok(at) if ignore_key || self.registrants[at].key == key => self.registrants[at].key = new_key,
            Err(at) if ignore_key => {
                self.insert(at, Registration { host, key: new_key, nexus: None })?;
            }
            _ => return Err(VolumeError::ReservationConflict),
        }
        Ok(self.registered(persist))
    }

    /// The common end of the register actions.
    pub(crate) fn registered(&mut self, persist: Option<bool>) -> Effect {
        self.count();
        self.persist = persist.unwrap_or(self.persist);
        Effect { changed: true, ..Effect::default() }
    }

    fn unregister(
        &mut self,
        host: HostId,
        key: u64,
        ignore_key: bool,
        persist: Option<bool>,
    ) -> Result<Effect, VolumeError> {
        let at = match self.find(host) {
            Ok(at) if ignore_key || self.registrants[at].key == key => at,
            _ => return Err(VolumeError::ReservationConflict),
        };
        Ok(self.removed(at, persist))
    }

    /// The common end of the unregister actions: `at` is who goes.
    pub(crate) fn removed(&mut self, at: usize, persist: Option<bool>) -> Effect {
        let mut effect = self.registered(persist);
        let host = self.registrants.remove(at).host;
        if let Some(held) = self.held {
            let ends = match held.holder {
                Some(holder) => holder == host,
                None => self.registrants.is_empty(),
            };
            if ends {
                self.held = None;
                effect.notices = self.released_notices(host, held.kind);
            }
        }
        effect
    }

    fn acquire(&mut self, host: HostId, key: u64, kind: ReservationType) -> Result<Effect, VolumeError> {
        self.check_key(host, key)?;
        if let Some(held) = self.held {
            if self.is_holder(host) && held.kind == kind {
                return Ok(Effect::default());
            }
            return Err(VolumeError::ReservationConflict);
        }
        self.hold(host, kind);
        Ok(Effect { changed: true, ..Effect::default() })
    }

    fn hold(&mut self, host: HostId, kind: ReservationType) {
        let holder = if all_registrants_hold(kind) { None } else { Some(host) };
        self.held = Some(Held { kind, holder });
    }

    fn preempt(
        &mut self,
        host: HostId,
        key: u64,
        victim: u64,
        kind: ReservationType,
        abort: bool,
    ) -> Result<Effect, VolumeError> {
        self.check_key(host, key)?;
        let takes_over = match self.held {
            Some(Held { holder: Some(holder), .. }) => self.key_of(holder) == Some(victim),
            Some(Held { holder: None, .. }) => victim == 0,
            None => false,
        };
        if victim == 0 && !takes_over {
            return Err(VolumeError::Invalid);
        }
        let is_victim = |other: &Registration| {
            (victim == 0 || other.key == victim) && !(takes_over && other.host == host)
        };
        let victims: Vec<HostId> =
            self.registrants.iter().filter(|other| is_victim(other)).map(|victim| victim.host).collect();
        if victims.is_empty() && !takes_over {
            return Err(VolumeError::ReservationConflict);
        }
        self.registrants.retain(|registrant| !is_victim(registrant));
        self.count();
        let mut notices: Vec<(HostId, NoticeKind)> = victims
            .iter()
            .filter(|&&victim| victim != host)
            .map(|&victim| (victim, NoticeKind::RegistrationPreempted))
            .collect();
        if takes_over {
            let before = self.held.map(|held| held.kind);
            self.hold(host, kind);
            if before != Some(kind) {
                notices.extend(self.notices_for_others(host, NoticeKind::ReservationReleased));
            }
        } else if self.registrants.is_empty() {
            // All registrants held, and the host has removed itself with the rest.
            self.held = None;
        }
        notices.sort_unstable_by_key(|&(host, _)| host);
        let to_abort = if abort { victims } else { Vec::new() };
        Ok(Effect { changed: true, notices, to_abort })
    }

    fn release(&mut self, host: HostId, key: u64, kind: ReservationType) -> Result<Effect, VolumeError> {
        self.check_key(host, key)?;
        match self.held {
            Some(held) if self.is_holder(host) => {
                if held.kind != kind {
                    return Err(VolumeError::Invalid);
                }
                self.held = None;
                Ok(Effect { changed: true, notices: self.released_notices(host, kind), to_abort: Vec::new() })
            }
            _ => Ok(Effect::default()),
        }
    }

    fn clear(&mut self, host: HostId, key: u64) -> Result<Effect, VolumeError> {
        self.check_key(host, key)?;
        let notices = self.notices_for_others(host, NoticeKind::ReservationPreempted).collect();
        self.registrants.clear();
        self.held = None;
        self.count();
        Ok(Effect { changed: true, notices, to_abort: Vec::new() })
    }

    fn released_notices(&self, by: HostId, kind: ReservationType) -> Vec<(HostId, NoticeKind)> {
        if !concerns_registrants(kind) {
            return Vec::new();
        }
        self.notices_for_others(by, NoticeKind::ReservationReleased).collect()
    }

    fn notices_for_others(
        &self,
        by: HostId,
        kind: NoticeKind,
    ) -> impl Iterator<Item = (HostId, NoticeKind)> + '_ {
        self.registrants
            .iter()
            .map(|other| other.host)
            .filter(move |&host| host != by)
            .map(move |host| (host, kind))
    }
}
