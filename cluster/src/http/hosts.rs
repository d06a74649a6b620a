//! `/v1/hosts`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::ApiError;
use super::extract::{ApiJson, ApiPath};
use super::{optional, parse};
use crate::api::{ChapRequest, CreateHostRequest, ErrorBody, HostList, HostView};
use crate::service::{ControlHandle, host_view};
use crate::state::{Action, Chap, Iqn, Name, NewHost, Nqn, Refusal, RefusalKind};

pub fn routes() -> OpenApiRouter<ControlHandle> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, delete))
        .routes(routes!(set_chap, clear_chap))
}

async fn view(control: &ControlHandle, name: &Name, what: &str) -> Result<Json<HostView>, ApiError> {
    let state = control.state();
    let host = state.find_host(name).map_err(|reason| reason.refuse(what))?;
    let live = control.live(&state).await;
    Ok(Json(host_view(&state, &live, host)))
}

/// All hosts
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts", responses((status = 200, body = HostList)))]
async fn list(State(control): State<ControlHandle>) -> Json<HostList> {
    let state = control.state();
    let live = control.live(&state).await;
    Json(HostList { hosts: state.hosts().values().map(|host| host_view(&state, &live, host)).collect() })
}

/// One host
#[utoipa::path(
    get, path = "/v1/hosts/{name}", tag = "hosts",
    params(("name" = String, Path, description = "Name of the host")),
    responses((status = 200, body = HostView), (status = 404, body = ErrorBody))
)]
async fn show(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
) -> Result<Json<HostView>, ApiError> {
    let what = format!("show host {name}");
    view(&control, &parse(Name::parse(&name), &what)?, &what).await
}

/// Add a host
#[utoipa::path(
    post, path = "/v1/hosts", tag = "hosts", request_body = CreateHostRequest,
    responses((status = 201, body = HostView), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody))
)]
async fn create(
    State(control): State<ControlHandle>,
    ApiJson(request): ApiJson<CreateHostRequest>,
) -> Result<(StatusCode, Json<HostView>), ApiError> {
    let what = format!("add host {}", request.name);
    let name = parse(Name::parse(&request.name), &what)?;
    let chap = match (request.chap_secret, request.mutual_chap_secret) {
        (Some(secret), mutual) => Some(Chap { secret, mutual }),
        (None, None) => None,
        (None, Some(_)) => {
            let why = "`mutual_chap_secret` was given without `chap_secret`";
            return Err(Refusal::new(RefusalKind::Invalid, what, why).next("give both").into());
        }
    };
    let new = NewHost {
        id: Uuid::new_v4(),
        name: name.clone(),
        nqn: optional(request.nqn.as_deref(), Nqn::parse, &what)?,
        iqn: optional(request.iqn.as_deref(), Iqn::parse, &what)?,
        chap,
    };
    control.submit(Action::CreateHost(new)).await?;
    Ok((StatusCode::CREATED, view(&control, &name, &what).await?))
}

/// Remove a host that no target allows
#[utoipa::path(
    delete, path = "/v1/hosts/{name}", tag = "hosts",
    params(("name" = String, Path, description = "Name of the host")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
async fn delete(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, ApiError> {
    let host = parse(Name::parse(&name), &format!("remove host {name}"))?;
    control.submit(Action::DeleteHost { host }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a host new CHAP secrets
///
/// They are asked for at the next login; sessions that the host has stay.
#[utoipa::path(
    put, path = "/v1/hosts/{name}/chap", tag = "hosts", request_body = ChapRequest,
    params(("name" = String, Path, description = "Name of the host")),
    responses((status = 200, body = HostView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn set_chap(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
    ApiJson(request): ApiJson<ChapRequest>,
) -> Result<Json<HostView>, ApiError> {
    let what = format!("give host {name} CHAP secrets");
    let host = parse(Name::parse(&name), &what)?;
    let ChapRequest { chap_secret: secret, mutual_chap_secret: mutual } = request;
    if secret.is_none() && mutual.is_none() {
        let why = "neither `chap_secret` nor `mutual_chap_secret` was given";
        return Err(Refusal::new(RefusalKind::Invalid, what, why).into());
    }
    control.submit(Action::SetChap { host: host.clone(), secret, mutual }).await?;
    view(&control, &host, &what).await
}

/// Ask a host for no CHAP any more
#[utoipa::path(
    delete, path = "/v1/hosts/{name}/chap", tag = "hosts",
    params(("name" = String, Path, description = "Name of the host")),
    responses((status = 204), (status = 404, body = ErrorBody))
)]
async fn clear_chap(
    State(control): State<ControlHandle>,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, ApiError> {
    let host = parse(Name::parse(&name), &format!("turn CHAP off for host {name}"))?;
    control.submit(Action::ClearChap { host }).await?;
    Ok(StatusCode::NO_CONTENT)
}
