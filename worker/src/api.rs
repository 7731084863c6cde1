//! A small HTTP client for the JSON interfaces of Foresail: metad and hosts of workers.
//!
//! Every request has a time limit. What failed says whether a repetition can help; repeating is the caller's
//! business, because each caller has its own patience.

use std::time::Duration;

use bytes::Bytes;
use foresail_schemas::error::Problem;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::text::cut;

/// Longest time for a connection to stand.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Longest time of an ordinary request.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Longest time of a request that carries large content.
pub const TRANSFER_LIMIT: Duration = Duration::from_secs(300);
/// Connections to one server that are kept open while nothing uses them.
const IDLE_CONNECTIONS_MAX: usize = 4;
/// Longest text of an answer that is no problem+json, in an error message, in bytes.
const ANSWER_TEXT_MAX: usize = 300;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address or the token cannot be used.
    #[error("`{base}` cannot be asked: {cause}")]
    Settings {
        /// The address.
        base: String,
        /// Why.
        cause: String,
    },
    /// No answer came; whether the request had an effect is not known.
    #[error("no answer from `{url}`: {cause}; hint: is it running, and is the address right?")]
    Unreachable {
        /// The address asked.
        url: String,
        /// Why.
        cause: String,
    },
    /// The answer is a problem.
    #[error("`{url}` refused: {problem}")]
    Refused {
        /// The address asked.
        url: String,
        /// The problem.
        problem: Box<Problem>,
    },
    /// The answer has another form than expected.
    #[error("`{url}` answered with status {status} and what cannot be read: {cause}")]
    Unreadable {
        /// The address asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Why, or the beginning of the answer.
        cause: String,
    },
}

impl ApiError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Settings { .. } => false,
            Self::Unreachable { .. } => true,
            Self::Refused { problem, .. } => problem.retryable,
            Self::Unreadable { status, .. } => *status >= 500,
        }
    }

    /// Whether the server has refused the content itself: it will not take it from anybody.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { problem, .. } => matches!(problem.status, 400 | 413 | 422) && !problem.retryable,
            Self::Settings { .. } | Self::Unreachable { .. } | Self::Unreadable { .. } => false,
        }
    }

    /// Whether the token is missing or wrong.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Refused { problem, .. } => problem.status == 401,
            Self::Unreadable { status, .. } => *status == 401,
            Self::Settings { .. } | Self::Unreachable { .. } => false,
        }
    }

    /// Whether what was asked for does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Refused { problem, .. } => problem.status == 404,
            Self::Unreadable { status, .. } => *status == 404,
            Self::Settings { .. } | Self::Unreachable { .. } => false,
        }
    }
}

/// A client of one server; clones share its connections.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    client: Client,
}

impl Api {
    /// A client of the server at `base`, for instance `http://127.0.0.1:7070`.
    ///
    /// # Errors
    /// [`ApiError::Settings`] when the token is not a header value.
    pub fn new(base: &str, token: Option<&str>) -> Result<Self, ApiError> {
        let base = base.trim_end_matches('/').to_owned();
        let settings = |cause: String| ApiError::Settings { base: base.clone(), cause };
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|_| settings("the token is not a header value".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .default_headers(headers)
            .no_proxy()
            .build()
            .map_err(|e| settings(with_sources(&e)))?;
        Ok(Self { base, client })
    }

    /// The address.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn get<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, ApiError> {
        let url = self.url(path);
        let response = self.send(&url, self.client.get(&url), limit).await?;
        read_json(url, response).await
    }

    /// Sends JSON and reads JSON.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, ApiError> {
        self.exchange(Method::POST, path, body, limit).await
    }

    /// Puts JSON and reads JSON.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, ApiError> {
        self.exchange(Method::PUT, path, body, limit).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, ApiError> {
        let url = self.url(path);
        let response = self.send(&url, self.client.request(method, &url).json(body), limit).await?;
        read_json(url, response).await
    }

    /// Asks for raw bytes. They are written into one buffer as they come, so that a large answer is never in
    /// memory twice.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn get_bytes(&self, path: &str) -> Result<Bytes, ApiError> {
        let url = self.url(path);
        let unreachable = |cause| ApiError::Unreachable { url: url.clone(), cause };
        let mut response = self.send(&url, self.client.get(&url), TRANSFER_LIMIT).await?;
        let mut content = Vec::new();
        let len = response.content_length().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
        content.try_reserve_exact(len).map_err(|e| unreachable(format!("{len} bytes: {e}")))?;
        while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(with_sources(&e)))? {
            content.extend_from_slice(&chunk);
        }
        Ok(content.into())
    }

    /// Puts raw bytes.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn put_bytes(&self, path: &str, content: Bytes) -> Result<(), ApiError> {
        let url = self.url(path);
        let request = self.client.put(&url).header("content-type", "application/octet-stream").body(content);
        self.send(&url, request, TRANSFER_LIMIT).await.map(drop)
    }

    /// Deletes.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn delete(&self, path: &str) -> Result<(), ApiError> {
        let url = self.url(path);
        self.send(&url, self.client.delete(&url), REQUEST_LIMIT).await.map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a request and gives the answer if it is a success.
    async fn send(&self, url: &str, request: RequestBuilder, limit: Duration) -> Result<Response, ApiError> {
        let unreachable = |e| ApiError::Unreachable { url: url.to_owned(), cause: with_sources(&e) };
        let response = request.timeout(limit).send().await.map_err(unreachable)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(unreachable)?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(ApiError::Refused { url: url.to_owned(), problem: Box::new(problem) }),
            Err(_) => {
                let mut cause = String::from_utf8_lossy(&body).into_owned();
                cut(&mut cause, ANSWER_TEXT_MAX);
                Err(ApiError::Unreadable { url: url.to_owned(), status, cause })
            }
        }
    }
}

async fn read_json<T: DeserializeOwned>(url: String, response: Response) -> Result<T, ApiError> {
    let status = response.status().as_u16();
    let body = match response.bytes().await {
        Ok(body) => body,
        Err(e) => return Err(ApiError::Unreachable { url, cause: with_sources(&e) }),
    };
    serde_json::from_slice(&body).map_err(|e| ApiError::Unreadable { url, status, cause: e.to_string() })
}

/// An error with its sources: that of an HTTP client alone says only that sending failed.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
