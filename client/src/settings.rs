//! Limits of the client: how long each wait may take, how often a request is repeated.

use std::path::PathBuf;
use std::time::Duration;

use foresail_worker::data::s3::S3Settings;

/// Limits of a [`Client`](crate::Client).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Longest time to open a connection.
    pub connect_limit: Duration,
    /// Longest time until a request is answered, without the time a long poll waits on purpose, and until the
    /// next piece of a large answer comes.
    pub request_limit: Duration,
    /// Most attempts of a request whose failure may pass.
    pub attempts_max: u32,
    /// Pause before the second attempt; doubled with every further one.
    pub backoff: Duration,
    /// Longest pause between two attempts.
    pub backoff_max: Duration,
    /// How long a metad that does not answer is waited for while a run is followed: it may be restarted
    /// meanwhile.
    pub silence_limit: Duration,
    /// How long one long poll for events waits.
    pub poll: Duration,
    /// Longest time a run may take before [`RunHandle::wait`](crate::RunHandle::wait) gives up.
    pub run_limit: Duration,
    /// Longest time to wait after the end of a run until its workers have left and reported what they used.
    pub settle_limit: Duration,
    /// Directory in which the workers keep large objects, where this machine has it; blobs of metad where
    /// absent.
    pub objects: Option<PathBuf>,
    /// Bucket in which the workers keep large objects, where they do; comes before [`Self::objects`].
    pub bucket: Option<S3Settings>,
    /// Token that metad and the host want, where they want one.
    pub token: Option<String>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            connect_limit: Duration::from_secs(5),
            request_limit: Duration::from_secs(30),
            attempts_max: 5,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            silence_limit: Duration::from_secs(60),
            poll: Duration::from_secs(10),
            run_limit: Duration::from_secs(24 * 3600),
            settle_limit: Duration::from_secs(5),
            objects: None,
            bucket: None,
            token: None,
        }
    }
}
