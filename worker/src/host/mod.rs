//! Hosts: platforms that start workers for invocations.
//!
//! A host answers an invocation at once and starts the worker when it has a place for it. [`local`] runs
//! worker processes on this machine; [`HttpHost`] speaks with any host by its address.

pub mod local;

use std::time::Duration;

use foresail_schemas::error::ErrorCode;
use foresail_schemas::invocation::{HostStatus, Invocation, Invoked};
use futures_util::future::BoxFuture;

use crate::api::{Api, ApiError, REQUEST_LIMIT};

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
            Self::Stopped => ErrorCode::Unavailable,
            Self::Api(ApiError::Refused { problem, .. }) => problem.code,
            Self::Api(_) => ErrorCode::Unavailable,
        }
    }

    /// Whether the same invocation may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::CapacityExceeded { .. } => true,
            Self::UnknownConfig { .. } | Self::OtherMetad { .. } | Self::Stopped => false,
            Self::Api(error) => error.is_retryable(),
        }
    }
}

/// A platform that starts workers.
pub trait Host: Send + Sync {
    /// Asks for a worker; the answer does not wait for it.
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Invoked, HostError>>;

    /// What the host is doing.
    fn status(&self) -> BoxFuture<'_, Result<HostStatus, HostError>>;
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

    /// Stops the idle workers, so that the next start is a cold one.
    ///
    /// # Errors
    /// [`HostError::Api`]
    pub async fn drain(&self) -> Result<HostStatus, HostError> {
        Ok(self.0.post("/v1/drain", &serde_json::json!({}), HOST_LIMIT).await?)
    }
}

impl Host for HttpHost {
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Invoked, HostError>> {
        Box::pin(async move { Ok(self.0.post("/v1/invocations", &invocation, HOST_LIMIT).await?) })
    }

    fn status(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        Box::pin(async move { Ok(self.0.get("/v1/status", HOST_LIMIT).await?) })
    }
}
