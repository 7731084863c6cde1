//! Turns a model into the table that planners work on.
//!
//! Goes through the workflow in topological order: the predicted output sizes of the parents are the input
//! size of a child, and that decides its execution time. Where the model knows nothing the entry of the blind
//! table stands (hints of the workflow, assumptions of the platform) and the basis says `none`. What is
//! predicted to be decided says which tasks are expected, and an input that is optional counts where it is.
//! Sizes are always medians: a quantile of a size would be multiplied along the chain.

use std::collections::HashMap;

use foresail_planner::is_expected;
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::decision::DecisionForecast;
use foresail_schemas::metric::{Direction, STORE_OF_LANES, STORE_OF_STATE, StartState};
use foresail_schemas::plan::{EngineTimes, PredictionTable, StartupTimes, TransferTimes};
use foresail_schemas::prediction::{Basis, Prediction, Query};
use foresail_schemas::workflow::Input;
use foresail_schemas::{Sla, TaskId, TaskName, Workflow};

/// Most sizes at which transfer times are asked for.
const TRANSFER_PROBES_MAX: usize = 32;

/// Fills `blind` with what `ask` knows. `ask` answers at one service level. What `blind` says of decisions is
/// known and stays. Objects of up to
/// `inline_bytes_max` bytes are never transferred on their own.
#[must_use]
pub fn table(
    workflow: &Workflow,
    blind: PredictionTable,
    epoch: u64,
    inline_bytes_max: u64,
    ask: impl Fn(&Query, Sla) -> Prediction,
) -> PredictionTable {
    let expected = vec![true; workflow.tasks().len()];
    let (exec, sizes) = (HashMap::new(), HashMap::new());
    let mut filler = Filler { workflow, table: blind, ask, expected, exec, sizes };
    filler.table.epoch = epoch;
    for &task in workflow.graph().order() {
        filler.task(task);
    }
    let probes = probes(&filler.table.object_bytes, inline_bytes_max);
    for at in 0..filler.table.configs.len() {
        filler.transfer(at, &probes);
        filler.startup(at);
    }
    filler.engine();
    filler.table
}

type ExecRow = (Vec<Option<f64>>, Basis);

struct Filler<'a, F> {
    workflow: &'a Workflow,
    table: PredictionTable,
    ask: F,
    /// Which tasks are expected to run, as far as it is known.
    expected: Vec<bool>,
    // Tasks of one name with equal inputs share an answer; workflows have thousands of those.
    exec: HashMap<(TaskName, u64), ExecRow>,
    sizes: HashMap<(TaskName, u64), Option<f64>>,
}

impl<F: Fn(&Query, Sla) -> Prediction> Filler<'_, F> {
    fn task(&mut self, t: u32) {
        let task = self.workflow.task(t);
        self.expected[t as usize] = is_expected(self.workflow, &self.table.decisions, t, &self.expected);
        let input_bytes = input_bytes(self.workflow, &self.table.object_bytes, &self.expected, t);
        if task.decision.is_some() && !self.table.decisions.contains_key(&task.id) {
            self.decision(&task.id, &task.name, input_bytes);
        }
        let key = (task.name.clone(), input_bytes);
        let (row, basis) = match self.exec.get(&key) {
            Some(known) => known.clone(),
            None => {
                let row = self.exec_row(&key.0, input_bytes);
                self.exec.entry(key.clone()).or_insert(row).clone()
            }
        };
        for (config, exec_ms) in row.iter().enumerate() {
            if let Some(exec_ms) = exec_ms {
                self.table.exec_ms[config][t as usize] = *exec_ms;
            }
        }
        self.table.basis[t as usize] = basis;
        let known = match self.sizes.get(&key) {
            Some(known) => *known,
            None => {
                let query = Query::OutputSize { task: key.0.clone(), input_bytes };
                let total = value(&(self.ask)(&query, Sla::MEDIAN), Sla::MEDIAN);
                *self.sizes.entry(key).or_insert(total)
            }
        };
        if let Some(total) = known {
            self.spread(t, total);
        }
    }

    fn decision(&mut self, id: &TaskId, task: &TaskName, input_bytes: u64) {
        let sla = self.table.sla;
        let answer = (self.ask)(&Query::Decision { task: task.clone(), input_bytes }, sla);
        let whole = |width: f64| if sla == Sla::Mean { width.round() } else { width.ceil() };
        let width = value(&answer, sla).map(|width| whole(width) as u64);
        let branches = answer.branches;
        if width.is_some() || !branches.is_empty() {
            self.table.decisions.insert(id.clone(), DecisionForecast { width, branches });
        }
    }

    fn exec_row(&self, task: &TaskName, input_bytes: u64) -> ExecRow {
        let mut weakest = None;
        let row = self.table.configs.iter().map(|config| {
            let query = Query::ExecutionTime {
                task: task.clone(),
                input_bytes,
                memory_mb: config.memory_mb,
                vcpu: config.vcpu,
            };
            let answer = (self.ask)(&query, self.table.sla);
            weakest = weakest.max(Some(answer.basis));
            value(&answer, self.table.sla)
        });
        let row: Vec<_> = row.collect();
        let complete = row.iter().all(Option::is_some);
        (row, if complete { weakest.unwrap_or(Basis::None) } else { Basis::None })
    }

    /// The outputs of a task share its predicted total in the proportion that the blind table has them in.
    fn spread(&mut self, t: u32, total_bytes: f64) {
        let objects = self.workflow.graph().writes(t);
        let sizes = &mut self.table.object_bytes;
        let before: u64 = objects.iter().map(|&o| sizes[o as usize]).sum();
        for &object in objects {
            let share = match before {
                0 => 1.0 / objects.len() as f64,
                all => sizes[object as usize] as f64 / all as f64,
            };
            sizes[object as usize] = (total_bytes * share).round() as u64;
        }
    }

    fn transfer(&mut self, at: usize, probes: &[u64]) {
        let config = self.table.configs[at];
        let times = &mut self.table.transfer[at];
        let sla = self.table.sla;
        let affine = |direction| affine(&self.ask, sla, config, direction, probes);
        if let Some((latency_ms, ms_per_byte)) = affine(Direction::Download) {
            *times = TransferTimes {
                download_latency_ms: latency_ms,
                download_ms_per_byte: ms_per_byte,
                ..*times
            };
        }
        if let Some((latency_ms, ms_per_byte)) = affine(Direction::Upload) {
            *times =
                TransferTimes { upload_latency_ms: latency_ms, upload_ms_per_byte: ms_per_byte, ..*times };
        }
    }

    /// What the engine takes. The round trip is one figure: at its other end is the run's state, whatever the
    /// size of the worker.
    fn engine(&mut self) {
        let sla = self.table.sla;
        let ask = |config: &ResourceConfig, way: &str| {
            let (direction, bytes, store) = (Direction::Upload, 0, Some(TaskName::new(way).ok()?));
            let ResourceConfig { memory_mb, vcpu } = *config;
            let query = Query::TransferTime { direction, bytes, memory_mb, vcpu, store };
            value(&(self.ask)(&query, sla), sla)
        };
        let configs = &self.table.configs;
        let trips = configs.iter().filter_map(|config| ask(config, STORE_OF_STATE)).collect();
        if let Some(dispatch_ms) = median(trips) {
            let attempt_ms = configs.iter().map(|config| ask(config, STORE_OF_LANES).unwrap_or(0.0));
            let attempt_ms = attempt_ms.collect();
            self.table.engine = Some(EngineTimes { dispatch_ms, attempt_ms });
        }
    }

    fn startup(&mut self, at: usize) {
        let config = self.table.configs[at];
        let sla = self.table.sla;
        let times = &mut self.table.startup[at];
        let ask = |state| {
            let query = Query::StartupTime { state, memory_mb: config.memory_mb, vcpu: config.vcpu };
            value(&(self.ask)(&query, sla), sla)
        };
        *times = StartupTimes {
            cold_ms: ask(StartState::Cold).unwrap_or(times.cold_ms),
            warm_ms: ask(StartState::Warm).unwrap_or(times.warm_ms),
        };
    }
}

/// The middle one; the lower of two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// Sizes that stand for the objects that will be moved: evenly spaced among them, so that what is frequent
/// weighs more.
fn probes(object_bytes: &[u64], inline_bytes_max: u64) -> Vec<u64> {
    let mut sizes: Vec<u64> = object_bytes.iter().copied().filter(|&b| b > inline_bytes_max).collect();
    sizes.sort_unstable();
    let count = sizes.len().min(TRANSFER_PROBES_MAX);
    (0..count).map(|i| sizes[i * (sizes.len() - 1) / (count - 1).max(1)]).collect()
}

/// Latency and time per byte of a transfer: the line through the model's answers at `probes`, by least
/// squares.
///
/// Real transfer times are no line; this one is right where the objects are, and the large ones decide.
fn affine(
    ask: &impl Fn(&Query, Sla) -> Prediction,
    sla: Sla,
    config: ResourceConfig,
    direction: Direction,
    probes: &[u64],
) -> Option<(f64, f64)> {
    let at = |bytes: &u64| {
        let (bytes, memory_mb, vcpu) = (*bytes, config.memory_mb, config.vcpu);
        let query = Query::TransferTime { direction, bytes, memory_mb, vcpu, store: None };
        value(&ask(&query, sla), sla).map(|ms| (bytes as f64, ms))
    };
    let points = probes.iter().map(at).collect::<Option<Vec<_>>>().filter(|points| !points.is_empty())?;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let square = points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>();
    let slope = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / square;
    // One size, a falling line or one below 0 at size 0: the rate alone, so that the total stays right.
    match y - slope * x {
        latency_ms if slope >= 0.0 && latency_ms >= 0.0 => Some((latency_ms, slope)),
        _ => {
            let moved = points.iter().map(|p| p.0 * p.1).sum::<f64>();
            Some((0.0, moved / points.iter().map(|p| p.0 * p.0).sum::<f64>()))
        }
    }
}

fn value(answer: &Prediction, sla: Sla) -> Option<f64> {
    let known = answer.basis != Basis::None;
    answer.values.get(&sla).copied().flatten().filter(|v| known && v.is_finite() && *v >= 0.0)
}

/// Size of all inputs of a task, where objects have these sizes: what the worker records, so an object that
/// is read twice counts twice, and a value as the JSON text that the task reads. What a task can run without
/// counts where the task that makes it is `expected`.
pub(crate) fn input_bytes(workflow: &Workflow, object_bytes: &[u64], expected: &[bool], t: u32) -> u64 {
    // The graph has every object once, in the order in which the inputs first name them.
    let (objects, mut places) = (workflow.graph().reads(t), HashMap::new());
    let read = workflow.task(t).inputs.iter().map(|input| {
        let mut is_read = true;
        let name = match input {
            Input::Task { task, output, optional } => {
                let maker = workflow.graph().find(task).filter(|_| *optional);
                is_read = maker.is_none_or(|maker| expected[maker as usize]);
                (task.as_str(), output.as_str())
            }
            Input::External { uri, .. } => ("", uri.as_str()),
            Input::Value { value } => return value.to_string().len() as u64,
        };
        let next = places.len();
        let bytes = object_bytes[objects[*places.entry(name).or_insert(next)] as usize];
        if is_read { bytes } else { 0 }
    });
    read.sum()
}

#[cfg(test)]
mod learned;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use foresail_schemas::prediction::Unit;

    use super::*;
    use crate::WorkflowBuilder;

    fn workflow() -> Workflow {
        let mut flow = WorkflowBuilder::new("w");
        let split = flow.task("split").command("true").outputs(["a", "b"]).handle();
        let left = flow.task("left").named("count").command("true").reads_output(&split, "a").handle();
        let right = flow.task("right").named("count").command("true").reads_output(&split, "b").handle();
        flow.task("unseen").command("true").reads(&left).reads(&right);
        flow.build().unwrap()
    }

    fn blind(workflow: &Workflow) -> PredictionTable {
        let configs = vec![ResourceConfig::new(512, None).unwrap(), ResourceConfig::new(1024, None).unwrap()];
        let tasks = workflow.tasks().len();
        let transfer = TransferTimes {
            download_latency_ms: 1.0,
            download_ms_per_byte: 1e-6,
            upload_latency_ms: 2.0,
            upload_ms_per_byte: 2e-6,
        };
        PredictionTable {
            sla: Sla::P95,
            epoch: 0,
            exec_ms: vec![vec![1000.0; tasks]; 2],
            object_bytes: vec![7; workflow.graph().objects().len()],
            transfer: vec![transfer; 2],
            startup: vec![StartupTimes { cold_ms: 100.0, warm_ms: 5.0 }; 2],
            engine: None,
            basis: vec![Basis::None; tasks],
            warm: Vec::new(),
            decisions: BTreeMap::new(),
            uncertainty: None,
            configs,
        }
    }

    fn answer(sla: Sla, value: Option<f64>, basis: Basis) -> Prediction {
        let values = BTreeMap::from([(sla, value)]);
        Prediction {
            unit: Unit::Ms,
            values,
            basis,
            samples: 3,
            extrapolated: false,
            interval: BTreeMap::new(),
            branches: BTreeMap::new(),
        }
    }

    fn model(query: &Query, sla: Sla) -> Prediction {
        let unseen = |task: &TaskName| task.as_str() == "unseen";
        let (value, basis) = match query {
            Query::ExecutionTime { task, .. } | Query::OutputSize { task, .. } if unseen(task) => {
                (None, Basis::None)
            }
            Query::ExecutionTime { input_bytes, memory_mb: 512, .. } => {
                (Some(*input_bytes as f64 * 2.0), Basis::Exact)
            }
            Query::ExecutionTime { input_bytes, .. } => (Some(*input_bytes as f64), Basis::MemoryNormalised),
            Query::OutputSize { task, input_bytes } if task.as_str() == "count" => {
                (Some(*input_bytes as f64 / 10.0), Basis::Exact)
            }
            Query::OutputSize { .. } => (Some(2_000.0), Basis::Exact),
            Query::Decision { .. } => (None, Basis::None),
            Query::TransferTime { direction: Direction::Download, bytes, .. } => {
                (Some(3.0 + *bytes as f64 / 1000.0), Basis::Pooled)
            }
            Query::TransferTime { .. } => (None, Basis::None),
            Query::StartupTime { state: StartState::Cold, .. } => (Some(250.0), Basis::Exact),
            Query::StartupTime { .. } => (None, Basis::None),
        };
        answer(sla, value, basis)
    }

    #[test]
    fn output_sizes_of_parents_are_input_sizes_of_children() {
        let workflow = workflow();
        let table = table(&workflow, blind(&workflow), 9, 0, model);
        assert_eq!(table.epoch, 9);
        assert_eq!(table.object_bytes[..4], [1000, 1000, 100, 100]);
        assert_eq!([table.exec_ms[0][1], table.exec_ms[1][1]], [2000.0, 1000.0]);
        assert_eq!(table.basis[1], Basis::MemoryNormalised, "the weakest over the sizes");
    }

    #[test]
    fn what_the_model_does_not_know_stays_blind_and_says_so() {
        let workflow = workflow();
        let table = table(&workflow, blind(&workflow), 9, 0, model);
        assert_eq!(table.exec_ms[0][3], 1000.0);
        assert_eq!(table.basis[3], Basis::None);
        assert_eq!(table.object_bytes[4], 7);
        assert_eq!(table.startup[0], StartupTimes { cold_ms: 250.0, warm_ms: 5.0 });
        let transfer = table.transfer[1];
        assert!((transfer.download_latency_ms - 3.0).abs() < 1e-9);
        assert!((transfer.download_ms_per_byte - 1e-3).abs() < 1e-9);
        assert!((transfer.upload_latency_ms - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_line_of_transfer_times_is_right_where_the_objects_are() {
        // Small files cost next to nothing, large ones 5 ms: no line through 0 bytes and a far size tells
        // both.
        let curve = |query: &Query, sla: Sla| match query {
            Query::TransferTime { bytes, .. } if *bytes < 1_000_000 => answer(sla, Some(0.25), Basis::Exact),
            Query::TransferTime { bytes: 3_000_000, .. } => answer(sla, Some(5.0), Basis::Exact),
            _ => answer(sla, Some(0.5), Basis::Exact),
        };
        let config = ResourceConfig::new(1024, None).unwrap();
        let probes = probes(&[100, 200_000, 3_000_000, 250_000, 3_000_000], 8192);
        assert_eq!(probes, [200_000, 250_000, 3_000_000, 3_000_000]);
        let (latency_ms, rate) = affine(&curve, Sla::MEDIAN, config, Direction::Upload, &probes)
            .expect("the curve knows all sizes");
        assert!((latency_ms + rate * 3e6 - 5.0).abs() < 0.2, "{latency_ms} {rate}");
        assert!(latency_ms >= 0.0 && latency_ms + rate * 2e5 < 0.6, "{latency_ms} {rate}");
        assert_eq!(affine(&curve, Sla::MEDIAN, config, Direction::Upload, &[]), None);
        let one = affine(&curve, Sla::MEDIAN, config, Direction::Upload, &[3_000_000]);
        assert!(one.is_some_and(|(latency_ms, rate)| latency_ms == 0.0 && (rate * 3e6 - 5.0).abs() < 1e-9));
    }

    #[test]
    fn a_value_in_the_workflow_counts_as_input() {
        let mut flow = WorkflowBuilder::new("w");
        flow.task("only").command("cat").reads_value("12345678");
        let workflow = flow.build().unwrap();
        let table = table(&workflow, blind(&workflow), 1, 0, model);
        assert_eq!(table.exec_ms[1][0], 10.0);
    }

    #[test]
    fn an_object_that_is_read_twice_counts_twice() {
        let mut flow = WorkflowBuilder::new("w");
        let both = flow.task("both").command("true").outputs(["a", "b"]).handle();
        let twice = flow.task("twice").command("cat").reads_output(&both, "b").reads_output(&both, "a");
        twice.reads_value(7).reads_output(&both, "b");
        let workflow = flow.build().unwrap();
        let mut sizes = vec![0; workflow.graph().objects().len()];
        let reads = workflow.graph().reads(1);
        (sizes[reads[0] as usize], sizes[reads[1] as usize]) = (100, 10);
        assert_eq!(input_bytes(&workflow, &sizes, &[true; 2], 1), 100 + 10 + 1 + 100);
    }
}
