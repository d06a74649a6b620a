//! `/v1/snapshots`, `/v1/clones`

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::ApiError;
use super::extract::{ApiJson, ApiPath, ApiQuery};
use super::{optional, parse};
use crate::api::{
    CloneVolumeRequest, CreateSnapshotRequest, DiffView, ErrorBody, RestoreSnapshotRequest, SnapshotList,
    SnapshotView, VolumeView,
};
use crate::service::{ControlHandle, DiffQuery, Done, SnapshotSpace, snapshot_view, volume_view};
use crate::state::{
    Action, Group, Name, NewClone, Refusal, RefusalKind, Snapshot, SnapshotName, SnapshotVolumeName,
    VolumeId, VolumeName,
};

/// Longest wait for what snapshots take, before a reply is made without it.
const SPACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most extents of one reply.
const EXTENTS_MAX: usize = 4096;

pub fn routes() -> OpenApiRouter<ControlHandle> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, delete))
        .routes(routes!(restore))
        .routes(routes!(diff))
        .routes(routes!(clone))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// The group whose snapshots are listed; by default all groups'.
    group: Option<String>,
}

/// Snapshots
#[utoipa::path(
    get, path = "/v1/snapshots", tag = "snapshots", params(ListParams),
    responses((status = 200, body = SnapshotList), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn list(
    State(control): State<ControlHandle>,
    ApiQuery(params): ApiQuery<ListParams>,
) -> Result<Json<SnapshotList>, ApiError> {
    let what = "list snapshots";
    let only = optional(params.group.as_deref(), Name::parse, what)?;
    let state = control.state();
    if let Some(name) = &only {
        state.find_group(name).map_err(|reason| reason.refuse(what))?;
    }
    let end = Instant::now() + SPACE_TIMEOUT;
    let mut snapshots = Vec::new();
    for (name, group) in state.groups().iter().filter(|(_, group)| !group.snapshots.is_empty()) {
        if only.as_ref().is_none_or(|only| only == name) {
            let space = space(&control, group, group.snapshots.keys().copied().collect(), end).await;
            let view = |snapshot: &Snapshot| snapshot_view(&state, name, snapshot, space.get(&snapshot.id));
            snapshots.extend(group.snapshots.values().map(view));
        }
    }
    Ok(Json(SnapshotList { snapshots }))
}

/// What snapshots take; what is not found out by `end` is left out.
async fn space(
    control: &ControlHandle,
    group: &Group,
    snapshots: Vec<u64>,
    end: Instant,
) -> BTreeMap<u64, SnapshotSpace> {
    let asked = control.node().storage().snapshot_space(group.id, snapshots);
    tokio::time::timeout_at(end, asked).await.unwrap_or_default()
}

async fn view(
    control: &ControlHandle,
    state: &std::sync::Arc<crate::state::State>,
    name: &SnapshotName,
    what: &str,
) -> Result<Json<SnapshotView>, ApiError> {
    let (group, snapshot) = state.find_snapshot(name).map_err(|reason| reason.refuse(what))?;
    let space = space(control, group, vec![snapshot.id], Instant::now() + SPACE_TIMEOUT).await;
    Ok(Json(snapshot_view(state, &name.group, snapshot, space.get(&snapshot.id))))
}

/// One snapshot
#[utoipa::path(
    get, path = "/v1/snapshots/{name}", tag = "snapshots",
    params(("name" = String, Path, description = "`group@snapshot`")),
    responses((status = 200, body = SnapshotView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn show(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
) -> Result<Json<SnapshotView>, ApiError> {
    let what = format!("show snapshot {name}");
    let name = parse(SnapshotName::parse(&name), &what)?;
    view(&control, &control.state(), &name, &what).await
}

/// Cut a group: all its volumes as they are at one moment
#[utoipa::path(
    post, path = "/v1/snapshots", tag = "snapshots", request_body = CreateSnapshotRequest,
    responses(
        (status = 201, body = SnapshotView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 507, body = ErrorBody)
    )
)]
async fn create(
    State(control): State<ControlHandle>,
    ApiJson(request): ApiJson<CreateSnapshotRequest>,
) -> Result<(StatusCode, Json<SnapshotView>), ApiError> {
    let what = format!("create snapshot {}", request.name);
    let name = parse(SnapshotName::parse(&request.name), &what)?;
    let done = control.submit(Action::CreateSnapshot { snapshot: name.clone(), id: None }).await?;
    Ok((StatusCode::CREATED, view(&control, &done.state, &name, &what).await?))
}

/// Delete a snapshot that no volume was cloned from
#[utoipa::path(
    delete, path = "/v1/snapshots/{name}", tag = "snapshots",
    params(("name" = String, Path, description = "`group@snapshot`")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
async fn delete(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, ApiError> {
    let snapshot = parse(SnapshotName::parse(&name), &format!("delete snapshot {name}"))?;
    control.submit(Action::DeleteSnapshot { snapshot }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Put the volumes of a group's latest snapshot back to what it holds
#[utoipa::path(
    post, path = "/v1/snapshots/{name}/restore", tag = "snapshots", request_body = RestoreSnapshotRequest,
    params(("name" = String, Path, description = "`group@snapshot`")),
    responses((status = 200, body = SnapshotView), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
async fn restore(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
    ApiJson(request): ApiJson<RestoreSnapshotRequest>,
) -> Result<Json<SnapshotView>, ApiError> {
    let what = format!("restore snapshot {name}");
    let name = parse(SnapshotName::parse(&name), &what)?;
    let action = Action::RestoreSnapshot { snapshot: name.clone(), force: request.force };
    let done = control.submit(action).await?;
    view(&control, &done.state, &name, &what).await
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct DiffParams {
    /// The volume's name within its group; may be left out where the snapshot holds one volume.
    volume: Option<String>,
    /// The later moment: a later snapshot of the same group, `group@snapshot`. By default now.
    to: Option<String>,
    /// Where to begin in the volume, in bytes.
    #[serde(default)]
    offset_bytes: u64,
    /// Most extents to answer with, 1 to 4096.
    extents_max: Option<usize>,
}

/// Where a volume changed since a snapshot, or between two
#[utoipa::path(
    get, path = "/v1/snapshots/{name}/diff", tag = "snapshots",
    params(("name" = String, Path, description = "The earlier moment, `group@snapshot`"), DiffParams),
    responses(
        (status = 200, body = DiffView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)
    )
)]
async fn diff(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(params): ApiQuery<DiffParams>,
) -> Result<Json<DiffView>, ApiError> {
    let what = format!("compare with snapshot {name}");
    let invalid = |why: String| Refusal::new(RefusalKind::Invalid, what.clone(), why);
    let from = SnapshotVolumeName {
        snapshot: parse(SnapshotName::parse(&name), &what)?,
        volume: optional(params.volume.as_deref(), Name::parse, &what)?,
    };
    let to = optional(params.to.as_deref(), SnapshotName::parse, &what)?;
    let extents_max = params.extents_max.unwrap_or(EXTENTS_MAX);
    if !(1..=EXTENTS_MAX).contains(&extents_max) {
        return Err(invalid(format!("extents_max is 1 to {EXTENTS_MAX}, not {extents_max}")).into());
    }
    let state = control.state();
    let refuse = |reason: crate::state::Reason| reason.refuse(what.clone());
    let (earlier, volume) = state.find_in_snapshot(&from).map_err(refuse)?;
    let later = match &to {
        None => None,
        Some(to) if to.group != from.snapshot.group => {
            return Err(invalid(format!("{to} is of another group")).into());
        }
        Some(to) => Some(state.find_snapshot(to).map_err(refuse)?.1),
    };
    if let Some(later) = later
        && (later.id <= earlier.id || !later.volumes.contains_key(&volume.id))
    {
        let why =
            format!("{}@{} is no later snapshot that holds {}", from.snapshot.group, later.name, volume.name);
        return Err(invalid(why).next("name the earlier snapshot first").into());
    }
    let query = DiffQuery {
        group: state.groups()[&from.snapshot.group].id,
        volume: volume.id,
        from: earlier.id,
        to: later.map(|later| later.id),
        offset_bytes: params.offset_bytes,
        extents_max,
    };
    let found = control.node().storage().diff(query).await.map_err(refuse)?;
    Ok(Json(DiffView {
        volume: volume.name.to_string(),
        from: from.snapshot.to_string(),
        to: to.map(|to| to.to_string()),
        extents: found.extents,
        next_offset_bytes: found.next_offset_bytes,
    }))
}

/// Make a volume from what a snapshot holds
#[utoipa::path(
    post, path = "/v1/clones", tag = "snapshots", request_body = CloneVolumeRequest,
    responses(
        (status = 201, body = VolumeView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 507, body = ErrorBody)
    )
)]
async fn clone(
    State(control): State<ControlHandle>,
    ApiJson(request): ApiJson<CloneVolumeRequest>,
) -> Result<(StatusCode, Json<VolumeView>), ApiError> {
    let what = format!("clone {} to volume {}", request.from, request.name);
    let from = parse(SnapshotVolumeName::parse(&request.from), &what)?;
    let name = parse(VolumeName::parse(&request.name), &what)?;
    let name = if name.as_str().contains('/') {
        name
    } else {
        parse(VolumeName::parse(&format!("{}/{name}", from.snapshot.group)), &what)?
    };
    let id = VolumeId(Uuid::new_v4());
    let Done { state, .. } = control.submit(Action::CloneVolume(NewClone { id, from, name })).await?;
    let live = control.live(&state).await;
    let volume = state.volumes().get(&id).expect("the state that was answered with holds the volume");
    Ok((StatusCode::CREATED, Json(volume_view(&state, &live, volume))))
}
