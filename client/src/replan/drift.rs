//! Whether a run goes as its plan says: what was expected of each task beside what was measured. Pure.
//!
//! Looked for are tasks that run longer than their p95, types of tasks that take another time than
//! predicted, workers that are lost, and tasks that others decided to skip. What cannot move the makespan by
//! [`SHARE_MIN`] is no cause, as one task of twenty passes its p95 in any run. Times in ms.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::plan::Plan;
use foresail_schemas::{TaskId, TaskName, Workflow};

use super::course::{Course, Step};
use crate::units;

/// Least deviation of a type of tasks from its prediction, as a part of it.
pub const DRIFT_MIN: f64 = 0.2;
/// Fewest executions that show it.
pub const SAMPLES_MIN: usize = 3;
/// Executions of a type that are looked at: the newest.
const SAMPLES_MAX: usize = 16;
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
            Self::Lost { count } => write!(f, "{count} workers were lost"),
            Self::Skipped { count } => write!(f, "{count} tasks are skipped, as was decided"),
        }
    }
}

/// What is expected of one task.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    config: ResourceConfig,
    exec_ms: f64,
    /// With the time that the plan gives its transfers.
    p95_ms: Option<f64>,
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
    /// Running tasks, by the time they were taken, that were a cause already.
    told_slow: HashSet<(u32, u64)>,
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
            told_slow: HashSet::new(),
            told_lost: 0,
            told_skipped: 0,
        };
        drift.expect(plan);
        drift
    }

    /// From now on this plan says what is expected, of tasks with a result too.
    pub fn expect(&mut self, plan: &Plan) {
        let expected = plan.tasks.iter().map(|task| {
            let around_ms = (task.end_ms - task.start_ms - task.exec_ms).max(0.0);
            Expected {
                config: task.config,
                exec_ms: task.forecast.map_or(task.exec_ms, |f| f.median_ms),
                p95_ms: task.forecast.map(|f| f.p95_ms + around_ms),
            }
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
        for (at, since_ms) in course.running() {
            let expected = &self.expected[at as usize];
            let Some(p95_ms) = expected.p95_ms else { continue };
            let elapsed_ms = now_ms - since_ms;
            let beyond_ms = elapsed_ms - p95_ms.max(expected.exec_ms);
            let is_new = !self.told_slow.contains(&(at, since_ms.to_bits()));
            if beyond_ms > SHARE_MIN * self.makespan_ms && is_new {
                let task = workflow.task(at).id.clone();
                causes.push(Cause::Slow { task, at, elapsed_ms, p95_ms });
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

    /// These causes were looked into and are none any more. A drift stays one until something else is
    /// expected.
    pub fn told(&mut self, causes: &[Cause], course: &Course) {
        for cause in causes {
            match cause {
                Cause::Slow { at, .. } => {
                    if let Step::Leased { since_ms, .. } = course.step(*at) {
                        self.told_slow.insert((*at, since_ms.to_bits()));
                    }
                }
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
    use foresail_schemas::metric::{Forecast, StartState};
    use foresail_schemas::plan::Objective;
    use foresail_schemas::platform::Platform;
    use foresail_schemas::run::{Change, RunEvent};

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
}
