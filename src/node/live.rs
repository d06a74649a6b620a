//! What goes on in the node, gathered from its reactors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ashlar_cluster::api::IoCountersView;
use ashlar_cluster::service::{Live, LiveController, LiveSession, Storage};
use ashlar_cluster::state::{self, State};
use ashlar_iscsi::server::SessionReport;
use ashlar_nvmeof::hub::ControllerReport;
use ashlar_nvmeof::view::addresses_on;

use super::RunningNode;
use super::reactor::here;

/// Adds what the hosts of one protocol did to what was done in all.
macro_rules! add_counts {
    ($view:expr, $counts:expr) => {{
        let (view, counts): (&mut IoCountersView, _) = ($view, $counts);
        view.reads += counts.reads;
        view.writes += counts.writes;
        view.read_bytes += counts.read_bytes;
        view.written_bytes += counts.written_bytes;
        view.flushes += counts.flushes;
        view.deallocates += counts.deallocates;
        view.errors += counts.errors;
    }};
}

impl RunningNode {
    /// See [`ashlar_cluster::service::Node::live`].
    pub(super) async fn gather(&self, state: &Arc<State>) -> Live {
        let mut live = Live {
            uptime_ms: u64::try_from((Instant::now() - self.started).as_millis()).unwrap_or(u64::MAX),
            reactors: self.reactors.len() as u32,
            storage: self.storage.report().await,
            ..Live::default()
        };
        self.gather_book(&mut live);
        live.attention.extend(self.storage.damages(state).await);
        for target in state.targets().values() {
            let entry = live.targets.entry(target.name.clone()).or_default();
            let reached = |bound: &[SocketAddr]| -> Vec<SocketAddr> {
                bound.iter().flat_map(|&bound| addresses_on(&target.listen, bound)).collect()
            };
            entry.nvme_addresses = reached(&live.nvme_listen);
            entry.iscsi_addresses = reached(&live.iscsi_listen);
            let nowhere = entry.nvme_addresses.is_empty() && entry.iscsi_addresses.is_empty();
            if nowhere && !live.nvme_listen.is_empty() {
                live.attention.push(format!(
                    "target {} is served nowhere: this node listens on none of its addresses",
                    target.name
                ));
            }
        }
        let asked: Vec<_> =
            self.reactors.iter().map(|handle| handle.call(|_, _| async { here().report() })).collect();
        for answer in asked {
            let Ok(report) = answer.await else { continue };
            live.connections += report.connections as u64;
            live.controllers += report.controllers.len() as u64;
            for (id, counts) in report.nvme {
                let io = live.io.entry(state::VolumeId(id.0)).or_default();
                add_counts!(io, counts);
            }
            for (id, counts) in report.iscsi {
                let io = live.io.entry(state::VolumeId(id.0)).or_default();
                add_counts!(io, counts);
            }
            live.sessions += report.sessions.len() as u64;
            for session in &report.sessions {
                place_session(&mut live, state, session, report.now);
            }
            for controller in &report.controllers {
                place(&mut live, state, controller, report.now);
            }
        }
        live
    }

    fn gather_book(&self, live: &mut Live) {
        let book = self.book.lock().expect("no panic while held");
        live.nvme_listen = book.ports.iter().map(|port| port.listen).collect();
        live.iscsi_listen = book.portals.iter().map(|portal| portal.listen).collect();
        live.faults = book.faults.iter().map(|(id, why)| (state::VolumeId(id.0), why.clone())).collect();
        live.attention.clone_from(&book.attention);
        live.io = book.open.keys().map(|id| (state::VolumeId(id.0), IoCountersView::default())).collect();
    }
}

/// Puts a controller under its target.
fn place(live: &mut Live, state: &State, controller: &ControllerReport, now: ashlar_env::Instant) {
    let target = state.targets().values().find(|target| target.nqn.as_str() == controller.subsystem);
    let Some(target) = target else { return };
    let entry = live.targets.entry(target.name.clone()).or_default();
    entry.connections += 1 + u64::from(controller.io_queues);
    entry.controllers.push(LiveController {
        controller_id: controller.cntlid,
        host_nqn: controller.host_nqn.clone(),
        io_queues: u32::from(controller.io_queues),
        age_ms: u64::try_from(now.since(controller.connected).as_millis()).unwrap_or(u64::MAX),
    });
}

/// Puts a session under its target. A discovery session has none.
fn place_session(live: &mut Live, state: &State, session: &SessionReport, now: ashlar_env::Instant) {
    let name = session.target.as_deref();
    let Some(target) = state.targets().values().find(|target| Some(target.iqn.as_str()) == name) else {
        return;
    };
    let entry = live.targets.entry(target.name.clone()).or_default();
    entry.connections += 1;
    entry.sessions.push(LiveSession {
        tsih: session.tsih,
        isid: session.isid,
        initiator: session.initiator.clone(),
        portal: session.portal,
        age_ms: u64::try_from(now.since(session.since).as_millis()).unwrap_or(u64::MAX),
    });
}
