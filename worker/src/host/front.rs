//! The HTTP side of a host: read the request, ask the host, write the answer. No decisions here.
//!
//! Whoever may invoke runs code on this machine. So an invocation must be declared as JSON, which no web page
//! can send to another origin unasked; a host with a token wants it with every request, and one without takes
//! none of a page that a browser of this machine shows.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use foresail_schemas::error::{ErrorCode, Problem};
use foresail_schemas::invocation::Invocation;
use foresail_schemas::stranger;
use serde::Serialize;

use super::{Host, HostError};

/// Largest body of an invocation in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// The routes of a host that wants this token.
pub(crate) fn router(host: Arc<dyn Host>, token: Option<&str>) -> Router {
    let routes = Router::new()
        .route("/v1/invocations", post(invoke))
        .route("/v1/status", get(status))
        .route("/v1/drain", post(drain))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(host);
    guarded(routes, token)
}

/// The routes, for those alone who bring the token where there is one, and for no page of the web where not.
pub(crate) fn guarded(routes: Router, token: Option<&str>) -> Router {
    match token {
        // Hashes are compared in constant time.
        Some(token) => {
            let wanted = blake3::hash(format!("Bearer {token}").as_bytes());
            routes.layer(middleware::from_fn(move |request: Request, next: Next| async move {
                let given = request.headers().get(header::AUTHORIZATION);
                match given.is_some_and(|given| blake3::hash(given.as_bytes()) == wanted) {
                    true => next.run(request).await,
                    false => problem(Problem::new(
                        ErrorCode::Unauthorized,
                        "the token of the host is missing or wrong; it is that of its metad",
                    )),
                }
            }))
        }
        None => routes.layer(middleware::from_fn(|request: Request, next: Next| async move {
            match stranger_of(request.headers()) {
                None => next.run(request).await,
                Some(who) => problem(Problem::new(
                    ErrorCode::Unauthorized,
                    format!("{who} may not ask a host without a token; hint: set FORESAIL_METAD_TOKEN"),
                )),
            }
        })),
    }
}

fn stranger_of(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    stranger(text(header::HOST), text(header::ORIGIN))
}

async fn invoke(State(host): State<Arc<dyn Host>>, headers: HeaderMap, body: Bytes) -> Response {
    match read(&headers, &body) {
        Ok(invocation) => answer(StatusCode::ACCEPTED, host.invoke(invocation).await),
        Err(refusal) => problem(refusal),
    }
}

/// The invocation that a body holds.
pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Invocation, Problem> {
    if !is_json(headers) {
        let detail = "an invocation must have the content-type application/json";
        return Err(Problem::new(ErrorCode::UnsupportedMediaType, detail));
    }
    serde_json::from_slice(body).map_err(|error| Problem::new(ErrorCode::InvalidBody, error.to_string()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn status(State(host): State<Arc<dyn Host>>) -> Response {
    answer(StatusCode::OK, host.status().await)
}

async fn drain(State(host): State<Arc<dyn Host>>) -> Response {
    answer(StatusCode::OK, host.drain().await)
}

async fn nowhere() -> Response {
    problem(Problem::new(ErrorCode::NotFound, "a host has /v1/invocations, /v1/status and /v1/drain"))
}

async fn not_allowed() -> Response {
    let detail = "POST /v1/invocations, GET /v1/status, POST /v1/drain";
    problem(Problem::new(ErrorCode::MethodNotAllowed, detail))
}

fn answer<T: Serialize>(status: StatusCode, result: Result<T, HostError>) -> Response {
    match result {
        Ok(value) => (status, axum::Json(value)).into_response(),
        Err(error) => {
            let told = Problem::new(error.code(), error.to_string());
            problem(match error {
                HostError::CapacityExceeded { queue_max, .. } => told.with_limit(queue_max),
                _ => told,
            })
        }
    }
}

/// A problem as an answer.
pub(crate) fn problem(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(&problem)).into_response();
    let kind = header::HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if problem.retryable {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}
