//! The stored form of a reservation state, checked when it is read back.

use ashlar_env::reservation::{HostId, ReservationType};
use serde::{Deserialize, Serialize};

use crate::reservation::{Held, REGISTRANTS_MAX, Reservations, all_registrants_hold};

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
}

impl From<Reservations> for ReservationRecord {
    fn from(state: Reservations) -> Self {
        Self {
            generation: state.generation,
            persist: state.persist,
            kind: state.held.map(|held| held.kind as u8),
            holder: state.held.and_then(|held| held.holder).map(|host| host.0),
            registrants: state.registrants.into_iter().map(|(host, key)| (host.0, key)).collect(),
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
        let registrants: Vec<_> =
            record.registrants.into_iter().map(|(host, key)| (HostId(host), key)).collect();
        let registered = |host: HostId| registrants.iter().any(|&(other, _)| other == host);
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
        Ok(Self { generation: record.generation, persist: record.persist, held, registrants })
    }
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
        }
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
    }
}
