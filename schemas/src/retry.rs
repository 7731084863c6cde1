//! What happens after a failed attempt: how long until the next, on which size of worker, or none.
//!
//! Times in ms, memory in MB.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::ResourceConfig;
use crate::number::non_negative;
use crate::run::FailureKind;

/// Most entries of each list of a [`Retry`].
pub const RETRY_RULES_MAX: usize = 64;
/// Most sizes in a [`SizeMenu`].
pub const SIZES_MAX: usize = 16;

/// When a failed attempt of a task is followed by another. A field that is absent has its default; one that
/// is none is refused.
///
/// The pause after attempt `n` is drawn between the half and the whole of `backoff_ms` x
/// `backoff_factor`^(n - 1), at most `backoff_ms_max`. The draw is a hash of worker, task and attempt: the
/// same run repeats it, and tasks that failed together do not come back together. Source: AWS Architecture
/// Blog, "Exponential Backoff And Jitter" (2015), equal jitter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Longest pause after the first failed attempt, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub backoff_ms: f64,
    /// How many times longer each pause is than the one before; at least 1.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 1.0))]
    pub backoff_factor: f64,
    /// Longest pause of all, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub backoff_ms_max: f64,
    /// Failures of these kinds end the run at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub not_on: Vec<FailureKind>,
    /// Failures whose message has one of these texts in it end the run at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub not_on_text: Vec<String>,
    /// A command that ends with one of these exit codes ends the run at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub not_on_exit: Vec<i32>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            backoff_ms: 100.0,
            backoff_factor: 2.0,
            backoff_ms_max: 10_000.0,
            not_on: Vec::new(),
            not_on_text: Vec::new(),
            not_on_exit: Vec::new(),
        }
    }
}

impl Retry {
    /// The pause after attempt `attempt` (from 1), for a `draw` from 0 to 1.
    #[must_use]
    pub fn pause_ms(&self, attempt: u32, draw: f64) -> f64 {
        let exponent = attempt.saturating_sub(1).min(64) as i32;
        let longest_ms = (self.backoff_ms * self.backoff_factor.powi(exponent)).min(self.backoff_ms_max);
        longest_ms * (0.5 + draw.clamp(0.0, 1.0) / 2.0)
    }

    /// Why a failure of this kind and message is not followed by another attempt; nothing where it may be.
    #[must_use]
    pub fn forbids(&self, kind: FailureKind, message: &str) -> Option<String> {
        if self.not_on.contains(&kind) {
            return Some(format!("its retry settings name the failure `{kind}`"));
        }
        let text = self.not_on_text.iter().find(|text| message.contains(text.as_str()))?;
        Some(format!("its retry settings name the text `{text}`"))
    }

    /// What is wrong with the settings.
    pub(crate) fn fault(&self) -> Option<String> {
        let lists = [
            ("not_on", self.not_on.len()),
            ("not_on_text", self.not_on_text.len()),
            ("not_on_exit", self.not_on_exit.len()),
        ];
        let long = lists.into_iter().find(|(_, len)| *len > RETRY_RULES_MAX);
        match long {
            _ if self.backoff_factor < 1.0 => {
                Some(format!("`backoff_factor` is `{}`, it must be at least 1", self.backoff_factor))
            }
            _ if self.not_on_text.iter().any(String::is_empty) => {
                Some("`not_on_text` has an empty text, which every message has in it".to_owned())
            }
            Some((list, len)) => Some(format!("`{list}` has {len} entries, at most {RETRY_RULES_MAX}")),
            None => None,
        }
    }
}

/// The sizes of workers that a platform offers, ascending by memory: where an attempt that ran out of memory
/// is repeated. Empty where nothing is known of them; then it is repeated on the same size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<ResourceConfig>", into = "Vec<ResourceConfig>")]
pub struct SizeMenu([Option<ResourceConfig>; SIZES_MAX]);

/// A menu with too many sizes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} sizes, at most {SIZES_MAX} are taken; hint: leave some out, only the next larger ones matter")]
pub struct TooManySizes(usize);

impl SizeMenu {
    /// These sizes; of a longer list evenly spread ones, the largest among them.
    #[must_use]
    pub fn of(sizes: &[ResourceConfig]) -> Self {
        let mut sizes = sizes.to_vec();
        sizes.sort_by_key(ResourceConfig::key);
        sizes.dedup_by_key(|size| size.key());
        let len = sizes.len();
        let mut menu = Self::default();
        for (at, place) in menu.0.iter_mut().enumerate().take(len) {
            let from = if len <= SIZES_MAX { at } else { at * (len - 1) / (SIZES_MAX - 1) };
            *place = sizes.get(from).copied();
        }
        menu
    }

    /// The sizes.
    pub fn iter(&self) -> impl Iterator<Item = ResourceConfig> + '_ {
        self.0.iter().flatten().copied()
    }

    /// Whether nothing is known of the platform.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The smallest size with more memory.
    #[must_use]
    pub fn larger_than(&self, size: ResourceConfig) -> Option<ResourceConfig> {
        self.iter().find(|other| other.memory_mb > size.memory_mb)
    }
}

impl TryFrom<Vec<ResourceConfig>> for SizeMenu {
    type Error = TooManySizes;
    fn try_from(sizes: Vec<ResourceConfig>) -> Result<Self, TooManySizes> {
        match sizes.len() {
            len if len > SIZES_MAX => Err(TooManySizes(len)),
            _ => Ok(Self::of(&sizes)),
        }
    }
}

impl From<SizeMenu> for Vec<ResourceConfig> {
    fn from(menu: SizeMenu) -> Self {
        menu.iter().collect()
    }
}

impl JsonSchema for SizeMenu {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SizeMenu".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let sizes = generator.subschema_for::<ResourceConfig>();
        schemars::json_schema!({
            "description": "Sizes of workers, ascending by memory.",
            "type": "array",
            "items": sizes,
            "maxItems": SIZES_MAX
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(memory_mb: u32) -> ResourceConfig {
        ResourceConfig::new(memory_mb, None).unwrap()
    }

    #[test]
    fn pauses_grow_to_their_limit_and_are_spread_over_their_upper_half() {
        let retry = Retry { backoff_ms: 100.0, backoff_ms_max: 1_000.0, ..Retry::default() };
        let pauses: Vec<f64> = (1..=6).map(|attempt| retry.pause_ms(attempt, 1.0)).collect();
        assert_eq!(pauses, [100.0, 200.0, 400.0, 800.0, 1_000.0, 1_000.0]);
        assert_eq!((retry.pause_ms(1, 0.0), retry.pause_ms(99, 0.5)), (50.0, 750.0));
    }

    #[test]
    fn kinds_and_texts_that_are_not_retried_are_named_in_the_reason() {
        let retry = Retry {
            not_on: vec![FailureKind::Timeout],
            not_on_text: vec!["no such user".to_owned()],
            ..Retry::default()
        };
        let reason = |kind, message| retry.forbids(kind, message);
        assert!(reason(FailureKind::Timeout, "").unwrap().contains("`timeout`"));
        assert!(reason(FailureKind::TaskError, "no such user: 7").unwrap().contains("`no such user`"));
        assert_eq!(reason(FailureKind::TaskError, "busy"), None);
    }

    #[test]
    fn a_menu_is_sorted_and_its_next_size_has_more_memory() {
        let menu = SizeMenu::of(&[size(1024), size(256), size(512), size(256)]);
        assert_eq!(menu.iter().map(|s| s.memory_mb).collect::<Vec<_>>(), [256, 512, 1024]);
        assert_eq!(menu.larger_than(size(300)), Some(size(512)));
        assert_eq!(menu.larger_than(size(1024)), None);
        let many: Vec<ResourceConfig> = (1..=100).map(|n| size(n * 64)).collect();
        let spread = SizeMenu::of(&many);
        assert_eq!((spread.iter().count(), spread.iter().last()), (SIZES_MAX, Some(size(6_400))));
    }
}
