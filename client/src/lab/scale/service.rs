//! What the keeper of a run's state can do, as data: metad, or Redis. Times per piece in us, as its one
//! thread takes them; rates of its link in bytes per s.

use serde::{Deserialize, Serialize};

/// Who keeps the state of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// metad, which workers ask for what they need.
    Metad,
    /// Redis, whose log all workers fold.
    Redis,
}

/// What a keeper can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Time of a request without operations in us.
    pub request_us: f64,
    /// Time of each operation in it in us.
    pub operation_us: f64,
    /// Time of telling one listener of news in us.
    pub news_us: f64,
    /// Time of each byte that it sends in us.
    pub byte_us: f64,
    /// Time that metad takes for a batch of measurements in us.
    pub batch_us: f64,
    /// Time that metad takes for each record in it in us.
    pub record_us: f64,
    /// Bytes that its link carries in a second, each way.
    pub link_bytes_per_s: f64,
    /// Least time between two looks of a listener in ms, beside the way.
    pub news_gap_ms: f64,
    /// How long a listener that was told of news waits for more in ms.
    pub news_pause_ms: f64,
    /// How long a worker waits for an answer in ms.
    pub answer_ms_max: f64,
    /// Most connections by default.
    pub connections_max: u64,
    /// Most requests that listen by default, where there is such a limit.
    #[serde(default)]
    pub listeners_max: Option<u64>,
    /// Largest body of a request by default in bytes, where there is such a limit: a run is begun with one.
    #[serde(default)]
    pub body_bytes_max: Option<u64>,
    /// Time that every worker takes for each entry of the log in us; absent where they fold none.
    #[serde(default)]
    pub fold_us: Option<f64>,
    /// Who says so.
    pub origin: Measured,
}

/// Where numbers come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// When: `YYYY-MM`.
    pub date: String,
    /// With what.
    pub source: String,
}

impl Keeper {
    /// What it can do by our own measurements.
    #[must_use]
    pub fn service(self) -> Service {
        let text = match self {
            Self::Metad => include_str!("metad.toml"),
            Self::Redis => include_str!("redis.toml"),
        };
        Service::from_toml(text).expect("the tables of the lab are checked by a test")
    }
}

impl Service {
    /// Reads a table.
    ///
    /// # Errors
    /// [`ServiceError`] when the text has another form or a number breaks a rule.
    pub fn from_toml(text: &str) -> Result<Self, ServiceError> {
        let service: Self = toml::from_str(text).map_err(|e| ServiceError(e.to_string()))?;
        service.check().map_err(|rule| ServiceError(rule.to_owned()))?;
        Ok(service)
    }

    fn check(&self) -> Result<(), &'static str> {
        let times = [
            self.request_us,
            self.operation_us,
            self.news_us,
            self.byte_us,
            self.batch_us,
            self.record_us,
            self.news_gap_ms,
            self.news_pause_ms,
            self.fold_us.unwrap_or(0.0),
        ];
        if !times.iter().all(|x| x.is_finite() && *x >= 0.0) {
            return Err("times must be finite and at least 0");
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !positive(self.link_bytes_per_s) || !positive(self.answer_ms_max) || self.connections_max == 0 {
            return Err("`link_bytes_per_s`, `answer_ms_max` and `connections_max` must be greater than 0");
        }
        Ok(())
    }
}

/// Why a table was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the table of the service cannot be used: {0}")]
pub struct ServiceError(String);
