//! Taking a device out: what it holds moves to the others, while volumes are in use.

use std::rc::Rc;
use std::time::Duration;

use ashlar_cluster::service::Progress;
use ashlar_cluster::state::{Action, Reason, RefusalKind};
use ashlar_engine::chunks::Chunks;
use ashlar_env::{Clock, Spawn};
use uuid::Uuid;

use super::home::Home;
use crate::node::reservations::Control;

/// How often segments that are being written are ended and moved, before the drain is given up: each round leaves fewer.
const ROUNDS_MAX: u32 = 16;

/// How long a drain waits before it looks for the control plane again.
const CONTROL_PAUSE: Duration = Duration::from_millis(10);

impl Home {
    /// Whether the other devices have room for what `device` holds.
    pub fn check_drain(&self, device: Uuid) -> Result<(), Reason> {
        let stores = self.groups.pool().stores();
        let Some(drained) = stores.iter().find(|store| store.info().device == device) else {
            return Err(Reason::new(RefusalKind::NotFound, "the device is not in use on this node"));
        };
        let needed = drained.info();
        let used = u64::from(needed.slots.saturating_sub(drained.free_with_reserve()));
        let others =
            stores.iter().map(|store| store.info()).filter(|info| info.device != device && !info.failed);
        let room: u64 = others.map(|info| u64::from(info.free)).sum();
        if room < used {
            let chunk = u64::from(needed.chunk_bytes);
            let why = format!(
                "it holds {} bytes, and the other devices have {} bytes free",
                used * chunk,
                room * chunk
            );
            return Err(Reason::new(RefusalKind::NoSpace, why).next("add a device first, or delete data"));
        }
        Ok(())
    }

    /// Begins to move what `device` holds; says so to the control plane when it has ended.
    pub fn drain(self: Rc<Self>, device: Uuid, operation: u64, control: Control) {
        let home = Rc::clone(&self);
        self.env().spawn(async move {
            let failure = home.move_all(device, operation).await.err();
            home.drains.borrow_mut().remove(&operation);
            // One that goes on when the node starts may end before there is a control plane to tell.
            let control = loop {
                match control.get() {
                    Some(control) => break control,
                    None => home.env().sleep_until(home.env().now().plus(CONTROL_PAUSE)).await,
                }
            };
            if let Err(refusal) = control.submit(Action::FinishOperation { operation, failure }).await {
                tracing::error!(operation, "the end of a drain was not kept: {}", refusal.why);
            }
        });
    }

    async fn move_all(&self, device: Uuid, operation: u64) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            let note = |progress: ashlar_engine::store::pool::Progress| {
                let chunk = 16u64 << 20;
                let done_bytes = progress.bytes_moved;
                let left = (progress.chunks_total - progress.chunks_moved) as u64 * chunk;
                let total_bytes = done_bytes + left;
                self.drains.borrow_mut().insert(operation, Progress { done_bytes, total_bytes });
            };
            let drained = self.groups.pool().drain(device, note).await.map_err(|error| error.to_string())?;
            if !drained.unreadable.is_empty() {
                return Err(format!("{} segments of the device cannot be read", drained.unreadable.len()));
            }
            if drained.open.is_empty() {
                return Ok(());
            }
            for group in self.groups.open_groups() {
                if let Some(lane) = self.groups.lane(group) {
                    lane.roll().await.map_err(|error| error.to_string())?;
                }
            }
        }
        Err("segments of the device are still being written".into())
    }
}
