//! Resource sizes of a worker and the service levels that predictions are asked at.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Memory in MB that brings one vCPU on AWS Lambda, used where `vcpu` is not given.
///
/// Source: AWS Lambda developer guide, "Configure Lambda function memory".
pub const MB_PER_VCPU: f64 = 1769.0;
/// Largest memory size accepted, in MB.
pub const MEMORY_MB_MAX: u32 = 1 << 20;

/// Why a size or a service level was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Memory is 0 or larger than [`MEMORY_MB_MAX`].
    #[error("memory_mb `{0}` must lie between 1 and {MEMORY_MB_MAX}")]
    Memory(u32),
    /// vCPU is not finite or not positive.
    #[error("vcpu `{0}` must be finite and greater than 0")]
    Vcpu(f64),
    /// A service level that is neither `mean`, `median` nor `pNN[.N]`.
    #[error("`{0}` is not a service level: use mean, median or p0.01 to p99.99, for instance p95 or p99.9")]
    Sla(String),
}

/// Size of a worker: memory and, where it is decoupled from memory, vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawConfig")]
#[schemars(!try_from)]
pub struct ResourceConfig {
    /// Memory in MB.
    #[schemars(range(min = 1, max = 1048576))]
    pub memory_mb: u32,
    /// vCPUs; absent means `memory_mb` / 1769 on Lambda-like platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub vcpu: Option<f64>,
}

// A misspelt `vcpu` would otherwise be a size without.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    memory_mb: u32,
    #[serde(default)]
    vcpu: Option<f64>,
}

impl TryFrom<RawConfig> for ResourceConfig {
    type Error = ConfigError;
    fn try_from(raw: RawConfig) -> Result<Self, ConfigError> {
        Self::new(raw.memory_mb, raw.vcpu)
    }
}

impl ResourceConfig {
    /// A checked size.
    ///
    /// # Errors
    /// [`ConfigError`] when memory is 0 or too large, or vCPU is not a positive number.
    pub fn new(memory_mb: u32, vcpu: Option<f64>) -> Result<Self, ConfigError> {
        if memory_mb == 0 || memory_mb > MEMORY_MB_MAX {
            return Err(ConfigError::Memory(memory_mb));
        }
        match vcpu {
            Some(v) if !(v.is_finite() && v > 0.0) => Err(ConfigError::Vcpu(v)),
            _ => Ok(Self { memory_mb, vcpu }),
        }
    }

    /// The CPU share: `vcpu` where given, else `memory_mb` / 1769.
    #[must_use]
    pub fn cpu_share(&self) -> f64 {
        self.vcpu.unwrap_or(f64::from(self.memory_mb) / MB_PER_VCPU)
    }

    /// Memory in GB as platforms bill it (1 GB = 1,024 MB).
    #[must_use]
    pub fn gb(&self) -> f64 {
        f64::from(self.memory_mb) / 1024.0
    }

    /// A key that orders and hashes: memory and CPU share in thousandths.
    ///
    /// A size with `vcpu` and one without are the same where the shares are: `vcpu` absent means `memory_mb`
    /// / 1769.
    #[must_use]
    pub fn key(&self) -> (u32, u32) {
        let milli = (self.cpu_share() * 1000.0).round().clamp(1.0, f64::from(u32::MAX));
        (self.memory_mb, milli as u32)
    }
}

impl fmt::Display for ResourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vcpu {
            None => write!(f, "{} MB", self.memory_mb),
            Some(v) => write!(f, "{} MB, {v} vCPU", self.memory_mb),
        }
    }
}

/// A service level: the statistic of a distribution that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sla {
    /// The arithmetic mean.
    Mean,
    /// A quantile in hundredths of a percent: 5,000 is the median, 9,500 is p95, 9,990 is p99.9.
    Quantile(u16),
}

impl Sla {
    /// The median, the default service level.
    pub const MEDIAN: Self = Self::Quantile(5000);
    /// The 90th percentile.
    pub const P90: Self = Self::Quantile(9000);
    /// The 95th percentile.
    pub const P95: Self = Self::Quantile(9500);
    /// The 99th percentile.
    pub const P99: Self = Self::Quantile(9900);

    /// The quantile in (0, 1), or nothing for the mean.
    #[must_use]
    pub fn quantile(&self) -> Option<f64> {
        match self {
            Self::Mean => None,
            Self::Quantile(hundredths) => Some(f64::from(*hundredths) / 10_000.0),
        }
    }
}

impl Default for Sla {
    fn default() -> Self {
        Self::MEDIAN
    }
}

impl FromStr for Sla {
    type Err = ConfigError;
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let refuse = || ConfigError::Sla(text.to_owned());
        match text {
            "mean" => return Ok(Self::Mean),
            "median" => return Ok(Self::MEDIAN),
            _ => {}
        }
        let digits = text.strip_prefix('p').ok_or_else(refuse)?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |s: &str| !s.is_empty() && s.len() <= 2 && s.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(fraction) {
            return Err(refuse());
        }
        let whole: u16 = whole.parse().map_err(|_| refuse())?;
        let scale = if fraction.len() == 1 { 10 } else { 1 };
        let fraction: u16 = fraction.parse::<u16>().map_err(|_| refuse())? * scale;
        match whole * 100 + fraction {
            0 => Err(refuse()),
            hundredths => Ok(Self::Quantile(hundredths)),
        }
    }
}

impl fmt::Display for Sla {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Mean => f.write_str("mean"),
            Self::MEDIAN => f.write_str("median"),
            Self::Quantile(h) if h % 100 == 0 => write!(f, "p{}", h / 100),
            Self::Quantile(h) if h % 10 == 0 => write!(f, "p{}.{}", h / 100, h % 100 / 10),
            Self::Quantile(h) => write!(f, "p{}.{:02}", h / 100, h % 100),
        }
    }
}

impl Serialize for Sla {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sla {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Sla {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sla".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "pattern": "^(mean|median|p[0-9]{1,2}([.][0-9]{1,2})?)$",
            "description": "mean, median or pNN[.N]; a quantile of time, never of speed"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_levels_round_trip_and_reject_the_rest() {
        for (text, back) in
            [("mean", "mean"), ("p50", "median"), ("p95", "p95"), ("p0.01", "p0.01"), ("p99.99", "p99.99")]
        {
            assert_eq!(text.parse::<Sla>().unwrap().to_string(), back);
        }
        for bad in ["", "p", "p0", "p100", "p9.123", "95", "p-1", "p9e1", "P95", "p.5"] {
            assert!(bad.parse::<Sla>().is_err(), "{bad:?}");
        }
        let refused = "p0".parse::<Sla>().unwrap_err().to_string();
        assert!(refused.contains("p0.01 to p99.99"), "the smallest and the largest are named: {refused}");
    }

    #[test]
    fn a_config_without_memory_is_refused() {
        assert!(ResourceConfig::new(0, None).is_err());
        assert!(ResourceConfig::new(512, Some(f64::NAN)).is_err());
        assert!(serde_json::from_str::<ResourceConfig>(r#"{"memory_mb":0}"#).is_err());
        let misspelt = serde_json::from_str::<ResourceConfig>(r#"{"memory_mb":512,"vcpus":2}"#).unwrap_err();
        assert!(misspelt.to_string().contains("`vcpus`"), "{misspelt}");
        assert!((ResourceConfig::new(1769, None).unwrap().cpu_share() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_same_share_is_the_same_size_whether_written_down_or_not() {
        let [implied, written, other] =
            [None, Some(1.0), Some(2.0)].map(|vcpu| ResourceConfig::new(1769, vcpu).unwrap().key());
        assert_eq!(implied, written);
        assert_ne!(implied, other);
    }
}
