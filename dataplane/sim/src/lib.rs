//! The environment as a deterministic simulator.
//!
//! One thread, one seed. [`Sim`] runs nodes with reactors, links between them, a model of TCP and a model of
//! disks in virtual time; [`SimEnv`] is what a task is handed and implements the traits of `ashlar-env`. Two
//! runs of one seed do exactly the same.
//!
//! ```
//! use ashlar_env::{Clock, Instant, Listener, Net};
//! use ashlar_sim::{Profile, Sim};
//!
//! let sim = Sim::new(7, Profile::swarm(7));
//! let server = sim.node("server", 2);
//! let host = sim.node("host", 1);
//! let address = (server.ip(0), 4420).into();
//! sim.spawn_on(server, 0, move |env| async move {
//!     let listener = env.listen(address).unwrap();
//!     while let Ok((accepted, _)) = listener.accept().await {
//!         drop(env.adopt(accepted));
//!     }
//! });
//! sim.goal_on(host, 0, move |env| async move {
//!     let _ = env.connect(address).await;
//! });
//! let report = sim.run().unwrap_or_else(|failure| panic!("{failure}"));
//! assert!(report.steps > 0);
//! ```
//!
//! **Architecture invariant:** nothing here reads a clock, a random device, the environment or the network of
//! the machine, and no order depends on addresses or on hashing.

pub mod check;
pub mod conformance;
mod disk;
mod event;
mod executor;
pub mod faults;
pub mod marks;
mod mesh;
mod net;
mod node;
pub mod planted;
pub mod rng;
pub mod scenario;
mod world;

pub use disk::{DiskGeometry, DiskId, DiskImage, SimDisk};
pub use event::{Event, EventLog, Kind};
pub use executor::{Control, Crash, Failure, Report, Sim};
pub use faults::Profile;
pub use marks::Marks;
pub use mesh::SimMesh;
pub use net::{SimAccepted, SimListener, SimStream};
pub use node::{NodeId, SimEnv};
pub use planted::Planted;
pub use rng::{Prng, Rate};
