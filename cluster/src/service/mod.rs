//! The control plane of a node: what stands between requests and the state machine.

mod control;
mod metrics;
mod node;
mod views;

pub use control::{ControlHandle, ControlPlane, Done, open};
pub use metrics::ControlMetrics;
pub use node::{BoxFuture, Live, LiveController, LiveTarget, Node};
pub use views::{host_view, status_view, target_view, volume_view};
