//! `/v1/groups`

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiError;
use super::extract::{ApiJson, ApiPath};
use super::parse;
use crate::api::{ErrorBody, GroupList, UpdateGroupRequest, VolumeGroupView};
use crate::service::{ControlHandle, volume_group_view};
use crate::state::{Action, Name, Refusal, RefusalKind};

pub fn routes() -> OpenApiRouter<ControlHandle> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, update))
}

/// All volume groups
#[utoipa::path(get, path = "/v1/groups", tag = "groups", responses((status = 200, body = GroupList)))]
async fn list(State(control): State<ControlHandle>) -> Json<GroupList> {
    let state = control.state();
    let live = control.live(&state).await;
    let groups = state.groups().iter().map(|(name, group)| volume_group_view(&state, &live, name, group));
    Json(GroupList { groups: groups.collect() })
}

async fn view(control: &ControlHandle, name: &Name, what: &str) -> Result<Json<VolumeGroupView>, ApiError> {
    let state = control.state();
    let group = state.find_group(name).map_err(|reason| reason.refuse(what))?;
    let live = control.live(&state).await;
    Ok(Json(volume_group_view(&state, &live, name, group)))
}

/// One volume group
#[utoipa::path(
    get, path = "/v1/groups/{name}", tag = "groups",
    params(("name" = String, Path, description = "Name of the group")),
    responses((status = 200, body = VolumeGroupView), (status = 404, body = ErrorBody))
)]
async fn show(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
) -> Result<Json<VolumeGroupView>, ApiError> {
    let what = format!("show group {name}");
    view(&control, &parse(Name::parse(&name), &what)?, &what).await
}

/// Change how a group's data is stored from now on
#[utoipa::path(
    patch, path = "/v1/groups/{name}", tag = "groups", request_body = UpdateGroupRequest,
    params(("name" = String, Path, description = "Name of the group")),
    responses(
        (status = 200, body = VolumeGroupView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)
    )
)]
async fn update(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
    ApiJson(request): ApiJson<UpdateGroupRequest>,
) -> Result<Json<VolumeGroupView>, ApiError> {
    let what = format!("change group {name}");
    let group = parse(Name::parse(&name), &what)?;
    if request == UpdateGroupRequest::default() {
        return Err(Refusal::new(RefusalKind::Invalid, what, "the request changes nothing").into());
    }
    let action = Action::SetGroupPolicy { group: group.clone(), compression: request.compression };
    control.submit(action).await?;
    view(&control, &group, &what).await
}
