//! A run that goes on where another one ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{RunId, TaskId};

/// Takes over the results of an earlier run.
///
/// A result is taken over where the task is the same in both workflows (what it runs, reads, writes and waits
/// for, and the same of every task before it). Whether files outside the workflow have changed is not looked
/// at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The earlier run, which must have ended.
    pub run: RunId,
    /// Tasks whose results are not taken over, for instance because their objects are lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<TaskId>,
}
