//! The HTTP side of a node: `/v1`, health and metrics.
//!
//! The port may face anybody, so whatever a client sends or withholds is bounded:
//!
//! | What | Bound |
//! |---|---|
//! | connections | [`CONNECTIONS_MAX`]; more wait in the kernel's backlog |
//! | a request's head | 16 KiB, 64 headers, 5 s |
//! | a request's body | [`BODY_BYTES_MAX`], 5 s |
//! | answering a request | 30 s |
//! | a client that does not read its reply | 15 s without progress |
//! | a connection | 10 min |
//!
//! A page in a browser cannot use it behind the operator's back: bodies must be JSON by their content
//! type, which browsers do not send elsewhere without asking, and a port on loopback answers to
//! loopback's names and addresses only, so that a name made to point there does not reach it.

mod devices;
mod error;
mod extract;
mod groups;
mod guard;
mod health;
mod hosts;
mod server;
mod snapshots;
mod targets;
mod volumes;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri, header};
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::service::ControlHandle;
use crate::state::{NameError, Refusal, RefusalKind};
use error::ApiError;

pub use extract::BODY_BYTES_MAX;
pub use server::{CONNECTIONS_MAX, Shutdown, ShutdownTrigger, bind, serve, shutdown};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ashlar",
        description = "The control API of an Ashlar node. Sizes are bytes, times milliseconds since 1970 UTC. \
                       Every reply that is not a success has a body that says what was asked, why it was not done, \
                       what was not lost, and what to do next.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "status", description = "How the node is"),
        (name = "volumes", description = "Virtual disks"),
        (name = "groups", description = "Volumes that are cut together, and how they are stored"),
        (name = "snapshots", description = "Cuts of groups, and clones"),
        (name = "devices", description = "Disks of the node"),
        (name = "operations", description = "Long work with progress"),
        (name = "targets", description = "What hosts connect to"),
        (name = "hosts", description = "Who may connect")
    )
)]
struct Document;

/// All routes, and the document that describes them.
fn routes() -> OpenApiRouter<ControlHandle> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(health::routes())
        .merge(volumes::routes())
        .merge(groups::routes())
        .merge(snapshots::routes())
        .merge(devices::routes())
        .merge(targets::routes())
        .merge(hosts::routes())
}

/// The OpenAPI 3.1 document of this release, as `/v1/openapi.json` serves it.
pub fn openapi_json() -> String {
    let (_, document) = routes().split_for_parts();
    document.to_pretty_json().expect("the document has string keys and no fallible values")
}

fn router(control: ControlHandle) -> Router {
    let (router, document) = routes().split_for_parts();
    let document: Arc<str> =
        document.to_json().expect("the document has string keys and no fallible values").into();
    let document = move || {
        let document = document.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], document.to_string()) }
    };
    router
        .route("/v1/openapi.json", get(document))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(axum::middleware::from_fn_with_state(control.clone(), guard::guard))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(control)
}

async fn no_such_path(method: Method, uri: Uri) -> ApiError {
    Refusal::new(RefusalKind::NotFound, format!("{method} {}", uri.path()), "there is no such path")
        .next("see /v1/openapi.json")
        .into()
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let why = "that path does not take this method";
    let refusal = Refusal::new(RefusalKind::Invalid, format!("{method} {}", uri.path()), why);
    ApiError::with_status(StatusCode::METHOD_NOT_ALLOWED, refusal.next("see /v1/openapi.json"))
}

/// The name, or the refusal of `what` that says what is wrong with it.
fn parse<T>(name: Result<T, NameError>, what: &str) -> Result<T, Refusal> {
    name.map_err(|e| Refusal::new(RefusalKind::Invalid, what, e.to_string()))
}

/// [`parse`] of a name that may be left out.
fn optional<T>(
    text: Option<&str>,
    parser: impl Fn(&str) -> Result<T, NameError>,
    what: &str,
) -> Result<Option<T>, Refusal> {
    text.map(|text| parse(parser(text), what)).transpose()
}
