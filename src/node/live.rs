//! What goes on in the node, gathered from its reactors.

use std::sync::Arc;
use std::time::Instant;

use ashlar_cluster::api::IoCountersView;
use ashlar_cluster::service::{Live, LiveController, Storage};
use ashlar_cluster::state::{self, State};
use ashlar_nvmeof::hub::ControllerReport;
use ashlar_nvmeof::server::stats::VolumeCounts;
use ashlar_nvmeof::view::addresses_on;

use super::RunningNode;
use super::reactor::here;

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
            entry.nvme_addresses =
                (live.nvme_listen.iter()).flat_map(|&bound| addresses_on(&target.listen, bound)).collect();
            if entry.nvme_addresses.is_empty() && !live.nvme_listen.is_empty() {
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
            for (id, counts) in report.volumes {
                add(live.io.entry(state::VolumeId(id.0)).or_default(), &counts);
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

fn add(view: &mut IoCountersView, counts: &VolumeCounts) {
    view.reads += counts.reads;
    view.writes += counts.writes;
    view.read_bytes += counts.read_bytes;
    view.written_bytes += counts.written_bytes;
    view.flushes += counts.flushes;
    view.deallocates += counts.deallocates;
    view.errors += counts.errors;
}
