//! Limits and intervals of a run, and which of them a run can live with. Times in ms.
//!
//! What is read is finite and not negative; the other rules are for who takes a new run
//! ([`RunOptions::check`]): runs that were stored before a rule was made go on.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::ReplanMode;
use crate::number::check;
use crate::retry::SizeMenu;

/// Longest interval of a run, in ms: a day.
pub const RUN_MS_MAX: f64 = 86_400_000.0;
/// Shortest interval between two heartbeats or two looks, in ms.
const INTERVAL_MS_MIN: f64 = 1.0;
/// Heartbeats that go into a lease at least, so that one that is late costs nobody a task.
const HEARTBEATS_PER_LEASE_MIN: f64 = 2.0;

/// Limits and intervals of a run. A field that is absent has its default; one that is none is refused.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunOptions {
    /// How long a lease lasts without a heartbeat, in ms: at least twice `heartbeat_ms`.
    #[serde(deserialize_with = "lease_ms")]
    #[schemars(range(min = 2.0, max = 86_400_000.0))]
    pub lease_ms: f64,
    /// Time between heartbeats in ms.
    #[serde(deserialize_with = "heartbeat_ms")]
    #[schemars(range(min = 1.0, max = 86_400_000.0))]
    pub heartbeat_ms: f64,
    /// Time between two looks of a watchdog in ms.
    #[serde(deserialize_with = "watch_ms")]
    #[schemars(range(min = 1.0, max = 86_400_000.0))]
    pub watch_ms: f64,
    /// How long a worker with planned tasks left waits for one to become ready, in ms.
    #[serde(deserialize_with = "linger_ms")]
    #[schemars(range(min = 0.0, max = 86_400_000.0))]
    pub linger_ms: f64,
    /// Most attempts per task, the first included.
    #[schemars(range(min = 1))]
    pub attempts_max: u32,
    /// Sizes that an attempt which ran out of memory is repeated on: the next larger one.
    #[serde(skip_serializing_if = "SizeMenu::is_empty")]
    pub sizes: SizeMenu,
    /// Whether a worker begins its next task while it stores the outputs of the one before.
    pub overlap_uploads: bool,
    /// Whether a planned worker begins a task whose parents all ran in it before the run's state has
    /// answered.
    #[serde(skip_serializing_if = "is_true")]
    pub run_ahead: bool,
    /// Whether objects that only tasks of the run read are kept when it has completed. Without it they are
    /// deleted then; those of a run that failed or was cancelled stay for a while either way.
    pub keep_intermediate: bool,
    /// What happens when the run does not go as its plan says.
    #[serde(skip_serializing_if = "ReplanMode::is_off")]
    pub replan: ReplanMode,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            lease_ms: 10_000.0,
            heartbeat_ms: 3_000.0,
            watch_ms: 2_000.0,
            linger_ms: 500.0,
            attempts_max: 3,
            sizes: SizeMenu::default(),
            overlap_uploads: true,
            run_ahead: true,
            keep_intermediate: false,
            replan: ReplanMode::Off,
        }
    }
}

/// An option that no run can live with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`options.{field}` is `{value}`, it must be {rule}")]
pub struct OptionsFault {
    /// The option.
    pub field: &'static str,
    /// What was asked for.
    pub value: f64,
    /// What it must be.
    pub rule: String,
}

impl RunOptions {
    /// Whether a run can live with them.
    ///
    /// # Errors
    /// [`OptionsFault`] for the first that it cannot live with.
    pub fn check(&self) -> Result<(), OptionsFault> {
        let within = |field, value: f64, min: f64, why: &str| match (min..=RUN_MS_MAX).contains(&value) {
            true => Ok(()),
            false => Err(OptionsFault { field, value, rule: format!("from {min} to {RUN_MS_MAX} ms{why}") }),
        };
        within("heartbeat_ms", self.heartbeat_ms, INTERVAL_MS_MIN, "")?;
        let lease_ms_min = HEARTBEATS_PER_LEASE_MIN * self.heartbeat_ms;
        let why = format!(
            ": a lease lasts for {HEARTBEATS_PER_LEASE_MIN} heartbeats (`heartbeat_ms` is `{}`) or more",
            self.heartbeat_ms
        );
        within("lease_ms", self.lease_ms, lease_ms_min, &why)?;
        within("watch_ms", self.watch_ms, INTERVAL_MS_MIN, "")?;
        within("linger_ms", self.linger_ms, 0.0, "")?;
        match self.attempts_max {
            0 => Err(OptionsFault {
                field: "attempts_max",
                value: 0.0,
                rule: "at least 1: the first attempt is one".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// A finite number >= 0; what is none is told with its field.
fn interval<'de, D: Deserializer<'de>>(field: &str, from: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    check(value).map_err(|rule| D::Error::custom(format!("`options.{field}`: {rule}")))
}

fn lease_ms<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    interval("lease_ms", from)
}

fn heartbeat_ms<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    interval("heartbeat_ms", from)
}

fn watch_ms<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    interval("watch_ms", from)
}

fn linger_ms<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    interval("linger_ms", from)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut RunOptions)) -> RunOptions {
        let mut options = RunOptions::default();
        change(&mut options);
        options
    }

    #[test]
    fn options_that_a_run_can_live_with_are_taken() {
        for options in [
            RunOptions::default(),
            with(|o| (o.lease_ms, o.heartbeat_ms) = (2.0, 1.0)),
            with(|o| (o.lease_ms, o.attempts_max, o.linger_ms) = (RUN_MS_MAX, 1, 0.0)),
        ] {
            assert_eq!(options.check(), Ok(()), "{options:?}");
        }
    }

    #[test]
    fn options_that_no_run_can_live_with_are_named_with_value_and_rule() {
        let check = |options: RunOptions, field: &str, value: &str| {
            let said = options.check().unwrap_err().to_string();
            assert!(said.starts_with(&format!("`options.{field}` is `{value}`, it must be")), "{said}");
        };
        check(with(|o| o.attempts_max = 0), "attempts_max", "0");
        check(with(|o| o.lease_ms = 0.0), "lease_ms", "0");
        check(with(|o| o.heartbeat_ms = o.lease_ms), "lease_ms", "10000");
        check(with(|o| o.heartbeat_ms = 0.0), "heartbeat_ms", "0");
        check(with(|o| o.heartbeat_ms = -1.0), "heartbeat_ms", "-1");
        check(with(|o| o.watch_ms = f64::NAN), "watch_ms", "NaN");
        check(with(|o| o.watch_ms = 0.5), "watch_ms", "0.5");
        check(with(|o| o.linger_ms = f64::INFINITY), "linger_ms", "inf");
    }

    #[test]
    fn a_misspelt_option_is_refused_and_one_that_is_absent_has_its_default() {
        let misspelt = serde_json::from_str::<RunOptions>(r#"{"overlap_upload": false}"#).unwrap_err();
        assert!(misspelt.to_string().contains("`overlap_upload`"), "{misspelt}");
        assert!(misspelt.to_string().contains("`overlap_uploads`"), "{misspelt}");
        assert_eq!(serde_json::from_str::<RunOptions>("{}").unwrap(), RunOptions::default());
        // A run that was stored before there were rules.
        let stored: RunOptions = serde_json::from_str(r#"{"attempts_max": 0, "lease_ms": 0}"#).unwrap();
        assert_eq!((stored.attempts_max, stored.lease_ms), (0, 0.0));
        let negative = serde_json::from_str::<RunOptions>(r#"{"watch_ms": -1}"#).unwrap_err().to_string();
        assert!(negative.contains("`options.watch_ms`: `-1` must be"), "{negative}");
    }
}
