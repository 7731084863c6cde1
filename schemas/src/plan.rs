//! Plans: which worker of which size runs each task, and what that is predicted to take and to cost.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{ResourceConfig, Sla};
use crate::decision::DecisionForecast;
use crate::id::{PlatformName, TaskId, TaskName, WorkerId, WorkflowName};
use crate::metric::Forecast;
use crate::number::non_negative;
use crate::optimization::{FlexibleRules, Optimization, OptimizationKind, PreWarming};
use crate::platform::Platform;
use crate::prediction::Basis;
use crate::run::ConfigUsage;
use crate::uncertainty::{Outlook, Uncertainty};
use crate::workflow::Workflow;

/// What a plan shall be best at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Objective {
    /// Shortest makespan; cost decides ties.
    #[default]
    Fastest,
    /// Least cost; makespan decides ties.
    Cheapest,
    /// Least cost among the plans that end in time.
    Deadline {
        /// The deadline in ms from the start.
        #[serde(deserialize_with = "non_negative")]
        #[schemars(range(min = 0.0))]
        makespan_ms: f64,
    },
    /// Shortest makespan among the plans that cost no more.
    Budget {
        /// The budget in USD.
        #[serde(deserialize_with = "non_negative")]
        #[schemars(range(min = 0.0))]
        cost_usd: f64,
    },
    /// Least cost among the plans that end in time with at least this probability. A planner that knows no
    /// distributions takes it as a deadline.
    Confidence {
        /// The deadline in ms from the start.
        #[serde(deserialize_with = "non_negative")]
        #[schemars(range(min = 0.0))]
        makespan_ms: f64,
        /// The probability, for instance 0.95; above 0 and at most 0.999.
        #[serde(deserialize_with = "non_negative")]
        #[schemars(range(min = 0.0, max = 0.999))]
        probability: f64,
    },
    /// Least weighted sum of makespan over its bound and cost over its bound.
    Balance {
        /// Weight of time in [0, 1]; the rest is the weight of money.
        #[serde(deserialize_with = "non_negative")]
        #[schemars(range(min = 0.0))]
        time_weight: f64,
    },
}

/// All that a planner is given. A planner is a pure function of this: the same problem gives the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PlanningProblem")]
pub struct Problem {
    /// The workflow.
    pub workflow: Workflow,
    /// The platform.
    pub platform: Platform,
    /// What is predicted for it.
    pub predictions: PredictionTable,
    /// What the plan shall be best at.
    pub objective: Objective,
    /// Seed of everything drawn.
    pub seed: u64,
    /// What a planner shall not do beside running tasks; what the workflow forces is done anyway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<OptimizationKind>,
}

/// Predictions of one workflow at one service level, by index of config, task and object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PredictionTable {
    /// The service level.
    pub sla: Sla,
    /// Epoch of the model; 0 where there was none.
    pub epoch: u64,
    /// The sizes predicted for, ascending.
    pub configs: Vec<ResourceConfig>,
    /// Execution time in ms: a row per config, a column per task.
    pub exec_ms: Vec<Vec<f64>>,
    /// Size of every object of the graph in bytes.
    pub object_bytes: Vec<u64>,
    /// Transfers per config.
    pub transfer: Vec<TransferTimes>,
    /// Starts per config.
    pub startup: Vec<StartupTimes>,
    /// What the engine takes; absent: a round trip as the platform assumes, and nothing per attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineTimes>,
    /// What the execution time of each task rests on: the weakest over the configs.
    pub basis: Vec<Basis>,
    /// Workers that are idle and warm when the run begins, per config; empty: none of any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warm: Vec<u32>,
    /// The distributions behind the times; absent: the times are taken as certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertainty: Option<Uncertainty>,
    /// What tasks that decide are predicted to decide; of one that is not listed nothing is known, and all
    /// that may follow it is expected to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub decisions: BTreeMap<TaskId, DecisionForecast>,
}

/// Time to move an object: `latency_ms + bytes * ms_per_byte`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TransferTimes {
    /// Fixed time of one download in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub download_latency_ms: f64,
    /// Time per byte downloaded in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub download_ms_per_byte: f64,
    /// Fixed time of one upload in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub upload_latency_ms: f64,
    /// Time per byte uploaded in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub upload_ms_per_byte: f64,
}

/// What the engine itself takes beside the code of tasks and the transfers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineTimes {
    /// Round trip to the run's state in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub dispatch_ms: f64,
    /// Time in ms that an attempt holds its lane beside downloads, code and uploads, per config.
    pub attempt_ms: Vec<f64>,
}

/// Time from an invocation until the worker can ask for its first task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StartupTimes {
    /// Of a new worker in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub cold_ms: f64,
    /// Of one that was idle in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub warm_ms: f64,
}

/// A plan for one workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The workflow it belongs to.
    pub workflow: WorkflowName,
    /// Who planned.
    pub planner: TaskName,
    /// The seed it planned with.
    pub seed: u64,
    /// What the plan is meant to be best at.
    pub objective: Objective,
    /// Service level of the predictions.
    pub sla: Sla,
    /// The platform it is for.
    pub platform: PlatformName,
    /// Epoch of the model it rests on; 0 where there was none.
    pub model_epoch: u64,
    /// The planned workers, in order of their first start.
    pub workers: Vec<PlannedWorker>,
    /// One entry per task, in the order of the workflow.
    pub tasks: Vec<PlannedTask>,
    /// Workers started beforehand, in the order in which they are predicted to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prewarms: Vec<PreWarming>,
    /// What flexible workers do with large outputs; absent: they store them like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flexible: Option<FlexibleRules>,
    /// What the whole is predicted to take and to cost.
    pub predicted: PlanSummary,
    /// What the workers of each size are predicted to use, ascending: what the predicted cost consists of.
    /// Empty where who planned did not say, and in a plan that replaced another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<ConfigUsage>,
    /// How uncertain that is, where the planner looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlook: Option<Box<Outlook>>,
    /// What no plan can beat.
    pub bounds: Bounds,
    /// The chain of tasks that decides the makespan, first to last.
    pub critical_path: Vec<TaskId>,
    /// Why the plan is as it is, in sentences.
    pub explanation: Vec<String>,
}

/// A worker of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedWorker {
    /// Its id.
    pub id: WorkerId,
    /// Its size.
    pub config: ResourceConfig,
    /// When it is predicted to be invoked, in ms from the start of the run.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub start_ms: f64,
    /// When it is predicted to leave, in ms from the start of the run.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub end_ms: f64,
    /// What it is predicted to cost.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub cost_usd: f64,
}

/// A task of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedTask {
    /// The task.
    pub task: TaskId,
    /// The worker that runs it and no other does; absent: any worker of the config may (flexible).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// Size of the worker that runs it.
    pub config: ResourceConfig,
    /// Order among tasks that are ready on the same worker: lower goes first.
    pub rank: u32,
    /// Predicted start (of its downloads) in ms from the start of the run.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub start_ms: f64,
    /// Predicted end (of its uploads) in ms from the start of the run.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub end_ms: f64,
    /// Predicted time in the user's code in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub exec_ms: f64,
    /// Quantiles of that time at this size, where the model knows them; scored once the task was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// Predicted size of all its outputs in bytes, where workers decide by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// What is done beside running it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub optimizations: Vec<Optimization>,
    /// Whether the plan expects that it is skipped. It is placed all the same, takes no time and costs
    /// nothing in the prediction, and runs here where it is not skipped after all.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unexpected: bool,
    /// Why this worker and this size.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What a plan is predicted to take and to cost, or what a run took and cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanSummary {
    /// From the submission to the commit of the last task, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub makespan_ms: f64,
    /// Money in USD.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub cost_usd: f64,
    /// Memory times life of all workers, in GB s.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub gb_seconds: f64,
    /// Invocations.
    pub invocations: u64,
    /// Invocations that needed a new worker.
    pub cold_starts: u64,
    /// Bytes downloaded.
    pub download_bytes: u64,
    /// Bytes uploaded.
    pub upload_bytes: u64,
}

/// What no plan can beat, and the plan's distance to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bounds {
    /// Lower bound of the makespan in ms (LB_T).
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub makespan_ms: f64,
    /// Lower bound of the cost in USD (LB_C).
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub cost_usd: f64,
    /// Predicted makespan over its bound.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub makespan_ratio: f64,
    /// Predicted cost over its bound.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub cost_ratio: f64,
}

/// Why a plan does not fit its workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The plan is for another workflow.
    #[error("the plan is for workflow `{plan}`, the run is of `{workflow}`")]
    OtherWorkflow {
        /// Name in the plan.
        plan: WorkflowName,
        /// Name of the workflow.
        workflow: WorkflowName,
    },
    /// The plan's tasks are not those of the workflow, in its order.
    #[error("entry {at} of the plan must be task `{expected}`{}", instead(.found.as_ref()))]
    OtherTasks {
        /// Place in the plan.
        at: usize,
        /// The task of the workflow.
        expected: TaskId,
        /// The task of the plan.
        found: Option<TaskId>,
    },
    /// A task is placed on a worker that the plan does not list, or lists with another size.
    #[error("task `{task}` is placed on worker `{worker}`, which the plan does not list with {config}")]
    UnknownWorker {
        /// The task.
        task: TaskId,
        /// The worker.
        worker: WorkerId,
        /// The task's size.
        config: String,
    },
    /// A worker is listed twice.
    #[error("worker `{0}` is listed twice")]
    DuplicateWorker(WorkerId),
    /// A task was given less memory than it needs.
    #[error("task `{task}` needs {needed_mb} MB and was given {given_mb} MB")]
    Memory {
        /// The task.
        task: TaskId,
        /// MB needed.
        needed_mb: u32,
        /// MB given.
        given_mb: u32,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

fn instead(found: Option<&TaskId>) -> String {
    found.map_or(String::new(), |task| format!(", it is `{task}`"))
}

impl Plan {
    /// Checks that the plan fits `workflow`: the same tasks in the same order, known workers, enough memory.
    ///
    /// # Errors
    /// [`PlanError`] with the first thing that does not fit.
    pub fn check(&self, workflow: &Workflow) -> Result<(), PlanError> {
        if self.workflow != *workflow.name() {
            let (plan, workflow) = (self.workflow.clone(), workflow.name().clone());
            return Err(PlanError::OtherWorkflow { plan, workflow });
        }
        let mut workers = std::collections::HashMap::new();
        for worker in &self.workers {
            if workers.insert(&worker.id, worker.config).is_some() {
                return Err(PlanError::DuplicateWorker(worker.id.clone()));
            }
        }
        for (at, task) in workflow.tasks().iter().enumerate() {
            let planned = self.tasks.get(at);
            let Some(planned) = planned.filter(|p| p.task == task.id) else {
                let found = planned.map(|p| p.task.clone());
                return Err(PlanError::OtherTasks { at, expected: task.id.clone(), found });
            };
            if let Some(worker) = &planned.worker
                && workers.get(worker).is_none_or(|c| *c != planned.config && c.key() != planned.config.key())
            {
                let (task, config) = (task.id.clone(), planned.config.to_string());
                return Err(PlanError::UnknownWorker { task, worker: worker.clone(), config });
            }
            let needed_mb = task.memory_mb_min.unwrap_or(0);
            if planned.config.memory_mb < needed_mb {
                let given_mb = planned.config.memory_mb;
                return Err(PlanError::Memory { task: task.id.clone(), needed_mb, given_mb });
            }
        }
        match self.tasks.get(workflow.tasks().len()) {
            None => Ok(()),
            Some(extra) => Err(PlanError::OtherTasks {
                at: workflow.tasks().len(),
                expected: workflow.tasks()[0].id.clone(),
                found: Some(extra.task.clone()),
            }),
        }
    }
}
