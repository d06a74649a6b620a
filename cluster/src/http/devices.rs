//! `/v1/devices`, `/v1/operations`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::ApiError;
use super::extract::{ApiJson, ApiPath, ApiQuery};
use crate::api::{AddDeviceRequest, DeviceList, DeviceView, ErrorBody, OperationList, OperationView};
use crate::service::{ControlHandle, device_view, operation_view};
use crate::state::{self, Action, DeviceState, NewDevice, Refusal, RefusalKind};

pub fn routes() -> OpenApiRouter<ControlHandle> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show, remove))
        .routes(routes!(list_operations))
        .routes(routes!(show_operation))
}

/// The device that `text` names, by its identity or by its path.
fn find<'a>(state: &'a state::State, text: &str, what: &str) -> Result<&'a state::Device, Refusal> {
    let found = match Uuid::parse_str(text) {
        Ok(id) => state.find_device(id).map_err(|reason| reason.refuse(what))?,
        Err(_) => state.device_at(text).ok_or_else(|| {
            Refusal::new(RefusalKind::NotFound, what, format!("this node has no device {text}"))
                .next("`ashlar device list` shows what there is")
        })?,
    };
    Ok(found)
}

/// All devices
#[utoipa::path(get, path = "/v1/devices", tag = "devices", responses((status = 200, body = DeviceList)))]
async fn list(State(control): State<ControlHandle>) -> Json<DeviceList> {
    let state = control.state();
    let live = control.live(&state).await;
    let mut devices: Vec<_> = state.devices().values().map(|d| device_view(&state, &live, d)).collect();
    devices.sort_by(|a, b| (&a.path, a.id).cmp(&(&b.path, b.id)));
    Json(DeviceList { devices })
}

/// One device
#[utoipa::path(
    get, path = "/v1/devices/{device}", tag = "devices",
    params(("device" = String, Path, description = "Identity or path of the device; `/` is written `%2F`")),
    responses((status = 200, body = DeviceView), (status = 404, body = ErrorBody))
)]
async fn show(
    State(control): State<ControlHandle>,
    ApiPath(device): ApiPath<String>,
) -> Result<Json<DeviceView>, ApiError> {
    let state = control.state();
    let found = find(&state, &device, &format!("show device {device}"))?;
    let live = control.live(&state).await;
    Ok(Json(device_view(&state, &live, found)))
}

/// Give the node a disk
#[utoipa::path(
    post, path = "/v1/devices", tag = "devices", request_body = AddDeviceRequest,
    responses(
        (status = 201, body = DeviceView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 507, body = ErrorBody)
    )
)]
async fn add(
    State(control): State<ControlHandle>,
    ApiJson(request): ApiJson<AddDeviceRequest>,
) -> Result<(StatusCode, Json<DeviceView>), ApiError> {
    let AddDeviceRequest { path, size_bytes, force } = request;
    let id = Uuid::new_v4();
    let done = control.submit(Action::AddDevice(NewDevice { id, path, size_bytes, force })).await?;
    let live = control.live(&done.state).await;
    let device = done.state.devices().get(&id).expect("the state that was answered with holds the device");
    Ok((StatusCode::CREATED, Json(device_view(&done.state, &live, device))))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct RemoveParams {
    /// Whether data that is nowhere else may be given up, for a device that failed.
    #[serde(default)]
    force: bool,
}

/// Move what a device holds to others, and close it; or forget one that is closed
///
/// A device that is in use is drained: the reply names the operation, and the device is closed at its end. One that
/// was drained, or failed, is forgotten.
#[utoipa::path(
    delete, path = "/v1/devices/{device}", tag = "devices",
    params(
        ("device" = String, Path, description = "Identity or path of the device; `/` is written `%2F`"),
        RemoveParams
    ),
    responses(
        (status = 202, body = OperationView), (status = 204), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 507, body = ErrorBody)
    )
)]
async fn remove(
    State(control): State<ControlHandle>,
    ApiPath(device): ApiPath<String>,
    ApiQuery(params): ApiQuery<RemoveParams>,
) -> Result<Response, ApiError> {
    let state = control.state();
    let found = find(&state, &device, &format!("remove device {device}"))?;
    let id = found.id;
    if matches!(found.state, DeviceState::Removed | DeviceState::Failed) {
        control.submit(Action::RemoveDevice { device: id, force: params.force }).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let done = control.submit(Action::DrainDevice { device: id }).await?;
    let live = control.live(&done.state).await;
    // It may have ended already.
    let drains = |operation: &&state::Operation| operation.kind.drained() == Some(id);
    let operation = done.state.operations().values().rev().find(drains);
    let operation = operation.expect("the state that was answered with holds the operation");
    Ok((StatusCode::ACCEPTED, Json(operation_view(&live, operation))).into_response())
}

/// Operations that run, and those that ended last
#[utoipa::path(
    get, path = "/v1/operations", tag = "operations", responses((status = 200, body = OperationList))
)]
async fn list_operations(State(control): State<ControlHandle>) -> Json<OperationList> {
    let state = control.state();
    let live = control.live(&state).await;
    let operations = state.operations().values().map(|operation| operation_view(&live, operation)).collect();
    Json(OperationList { operations })
}

/// One operation
#[utoipa::path(
    get, path = "/v1/operations/{number}", tag = "operations",
    params(("number" = u64, Path, description = "Number of the operation")),
    responses((status = 200, body = OperationView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn show_operation(
    State(control): State<ControlHandle>,
    ApiPath(number): ApiPath<u64>,
) -> Result<Json<OperationView>, ApiError> {
    let state = control.state();
    let found = state.find_operation(number);
    let operation = found.map_err(|reason| reason.refuse(format!("show operation {number}")))?;
    let live = control.live(&state).await;
    Ok(Json(operation_view(&live, operation)))
}
