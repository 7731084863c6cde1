//! What every request passes before it is carried out, whichever way it is answered, and what is counted of
//! it.
//!
//! [`enter`] is the gate: it counts, checks the token and gives a place; [`Visit::leave`] counts the answer.
//! The router passes it as a layer ([`pass`]), the answers that are made before the router call it
//! themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use foresail_schemas::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::EVENTS;
use super::reply::Failure;
use super::take::{App, Sent};
use crate::meter::{RouteMeter, add};
use crate::shared::{Shared, overloaded};

/// Label of requests whose address no route has.
const UNMATCHED: &str = "unmatched";

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

/// What of a request decides whether it is let in.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The places it needs one of.
    pub places: Places,
}

/// Places among the requests under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// For requests that are answered as fast as possible.
    Requests,
    /// For requests that wait for events.
    Listeners,
}

/// A place that is taken.
enum Place<'a> {
    None,
    Request(#[allow(dead_code, reason = "it is given back when it is dropped")] SemaphorePermit<'a>),
    Listener(Arc<OwnedSemaphorePermit>),
}

/// A request that was let in, under way until this is dropped.
pub struct Visit<'a> {
    app: &'a Shared,
    route: &'a RouteMeter,
    method: &'static str,
    began: Instant,
    /// Only where it is logged.
    path: Option<String>,
    place: Place<'a>,
}

/// Lets a request in, or answers why not.
#[allow(clippy::result_large_err, reason = "the error is the answer, which is sent as it is")]
pub fn enter<'a>(app: &'a Shared, route: &'a RouteMeter, asked: Asked<'_>) -> Result<Visit<'a>, Response> {
    add(&app.meter.requests_open, 1);
    let path = tracing::enabled!(tracing::Level::DEBUG).then(|| asked.path.to_owned());
    let (method, began) = (method_label(asked.method), Instant::now());
    let mut visit = Visit { app, route, method, began, path, place: Place::None };
    match token(app, asked).and_then(|()| place(app, asked)) {
        Ok(place) => {
            visit.place = place;
            Ok(visit)
        }
        Err(refused) => Err(visit.leave(refused.into_response())),
    }
}

impl Visit<'_> {
    /// The place of a request that listens: a stream goes on after its handler and takes it along.
    pub fn listener(&self) -> Option<Arc<OwnedSemaphorePermit>> {
        match &self.place {
            Place::Listener(place) => Some(Arc::clone(place)),
            _ => None,
        }
    }

    /// Counts the answer and writes it to the log.
    pub fn leave(self, response: Response) -> Response {
        let (status, time) = (response.status().as_u16(), self.began.elapsed());
        self.route.answered(self.method, status, time);
        if let Some(path) = &self.path {
            let elapsed_ms = time.as_secs_f64() * 1000.0;
            tracing::debug!(method = self.method, path, status, elapsed_ms, "answered");
        }
        response
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // Here, because a client that goes away ends its request without an answer.
        self.app.meter.requests_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets `work` answer within the time for a request.
pub async fn in_time(app: &Shared, work: impl Future<Output = Response>) -> Response {
    let limit_ms = app.settings.request_ms_max;
    match tokio::time::timeout(Duration::from_millis(limit_ms), work).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("there was no answer within {limit_ms} ms");
            Failure::limit(ErrorCode::Timeout, detail, limit_ms).into_response()
        }
    }
}

/// The gate in front of the handlers of the router.
pub async fn pass(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or(UNMATCHED);
    let places = if matched == EVENTS { Places::Listeners } else { Places::Requests };
    let route = app.meter.route(matched);
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    let visit = match enter(&app, &route, Asked { method, path, headers, places }) {
        Ok(visit) => visit,
        Err(refused) => return refused,
    };
    if let Some(place) = visit.listener() {
        request.extensions_mut().insert(place);
    }
    let response = match visit.place {
        // Whoever looks after the daemon is answered at once.
        Place::None => next.run(request).await,
        _ => in_time(&app, next.run(request)).await,
    };
    visit.leave(response)
}

/// Compares in a time that does not tell where the first difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// Lets nobody in without the token, where one is set; only `/livez` is open. Where none is, no stranger.
fn token(app: &Shared, asked: Asked<'_>) -> Result<(), Failure> {
    if asked.path == "/livez" {
        return Ok(());
    }
    let Some(token) = &app.settings.token else { return no_stranger(asked.headers) };
    let given = asked.headers.get(header::AUTHORIZATION).map(|v| v.as_bytes());
    let given = given.and_then(|v| v.strip_prefix(b"Bearer ")).unwrap_or_default();
    if same(given, token.as_bytes()) {
        return Ok(());
    }
    let detail =
        if given.is_empty() { "the request brings no token" } else { "the token is not the right one" };
    Err(Failure::new(ErrorCode::Unauthorized, detail))
}

/// Without a token programs of this machine may ask, and no page that a browser there shows.
fn no_stranger(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    match foresail_schemas::stranger(text(header::HOST), text(header::ORIGIN)) {
        None => Ok(()),
        Some(who) => {
            let detail = format!("{who} may not ask a metad without a token; hint: set FORESAIL_METAD_TOKEN");
            Err(Failure::new(ErrorCode::Unauthorized, detail))
        }
    }
}

/// Gives the request a place among those under way.
fn place<'a>(app: &'a Shared, asked: Asked<'_>) -> Result<Place<'a>, Failure> {
    if matches!(asked.path, "/livez" | "/readyz") {
        // Whoever looks after the daemon gets an answer under overload too.
        return Ok(Place::None);
    }
    let full = |what, limit| Failure(overloaded(what, limit));
    match asked.places {
        Places::Requests => app
            .requests
            .try_acquire()
            .map(Place::Request)
            .map_err(|_| full("too many requests are under way", app.settings.requests_max)),
        Places::Listeners => {
            let place = Arc::clone(&app.listeners)
                .try_acquire_owned()
                .map_err(|_| full("too many requests listen for events", app.settings.listeners_max))?;
            Ok(Place::Listener(Arc::new(place)))
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
