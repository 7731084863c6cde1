//! The store of objects in a bucket, over the crate `object_store`.
//!
//! An object appears whole or not at all: a small one with one conditional PUT, which stores it if nothing
//! lies under its key, a large one in parts, which are an object once the last request says so. What lies
//! under the key already is compared: the same content is a repetition whose first answer was lost, other
//! content an error. Large objects are read in ranges side by side. Every request has a time limit and every
//! failed one a bounded number of repetitions with growing pauses. Sizes in bytes.
//!
//! Not here: what a process that was killed had uploaded of a large object lies in the bucket, seen by
//! nobody, until a rule of the bucket deletes it (docs/stores.md).

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use foresail_schemas::id::RunId;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _,
    PutMode, PutPayload, RetryConfig,
};
use tokio::runtime::Runtime;

use super::{S3Settings, STORE};
use crate::data::store::{ObjectStore, StoreError, check_key, safe_part};

/// Size of a part of a large object, in both directions. S3 takes none below 5 MiB but the last.
const PART_BYTES: u64 = 8 << 20;
/// Most parts of an object: the limit of S3.
const PARTS_MAX: u64 = 10_000;
/// Parts of one object that are under way at the same time.
const PARTS_AT_ONCE: usize = 4;
/// Largest object that is stored with one request.
const WHOLE_BYTES_MAX: u64 = 2 * PART_BYTES;
/// Longest time until a connection stands.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Repetitions of a request that failed, by the client.
const REPEATS_MAX: usize = 4;
/// Tries of a conditional PUT, which the client does not repeat where no answer came.
const TRIES_MAX: u32 = 3;
/// First pause before a repetition; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause before a repetition.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Keys that are deleted with one request: the limit of S3.
const KEYS_AT_ONCE: usize = 1_000;
/// Connections that are kept open while nothing uses them.
const IDLE_CONNECTIONS_MAX: usize = 2 * PARTS_AT_ONCE;

/// Objects in a bucket.
#[derive(Debug)]
pub(super) struct S3Store {
    client: AmazonS3,
    place: String,
    prefix: String,
    /// Its own, so that neither TLS nor copying keeps the thread of a worker from its run.
    runtime: Option<Runtime>,
}

impl S3Store {
    pub(super) fn open(settings: &S3Settings) -> Result<Self, StoreError> {
        let failed = |cause: String| StoreError::Failed { key: settings.to_string(), store: STORE, cause };
        let limit = Duration::from_millis(settings.request_ms_max);
        // As the SDK of AWS takes it, which is told of an endpoint in the same way.
        let of_environment = || std::env::var("AWS_ENDPOINT_URL").ok();
        let endpoint = settings.endpoint.clone().or_else(of_environment);
        let options = ClientOptions::new()
            .with_timeout(limit)
            .with_connect_timeout(CONNECT_LIMIT.min(limit))
            .with_pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .with_allow_http(endpoint.is_some_and(|url| url.starts_with("http://")));
        let backoff = BackoffConfig { init_backoff: PAUSE_FIRST, max_backoff: PAUSE_MAX, base: 2.0 };
        let retry = RetryConfig { backoff, max_retries: REPEATS_MAX, retry_timeout: limit * 2 };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&settings.bucket)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        let client = builder.build().map_err(|e| failed(e.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("foresail-s3")
            .enable_all()
            .build()
            .map_err(|e| failed(e.to_string()))?;
        let (place, prefix) = (settings.to_string(), settings.prefix.clone());
        Ok(Self { client, place, prefix, runtime: Some(runtime) })
    }

    /// Waits for an answer; the calling thread must not be one of a runtime.
    fn wait<T>(
        &self,
        key: &str,
        asked: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        let failed = |cause: String| StoreError::Failed { key: key.to_owned(), store: STORE, cause };
        let Some(runtime) = &self.runtime else { return Err(failed("the store was closed".to_owned())) };
        runtime.handle().block_on(asked).map_err(|error| match error {
            Error::NotFound { .. } => StoreError::Missing { key: key.to_owned(), store: STORE },
            error => failed(format!("{error} (`{}`)", self.place)),
        })
    }

    fn path(&self, key: &str) -> Result<Path, StoreError> {
        check_key(key, STORE)?;
        let full = if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        Path::parse(full).map_err(|e| StoreError::Failed {
            key: key.to_owned(),
            store: STORE,
            cause: e.to_string(),
        })
    }

    async fn put_whole(&self, at: &Path, object: &Bytes) -> object_store::Result<()> {
        let (mut tries, mut pause) = (1, PAUSE_FIRST);
        loop {
            let payload = PutPayload::from_bytes(object.clone());
            match self.client.put_opts(at, payload, PutMode::Create.into()).await {
                Ok(_) => return Ok(()),
                Err(error @ Error::AlreadyExists { .. }) => return self.same(at, object, error).await,
                Err(Error::Generic { .. }) if tries < TRIES_MAX => tokio::time::sleep(pause).await,
                Err(error) => return Err(error),
            }
            tries += 1;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The last request of a multipart upload cannot be made conditional with this client, so that what lies
    /// under the key is looked at first. Two writers at once leave one whole object of the two.
    async fn put_in_parts(&self, at: &Path, object: &Bytes) -> object_store::Result<()> {
        match self.client.head(at).await {
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => {
                let source = "an object lies there already".into();
                let found = Error::AlreadyExists { path: at.to_string(), source };
                return self.same(at, object, found).await;
            }
        }
        let part_bytes = PART_BYTES.max((object.len() as u64).div_ceil(PARTS_MAX)) as usize;
        let mut upload = self.client.put_multipart(at).await?;
        let parts = (0..object.len()).step_by(part_bytes).map(|from| {
            let part = object.slice(from..object.len().min(from + part_bytes));
            upload.put_part(PutPayload::from_bytes(part))
        });
        let sent = stream::iter(parts).buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await;
        let done = match sent {
            Ok(()) => upload.complete().await.map(drop),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // Parts without an object cost money and serve nobody; where this fails too, the bucket's rule
            // deletes them.
            let _ = upload.abort().await;
        }
        done
    }

    /// Whether what lies there is this object; `found` is the error where it is not.
    async fn same(&self, at: &Path, object: &Bytes, found: Error) -> object_store::Result<()> {
        match self.fetch(at).await? == *object {
            true => Ok(()),
            false => Err(found),
        }
    }

    async fn fetch(&self, at: &Path) -> object_store::Result<Bytes> {
        let range = |from: u64| Some(GetRange::Bounded(from..from + PART_BYTES));
        let first = GetOptions { range: range(0), ..GetOptions::default() };
        let found = match self.client.get_opts(at, first).await {
            Ok(found) => found,
            Err(error @ Error::NotFound { .. }) => return Err(error),
            // An empty object has no first byte, so that S3 refuses the range.
            Err(error) => {
                return match self.client.head(at).await {
                    Ok(about) if about.size == 0 => Ok(Bytes::new()),
                    _ => Err(error),
                };
            }
        };
        let (size, tag) = (found.meta.size, found.meta.e_tag.clone());
        let first = found.bytes().await?;
        if first.len() as u64 >= size {
            return Ok(first);
        }
        let mut content = Vec::new();
        let no_room = |e: &dyn std::fmt::Display| Error::Generic {
            store: STORE,
            source: format!("{size} bytes: {e}").into(),
        };
        let len = usize::try_from(size).map_err(|e| no_room(&e))?;
        content.try_reserve_exact(len).map_err(|e| no_room(&e))?;
        content.extend_from_slice(&first);
        drop(first);
        // The tag makes sure that all parts are of one object, should it be replaced meanwhile.
        let rest = (PART_BYTES..size).step_by(PART_BYTES as usize).map(|from| {
            let part = GetOptions { range: range(from), if_match: tag.clone(), ..GetOptions::default() };
            async move { self.client.get_opts(at, part).await?.bytes().await }
        });
        let mut parts = stream::iter(rest).buffered(PARTS_AT_ONCE);
        while let Some(part) = parts.try_next().await? {
            content.extend_from_slice(&part);
        }
        Ok(content.into())
    }

    async fn sweep_prefix(&self, prefix: &Path, kept: &HashSet<Path>) -> object_store::Result<u64> {
        let surplus = self.client.list(Some(prefix)).try_filter_map(|found| async move {
            Ok((!kept.contains(&found.location)).then_some(found.location))
        });
        let mut pages = surplus.boxed().try_chunks(KEYS_AT_ONCE);
        let mut deleted = 0;
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| e.1)?;
            deleted += page.len() as u64;
            let page = stream::iter(page.into_iter().map(Ok)).boxed();
            self.client.delete_stream(page).try_collect::<Vec<_>>().await?;
        }
        Ok(deleted)
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // Waiting for its thread is not allowed where another runtime drops the store.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl ObjectStore for S3Store {
    fn name(&self) -> &'static str {
        STORE
    }

    fn put(&self, key: &str, object: &Bytes) -> Result<(), StoreError> {
        let at = self.path(key)?;
        let put = async {
            match object.len() as u64 <= WHOLE_BYTES_MAX {
                true => self.put_whole(&at, object).await,
                false => self.put_in_parts(&at, object).await,
            }
        };
        self.wait(key, put).map_err(|error| match error {
            StoreError::Missing { key, store } => {
                let cause = format!("no such bucket (`{}`)", self.place);
                StoreError::Failed { key, store, cause }
            }
            failed => failed,
        })
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let at = self.path(key)?;
        self.wait(key, self.fetch(&at))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let at = self.path(key)?;
        match self.wait(key, self.client.delete(&at)) {
            Err(StoreError::Missing { .. }) => Ok(()),
            other => other,
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let prefix = Path::parse(&self.prefix).ok().filter(|_| !self.prefix.is_empty());
        let looked = async { self.client.list(prefix.as_ref()).try_next().await.map(drop) };
        self.wait(&self.place, looked)
    }

    fn sweep(&self, run: &RunId, kept: &HashSet<String>) -> Result<u64, StoreError> {
        let part = safe_part(run.as_str());
        let prefix = self.path(&part)?;
        let kept = kept.iter().map(|key| self.path(key)).collect::<Result<HashSet<_>, _>>()?;
        self.wait(&part, self.sweep_prefix(&prefix, &kept))
    }

    fn clear(&self) -> Result<u64, StoreError> {
        let cannot = |cause: String| StoreError::Failed { key: self.place.clone(), store: STORE, cause };
        let prefix = Path::parse(&self.prefix).map_err(|e| cannot(e.to_string()))?;
        self.wait(&self.place, self.sweep_prefix(&prefix, &HashSet::new()))
    }
}
