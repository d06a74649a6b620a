//! The host model of the iSCSI target's own simulation.

#[path = "../../../target-iscsi/tests/sim/host.rs"]
pub mod host;
#[path = "../../../target-iscsi/tests/sim/link.rs"]
pub mod link;

/// What the host logs in to.
pub mod node {
    pub const TARGET: &str = "iqn.2026-11.io.ashlar:simulated";
    pub const PORT: u16 = 3260;
}

pub(crate) use super::Plan;
