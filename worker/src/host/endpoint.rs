//! The host `http`: a platform with an HTTP endpoint per size, as Knative, Cloud Run and OpenFaaS have them.
//!
//! An invocation is posted to the endpoint of its size and answered to the caller at once. The request lasts
//! as long as the worker works ([`serve`](crate::serve)), or is accepted and forgotten (status 202); so many
//! are under way at a time, so many wait, and beyond that the host refuses. 429 and 503 mean that the
//! platform has no place for the moment: the request is made again after a pause that grows, with jitter, so
//! that those that were refused together do not come back together. What is given up the watchdog of the run
//! finds.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::InstanceId;
use foresail_schemas::invocation::{HostStatus, Invocation, Invoked};
use foresail_schemas::metric::StartState;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::naming::Naming;
use super::{Host, HostError, unknown_config};
use crate::serve::{INSTANCE_HEADER, INVOKED_AT_HEADER, Served};

/// Requests under way at the same time, by default.
pub const IN_FLIGHT_MAX: u32 = 100;
/// Invocations that wait for their request, by default.
pub const QUEUE_MAX: u32 = 10_000;
/// How long an invocation that is refused is tried again, by default.
pub const RETRY_LIMIT: Duration = Duration::from_secs(60);
/// Longest time of a request, by default: what Knative gives one, and a little more.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(610);
/// Longest time for a connection to stand.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long an endpoint counts as there after it was reached.
const SEEN_LIMIT: Duration = Duration::from_secs(5);
/// First pause after a refusal; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause after a refusal.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Where the workers of a size are asked for, written as `512=http://worker-512.default.svc`.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Memory of its workers in MB.
    pub memory_mb: u32,
    /// Its address.
    pub url: Url,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("endpoint `{text}`: {why}; hint: write `512=http://host:port/path`");
        let (memory, url) = text.split_once('=').ok_or_else(|| wrong("no `=` between size and address"))?;
        let memory_mb = memory.trim().parse().map_err(|_| wrong("the size is no number of MB"))?;
        let url: Url = url.trim().parse().map_err(|_| wrong("the address cannot be read"))?;
        if url.scheme() != "http" || url.host_str().is_none() {
            return Err(wrong("the address must begin with `http://`: it is one inside the cluster"));
        }
        Ok(Self { memory_mb, url })
    }
}

/// Settings of an [`EndpointHost`].
#[derive(Debug, Clone)]
pub struct EndpointSettings {
    /// The sizes offered.
    pub endpoints: Vec<Endpoint>,
    /// Token that the workers want.
    pub token: Option<String>,
    /// Requests under way at the same time.
    pub in_flight_max: u32,
    /// Invocations that wait for their request.
    pub queue_max: u32,
    /// Longest time of a request.
    pub request_limit: Duration,
    /// How long an invocation that is refused is tried again.
    pub retry_limit: Duration,
}

impl EndpointSettings {
    /// The defaults for these endpoints.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            token: None,
            in_flight_max: IN_FLIGHT_MAX,
            queue_max: QUEUE_MAX,
            request_limit: REQUEST_LIMIT,
            retry_limit: RETRY_LIMIT,
        }
    }
}

/// A platform with an HTTP endpoint per size. Its requests live on the runtime that [`Host::invoke`] is
/// called on.
#[derive(Debug)]
pub struct EndpointHost(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: EndpointSettings,
    client: Client,
    places: Semaphore,
    counts: Mutex<Counts>,
    naming: Naming,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: u64,
    under_way: u64,
    cold_starts: u64,
    warm_starts: u64,
    /// When the endpoint of this number was last reached.
    seen: Vec<Option<Instant>>,
}

/// An invocation on its way.
struct Delivery {
    at: usize,
    instance: InstanceId,
    invocation: Invocation,
    invoked_at: Timestamp,
}

/// What came of a request.
enum Answer {
    /// It was carried out, and this was said of it, or it was accepted.
    Done(Option<Served>),
    /// No place for the moment.
    Later(String),
    /// It will not be carried out, or nobody knows.
    Lost(String),
}

impl EndpointHost {
    /// A host of these endpoints.
    ///
    /// # Errors
    /// A sentence when there is no endpoint, or no HTTP client can be made.
    pub fn new(settings: EndpointSettings) -> Result<Self, String> {
        if settings.endpoints.is_empty() {
            return Err("no endpoint is named; hint: give `512=http://host:port` for each size".to_owned());
        }
        let client = Client::builder().connect_timeout(CONNECT_LIMIT).no_proxy().build();
        let client = client.map_err(|e| format!("no HTTP client can be made: {e}"))?;
        let seen = vec![None; settings.endpoints.len()];
        Ok(Self(Arc::new(Inner {
            places: Semaphore::new(settings.in_flight_max as usize),
            counts: Mutex::new(Counts { seen, ..Counts::default() }),
            naming: Naming::new(),
            client,
            settings,
        })))
    }
}

impl Host for EndpointHost {
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Invoked, HostError>> {
        Box::pin(async move {
            let inner = &self.0;
            let at = inner.endpoint_of(&invocation.config)?;
            inner.reach(at).await?;
            inner.take_place()?;
            let instance = inner.naming.name(invocation.worker.as_ref());
            let invoked_at = Timestamp::now();
            let delivery = Delivery { at, instance: instance.clone(), invocation, invoked_at };
            tokio::spawn(Arc::clone(inner).deliver(delivery));
            Ok(Invoked { instance })
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        let counts = self.0.counts();
        let status = HostStatus {
            busy: counts.under_way,
            idle: 0,
            queued: counts.waiting,
            concurrency_max: u64::from(self.0.settings.in_flight_max),
            cold_starts: counts.cold_starts,
            warm_starts: counts.warm_starts,
            // The platform behind the endpoint has them and does not say.
            warm: Vec::new(),
        };
        Box::pin(async move { Ok(status) })
    }
}

impl Inner {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoint_of(&self, config: &ResourceConfig) -> Result<usize, HostError> {
        let endpoints = &self.settings.endpoints;
        let found = endpoints.iter().position(|endpoint| endpoint.memory_mb == config.memory_mb);
        let menu = || endpoints.iter().map(|e| ResourceConfig { memory_mb: e.memory_mb, vcpu: None });
        found.ok_or_else(|| unknown_config(config, menu()))
    }

    /// Makes sure that somebody listens there. What is posted is answered much later, and whoever asks for a
    /// worker shall not have to wait for that to learn that there is no endpoint.
    async fn reach(&self, at: usize) -> Result<(), HostError> {
        let is_fresh = |seen: Instant| seen.elapsed() < SEEN_LIMIT;
        if self.counts().seen[at].is_some_and(is_fresh) {
            return Ok(());
        }
        let url = &self.settings.endpoints[at].url;
        let address = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80));
        let silent = |cause: String| HostError::Silent {
            platform: format!("the endpoint `{url}`"),
            cause,
            hint: "is it deployed, and is the address right?".to_owned(),
        };
        match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => self.counts().seen[at] = Some(Instant::now()),
            Ok(Err(error)) => return Err(silent(error.to_string())),
            Err(_) => return Err(silent(format!("no connection within {} s", CONNECT_LIMIT.as_secs()))),
        }
        Ok(())
    }

    fn take_place(&self) -> Result<(), HostError> {
        let (mut counts, settings) = (self.counts(), &self.settings);
        let queue_max = u64::from(settings.queue_max);
        if counts.waiting + counts.under_way >= u64::from(settings.in_flight_max) + queue_max {
            return Err(HostError::CapacityExceeded { queued: counts.waiting, queue_max });
        }
        counts.waiting += 1;
        Ok(())
    }

    async fn deliver(self: Arc<Self>, delivery: Delivery) {
        // The places are never closed.
        let _place = self.places.acquire().await;
        {
            let mut counts = self.counts();
            counts.waiting -= 1;
            counts.under_way += 1;
        }
        let answer = self.post_patiently(&delivery).await;
        let mut counts = self.counts();
        counts.under_way -= 1;
        match answer {
            Ok(None) => {}
            Ok(Some(Served { start: StartState::Cold, .. })) => counts.cold_starts += 1,
            Ok(Some(Served { start: StartState::Warm, .. })) => counts.warm_starts += 1,
            Err(cause) => {
                let (instance, run) = (&delivery.instance, &delivery.invocation.run);
                tracing::warn!(%instance, %run, cause, "an invocation is left to the watchdog of the run");
            }
        }
    }

    async fn post_patiently(&self, delivery: &Delivery) -> Result<Option<Served>, String> {
        let (gives_up, mut pause) = (Instant::now() + self.settings.retry_limit, PAUSE_FIRST);
        loop {
            match self.post(delivery).await {
                Answer::Done(served) => return Ok(served),
                Answer::Later(cause) if Instant::now() + pause < gives_up => {
                    tracing::debug!(instance = %delivery.instance, cause, "it is invoked again");
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Answer::Later(cause) | Answer::Lost(cause) => return Err(cause),
            }
        }
    }

    async fn post(&self, delivery: &Delivery) -> Answer {
        let response = match self.request(delivery).send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Answer::Later(error.to_string()),
            Err(error) => return Answer::Lost(error.to_string()),
        };
        self.counts().seen[delivery.at] = Some(Instant::now());
        let status = response.status();
        let body = response.bytes().await;
        match (status, body) {
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) => {
                Answer::Later(format!("status {status}"))
            }
            // What is not the answer of a worker is that of a queue before it.
            (status, Ok(body)) if status.is_success() => Answer::Done(serde_json::from_slice(&body).ok()),
            (status, Ok(body)) => {
                let mut text = String::from_utf8_lossy(&body).into_owned();
                crate::text::cut(&mut text, ANSWER_TEXT_MAX);
                Answer::Lost(format!("status {status}: {text}"))
            }
            (_, Err(error)) => Answer::Lost(error.to_string()),
        }
    }

    fn request(&self, delivery: &Delivery) -> RequestBuilder {
        let Delivery { at, instance, invocation, invoked_at } = delivery;
        let request = self.client.post(self.settings.endpoints[*at].url.clone());
        let request = request.timeout(self.settings.request_limit).json(invocation);
        let request = request.header(INSTANCE_HEADER, instance.as_str());
        let request = request.header(INVOKED_AT_HEADER, invoked_at.to_string());
        match &self.settings.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

/// Longest text of a refusal in the log, in bytes.
const ANSWER_TEXT_MAX: usize = 300;

/// Between half the pause and all of it. Source: M. Brooker, Exponential Backoff and Jitter, AWS Architecture
/// Blog, 2015 (equal jitter).
fn jittered(pause: Duration) -> Duration {
    let drawn = RandomState::new().build_hasher().finish();
    pause.mul_f64(0.5 + 0.5 * (drawn as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_size_and_an_address_inside_the_cluster() {
        let endpoint: Endpoint = "512=http://worker-512.default.svc/run".parse().unwrap();
        assert_eq!((endpoint.memory_mb, endpoint.url.path()), (512, "/run"));
        for (text, why) in [
            ("http://a", "no `=`"),
            ("x=http://a", "no number of MB"),
            ("1=nowhere", "cannot be read"),
            ("1=https://a", "must begin with `http://`"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_pause_is_never_longer_than_it_was_and_never_shorter_than_half() {
        let pauses: Vec<_> = (0..100).map(|_| jittered(PAUSE_MAX)).collect();
        assert!(pauses.iter().all(|pause| (PAUSE_MAX / 2..=PAUSE_MAX).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "they differ");
    }
}
