//! Foresail on AWS Lambda.
//!
//! - [`host`]: the host that invokes functions, asynchronously, one function per memory size.
//! - [`deploy`]: what a deployment consists of, as data; made, looked at and destroyed through the SDK, or
//!   written as Terraform.
//! - [`settings`]: what a function is told by its environment.
//!
//! Guarantees: an invocation is at most as large as Lambda takes; every wait has a limit and every retry is
//! bounded; what [`deploy`] made carries a tag, and only what carries it is destroyed. Absent on purpose: no
//! server of its own. Whoever has the right to invoke a function asks Lambda itself.

pub mod deploy;
pub mod host;
pub mod settings;

use std::time::Duration;

pub use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
pub use host::{LambdaHost, LambdaSettings};

/// Tries of a request, the first included. Throttled and failed ones are repeated by the SDK after a pause
/// that grows, with full jitter; a budget that all requests share ends the repetitions when most of them
/// fail.
pub const TRIES_MAX: u32 = 6;
/// First pause of the SDK at most.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause of the SDK.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest time for a connection to stand.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Longest time of one try.
const TRY_LIMIT: Duration = Duration::from_secs(10);
/// Longest time of a request with all its tries.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// Region, credentials and endpoint as the AWS command line finds them: the environment (`AWS_REGION`,
/// `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …), the shared files, the role of the machine. Limits and retries
/// are those of this crate.
pub async fn connect(region: Option<&str>) -> SdkConfig {
    let loader = limited(aws_config::defaults(BehaviorVersion::latest()));
    match region {
        Some(region) => loader.region(Region::new(region.to_owned())).load().await,
        None => loader.load().await,
    }
}

/// The same with the limits of this crate.
#[must_use]
pub fn limited(loader: aws_config::ConfigLoader) -> aws_config::ConfigLoader {
    let retries = RetryConfig::standard().with_max_attempts(TRIES_MAX);
    let retries = retries.with_initial_backoff(PAUSE_FIRST).with_max_backoff(PAUSE_MAX);
    let limits = TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .operation_attempt_timeout(TRY_LIMIT)
        .operation_timeout(REQUEST_LIMIT)
        .build();
    loader.retry_config(retries).timeout_config(limits)
}

/// A failure with its causes, in words.
pub(crate) fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}
