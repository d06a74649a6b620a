//! The host model of the NVMe/TCP target's own simulation.

#[path = "../../../target-nvmeof/tests/sim/host.rs"]
pub mod host;
#[path = "../../../target-nvmeof/tests/sim/queue.rs"]
pub mod queue;

/// What the host connects to.
pub mod node {
    pub const SUBSYSTEM: &str = "nqn.2026-11.io.ashlar:simulated";
    pub const PORT: u16 = 4420;
}

pub(crate) use super::Plan;
