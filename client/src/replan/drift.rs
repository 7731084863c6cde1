//! Whether a run goes as its plan says: what was expected of each task beside what was measured. Pure.
//!
//! Looked for are tasks that run longer than their p95, types of tasks that take another time than
//! predicted, workers that are lost, and tasks that others decided to skip. What cannot move the makespan by
//! [`SHARE_MIN`] is no cause, as one task of twenty passes its p95 in any run. A cause is a reason to look:
//! what is then expected of the tasks of a type is [`Drift::slowdowns`]. Times in ms.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::decision::Decision;
use foresail_schemas::plan::Plan;
use foresail_schemas::{TaskId, TaskName, Workflow};

use super::course::{Course, Step};
use super::slowdown::{Lifetime, slowdown};
use crate::units;

/// Least deviation of a type of tasks from its prediction, as a part of it.
pub const DRIFT_MIN: f64 = 0.2;
/// Fewest executions that show it.
pub const SAMPLES_MIN: usize = 3;
/// Executions of a type that are looked at: the newest.
const SAMPLES_MAX: usize = 16;
/// Executions of a type under way that are looked at.
const RUNNING_MAX: usize = 64;
/// A task that was a cause is one again after this many times what had elapsed then.
const SLOW_AGAIN: f64 = 1.5;
/// Least deviation of a type from its prediction that is told to a planner: less is noise.
const SLOWDOWN_MIN: f64 = 0.02;
/// Least part of the predicted makespan that a deviation must come to.
const SHARE_MIN: f64 = 0.02;

/// Why a plan is looked at again.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// A task runs longer than its p95.
    Slow {
        /// The task.
        task: TaskId,
        /// Its place in the workflow.
        at: u32,
        /// How long its worker has it.
        elapsed_ms: f64,
        /// How long 95 of 100 executions take, transfers included.
        p95_ms: f64,
    },
    /// A type of tasks takes another time than predicted.
    Drift {
        /// The function.
        name: TaskName,
        /// Median of measured over predicted time.
        ratio: f64,
        /// Executions that show it.
        samples: usize,
    },
    /// A decision calls tasks that the plan does not expect.
    Decided {
        /// The task that decided.
        task: TaskId,
        /// Its place in the workflow.
        at: u32,
        /// What it decided.
        decision: Decision,
        /// Tasks that it calls and the plan does not expect.
        called: usize,
    },
    /// Workers are not heard of any more.
    Lost {
        /// How many in all of the run.
        count: usize,
    },
    /// Tasks do not run, because of what others decided.
    Skipped {
        /// How many in all of the run.
        count: usize,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow { task, elapsed_ms, p95_ms, .. } => {
                write!(f, "`{task}` runs for {}, its p95 is {}", units::ms(*elapsed_ms), units::ms(*p95_ms))
            }
            Self::Drift { name, ratio, samples } => {
                write!(f, "{samples} executions of `{name}` took {ratio:.2} times what was predicted")
            }
            Self::Decided { task, decision, called, .. } => {
                write!(f, "`{task}` decided `{decision}`, which calls {called} tasks that were not expected")
            }
            Self::Lost { count } => write!(f, "{count} workers were lost"),
            Self::Skipped { count } => write!(f, "{count} tasks are skipped, as was decided"),
        }
    }
}

/// What is expected of one task.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    config: ResourceConfig,
    /// In the user's code.
    exec_ms: f64,
    /// What the plan gives its transfers.
    around_ms: f64,
    /// In the user's code, where the model knows the task.
    p95_ms: Option<f64>,
    /// Whether it is expected to be skipped.
    is_unexpected: bool,
}

/// What is expected, and what of it was found to be otherwise.
#[derive(Debug)]
pub struct Drift {
    expected: Vec<Expected>,
    makespan_ms: f64,
    /// The newest executions of each type: the task and its time.
    samples: BTreeMap<TaskName, VecDeque<(u32, f64)>>,
    /// Tasks by type.
    tasks: BTreeMap<TaskName, Vec<u32>>,
    /// Running tasks, by the time they were taken, that were a cause already, and after which time.
    told_slow: HashMap<(u32, u64), f64>,
    /// Decisions that were a cause already.
    told_decided: HashSet<u32>,
    told_lost: usize,
    told_skipped: usize,
}

impl Drift {
    /// What `plan` expects.
    #[must_use]
    pub fn new(workflow: &Workflow, plan: &Plan) -> Self {
        let mut tasks: BTreeMap<TaskName, Vec<u32>> = BTreeMap::new();
        for (at, task) in (0..).zip(workflow.tasks()) {
            tasks.entry(task.name.clone()).or_default().push(at);
        }
        let mut drift = Self {
            expected: Vec::new(),
            makespan_ms: 0.0,
            samples: BTreeMap::new(),
            tasks,
            told_slow: HashMap::new(),
            told_decided: HashSet::new(),
            told_lost: 0,
            told_skipped: 0,
        };
        drift.expect(plan);
        drift
    }

    /// From now on this plan says what is expected, of tasks with a result too.
    pub fn expect(&mut self, plan: &Plan) {
        let expected = plan.tasks.iter().map(|task| Expected {
            config: task.config,
            exec_ms: task.forecast.map_or(task.exec_ms, |f| f.median_ms),
            around_ms: (task.end_ms - task.start_ms - task.exec_ms).max(0.0),
            p95_ms: task.forecast.map(|f| f.p95_ms),
            is_unexpected: task.unexpected,
        });
        self.expected = expected.collect();
        self.makespan_ms = plan.predicted.makespan_ms;
    }

    /// Takes an execution; one of another size than planned says nothing about the prediction.
    pub fn measured(&mut self, name: &TaskName, task: u32, config: ResourceConfig, exec_ms: f64) {
        let is_as_planned = self.expected.get(task as usize).is_some_and(|e| e.config.key() == config.key());
        if is_as_planned {
            let samples = self.samples.entry(name.clone()).or_default();
            samples.push_back((task, exec_ms));
            if samples.len() > SAMPLES_MAX {
                samples.pop_front();
            }
        }
    }

    /// Measured over expected time of each type that deviates, with the executions that show it.
    #[must_use]
    pub fn ratios(&self) -> Vec<(TaskName, f64, usize)> {
        let mut found = Vec::new();
        for (name, samples) in self.samples.iter().filter(|(_, s)| s.len() >= SAMPLES_MIN) {
            let expected_ms = |task: u32| self.expected[task as usize].exec_ms;
            let ratios = samples.iter().filter(|(task, _)| expected_ms(*task) > 0.0);
            let mut ratios: Vec<f64> = ratios.map(|&(task, ms)| ms / expected_ms(task)).collect();
            ratios.sort_by(f64::total_cmp);
            let Some(&ratio) = ratios.get(ratios.len() / 2) else { continue };
            let sum_ms: f64 = self.tasks[name].iter().map(|&task| expected_ms(task)).sum();
            let off = (ratio - 1.0).abs();
            if off >= DRIFT_MIN && off * sum_ms >= SHARE_MIN * self.makespan_ms {
                found.push((name.clone(), ratio, samples.len()));
            }
        }
        found
    }

    /// Why the plan is to be looked at again now.
    #[must_use]
    pub fn causes(&self, workflow: &Workflow, course: &Course, now_ms: f64) -> Vec<Cause> {
        let drifts = self.ratios().into_iter();
        let mut causes: Vec<Cause> =
            drifts.map(|(name, ratio, samples)| Cause::Drift { name, ratio, samples }).collect();
        causes.extend(self.slow(workflow, course, now_ms));
        for (at, decision) in course.decided().filter(|(at, _)| !self.told_decided.contains(at)) {
            let id = &workflow.task(at).id;
            let is_called = |child: &&u32| {
                let when = workflow.task(**child).when.as_ref().filter(|when| when.task == *id);
                when.is_some_and(|when| when.wanted.holds(decision))
            };
            let called = workflow.graph().children(at).iter().filter(is_called);
            let called = called.filter(|child| self.expected[**child as usize].is_unexpected).count();
            if called > 0 {
                let (task, decision) = (id.clone(), decision.clone());
                causes.push(Cause::Decided { task, at, decision, called });
            }
        }
        let count = course.lost();
        if count > self.told_lost {
            causes.push(Cause::Lost { count });
        }
        let spared_ms: f64 = course.skipped().map(|task| self.expected[task as usize].exec_ms).sum();
        let count = course.skipped().count();
        if count > self.told_skipped && spared_ms > SHARE_MIN * self.makespan_ms {
            causes.push(Cause::Skipped { count });
        }
        causes
    }

    /// Tasks that have just passed their p95, or that go on long after they were a cause, where this can
    /// matter to the run.
    fn slow(&self, workflow: &Workflow, course: &Course, now_ms: f64) -> Vec<Cause> {
        let mut found = Vec::new();
        let mut left_ms: HashMap<&TaskName, f64> = HashMap::new();
        for (at, since_ms, _) in course.running() {
            let expected = &self.expected[at as usize];
            let Some(p95_ms) = expected.p95_ms.map(|p95_ms| p95_ms + expected.around_ms) else { continue };
            let elapsed_ms = now_ms - since_ms;
            let told_ms = self.told_slow.get(&(at, since_ms.to_bits()));
            if elapsed_ms <= p95_ms || told_ms.is_some_and(|told_ms| elapsed_ms < SLOW_AGAIN * told_ms) {
                continue;
            }
            let name = &workflow.task(at).name;
            let left_ms = *left_ms.entry(name).or_insert_with(|| self.left_ms(name, course));
            // What it takes too long, others of its type may as well.
            let over = (elapsed_ms - expected.around_ms) / expected.exec_ms - 1.0;
            if over * left_ms >= SHARE_MIN * self.makespan_ms {
                found.push(Cause::Slow { task: workflow.task(at).id.clone(), at, elapsed_ms, p95_ms });
            }
        }
        found
    }

    /// What the tasks of a type are expected to take that have no result.
    fn left_ms(&self, name: &TaskName, course: &Course) -> f64 {
        let is_left = |task: &&u32| matches!(course.step(**task), Step::Open | Step::Leased { .. });
        let left = self.tasks[name].iter().filter(is_left);
        left.map(|&task| self.expected[task as usize].exec_ms).sum()
    }

    /// The types that take another time than expected, and by which factor; what still runs counts too.
    #[must_use]
    pub fn slowdowns(&self, workflow: &Workflow, course: &Course, now_ms: f64) -> Vec<(TaskName, f64)> {
        let lifetime = |task: u32, ms: f64| {
            let expected = &self.expected[task as usize];
            Lifetime::new(ms, expected.exec_ms, expected.p95_ms)
        };
        let mut seen: BTreeMap<&TaskName, (Vec<Lifetime>, Vec<Lifetime>)> = BTreeMap::new();
        for (name, samples) in &self.samples {
            let ended = samples.iter().filter_map(|&(task, ms)| lifetime(task, ms));
            seen.entry(name).or_default().0.extend(ended);
        }
        for (task, since_ms, config) in course.running() {
            let expected = &self.expected[task as usize];
            let running = &mut seen.entry(&workflow.task(task).name).or_default().1;
            if config.is_some_and(|c| c.key() == expected.config.key()) && running.len() < RUNNING_MAX {
                running.extend(lifetime(task, now_ms - since_ms - expected.around_ms));
            }
        }
        let found = seen.into_iter().map(|(name, (ended, running))| (name, slowdown(&ended, &running)));
        let found = found.filter(|(_, factor)| (factor - 1.0).abs() >= SLOWDOWN_MIN);
        found.map(|(name, factor)| (name.clone(), factor)).collect()
    }

    /// These causes were looked into and are none any more. A drift stays one until something else is
    /// expected.
    pub fn told(&mut self, causes: &[Cause], course: &Course) {
        for cause in causes {
            match cause {
                Cause::Slow { at, elapsed_ms, .. } => {
                    if let Step::Leased { since_ms, .. } = course.step(*at) {
                        self.told_slow.insert((*at, since_ms.to_bits()), *elapsed_ms);
                    }
                }
                Cause::Decided { at, .. } => drop(self.told_decided.insert(*at)),
                Cause::Lost { count } => self.told_lost = *count,
                Cause::Skipped { count } => self.told_skipped = *count,
                Cause::Drift { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::Sla;
    use foresail_schemas::decision::DecisionForecast;
    use foresail_schemas::metric::{Forecast, StartState};
    use foresail_schemas::plan::Objective;
    use foresail_schemas::platform::Platform;
    use foresail_schemas::run::{Change, Commit, Measured, RunEvent};

    use super::*;
    use crate::builder::WorkflowBuilder;
    use crate::client::{plan, problem};

    /// Eight tasks of one type that take 1 s each, p95 2 s.
    fn planned() -> (Workflow, Plan) {
        let mut flow = WorkflowBuilder::new("w");
        for at in 0..8 {
            flow.task(format!("t{at}")).named("work").command("true");
        }
        let workflow = flow.build().unwrap();
        let platform = Platform::built_in().swap_remove(0);
        let mut table = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        table.exec_ms.iter_mut().for_each(|row| row.fill(1_000.0));
        let mut plan = plan("simple", &problem(&workflow, &platform, table, Objective::Fastest, 1)).unwrap();
        let forecast = Forecast::new([1_000.0, 1_800.0, 2_000.0, 3_000.0]);
        plan.tasks.iter_mut().for_each(|task| task.forecast = Some(forecast));
        (workflow, plan)
    }

    fn name() -> TaskName {
        TaskName::new("work").unwrap()
    }

    #[test]
    fn a_type_drifts_with_three_executions_that_are_a_fifth_off() {
        for (times_ms, ratio) in [
            (&[3_000.0, 3_000.0][..], None),
            (&[3_000.0, 3_000.0, 3_100.0], Some(3.0)),
            (&[1_190.0, 1_190.0, 1_190.0], None),
            (&[700.0, 750.0, 790.0], Some(0.75)),
            (&[1_000.0, 1_000.0, 90_000.0], None),
        ] {
            let (workflow, plan) = planned();
            let mut drift = Drift::new(&workflow, &plan);
            let config = plan.tasks[0].config;
            (0..).zip(times_ms).for_each(|(task, &ms)| drift.measured(&name(), task, config, ms));
            assert_eq!(drift.ratios().first().map(|(_, ratio, _)| *ratio), ratio, "{times_ms:?}");
            let mut slower = plan.clone();
            slower.tasks.iter_mut().for_each(|task| task.forecast = None);
            slower.tasks.iter_mut().for_each(|task| task.exec_ms = times_ms[0]);
            drift.expect(&slower);
            assert_eq!(drift.ratios(), [], "what is expected is no drift: {times_ms:?}");
        }
    }

    #[test]
    fn an_execution_at_another_size_says_nothing() {
        let (workflow, plan) = planned();
        let mut drift = Drift::new(&workflow, &plan);
        let other = ResourceConfig::new(plan.tasks[0].config.memory_mb * 2, None).unwrap();
        (0..5).for_each(|task| drift.measured(&name(), task, other, 9_000.0));
        assert_eq!(drift.ratios(), []);
    }

    #[test]
    fn what_is_too_short_to_matter_is_no_cause() {
        let (workflow, mut plan) = planned();
        plan.predicted.makespan_ms = 1e9;
        let mut drift = Drift::new(&workflow, &plan);
        (0..5).for_each(|task| drift.measured(&name(), task, plan.tasks[0].config, 3_000.0));
        assert_eq!(drift.ratios(), []);
    }

    #[test]
    fn a_task_past_its_p95_is_a_cause_once() {
        let (workflow, plan) = planned();
        let mut drift = Drift::new(&workflow, &plan);
        let mut course = Course::new(&workflow);
        let instance: foresail_schemas::InstanceId = "i-1".parse().unwrap();
        let config = plan.tasks[0].config;
        let joined = Change::WorkerJoined {
            worker: None,
            instance: instance.clone(),
            config,
            start: StartState::Cold,
        };
        let assuming = Vec::new();
        let leased =
            Change::TaskLeased { task: 3, attempt: 1, instance, epoch: 1, expires_ms: 1e9, assuming };
        for (seq, at_ms, change) in [(1, 0.0, joined), (2, 100.0, leased)] {
            course.apply(&RunEvent { seq, at_ms, change });
        }
        assert_eq!(drift.causes(&workflow, &course, 2_000.0), []);
        let causes = drift.causes(&workflow, &course, 1e6);
        assert!(matches!(causes[..], [Cause::Slow { at: 3, .. }]), "{causes:?}");
        drift.told(&causes, &course);
        assert_eq!(drift.causes(&workflow, &course, 1e6), []);
    }

    #[test]
    fn a_task_that_runs_on_is_a_cause_again_and_more_often_ever_later() {
        let (workflow, plan) = planned();
        let mut drift = Drift::new(&workflow, &plan);
        let mut course = Course::new(&workflow);
        let instance: foresail_schemas::InstanceId = "i-1".parse().unwrap();
        let assuming = Vec::new();
        let change =
            Change::TaskLeased { task: 3, attempt: 1, instance, epoch: 1, expires_ms: 1e9, assuming };
        course.apply(&RunEvent { seq: 1, at_ms: 0.0, change });
        let mut told_ms = Vec::new();
        for now_ms in (0..20_000).map(f64::from) {
            let causes = drift.causes(&workflow, &course, now_ms);
            if !causes.is_empty() {
                told_ms.push(now_ms);
                drift.told(&causes, &course);
            }
        }
        assert!(told_ms[0] < 2_500.0, "at its p95, with its transfers: {told_ms:?}");
        assert!(told_ms.windows(2).all(|pair| pair[1] >= 1.5 * pair[0]), "{told_ms:?}");
        assert!((3..9).contains(&told_ms.len()), "{told_ms:?}");
    }

    #[test]
    fn what_ended_in_time_keeps_one_that_lags_from_making_its_type_suspect() {
        let (workflow, plan) = planned();
        let mut course = Course::new(&workflow);
        let (config, instance) =
            (plan.tasks[0].config, "i-1".parse::<foresail_schemas::InstanceId>().unwrap());
        let start = StartState::Cold;
        let joined = Change::WorkerJoined { worker: None, instance: instance.clone(), config, start };
        let assuming = Vec::new();
        let leased =
            Change::TaskLeased { task: 7, attempt: 1, instance, epoch: 1, expires_ms: 1e9, assuming };
        for (seq, change) in [(1, joined), (2, leased)] {
            course.apply(&RunEvent { seq, at_ms: 0.0, change });
        }
        let alone = Drift::new(&workflow, &plan).slowdowns(&workflow, &course, 5_000.0);
        assert!(alone.first().is_some_and(|(_, factor)| *factor > 1.3), "{alone:?}");
        let mut drift = Drift::new(&workflow, &plan);
        (0..6).for_each(|task| drift.measured(&name(), task, config, 1_000.0));
        let beside = drift.slowdowns(&workflow, &course, 5_000.0);
        assert!(beside.first().is_none_or(|(_, factor)| *factor < 1.2), "{beside:?}");
    }

    #[test]
    fn a_decision_that_calls_more_than_expected_is_a_cause_once() {
        let place = |at: u32| {
            serde_json::json!({"id": format!("p{at}"), "name": "p", "run": "true",
                "when": {"task": "d", "above": at}})
        };
        let decider = serde_json::json!({"id": "d", "name": "d", "run": "true", "decision": "out"});
        let tasks: Vec<_> = [decider].into_iter().chain((0..4).map(place)).collect();
        let workflow: Workflow =
            serde_json::from_value(serde_json::json!({"name": "w", "tasks": tasks})).unwrap();
        let platform = Platform::built_in().swap_remove(0);
        let mut table = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        let two = DecisionForecast { width: Some(2), ..DecisionForecast::default() };
        table.decisions.insert("d".parse().unwrap(), two);
        let plan = plan("simple", &problem(&workflow, &platform, table, Objective::Fastest, 1)).unwrap();
        for (width, called) in [(1, None), (2, None), (3, Some(1)), (9, Some(2))] {
            let mut drift = Drift::new(&workflow, &plan);
            let mut course = Course::new(&workflow);
            let commit = Commit {
                printed: None,
                attempt: 1,
                instance: "i-1".parse().unwrap(),
                outputs: Vec::new(),
                measured: Measured::default(),
                decision: Some(Decision::Width(width)),
            };
            let change = Change::TaskCommitted { task: 0, commit };
            course.apply(&RunEvent { seq: 1, at_ms: 5.0, change });
            let causes = drift.causes(&workflow, &course, 6.0);
            let found = causes.first().map(|cause| match cause {
                Cause::Decided { called, .. } => *called,
                other => panic!("{other}"),
            });
            assert_eq!(found, called, "width {width}");
            assert_eq!(course.facts()["d"].width, Some(width));
            drift.told(&causes, &course);
            assert_eq!(drift.causes(&workflow, &course, 7.0), []);
        }
    }
}
