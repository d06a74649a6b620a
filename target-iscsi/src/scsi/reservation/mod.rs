//! Reservations: PERSISTENT RESERVE IN and OUT (SPC-4), RESERVE and RELEASE (SPC-2).
//!
//! The state is the volume's, one for all nexuses and for NVMe hosts; here are the CDBs and the parameter data. Which
//! unit attentions a change raises is in [`notices`].

pub mod allowed;
pub mod input;
pub mod kind;
mod notices;
pub mod output;
#[cfg(test)]
mod tests;
pub mod transport_id;

use std::future::Future;
use std::sync::Arc;

use ashlar_env::Volume;
use ashlar_env::reservation::{NexusAction, ReservationAction};
use ashlar_env::volume::{Issuer, Operation, Outcome};

use super::nexus::NexusState;
use super::sense::{Failure, Sense};
use super::units::{Context, MappedUnit};
use super::{Answer, Cdb, Data, Status, Step, Units, finish};
use output::{Action, Asker};

pub use notices::Elsewhere;

/// PERSISTENT RESERVE IN.
pub(super) fn persistent_in<V: Volume>(command: &Context<'_, V>, unit: &MappedUnit<V>) -> Step<V> {
    let (volume, issuer) = (unit.volume.clone(), command.nexus.issuer());
    let descriptor = unit.state.descriptor_sense();
    let cdb = &command.request.cdb;
    let (action, allocation_bytes) = (cdb.head[1] & 0x1F, usize::from(cdb.u16(7)));
    Step::Long(Box::pin(async move {
        let told = volume.execute(issuer, Operation::Reserve(ReservationAction::Report)).await;
        let report = match told {
            Ok(Outcome::Reservation { report: Some(report), .. }) => report,
            Ok(_) => return Failure::from(Status::Busy).answer(descriptor),
            Err(error) => return finish::failure(&error).answer(descriptor),
        };
        if report.unit.is_some() {
            // Whosesoever it is (SPC-2, section 5.5.1).
            return Failure::from(Status::ReservationConflict).answer(descriptor);
        }
        match input::parameter_data(action, &report) {
            Some(mut bytes) => {
                bytes.truncate(allocation_bytes);
                Answer::good(Data::from_bytes(bytes))
            }
            None => Failure::from(Sense::cdb_bit(1, 4)).answer(descriptor),
        }
    }))
}

/// PERSISTENT RESERVE OUT.
pub(super) fn persistent_out<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    data: &Data,
) -> Result<Step<V>, Failure> {
    let cdb = &command.request.cdb;
    let action = Action::of(cdb).ok_or_else(|| Sense::cdb_bit(1, 4))?;
    let portals = command.units.portals();
    let asker = Asker {
        nexus: Arc::clone(&command.nexus.state().reservation),
        has_port: &|port| portals.iter().any(|portal| portal.tag == port),
    };
    let operation = output::operation(action, cdb, &data.gather(), &asker)?;
    let (volume, issuer) = (unit.volume.clone(), command.nexus.issuer());
    let (shared, descriptor) = (Arc::clone(command.nexus.shared()), unit.state.descriptor_sense());
    Ok(Step::Long(Box::pin(async move {
        match volume.execute(issuer, operation).await {
            Ok(Outcome::Reservation { notices, .. }) => {
                shared.tell_all(&notices);
                Answer::good(Data::None)
            }
            Ok(_) => Answer::good(Data::None),
            Err(error) => action.failure(&error).answer(descriptor),
        }
    })))
}

/// RESERVE and RELEASE, (6) and (10): of the unit as a whole, for the nexus itself.
pub(super) fn of_unit<V: Volume>(command: &Context<'_, V>, unit: &MappedUnit<V>) -> Result<Step<V>, Failure> {
    // Third parties and extents are obsolete.
    if command.request.cdb.head[1] & 0x1F != 0 {
        return Err(Sense::cdb_bit(1, 4).into());
    }
    let reserves = matches!(command.request.cdb.head[0], 0x16 | 0x56);
    let (volume, issuer) = (unit.volume.clone(), command.nexus.issuer());
    let descriptor = unit.state.descriptor_sense();
    let action = if reserves {
        // Noted before it is tried: should the session end meanwhile, it has to be given up.
        command.nexus.state().note_reserved(volume.info().id);
        NexusAction::ReserveUnit
    } else {
        NexusAction::ReleaseUnit
    };
    Ok(Step::Long(Box::pin(async move {
        match volume.execute(issuer, Operation::ReserveNexus(Box::new(action))).await {
            Ok(_) => Answer::good(Data::None),
            Err(error) => finish::failure(&error).answer(descriptor),
        }
    })))
}

/// What a command waits for before it is begun where others may have reservations: the volume's word. `None` for
/// commands that are always allowed, that ask for themselves, or whose operation is checked by the volume anyway.
pub(super) fn permit<V: Volume>(
    cdb: &Cdb,
    volume: &V,
    issuer: Issuer,
) -> Option<impl Future<Output = Result<(), Failure>> + 'static + use<V>> {
    let access = allowed::rule(cdb).access()?;
    let volume = volume.clone();
    Some(async move {
        let permitted = volume.execute(issuer, Operation::Permit(access)).await;
        permitted.map(drop).map_err(|error| finish::failure(&error))
    })
}

/// What the end of a session does to reservations: units that it reserved as a whole are free again. To be waited for
/// before the session's number could be used again, and run to its end even where the connection is gone.
pub fn end_session<V: Volume>(
    units: &Units<V>,
    nexus: &NexusState,
) -> impl Future<Output = ()> + 'static + use<V> {
    let reserved = nexus.take_reserved();
    let volumes = units.iter().map(|unit| unit.volume.clone());
    let volumes: Vec<V> = volumes.filter(|volume| reserved.contains(&volume.info().id)).collect();
    let issuer = nexus.issuer;
    async move {
        for volume in volumes {
            // A volume that is gone has no reservation.
            let _ = volume.execute(issuer, Operation::ReserveNexus(Box::new(NexusAction::ReleaseUnit))).await;
        }
    }
}

/// What a reset does to reservations of the given units: one of the unit as a whole ends, persistent ones stay. To be
/// waited for before the reset is answered.
pub async fn reset<V: Volume>(volumes: Vec<V>, issuer: Issuer) {
    for volume in volumes {
        let _ = volume.execute(issuer, Operation::ReserveNexus(Box::new(NexusAction::ResetUnit))).await;
    }
}
