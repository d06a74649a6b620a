//! Watching over devices: one that fails is said to the control plane, and copies that are missing are made as soon as
//! there is a device for them.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ashlar_cluster::service::Progress;
use ashlar_cluster::state::Action;
use ashlar_engine::chunks::Chunks;
use ashlar_env::{Clock, Spawn};
use ashlar_runtime::ReactorEnv;
use uuid::Uuid;

use super::home::Home;
use crate::node::reservations::Control;

/// How often devices are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long after copies could not be made it is tried again.
const REBUILD_AGAIN: Duration = Duration::from_secs(60);

/// How long to wait for the control plane.
const CONTROL_PAUSE: Duration = Duration::from_millis(10);

/// Watches for as long as the reactor runs.
pub(super) async fn watch(env: ReactorEnv, home: Rc<Home>, control: Control) {
    let mut told = BTreeSet::new();
    loop {
        env.sleep_until(env.now().plus(LOOK)).await;
        let Some(control) = control.get() else { continue };
        for (device, why) in home.failed_devices() {
            if told.contains(&device) {
                continue;
            }
            match control.submit(Action::FailDevice { device, why }).await {
                Ok(_) => drop(told.insert(device)),
                Err(refusal) => tracing::warn!(%device, "a failure was not kept: {}", refusal.why),
            }
        }
        let others = home.groups.pool().devices_that_take() != home.rebuilt_on.get();
        let is_time = (others || env.now() >= home.rebuild_from.get()) && !home.rebuilding.get();
        if is_time
            && home.groups.copies().values().any(|copies| copies.segments_to_make > 0)
            && let Err(refusal) = control.submit(Action::RebuildCopies).await
        {
            tracing::warn!("copies are not made yet: {}", refusal.why);
        }
    }
}

impl Home {
    /// The devices that take no more writes, and why.
    fn failed_devices(&self) -> Vec<(Uuid, String)> {
        let stores = self.groups.pool().stores();
        stores.iter().filter_map(|store| Some((store.info().device, store.failure()?))).collect()
    }

    /// Begins to make copies that are missing; says so to the control plane when it has ended.
    pub fn rebuild(self: Rc<Self>, operation: u64, control: Control) {
        if self.rebuilding.replace(true) {
            return;
        }
        self.rebuilt_on.set(self.groups.pool().devices_that_take());
        let home = Rc::clone(&self);
        self.env().spawn(async move {
            home.drains.borrow_mut().insert(operation, Progress::default());
            let note = |done_bytes, total_bytes| {
                home.drains.borrow_mut().insert(operation, Progress { done_bytes, total_bytes });
            };
            let rebuilt = home.groups.rebuild(note).await;
            home.drains.borrow_mut().remove(&operation);
            if !matches!(rebuilt, Ok(1..)) {
                home.rebuild_from.set(home.env().now().plus(REBUILD_AGAIN));
            }
            let failure = rebuilt.err().map(|error| error.to_string());
            let control = loop {
                match control.get() {
                    Some(control) => break control,
                    None => home.env().sleep_until(home.env().now().plus(CONTROL_PAUSE)).await,
                }
            };
            if let Err(refusal) = control.submit(Action::FinishOperation { operation, failure }).await {
                tracing::error!(operation, "the end of an operation was not kept: {}", refusal.why);
            }
            home.rebuilding.set(false);
        });
    }
}
