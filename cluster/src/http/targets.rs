//! `/v1/targets`

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::ApiError;
use super::extract::{ApiJson, ApiPath, ApiQuery};
use super::{optional, parse};
use crate::api::{
    AllowHostRequest, AnaStateRequest, AttachVolumeRequest, CreateTargetRequest, ErrorBody, TargetList,
    TargetView, UpdateTargetRequest,
};
use crate::service::{ControlHandle, target_view};
use crate::state::{Action, Iqn, Name, NewTarget, Nqn, Refusal, RefusalKind, VolumeName};

pub fn routes() -> OpenApiRouter<ControlHandle> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(attach))
        .routes(routes!(detach))
        .routes(routes!(allow))
        .routes(routes!(deny))
        .routes(routes!(set_ana_state))
}

/// The target as it is now, or a refusal of `what`.
async fn view(control: &ControlHandle, name: &Name, what: &str) -> Result<Json<TargetView>, ApiError> {
    let state = control.state();
    let target = state.find_target(name).map_err(|reason| reason.refuse(what))?;
    let live = control.live(&state).await;
    Ok(Json(target_view(&state, &live, target)))
}

/// All targets
#[utoipa::path(get, path = "/v1/targets", tag = "targets", responses((status = 200, body = TargetList)))]
async fn list(State(control): State<ControlHandle>) -> Json<TargetList> {
    let state = control.state();
    let live = control.live(&state).await;
    Json(TargetList { targets: state.targets().values().map(|t| target_view(&state, &live, t)).collect() })
}

/// One target
#[utoipa::path(
    get, path = "/v1/targets/{name}", tag = "targets",
    params(("name" = String, Path, description = "Name of the target")),
    responses((status = 200, body = TargetView), (status = 404, body = ErrorBody))
)]
async fn show(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
) -> Result<Json<TargetView>, ApiError> {
    let what = format!("show target {name}");
    view(&control, &parse(Name::parse(&name), &what)?, &what).await
}

/// Create a target
#[utoipa::path(
    post, path = "/v1/targets", tag = "targets", request_body = CreateTargetRequest,
    responses(
        (status = 201, body = TargetView), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)
    )
)]
async fn create(
    State(control): State<ControlHandle>,
    ApiJson(request): ApiJson<CreateTargetRequest>,
) -> Result<(StatusCode, Json<TargetView>), ApiError> {
    let what = format!("create target {}", request.name);
    let name = parse(Name::parse(&request.name), &what)?;
    let new = NewTarget {
        id: Uuid::new_v4(),
        name: name.clone(),
        nqn: optional(request.nqn.as_deref(), Nqn::parse, &what)?,
        iqn: optional(request.iqn.as_deref(), Iqn::parse, &what)?,
        listen: request.listen.into_iter().collect(),
        any_host: request.any_host,
    };
    control.submit(Action::CreateTarget(new)).await?;
    Ok((StatusCode::CREATED, view(&control, &name, &what).await?))
}

/// Change who may connect to a target, or where
#[utoipa::path(
    patch, path = "/v1/targets/{name}", tag = "targets", request_body = UpdateTargetRequest,
    params(("name" = String, Path, description = "Name of the target")),
    responses(
        (status = 200, body = TargetView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)
    )
)]
async fn update(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
    ApiJson(request): ApiJson<UpdateTargetRequest>,
) -> Result<Json<TargetView>, ApiError> {
    let what = format!("change target {name}");
    let target = parse(Name::parse(&name), &what)?;
    // Where before who: if the addresses are refused, nobody has been let in yet.
    match request {
        UpdateTargetRequest { any_host: None, listen: None } => {
            let why = "the request changes nothing";
            return Err(Refusal::new(RefusalKind::Invalid, what, why).into());
        }
        UpdateTargetRequest { any_host, listen } => {
            if let Some(listen) = listen {
                let listen: BTreeSet<_> = listen.into_iter().collect();
                control.submit(Action::SetListen { target: target.clone(), listen }).await?;
            }
            if let Some(any_host) = any_host {
                control.submit(Action::SetAnyHost { target: target.clone(), any_host }).await?;
            }
        }
    }
    view(&control, &target, &what).await
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct DeleteParams {
    /// Whether to detach its volumes and disconnect its hosts instead of refusing.
    #[serde(default)]
    force: bool,
}

/// Delete a target
#[utoipa::path(
    delete, path = "/v1/targets/{name}", tag = "targets",
    params(("name" = String, Path, description = "Name of the target"), DeleteParams),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
async fn delete(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(params): ApiQuery<DeleteParams>,
) -> Result<StatusCode, ApiError> {
    let target = parse(Name::parse(&name), &format!("delete target {name}"))?;
    control.submit(Action::DeleteTarget { target, force: params.force }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Attach a volume
#[utoipa::path(
    post, path = "/v1/targets/{name}/volumes", tag = "targets", request_body = AttachVolumeRequest,
    params(("name" = String, Path, description = "Name of the target")),
    responses(
        (status = 201, body = TargetView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)
    )
)]
async fn attach(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
    ApiJson(request): ApiJson<AttachVolumeRequest>,
) -> Result<(StatusCode, Json<TargetView>), ApiError> {
    let what = format!("attach volume {} to target {name}", request.volume);
    let target = parse(Name::parse(&name), &what)?;
    let volume = parse(VolumeName::parse(&request.volume), &what)?;
    control.submit(Action::AttachVolume { target: target.clone(), volume, nsid: request.nsid }).await?;
    Ok((StatusCode::CREATED, view(&control, &target, &what).await?))
}

/// Detach a volume
#[utoipa::path(
    delete, path = "/v1/targets/{name}/volumes/{volume}", tag = "targets",
    params(
        ("name" = String, Path, description = "Name of the target"),
        ("volume" = String, Path, description = "Name of the volume; `/` is written `%2F`")
    ),
    responses((status = 204), (status = 404, body = ErrorBody))
)]
async fn detach(
    State(control): State<ControlHandle>,
    ApiPath((name, volume)): ApiPath<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let what = format!("detach volume {volume} from target {name}");
    let target = parse(Name::parse(&name), &what)?;
    let volume = parse(VolumeName::parse(&volume), &what)?;
    control.submit(Action::DetachVolume { target, volume }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let a host connect
#[utoipa::path(
    post, path = "/v1/targets/{name}/hosts", tag = "targets", request_body = AllowHostRequest,
    params(("name" = String, Path, description = "Name of the target")),
    responses(
        (status = 200, body = TargetView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)
    )
)]
async fn allow(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
    ApiJson(request): ApiJson<AllowHostRequest>,
) -> Result<Json<TargetView>, ApiError> {
    let what = format!("allow host {} on target {name}", request.host);
    let target = parse(Name::parse(&name), &what)?;
    let host = parse(Name::parse(&request.host), &what)?;
    control.submit(Action::AllowHost { target: target.clone(), host }).await?;
    view(&control, &target, &what).await
}

/// No longer let a host connect
#[utoipa::path(
    delete, path = "/v1/targets/{name}/hosts/{host}", tag = "targets",
    params(
        ("name" = String, Path, description = "Name of the target"),
        ("host" = String, Path, description = "Name of the host")
    ),
    responses((status = 204), (status = 404, body = ErrorBody))
)]
async fn deny(
    State(control): State<ControlHandle>,
    ApiPath((name, host)): ApiPath<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let what = format!("deny host {host} on target {name}");
    let target = parse(Name::parse(&name), &what)?;
    let host = parse(Name::parse(&host), &what)?;
    control.submit(Action::DenyHost { target, host }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Set the state of the paths to a volume group
#[utoipa::path(
    put, path = "/v1/targets/{name}/ana/{group}", tag = "targets", request_body = AnaStateRequest,
    params(
        ("name" = String, Path, description = "Name of the target"),
        ("group" = String, Path, description = "Name of a group with a volume attached to the target")
    ),
    responses(
        (status = 200, body = TargetView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)
    )
)]
async fn set_ana_state(
    State(control): State<ControlHandle>,
    ApiPath((name, group)): ApiPath<(String, String)>,
    ApiJson(request): ApiJson<AnaStateRequest>,
) -> Result<Json<TargetView>, ApiError> {
    let what = format!("set group {group} of target {name}");
    let target = parse(Name::parse(&name), &what)?;
    let group = parse(Name::parse(&group), &what)?;
    control.submit(Action::SetAnaState { target: target.clone(), group, state: request.state }).await?;
    view(&control, &target, &what).await
}
