//! Requests to metad and to the host of the workers: JSON in and out, problems as errors, bounded repeats.
//!
//! Everything that is sent here is idempotent by the protocol (operations, runs with an id, blobs) or
//! harmless when doubled (invocations), so that a request whose answer was lost may be repeated.

use std::time::Duration;

use bytes::Bytes;
use foresail_schemas::Problem;
use futures_util::stream::{self, Stream};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ClientError;
use crate::settings::ClientSettings;

/// A service at one address.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    name: &'static str,
    base: Url,
    http: reqwest::Client,
    settings: ClientSettings,
}

/// One request, before it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    accept: &'static str,
    wait: Duration,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    body: Bytes,
    epoch: u64,
}

impl Call {
    pub fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post<T: Serialize>(path: &[&str], body: &T) -> Self {
        let json = serde_json::to_vec(body).expect("wire types have text keys and finite numbers only");
        Self { body: Some(json.into()), ..Self::new(Method::POST, path) }
    }

    pub fn put<T: Serialize>(path: &[&str], body: &T) -> Self {
        Self { method: Method::PUT, ..Self::post(path, body) }
    }

    fn new(method: Method, path: &[&str]) -> Self {
        let path = path.iter().map(|&part| part.to_owned()).collect();
        Self { method, path, query: Vec::new(), body: None, accept: "*/*", wait: Duration::ZERO }
    }

    pub fn query(mut self, key: &'static str, value: impl ToString) -> Self {
        self.query.push((key, value.to_string()));
        self
    }

    /// The answer may take this much longer, because the service waits on purpose.
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self.query("wait_ms", wait.as_millis())
    }
}

impl Service {
    pub fn new(name: &'static str, address: &str, settings: &ClientSettings) -> Result<Self, ClientError> {
        let wrong =
            |reason: String| ClientError::Address { service: name, address: address.to_owned(), reason };
        let base = Url::parse(address).map_err(|e| wrong(e.to_string()))?;
        if base.scheme() != "http" || base.host_str().is_none() {
            return Err(wrong("it must begin with http:// and name a host".to_owned()));
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = &settings.token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| ClientError::Token { service: name })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // The services are near by design; a proxy for the web cannot reach a loopback address.
        let http = reqwest::Client::builder()
            .connect_timeout(settings.connect_limit)
            .default_headers(headers)
            .no_proxy()
            .build()
            .map_err(|e| wrong(e.to_string()))?;
        // The token is in the headers now, where no debug output shows it.
        let settings = ClientSettings { token: None, ..settings.clone() };
        Ok(Self { name, base, http, settings })
    }

    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    pub async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let url = self.url(&call);
        let answer = self.answer(Call { accept: "application/json", ..call }).await?;
        serde_json::from_slice(&answer.body).map_err(|e| self.unreadable(&url, e.to_string()))
    }

    /// The answer as postcard, and the epoch in its ETag (0 where it has none).
    pub async fn packed_and_epoch<T: DeserializeOwned>(&self, call: Call) -> Result<(T, u64), ClientError> {
        let url = self.url(&call);
        let answer = self.answer(Call { accept: "application/octet-stream", ..call }).await?;
        let value = postcard::from_bytes(&answer.body).map_err(|e| self.unreadable(&url, e.to_string()))?;
        Ok((value, answer.epoch))
    }

    fn unreadable(&self, url: &Url, reason: String) -> ClientError {
        ClientError::Unreadable { service: self.name, url: url.to_string(), reason }
    }

    pub async fn bytes(&self, call: Call) -> Result<Bytes, ClientError> {
        self.answer(call).await.map(|answer| answer.body)
    }

    /// The body piece by piece, so that a large one needs no memory. Each piece may take as long as a whole
    /// request elsewhere; what breaks off is not repeated.
    pub async fn pieces(
        &self,
        call: Call,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Send + use<>, ClientError> {
        let url = self.url(&call);
        let (service, limit) = (self.name, self.settings.request_limit);
        let lost = move |reason: String| ClientError::Unreachable { service, url: url.to_string(), reason };
        let sent = tokio::time::timeout(limit, self.request(&call).send()).await;
        let response = match sent {
            Ok(sent) => sent.map_err(|e| lost(causes(&e)))?,
            Err(_) => return Err(lost(format!("no answer within {limit:?}"))),
        };
        if !response.status().is_success() {
            let (url, status) = (response.url().clone(), response.status());
            let body = response.bytes().await.map_err(|e| lost(causes(&e)))?;
            return Err(self.refusal(&url, status, &body));
        }
        Ok(stream::try_unfold((response, lost), move |(mut response, lost)| async move {
            match tokio::time::timeout(limit, response.chunk()).await {
                Ok(Ok(piece)) => Ok(piece.map(|piece| (piece, (response, lost)))),
                Ok(Err(error)) => Err(lost(causes(&error))),
                Err(_) => Err(lost(format!("nothing more came within {limit:?}"))),
            }
        }))
    }

    /// Sends until it is answered, refused for good, or the attempts are used up.
    async fn answer(&self, call: Call) -> Result<Answer, ClientError> {
        let mut pause = self.settings.backoff;
        for _ in 1..self.settings.attempts_max {
            match self.once(&call).await {
                Err(error) if error.may_pass() => tokio::time::sleep(pause).await,
                done => return done,
            }
            pause = (pause * 2).min(self.settings.backoff_max);
        }
        self.once(&call).await
    }

    async fn once(&self, call: &Call) -> Result<Answer, ClientError> {
        let url = self.url(call);
        let lost =
            |reason: String| ClientError::Unreachable { service: self.name, url: url.to_string(), reason };
        let limit = self.settings.request_limit + call.wait;
        let late = |_| lost(format!("no answer within {limit:?}"));
        let sent = tokio::time::timeout(limit, self.request(call).send()).await.map_err(late)?;
        let mut response = sent.map_err(|e| lost(causes(&e)))?;
        let status = response.status();
        let epoch = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map_or(0, epoch);
        // A large answer is made while it is sent: each piece has the time that a short answer has.
        let mut body = Vec::new();
        while let Some(piece) = tokio::time::timeout(limit, response.chunk())
            .await
            .map_err(late)?
            .map_err(|e| lost(causes(&e)))?
        {
            body.extend_from_slice(&piece);
        }
        match status.is_success() {
            true => Ok(Answer { body: body.into(), epoch }),
            false => Err(self.refusal(&url, status, &body)),
        }
    }

    fn request(&self, call: &Call) -> reqwest::RequestBuilder {
        let request = self.http.request(call.method.clone(), self.url(call)).header("accept", call.accept);
        match &call.body {
            None => request,
            Some(body) => request.header("content-type", "application/json").body(body.clone()),
        }
    }

    fn refusal(&self, url: &Url, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => {
                let problem = Box::new(problem);
                ClientError::Refused { service: self.name, url: url.to_string(), problem }
            }
            Err(_) => ClientError::Unreadable {
                service: self.name,
                url: url.to_string(),
                reason: format!("status {status} without a problem: {}", String::from_utf8_lossy(body)),
            },
        }
    }

    fn url(&self, call: &Call) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        url
    }
}

/// The number in an ETag such as `"412"`, `W/"412"` or `"412-json"`; 0 where there is none.
fn epoch(tag: &str) -> u64 {
    let version = tag.trim_start_matches("W/").trim_matches('"');
    version.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The error and what caused it: the outermost text alone says only that sending failed.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(address: &str) -> Result<Service, ClientError> {
        let settings = ClientSettings {
            attempts_max: 2,
            backoff: Duration::from_millis(1),
            connect_limit: Duration::from_secs(1),
            ..ClientSettings::default()
        };
        Service::new("metad", address, &settings)
    }

    #[test]
    fn an_address_without_scheme_or_host_is_refused() {
        for bad in ["", "127.0.0.1:7070", "ftp://x", "http://", "https://x"] {
            let error = service(bad).expect_err(bad);
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn parts_of_a_path_are_escaped_and_a_base_path_is_kept() {
        let service = service("http://127.0.0.1:7070/metad/").unwrap();
        let call = Call::get(&["v1", "runs", "a b"]).query("kinds", "x,y");
        assert_eq!(service.url(&call).as_str(), "http://127.0.0.1:7070/metad/v1/runs/a%20b?kinds=x%2Cy");
    }

    #[test]
    fn the_epoch_is_the_number_in_the_tag() {
        for (tag, expect) in [("\"412\"", 412), ("W/\"7\"", 7), ("\"8-json\"", 8), ("\"x\"", 0), ("", 0)] {
            assert_eq!(epoch(tag), expect, "{tag}");
        }
    }

    #[test]
    fn a_token_that_is_no_header_value_is_refused_and_none_is_shown() {
        let with = |token: &str| {
            let settings = ClientSettings { token: Some(token.to_owned()), ..ClientSettings::default() };
            Service::new("metad", "http://127.0.0.1:9", &settings)
        };
        let error = with("a\nb").unwrap_err();
        assert!(matches!(error, ClientError::Token { .. }), "{error:?}");
        assert!(!format!("{:?}", with("secret-7").unwrap()).contains("secret-7"));
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_named_with_its_address() {
        let service = service("http://127.0.0.1:9").unwrap();
        let error = service.bytes(Call::get(&["livez"])).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("http://127.0.0.1:9/livez"));
        assert!(error.hint().contains("foresail up"));
    }

    #[tokio::test]
    async fn an_answer_may_take_longer_than_the_limit_as_long_as_it_comes() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let settings = ClientSettings {
            request_limit: Duration::from_secs(2),
            attempts_max: 1,
            ..ClientSettings::default()
        };
        let service = Service::new("metad", &address, &settings).unwrap();
        let serve = async |pause: Duration| {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.unwrap();
            for _ in 0..4 {
                tokio::time::sleep(pause).await;
                // The client may have given up.
                let _ = stream.write_all(b"x").await;
            }
        };
        let slow = async |pause| tokio::join!(service.bytes(Call::get(&["livez"])), serve(pause)).0;
        assert_eq!(slow(Duration::from_millis(700)).await.unwrap(), "xxxx");
        let error = slow(Duration::from_millis(2_500)).await.unwrap_err();
        assert!(error.to_string().contains("2s"), "{error}");
    }
}
