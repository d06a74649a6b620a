//! Where reservations are kept through power loss: in the control state.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use ashlar_cluster::service::ControlHandle;
use ashlar_cluster::state::{RefusalKind, Reservation, VolumeId};
use ashlar_volume::reservation_record::ReservationRecord;
use ashlar_volume::{ReservationStore, Reservations, StoreError};

/// The control plane, once it is there: reactors start before it.
pub(crate) type Control = Arc<OnceLock<ControlHandle>>;

/// The store of one volume's reservations.
#[derive(Clone)]
pub(crate) struct KeptReservations {
    control: Control,
}

impl KeptReservations {
    pub fn new(control: Control) -> Self {
        Self { control }
    }
}

/// The state that a volume starts with.
///
/// # Errors
/// Why what is stored is not a reservation state.
pub(crate) fn restore(stored: Option<&Reservation>) -> Result<Reservations, String> {
    let Some(stored) = stored else { return Ok(Reservations::default()) };
    let record: ReservationRecord =
        serde_json::from_slice(&stored.blob).map_err(|error| error.to_string())?;
    let state = Reservations::try_from(record).map_err(|error| error.to_string())?;
    Ok(state.after_power_loss())
}

impl ReservationStore for KeptReservations {
    fn save(
        &self,
        volume: ashlar_env::units::VolumeId,
        state: &Reservations,
    ) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let blob = serde_json::to_vec(&ReservationRecord::from(state.clone()));
        let control = Arc::clone(&self.control);
        async move {
            let blob = blob.map_err(|error| StoreError::Failed(error.to_string()))?;
            let control = control.get().ok_or_else(|| StoreError::Failed("the node is starting".into()))?;
            match control.save_reservation(VolumeId(volume.0), blob).await {
                Ok(()) => Ok(()),
                Err(refusal) if refusal.kind == RefusalKind::NoSpace => Err(StoreError::NoSpace),
                Err(refusal) => Err(StoreError::Failed(refusal.why)),
            }
        }
    }
}
