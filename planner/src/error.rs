//! Why there is no plan, no planner or no simulation.

use foresail_schemas::plan::PlanError;
use foresail_schemas::platform::PlatformError;
use foresail_schemas::{TaskId, WorkerId};

use crate::draft::DraftFailure;

/// Why a problem has no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanFailure {
    /// A table of the problem has another length than the workflow and its sizes need.
    #[error(
        "`predictions.{field}` has {found} entries, {expected} are needed; hint: predict for this workflow"
    )]
    Dimensions {
        /// The field.
        field: &'static str,
        /// Entries needed.
        expected: usize,
        /// Entries found.
        found: usize,
    },
    /// A prediction is not a number >= 0.
    #[error("`predictions.{field}` has the value `{value}`, it must be finite and at least 0")]
    Number {
        /// The field.
        field: &'static str,
        /// The value.
        value: f64,
    },
    /// No size was predicted for.
    #[error("`predictions.configs` is empty; hint: predict for at least one size of the platform's menu")]
    NoConfigs,
    /// The sizes predicted for are not in ascending order.
    #[error("`predictions.configs` must be ascending and distinct, `{0}` is not")]
    Order(String),
    /// A size is not offered by the platform.
    #[error("`predictions.configs` has `{config}`, which platform `{platform}` does not offer")]
    NotOnMenu {
        /// The size.
        config: String,
        /// The platform.
        platform: String,
    },
    /// The plan cannot be carried out in virtual time.
    #[error("the event simulator cannot carry the plan out: {0}")]
    Simulation(String),
    /// The platform's table breaks a rule.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// No size has the memory that a task needs.
    #[error(
        "task `{task}` needs {needed_mb} MB, the largest size of the platform has {largest_mb} MB; hint: \
         split the task, or give the platform a larger size or a `[pool]`"
    )]
    Memory {
        /// The task.
        task: TaskId,
        /// MB needed.
        needed_mb: u32,
        /// MB of the largest size.
        largest_mb: u32,
    },
    /// A task is predicted to outlive a worker on every size.
    #[error(
        "task `{task}` is predicted to take {exec_ms:.0} ms at best, a worker lives {life_ms_max:.0} ms; \
         hint: split the task, use a platform with a longer limit, or give it a `[pool]`"
    )]
    TooLong {
        /// The task.
        task: TaskId,
        /// Its shortest time.
        exec_ms: f64,
        /// The longest life of a worker.
        life_ms_max: f64,
    },
    /// A task fits into a worker's life, but not with its transfers.
    #[error(
        "task `{task}` is predicted to take {exec_ms:.0} ms, and with a cold start and its transfers \
         {needed_ms:.0} ms at best; a worker lives {life_ms_max:.0} ms; hint: split the task, let it read \
         and store less, use a platform with a longer `life_ms_max`, or give it a `[pool]`"
    )]
    TooLongWithTransfers {
        /// The task.
        task: TaskId,
        /// Its shortest time.
        exec_ms: f64,
        /// The shortest time from the start of a worker to the end of its uploads.
        needed_ms: f64,
        /// The longest life of a worker.
        life_ms_max: f64,
    },
    /// What a planner from elsewhere decided breaks a rule.
    #[error(transparent)]
    Draft(Box<DraftFailure>),
    /// A task outlives a worker too often on every size.
    #[error(
        "task `{task}` takes more than {p99_ms:.0} ms in one of a hundred executions at best, over 90 % of a \
         worker's life of {life_ms_max:.0} ms; hint: split the task, use a platform with a longer \
         `life_ms_max`, or give it a `[pool]`"
    )]
    TooLongAtTimes {
        /// The task.
        task: TaskId,
        /// Its shortest p99.
        p99_ms: f64,
        /// The longest life of a worker.
        life_ms_max: f64,
    },
    /// A distribution breaks a rule.
    #[error("`predictions.uncertainty.{field}`: {rule}")]
    Uncertainty {
        /// The field.
        field: &'static str,
        /// The rule.
        rule: &'static str,
    },
    /// The probability asked for is out of range.
    #[error("a probability of `{0}` is asked for, it must be above 0 and at most 0.999")]
    Probability(f64),
}

/// Why a plan could not be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DrawFailure {
    /// Problem or plan are not valid.
    #[error(transparent)]
    Plan(#[from] SimulationFailure),
    /// The plan leaves to flexible workers what is done with large outputs.
    #[error("what flexible workers decide about large outputs while they run cannot be drawn")]
    Flexible,
    /// The predictions carry no distributions.
    #[error("`predictions.uncertainty` is absent; hint: ask for the predictions together with it")]
    NoDistributions,
    /// The number of draws is 0 or too large.
    #[error("`{draws}` draws are asked for, it must be 1 to {draws_max}")]
    Draws {
        /// Draws asked for.
        draws: u32,
        /// Most draws.
        draws_max: u32,
    },
}

/// No planner has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownPlanner {
    /// There is none.
    #[error("there is no planner `{name}`; hint: use one of {}", .known.join(", "))]
    Name {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<&'static str>,
    },
    /// There is one, and what stands behind its name is wrong.
    #[error("`{argument}` cannot stand behind `{planner}:`; hint: `{planner}` takes {takes}")]
    Argument {
        /// The planner.
        planner: String,
        /// What stands behind the colon.
        argument: String,
        /// What may stand there.
        takes: String,
    },
}

/// Why a plan could not be simulated to its end.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimulationFailure {
    /// The problem is not one.
    #[error(transparent)]
    Problem(#[from] PlanFailure),
    /// The plan is not one of this workflow.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan uses a size that nothing is predicted for.
    #[error("task `{task}` is planned on {config}, for which `predictions.configs` has no entry")]
    UnpredictedConfig {
        /// The task.
        task: TaskId,
        /// The size.
        config: String,
    },
    /// A worker that is started beforehand is of no use.
    #[error(transparent)]
    PreWarm(DraftFailure),
    /// The plan has a task on a size whose workers do not live as long as it takes, as it took in fact.
    #[error(
        "task `{task}` takes {needed_ms:.0} ms on a worker of {config} with its start and transfers; it \
         lives {life_ms_max:.0} ms and is ended by then"
    )]
    Outlives {
        /// The task.
        task: TaskId,
        /// Time from the start of a worker to the end of the uploads.
        needed_ms: f64,
        /// The size.
        config: String,
        /// The life.
        life_ms_max: f64,
    },
    /// The run did not come to its end.
    #[error(
        "the simulated run stands still at {at_ms:.0} ms: {committed} of {tasks} tasks done, {steps} steps"
    )]
    Stuck {
        /// Virtual time in ms.
        at_ms: f64,
        /// Tasks with a result.
        committed: u64,
        /// Tasks in all.
        tasks: u64,
        /// Events handled.
        steps: u64,
    },
}

/// Why a run could not be re-planned; its plan stays in force.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReplanFailure {
    /// The problem is not one, for a task that has not run.
    #[error(transparent)]
    Problem(#[from] PlanFailure),
    /// The plan in force is not one of this problem.
    #[error("the plan in force: {0}")]
    Plan(#[from] SimulationFailure),
    /// What flexible workers decide about large outputs while they run has no times.
    #[error("the plan in force leaves large outputs to flexible workers, so what is left of it has no times")]
    Flexible,
    /// The state is of another workflow.
    #[error("the state of the run has {found} tasks, the workflow has {expected}")]
    Tasks {
        /// Tasks of the workflow.
        expected: usize,
        /// Tasks of the state.
        found: usize,
    },
    /// A time of the state is no time.
    #[error("the state of the run has the time `{ms}` for `{what}`, it must be finite and at least 0")]
    Time {
        /// Task, worker or field.
        what: String,
        /// The time.
        ms: f64,
    },
    /// A task has begun before one that it waits for had a result.
    #[error(
        "by the state of the run task `{task}` has begun, and `{parent}`, which it waits for, has no result"
    )]
    Order {
        /// The task.
        task: TaskId,
        /// The one it waits for.
        parent: TaskId,
    },
    /// A task is leased to a worker that the state does not have.
    #[error("task `{task}` is leased to worker `{worker}`, which is none of the state's `workers`")]
    Holder {
        /// The task.
        task: TaskId,
        /// The worker.
        worker: WorkerId,
    },
    /// A worker has a size that nothing is predicted for.
    #[error("worker `{worker}` has {config}, which is none of `predictions.configs`")]
    Config {
        /// The worker.
        worker: WorkerId,
        /// The size.
        config: String,
    },
    /// A worker holds what is no object of the workflow.
    #[error("worker `{worker}` holds object {object}, which the workflow does not have")]
    Object {
        /// The worker.
        worker: WorkerId,
        /// Its place among the objects.
        object: u32,
    },
}
