//! What is true in the lab, and what a planner is told of it.
//!
//! *True* is the recorded time of every task on one vCPU, transfers and starts as the platform's table has
//! them, and objects of the recorded sizes. A trace says nothing of other sizes of worker: each function has
//! a share of its time that no vCPU makes faster and a number of vCPUs that it can use, both drawn from its
//! name ([`Curve::Drawn`]), or gains up to one vCPU and no further ([`Curve::OneVcpu`]).
//!
//! A planner is told the truth, or what the predictor makes of k earlier runs. An earlier run executes every
//! task once at a drawn size of the menu, with a time that strays from the true one by a log-normal factor;
//! its records go through the model that the daemon has, and the table is filled as the client fills it.
//! With 0 runs nothing is known: neither times nor sizes of outputs.

use std::str::FromStr;

use foresail_model::WorkflowModel;
use foresail_planner::blind_table;
use foresail_schemas::metric::{Direction, Record, StartState, StartupRecord, TaskRecord, TransferRecord};
use foresail_schemas::plan::PredictionTable;
use foresail_schemas::prediction::Basis;
use foresail_schemas::{Platform, ResourceConfig, Sla, Workflow};
use jiff::Timestamp;

use crate::lab::shapes::drawn;
use crate::{predict, uncertainty};

/// Share of a function's time that no vCPU makes faster, at most.
const SERIAL_MAX: f64 = 0.5;
/// Fewest vCPUs that a function can use, and how many more it may.
const VCPUS: (f64, f64) = (1.0, 2.0);
/// Time between two records of a drawn history, in ms.
const RECORD_GAP_MS: i64 = 1;

/// How time depends on the size of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// Each function has a serial share and a number of vCPUs it can use, drawn from its name.
    Drawn,
    /// Every function uses one vCPU: less slows it down in proportion, more does not help.
    OneVcpu,
}

impl FromStr for Curve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "drawn" => Ok(Self::Drawn),
            "one-vcpu" => Ok(Self::OneVcpu),
            _ => Err(format!("`{text}` is not a curve: use drawn or one-vcpu")),
        }
    }
}

/// The workflow with its longest task scaled down to `task_ms_max`, the others in proportion; times alone.
#[must_use]
pub fn scaled(workflow: &Workflow, task_ms_max: f64) -> Workflow {
    let longest_ms = workflow.tasks().iter().filter_map(|t| t.hint.exec_ms).fold(0.0, f64::max);
    if longest_ms <= task_ms_max {
        return workflow.clone();
    }
    let mut spec = workflow.spec().clone();
    spec.tasks
        .iter_mut()
        .for_each(|t| t.hint.exec_ms = t.hint.exec_ms.map(|ms| ms * task_ms_max / longest_ms));
    spec.check().expect("only times were changed")
}

/// The true table.
#[must_use]
pub fn table(workflow: &Workflow, platform: &Platform, curve: Curve) -> PredictionTable {
    let mut table = blind_table(workflow, platform, Sla::MEDIAN);
    table.basis.fill(Basis::Exact);
    table.epoch = 1;
    if curve == Curve::OneVcpu {
        return table;
    }
    for (t, task) in workflow.tasks().iter().enumerate() {
        let kind = task.name.as_str().bytes().fold(7_u64, |sum, b| sum.wrapping_mul(31) + u64::from(b));
        let (serial, vcpus) = (SERIAL_MAX * drawn(kind), VCPUS.0 + VCPUS.1 * drawn(kind ^ 0x5bd1));
        let one_ms = task.hint.exec_ms.unwrap_or(platform.assumed.exec_ms);
        for (c, row) in table.exec_ms.iter_mut().enumerate() {
            let share = table.configs[c].cpu_share().min(vcpus);
            row[t] = one_ms * (serial + (1.0 - serial) / share);
        }
    }
    table
}

/// What the predictor makes of `runs` earlier runs of a workflow whose truth is `truth`.
#[must_use]
pub fn learned(
    workflow: &Workflow,
    platform: &Platform,
    truth: &PredictionTable,
    history: &History,
    sla: Sla,
) -> PredictionTable {
    let unknown = forgotten(workflow);
    let blind = blind_table(&unknown, platform, sla);
    let mut model = WorkflowModel::new();
    let mut draws = Draws { seed: history.seed, count: 0 };
    let mut at_ms = 0;
    let mut learn = |record: Record| {
        at_ms += RECORD_GAP_MS;
        let at = Timestamp::from_millisecond(at_ms).expect("a history is shorter than an age");
        model.update(&record, at);
    };
    for _ in 0..history.runs {
        for t in 0..workflow.tasks().len() as u32 {
            let size = ((draws.uniform() * truth.configs.len() as f64) as usize).min(truth.configs.len() - 1);
            let exec_ms = truth.exec_ms[size][t as usize] * draws.factor(history.noise);
            one_execution(workflow, truth, t, size, exec_ms).into_iter().for_each(&mut learn);
        }
        for (size, config) in truth.configs.iter().enumerate() {
            starts(truth, size, *config).into_iter().for_each(&mut learn);
        }
    }
    let model = model.snapshot();
    let epoch = u64::from(history.runs);
    let inline_bytes_max = platform.inline_bytes_max;
    let ask = |query: &_, sla| model.predict(query, &[sla]);
    let mut table = predict::table(&unknown, blind, epoch, inline_bytes_max, ask);
    if history.runs > 0 {
        let ask = |query: &_, slas: &[Sla]| model.predict(query, slas);
        table.uncertainty = Some(uncertainty::distributions(&unknown, &table, inline_bytes_max, ask));
    }
    table
}

/// A history that is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct History {
    /// Earlier runs.
    pub runs: u32,
    /// Standard deviation of the logarithm of a time.
    pub noise: f64,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// The workflow without what only a run tells: times, and sizes of outputs.
#[must_use]
pub fn forgotten(workflow: &Workflow) -> Workflow {
    let mut spec = workflow.spec().clone();
    for task in &mut spec.tasks {
        task.hint.exec_ms = None;
        task.outputs.iter_mut().for_each(|o| o.bytes = None);
    }
    spec.check().expect("only hints were dropped")
}

/// The records of one execution: the task, and what it moved.
fn one_execution(
    workflow: &Workflow,
    truth: &PredictionTable,
    t: u32,
    size: usize,
    exec_ms: f64,
) -> Vec<Record> {
    let (graph, config, transfer) = (workflow.graph(), truth.configs[size], truth.transfer[size]);
    let bytes = |o: &u32| truth.object_bytes[*o as usize];
    let mut records = vec![Record::Task(TaskRecord {
        task: workflow.task(t).name.clone(),
        memory_mb: config.memory_mb,
        vcpu: config.vcpu,
        input_bytes: predict::input_bytes(
            workflow,
            &truth.object_bytes,
            &vec![true; workflow.tasks().len()],
            t,
        ),
        output_bytes: Some(graph.writes(t).iter().map(bytes).sum()),
        exec_ms,
        peak_memory_mb: None,
        attempt: 1,
        at: None,
        forecast: None,
    })];
    let moved = |direction, bytes: u64, time_ms| {
        let (memory_mb, vcpu) = (config.memory_mb, config.vcpu);
        Record::Transfer(TransferRecord { direction, bytes, time_ms, memory_mb, vcpu, store: None, at: None })
    };
    records.extend(graph.reads(t).iter().map(bytes).map(|b| {
        let time_ms = transfer.download_latency_ms + b as f64 * transfer.download_ms_per_byte;
        moved(Direction::Download, b, time_ms)
    }));
    records.extend(graph.writes(t).iter().map(bytes).map(|b| {
        let time_ms = transfer.upload_latency_ms + b as f64 * transfer.upload_ms_per_byte;
        moved(Direction::Upload, b, time_ms)
    }));
    records
}

fn starts(truth: &PredictionTable, size: usize, config: ResourceConfig) -> [Record; 2] {
    let (startup, memory_mb, vcpu) = (truth.startup[size], config.memory_mb, config.vcpu);
    [(StartState::Cold, startup.cold_ms), (StartState::Warm, startup.warm_ms)]
        .map(|(state, time_ms)| Record::Startup(StartupRecord { state, time_ms, memory_mb, vcpu, at: None }))
}

/// Numbers that look drawn, one after another.
struct Draws {
    seed: u64,
    count: u64,
}

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.count += 1;
        drawn(self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(self.count))
    }

    /// A log-normal factor with median 1 (Box and Muller 1958).
    fn factor(&mut self, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        (sigma * radius * (std::f64::consts::TAU * self.uniform()).cos()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::shapes::Shape;

    fn lambda() -> Platform {
        Platform::built_in().remove(1)
    }

    fn error(runs: u32) -> f64 {
        let workflow = Shape::ForkJoin(2, 12).workflow();
        let truth = table(&workflow, &lambda(), Curve::Drawn);
        let history = History { runs, noise: 0.1, seed: 3 };
        let told = learned(&workflow, &lambda(), &truth, &history, Sla::MEDIAN);
        assert_eq!(told.exec_ms.len(), truth.exec_ms.len());
        let pairs = truth.exec_ms.iter().flatten().zip(told.exec_ms.iter().flatten());
        let errors: Vec<f64> = pairs.map(|(t, p)| (p / t).ln().abs()).collect();
        errors.iter().sum::<f64>() / errors.len() as f64
    }

    #[test]
    fn a_longer_history_tells_more_and_none_tells_nothing() {
        let (none, one, many) = (error(0), error(1), error(10));
        assert!(many < one && one < none, "{none} {one} {many}");
        assert!(many < 0.5 * none, "{none} {many}");
    }

    #[test]
    fn without_a_history_neither_times_nor_sizes_of_outputs_leak() {
        let workflow = Shape::Svd(4).workflow();
        let truth = table(&workflow, &lambda(), Curve::Drawn);
        let told =
            learned(&workflow, &lambda(), &truth, &History { runs: 0, noise: 0.1, seed: 1 }, Sla::MEDIAN);
        assert!(told.basis.iter().all(|b| *b == Basis::None));
        assert_eq!(told.object_bytes[0], 0, "what a source writes is not known");
        assert!(
            told.exec_ms.iter().flatten().all(|ms| truth
                .exec_ms
                .iter()
                .flatten()
                .all(|true_ms| ms != true_ms))
        );
    }

    #[test]
    fn drawn_factors_have_the_spread_that_was_asked_for() {
        let mut draws = Draws { seed: 5, count: 0 };
        let logs: Vec<f64> = (0..20_000).map(|_| draws.factor(0.3).ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let sd = (logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / logs.len() as f64).sqrt();
        assert!(mean.abs() < 0.01 && (sd - 0.3).abs() < 0.01, "{mean} {sd}");
    }

    #[test]
    fn scaling_keeps_proportions_and_never_makes_longer() {
        let workflow = Shape::Tsqr(4).workflow();
        let short = scaled(&workflow, 5_000.0);
        let times: Vec<_> = short.tasks().iter().map(|t| t.hint.exec_ms.unwrap()).collect();
        assert_eq!(times[0], 5_000.0);
        assert_eq!(times[6], 1_250.0);
        assert_eq!(scaled(&workflow, 60_000.0), workflow);
    }
}
