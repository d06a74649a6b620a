//! What travels over `/v1`: the types shared by server and client.
//!
//! Requests hold names as plain text, so that a bad one is answered with a sentence that says what is
//! wrong with it. Sizes are bytes, times are milliseconds since 1970 UTC, and both say so in their names.

mod requests;
mod storage;
mod views;

pub use requests::{
    AllowHostRequest, AnaStateRequest, AttachVolumeRequest, ChapRequest, CreateHostRequest,
    CreateTargetRequest, CreateVolumeRequest, UpdateTargetRequest, UpdateVolumeRequest,
};
pub use storage::{
    AddDeviceRequest, CloneVolumeRequest, CreateSnapshotRequest, DeviceList, DeviceSpaceView, DeviceView,
    DiffView, ExtentView, GroupList, OperationList, OperationState, OperationView, RestoreSnapshotRequest,
    SnapshotList, SnapshotView, SnapshotVolumeView, SpaceView, UpdateGroupRequest, VolumeGroupView,
};
pub use views::{
    AttachmentView, CapacityView, ChapMode, ControllerView, CountsView, ErrorBody, ErrorView, GroupView,
    HostList, HostView, IoCountersView, NamespaceView, NodeView, Phase, SessionView, StatusView, TargetList,
    TargetView, VolumeList, VolumeView,
};

pub use crate::state::{AnaState, Backing, Compression, DeviceState, RefusalKind};
