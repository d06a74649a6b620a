//! Status for people, health for supervisors, metrics for Prometheus.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{Phase, StatusView};
use crate::metrics::CONTENT_TYPE;
use crate::service::{ControlHandle, status_view};

pub fn routes() -> OpenApiRouter<ControlHandle> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
}

/// Health of the node in one look
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = 200, body = StatusView)))]
async fn status(State(control): State<ControlHandle>) -> Json<StatusView> {
    let state = control.state();
    let live = control.live(&state).await;
    Json(status_view(&state, &live, control.node().phase()))
}

/// Whether the process is alive
#[utoipa::path(get, path = "/healthz", tag = "status", responses((status = 200, body = String)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the node takes I/O and changes: 503 while it starts or drains
#[utoipa::path(
    get, path = "/readyz", tag = "status",
    responses((status = 200, body = String), (status = 503, body = String))
)]
async fn readyz(State(control): State<ControlHandle>) -> impl IntoResponse {
    let phase = control.node().phase();
    let code = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{}\n", phase.as_str()))
}

/// Metrics in the OpenMetrics text format
#[utoipa::path(get, path = "/metrics", tag = "status", responses((status = 200, body = String)))]
async fn metrics(State(control): State<ControlHandle>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], control.node().metrics())
}
