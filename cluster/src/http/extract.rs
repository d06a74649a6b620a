//! Reads requests, and answers unreadable ones in the form of every other error.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::{StatusCode, header, request::Parts};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::state::{Refusal, RefusalKind};

/// Largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A body in JSON.
#[derive(Debug)]
pub struct ApiJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let bad = |status, why: String| {
            let refusal = Refusal::new(RefusalKind::Invalid, what.clone(), why).next("see /v1/openapi.json");
            Err(ApiError::with_status(status, refusal))
        };
        // A page in a browser can send any other type to this port without asking.
        if !is_json(request.headers()) {
            let why = "the body must be sent with the header `content-type: application/json`";
            return bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, why.into());
        }
        let too_large = || format!("the body is larger than {BODY_BYTES_MAX} bytes");
        if announced_bytes(request.headers()).is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
            return bad(StatusCode::PAYLOAD_TOO_LARGE, too_large());
        }
        let read = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await;
        let bytes = match read {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(rejection)) => {
                let status = rejection.status();
                let why = match status {
                    StatusCode::PAYLOAD_TOO_LARGE => {
                        format!("the body is larger than {BODY_BYTES_MAX} bytes")
                    }
                    _ => format!("the body cannot be read: {}", rejection.body_text()),
                };
                return bad(status, why);
            }
            Err(_) => {
                let why = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
                return bad(StatusCode::REQUEST_TIMEOUT, why);
            }
        };
        match axum::Json::<T>::from_bytes(&bytes) {
            Ok(axum::Json(value)) => Ok(ApiJson(value)),
            Err(JsonRejection::JsonDataError(e)) => bad(StatusCode::BAD_REQUEST, cause(&e)),
            Err(e) => bad(StatusCode::BAD_REQUEST, format!("the body is no JSON: {}", cause(&e))),
        }
    }
}

/// The innermost cause, which is what the JSON parser says.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The length of the body, if the client says it beforehand.
fn announced_bytes(headers: &axum::http::HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(headers: &axum::http::HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Parameters in the path.
#[derive(Debug)]
pub struct ApiPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let what = format!("{} {}", parts.method, parts.uri.path());
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(ApiPath(value)),
            Err(
                e @ (PathRejection::FailedToDeserializePathParams(_) | PathRejection::MissingPathParams(_)),
            ) => Err(Refusal::new(RefusalKind::Invalid, what, e.body_text()).into()),
            Err(e) => Err(Refusal::new(RefusalKind::Failed, what, e.body_text()).into()),
        }
    }
}

/// Parameters after the question mark.
#[derive(Debug)]
pub struct ApiQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let what = format!("{} {}", parts.method, parts.uri.path());
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(ApiQuery(value)),
            Err(QueryRejection::FailedToDeserializeQueryString(e)) => {
                Err(Refusal::new(RefusalKind::Invalid, what, cause(&e)).into())
            }
            Err(e) => Err(Refusal::new(RefusalKind::Invalid, what, e.body_text()).into()),
        }
    }
}
