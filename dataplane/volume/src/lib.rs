//! Volumes: what implements [`ashlar_env::Volume`] so far.
//!
//! * [`PassThrough`] serves a disk of the environment as it is.
//! * [`Null`] serves nothing, fast.
//! * [`Remote`] is a volume that lives on another reactor; an [`Exchange`] per reactor connects them.
//! * [`AnyVolume`] is any of these.
//!
//! [`reservation`] is the state machine of persistent reservations, [`range_lock`] keeps overlapping commands
//! apart.
//!
//! **Architecture invariant:** no I/O of its own, no `unsafe`, and nothing but what the environment gives.

pub mod any;
mod carry;
pub mod check;
pub mod null;
pub mod pass_through;
pub mod persist;
pub mod range_lock;
pub mod remote;
pub mod reservation;
mod reservation_nexus;
pub mod reservation_record;

pub use any::AnyVolume;
pub use null::Null;
pub use pass_through::{OpenError, PassThrough, ResizeError, Settings, scratch_pool};
pub use persist::{NoStore, ReservationStore, StoreError};
pub use remote::{Exchange, Remote, VolumeMessage};
pub use reservation::Reservations;
