//! The reservation state machine against a second one, written as a list of what is true of each host.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use ashlar_env::VolumeError;
use ashlar_env::reservation::{
    HostId, Nexus, NexusAction, NoticeKind, ReservationAction as Action, ReservationType as Type,
};
use ashlar_env::volume::Issuer;
use ashlar_volume::Reservations;
use ashlar_volume::reservation::Access;
use common::host;
use proptest::prelude::*;

/// Registered keys, the type, and for each host whether it holds. Every rule goes over all hosts.
#[derive(Clone, Default)]
struct Model {
    keys: BTreeMap<HostId, u64>,
    kind: Option<Type>,
    holds: BTreeMap<HostId, bool>,
    generation: u32,
    persist: bool,
    /// Who has the unit as a whole, and by which session.
    unit: Option<(HostId, u64)>,
}

fn is_all(kind: Type) -> bool {
    kind as u8 >= 5
}

type Told = Vec<(HostId, NoticeKind)>;

impl Model {
    fn holder(&self, who: HostId) -> bool {
        self.holds.get(&who) == Some(&true)
    }

    fn grant(&mut self, to: HostId, kind: Type) {
        self.kind = Some(kind);
        self.holds = self.keys.keys().map(|&host| (host, is_all(kind) || host == to)).collect();
    }

    /// Drops what the departed held, and a reservation nobody holds.
    fn settle(&mut self) {
        self.holds.retain(|host, _| self.keys.contains_key(host));
        if self.kind.is_some_and(is_all) {
            self.holds = self.keys.keys().map(|&host| (host, true)).collect();
        }
        if !self.holds.values().any(|&holds| holds) {
            self.kind = None;
        }
        if self.kind.is_none() {
            self.holds.clear();
        }
    }

    fn tell(&self, but: HostId, what: NoticeKind) -> Told {
        self.keys.keys().filter(|&&host| host != but).map(|&host| (host, what)).collect()
    }

    fn apply(&mut self, who: HostId, action: Action) -> Result<Told, VolumeError> {
        let own = self.keys.get(&who).copied();
        let conflict = Err(VolumeError::ReservationConflict);
        if self.unit.is_some() && !matches!(action, Action::SetPersist(_) | Action::Report) {
            return conflict;
        }
        let keyed = match action {
            Action::Acquire { key, .. }
            | Action::Preempt { key, .. }
            | Action::Release { key, .. }
            | Action::Clear { key } => Some(key),
            _ => None,
        };
        if keyed.is_some() && keyed != own {
            return conflict;
        }
        match action {
            Action::Register { key: 0, .. } | Action::Replace { new_key: 0, .. } => Err(VolumeError::Invalid),
            Action::Register { key, persist } if own.is_none_or(|own| own == key) => {
                Ok(self.enrol(who, key, persist))
            }
            Action::Replace { key, new_key, ignore_key, persist } if ignore_key || own == Some(key) => {
                Ok(self.enrol(who, new_key, persist))
            }
            Action::Unregister { key, ignore_key, persist }
                if own.is_some() && (ignore_key || own == Some(key)) =>
            {
                let before = self.kind;
                self.keys.remove(&who);
                self.settle();
                self.generation += 1;
                self.persist = persist.unwrap_or(self.persist);
                let released = before.is_some_and(|kind| kind as u8 > 2) && self.kind.is_none();
                Ok(if released { self.tell(who, NoticeKind::ReservationReleased) } else { Vec::new() })
            }
            Action::Register { .. } | Action::Replace { .. } | Action::Unregister { .. } => conflict,
            Action::Acquire { kind, .. } => match self.kind {
                None => {
                    self.grant(who, kind);
                    Ok(Vec::new())
                }
                Some(held) if held == kind && self.holder(who) => Ok(Vec::new()),
                Some(_) => conflict,
            },
            Action::Release { kind, .. } => match self.kind {
                Some(held) if self.holder(who) && held != kind => Err(VolumeError::Invalid),
                Some(_) if self.holder(who) => {
                    self.kind = None;
                    self.holds.clear();
                    let told = kind as u8 > 2;
                    Ok(if told { self.tell(who, NoticeKind::ReservationReleased) } else { Vec::new() })
                }
                _ => Ok(Vec::new()),
            },
            Action::Clear { .. } => {
                let told = self.tell(who, NoticeKind::ReservationPreempted);
                let kept = (self.generation + 1, self.persist);
                *self = Self { generation: kept.0, persist: kept.1, ..Self::default() };
                Ok(told)
            }
            Action::Preempt { victim, kind, .. } => self.preempt(who, victim, kind),
            Action::SetPersist(persist) => {
                self.persist = persist;
                Ok(Vec::new())
            }
            Action::Report => Ok(Vec::new()),
        }
    }

    /// SCSI's own actions, as tables of who is what.
    fn apply_nexus(&mut self, issuer: Issuer, action: &NexusAction) -> Result<Told, VolumeError> {
        let who = issuer.host;
        let own = self.keys.get(&who).copied();
        let conflict = Err(VolumeError::ReservationConflict);
        let registers = matches!(action, NexusAction::Register { .. } | NexusAction::Move { .. });
        if registers && self.unit.is_some() {
            return conflict;
        }
        match *action {
            NexusAction::Register { key, new_key, ignore_key, persist, .. } => {
                match (own, ignore_key || own.unwrap_or(0) == key, new_key) {
                    (_, false, _) => conflict,
                    (None, true, 0) => Ok(Vec::new()),
                    (Some(own), true, 0) => {
                        let (ignore_key, persist) = (false, Some(persist));
                        self.apply(who, Action::Unregister { key: own, ignore_key, persist })
                    }
                    (_, true, new_key) => Ok(self.enrol(who, new_key, Some(persist))),
                }
            }
            NexusAction::Move { ref to, key, new_key, unregister, persist } => {
                let to = to.host();
                if own != Some(key) || !self.holder(who) || self.kind.is_some_and(is_all) {
                    return conflict;
                }
                if to == who || new_key == 0 {
                    return Err(VolumeError::Invalid);
                }
                self.enrol(to, new_key, Some(persist));
                self.grant(to, self.kind.unwrap());
                if unregister {
                    self.keys.remove(&who);
                    self.settle();
                }
                Ok(Vec::new())
            }
            NexusAction::ResetUnit => {
                self.unit = None;
                Ok(Vec::new())
            }
            NexusAction::ReserveUnit | NexusAction::ReleaseUnit if !self.keys.is_empty() => {
                let shares = self.kind.is_some_and(|kind| kind as u8 > 2) && own.is_some();
                if shares || self.holder(who) { Ok(Vec::new()) } else { conflict }
            }
            NexusAction::ReserveUnit => match self.unit {
                Some((other, _)) if other != who => conflict,
                _ => {
                    self.unit = Some((who, issuer.session));
                    Ok(Vec::new())
                }
            },
            NexusAction::ReleaseUnit => {
                self.unit = self.unit.filter(|&unit| unit != (who, issuer.session));
                Ok(Vec::new())
            }
        }
    }

    fn enrol(&mut self, who: HostId, key: u64, persist: Option<bool>) -> Told {
        self.keys.insert(who, key);
        self.settle();
        self.generation += 1;
        self.persist = persist.unwrap_or(self.persist);
        Vec::new()
    }

    fn preempt(&mut self, who: HostId, victim: u64, kind: Type) -> Result<Told, VolumeError> {
        let all = self.kind.is_some_and(is_all);
        let holder_key = self.keys.iter().find(|(host, _)| !all && self.holder(**host)).map(|(_, key)| *key);
        let takes = if victim == 0 { all } else { holder_key == Some(victim) };
        if victim == 0 && !all {
            return Err(VolumeError::Invalid);
        }
        let named = |host: &HostId, key: u64| {
            let by_key = victim == 0 || key == victim;
            by_key && !(takes && *host == who)
        };
        let gone: Vec<HostId> =
            self.keys.iter().filter(|(host, key)| named(host, **key)).map(|(host, _)| *host).collect();
        if gone.is_empty() && !takes {
            return Err(VolumeError::ReservationConflict);
        }
        self.keys.retain(|host, _| !gone.contains(host));
        let mut told: Told = Vec::new();
        if takes {
            if self.kind != Some(kind) {
                told = self.tell(who, NoticeKind::ReservationReleased);
            }
            self.grant(who, kind);
        }
        self.settle();
        self.generation += 1;
        told.extend(
            gone.into_iter()
                .filter(|&host| host != who)
                .map(|host| (host, NoticeKind::RegistrationPreempted)),
        );
        told.sort_by_key(|&(host, _)| host);
        Ok(told)
    }

    fn allows(&self, who: HostId, access: Access) -> bool {
        if let Some((unit, _)) = self.unit {
            return unit == who;
        }
        match self.kind {
            None => true,
            Some(_) if access == Access::Attend => true,
            Some(kind) => {
                let exclusive_reads = (kind as u8).is_multiple_of(2);
                let inside = if kind as u8 <= 2 { self.holder(who) } else { self.keys.contains_key(&who) };
                inside || (access == Access::Read && !exclusive_reads)
            }
        }
    }
}

fn actions() -> impl Strategy<Value = Action> {
    let key = || prop_oneof![3 => 1..4_u64, 1 => Just(0_u64)];
    let kind = || (1..7_u8).prop_map(|code| Type::from_code(code).unwrap());
    let persist = || prop_oneof![Just(None), Just(Some(true)), Just(Some(false))];
    prop_oneof![
        4 => (key(), persist()).prop_map(|(key, persist)| Action::Register { key, persist }),
        1 => (key(), any::<bool>(), persist())
            .prop_map(|(key, ignore_key, persist)| Action::Unregister { key, ignore_key, persist }),
        2 => (key(), key(), any::<bool>(), persist())
            .prop_map(|(key, new_key, ignore_key, persist)| Action::Replace { key, new_key, ignore_key, persist }),
        4 => (key(), kind()).prop_map(|(key, kind)| Action::Acquire { key, kind }),
        3 => (key(), key(), kind(), any::<bool>())
            .prop_map(|(key, victim, kind, abort)| Action::Preempt { key, victim, kind, abort }),
        2 => (key(), kind()).prop_map(|(key, kind)| Action::Release { key, kind }),
        1 => key().prop_map(|key| Action::Clear { key }),
        1 => any::<bool>().prop_map(Action::SetPersist),
    ]
}

fn nexus(n: u8) -> Arc<Nexus> {
    Arc::new(Nexus::new(&format!("iqn.2026-01.test:{n}"), [n; 6], 1).unwrap())
}

/// Hosts 1 to 3 come by NVMe, 4 to 6 by SCSI.
fn who(n: u8) -> HostId {
    if n < 4 { host(n) } else { nexus(n).host() }
}

#[derive(Clone, Debug)]
enum Step {
    Common(u8, Action),
    Scsi(u8, u64, NexusAction),
}

fn steps() -> impl Strategy<Value = Step> {
    let key = || prop_oneof![3 => 1..4_u64, 2 => Just(0_u64)];
    let register = (4..7_u8, key(), key(), any::<bool>(), any::<bool>()).prop_map(
        |(by, key, new_key, ignore_key, persist)| {
            let nexus = nexus(by);
            Step::Scsi(by, 1, NexusAction::Register { nexus, key, new_key, ignore_key, persist })
        },
    );
    let moves = (4..7_u8, 4..7_u8, key(), key(), any::<bool>(), any::<bool>()).prop_map(
        |(by, to, key, new_key, unregister, persist)| {
            let to = nexus(to);
            Step::Scsi(by, 1, NexusAction::Move { to, key, new_key, unregister, persist })
        },
    );
    let unit = prop_oneof![
        2 => Just(NexusAction::ReserveUnit),
        2 => Just(NexusAction::ReleaseUnit),
        1 => Just(NexusAction::ResetUnit),
    ];
    prop_oneof![
        6 => (1..7_u8, actions()).prop_map(|(by, action)| Step::Common(by, action)),
        4 => register,
        1 => moves,
        1 => (4..7_u8, 1..3_u64, unit).prop_map(|(by, session, action)| Step::Scsi(by, session, action)),
    ]
}

/// What must hold of both after every step.
fn compare(state: &Reservations, model: &Model) -> Result<(), TestCaseError> {
    let report = state.report();
    prop_assert_eq!(
        (report.generation, report.kind, report.persist, report.unit),
        (model.generation, model.kind, model.persist, model.unit.map(|(unit, _)| unit))
    );
    let expected: Vec<_> = model.keys.iter().map(|(&host, &key)| (host, key, model.holder(host))).collect();
    let there: Vec<_> = report.registrants.iter().map(|r| (r.host, r.key, r.holder)).collect();
    prop_assert_eq!(there, expected);
    prop_assert!(
        report.registrants.iter().all(|r| r.nexus.as_ref().is_none_or(|nexus| nexus.host() == r.host))
    );
    for who in (1..7).map(who) {
        for access in [Access::Read, Access::Write, Access::Attend] {
            prop_assert_eq!(state.allows(who, access), model.allows(who, access));
        }
        prop_assert!(state.allows(who, Access::Read) || !state.allows(who, Access::Write));
        prop_assert!(state.allows(who, Access::Attend) || !state.allows(who, Access::Read));
    }
    let text = serde_json::to_string(state).unwrap();
    let mut read_back = serde_json::from_str::<Reservations>(&text).unwrap();
    if let Some((host, session)) = model.unit {
        // That one is not kept.
        prop_assert!(read_back.report().unit.is_none());
        read_back.apply_nexus(Issuer { host, session }, &NexusAction::ReserveUnit).unwrap();
    }
    prop_assert_eq!(&read_back, state);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_agree(steps in proptest::collection::vec(steps(), 1..60)) {
        let mut state = Reservations::default();
        let mut model = Model::default();
        for step in steps {
            let (before, model_before) = (state.clone(), model.clone());
            let (done, expected) = match &step {
                Step::Common(by, action) => (state.apply(who(*by), *action), model.apply(who(*by), *action)),
                Step::Scsi(by, session, action) => {
                    let issuer = Issuer { host: who(*by), session: *session };
                    (state.apply_nexus(issuer, action), model.apply_nexus(issuer, action))
                }
            };
            prop_assert_eq!(done.as_ref().map(|effect| &effect.notices), expected.as_ref(), "{:?}", step);
            match done {
                Ok(effect) => {
                    prop_assert!(effect.changed || state == before);
                    prop_assert!(effect.to_abort.is_sorted());
                }
                Err(_) => {
                    prop_assert_eq!(&state, &before);
                    model = model_before;
                }
            }
            compare(&state, &model)?;
        }
    }
}
