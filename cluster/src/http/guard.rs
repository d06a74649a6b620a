//! What every request passes: whom it is addressed to, how long it may take, what is counted.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::service::ControlHandle;
use crate::state::{Refusal, RefusalKind};

/// Longest time to answer a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The address a connection came in at.
#[derive(Debug, Clone, Copy)]
pub struct LocalAddress(pub SocketAddr);

/// Checks, times and counts one request.
pub async fn guard(
    State(control): State<ControlHandle>,
    Extension(LocalAddress(local)): Extension<LocalAddress>,
    request: Request,
    next: Next,
) -> Response {
    let method = label(request.method());
    let what = format!("{method} {}", request.uri().path());
    let response = if local.ip().to_canonical().is_loopback() && !is_for_loopback(request.headers()) {
        let why = "the request is addressed to another name than this node's loopback address";
        let refusal = Refusal::new(RefusalKind::Invalid, what, why).next("use 127.0.0.1, [::1] or localhost");
        ApiError::with_status(StatusCode::MISDIRECTED_REQUEST, refusal).into_response()
    } else {
        match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                let why = format!("there was no answer within {} s", ANSWER_TIMEOUT.as_secs());
                ApiError::from(
                    Refusal::new(RefusalKind::Unavailable, what, why)
                        .not_lost(
                            "a change that was asked for may still be made; what was there before is kept",
                        )
                        .next("look at what is there before asking again"),
                )
                .into_response()
            }
        }
    };
    control.metrics().count_request(method, response.status().as_u16());
    response
}

/// Whether the client believes that it talks to this machine's loopback address.
fn is_for_loopback(headers: &HeaderMap) -> bool {
    // HTTP/1.0 has no such header, and no browser speaks it.
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// The method as a label, from a fixed set.
fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "DELETE" => "DELETE",
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PATCH" => "PATCH",
        "POST" => "POST",
        "PUT" => "PUT",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_for_loopback() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.0.0.1:7070", true),
            ("localhost:7070", true),
            ("LocalHost", true),
            ("[::1]:7070", true),
            ("[::1]", true),
            ("evil.example", false),
            ("evil.example:7070", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(is_for_loopback(&headers), expected, "{host:?}");
        }
        assert!(is_for_loopback(&HeaderMap::new()));
    }
}
