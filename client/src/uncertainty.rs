//! The distributions behind a prediction table, asked of the very model that the table was made of.
//!
//! Execution times: seven quantiles per distinct task name, input size and config, over the time in the
//! table, rounded to thousandths so that equal shapes are stored once. A task that the model does not know
//! gets none: an assumption has no distribution. Starts and transfers that it does not know are taken as
//! certain.
//!
//! Which part of the error the tasks of a name share in one run cannot be read off a model, which keeps no
//! runs apart. So it is bounded. From below by what they share for sure, the error of the estimate itself:
//! the interval that the model gives for the median, against the spread of single executions, both as
//! variances of logarithms. From above by all of it. Every draw takes a value between the two.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foresail_planner::expected;
use foresail_schemas::decision::{Condition, Wanted};
use foresail_schemas::metric::{Direction, StartState};
use foresail_schemas::plan::PredictionTable;
use foresail_schemas::prediction::{Basis, Prediction, Query};
use foresail_schemas::uncertainty::{CERTAIN, LEVELS, Shape, SharedError, StartupShapes, Uncertainty};
use foresail_schemas::workflow::Task;
use foresail_schemas::{ResourceConfig, Sla, TaskId, TaskName, Workflow};

use crate::predict::input_bytes;

/// Shapes are told apart by thousandths.
const STEPS: f64 = 1000.0;
/// Thousandths above this mean a prediction next to 0; the factor is cut there.
const FACTOR_MAX: f64 = 1e6;

/// The distributions behind `table`, as far as `ask` knows them.
#[must_use]
pub fn distributions(
    workflow: &Workflow,
    table: &PredictionTable,
    inline_bytes_max: u64,
    ask: impl Fn(&Query, &[Sla]) -> Prediction,
) -> Uncertainty {
    let slas = LEVELS.map(|level| Sla::Quantile((level * 10_000.0).round() as u16));
    let asker = Asker { slas, ask };
    let mut shapes = Shapes::default();
    let mut shared = BTreeMap::new();
    let mut exec = vec![vec![None; workflow.tasks().len()]; table.configs.len()];
    let mut samples = vec![0; workflow.tasks().len()];
    let expected = expected(workflow, &table.decisions);
    // Tasks of one name with equal inputs share an answer; workflows have thousands of those.
    let mut known: HashMap<(TaskName, u64), Vec<Option<Known>>> = HashMap::new();
    for (at, task) in workflow.tasks().iter().enumerate() {
        let key = (task.name.clone(), input_bytes(workflow, &table.object_bytes, &expected, at as u32));
        let answers = known.entry(key).or_insert_with_key(|(name, input_bytes)| {
            table.configs.iter().map(|config| asker.exec(name, *input_bytes, config)).collect()
        });
        samples[at] = answers.iter().flatten().map(|known| known.samples).min().unwrap_or(0);
        for (c, answer) in answers.iter().enumerate() {
            let Some(Known { quantiles, shared_low, .. }) = answer else { continue };
            if table.basis[at] == Basis::None {
                continue;
            }
            exec[c][at] = Some(shapes.place(over(quantiles, table.exec_ms[c][at])));
            let part = shared.entry(task.name.clone()).or_insert(SharedError { low: 1.0, high: 1.0 });
            part.low = part.low.min(*shared_low);
        }
    }
    let moved_bytes = typical(&table.object_bytes, inline_bytes_max);
    let configs = table.configs.iter();
    let startup = configs.clone().enumerate().map(|(c, config)| {
        let of = |state, ms| asker.startup(state, config).map_or(CERTAIN, |quantiles| over(&quantiles, ms));
        StartupShapes {
            cold: of(StartState::Cold, table.startup[c].cold_ms),
            warm: of(StartState::Warm, table.startup[c].warm_ms),
        }
    });
    Uncertainty {
        startup: startup.collect(),
        transfer: configs.map(|config| asker.transfer(config, moved_bytes, table.sla)).collect(),
        shapes: shapes.all,
        exec,
        samples,
        widths: asker.widths(workflow, table, &expected),
        branches: branches(workflow, table),
        shared,
    }
}

/// What is known of an execution time.
#[derive(Debug, Clone)]
struct Known {
    quantiles: [f64; 7],
    shared_low: f64,
    samples: u64,
}

struct Asker<F> {
    slas: [Sla; 7],
    ask: F,
}

impl<F: Fn(&Query, &[Sla]) -> Prediction> Asker<F> {
    fn quantiles(&self, answer: &Prediction) -> Option<[f64; 7]> {
        let known = answer.basis != Basis::None;
        let value =
            |sla| answer.values.get(&sla).copied().flatten().filter(|v: &f64| v.is_finite() && *v >= 0.0);
        let found: Vec<f64> = self.slas.iter().map_while(|&sla| value(sla)).collect();
        found.try_into().ok().filter(|_| known)
    }

    fn exec(&self, task: &TaskName, input_bytes: u64, config: &ResourceConfig) -> Option<Known> {
        let (memory_mb, vcpu) = (config.memory_mb, config.vcpu);
        let query = Query::ExecutionTime { task: task.clone(), input_bytes, memory_mb, vcpu };
        let answer = (self.ask)(&query, &self.slas);
        let quantiles = self.quantiles(&answer)?;
        let estimate = answer.interval.get(&Sla::MEDIAN).copied();
        let shared_low = estimate.map_or(0.0, |ends| shared_low(ends, &quantiles));
        Some(Known { quantiles, shared_low, samples: answer.samples })
    }

    /// Widths of the tasks that decide one and no branch.
    fn widths(
        &self,
        workflow: &Workflow,
        table: &PredictionTable,
        expected: &[bool],
    ) -> BTreeMap<TaskId, Shape> {
        let known = |id: &TaskId| table.decisions.get(id).is_some_and(|known| known.width.is_some());
        let has_width = |id: &TaskId| known(id) && wanted(workflow, id).next().is_none();
        let deciders = workflow.tasks().iter().enumerate().filter(|(_, task)| has_width(&task.id));
        let width = |(at, task): (usize, &Task)| {
            let input_bytes = input_bytes(workflow, &table.object_bytes, expected, at as u32);
            let query = Query::Decision { task: task.name.clone(), input_bytes };
            let quantiles = self.quantiles(&(self.ask)(&query, &self.slas))?;
            let mut least = 0.0_f64;
            let ascending = quantiles.map(|width| {
                least = least.max(width);
                least
            });
            Some((task.id.clone(), ascending))
        };
        deciders.filter_map(width).collect()
    }

    fn startup(&self, state: StartState, config: &ResourceConfig) -> Option<[f64; 7]> {
        let query = Query::StartupTime { state, memory_mb: config.memory_mb, vcpu: config.vcpu };
        self.quantiles(&(self.ask)(&query, &self.slas))
    }

    /// Of both directions the one that varies more, at the size of the object in the middle.
    fn transfer(&self, config: &ResourceConfig, bytes: Option<u64>, sla: Sla) -> Shape {
        let Some(bytes) = bytes else { return CERTAIN };
        let of = |direction| {
            let (memory_mb, vcpu) = (config.memory_mb, config.vcpu);
            let query = Query::TransferTime { direction, bytes, memory_mb, vcpu, store: None };
            let quantiles = self.quantiles(&(self.ask)(&query, &self.slas))?;
            let predicted_ms = (self.ask)(&query, &[sla]).values.get(&sla).copied().flatten()?;
            Some(over(&quantiles, predicted_ms))
        };
        let both = [Direction::Download, Direction::Upload].into_iter().filter_map(of);
        both.max_by(|a, b| a[5].total_cmp(&b[5])).unwrap_or(CERTAIN)
    }
}

/// The branches that tasks after this one wait for.
fn wanted<'w>(workflow: &'w Workflow, decider: &TaskId) -> impl Iterator<Item = &'w String> + 'w {
    let graph = workflow.graph();
    let children = graph.find(decider).map_or(&[] as &[u32], |task| graph.children(task));
    let own = decider.clone();
    children.iter().filter_map(move |&child| match workflow.task(child).when.as_ref() {
        Some(Condition { task, wanted: Wanted::Is(text) }) if *task == own => Some(text),
        _ => None,
    })
}

/// How likely the branches of each task are that decides between some. The model keeps a share for what it
/// has never seen: those branches have it that are waited for and were not seen, else those that were. That
/// nothing follows at all is not drawn where it was never seen, since it would flatter the plan.
fn branches(workflow: &Workflow, table: &PredictionTable) -> BTreeMap<TaskId, BTreeMap<String, f64>> {
    let mut all = BTreeMap::new();
    for (decider, forecast) in &table.decisions {
        let unseen: BTreeSet<&String> =
            wanted(workflow, decider).filter(|text| !forecast.branches.contains_key(*text)).collect();
        let sum: f64 = forecast.branches.values().sum();
        if sum <= 0.0 || wanted(workflow, decider).next().is_none() {
            continue;
        }
        let scale = if unseen.is_empty() || sum > 1.0 { sum } else { 1.0 };
        let mut shares: BTreeMap<String, f64> =
            forecast.branches.iter().map(|(text, share)| (text.clone(), share / scale)).collect();
        let rest = (1.0 - sum / scale) / unseen.len().max(1) as f64;
        shares.extend(unseen.into_iter().filter(|_| rest > 0.0).map(|text| (text.clone(), rest)));
        all.insert(decider.clone(), shares);
    }
    all
}

/// Least part of the variance that executions of one task share, from the ends of the 90 % interval of their
/// median and their own p5 and p95, which are as far apart in standard deviations.
fn shared_low([low, high]: [f64; 2], quantiles: &[f64; 7]) -> f64 {
    let width = |low: f64, high: f64| if low > 0.0 && high > low { (high / low).ln() } else { 0.0 };
    let (estimate, single) = (width(low, high), width(quantiles[0], quantiles[5]));
    if single > 0.0 { (estimate / single).powi(2).clamp(0.0, 1.0) } else { 0.0 }
}

/// Quantiles over the predicted time, ascending, in thousandths.
fn over(quantiles: &[f64; 7], predicted_ms: f64) -> Shape {
    if predicted_ms <= 0.0 {
        return CERTAIN;
    }
    let mut least = 0.0_f64;
    quantiles.map(|ms| {
        least = least.max((ms / predicted_ms * STEPS).round() / STEPS).min(FACTOR_MAX);
        least
    })
}

/// The size in the middle of those that are moved.
fn typical(object_bytes: &[u64], inline_bytes_max: u64) -> Option<u64> {
    let mut moved: Vec<u64> = object_bytes.iter().copied().filter(|&b| b > inline_bytes_max).collect();
    moved.sort_unstable();
    moved.get(moved.len() / 2).copied()
}

/// Distinct shapes in the order of their first use.
#[derive(Default)]
struct Shapes {
    all: Vec<Shape>,
    places: HashMap<[u64; 7], u32>,
}

impl Shapes {
    fn place(&mut self, shape: Shape) -> u32 {
        *self.places.entry(shape.map(f64::to_bits)).or_insert_with(|| {
            self.all.push(shape);
            self.all.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use foresail_schemas::Platform;
    use foresail_schemas::plan::Objective;
    use foresail_schemas::prediction::Unit;

    use super::*;
    use crate::WorkflowBuilder;

    /// Knows the execution times of `known` and cold starts; every quantile is the level over a half.
    fn model(query: &Query, slas: &[Sla]) -> Prediction {
        let base = match query {
            Query::ExecutionTime { task, memory_mb, .. } if task.as_str() == "known" => {
                Some(885_000.0 / f64::from(*memory_mb))
            }
            Query::StartupTime { state: StartState::Cold, .. } => Some(100.0),
            _ => None,
        };
        let value = |sla: &Sla| base.map(|ms: f64| ms * sla.quantile().unwrap_or(0.5) * 2.0);
        Prediction {
            unit: Unit::Ms,
            values: slas.iter().map(|sla| (*sla, value(sla))).collect(),
            basis: if base.is_some() { Basis::Exact } else { Basis::None },
            samples: 9,
            extrapolated: false,
            interval: BTreeMap::from([(Sla::MEDIAN, [900.0, 1_100.0])]),
            branches: BTreeMap::new(),
        }
    }

    #[test]
    fn what_the_model_knows_becomes_shapes_and_the_rest_is_certain() {
        let mut flow = WorkflowBuilder::new("w");
        for id in ["a", "b"] {
            flow.task(id).named("known").command("true").reads_value("1");
        }
        flow.task("c").command("true").reads_value("1");
        let workflow = flow.build().unwrap();
        let platform = Platform::built_in().remove(0);
        let blind = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        let ask = |query: &Query, sla| model(query, &[sla]);
        let mut table = crate::predict::table(&workflow, blind, 1, 8192, ask);
        let found = distributions(&workflow, &table, 8192, model);
        let shape = LEVELS.map(|level| level * 2.0);
        assert_eq!(found.shapes, [shape], "equal shapes are stored once");
        assert_eq!(found.exec, vec![vec![Some(0), Some(0), None]; table.configs.len()]);
        assert_eq!(found.startup[0], StartupShapes { cold: shape, warm: CERTAIN });
        assert_eq!(found.transfer[0], CERTAIN);
        assert_eq!(found.samples, [9, 9, 0]);
        let part = found.shared[&TaskName::new("known").unwrap()];
        let expected = ((1_100.0_f64 / 900.0).ln() / 19.0_f64.ln()).powi(2);
        assert!((part.low - expected).abs() < 1e-9 && part.high == 1.0, "{part:?}");

        table.uncertainty = Some(found);
        let objective = Objective::Confidence { makespan_ms: 5_000.0, probability: 0.9 };
        let problem = crate::problem(&workflow, &platform, table, objective, 1);
        // By the times predicted `simple` keeps the deadline as well; by the draws it does in 64 % of them.
        for (planner, keeps) in [("robust", true), ("simple", false)] {
            let plan = crate::plan(planner, &problem).unwrap();
            let outlook = plan.outlook.as_ref().expect("there are distributions");
            assert_eq!(outlook.keeps(), Some(keeps), "{planner}: {outlook:?}");
            assert_eq!(outlook.certain_tasks, 1, "{planner}");
            assert!(
                crate::outlook::in_words(&plan).contains("1 task"),
                "{}",
                crate::outlook::in_words(&plan)
            );
        }
    }
}
