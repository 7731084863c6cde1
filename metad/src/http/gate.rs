//! What every request passes before its handler, and what is counted of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use foresail_schemas::ErrorCode;

use super::EVENTS;
use super::reply::Failure;
use super::take::{App, Sent};
use crate::meter::add;
use crate::shared::overloaded;

/// The pattern of the address: a label with few values.
fn route(request: &Request) -> String {
    let matched = request.extensions().get::<MatchedPath>();
    matched.map_or_else(|| "unmatched".to_owned(), |m| m.as_str().to_owned())
}

/// Any text can be a method; labels must be few.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// Counts the request and writes it to the log.
pub async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let (route, method, began) = (route(&request), method_label(request.method()), Instant::now());
    let path = request.uri().path().to_owned();
    add(&app.meter.requests_open, 1);
    let response = next.run(request).await;
    app.meter.requests_open.fetch_sub(1, Ordering::Relaxed);
    let (status, time) = (response.status().as_u16(), began.elapsed());
    app.meter.request(&route, method, status, time);
    let elapsed_ms = time.as_secs_f64() * 1000.0;
    tracing::debug!(method, path, status, elapsed_ms, "answered");
    response
}

/// Compares in a time that does not tell where the first difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// Lets nobody in without the token, where one is set; only `/livez` is open.
pub async fn token(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(token) = &app.settings.token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).map(|v| v.as_bytes());
    let given = given.and_then(|v| v.strip_prefix(b"Bearer ")).unwrap_or_default();
    if request.uri().path() == "/livez" || same(given, token.as_bytes()) {
        return next.run(request).await;
    }
    let detail =
        if given.is_empty() { "the request brings no token" } else { "the token is not the right one" };
    Failure::new(ErrorCode::Unauthorized, detail).into_response()
}

/// Gives the request a place among those under way, and a limit of time.
pub async fn place(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == "/livez" || path == "/readyz" {
        // Whoever looks after the daemon gets an answer under overload too.
        return next.run(request).await;
    }
    let listens = route(&request) == EVENTS;
    let (places, what, limit) = match listens {
        true => (&app.listeners, "too many requests listen for events", app.settings.listeners_max),
        false => (&app.requests, "too many requests are under way", app.settings.requests_max),
    };
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        return Failure(overloaded(what, limit)).into_response();
    };
    let place = Arc::new(place);
    if listens {
        // A stream goes on after its handler and takes the place along.
        request.extensions_mut().insert(Arc::clone(&place));
    }
    let limit_ms = app.settings.request_ms_max;
    match tokio::time::timeout(Duration::from_millis(limit_ms), next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("there was no answer within {limit_ms} ms");
            Failure::limit(ErrorCode::Timeout, detail, limit_ms).into_response()
        }
    }
}

/// Checks what is known of the body before it is read, limits it, and reads on where it was refused.
pub async fn body(State(app): State<App>, request: Request, next: Next) -> Response {
    let limit = app.settings.body_bytes_max;
    let (mut head, body) = request.into_parts();
    let sent = Sent::new(body);
    let response = match check_head(&mut head.headers, limit) {
        Ok(()) => next.run(Request::from_parts(head, sent.up_to(limit))).await,
        // Who asks before it sends is told at once and sends nothing.
        Err(refused) if head.headers.contains_key(header::EXPECT) => return refused.into_response(),
        Err(refused) => refused.into_response(),
    };
    if !response.status().is_success() {
        sent.drain().await;
    }
    response
}

fn check_head(headers: &mut HeaderMap, limit: u64) -> Result<(), Failure> {
    if let Some(length) = content_length(headers)
        && length > limit
    {
        let detail = format!("the body has `{length}` bytes, at most {limit} are taken");
        return Err(Failure::limit(ErrorCode::TooLarge, detail, limit));
    }
    match encoding(headers).as_deref() {
        None | Some("gzip" | "zstd") => {}
        Some("identity" | "") => {
            headers.remove(header::CONTENT_ENCODING);
        }
        Some(other) => {
            let detail = format!("Content-Encoding `{other}` is not understood, gzip and zstd are");
            return Err(Failure::new(ErrorCode::UnsupportedMediaType, detail));
        }
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn encoding(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_ENCODING)?;
    Some(value.to_str().unwrap_or("?").trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!same(b"abc", other));
        }
    }
}
