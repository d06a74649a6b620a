//! I_T nexuses, and the unit attentions that wait for them (SAM-5, section 5.14).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ashlar_env::reservation;
use ashlar_env::units::VolumeId;
use ashlar_env::volume::Issuer;

use super::lock;
use super::sense::Asc;
use super::shared::Shared;

/// The most unit attentions that wait for one nexus and unit; further ones are joined into POWER ON, RESET.
const WAITING_MAX: usize = 8;

/// The ports a nexus is between.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NexusName {
    /// The initiator's iSCSI name, in lower case.
    pub initiator: String,
    /// The session's ISID: with the name, the initiator port.
    pub isid: [u8; 6],
    /// The target's iSCSI name, in lower case.
    pub target: String,
    /// The portal group tag: with the name, the target port; and the relative target port identifier.
    pub portal_tag: u16,
}

/// A nexus as all reactors see it.
#[derive(Debug)]
pub struct NexusState {
    /// The ports.
    pub name: NexusName,
    /// The nexus as reservations know it.
    pub reservation: Arc<reservation::Nexus>,
    /// Whom reservations are keyed by, and the session.
    pub issuer: Issuer,
    /// Whether any unit attention waits: what the fast path looks at.
    any: AtomicBool,
    waiting: Mutex<BTreeMap<VolumeId, Vec<Asc>>>,
    /// Units that it may have reserved as a whole.
    reserved: Mutex<BTreeSet<VolumeId>>,
}

impl NexusState {
    /// `None` where the initiator's name is none.
    pub(super) fn new(name: NexusName, session: u64) -> Option<Self> {
        let reservation = reservation::Nexus::new(&name.initiator, name.isid, name.portal_tag)?;
        let issuer = Issuer { host: reservation.host(), session };
        Some(Self {
            name,
            reservation: Arc::new(reservation),
            issuer,
            any: AtomicBool::new(false),
            waiting: Mutex::default(),
            reserved: Mutex::default(),
        })
    }

    /// Takes note of a unit that it may have reserved as a whole: that ends with the session.
    pub(super) fn note_reserved(&self, unit: VolumeId) {
        lock(&self.reserved).insert(unit);
    }

    /// The units that it may have reserved as a whole.
    pub(super) fn take_reserved(&self) -> BTreeSet<VolumeId> {
        std::mem::take(&mut *lock(&self.reserved))
    }

    /// Adds a unit attention for a unit. One that waits already does not wait twice, and POWER ON, RESET stands for all
    /// before it.
    pub fn raise(&self, unit: VolumeId, what: Asc) {
        let mut waiting = lock(&self.waiting);
        let queue = waiting.entry(unit).or_default();
        if what == Asc::POWER_ON || queue.len() >= WAITING_MAX {
            queue.clear();
            queue.push(Asc::POWER_ON);
        } else if !queue.contains(&what) {
            queue.push(what);
        }
        self.any.store(true, Ordering::Release);
    }

    /// Whether a unit attention waits for any unit.
    #[must_use]
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes the unit attention of `unit` that is to be told next.
    #[must_use]
    pub fn take(&self, unit: VolumeId) -> Option<Asc> {
        let mut waiting = lock(&self.waiting);
        let queue = waiting.get_mut(&unit)?;
        let first = (!queue.is_empty()).then(|| queue.remove(0));
        waiting.retain(|_, queue| !queue.is_empty());
        self.any.store(!waiting.is_empty(), Ordering::Release);
        first
    }

    /// Forgets a unit attention for every unit: the initiator has learned of it in another way.
    pub fn clear(&self, what: Asc) {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|_, queue| {
            queue.retain(|asc| *asc != what);
            !queue.is_empty()
        });
        self.any.store(!waiting.is_empty(), Ordering::Release);
    }
}

/// A session's nexus with a target. Dropping it ends the nexus.
#[derive(Debug)]
pub struct Nexus {
    pub(super) state: Arc<NexusState>,
    pub(super) shared: Arc<Shared>,
}

impl Nexus {
    /// The ports.
    #[must_use]
    pub fn name(&self) -> &NexusName {
        &self.state.name
    }

    /// Who issues this nexus' operations.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        self.state.issuer
    }

    /// The nexus as all reactors see it.
    #[must_use]
    pub fn state(&self) -> &Arc<NexusState> {
        &self.state
    }

    /// The state that all targets share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Nexus {
    fn drop(&mut self) {
        self.shared.end(self.state.issuer.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> NexusState {
        let name = NexusName {
            initiator: "iqn.2016-04.com.example:a".into(),
            isid: [0; 6],
            target: "iqn.2016-04.com.example:t".into(),
            portal_tag: 1,
        };
        NexusState::new(name, 1).unwrap()
    }

    #[test]
    fn unit_attentions_come_in_order_and_once() {
        let (state, unit) = (state(), VolumeId(uuid::Uuid::from_u128(1)));
        assert!(!state.any());
        for what in [Asc::CAPACITY_CHANGED, Asc::MODE_CHANGED, Asc::CAPACITY_CHANGED] {
            state.raise(unit, what);
        }
        assert_eq!(state.take(VolumeId(uuid::Uuid::from_u128(2))), None);
        assert_eq!(state.take(unit), Some(Asc::CAPACITY_CHANGED));
        assert_eq!(state.take(unit), Some(Asc::MODE_CHANGED));
        assert_eq!(state.take(unit), None);
        assert!(!state.any());
    }

    #[test]
    fn a_reset_stands_for_what_came_before() {
        let (state, unit) = (state(), VolumeId(uuid::Uuid::from_u128(1)));
        state.raise(unit, Asc::MODE_CHANGED);
        state.raise(unit, Asc::POWER_ON);
        state.raise(unit, Asc::LUNS_CHANGED);
        state.clear(Asc::LUNS_CHANGED);
        assert_eq!(state.take(unit), Some(Asc::POWER_ON));
        assert_eq!(state.take(unit), None);
    }

    #[test]
    fn a_name_that_no_reservation_can_carry_is_refused() {
        let name = NexusName { initiator: "iqn.2016-04.com.example:a,b".into(), ..state().name };
        assert!(NexusState::new(name, 1).is_none());
    }
}
