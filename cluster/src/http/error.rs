//! Refusals as replies.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::ErrorBody;
use crate::state::Refusal;

/// A refusal on its way to the client.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    refusal: Refusal,
}

impl ApiError {
    /// A refusal under a status of its own, where its kind's would be too coarse.
    pub fn with_status(status: StatusCode, refusal: Refusal) -> Self {
        ApiError { status, refusal }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.kind.http_status()).expect("every kind has a valid status");
        ApiError { status, refusal }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.refusal })).into_response()
    }
}
