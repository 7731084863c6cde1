//! Platforms as data: prices, sizes, limits and what to assume before anything was measured.
//!
//! The tables stand in `platforms/*.toml`, one per platform, with date, region and source of their prices. A
//! field that is not known is refused: it may be a misspelt one, without which the platform is another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::ResourceConfig;
use crate::id::PlatformName;
use crate::invocation::Invocation;
use crate::run::WorkerUsage;

/// What a platform costs, offers and allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// Its name.
    pub name: PlatformName,
    /// What it is, where and when its prices were valid.
    pub description: String,
    /// Memory in MB that brings one vCPU: a size without `vcpu` gets its share by it when the table is read.
    /// Absent: as on AWS Lambda, 1769 MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mb_per_vcpu: Option<f64>,
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
    /// Largest request that starts a worker, in bytes, where the platform limits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes_max: Option<u64>,
    /// Machines beside it for tasks that fit into none of its workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Where and when the prices were valid, and who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// How fast it grows and its store answers; not limited where absent. Nothing is planned by it:
    /// `foresail lab scale` says where it is met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// Prices.
    pub prices: Prices,
    /// What is assumed before anything was measured.
    pub assumed: Assumed,
}

/// A serverful pool: workers of one size, without a limit of their life, for tasks that the menu cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Memory of a worker in MB.
    pub memory_mb: u32,
    /// vCPUs of a worker.
    pub vcpu: f64,
    /// Most workers of the pool that one plan uses, and that a host runs at the same time.
    pub workers_max: u32,
    /// Price of one worker for an hour in USD, billed while it lives; requests cost nothing.
    pub worker_hour_usd: f64,
}

impl Pool {
    /// Longest life of an invocation in the pool in ms: a year, so that no run meets it.
    pub const LIFE_MS_MAX: f64 = 365.0 * 86_400_000.0;

    /// Size of its workers.
    #[must_use]
    pub fn config(&self) -> ResourceConfig {
        ResourceConfig { memory_mb: self.memory_mb, vcpu: Some(self.vcpu) }
    }

    /// Price of one worker for a millisecond in USD.
    #[must_use]
    pub fn usd_per_ms(&self) -> f64 {
        self.worker_hour_usd / 3_600_000.0
    }

    fn check(&self) -> Result<(), &'static str> {
        if ResourceConfig::new(self.memory_mb, Some(self.vcpu)).is_err() {
            return Err("`pool.memory_mb` must lie between 1 and 1048576, `pool.vcpu` be greater than 0");
        }
        if self.workers_max == 0 {
            return Err("`pool.workers_max` must be at least 1");
        }
        if !(self.worker_hour_usd.is_finite() && self.worker_hour_usd >= 0.0) {
            return Err("`pool.worker_hour_usd` must be finite and at least 0");
        }
        Ok(())
    }
}

/// What workers cost: the prices of a platform and of the pool beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of the platform.
    pub prices: Prices,
    /// The pool, where there is one.
    pub pool: Option<Pool>,
}

impl Rates {
    /// The pool, where this is its size.
    fn pool_of(&self, config: &ResourceConfig) -> Option<&Pool> {
        self.pool.as_ref().filter(|pool| pool.config().key() == config.key())
    }

    /// Price of a worker of `config` for a millisecond of its life.
    #[must_use]
    pub fn usd_per_ms(&self, config: &ResourceConfig) -> f64 {
        match self.pool_of(config) {
            None => config.gb() * self.prices.gb_second_usd / 1000.0,
            Some(pool) => pool.usd_per_ms(),
        }
    }

    /// Price of asking for a worker of `config`.
    #[must_use]
    pub fn request_usd(&self, config: &ResourceConfig) -> f64 {
        if self.pool_of(config).is_some() { 0.0 } else { self.prices.request_usd }
    }

    /// Price of one invocation of a worker of `config` that used this.
    #[must_use]
    pub fn worker_usd(&self, config: &ResourceConfig, used: &WorkerUsage) -> f64 {
        self.usd_per_ms(config) * used.billed_ms + self.request_usd(config) + self.prices.moved_usd(used)
    }
}

impl From<Prices> for Rates {
    fn from(prices: Prices) -> Self {
        Self { prices, pool: None }
    }
}

/// Where prices and limits come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The region that the prices are of.
    pub region: String,
    /// When they were valid: `YYYY-MM` or `YYYY-MM-DD`.
    pub date: String,
    /// Who says so.
    pub source: String,
}

/// How fast a platform takes invocations and starts workers, and how many requests its store answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Workers of one size that it starts beyond those it has, in `growth_ms` at most.
    pub growth_workers: u32,
    /// The time of that in ms.
    pub growth_ms: f64,
    /// Time of one request that asks for a worker in ms.
    pub invoke_ms: f64,
    /// Objects that the store takes per second under one prefix.
    pub puts_per_s: f64,
    /// Objects that the store gives per second under one prefix.
    pub gets_per_s: f64,
}

impl Pace {
    fn check(&self) -> Result<(), &'static str> {
        let numbers = [self.growth_ms, self.invoke_ms, self.puts_per_s, self.gets_per_s];
        let is_whole = self.growth_workers > 0 && numbers.iter().all(|x| x.is_finite() && *x > 0.0);
        if is_whole { Ok(()) } else { Err("every number of `pace` must be finite and greater than 0") }
    }
}

/// Prices in USD.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Per GB of memory and second of a worker's life, initialisation included.
    pub gb_second_usd: f64,
    /// Per invocation.
    pub request_usd: f64,
    /// Per object written.
    pub put_usd: f64,
    /// Per object read.
    pub get_usd: f64,
    /// Per GB (2^30 bytes) that moves between a worker and the store, either way; 0 where absent. Within one
    /// region of AWS it is 0 between Lambda and S3.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub transfer_gb_usd: f64,
}

/// Bytes of a GB by which transfers are billed.
pub const GB_BYTES: f64 = (1_u64 << 30) as f64;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(usd: &f64) -> bool {
    *usd == 0.0
}

/// Times and rates assumed before anything was measured; every use of one is marked `basis: "none"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
    #[error("{0}")]
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
        let mut platform: Self =
            toml::from_str(text).map_err(|e| PlatformError::Toml(e.to_string().trim_end().to_owned()))?;
        if let Some(mb) = platform.mb_per_vcpu.filter(|mb| mb.is_finite() && *mb > 0.0) {
            for size in platform.menu.iter_mut().chain([&mut platform.default_config]) {
                size.vcpu = size.vcpu.or(Some(f64::from(size.memory_mb) / mb));
            }
        }
        platform.check()?;
        let default = platform.default_config.key();
        if !platform.menu.iter().any(|size| size.key() == default) {
            let rule = "`default_config` must be one of the sizes of `menu`";
            return Err(PlatformError::Rule { platform: platform.name, rule });
        }
        Ok(platform)
    }

    /// The platforms that come with Foresail.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        [
            include_str!("../../platforms/local.toml"),
            include_str!("../../platforms/aws-lambda-x86.toml"),
            include_str!("../../platforms/aws-lambda-arm64.toml"),
            include_str!("../../platforms/knative.toml"),
        ]
        .iter()
        .map(|text| Self::from_toml(text).expect("the tables in platforms/ are checked by a test"))
        .collect()
    }

    /// What its workers and those of its pool cost.
    #[must_use]
    pub fn rates(&self) -> Rates {
        Rates { prices: self.prices, pool: self.pool }
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
            p.transfer_gb_usd,
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
        if self.mb_per_vcpu.is_some_and(|mb| !positive(mb)) {
            return rule("`mb_per_vcpu` must be greater than 0");
        }
        if self.payload_bytes_max.is_some_and(|bytes| bytes < Invocation::BYTES_MAX) {
            return rule("`payload_bytes_max` must be at least 32768, which an invocation may have");
        }
        if let Some(pool) = &self.pool {
            pool.check().or_else(rule)?;
            let same = |size: &ResourceConfig| size.key() == pool.config().key();
            if self.menu.iter().chain([&self.default_config]).any(same) {
                return rule("the size of `pool` must differ from every size of the menu");
            }
        }
        if let Some(pace) = &self.pace {
            pace.check().or_else(rule)?;
        }
        if self.origin.as_ref().is_some_and(|origin| !origin.is_dated()) {
            return rule("`origin.date` must be YYYY-MM or YYYY-MM-DD, `origin.source` must say who says so");
        }
        Ok(())
    }
}

impl Origin {
    fn is_dated(&self) -> bool {
        let parts: Vec<&str> = self.date.split('-').collect();
        let in_range = |at: usize, range: std::ops::RangeInclusive<u32>| {
            parts.get(at).is_none_or(|p| p.len() == 2 && p.parse().is_ok_and(|n| range.contains(&n)))
        };
        let year = parts[0].len() == 4 && parts[0].parse::<u32>().is_ok();
        let is_date = (2..=3).contains(&parts.len()) && year && in_range(1, 1..=12) && in_range(2, 1..=31);
        is_date && !self.source.trim().is_empty()
    }
}

impl Prices {
    /// Price of the objects that an invocation wrote and read, and of their bytes.
    #[must_use]
    pub fn moved_usd(&self, used: &WorkerUsage) -> f64 {
        used.puts as f64 * self.put_usd + used.gets as f64 * self.get_usd + self.transfer_usd(used)
    }

    /// Price of the bytes that an invocation moved between itself and the store.
    #[must_use]
    pub fn transfer_usd(&self, used: &WorkerUsage) -> f64 {
        (used.download_bytes + used.upload_bytes) as f64 / GB_BYTES * self.transfer_gb_usd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_that_come_with_foresail_are_valid_and_say_where_their_prices_come_from() {
        let tables = Platform::built_in();
        let names: Vec<_> = tables.iter().map(|p| p.name.to_string()).collect();
        assert_eq!(names, ["local", "aws-lambda-x86", "aws-lambda-arm64", "knative"]);
        assert!(tables.iter().all(|p| p.origin.is_some()));
    }

    #[test]
    fn a_worker_of_the_pool_costs_its_hours_and_no_request() {
        let mut platform = Platform::built_in().remove(1);
        let pool = Pool { memory_mb: 32_768, vcpu: 8.0, workers_max: 2, worker_hour_usd: 0.36 };
        platform.pool = Some(pool);
        let used = WorkerUsage { billed_ms: 1_800_000.0, puts: 2, ..WorkerUsage::default() };
        let usd = |config: &ResourceConfig| platform.rates().worker_usd(config, &used);
        assert!((usd(&pool.config()) - (0.18 + 2.0 * platform.prices.put_usd)).abs() < 1e-12);
        let menu = platform.menu[0];
        let beside = Platform { pool: None, ..platform.clone() };
        assert_eq!(usd(&menu), beside.rates().worker_usd(&menu, &used));
    }

    #[test]
    fn bytes_to_and_from_the_store_cost_what_the_table_says() {
        let mut rates = Platform::built_in().remove(1).rates();
        let used = WorkerUsage { download_bytes: 1 << 30, upload_bytes: 1 << 29, ..WorkerUsage::default() };
        assert_eq!(rates.prices.moved_usd(&used), 0.0, "within a region it is free");
        rates.prices.transfer_gb_usd = 0.02;
        assert!((rates.prices.moved_usd(&used) - 0.03).abs() < 1e-12);
    }

    #[test]
    fn the_example_of_a_pool_is_valid() {
        let hybrid = Platform::from_toml(include_str!("../../platforms/examples/hybrid.toml"));
        let pool = hybrid.expect("it is an example").pool.expect("it is one of a pool");
        assert_eq!(pool.config().to_string(), "32768 MB, 8 vCPU");
    }

    #[test]
    fn a_misspelt_field_and_a_default_off_the_menu_are_refused() {
        let table = include_str!("../../platforms/aws-lambda-x86.toml");
        for (from, to, named) in [
            ("lanes = 1", "lanes = 1\nlane = 3", "`lane`"),
            ("[[menu]]\nmemory_mb = 512", "[[menu]]\nmemory_mb = 512\nvcpus = 2.0", "`vcpus`"),
            ("exec_ms =", "execution_ms = 5.0\nexec_ms =", "`execution_ms`"),
            ("put_usd =", "puts_usd = 5.0\nput_usd =", "`puts_usd`"),
            ("growth_ms =", "growth = 5.0\ngrowth_ms =", "`growth`"),
            ("region =", "zone = \"a\"\nregion =", "`zone`"),
            ("[default_config]\nmemory_mb = 1769", "[default_config]\nmemory_mb = 2000", "`default_config`"),
        ] {
            let changed = table.replacen(from, to, 1);
            assert_ne!(changed, table, "{from}");
            let error = Platform::from_toml(&changed).expect_err(named).to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    #[test]
    fn a_size_without_vcpu_gets_its_share_of_the_platform() {
        let knative = Platform::built_in().remove(3);
        let found: Vec<_> = knative.menu.iter().map(|size| size.vcpu).collect();
        assert_eq!(found, [Some(0.25), Some(0.5), Some(1.0), Some(2.0), Some(4.0)]);
        assert_eq!(knative.default_config.vcpu, Some(1.0));
        assert_eq!(Platform::built_in().remove(1).menu[0].vcpu, None, "absent means memory_mb / 1769");
    }

    #[test]
    fn a_table_that_breaks_a_rule_is_refused() {
        let origin = |date: &str, source: &str| {
            Some(Origin { region: "r".to_owned(), date: date.to_owned(), source: source.to_owned() })
        };
        type Change = fn(&mut Platform);
        let pool = |change: fn(&mut Pool)| {
            let mut pool = Pool { memory_mb: 32_768, vcpu: 8.0, workers_max: 2, worker_hour_usd: 0.384 };
            change(&mut pool);
            Platform { pool: Some(pool), ..Platform::built_in().remove(0) }
        };
        assert!(pool(|_| ()).check().is_ok());
        let wrong: [fn(&mut Pool); 4] =
            [|p| p.memory_mb = 0, |p| p.vcpu = -1.0, |p| p.workers_max = 0, |p| p.worker_hour_usd = -1.0];
        for change in wrong {
            assert!(pool(change).check().is_err());
        }
        let as_menu = pool(|p| (p.memory_mb, p.vcpu) = (1769, 1.0)).check();
        assert!(as_menu.is_err_and(|e| e.to_string().contains("must differ")));
        let broken: [(&str, Change); 6] = [
            ("pace", |p| {
                p.pace = Platform::built_in()[1].pace.map(|pace| Pace { growth_workers: 0, ..pace })
            }),
            ("prices", |p| p.prices.put_usd = -1.0),
            ("ascending", |p| p.menu.reverse()),
            ("concurrency_max", |p| p.concurrency_max = 0),
            ("mb_per_vcpu", |p| p.mb_per_vcpu = Some(0.0)),
            ("payload_bytes_max", |p| p.payload_bytes_max = Some(Invocation::BYTES_MAX - 1)),
        ];
        for (word, change) in broken {
            let mut platform = Platform::built_in().remove(0);
            change(&mut platform);
            let error = platform.check().expect_err(word).to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        for (date, source, is_legal) in
            [("2025-11", "s", true), ("2025-11-30", "s", true), ("2025-13", "s", false), ("2025", "s", false)]
        {
            let platform = Platform { origin: origin(date, source), ..Platform::built_in().remove(0) };
            assert_eq!(platform.check().is_ok(), is_legal, "{date}");
        }
        let platform = Platform { origin: origin("2025-11", " "), ..Platform::built_in().remove(0) };
        assert!(platform.check().is_err(), "nobody says so");
    }
}
