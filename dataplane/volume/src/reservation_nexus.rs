//! What only SCSI asks of the reservation state: SPC-4's REGISTER and REGISTER AND MOVE (sections 5.13.7 and 5.13.8),
//! and SPC-2's RESERVE and RELEASE of the unit as a whole, with the exceptions that SPC-4 makes for hosts that use both
//! (section 5.13.3, CRH).

use std::sync::Arc;

use ashlar_env::VolumeError;
use ashlar_env::reservation::{HostId, Nexus, NexusAction};
use ashlar_env::volume::Issuer;

use crate::reservation::{
    Effect, Held, Registration, Reservations, UnitHolder, all_registrants_hold, concerns_registrants,
};

/// What became of a state's visible part.
const CHANGED: Effect = Effect { changed: true, notices: Vec::new(), to_abort: Vec::new() };

/// What a REGISTER asks for.
struct Register<'a> {
    nexus: &'a Arc<Nexus>,
    key: u64,
    new_key: u64,
    ignore_key: bool,
    persist: bool,
}

/// What a REGISTER AND MOVE asks for.
struct Move<'a> {
    to: &'a Arc<Nexus>,
    key: u64,
    new_key: u64,
    unregister: bool,
    persist: bool,
}

impl Reservations {
    /// Does what the nexus of `issuer` asks.
    ///
    /// # Errors
    /// [`VolumeError::ReservationConflict`], [`VolumeError::Invalid`] (a nexus that is not the issuer's, a move to the
    /// issuer itself or under key 0), [`VolumeError::TooManyRegistrants`]; the state is then as it was.
    pub fn apply_nexus(&mut self, issuer: Issuer, action: &NexusAction) -> Result<Effect, VolumeError> {
        use NexusAction as A;
        let host = issuer.host;
        match *action {
            A::Register { .. } | A::Move { .. } if self.unit.is_some() => {
                Err(VolumeError::ReservationConflict)
            }
            A::Register { ref nexus, key, new_key, ignore_key, persist } => {
                self.register_nexus(host, &Register { nexus, key, new_key, ignore_key, persist })
            }
            A::Move { ref to, key, new_key, unregister, persist } => {
                self.move_to(host, &Move { to, key, new_key, unregister, persist })
            }
            A::ReserveUnit => self.reserve_unit(issuer),
            A::ReleaseUnit => self.release_unit(issuer),
            A::ResetUnit => Ok(Effect { changed: self.unit.take().is_some(), ..Effect::default() }),
        }
    }

    fn register_nexus(&mut self, host: HostId, ask: &Register<'_>) -> Result<Effect, VolumeError> {
        if ask.nexus.host() != host {
            return Err(VolumeError::Invalid);
        }
        let persist = Some(ask.persist);
        match self.find(host) {
            Ok(at) if !ask.ignore_key && self.registrants[at].key != ask.key => {
                return Err(VolumeError::ReservationConflict);
            }
            Err(_) if !ask.ignore_key && ask.key != 0 => return Err(VolumeError::ReservationConflict),
            Ok(at) if ask.new_key == 0 => return Ok(self.removed(at, persist)),
            Err(_) if ask.new_key == 0 => return Ok(Effect::default()),
            Ok(at) => {
                self.registrants[at].key = ask.new_key;
                self.registrants[at].nexus = Some(Arc::clone(ask.nexus));
            }
            Err(at) => self.insert(at, registration(ask.nexus, ask.new_key))?,
        }
        Ok(self.registered(persist))
    }

    fn move_to(&mut self, host: HostId, ask: &Move<'_>) -> Result<Effect, VolumeError> {
        self.check_key(host, ask.key)?;
        let kind = match self.held {
            Some(held) if held.holder == Some(host) && !all_registrants_hold(held.kind) => held.kind,
            _ => return Err(VolumeError::ReservationConflict),
        };
        let to = ask.to.host();
        if ask.new_key == 0 || to == host {
            return Err(VolumeError::Invalid);
        }
        match self.find(to) {
            Ok(at) => self.registrants[at].key = ask.new_key,
            Err(at) => self.insert(at, registration(ask.to, ask.new_key))?,
        }
        self.held = Some(Held { kind, holder: Some(to) });
        if ask.unregister {
            let at = self.find(host).expect("its key was checked");
            self.registrants.remove(at);
        }
        Ok(self.registered(Some(ask.persist)))
    }

    /// What RESERVE and RELEASE mean while there are registrants: no effect for those who share in the reservation,
    /// a conflict for everyone else. `None` where there are none.
    fn beside_registrants(&self, host: HostId) -> Option<Result<Effect, VolumeError>> {
        if self.registrants.is_empty() {
            return None;
        }
        let shares =
            self.held.is_some_and(|held| concerns_registrants(held.kind)) && self.key_of(host).is_some();
        let tolerated = shares || self.is_holder(host);
        Some(if tolerated { Ok(Effect::default()) } else { Err(VolumeError::ReservationConflict) })
    }

    fn reserve_unit(&mut self, issuer: Issuer) -> Result<Effect, VolumeError> {
        if let Some(answer) = self.beside_registrants(issuer.host) {
            return answer;
        }
        if self.unit.is_some_and(|unit| unit.host != issuer.host) {
            return Err(VolumeError::ReservationConflict);
        }
        self.unit = Some(UnitHolder { host: issuer.host, session: issuer.session });
        Ok(CHANGED)
    }

    fn release_unit(&mut self, issuer: Issuer) -> Result<Effect, VolumeError> {
        if let Some(answer) = self.beside_registrants(issuer.host) {
            return answer;
        }
        let unit = UnitHolder { host: issuer.host, session: issuer.session };
        if self.unit == Some(unit) {
            self.unit = None;
            return Ok(CHANGED);
        }
        Ok(Effect::default())
    }
}

fn registration(nexus: &Arc<Nexus>, key: u64) -> Registration {
    Registration { host: nexus.host(), key, nexus: Some(Arc::clone(nexus)) }
}
