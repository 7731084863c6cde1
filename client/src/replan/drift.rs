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

use super::course::{Course, Running, Step};
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
const SLOW_AGAIN: f64 = 1.25;
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
        /// How long its worker has run it.
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
            Self::Lost { count: 1 } => write!(f, "a worker was lost"),
            Self::Lost { count } => write!(f, "{count} workers were lost"),
            Self::Skipped { count: 1 } => write!(f, "a task is skipped, as was decided"),
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
    /// Running tasks, by the time they were begun, that were a cause already, and after which time.
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
        for Running { task: at, since_ms, known_ms, .. } in course.running(now_ms) {
            let expected = &self.expected[at as usize];
            let Some(p95_ms) = expected.p95_ms.map(|p95_ms| p95_ms + expected.around_ms) else { continue };
            let elapsed_ms = known_ms - since_ms;
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
        for Running { task, since_ms, known_ms, config } in course.running(now_ms) {
            let expected = &self.expected[task as usize];
            let running = &mut seen.entry(&workflow.task(task).name).or_default().1;
            if config.is_some_and(|c| c.key() == expected.config.key()) && running.len() < RUNNING_MAX {
                running.extend(lifetime(task, known_ms - since_ms - expected.around_ms));
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
                    if let Step::Leased { begun_ms: Some(ms), .. } = course.step(*at) {
                        self.told_slow.insert((*at, ms.to_bits()), *elapsed_ms);
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
mod tests;
