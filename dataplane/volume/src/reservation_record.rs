//! The stored form of a reservation state, checked when it is read back.

use std::sync::Arc;

use ashlar_env::reservation::{HostId, Nexus, ReservationType};
use serde::{Deserialize, Serialize};

use crate::reservation::{Held, REGISTRANTS_MAX, Registration, Reservations, all_registrants_hold};

/// A reservation state as it is stored. Hosts are their 128-bit identifiers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationRecord {
    /// The generation counter.
    pub generation: u32,
    /// Whether the state survives power loss.
    pub persist: bool,
    /// The code of the type held (NVMe RTYPE), if any.
    pub kind: Option<u8>,
    /// Who holds, where one host does.
    pub holder: Option<[u8; 16]>,
    /// Host and key, ascending by host.
    pub registrants: Vec<([u8; 16], u64)>,
    /// The SCSI nexuses among the registrants, in the same order. Absent where there are none, as in records written
    /// before there was iSCSI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nexuses: Vec<NexusRecord>,
}

/// A SCSI nexus as it is stored. Its host follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NexusRecord {
    /// The initiator's name.
    pub initiator: String,
    /// The initiator session id.
    pub isid: [u8; 6],
    /// The relative target port identifier.
    pub port: u16,
}

/// Why a stored reservation state is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// more hosts than can be registered
    #[error("the stored reservation state has more than {REGISTRANTS_MAX} registrants")]
    TooManyRegistrants,
    /// hosts out of order or twice, or a key of 0
    #[error("the stored reservation state has registrants out of order, twice, or without a key")]
    Registrants,
    /// an unknown type, or a holder that does not go with it
    #[error("the stored reservation state has an impossible type or holder")]
    Holder,
    /// a nexus that none can be, that is not registered, or out of order
    #[error(
        "the stored reservation state has a SCSI nexus that is impossible, not registered, or out of order"
    )]
    Nexus,
}

impl From<Reservations> for ReservationRecord {
    fn from(state: Reservations) -> Self {
        let nexus = |registration: &Registration| {
            registration.nexus.as_ref().map(|nexus| NexusRecord {
                initiator: nexus.initiator().to_owned(),
                isid: nexus.isid(),
                port: nexus.port(),
            })
        };
        Self {
            generation: state.generation,
            persist: state.persist,
            kind: state.held.map(|held| held.kind as u8),
            holder: state.held.and_then(|held| held.holder).map(|host| host.0),
            registrants: state.registrants.iter().map(|one| (one.host.0, one.key)).collect(),
            nexuses: state.registrants.iter().filter_map(nexus).collect(),
        }
    }
}

impl TryFrom<ReservationRecord> for Reservations {
    type Error = RecordError;

    fn try_from(record: ReservationRecord) -> Result<Self, RecordError> {
        if record.registrants.len() > REGISTRANTS_MAX {
            return Err(RecordError::TooManyRegistrants);
        }
        let ascending = record.registrants.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !ascending || record.registrants.iter().any(|&(_, key)| key == 0) {
            return Err(RecordError::Registrants);
        }
        let mut registrants: Vec<_> = (record.registrants.into_iter())
            .map(|(host, key)| Registration { host: HostId(host), key, nexus: None })
            .collect();
        name(&mut registrants, &record.nexuses)?;
        let registered = |host: HostId| registrants.iter().any(|other| other.host == host);
        let held = match (record.kind, record.holder.map(HostId)) {
            (None, None) => None,
            (None, Some(_)) => return Err(RecordError::Holder),
            (Some(code), holder) => {
                let kind = ReservationType::from_code(code).ok_or(RecordError::Holder)?;
                let possible = match holder {
                    Some(host) => !all_registrants_hold(kind) && registered(host),
                    None => all_registrants_hold(kind) && !registrants.is_empty(),
                };
                if !possible {
                    return Err(RecordError::Holder);
                }
                Some(Held { kind, holder })
            }
        };
        Ok(Self { generation: record.generation, persist: record.persist, held, registrants, unit: None })
    }
}

/// Gives the registrants their nexuses, which come in the same order.
fn name(registrants: &mut [Registration], records: &[NexusRecord]) -> Result<(), RecordError> {
    let mut rest = registrants.iter_mut();
    for record in records {
        let nexus = Nexus::new(&record.initiator, record.isid, record.port).ok_or(RecordError::Nexus)?;
        let host = nexus.host();
        let registration = rest.find(|other| other.host == host).ok_or(RecordError::Nexus)?;
        registration.nexus = Some(Arc::new(nexus));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ReservationRecord {
        ReservationRecord {
            generation: 3,
            persist: true,
            kind: Some(1),
            holder: Some([1; 16]),
            registrants: vec![([1; 16], 10), ([2; 16], 20)],
            nexuses: Vec::new(),
        }
    }

    fn with_nexuses() -> ReservationRecord {
        let nexus = |n| NexusRecord {
            initiator: format!("iqn.2026-01.test:{n}"),
            isid: [n; 6],
            port: 1 + u16::from(n),
        };
        let host = |one: &NexusRecord| Nexus::new(&one.initiator, one.isid, one.port).unwrap().host().0;
        let mut nexuses = vec![nexus(1), nexus(2), nexus(3)];
        nexuses.sort_by_key(host);
        let mut registrants: Vec<_> = nexuses.iter().map(|one| (host(one), 7)).collect();
        registrants.insert(0, ([0; 16], 8));
        ReservationRecord { kind: Some(5), holder: None, registrants, nexuses, ..record() }
    }

    #[test]
    fn nexuses_survive_the_round_trip_and_old_records_have_none() {
        let state = Reservations::try_from(with_nexuses()).unwrap();
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<Reservations>(&text).unwrap(), state);
        assert_eq!(state.report().registrants.iter().filter(|one| one.nexus.is_some()).count(), 3);
        assert_eq!(ReservationRecord::from(state), with_nexuses());
        let old = r#"{"generation":3,"persist":true,"kind":1,"holder":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],
            "registrants":[[[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],10],[[2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2],20]]}"#;
        assert_eq!(serde_json::from_str::<ReservationRecord>(old).unwrap(), record());
    }

    #[test]
    fn the_largest_state_fits_the_store() {
        let name = "n".repeat(ashlar_env::reservation::INITIATOR_NAME_BYTES_MAX);
        let mut nexuses: Vec<_> = (0..256)
            .map(|port| NexusRecord { initiator: name.clone(), isid: [255; 6], port: 65000 + port })
            .collect();
        let host = |one: &NexusRecord| Nexus::new(&one.initiator, one.isid, one.port).unwrap().host().0;
        nexuses.sort_by_key(host);
        let registrants = nexuses.iter().map(|one| (host(one), u64::MAX)).collect();
        let largest = ReservationRecord { kind: Some(5), holder: None, registrants, nexuses, ..record() };
        let state = Reservations::try_from(largest).unwrap();
        assert!(serde_json::to_vec(&state).unwrap().len() <= 256 << 10);
    }

    #[test]
    fn a_state_survives_the_round_trip_as_json() {
        let state = Reservations::try_from(record()).unwrap();
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<Reservations>(&text).unwrap(), state);
        assert_eq!(ReservationRecord::from(state), record());
    }

    #[test]
    fn impossible_states_are_refused() {
        let refuse = |change: fn(&mut ReservationRecord), why| {
            let mut record = record();
            change(&mut record);
            assert_eq!(Reservations::try_from(record), Err(why));
        };
        refuse(|r| r.kind = Some(0), RecordError::Holder);
        refuse(|r| r.kind = Some(7), RecordError::Holder);
        refuse(|r| r.kind = Some(5), RecordError::Holder);
        refuse(|r| r.kind = None, RecordError::Holder);
        refuse(|r| r.holder = None, RecordError::Holder);
        refuse(|r| r.holder = Some([3; 16]), RecordError::Holder);
        refuse(|r| r.registrants.reverse(), RecordError::Registrants);
        refuse(|r| r.registrants[0].1 = 0, RecordError::Registrants);
        refuse(|r| r.registrants[1].0 = [1; 16], RecordError::Registrants);
        let many = |r: &mut ReservationRecord| {
            r.registrants = (0..257_u128).map(|n| ((n + 1).to_be_bytes(), 1)).collect();
        };
        refuse(many, RecordError::TooManyRegistrants);
        let refuse = |change: fn(&mut ReservationRecord)| {
            let mut record = with_nexuses();
            change(&mut record);
            assert_eq!(Reservations::try_from(record), Err(RecordError::Nexus));
        };
        refuse(|r| r.nexuses.reverse());
        refuse(|r| r.nexuses[0].port += 9);
        refuse(|r| r.nexuses[1] = r.nexuses[0].clone());
        refuse(|r| r.nexuses[2].initiator = "a,b".into());
        refuse(|r| r.registrants.truncate(3));
    }
}
