//! The control plane of a node: what stands between requests and the state machine.

mod control;
mod metrics;
mod node;
mod storage;
mod storage_views;
mod views;

pub use control::{ControlHandle, ControlPlane, Done, open};
pub use metrics::ControlMetrics;
pub use node::{BoxFuture, Live, LiveController, LiveSession, LiveTarget, Node};
pub use storage::{Diff, DiffQuery, LiveStorage, LogVolume, Progress, SnapshotSpace, Storage};
pub(crate) use storage_views::{device_view, operation_view, snapshot_view, volume_group_view};
pub use views::{host_view, status_view, target_view, volume_view};
