//! One error code for every failure that leaves a process, carried as problem+json (RFC 9457).
//!
//! A code never changes its meaning. Status, whether a retry can help, and whether the request had no effect
//! are total matches on the code, shared by server and client.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the codes are explained; a problem's `type` is this with `#code` behind it.
pub const ERRORS_PAGE: &str = "https://foresail.dev/docs/errors.md";

macro_rules! error_codes {
    ($(
        $(#[doc = $doc:literal])+ $variant:ident
        $code:literal $status:literal $retryable:literal $no_effect:literal $hint:literal;
    )*) => {
        /// What went wrong, as a stable snake_case code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $($(#[doc = $doc])+ $variant,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// When it happens, in a sentence.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)* }
            }

            /// The HTTP status it goes with.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Whether the same request may succeed later.
            #[must_use]
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }

            /// Whether it is certain that the request changed nothing.
            #[must_use]
            pub fn has_no_side_effects(self) -> bool {
                match self { $(Self::$variant => $no_effect,)* }
            }

            /// What to do next.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }
        }
    };
}

error_codes! {
    /// The body is not JSON, or not of the expected form.
    InvalidBody "invalid_body" 400 false true
        "compare the body with the JSON Schema of the endpoint in /openapi.json";
    /// A parameter of the address is missing or malformed.
    InvalidParameter "invalid_parameter" 400 false true
        "compare the address with the endpoint in /openapi.json";
    /// A name has a character or a length that is not allowed.
    InvalidName "invalid_name" 400 false true
        "use 1 to 255 letters, digits and _ . : @ + ~ -, starting with a letter, digit or _";
    /// A single record of a batch breaks a rule; it was set aside.
    InvalidRecord "invalid_record" 422 false true
        "correct the record and send it in a new batch; the good records of this batch are stored";
    /// The workflow is not a DAG of known tasks.
    InvalidWorkflow "invalid_workflow" 422 false true
        "correct the reference or the cycle that the detail names";
    /// The plan does not fit the workflow.
    InvalidPlan "invalid_plan" 422 false true
        "plan this workflow again; a plan belongs to exactly one workflow";
    /// The token is missing or wrong.
    Unauthorized "unauthorized" 401 false true
        "send `Authorization: Bearer TOKEN` with the token metad was started with";
    /// The address leads nowhere.
    NotFound "not_found" 404 false true "see /openapi.json for the endpoints";
    /// No such workflow.
    WorkflowNotFound "workflow_not_found" 404 false true
        "list the workflows with GET /v1/workflows; a workflow appears with its first batch or run";
    /// No such task in the workflow.
    TaskNotFound "task_not_found" 404 false true "list the tasks with GET /v1/workflows/{workflow}/tasks";
    /// No such run.
    RunNotFound "run_not_found" 404 false true "list the runs with GET /v1/runs";
    /// No such blob.
    BlobNotFound "blob_not_found" 404 false true
        "blobs of a run are kept until its retention ends; run the workflow again";
    /// The endpoint does not take this method.
    MethodNotAllowed "method_not_allowed" 405 false true "see /openapi.json for the methods of the endpoint";
    /// The run exists already with another content.
    RunExists "run_exists" 409 false true "choose another run id, or leave it out and let metad choose";
    /// The plan was replaced in the meantime.
    PlanEpochConflict "plan_epoch_conflict" 409 false true "read the current plan and decide again";
    /// The run has ended; nothing can be changed any more.
    RunOver "run_over" 409 false true "start a new run, or resume this one with `foresail resume`";
    /// The run has not ended; only one that has can be resumed.
    RunNotOver "run_not_over" 409 false true "wait for its end, or cancel it";
    /// The body or the blob is larger than the limit.
    TooLarge "too_large" 413 false true
        "split it, or raise the limit named in the detail in the settings of metad";
    /// The body is of a type that is not understood.
    UnsupportedMediaType "unsupported_media_type" 415 false true
        "send application/json or application/x-ndjson, plain or compressed with gzip or zstd";
    /// More records, queries or operations than the limit.
    TooMany "too_many" 422 false true
        "split the request, or raise the limit named in the detail in the settings of metad";
    /// More requests than the daemon takes at the moment.
    Overloaded "overloaded" 429 true true "wait as long as Retry-After says and try again";
    /// The host of workers has no room for another invocation.
    CapacityExceeded "capacity_exceeded" 429 true true
        "wait and invoke again, or raise the concurrency of the host";
    /// A size that the host does not offer.
    UnknownConfig "unknown_config" 422 false true "choose a size from the menu of the platform";
    /// The store could not write or read.
    StoreFailed "store_failed" 503 true false
        "look at the log of metad (disk full or damaged); it takes no writes until it is restarted";
    /// The daemon is starting or stopping.
    Unavailable "unavailable" 503 true true "try again in a moment";
    /// The request took longer than the limit.
    Timeout "timeout" 504 true false "try again; operations are idempotent";
    /// A mistake in Foresail itself.
    Internal "internal" 500 false false "please report it with the detail and the log";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure as problem+json (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{detail} ({code})\nhint: {hint}")]
pub struct Problem {
    /// Address of the page that explains the code.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The code in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// The code.
    pub code: ErrorCode,
    /// What was wrong this time, with the value in backticks.
    pub detail: String,
    /// What to do next.
    pub hint: String,
    /// The limit that was passed, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl Problem {
    /// A problem with the texts that belong to `code`.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            type_uri: format!("{ERRORS_PAGE}#{}", code.as_str()),
            title: code.as_str().replace('_', " "),
            status: code.status(),
            code,
            detail: detail.into(),
            hint: code.hint().to_owned(),
            limit: None,
            retryable: code.is_retryable(),
        }
    }

    /// The same problem with the limit that was passed.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_match_their_serde_form() {
        let mut seen = std::collections::HashSet::new();
        for &code in ErrorCode::ALL {
            assert!(seen.insert(code.as_str()));
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
            assert!((400..600).contains(&code.status()));
            assert!(!code.hint().is_empty());
        }
    }

    #[test]
    fn what_is_refused_as_the_callers_fault_is_not_retryable() {
        for &code in ErrorCode::ALL {
            assert_eq!(code.is_retryable(), matches!(code.status(), 429 | 503 | 504), "{code}");
        }
    }
}
