//! Hosts: platforms that start workers for invocations.
//!
//! A host answers an invocation at once and starts the worker when it has a place for it. [`local`] runs
//! worker processes on this machine; [`endpoint`] posts invocations to an HTTP endpoint per size, as Knative
//! and OpenFaaS have them; [`gateway`] serves any host at an address; [`HttpHost`] speaks with any host by
//! its address. What every host holds is tested by [`conformance`].

pub(crate) mod again;
pub mod conformance;
pub mod endpoint;
pub(crate) mod front;
pub mod gateway;
pub(crate) mod guard;
pub mod local;
pub(crate) mod naming;
pub(crate) mod objects;

use std::time::Duration;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::error::ErrorCode;
use foresail_schemas::invocation::{HostStatus, Invocation, Invoked};
use futures_util::future::BoxFuture;

use crate::api::{Api, ApiError, REQUEST_LIMIT};
pub use naming::named_of;

/// Longest time of a request to a host.
const HOST_LIMIT: Duration = REQUEST_LIMIT;

/// Why a host did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No place and no room to wait for one.
    #[error(
        "{queued} invocations wait already, at most {queue_max} may; hint: wait and invoke again, or raise \
         queue_max"
    )]
    CapacityExceeded {
        /// Invocations that wait.
        queued: u64,
        /// Most that may wait.
        queue_max: u64,
    },
    /// The size is not on the menu.
    #[error("the host offers no workers of {config}; it offers {menu}")]
    UnknownConfig {
        /// The size asked for.
        config: String,
        /// The sizes offered.
        menu: String,
    },
    /// The host works for another metad.
    #[error("the host works for metad at `{served}`, not `{asked}`; hint: start a host for that metad")]
    OtherMetad {
        /// The address asked for.
        asked: String,
        /// The address of its settings.
        served: String,
    },
    /// The host is stopping or has stopped.
    #[error("the host has stopped; hint: start it again")]
    Stopped,
    /// The platform takes no more for the moment, however often it was asked.
    #[error("{platform} takes no more invocations for the moment: {cause}; hint: {hint}")]
    Throttled {
        /// What was asked.
        platform: String,
        /// What it said.
        cause: String,
        /// What to do about it.
        hint: String,
    },
    /// No answer of the platform, or one that says that it fails.
    #[error("{platform} cannot be asked: {cause}; hint: {hint}")]
    Silent {
        /// What was asked.
        platform: String,
        /// Why.
        cause: String,
        /// What to do about it.
        hint: String,
    },
    /// The platform refused, and will again.
    #[error("{platform} refused: {cause}; hint: {hint}")]
    Refused {
        /// What was asked.
        platform: String,
        /// What it said.
        cause: String,
        /// What to do about it.
        hint: String,
    },
    /// The platform does not take an invocation of this size.
    #[error(
        "the invocation has {bytes} bytes, {platform} takes at most {bytes_max}; hint: name fewer tasks in \
         it, a planned worker finds its others when it joins"
    )]
    TooLarge {
        /// What was asked.
        platform: String,
        /// Its size as JSON.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The host could not be asked, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl HostError {
    /// The code under which this failure leaves the process.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::CapacityExceeded { .. } => ErrorCode::CapacityExceeded,
            Self::UnknownConfig { .. } => ErrorCode::UnknownConfig,
            Self::OtherMetad { .. } => ErrorCode::InvalidParameter,
            Self::Stopped | Self::Silent { .. } => ErrorCode::Unavailable,
            Self::Throttled { .. } => ErrorCode::CapacityExceeded,
            Self::Refused { .. } => ErrorCode::InvalidParameter,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Api(ApiError::Refused { problem, .. }) => problem.code,
            Self::Api(_) => ErrorCode::Unavailable,
        }
    }

    /// Whether the same invocation may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::CapacityExceeded { .. } | Self::Throttled { .. } | Self::Silent { .. } | Self::Stopped => {
                true
            }
            Self::UnknownConfig { .. }
            | Self::OtherMetad { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. } => false,
            Self::Api(error) => error.is_retryable(),
        }
    }
}

/// A platform that starts workers.
pub trait Host: Send + Sync {
    /// Asks for a worker; the answer does not wait for it.
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Invoked, HostError>>;

    /// What the host is doing, as far as it is told: a platform that takes an invocation and says no more of
    /// it leaves its workers uncounted.
    fn status(&self) -> BoxFuture<'_, Result<HostStatus, HostError>>;

    /// How many bytes of workflow and plan may travel with an invocation; none where whoever starts there
    /// reads them as cheaply.
    fn documents_bytes_max(&self) -> usize {
        0
    }

    /// Stops the idle workers, so that the next start is a cold one. Platforms that end them as they like do
    /// nothing.
    fn drain(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        self.status()
    }
}

/// The refusal of a size that is not on the menu.
#[must_use]
pub fn unknown_config(asked: &ResourceConfig, menu: impl IntoIterator<Item = ResourceConfig>) -> HostError {
    let menu = menu.into_iter().map(|config| config.to_string()).collect::<Vec<_>>().join("; ");
    HostError::UnknownConfig { config: asked.to_string(), menu }
}

/// A host at an address.
#[derive(Debug, Clone)]
pub struct HttpHost(Api);

impl HttpHost {
    /// The host at `base`, for instance `http://127.0.0.1:7171`.
    ///
    /// # Errors
    /// [`ApiError::Settings`] when no client can be made.
    pub fn new(base: &str) -> Result<Self, ApiError> {
        Self::with_token(base, None)
    }

    /// The host at `base`, which wants this token.
    ///
    /// # Errors
    /// [`ApiError::Settings`] when the token is not a header value.
    pub fn with_token(base: &str, token: Option<&str>) -> Result<Self, ApiError> {
        Api::new(base, token).map(Self)
    }
}

impl Host for HttpHost {
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Invoked, HostError>> {
        Box::pin(async move { Ok(self.0.post("/v1/invocations", &invocation, HOST_LIMIT).await?) })
    }

    fn status(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        Box::pin(async move { Ok(self.0.get("/v1/status", HOST_LIMIT).await?) })
    }

    fn drain(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        Box::pin(async move { Ok(self.0.post("/v1/drain", &serde_json::json!({}), HOST_LIMIT).await?) })
    }
}
