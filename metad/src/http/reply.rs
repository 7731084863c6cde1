//! Answers: JSON for what went well, problem+json for the rest.

use std::fmt::Display;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foresail_schemas::{ErrorCode, Problem};
use serde::Serialize;

use crate::store::StoreError;

/// Media type of most bodies.
pub const JSON: &str = "application/json";
/// Media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Media type of records line by line.
pub const NDJSON: &str = "application/x-ndjson";
/// What `Retry-After` says, in seconds: the queue of the writer is empty again long before.
const RETRY_AFTER_S: &str = "1";

/// A request that could not be carried out.
#[derive(Debug)]
pub struct Failure(pub Problem);

/// What handlers return.
pub type Answer = Result<Response, Failure>;

impl Failure {
    /// A failure of this code.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, detail))
    }

    /// A failure because `limit` was passed.
    pub fn limit(code: ErrorCode, detail: impl Into<String>, limit: u64) -> Self {
        Self(Problem::new(code, detail).with_limit(limit))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a read failed");
        Self::new(ErrorCode::StoreFailed, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Body::from(to_json(&self.0))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.0.retryable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if self.0.code == ErrorCode::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("wire types always have a JSON form")
}

/// A JSON answer.
pub fn json<T: Serialize>(value: &T) -> Response {
    json_text(to_json(value))
}

/// An answer that is JSON text already.
pub fn json_text(text: impl Into<Body>) -> Response {
    typed(JSON, text)
}

/// An answer of some media type.
pub fn typed(media_type: &'static str, content: impl Into<Body>) -> Response {
    let mut response = Response::new(content.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The answer 304, where the client has this version already: an epoch, and its form where there are several.
pub fn not_modified(version: impl Display, headers: &HeaderMap) -> Option<Response> {
    let known = headers.get(header::IF_NONE_MATCH)?.to_str().unwrap_or_default();
    let etag = format!("\"{version}\"");
    let matches = known.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == etag || t == "*");
    matches.then(|| tagged(version, StatusCode::NOT_MODIFIED.into_response()))
}

/// The answer with its version as `ETag`.
pub fn tagged(version: impl Display, mut response: Response) -> Response {
    let etag = HeaderValue::try_from(format!("\"{version}\""))
        .expect("digits and the name of a form in quotes are a legal header");
    response.headers_mut().insert(header::ETAG, etag);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(if_none_match: Option<&str>) -> StatusCode {
        let mut headers = HeaderMap::new();
        if let Some(value) = if_none_match {
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap());
        }
        not_modified(412, &headers).map_or(StatusCode::OK, |r| r.status())
    }

    #[test]
    fn who_has_the_epoch_is_told_so() {
        for (known, expected) in [
            (None, 200),
            (Some("\"412\""), 304),
            (Some("W/\"412\""), 304),
            (Some("\"1\", \"412\""), 304),
            (Some("*"), 304),
            (Some("\"411\""), 200),
            (Some("412"), 200),
        ] {
            assert_eq!(status(known), expected, "{known:?}");
        }
    }

    #[test]
    fn every_code_answers_with_its_status_and_media_type() {
        for &code in ErrorCode::ALL {
            let response = Failure::new(code, "x").into_response();
            assert_eq!(response.status(), code.status());
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), code.is_retryable());
        }
    }
}
