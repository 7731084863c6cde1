//! Time and cost of a task against the memory of its worker, from history: nothing is invoked.
//!
//! The cost of an execution is that of its *mean* time: what many executions cost, divided by their number.
//! It has the GB-seconds and the request and leaves out cold starts and storage, which depend on the plan.
//! Units: times in ms, sizes in bytes, memory in MB, money in USD.

use foresail_model::Predictor;
use foresail_schemas::platform::Rates;
use foresail_schemas::prediction::{Basis, Prediction, PredictionRequest, Query};
use foresail_schemas::{Platform, ResourceConfig, Sla, TaskName, WorkflowName};
use serde::Serialize;

use crate::client::Client;
use crate::error::ClientError;

/// Relative difference below which two times or costs count as equal: rounding decides nothing.
const RELATIVE_EPSILON: f64 = 1e-9;

/// What is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct TuneRequest {
    /// The function.
    pub task: TaskName,
    /// Size of all its inputs in bytes.
    pub input_bytes: u64,
    /// Statistic of the time.
    pub sla: Sla,
    /// Sizes to compare; the menu of the platform where there are none.
    pub configs: Vec<ResourceConfig>,
    /// Time that an execution should stay within, in ms.
    pub deadline_ms: Option<f64>,
}

/// Time and cost at every size, and the sizes to choose.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuning {
    /// The function.
    pub task: TaskName,
    /// Size of all its inputs in bytes.
    pub input_bytes: u64,
    /// Whose prices.
    pub platform: String,
    /// Statistic of the time.
    pub sla: Sla,
    /// Time that an execution should stay within, in ms.
    pub deadline_ms: Option<f64>,
    /// The sizes in the order asked for.
    pub points: Vec<TunePoint>,
    /// The size with the least cost; the faster one where two cost the same.
    pub cheapest: Option<ResourceConfig>,
    /// The size with the least time; the cheaper one where two take the same.
    pub fastest: Option<ResourceConfig>,
    /// The size with the least product of time and cost: from here, going faster by some factor costs more
    /// than that factor, and so does saving.
    pub best: Option<ResourceConfig>,
    /// The cheapest size within the deadline; nothing where none is, or none was given.
    pub cheapest_in_time: Option<ResourceConfig>,
}

/// One size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TunePoint {
    /// The size.
    pub config: ResourceConfig,
    /// Time of one execution at the statistic asked for, in ms; nothing where nothing is known.
    pub time_ms: Option<f64>,
    /// Where that statistic lies with 90 % confidence, in ms, where that can be said.
    pub interval_ms: Option<[f64; 2]>,
    /// Mean time in ms, which the cost is made of.
    pub mean_ms: Option<f64>,
    /// Cost of one execution.
    pub cost_usd: Option<f64>,
    /// What the answer rests on.
    pub basis: Basis,
    /// Samples it rests on.
    pub samples: u64,
    /// Whether the size or the input lies outside what was seen.
    pub extrapolated: bool,
    /// Whether it takes longer than the platform lets an invocation live: then it is never chosen.
    pub too_long: bool,
}

impl TuneRequest {
    /// The sizes that are compared on `platform`.
    #[must_use]
    pub fn configs<'a>(&'a self, platform: &'a Platform) -> &'a [ResourceConfig] {
        if self.configs.is_empty() { &platform.menu } else { &self.configs }
    }

    /// The questions whose answers [`Self::tuning`] takes, one per size.
    #[must_use]
    pub fn questions(&self, platform: &Platform) -> PredictionRequest {
        let query = |config: &ResourceConfig| Query::ExecutionTime {
            task: self.task.clone(),
            input_bytes: self.input_bytes,
            memory_mb: config.memory_mb,
            vcpu: config.vcpu,
        };
        let mut sla = vec![self.sla, Sla::Mean];
        sla.dedup();
        PredictionRequest { sla, queries: self.configs(platform).iter().map(query).collect() }
    }

    /// The comparison, from the answers to [`Self::questions`] in their order.
    #[must_use]
    pub fn tuning(&self, platform: &Platform, answers: &[Prediction]) -> Tuning {
        let pairs = self.configs(platform).iter().zip(answers);
        let points: Vec<TunePoint> =
            pairs.map(|(config, answer)| self.point(platform, config, answer)).collect();
        let least = |rank: fn(Known) -> [f64; 2], limit_ms: f64| least(&points, rank, limit_ms);
        Tuning {
            task: self.task.clone(),
            input_bytes: self.input_bytes,
            platform: platform.name.to_string(),
            sla: self.sla,
            deadline_ms: self.deadline_ms,
            cheapest: least(|k| [k.cost_usd, k.time_ms], f64::INFINITY),
            fastest: least(|k| [k.time_ms, k.cost_usd], f64::INFINITY),
            best: least(|k| [k.time_ms * k.cost_usd, k.time_ms], f64::INFINITY),
            cheapest_in_time: self
                .deadline_ms
                .and_then(|limit_ms| least(|k| [k.cost_usd, k.time_ms], limit_ms)),
            points,
        }
    }

    fn point(&self, platform: &Platform, config: &ResourceConfig, answer: &Prediction) -> TunePoint {
        let rates = Rates::from(platform.prices);
        let known = |sla: &Sla| answer.values.get(sla).copied().flatten();
        let (time_ms, mean_ms) = (known(&self.sla), known(&Sla::Mean));
        TunePoint {
            config: *config,
            time_ms,
            interval_ms: answer.interval.get(&self.sla).copied(),
            mean_ms,
            cost_usd: mean_ms.map(|ms| rates.usd_per_ms(config) * ms + rates.request_usd(config)),
            basis: answer.basis,
            samples: answer.samples,
            extrapolated: answer.extrapolated,
            too_long: time_ms.is_some_and(|ms| ms > platform.life_ms_max),
        }
    }
}

/// What a size must have to be chosen.
#[derive(Debug, Clone, Copy)]
struct Known {
    time_ms: f64,
    cost_usd: f64,
}

/// The size with the least rank among those within the limit; of equal ones the first.
fn least(points: &[TunePoint], rank: fn(Known) -> [f64; 2], limit_ms: f64) -> Option<ResourceConfig> {
    let known = points.iter().filter(|point| !point.too_long).filter_map(|point| {
        let known = Known { time_ms: point.time_ms?, cost_usd: point.cost_usd? };
        (known.time_ms <= limit_ms).then(|| (rank(known), point.config))
    });
    let order = |a: &[f64; 2], b: &[f64; 2]| match (a[0] - b[0]).abs() <= RELATIVE_EPSILON * b[0].abs() {
        true => a[1].total_cmp(&b[1]),
        false => a[0].total_cmp(&b[0]),
    };
    known.min_by(|(a, _), (b, _)| order(a, b)).map(|(_, config)| config)
}

/// Compares the sizes with a model that is at hand: pure, needs no connection.
#[must_use]
pub fn tune(request: &TuneRequest, platform: &Platform, model: &Predictor) -> Tuning {
    let PredictionRequest { sla, queries } = request.questions(platform);
    let answers: Vec<Prediction> = queries.iter().map(|query| model.predict(query, &sla)).collect();
    request.tuning(platform, &answers)
}

impl Client {
    /// Compares the sizes with what metad knows, in one request; nothing is invoked. Gives the epoch of the
    /// model, too.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer, or refuses a size.
    pub async fn tune(
        &self,
        workflow: &WorkflowName,
        request: &TuneRequest,
        platform: &Platform,
    ) -> Result<(Tuning, u64), ClientError> {
        let answer = self.ask(workflow, &request.questions(platform)).await?;
        Ok((request.tuning(platform, &answer.predictions), answer.epoch))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use foresail_schemas::prediction::Unit;

    use super::*;

    fn platform() -> Platform {
        Platform::built_in().into_iter().find(|p| p.name.as_str() == "aws-lambda-x86").unwrap()
    }

    fn request(deadline_ms: Option<f64>) -> TuneRequest {
        let configs = [512, 1024, 2048, 4096].map(|mb| ResourceConfig::new(mb, None).unwrap()).to_vec();
        let task = "count".parse().unwrap();
        TuneRequest { task, input_bytes: 7, sla: Sla::P95, configs, deadline_ms }
    }

    fn answer(p95_ms: Option<f64>) -> Prediction {
        Prediction {
            unit: Unit::Ms,
            values: BTreeMap::from([(Sla::P95, p95_ms), (Sla::Mean, p95_ms.map(|ms| ms / 2.0))]),
            basis: Basis::Exact,
            samples: 9,
            extrapolated: false,
            interval: BTreeMap::new(),
            branches: BTreeMap::new(),
        }
    }

    fn memory(config: Option<ResourceConfig>) -> Option<u32> {
        config.map(|config| config.memory_mb)
    }

    #[test]
    fn cheapest_fastest_and_best_are_told_apart() {
        // Halves up to 1024 MB, gains little up to 2048 MB and nothing beyond.
        let answers = [Some(4000.0), Some(1600.0), Some(1300.0), Some(1300.0)].map(answer);
        let tuning = request(None).tuning(&platform(), &answers);
        assert_eq!(memory(tuning.cheapest), Some(1024));
        assert_eq!(memory(tuning.fastest), Some(2048), "the cheaper of two equally fast ones");
        assert_eq!(memory(tuning.best), Some(1024));
        assert_eq!(tuning.cheapest_in_time, None);
        let cost = tuning.points[0].cost_usd.unwrap();
        let prices = platform().prices;
        assert!(
            (cost - (0.5 * 2.0 * prices.gb_second_usd + prices.request_usd)).abs() < 1e-15,
            "of the mean"
        );
    }

    #[test]
    fn a_deadline_names_the_cheapest_size_that_keeps_it() {
        let answers = [Some(4000.0), Some(2500.0), Some(1500.0), Some(900.0)].map(answer);
        let in_time = |ms| memory(request(Some(ms)).tuning(&platform(), &answers).cheapest_in_time);
        assert_eq!([in_time(5000.0), in_time(1500.0), in_time(899.0)], [Some(512), Some(2048), None]);
    }

    #[test]
    fn sizes_of_which_nothing_is_known_or_that_take_too_long_are_not_chosen() {
        let answers = [Some(901_000.0), None, Some(800_000.0), None].map(answer);
        let tuning = request(None).tuning(&platform(), &answers);
        assert!(tuning.points[0].too_long && !tuning.points[2].too_long);
        assert_eq!([tuning.cheapest, tuning.fastest, tuning.best].map(memory), [Some(2048); 3]);
        let nothing = request(None).tuning(&platform(), &[None; 4].map(answer));
        assert_eq!(nothing.best, None);
    }

    #[test]
    fn the_menu_of_the_platform_is_compared_where_no_size_is_named() {
        let request = TuneRequest { configs: Vec::new(), sla: Sla::Mean, ..request(None) };
        let questions = request.questions(&platform());
        assert_eq!((questions.queries.len(), questions.sla), (platform().menu.len(), vec![Sla::Mean]));
        let tuning = tune(&request, &platform(), &Predictor::new());
        assert!(tuning.points.iter().all(|p| p.time_ms.is_none() && p.basis == Basis::None));
    }
}
