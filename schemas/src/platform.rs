//! Platforms as data: prices, sizes, limits and what to assume before anything was measured.
//!
//! The tables stand in `platforms/*.toml`, one per platform, with date, region and source of their prices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::ResourceConfig;
use crate::id::PlatformName;

/// What a platform costs, offers and allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Platform {
    /// Its name.
    pub name: PlatformName,
    /// What it is, where and when its prices were valid.
    pub description: String,
    /// Sizes a planner may choose, ascending.
    pub menu: Vec<ResourceConfig>,
    /// Size used where nothing is known.
    pub default_config: ResourceConfig,
    /// Most workers at the same time.
    pub concurrency_max: u32,
    /// Tasks a worker runs at the same time.
    pub lanes: u32,
    /// Longest life of one invocation in ms.
    pub life_ms_max: f64,
    /// How long an idle worker stays warm in ms.
    pub keep_alive_ms: f64,
    /// Largest output that rides inside the commit record, in bytes.
    pub inline_bytes_max: u64,
    /// Prices.
    pub prices: Prices,
    /// What is assumed before anything was measured.
    pub assumed: Assumed,
}

/// Prices in USD.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prices {
    /// Per GB of memory and second of a worker's life, initialisation included.
    pub gb_second_usd: f64,
    /// Per invocation.
    pub request_usd: f64,
    /// Per object written.
    pub put_usd: f64,
    /// Per object read.
    pub get_usd: f64,
}

/// Times and rates assumed before anything was measured; every use of one is marked `basis: "none"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Assumed {
    /// Execution time of a task without history or hint, on one vCPU, in ms.
    pub exec_ms: f64,
    /// Output bytes per input byte.
    pub output_ratio: f64,
    /// Cold start in ms.
    pub cold_start_ms: f64,
    /// Warm start in ms.
    pub warm_start_ms: f64,
    /// Time of one store request in ms.
    pub latency_ms: f64,
    /// Rate of one worker's link in bytes per ms.
    pub bytes_per_ms: f64,
    /// Time from a task's end to the start of the next on the same worker, in ms.
    pub dispatch_ms: f64,
}

/// Why a platform table was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlatformError {
    /// The text is not a table of this form.
    #[error("the platform table cannot be read: {0}")]
    Toml(String),
    /// A number breaks a rule.
    #[error("platform `{platform}`: {rule}")]
    Rule {
        /// The platform.
        platform: PlatformName,
        /// The rule.
        rule: &'static str,
    },
}

impl Platform {
    /// Reads a platform table.
    ///
    /// # Errors
    /// [`PlatformError`] when the text has another form or a number breaks a rule.
    pub fn from_toml(text: &str) -> Result<Self, PlatformError> {
        let platform: Self = toml::from_str(text).map_err(|e| PlatformError::Toml(e.to_string()))?;
        platform.check()?;
        Ok(platform)
    }

    /// The platforms that come with Foresail.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        [include_str!("../../platforms/local.toml"), include_str!("../../platforms/aws-lambda-x86.toml")]
            .iter()
            .map(|text| Self::from_toml(text).expect("the tables in platforms/ are checked by a test"))
            .collect()
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`PlatformError::Rule`] with the rule that does not hold.
    pub fn check(&self) -> Result<(), PlatformError> {
        let rule = |rule| Err(PlatformError::Rule { platform: self.name.clone(), rule });
        let ascending = self.menu.windows(2).all(|w| w[0].key() < w[1].key());
        let p = &self.prices;
        let a = &self.assumed;
        let not_negative = [
            p.gb_second_usd,
            p.request_usd,
            p.put_usd,
            p.get_usd,
            a.exec_ms,
            a.output_ratio,
            a.cold_start_ms,
            a.warm_start_ms,
            a.latency_ms,
            a.dispatch_ms,
            self.keep_alive_ms,
        ];
        if self.menu.is_empty() || !ascending {
            return rule("`menu` must have at least one size, in ascending order");
        }
        if self.concurrency_max == 0 || self.lanes == 0 {
            return rule("`concurrency_max` and `lanes` must be at least 1");
        }
        if !not_negative.iter().all(|x| x.is_finite() && *x >= 0.0) {
            return rule("prices and times must be finite and at least 0");
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !positive(a.bytes_per_ms) || !positive(self.life_ms_max) {
            return rule("`assumed.bytes_per_ms` and `life_ms_max` must be greater than 0");
        }
        Ok(())
    }
}

impl Prices {
    /// Price of one invocation of a worker of `config` that lived `billed_ms` and made `puts` and `gets`.
    #[must_use]
    pub fn worker_usd(&self, config: &ResourceConfig, billed_ms: f64, puts: u64, gets: u64) -> f64 {
        config.gb() * billed_ms / 1000.0 * self.gb_second_usd
            + self.request_usd
            + puts as f64 * self.put_usd
            + gets as f64 * self.get_usd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_that_come_with_foresail_are_valid() {
        let names: Vec<_> = Platform::built_in().into_iter().map(|p| p.name.to_string()).collect();
        assert_eq!(names, ["local", "aws-lambda-x86"]);
    }

    #[test]
    fn a_table_with_a_negative_price_is_refused() {
        let mut platform = Platform::built_in().remove(0);
        platform.prices.put_usd = -1.0;
        assert!(platform.check().is_err());
    }
}
