//! The environment: all that the storage engine, the targets and the cluster may know of the world.
//!
//! Code above this crate reaches a disk, a socket, the time, randomness, another task or another reactor
//! only through the traits here. `ashlar-runtime` implements them on Linux, `ashlar-sim` as a deterministic
//! simulator; one conformance suite (`ashlar-sim`, `conformance`) runs against both.
//!
//! **Architecture invariant:** this crate depends on nothing of ours, makes no system call and holds no
//! `unsafe`.

pub mod buf;
pub mod clock;
pub mod disk;
pub mod mesh;
pub mod net;
pub mod reservation;
pub mod rng;
pub mod slots;
pub mod spawn;
pub mod units;
pub mod volume;

pub use buf::{Buf, BufMut, BufPool};
pub use clock::{Clock, Instant};
pub use disk::{Disk, DiskError, DiskInfo};
pub use mesh::{Mesh, ReactorId};
pub use net::{Listener, Net, Stream};
pub use rng::Rng;
pub use slots::{SlotId, Slots};
pub use spawn::Spawn;
pub use volume::{Volume, VolumeError};

/// Everything a task on a reactor is handed: the traits of this crate in one name.
///
/// Cloning is cheap (a reference count); each reactor has its own.
pub trait Env: Clock + Rng + Spawn + Net + Clone + 'static {
    /// The I/O buffers of this reactor.
    fn buffers(&self) -> &BufPool;
}
