//! Where the state of runs is kept, as workers see it: in metad, or in a log in Redis.
//!
//! What a worker asks of a run's state is this trait; measurements and blobs go to metad in either case. A
//! run that Redis does not have (created before it was used, or lost there) is metad's.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use foresail_redis::{CoordinationError, Runs};
use foresail_schemas::error::Problem;
use foresail_schemas::run::{
    CurrentPlan, EventPage, OperationAnswer, OperationRequest, ReplanRequest, RunSummary,
};
use foresail_schemas::workflow::Workflow;
use foresail_schemas::{ErrorCode, RunId};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::api::ApiError;
use crate::metad::{EVENTS_WAIT_MS, Metad};

/// An answer to come.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

/// The state of runs. Every request may be repeated: operations are idempotent.
pub trait Coordination: Send + Sync + std::fmt::Debug {
    /// The workflow of a run.
    fn workflow<'a>(&'a self, run: &'a RunId) -> Asked<'a, Workflow>;

    /// The plan in force.
    fn plan<'a>(&'a self, run: &'a RunId) -> Asked<'a, CurrentPlan>;

    /// The run in short.
    fn summary<'a>(&'a self, run: &'a RunId) -> Asked<'a, RunSummary>;

    /// Changes or reads the state of a run.
    fn operate<'a>(&'a self, run: &'a RunId, request: &'a OperationRequest) -> Asked<'a, OperationAnswer>;

    /// Events after number `after` of these kinds, separated by commas; waits up to [`EVENTS_WAIT_MS`] for
    /// the first.
    fn events<'a>(&'a self, run: &'a RunId, after: u64, kinds: &'a str) -> Asked<'a, EventPage>;

    /// Replaces the plan if the one in force is the one expected; gives the new one.
    fn replan<'a>(&'a self, run: &'a RunId, request: &'a ReplanRequest) -> Asked<'a, CurrentPlan>;
}

/// Where the state of runs is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoordinationSettings {
    /// In metad.
    #[default]
    Metad,
    /// In the Redis at this address.
    Redis(String),
}

/// The argument of programs that take part in runs.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CoordinationArgs {
    /// Where the state of runs is kept: `metad`, or `redis://USER:PASSWORD@HOST:PORT/DB` (`rediss://` with
    /// TLS, `redis+cluster://HOST:PORT,HOST:PORT` for a cluster); metad must be told the same.
    #[arg(
        long,
        env = "FORESAIL_COORDINATION",
        default_value_t,
        value_name = "WHERE",
        hide_env_values = true
    )]
    pub coordination: CoordinationSettings,
}

impl FromStr for CoordinationSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "metad" => Ok(Self::Metad),
            url => Runs::open(url).map(|_| Self::Redis(url.to_owned())).map_err(|e| e.to_string()),
        }
    }
}

impl std::fmt::Display for CoordinationSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Metad => f.write_str("metad"),
            Self::Redis(url) => f.write_str(url),
        }
    }
}

impl CoordinationSettings {
    /// The state of the runs of this metad.
    ///
    /// # Errors
    /// [`ApiError::Settings`] where the address of Redis is none.
    pub fn open(&self, metad: &Metad) -> Result<Arc<dyn Coordination>, ApiError> {
        Ok(match self {
            Self::Metad => Arc::new(metad.clone()),
            Self::Redis(url) => {
                let runs = Runs::open(url).map_err(|e| told(e, "redis"))?;
                Arc::new(RedisRuns { runs, metad: metad.clone() })
            }
        })
    }
}

impl Coordination for Metad {
    fn workflow<'a>(&'a self, run: &'a RunId) -> Asked<'a, Workflow> {
        Box::pin(self.workflow(run))
    }

    fn plan<'a>(&'a self, run: &'a RunId) -> Asked<'a, CurrentPlan> {
        Box::pin(self.plan(run))
    }

    fn summary<'a>(&'a self, run: &'a RunId) -> Asked<'a, RunSummary> {
        Box::pin(self.summary(run))
    }

    fn operate<'a>(&'a self, run: &'a RunId, request: &'a OperationRequest) -> Asked<'a, OperationAnswer> {
        Box::pin(self.operate(run, request))
    }

    fn events<'a>(&'a self, run: &'a RunId, after: u64, kinds: &'a str) -> Asked<'a, EventPage> {
        Box::pin(self.events(run, after, kinds))
    }

    fn replan<'a>(&'a self, run: &'a RunId, request: &'a ReplanRequest) -> Asked<'a, CurrentPlan> {
        Box::pin(self.replan(run, request))
    }
}

/// Runs in Redis, and those that it does not have in metad.
#[derive(Debug)]
struct RedisRuns {
    runs: Runs,
    metad: Metad,
}

/// What Redis says, or what metad does where Redis has no such run.
macro_rules! asked {
    ($redis:expr, $metad:expr) => {
        Box::pin(async move {
            match $redis.await {
                Ok(answer) => Ok(answer),
                Err(CoordinationError::NoSuchRun(_)) => $metad.await,
                Err(error) => Err(told(error, "redis")),
            }
        })
    };
}

impl Coordination for RedisRuns {
    fn workflow<'a>(&'a self, run: &'a RunId) -> Asked<'a, Workflow> {
        asked!(self.runs.workflow(run), self.metad.workflow(run))
    }

    fn plan<'a>(&'a self, run: &'a RunId) -> Asked<'a, CurrentPlan> {
        asked!(self.runs.plan(run), self.metad.plan(run))
    }

    fn summary<'a>(&'a self, run: &'a RunId) -> Asked<'a, RunSummary> {
        asked!(self.runs.summary(run), self.metad.summary(run))
    }

    fn operate<'a>(&'a self, run: &'a RunId, request: &'a OperationRequest) -> Asked<'a, OperationAnswer> {
        asked!(self.runs.operate(run, request.operations.clone()), self.metad.operate(run, request))
    }

    fn events<'a>(&'a self, run: &'a RunId, after: u64, kinds: &'a str) -> Asked<'a, EventPage> {
        let wanted: BTreeSet<String> = kinds.split(',').map(str::to_owned).collect();
        let wait = Duration::from_millis(EVENTS_WAIT_MS);
        Box::pin(async move {
            match self.runs.events(run, after, Some(&wanted), wait).await {
                Ok(page) => Ok(page),
                Err(CoordinationError::NoSuchRun(_)) => self.metad.events(run, after, kinds).await,
                Err(error) => Err(told(error, "redis")),
            }
        })
    }

    fn replan<'a>(&'a self, run: &'a RunId, request: &'a ReplanRequest) -> Asked<'a, CurrentPlan> {
        Box::pin(async move {
            let ReplanRequest { expected_epoch, plan, why } = request;
            let json = serde_json::to_vec(plan).expect("wire types always have a JSON form");
            match self.runs.replan(run, *expected_epoch, &json, why.clone()).await {
                Ok(epoch) => {
                    let options = self.runs.plan(run).await.map_err(|e| told(e, "redis"))?.options;
                    Ok(CurrentPlan { epoch, plan: plan.clone(), options })
                }
                Err(CoordinationError::NoSuchRun(_)) => self.metad.replan(run, request).await,
                Err(error) => Err(told(error, "redis")),
            }
        })
    }
}

/// The error as callers know it from metad.
fn told(error: CoordinationError, url: &str) -> ApiError {
    let (url, cause) = (url.to_owned(), error.to_string());
    let refused = |code| {
        let problem = Box::new(Problem::new(code, cause.clone()));
        ApiError::Refused { url: url.clone(), problem }
    };
    match error {
        CoordinationError::Settings { shown, cause, hint } => {
            ApiError::Settings { base: shown, cause: format!("{cause}; hint: {hint}") }
        }
        CoordinationError::Unreachable { .. } => ApiError::Unreachable { url, cause },
        CoordinationError::NoSuchRun(_) => refused(ErrorCode::RunNotFound),
        CoordinationError::OtherPlan(_) => refused(ErrorCode::PlanEpochConflict),
        CoordinationError::Damaged { .. } => refused(ErrorCode::StoreFailed),
    }
}
