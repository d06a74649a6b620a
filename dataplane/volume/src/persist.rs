//! Reservations in use: one action at a time, stored before it is acknowledged.

use std::cell::{Cell, Ref, RefCell};
use std::future::Future;

use ashlar_env::VolumeError;
use ashlar_env::reservation::{HostId, NexusAction, Notice, ReservationAction};
use ashlar_env::units::{BlockRange, Lba, VolumeId};
use ashlar_env::volume::{Issuer, Outcome};

use crate::range_lock::{Hold, RangeLocks};
use crate::reservation::{Access, Effect, Reservations};

/// Why a reservation state could not be stored or read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// nothing is kept here: persistence through power loss cannot be had
    #[error("reservations of this volume cannot be kept through power loss")]
    Unsupported,
    /// no space is left for it
    #[error("no space is left to store the reservation state")]
    NoSpace,
    /// anything else
    #[error("the reservation state could not be stored: {0}")]
    Failed(String),
}

impl From<StoreError> for VolumeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unsupported => Self::Unsupported,
            StoreError::NoSpace => Self::NoSpace,
            StoreError::Failed(_) => Self::WriteFault,
        }
    }
}

/// Where reservation states outlive the process.
pub trait ReservationStore: 'static {
    /// Stores the state of `volume`, durable before this ends. Called for one state of a volume at a time. A
    /// state that does not persist any more is stored, too: it takes the place of one that did.
    ///
    /// # Errors
    /// The state stored before is then still there, or the new one is.
    fn save(
        &self,
        volume: VolumeId,
        state: &Reservations,
    ) -> impl Future<Output = Result<(), StoreError>> + 'static;
}

/// Keeps nothing: reservations last as long as the process, and asking for more is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStore;

impl ReservationStore for NoStore {
    fn save(
        &self,
        _: VolumeId,
        state: &Reservations,
    ) -> impl Future<Output = Result<(), StoreError>> + 'static {
        std::future::ready(if state.persists() { Err(StoreError::Unsupported) } else { Ok(()) })
    }
}

/// The reservation state of a volume that is being served.
pub(crate) struct Desk<S> {
    volume: VolumeId,
    state: RefCell<Reservations>,
    /// Whether anything is reserved: what each command asks first.
    held: Cell<bool>,
    /// Lets one action in at a time, first come first served.
    turn: RangeLocks,
    store: S,
}

const DESK: BlockRange = BlockRange::new(Lba(0), 1).expect("it is short");

impl<S: ReservationStore> Desk<S> {
    pub(crate) fn new(volume: VolumeId, state: Reservations, store: S) -> Self {
        let held = Cell::new(state.excludes());
        Self { volume, state: RefCell::new(state), held, turn: RangeLocks::default(), store }
    }

    /// Whether `host` may do this now.
    pub(crate) fn check(&self, host: HostId, access: Access) -> Result<(), VolumeError> {
        if !self.held.get() || self.state.borrow().allows(host, access) {
            Ok(())
        } else {
            Err(VolumeError::ReservationConflict)
        }
    }

    /// The state now.
    pub(crate) fn state(&self) -> Ref<'_, Reservations> {
        self.state.borrow()
    }

    /// Does what the host asks, as [`Self::change`].
    pub(crate) async fn act(
        &self,
        host: HostId,
        action: ReservationAction,
        commands: &RangeLocks,
    ) -> Result<Outcome, VolumeError> {
        if action == ReservationAction::Report {
            let _turn = self.turn.request(DESK, Hold::Exclusive, host).granted().await;
            let report = Some(Box::new(self.state.borrow().report()));
            return Ok(Outcome::Reservation { report, notices: Box::default() });
        }
        self.change(host, commands, |state| state.apply(host, action)).await
    }

    /// Does what the nexus asks, as [`Self::change`].
    pub(crate) async fn act_nexus(
        &self,
        issuer: Issuer,
        action: &NexusAction,
        commands: &RangeLocks,
    ) -> Result<Outcome, VolumeError> {
        self.change(issuer.host, commands, |state| state.apply_nexus(issuer, action)).await
    }

    /// Changes the state. The new one is in force once it is stored, and with an abort this ends only after the
    /// commands of the victims in `commands` have.
    async fn change(
        &self,
        host: HostId,
        commands: &RangeLocks,
        apply: impl FnOnce(&mut Reservations) -> Result<Effect, VolumeError>,
    ) -> Result<Outcome, VolumeError> {
        let turn = self.turn.request(DESK, Hold::Exclusive, host).granted().await;
        let mut next = self.state.borrow().clone();
        let Effect { changed, notices, to_abort } = apply(&mut next)?;
        if changed {
            let before = self.state.borrow().clone();
            if (next.persists() || before.persists()) && !next.is_stored_like(&before) {
                self.store.save(self.volume, &next).await?;
            }
            self.held.set(next.excludes());
            *self.state.borrow_mut() = next;
        }
        drop(turn);
        if !to_abort.is_empty() {
            commands.drain(&to_abort).await;
        }
        let volume = self.volume;
        let notices = notices.into_iter().map(|(host, kind)| Notice { volume, host, kind }).collect();
        Ok(Outcome::Reservation { report: None, notices })
    }
}
