//! Requests: names from the path, parameters, headers, and bodies within their limits.
//!
//! A body is read into memory only as far as the limits go: its size as sent and as unpacked, and the sum of
//! all bodies under way. Long texts are parsed on the blocking pool ([`by_size`]), so that one large request
//! does not hold up the others.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use foresail_schemas::{ErrorCode, Problem};
use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::pool::by_size;
use super::reply::Failure;
use crate::shared::{BUDGET_UNIT_BYTES, Shared, overloaded};

/// Bytes and time for which a body is read on after it was refused.
const DRAINED_BYTES_MAX: usize = 1 << 20;
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// The state of every handler.
pub type App = Arc<Shared>;

/// Names from the path.
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for PathOf<T> {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(refused) => {
                Err(Failure::new(ErrorCode::InvalidName, format!("in the address: {}", refused.body_text())))
            }
        }
    }
}

/// Parameters behind the `?`.
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for QueryOf<T> {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, app).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(refused) => Err(Failure::new(ErrorCode::InvalidParameter, refused.body_text())),
        }
    }
}

/// The body, with its share of the memory for bodies: keep it until the request is answered.
pub struct Content {
    /// The bytes, unpacked.
    pub bytes: Bytes,
    _memory: Memory,
}

/// A share of the memory for bodies.
#[derive(Default)]
struct Memory {
    permits: Option<OwnedSemaphorePermit>,
    bytes: u64,
}

impl Memory {
    /// Takes what is missing for `bytes`.
    fn grow(&mut self, app: &Shared) -> Result<(), Failure> {
        let held = self.permits.as_ref().map_or(0, |p| p.num_permits() as u64);
        let wanted = self.bytes.div_ceil(BUDGET_UNIT_BYTES);
        if wanted <= held {
            return Ok(());
        }
        let more = u32::try_from(wanted - held).unwrap_or(u32::MAX);
        let permits = Arc::clone(&app.body_budget).try_acquire_many_owned(more).map_err(|_| {
            overloaded("too many bytes of bodies are under way", app.settings.body_bytes_waiting_max)
        })?;
        match &mut self.permits {
            None => self.permits = Some(permits),
            Some(held) => held.merge(permits),
        }
        Ok(())
    }
}

/// Marks a body whose bytes as sent exceed the limit; found again in the chain of causes behind the
/// decompression.
#[derive(Debug, thiserror::Error)]
#[error("the body as sent is larger than the limit")]
pub struct SentTooMuch;

fn too_large(what: &str, limit: u64) -> Failure {
    Failure::limit(ErrorCode::TooLarge, format!("{what} is larger than {limit} bytes"), limit)
}

/// A body as the connection brings it, shared between who reads it and who reads on after a refusal.
pub struct Sent(Arc<Mutex<BodyDataStream>>);

impl Sent {
    /// Takes over a body.
    pub fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body.into_data_stream())))
    }

    /// The same body, but it breaks off behind `limit` bytes. Stands before the decompression.
    pub fn up_to(&self, limit: u64) -> Body {
        Body::from_stream(stream::try_unfold((Arc::clone(&self.0), 0u64), move |(body, sent)| async move {
            let Some(chunk) = body.lock().await.next().await.transpose()? else { return Ok(None) };
            let sent = sent + chunk.len() as u64;
            if sent > limit {
                Err(Box::new(SentTooMuch) as axum::BoxError)
            } else {
                Ok(Some((chunk, (body, sent))))
            }
        }))
    }

    /// Reads on for a while: a client that is still sending would find the connection closed instead of the
    /// answer.
    pub async fn drain(&self) {
        let reading = async {
            let mut body = self.0.lock().await;
            let mut drained = 0;
            while drained < DRAINED_BYTES_MAX
                && let Some(Ok(chunk)) = body.next().await
            {
                drained += chunk.len();
            }
        };
        let _enough = tokio::time::timeout(DRAIN_MAX, reading).await;
    }
}

fn broken(error: &(dyn std::error::Error + 'static), limit: u64) -> Failure {
    let mut cause = Some(error);
    while let Some(this) = cause {
        if this.is::<SentTooMuch>() {
            return too_large("the body as sent", limit);
        }
        cause = this.source();
    }
    Failure::new(ErrorCode::InvalidBody, format!("the body cannot be read to its end: {error}"))
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// Too large, overloaded, or broken off.
pub async fn content<B>(app: &Shared, body: B, limit: u64) -> Result<Content, Failure>
where
    B: HttpBody<Data = Bytes, Error: std::error::Error + 'static>,
{
    let mut memory = Memory::default();
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|e| broken(&e, app.settings.body_bytes_max))?;
        // What is no data are trailers, which nobody needs.
        let Ok(chunk) = frame.into_data() else { continue };
        memory.bytes += chunk.len() as u64;
        if memory.bytes > limit {
            return Err(too_large("the body", limit));
        }
        memory.grow(app)?;
        chunks.push(chunk);
    }
    let bytes = match chunks.len() {
        1 => chunks.swap_remove(0),
        _ => chunks.concat().into(),
    };
    Ok(Content { bytes, _memory: memory })
}

impl FromRequest<App> for Content {
    type Rejection = Failure;
    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        content(app, request.into_body(), app.settings.body_bytes_max).await
    }
}

/// The media type of the body, lower case and without its parameters.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

/// Whether `Accept` names a media type, and not with the weight 0 that refuses it (RFC 9110, section 12.4.2).
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        is_named && weight.is_none_or(|weight| weight.trim().parse() != Ok(0.0_f64))
    })
}

/// A body of one JSON type. Without a `Content-Type` it is taken for JSON.
pub struct JsonOf<T>(pub T, pub Content);

impl<T: DeserializeOwned + Send + 'static> FromRequest<App> for JsonOf<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        if let Some(found) = media_type(request.headers())
            && found != "application/json"
        {
            let detail = format!("`{found}` is not taken here, application/json is");
            return Err(Failure::new(ErrorCode::UnsupportedMediaType, detail));
        }
        let content = Content::from_request(request, app).await?;
        Self::read(app, content).await
    }
}

impl<T: DeserializeOwned + Send + 'static> JsonOf<T> {
    /// Reads a body that is JSON by what its sender says.
    ///
    /// # Errors
    /// Invalid body.
    pub async fn read(app: &App, content: Content) -> Result<Self, Failure> {
        let bytes = content.bytes.clone();
        let parsed = by_size(app, bytes.len(), move || serde_json::from_slice(&bytes)).await?;
        Ok(Self(parsed.map_err(|e| invalid_json(&e))?, content))
    }
}

/// The failure of a text that is not the JSON it should be.
pub fn invalid_json(error: &serde_json::Error) -> Failure {
    Failure(Problem::new(ErrorCode::InvalidBody, format!("the body: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_accepted_where_it_is_named_with_some_weight() {
        for (accept, is_accepted) in [
            ("application/json", true),
            ("text/html, Application/JSON;q=0.1", true),
            ("application/json; charset=utf-8; q=1", true),
            ("application/json;q=0", false),
            ("application/json; Q=0.000, */*", false),
            ("application/json-seq", false),
            ("*/*", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(accepts(&headers, "application/json"), is_accepted, "{accept}");
        }
        assert!(!accepts(&HeaderMap::new(), "application/json"));
    }
}
