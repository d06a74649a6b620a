//! One controller.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ashlar_env::clock::Instant;
use ashlar_env::reservation::HostId;

use super::error_log::ErrorLog;
use super::events::Events;
use super::features::Features;
use super::keep_alive::KeepAlive;
use super::property::Properties;
use super::reservation::Notifications;
use super::{ConnectionId, ControllerShared};

/// A controller: what one admin Connect made.
#[derive(Debug)]
pub(super) struct Controller {
    pub cntlid: u16,
    pub subsystem: String,
    pub host_nqn: String,
    pub host: HostId,
    pub discovery: bool,
    /// The address the host connected to.
    pub local: SocketAddr,
    pub connected: Instant,
    /// Changes with every reset, so that an I/O queue made after it is not taken for one made before.
    pub session: u64,
    pub shared: Arc<ControllerShared>,
    pub admin: ConnectionId,
    /// The I/O queues, by QID.
    pub io: BTreeMap<u16, ConnectionId>,
    /// I/O queues the host may have.
    pub io_granted: u16,
    pub properties: Properties,
    pub features: Features,
    pub events: Events,
    pub errors: ErrorLog,
    pub notifications: Notifications,
    pub keep_alive: KeepAlive,
    /// Identify Controller was read since the controller was enabled.
    pub identified: bool,
    /// Commands that a volume executes (see [`super::Effect::Reserve`]): by CID, whether it asks or sets.
    pub reserving: BTreeMap<u16, super::reservation::Persistence>,
}

impl Controller {
    /// Forgets what a controller reset forgets (Base, section 3.7.2).
    pub fn reset(&mut self, session: u64, now: Instant) {
        self.session = session;
        self.events.reset();
        self.features = Features::new(now);
        self.identified = false;
        self.shared.volatile_cache_announced.store(false, Ordering::Relaxed);
        self.set_ready(false);
    }

    /// The host reads Identify Controller, which tells whether there is a volatile cache. Only the first time
    /// counts: that is when the host's driver makes up its mind whether to flush, and what an administrator's
    /// tool reads later does not reach it.
    pub fn note_identified(&mut self, has_volatile_cache: bool) {
        if !self.identified {
            self.identified = true;
            self.shared.volatile_cache_announced.store(has_volatile_cache, Ordering::Relaxed);
        }
    }

    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Ordering::Relaxed);
    }
}
