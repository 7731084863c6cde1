//! Re-planning of a run under way: whether it is wanted, and what is recorded of a new plan.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::non_negative;
use crate::plan::Plan;

/// What happens when a run does not go as its plan says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplanMode {
    /// The plan stays.
    #[default]
    Off,
    /// A better plan is recorded as an event; the old one stays in force.
    Suggest,
    /// A better plan takes the place of the old one.
    Auto,
}

impl ReplanMode {
    /// Whether nothing is looked for.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// Why a plan gives way to another, and what both are predicted to take and to cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replanning {
    /// What was noticed in the run.
    pub cause: String,
    /// Why the new plan is better.
    pub reason: String,
    /// The whole run under the old plan, as predicted now.
    pub kept: Promise,
    /// The whole run under the new plan.
    pub new: Promise,
    /// Tasks that get another worker or size.
    pub moved: u64,
}

/// What a whole run is predicted to take and to cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Promise {
    /// From the start of the run to its end, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub makespan_ms: f64,
    /// Money in USD, what is spent already included.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub cost_usd: f64,
}

/// Replaces the plan if the epoch is still the one expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplanRequest {
    /// Epoch of the plan that the new one replaces.
    pub expected_epoch: u64,
    /// The new plan.
    pub plan: Plan,
    /// Why, where whoever re-plans says it; recorded in the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Replanning>,
}
