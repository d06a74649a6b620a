//! `/v1/volumes`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::ApiError;
use super::extract::{ApiJson, ApiPath};
use super::parse;
use crate::api::{CreateVolumeRequest, ErrorBody, UpdateVolumeRequest, VolumeList, VolumeView};
use crate::service::{ControlHandle, Done, volume_view};
use crate::state::{Action, NewVolume, Reason, Refusal, RefusalKind, VolumeId, VolumeName};

pub fn routes() -> OpenApiRouter<ControlHandle> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete))
}

async fn view(control: &ControlHandle, done: &Done, id: VolumeId) -> Result<Json<VolumeView>, ApiError> {
    let live = control.live(&done.state).await;
    let volume = done.state.volumes().get(&id).expect("the state that was answered with holds the volume");
    Ok(Json(volume_view(&done.state, &live, volume)))
}

/// All volumes
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", responses((status = 200, body = VolumeList)))]
async fn list(State(control): State<ControlHandle>) -> Json<VolumeList> {
    let state = control.state();
    let live = control.live(&state).await;
    let by_name = state.volume_names().values().map(|id| &state.volumes()[id]);
    Json(VolumeList { volumes: by_name.map(|volume| volume_view(&state, &live, volume)).collect() })
}

/// One volume
#[utoipa::path(
    get, path = "/v1/volumes/{name}", tag = "volumes",
    params(("name" = String, Path, description = "Name of the volume; `/` is written `%2F`")),
    responses((status = 200, body = VolumeView), (status = 404, body = ErrorBody))
)]
async fn show(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
) -> Result<Json<VolumeView>, ApiError> {
    let what = format!("show volume {name}");
    let name = parse(VolumeName::parse(&name), &what)?;
    let state = control.state();
    let volume = state.find_volume(&name).map_err(|reason| reason.refuse(what))?;
    let live = control.live(&state).await;
    Ok(Json(volume_view(&state, &live, volume)))
}

/// Create a volume
#[utoipa::path(
    post, path = "/v1/volumes", tag = "volumes", request_body = CreateVolumeRequest,
    responses(
        (status = 201, body = VolumeView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 507, body = ErrorBody)
    )
)]
async fn create(
    State(control): State<ControlHandle>,
    ApiJson(request): ApiJson<CreateVolumeRequest>,
) -> Result<(StatusCode, Json<VolumeView>), ApiError> {
    let what = format!("create volume {}", request.name);
    let new = NewVolume {
        id: VolumeId(Uuid::new_v4()),
        name: parse(VolumeName::parse(&request.name), &what)?,
        backing: request.backing,
        size_bytes: request.size_bytes,
        block_size_bytes: request.block_size_bytes,
        read_only: request.read_only,
        compression: request.compression,
        copies: request.copies,
    };
    let id = new.id;
    let done = control.submit(Action::CreateVolume(new)).await?;
    Ok((StatusCode::CREATED, view(&control, &done, id).await?))
}

/// Resize or rename a volume
#[utoipa::path(
    patch, path = "/v1/volumes/{name}", tag = "volumes", request_body = UpdateVolumeRequest,
    params(("name" = String, Path, description = "Name of the volume; `/` is written `%2F`")),
    responses(
        (status = 200, body = VolumeView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 507, body = ErrorBody)
    )
)]
async fn update(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
    ApiJson(request): ApiJson<UpdateVolumeRequest>,
) -> Result<Json<VolumeView>, ApiError> {
    let what = format!("change volume {name}");
    let volume = parse(VolumeName::parse(&name), &what)?;
    let action = match request {
        UpdateVolumeRequest { size_bytes: Some(size_bytes), allow_shrink, name: None } => {
            Action::ResizeVolume { volume: volume.clone(), size_bytes, allow_shrink }
        }
        UpdateVolumeRequest { size_bytes: None, allow_shrink: false, name: Some(to) } => {
            let to = parse(VolumeName::parse(&to), &what)?;
            Action::RenameVolume { volume: volume.clone(), to }
        }
        _ => {
            let why = "a request changes either the size or the name of a volume";
            return Err(Refusal::new(RefusalKind::Invalid, what, why).into());
        }
    };
    // The identity is looked up first: a rename changes what the name stands for.
    let found = control.state().find_volume(&volume).map(|volume| volume.id);
    let id = found.map_err(|reason: Reason| reason.refuse(action.describe()))?;
    let done = control.submit(action).await?;
    view(&control, &done, id).await
}

/// Delete a volume that is not attached
#[utoipa::path(
    delete, path = "/v1/volumes/{name}", tag = "volumes",
    params(("name" = String, Path, description = "Name of the volume; `/` is written `%2F`")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
async fn delete(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, ApiError> {
    let volume = parse(VolumeName::parse(&name), &format!("delete volume {name}"))?;
    control.submit(Action::DeleteVolume { volume }).await?;
    Ok(StatusCode::NO_CONTENT)
}
