//! What an operator sees of the controllers.

use std::sync::Arc;

use ashlar_env::clock::Instant;
use ashlar_env::reservation::HostId;

use super::{ControllerShared, Hub};

/// One controller.
#[derive(Clone, Debug)]
pub struct ControllerReport {
    /// The subsystem's NQN.
    pub subsystem: String,
    /// The host's NQN.
    pub host_nqn: String,
    /// The host's identifier.
    pub host: HostId,
    /// The controller's number.
    pub cntlid: u16,
    /// Its session.
    pub session: u64,
    /// A controller of the discovery subsystem.
    pub discovery: bool,
    /// Its I/O queues.
    pub io_queues: u16,
    /// The keep-alive timeout in force, milliseconds; 0 for none.
    pub keep_alive_ms: u32,
    /// Since when it is connected.
    pub connected: Instant,
    /// Whether it is ready, and its counters.
    pub shared: Arc<ControllerShared>,
}

impl Hub {
    /// All controllers, by their numbers.
    #[must_use]
    pub fn report(&self) -> Vec<ControllerReport> {
        (self.controllers.values())
            .map(|controller| ControllerReport {
                subsystem: controller.subsystem.clone(),
                host_nqn: controller.host_nqn.clone(),
                host: controller.host,
                cntlid: controller.cntlid,
                session: controller.session,
                discovery: controller.discovery,
                io_queues: controller.io.len() as u16,
                keep_alive_ms: controller.keep_alive.timeout_ms,
                connected: controller.connected,
                shared: Arc::clone(&controller.shared),
            })
            .collect()
    }
}
