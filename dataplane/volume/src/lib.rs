//! Volumes: what implements [`ashlar_env::Volume`] so far.
//!
//! * [`PassThrough`] serves a disk of the environment as it is.
//! * [`Null`] serves nothing, fast.
//!
//! [`reservation`] is the state machine of persistent reservations, [`range_lock`] keeps overlapping commands
//! apart.
//!
//! **Architecture invariant:** no I/O of its own, no `unsafe`, and nothing but what the environment gives.

mod carry;
pub mod check;
pub mod null;
pub mod pass_through;
pub mod persist;
pub mod range_lock;
pub mod reservation;
pub mod reservation_record;

pub use null::Null;
pub use pass_through::{OpenError, PassThrough, ResizeError, Settings, scratch_pool};
pub use persist::{NoStore, ReservationStore, StoreError};
pub use reservation::Reservations;
