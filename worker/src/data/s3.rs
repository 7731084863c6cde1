//! Objects in a bucket of S3, or of what speaks its protocol: which bucket, and the way to it.
//!
//! The address of a bucket is `s3://BUCKET/PREFIX?endpoint=URL&region=NAME&request_ms_max=MS`; all but the
//! bucket may be absent. Credentials never stand in it: they come from the environment (`AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, or the role of the machine). The store itself is there where
//! the crate is built with the feature `s3`; without it, opening one says so. Times in ms.

#[cfg(feature = "s3")]
mod bucket;

use std::str::FromStr;
use std::sync::Arc;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::store::{ObjectStore, StoreError};

/// Name of the store in measurements and errors.
pub const STORE: &str = "s3";
/// Longest time of one request, by default: a part of 8 MiB at 280 KB/s.
pub const REQUEST_MS_MAX: u64 = 30_000;

/// A bucket and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with, without `/` at its ends; empty where they begin with nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Where the protocol is spoken; AWS where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region; that of the environment where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Longest time of one request; a call makes several where the first fail.
    pub request_ms_max: u64,
}

impl FromStr for S3Settings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = "hint: write `s3://BUCKET/PREFIX?endpoint=URL&region=NAME`";
        let wrong = |why: String| format!("store `{text}`: {why}; {hint}");
        let url = Url::parse(text).map_err(|e| wrong(e.to_string()))?;
        let bucket = url.host_str().filter(|bucket| url.scheme() == "s3" && !bucket.is_empty());
        let bucket = bucket.ok_or_else(|| wrong("it names no bucket of S3".to_owned()))?.to_owned();
        if !url.username().is_empty() || url.password().is_some() {
            let why = "a store `s3://…` with credentials: they would be logged";
            return Err(format!("{why}; hint: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        let prefix = url.path().trim_matches('/').to_owned();
        if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.contains("//") {
            return Err(wrong(format!("the prefix `{prefix}` has an empty part, `.` or `..`")));
        }
        let (endpoint, region, request_ms_max) = (None, None, REQUEST_MS_MAX);
        let mut settings = Self { bucket, prefix, endpoint, region, request_ms_max };
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "endpoint" => settings.endpoint = Some(checked_endpoint(&value).map_err(wrong)?),
                "region" => settings.region = Some(value.into_owned()),
                "request_ms_max" => {
                    let ms = value.parse().ok().filter(|ms| *ms > 0);
                    settings.request_ms_max =
                        ms.ok_or_else(|| wrong(format!("`{value}` ms is no time limit above 0")))?;
                }
                other => return Err(wrong(format!("`{other}` is no part of it"))),
            }
        }
        Ok(settings)
    }
}

fn checked_endpoint(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(format!("the endpoint `{text}` is no address with http:// or https://")),
    }
}

impl std::fmt::Display for S3Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut query = Vec::new();
        query.extend(self.endpoint.iter().map(|endpoint| format!("endpoint={endpoint}")));
        query.extend(self.region.iter().map(|region| format!("region={region}")));
        if self.request_ms_max != REQUEST_MS_MAX {
            query.push(format!("request_ms_max={}", self.request_ms_max));
        }
        let (slash, mark) =
            (if self.prefix.is_empty() { "" } else { "/" }, if query.is_empty() { "" } else { "?" });
        write!(f, "s3://{}{slash}{}{mark}{}", self.bucket, self.prefix, query.join("&"))
    }
}

/// What is said where a bucket is named and this build cannot open one.
pub const NOT_BUILT_IN: &str = "this program was built without the feature `s3`; hint: `cargo build \
    --release -p foresail` builds it with all features, `--features s3` adds this one to a build without";

/// Whether this build can open a bucket.
#[must_use]
pub const fn is_built_in() -> bool {
    cfg!(feature = "s3")
}

/// The store in this bucket. It asks nothing of S3 yet.
///
/// # Errors
/// [`StoreError::Failed`] where the settings make no client, or this build has none.
#[cfg(feature = "s3")]
pub fn open(settings: &S3Settings) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Ok(Arc::new(bucket::S3Store::open(settings)?))
}

/// The store in this bucket: none, in a build without the feature `s3`.
///
/// # Errors
/// [`StoreError::Failed`], always.
#[cfg(not(feature = "s3"))]
pub fn open(settings: &S3Settings) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Err(StoreError::Failed { key: settings.to_string(), store: STORE, cause: NOT_BUILT_IN.to_owned() })
}

/// Deletes everything that lies below the prefix in this bucket, whoever put it there; gives how many objects
/// that were. A whole bucket is never emptied.
///
/// # Errors
/// [`StoreError::Failed`] where there is no prefix, the store does not answer, or this build has none; some
/// are deleted then.
pub fn clear(settings: &S3Settings) -> Result<u64, StoreError> {
    if settings.prefix.is_empty() {
        let cause = "without a prefix this would empty the bucket".to_owned();
        return Err(StoreError::Failed { key: settings.to_string(), store: STORE, cause });
    }
    open(settings)?.clear()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_bucket_is_never_emptied() {
        let settings: S3Settings = "s3://bucket".parse().unwrap();
        let error = clear(&settings).unwrap_err().to_string();
        assert!(error.contains("s3://bucket") && error.contains("prefix"), "{error}");
    }

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in [
            "s3://bucket",
            "s3://bucket/a/b",
            "s3://bucket?region=eu-central-1",
            "s3://bucket/a?endpoint=http://127.0.0.1:5000&region=us-east-1&request_ms_max=250",
        ] {
            let settings: S3Settings = text.parse().unwrap();
            assert_eq!(settings.to_string(), text);
            let json = serde_json::to_string(&settings).unwrap();
            assert_eq!(serde_json::from_str::<S3Settings>(&json).unwrap(), settings);
        }
        let slashes: S3Settings = "s3://b/a/?endpoint=https://x/".parse().unwrap();
        assert_eq!((slashes.prefix.as_str(), slashes.endpoint.as_deref()), ("a", Some("https://x")));
    }

    #[test]
    fn what_is_no_address_of_a_bucket_is_refused_with_the_reason() {
        for (text, expect) in [
            ("bucket", "hint: write `s3://"),
            ("https://bucket", "names no bucket"),
            ("s3:///prefix", "names no bucket"),
            ("s3://b/a//b", "empty part"),
            ("s3://b?endpoint=here", "no address with http"),
            ("s3://b?request_ms_max=0", "no time limit"),
            ("s3://b?reigon=x", "`reigon` is no part"),
            ("s3://key:secret@b", "AWS_ACCESS_KEY_ID"),
        ] {
            let error = text.parse::<S3Settings>().unwrap_err();
            assert!(error.contains(expect), "{text}: {error}");
        }
        let error = "s3://key:secret@b".parse::<S3Settings>().unwrap_err();
        assert!(!error.contains("secret@"), "{error}");
    }
}
