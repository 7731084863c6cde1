//! The host `lambda`: an invocation is an asynchronous invocation of the function of its size.
//!
//! Lambda keeps the queue, starts the sandboxes and limits their number; here is only what a caller has to
//! do: choose the function, keep within the payload limit, and ask again what was throttled, which the SDK
//! does (429 and the throttling exceptions, bounded, with jitter). Workers use it as clients do, with the
//! role of their function, so that no server stands between them: an asynchronous invocation is Lambda's as
//! soon as it is answered, and its caller may end.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::http::HttpResponse;
use aws_sdk_lambda::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambda::operation::RequestId;
use aws_sdk_lambda::operation::invoke::InvokeError;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::invocation::{HostStatus, Invocation, Invoked};
use foresail_worker::host::{Host, HostError, named_of, unknown_config};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Semaphore;

/// The alias of a function that is invoked.
pub const ALIAS: &str = "live";
/// Largest payload of an asynchronous invocation that every region takes. Source: Lambda quotas page,
/// 2025-11.
pub const PAYLOAD_BYTES_MAX: u64 = 256 << 10;
/// Requests to Lambda under way at the same time.
const IN_FLIGHT_MAX: usize = 64;
/// Invocations that wait for their request.
const QUEUE_MAX: u64 = 10_000;
/// Concurrent executions of an account where nothing else is known. Source: Lambda quotas page, 2025-11.
const CONCURRENCY_MAX: u64 = 1000;

/// Which functions a host invokes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LambdaSettings {
    /// Begin of their names.
    pub prefix: String,
    /// Their memory in MB.
    pub memory_mb: Vec<u32>,
}

/// Lambda as a host.
#[derive(Debug)]
pub struct LambdaHost {
    client: Client,
    settings: LambdaSettings,
    places: Semaphore,
    waiting: AtomicU64,
    under_way: AtomicU64,
}

/// The name of the function of a size.
#[must_use]
pub fn function_name(prefix: &str, memory_mb: u32) -> String {
    format!("{prefix}-{memory_mb}")
}

impl LambdaHost {
    /// A host of these functions.
    #[must_use]
    pub fn new(config: &aws_config::SdkConfig, settings: LambdaSettings) -> Self {
        Self {
            client: Client::new(config),
            settings,
            places: Semaphore::new(IN_FLIGHT_MAX),
            waiting: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
        }
    }

    /// Asks Lambda whether this caller may invoke the function of each size, without invoking any.
    ///
    /// # Errors
    /// [`HostError`] of the first that may not be invoked.
    pub async fn dry_run(&self) -> Result<(), HostError> {
        for memory_mb in &self.settings.memory_mb {
            let name = function_name(&self.settings.prefix, *memory_mb);
            let asked = self.client.invoke().function_name(&name).qualifier(ALIAS);
            let asked = asked.invocation_type(InvocationType::DryRun).send().await;
            asked.map_err(|error| failure(&name, 0, &error))?;
        }
        Ok(())
    }

    async fn ask(&self, mut invocation: Invocation) -> Result<Invoked, HostError> {
        // Lambda keeps events that find no place, and does not say for how long.
        invocation.asked_at = Some(Timestamp::now());
        let memory_mb = invocation.config.memory_mb;
        if !self.settings.memory_mb.contains(&memory_mb) {
            let size = |memory_mb: &u32| ResourceConfig { memory_mb: *memory_mb, vcpu: None };
            return Err(unknown_config(&invocation.config, self.settings.memory_mb.iter().map(size)));
        }
        let name = function_name(&self.settings.prefix, memory_mb);
        let mut payload = payload_of(&name, &invocation)?;
        if payload.len() as u64 > PAYLOAD_BYTES_MAX && invocation.documents.take().is_some() {
            payload = payload_of(&name, &invocation)?;
        }
        let bytes = payload.len() as u64;
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(HostError::TooLarge {
                platform: platform(&name),
                bytes,
                bytes_max: PAYLOAD_BYTES_MAX,
            });
        }
        let queued = self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waits = Counted(&self.waiting);
        if queued >= QUEUE_MAX {
            return Err(HostError::CapacityExceeded { queued, queue_max: QUEUE_MAX });
        }
        // The places are never closed.
        let _place = self.places.acquire().await;
        drop(_waits);
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let _under_way = Counted(&self.under_way);
        let asked = self.client.invoke().function_name(&name).qualifier(ALIAS);
        let asked = asked.invocation_type(InvocationType::Event).payload(Blob::new(payload)).send().await;
        let taken = asked.map_err(|error| failure(&name, bytes, &error))?;
        // The worker has the same id: it names its invocation in the same way.
        let request_id = taken.request_id().unwrap_or("unnamed");
        Ok(Invoked { instance: named_of(invocation.worker.as_ref(), request_id) })
    }
}

/// Counts down when dropped.
struct Counted<'a>(&'a AtomicU64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Host for LambdaHost {
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Invoked, HostError>> {
        Box::pin(self.ask(invocation))
    }

    fn documents_bytes_max(&self) -> usize {
        (PAYLOAD_BYTES_MAX - Invocation::BYTES_MAX) as usize
    }

    fn status(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        let status = HostStatus {
            busy: self.under_way.load(Ordering::SeqCst),
            idle: 0,
            queued: self.waiting.load(Ordering::SeqCst),
            concurrency_max: CONCURRENCY_MAX,
            cold_starts: 0,
            warm_starts: 0,
            // Lambda keeps them and does not say.
            warm: Vec::new(),
        };
        Box::pin(async move { Ok(status) })
    }
}

fn payload_of(name: &str, invocation: &Invocation) -> Result<Vec<u8>, HostError> {
    serde_json::to_vec(invocation).map_err(|error| HostError::Refused {
        platform: platform(name),
        cause: format!("the invocation has no JSON form: {error}"),
        hint: "please report it".to_owned(),
    })
}

fn platform(name: &str) -> String {
    format!("AWS Lambda, function `{name}`")
}

/// What a failed request means for the invocation.
fn failure(name: &str, bytes: u64, error: &SdkError<InvokeError, HttpResponse>) -> HostError {
    let platform = platform(name);
    let status = error.raw_response().map(|response| response.status().as_u16());
    let told = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => crate::in_words(error),
    };
    let cause = match status {
        Some(status) => format!("status {status}, {told}"),
        None => told,
    };
    let hint = |text: &str| text.to_owned();
    match status {
        Some(429) => HostError::Throttled {
            platform,
            cause,
            hint: hint("raise the limit of concurrent executions of the account, or plan for fewer workers"),
        },
        Some(413) => HostError::TooLarge { platform, bytes, bytes_max: PAYLOAD_BYTES_MAX },
        Some(401 | 403) => HostError::Refused {
            platform,
            cause,
            hint: format!(
                "the caller needs lambda:InvokeFunction on `{name}:{ALIAS}`; see `foresail doctor aws`"
            ),
        },
        Some(404) => HostError::Refused {
            platform,
            cause,
            hint: hint("is it the right region? `foresail deploy aws` makes the function and its alias"),
        },
        Some(status) if status < 500 => {
            HostError::Refused { platform, cause, hint: hint("see `foresail doctor aws`") }
        }
        _ => HostError::Silent {
            platform,
            cause,
            hint: hint("are region, credentials and network right? `foresail doctor aws` looks at them"),
        },
    }
}
