//! The part of a problem that is expected to run, and the way from its plan to a plan of the whole.
//!
//! A part is closed: what its tasks cannot run without is in it. Inputs that they can run without are left
//! out with the tasks that make them, and conditions become dependencies: whoever plans or simulates a part
//! sees a workflow in which nothing is decided. Every task that is not in the part is placed beside one that
//! is: the task whose place in the fan-out it would take, or what decides that it does not run. So it shares
//! a worker whose size suits it, comes behind that task and all that it waits for, and costs nothing as long
//! as it is skipped.

use std::collections::{HashMap, HashSet};

use foresail_schemas::decision::{Condition, Wanted};
use foresail_schemas::optimization::Optimization;
use foresail_schemas::plan::{Objective, Plan, PlannedTask, PlannedWorker, PredictionTable, Problem};
use foresail_schemas::workflow::{Input, WorkflowSpec};
use foresail_schemas::{ResourceConfig, TaskId, WorkerId, Workflow};

use super::{called, expected, has_conditions, has_needs, is_expected};
use crate::decisions;
use crate::dense::{Dense, NONE};
use crate::progress::{Progress, TaskProgress};
use crate::simulate::Simulated;

/// Deciders that an explanation names.
const NAMED_MAX: usize = 3;

/// A part of a problem.
#[derive(Debug)]
pub(crate) struct Part {
    /// The problem of the tasks in the part.
    pub problem: Problem,
    /// Places in the whole, by place in the part.
    pub tasks: Vec<u32>,
    /// Places in the part, by place in the whole; [`NONE`] for what is not in it.
    pub places: Vec<u32>,
    /// Objects of the whole, by object of the part.
    pub objects: Vec<u32>,
}

impl Part {
    /// What is expected by what is predicted to be decided; nothing where nothing is decided.
    pub fn of_decisions(problem: &Problem) -> Option<Self> {
        if !has_conditions(&problem.workflow) {
            return None;
        }
        let is_in = decisions::planned_for(problem);
        // Where a probability is asked for, decisions are drawn of the part as well.
        let draws = matches!(problem.objective, Objective::Confidence { .. });
        Self::with(problem, &is_in, |when| draws && decisions::is_drawn(&problem.predictions, when))
    }

    /// What is expected where more stays, as it may come all the same; nothing where that is all.
    pub fn of_expected(problem: &Problem) -> Option<Self> {
        let is_in = expected(&problem.workflow, &problem.predictions.decisions);
        if is_in.iter().all(|is_in| *is_in) { None } else { Self::of(problem, &is_in) }
    }

    /// What a plan expects; nothing where nothing is decided, or where it is no plan of this workflow.
    pub fn of_plan(problem: &Problem, plan: &Plan) -> Option<Self> {
        let workflow = &problem.workflow;
        if !has_conditions(workflow) || plan.tasks.len() != workflow.tasks().len() {
            return None;
        }
        Self::of(problem, &called(workflow, |t, _| !plan.tasks[t as usize].unexpected))
    }

    /// The tasks of which `is_in` is true; nothing where the tables are not those of the workflow, which
    /// whoever plans the whole will say.
    pub fn of(problem: &Problem, is_in: &[bool]) -> Option<Self> {
        Self::with(problem, is_in, |_| false)
    }

    /// The same, in which these conditions stay.
    fn with(problem: &Problem, is_in: &[bool], stays: impl Fn(&Condition) -> bool) -> Option<Self> {
        let (workflow, table) = (&problem.workflow, &problem.predictions);
        if !fits(workflow, table) {
            return None;
        }
        let mut places = vec![NONE; is_in.len()];
        let tasks: Vec<u32> = (0..).zip(is_in).filter(|(_, is_in)| **is_in).map(|(t, _)| t).collect();
        (0..).zip(&tasks).for_each(|(place, &t)| places[t as usize] = place);
        let reduced = reduced(workflow, &tasks, &places, stays);
        let objects = objects(workflow, &reduced, &tasks, &places);
        let predictions = narrowed(table, &tasks, &objects);
        let problem = Problem {
            workflow: reduced,
            platform: problem.platform.clone(),
            predictions,
            objective: problem.objective,
            seed: problem.seed,
            without: problem.without.clone(),
        };
        Some(Self { problem, tasks, places, objects })
    }

    /// What is expected of a run that is under way: what has begun, and what is likely of the rest; nothing
    /// where nothing is decided.
    pub fn of_progress(problem: &Problem, progress: &Progress) -> Option<Self> {
        let workflow = &problem.workflow;
        if !has_conditions(workflow) || progress.tasks.len() != workflow.tasks().len() {
            return None;
        }
        let mut is_in = vec![true; progress.tasks.len()];
        for &t in workflow.graph().order() {
            is_in[t as usize] = match progress.tasks[t as usize] {
                TaskProgress::Leased { .. } | TaskProgress::Done { .. } => {
                    if !has_needs(workflow, workflow.task(t), |p| is_in[p as usize]) {
                        // It began before what it needs: whoever looks at the whole says so.
                        return None;
                    }
                    true
                }
                TaskProgress::Skipped => false,
                TaskProgress::Open => is_expected(workflow, &problem.predictions.decisions, t, &is_in),
            };
        }
        Self::of(problem, &is_in)
    }

    /// The state of the whole without what is not in the part.
    pub fn narrow_progress(&self, progress: &Progress) -> Progress {
        let mut progress = progress.clone();
        progress.tasks = self.tasks.iter().map(|&t| progress.tasks[t as usize].clone()).collect();
        let places: HashMap<u32, u32> = self.objects.iter().copied().zip(0..).collect();
        for worker in &mut progress.workers {
            worker.objects = worker.objects.iter().filter_map(|o| places.get(o).copied()).collect();
        }
        progress
    }

    /// The state of the whole that stands as `progress`, of the part, does.
    pub fn widen_progress(&self, mut progress: Progress) -> Progress {
        let mut tasks = vec![TaskProgress::Open; self.places.len()];
        self.tasks.iter().zip(progress.tasks).for_each(|(&t, task)| tasks[t as usize] = task);
        for worker in &mut progress.workers {
            worker.objects.iter_mut().for_each(|o| *o = self.objects[*o as usize]);
        }
        Progress { tasks, ..progress }
    }

    /// The times of the whole that was carried out as `done`, the part, was; the rest has those of `plan`.
    pub fn widen_times(&self, plan: &Plan, done: Simulated) -> Simulated {
        let planned = plan.tasks.iter().map(|task| (task.start_ms, task.end_ms));
        let (mut start_ms, mut end_ms): (Vec<f64>, Vec<f64>) = planned.unzip();
        for (place, &t) in self.tasks.iter().enumerate() {
            (start_ms[t as usize], end_ms[t as usize]) = (done.start_ms[place], done.end_ms[place]);
        }
        Simulated { start_ms, end_ms, ..done }
    }

    /// The plan of the whole without what is not in the part.
    pub fn narrow(&self, plan: &Plan) -> Plan {
        let kept = |&t: &u32| PlannedTask { unexpected: false, ..plan.tasks[t as usize].clone() };
        let graph = self.problem.workflow.graph();
        let mut narrow = Plan { tasks: self.tasks.iter().map(kept).collect(), ..plan.clone() };
        let is_in = |id: &TaskId| graph.find(id).is_some();
        narrow.prewarms.retain(|warming| is_in(&warming.serves) && warming.after.as_ref().is_none_or(is_in));
        narrow.critical_path.retain(is_in);
        narrow
    }

    /// The plan of the whole that goes as `plan`, of the part, does, with what is not expected beside it.
    pub fn widen(&self, whole: &Dense, plan: Plan) -> Plan {
        let workflow = &whole.problem.workflow;
        let beside = self.beside(workflow);
        let lives = plan.workers.iter().map(|w| (w.id.clone(), (w.start_ms, w.end_ms)));
        let lives: HashMap<WorkerId, (f64, f64)> = lives.collect();
        let mut workers = plan.workers;
        let mut tasks: Vec<PlannedTask> = Vec::with_capacity(beside.len());
        for (t, task) in (0..).zip(workflow.tasks()) {
            let place = self.places[t as usize];
            if place != NONE {
                tasks.push(plan.tasks[place as usize].clone());
                continue;
            }
            let like = &plan.tasks[self.places[beside[t as usize] as usize] as usize];
            let (worker, config) = where_it_fits(whole, t, like, &mut workers);
            let can_be = |o: &Optimization| match o {
                Optimization::PreLoad => worker.is_some(),
                Optimization::Custom { .. } => true,
                Optimization::TaskDup | Optimization::PreWarm => false,
            };
            let optimizations = task.optimizations.iter().filter(|o| can_be(o)).cloned().collect();
            // A copy may have run elsewhere, and then does not end in the life of this worker.
            let life = worker.as_ref().and_then(|id| lives.get(id));
            let at_ms = life.map_or(like.end_ms, |(from, to)| like.end_ms.clamp(*from, *to));
            let output_bytes = like.output_bytes.map(|_| written_bytes(whole, t));
            tasks.push(PlannedTask {
                task: task.id.clone(),
                worker,
                config,
                rank: 0,
                start_ms: at_ms,
                end_ms: at_ms,
                exec_ms: 0.0,
                forecast: None,
                output_bytes,
                optimizations,
                unexpected: true,
                why: format!("it is not expected to run; if it does, then where `{}` does", like.task),
            });
        }
        self.rank(workflow, &beside, &mut tasks);
        let mut explanation = plan.explanation;
        explanation.extend(self.in_words(workflow));
        Plan { workers, tasks, explanation, ..plan }
    }

    /// Per task that is not in the part the one that it is placed beside; of the others themselves.
    fn beside(&self, workflow: &Workflow) -> Vec<u32> {
        let graph = workflow.graph();
        let mut fans: HashMap<(&str, &str), Vec<(u64, u32)>> = HashMap::new();
        for &t in &self.tasks {
            let task = workflow.task(t);
            if let Some(when) = &task.when
                && let Wanted::Above(place) = when.wanted
            {
                fans.entry((when.task.as_str(), task.name.as_str())).or_default().push((place, t));
            }
        }
        fans.values_mut().for_each(|fan| fan.sort_unstable());
        let mut beside: Vec<u32> = (0..graph.len() as u32).collect();
        for &t in graph.order().iter().filter(|t| self.places[**t as usize] == NONE) {
            let task = workflow.task(t);
            let place = match task.when.as_ref().map(|when| &when.wanted) {
                Some(Wanted::Above(place)) => *place as usize,
                _ => 0,
            };
            let fan = task.when.as_ref().and_then(|when| fans.get(&(when.task.as_str(), task.name.as_str())));
            let parents = graph.parents(t);
            let skipped = parents.iter().find(|p| self.places[**p as usize] == NONE).copied();
            let decider = task.when.as_ref().and_then(|when| graph.find(&when.task));
            // What follows a task of a fan-out goes where the same follows the task that it is placed beside.
            let alike = |parent: u32| {
                let (parent_task, like) = (workflow.task(parent), beside[parent as usize]);
                let is_like = workflow.task(like).name == parent_task.name;
                let next = graph.children(like).iter().copied();
                let next =
                    next.filter(|c| self.places[*c as usize] != NONE && workflow.task(*c).name == task.name);
                let next: Vec<u32> = if is_like { next.collect() } else { Vec::new() };
                (!next.is_empty()).then(|| next[place % next.len()])
            };
            let found = match (fan, skipped) {
                (Some(fan), _) if matches!(task.when.as_ref().map(|w| &w.wanted), Some(Wanted::Above(_))) => {
                    Some(fan[place % fan.len()].1)
                }
                (_, Some(parent)) => alike(parent).or(Some(beside[parent as usize])),
                _ => decider.map(|decider| beside[decider as usize]),
            };
            // Whatever is left out waits for a task that is, or for one that decides.
            beside[t as usize] = found.unwrap_or_else(|| self.tasks[0]);
        }
        beside
    }

    /// Numbers all anew: those in the part keep their order, the others come behind the task that they are
    /// placed beside and behind all that they wait for.
    fn rank(&self, workflow: &Workflow, beside: &[u32], tasks: &mut [PlannedTask]) {
        let graph = workflow.graph();
        let mut behind: Vec<u32> = tasks.iter().map(|task| task.rank).collect();
        let mut order: Vec<(u32, bool, u32, u32)> = Vec::with_capacity(tasks.len());
        for (turn, &t) in (0..).zip(graph.order()) {
            let is_left_out = self.places[t as usize] == NONE;
            if is_left_out {
                let others = graph.parents(t).iter().map(|&p| behind[p as usize]);
                behind[t as usize] = others.fold(behind[beside[t as usize] as usize], u32::max);
            }
            order.push((behind[t as usize], is_left_out, if is_left_out { turn } else { t }, t));
        }
        order.sort_unstable();
        (0..).zip(order).for_each(|(rank, (.., t))| tasks[t as usize].rank = rank);
    }

    fn in_words(&self, workflow: &Workflow) -> Option<String> {
        let mut deciders: Vec<&str> = Vec::new();
        let mut left_out = 0;
        for (t, task) in workflow.tasks().iter().enumerate() {
            if self.places[t] != NONE {
                continue;
            }
            left_out += 1;
            if let Some(when) = &task.when
                && !deciders.contains(&when.task.as_str())
                && deciders.len() <= NAMED_MAX
            {
                deciders.push(when.task.as_str());
            }
        }
        if left_out == 0 {
            return None;
        }
        let more = if deciders.len() > NAMED_MAX { " and others" } else { "" };
        let named: Vec<String> = deciders.iter().take(NAMED_MAX).map(|id| format!("`{id}`")).collect();
        Some(format!(
            "{left_out} of {} tasks are not expected to run, by what {}{more} is predicted to decide; they \
             are placed beside those that are",
            workflow.tasks().len(),
            named.join(", "),
        ))
    }
}

/// Whether a table has a value for everything.
fn fits(workflow: &Workflow, table: &PredictionTable) -> bool {
    let (tasks, graph) = (workflow.tasks().len(), workflow.graph());
    let uncertain = table.uncertainty.as_ref().is_none_or(|u| {
        u.exec.iter().all(|row| row.len() == tasks) && (u.samples.is_empty() || u.samples.len() == tasks)
    });
    uncertain
        && table.exec_ms.iter().all(|row| row.len() == tasks)
        && table.basis.len() == tasks
        && table.object_bytes.len() == graph.objects().len()
}

fn reduced(
    workflow: &Workflow,
    tasks: &[u32],
    places: &[u32],
    stays: impl Fn(&Condition) -> bool,
) -> Workflow {
    let conditions = tasks.iter().filter_map(|&t| workflow.task(t).when.as_ref());
    let deciders: HashSet<&TaskId> = conditions.filter(|when| stays(when)).map(|when| &when.task).collect();
    let is_kept = |input: &Input| match input {
        Input::Task { task, .. } => {
            workflow.graph().find(task).is_some_and(|parent| places[parent as usize] != NONE)
        }
        Input::External { .. } | Input::Value { .. } => true,
    };
    let kept = |&t: &u32| {
        let mut task = workflow.task(t).clone();
        task.inputs.retain(is_kept);
        // All that is in the part runs, so a condition that does not stay is a dependency like any other.
        if task.when.as_ref().is_some_and(|when| !stays(when)) {
            task.after.extend(task.when.take().map(|when| when.task));
        }
        if !deciders.contains(&task.id) {
            task.decision = None;
        }
        task
    };
    let WorkflowSpec { name, description, code, .. } = workflow.spec();
    let tasks = tasks.iter().map(kept).collect();
    WorkflowSpec { name: name.clone(), description: description.clone(), tasks, code: code.clone() }
        .check()
        .expect("a part of a workflow that has what its tasks need is one too")
}

/// Objects of the whole by object of the part: what a task reads and writes stands in the same order in both.
fn objects(whole: &Workflow, part: &Workflow, tasks: &[u32], places: &[u32]) -> Vec<u32> {
    let (all, graph) = (whole.graph(), part.graph());
    let mut objects = vec![NONE; graph.objects().len()];
    let is_made = |&&o: &&u32| {
        all.objects()[o as usize].producer.is_none_or(|producer| places[producer as usize] != NONE)
    };
    for (place, &t) in (0..).zip(tasks) {
        let reads = graph.reads(place).iter().zip(all.reads(t).iter().filter(is_made));
        let writes = graph.writes(place).iter().zip(all.writes(t));
        reads.chain(writes).for_each(|(&o, &whole)| objects[o as usize] = whole);
    }
    objects
}

fn narrowed(table: &PredictionTable, tasks: &[u32], objects: &[u32]) -> PredictionTable {
    fn kept<T: Clone>(row: &[T], places: &[u32]) -> Vec<T> {
        places.iter().map(|&at| row[at as usize].clone()).collect()
    }
    let uncertainty = table.uncertainty.clone().map(|mut uncertainty| {
        uncertainty.exec.iter_mut().for_each(|row| *row = kept(row, tasks));
        if !uncertainty.samples.is_empty() {
            uncertainty.samples = kept(&uncertainty.samples, tasks);
        }
        uncertainty
    });
    PredictionTable {
        sla: table.sla,
        epoch: table.epoch,
        configs: table.configs.clone(),
        exec_ms: table.exec_ms.iter().map(|row| kept(row, tasks)).collect(),
        object_bytes: kept(&table.object_bytes, objects),
        transfer: table.transfer.clone(),
        startup: table.startup.clone(),
        engine: table.engine.clone(),
        basis: kept(&table.basis, tasks),
        warm: table.warm.clone(),
        uncertainty,
        decisions: table.decisions.clone(),
    }
}

fn written_bytes(whole: &Dense, task: u32) -> u64 {
    whole.graph.writes(task).iter().map(|&o| whole.object_bytes(o)).sum()
}

/// The place of `like`, or where its size does not suit the task another that does.
fn where_it_fits(
    whole: &Dense,
    task: u32,
    like: &PlannedTask,
    workers: &mut Vec<PlannedWorker>,
) -> (Option<WorkerId>, ResourceConfig) {
    let allowed =
        |config: &ResourceConfig| whole.size_of(config).is_some_and(|size| whole.allows(size, task));
    if allowed(&like.config) {
        return (like.worker.clone(), like.config);
    }
    let others = whole.sizes.iter().map(|size| size.config);
    // Every problem that is one has a size for each of its tasks.
    let config = others.into_iter().find(allowed).unwrap_or(like.config);
    if !whole.is_pooled(task) {
        return (None, config);
    }
    if let Some(worker) = workers.iter().find(|w| w.config.key() == config.key()) {
        return (Some(worker.id.clone()), config);
    }
    let names = (1..).map(|n| format!("pool{n}")).filter_map(|name| WorkerId::new(name).ok());
    let mut free = names.into_iter().filter(|id| workers.iter().all(|w| w.id != *id));
    let id = free.next().expect("there are more numbers than workers");
    drop(free);
    let (start_ms, end_ms) = (like.end_ms, like.end_ms);
    workers.push(PlannedWorker { id: id.clone(), config, start_ms, end_ms, cost_usd: 0.0 });
    (Some(id), config)
}
