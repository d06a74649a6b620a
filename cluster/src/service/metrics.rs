//! What the control plane counts about itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::state::RefusalKind;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    status: u16,
}

/// Counters of the control plane; clones share them.
#[derive(Debug, Clone, Default)]
pub struct ControlMetrics {
    actions: Family<ActionLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
}

impl ControlMetrics {
    /// New counters, registered in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = ControlMetrics::default();
        let actions = metrics.actions.clone();
        registry.register(
            "ashlar_control_actions",
            "Changes asked of the control state, by outcome",
            actions,
        );
        let requests = metrics.requests.clone();
        registry.register("ashlar_api_requests", "Requests to the API, by method and status", requests);
        metrics
    }

    pub(crate) fn count_action(&self, action: &'static str, refusal: Option<RefusalKind>) {
        let outcome = refusal.map_or("done", RefusalKind::as_str);
        self.actions.get_or_create(&ActionLabels { action, outcome }).inc();
    }

    /// `method` is one of a fixed set, so that a hostile client cannot grow the family.
    pub(crate) fn count_request(&self, method: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabels { method, status }).inc();
    }
}
