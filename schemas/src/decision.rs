//! Decisions: how the result of a task says which of the tasks after it run.
//!
//! A task with a `decision` writes, in the output of that name, JSON that is a number, a text, a boolean or a
//! list. A task with a [`Condition`] on it runs where the condition holds and is skipped otherwise: the same
//! rule makes branches (`is`) and fan-outs whose width is known only at run time (`above`, one task per place
//! up to the largest width). What a skipped task would have written does not exist: a task that needs it is
//! skipped too, and one that reads it as an `optional` input runs without it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::TaskId;

/// Longest text of a decision in bytes.
pub const DECISION_LEN_MAX: usize = 256;

/// What a task decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Decision {
    /// How many follow.
    Width(u64),
    /// Which branch is taken.
    Branch(String),
}

/// When a task runs: it waits for the task that decides, without data from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The task that decides.
    pub task: TaskId,
    /// What it must decide.
    #[serde(flatten)]
    pub wanted: Wanted,
}

/// By hand, because what serde makes of it names neither `above` nor `is` where both are missing.
impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Stated {
            task: TaskId,
            above: Option<u64>,
            is: Option<String>,
        }
        let Stated { task, above, is } = Stated::deserialize(from)?;
        let wanted = match (above, is) {
            (Some(place), None) => Wanted::Above(place),
            (None, Some(text)) => Wanted::Is(text),
            (None, None) => Err(D::Error::custom(format!(
                "the condition on task `{task}` says nothing of what must be decided: it needs `above` (a \
                 number: the task runs where more are decided) or `is` (a text)"
            )))?,
            (Some(place), Some(text)) => Err(D::Error::custom(format!(
                "the condition on task `{task}` has `above` (`{place}`) and `is` (`{text}`): it can have one \
                 of them"
            )))?,
        };
        Ok(Self { task, wanted })
    }
}

/// What must be decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// A number above this one: the task stands for the place of this number, from 0.
    Above(u64),
    /// This text.
    Is(String),
}

/// What a task is predicted to decide.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionForecast {
    /// How many follow, at the service level of the other predictions; absent: it decides by text, or nothing
    /// is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u64>,
    /// How likely each decision is, by its text; what is left to 1 are others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub branches: BTreeMap<String, f64>,
}

/// Why the output of a task is no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    Syntax(String),
    /// It is JSON of a kind that decides nothing.
    #[error("it is {0}; a whole number from 0, a text, a boolean or a list is expected")]
    Kind(&'static str),
    /// The text is too long.
    #[error("its text has {0} bytes, at most {DECISION_LEN_MAX} are allowed")]
    TooLong(usize),
}

impl Decision {
    /// Reads a decision from the JSON that a task wrote: a number is a width, a list decides by its length, a
    /// boolean is the text `true` or `false`.
    ///
    /// # Errors
    /// [`DecisionError`], which says what stands there instead.
    pub fn read(json: &[u8]) -> Result<Self, DecisionError> {
        use serde_json::Value;
        let value: Value = serde_json::from_slice(json).map_err(|e| DecisionError::Syntax(e.to_string()))?;
        match value {
            Value::Number(number) => {
                number.as_u64().map(Self::Width).ok_or(DecisionError::Kind("a number that is no width"))
            }
            Value::Array(items) => Ok(Self::Width(items.len() as u64)),
            Value::Bool(is_so) => Ok(Self::Branch(is_so.to_string())),
            Value::String(text) if text.len() > DECISION_LEN_MAX => Err(DecisionError::TooLong(text.len())),
            Value::String(text) => Ok(Self::Branch(text)),
            Value::Null => Err(DecisionError::Kind("`null`")),
            Value::Object(_) => Err(DecisionError::Kind("an object")),
        }
    }
}

impl Decision {
    /// The decision as a report of a run has it behind what else is said of its task; `places` is how many it
    /// can fill, see [`Graph::places`](crate::graph::Graph::places).
    #[must_use]
    pub fn told(&self, places: Option<u64>) -> String {
        match places {
            Some(places) => format!(", decided {self} for {places} places"),
            None => format!(", decided {self}"),
        }
    }
}

impl std::fmt::Display for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Width(width) => width.fmt(f),
            Self::Branch(text) => f.write_str(text),
        }
    }
}

impl Wanted {
    /// Whether the decision is the one that is wanted. A number is also wanted by its text.
    #[must_use]
    pub fn holds(&self, decision: &Decision) -> bool {
        match (self, decision) {
            (Self::Above(place), Decision::Width(width)) => width > place,
            (Self::Is(wanted), Decision::Branch(text)) => wanted == text,
            (Self::Is(wanted), Decision::Width(width)) => *wanted == width.to_string(),
            (Self::Above(_), Decision::Branch(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_numbers_texts_and_booleans_decide_and_nothing_else() {
        let read = |text: &str| Decision::read(text.as_bytes());
        assert_eq!(read("[1, \"a\", []]"), Ok(Decision::Width(3)));
        assert_eq!(read(" 7 "), Ok(Decision::Width(7)));
        assert_eq!(read("\"left\""), Ok(Decision::Branch("left".to_owned())));
        assert_eq!(read("true"), Ok(Decision::Branch("true".to_owned())));
        for text in ["-1", "1.5", "null", "{}", "left", ""] {
            assert!(read(text).is_err(), "{text}");
        }
        let long = format!("\"{}\"", "a".repeat(DECISION_LEN_MAX + 1));
        assert_eq!(read(&long), Err(DecisionError::TooLong(DECISION_LEN_MAX + 1)));
    }

    #[test]
    fn a_report_tells_a_decision_and_how_many_places_there_are() {
        assert_eq!(Decision::Width(40).told(Some(16)), ", decided 40 for 16 places");
        assert_eq!(Decision::Branch("left".to_owned()).told(None), ", decided left");
    }

    #[test]
    fn a_condition_that_wants_nothing_names_what_it_could_want_and_what_was_found() {
        let read = |text: &str| serde_json::from_str::<Condition>(text);
        for (text, wanted) in [
            (r#"{"task": "list", "above": 0}"#, Wanted::Above(0)),
            (r#"{"task": "list", "is": "left"}"#, Wanted::Is("left".to_owned())),
        ] {
            let condition = Condition { task: TaskId::new("list").unwrap(), wanted };
            assert_eq!(read(text).unwrap(), condition);
            assert_eq!(read(&serde_json::to_string(&condition).unwrap()).unwrap(), condition);
        }
        for (text, told) in [
            (r#"{"task": "list", "abov": 0}"#, ["`abov`", "`above`", "`is`"]),
            (r#"{"task": "list"}"#, ["`list`", "`above`", "`is`"]),
            (r#"{"task": "list", "above": 3, "is": "left"}"#, ["`3`", "`above`", "`is` (`left`)"]),
        ] {
            let said = read(text).unwrap_err().to_string();
            told.iter().for_each(|word| assert!(said.contains(word), "`{word}` in {said}"));
        }
    }

    #[test]
    fn a_place_runs_where_the_width_reaches_it_and_a_branch_where_it_is_named() {
        let three = Decision::Width(3);
        assert!(Wanted::Above(2).holds(&three));
        assert!(!Wanted::Above(3).holds(&three));
        assert!(Wanted::Is("3".to_owned()).holds(&three));
        let left = Decision::Branch("left".to_owned());
        assert!(Wanted::Is("left".to_owned()).holds(&left));
        assert!(!Wanted::Is("right".to_owned()).holds(&left));
        assert!(!Wanted::Above(0).holds(&left));
    }
}
