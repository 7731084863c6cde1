//! From an assignment and its times to the plan: workers by name, critical path, and the reasons in words.

use std::fmt::Write as _;

use foresail_schemas::id::WorkerId;
use foresail_schemas::plan::{Bounds, Objective, Plan, PlanSummary, PlannedTask, PlannedWorker};
use foresail_schemas::prediction::Basis;
use foresail_schemas::{TaskId, TaskName};

use crate::assignment::Assignment;
use crate::bounds::{self, Floor};
use crate::dense::{Dense, NONE};
use crate::extras::left_out;
use crate::objective::{in_words, missed};
use crate::passes::with_forced;
use crate::pool;
use crate::timing::Timed;

/// Most tasks of the critical path spelt out in the explanation.
const PATH_SHOWN_MAX: usize = 8;

/// Most optimisations named in the explanation that are forced and not carried out.
const LEFT_OUT_SHOWN_MAX: usize = 8;

/// Said where a probability is asked for and there are no distributions to tell one by.
pub(crate) const SPREAD_UNKNOWN: &str = "Nothing is known of how times spread, so nothing is said about any \
     probability. Run the workflow or import measurements, then plan again.";

/// Bytes that most reasons of tasks fit into.
const WHY_BYTES: usize = 112;

/// A candidate that was timed.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// What it is, in words: `uniform: 4 workers of 885 MB`.
    pub label: String,
    pub assignment: Assignment,
    pub timed: Timed,
}

/// How a plan was found.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// In words.
    pub reasons: Vec<String>,
    /// Of the plans that it was chosen from, the one that is best at what the objective limits.
    pub nearest: Option<PlanSummary>,
}

/// Writes the plan of the candidate that won.
pub(crate) fn write(
    dense: &Dense,
    planner: &str,
    candidate: &Candidate,
    floor: &Floor,
    story: Story,
) -> Plan {
    let by_worker = candidate.assignment.tasks_by_worker();
    let ids = worker_ids(dense, &candidate.assignment, &candidate.timed, &by_worker);
    write_named(dense, planner, candidate, floor, story, &ids)
}

/// The same with given names of the workers.
pub(crate) fn write_named(
    dense: &Dense,
    planner: &str,
    candidate: &Candidate,
    floor: &Floor,
    story: Story,
    ids: &[Option<WorkerId>],
) -> Plan {
    let forced = with_forced(dense, candidate);
    let candidate = forced.as_ref().unwrap_or(candidate);
    let (problem, summary) = (dense.problem, &candidate.timed.summary);
    let mut explanation = vec![format!(
        "`{planner}` looked for {} and took `{}`: {:.0} ms, {:.8} USD.",
        in_words(&problem.objective),
        candidate.label,
        summary.makespan_ms,
        summary.cost_usd
    )];
    explanation.extend(missed(&problem.objective, summary, floor.pair(), story.nearest.as_ref()));
    if let Objective::Deadline { makespan_ms } = problem.objective
        && floor.cost_by(dense, makespan_ms).is_finite()
    {
        let usd = floor.cost_by(dense, makespan_ms);
        explanation
            .push(format!("No plan that ends within {makespan_ms:.0} ms costs less than {usd:.8} USD."));
    }
    if matches!(problem.objective, Objective::Confidence { .. }) && problem.predictions.uncertainty.is_none()
    {
        explanation.push(SPREAD_UNKNOWN.to_owned());
    }
    explanation.extend(pool::in_words(dense));
    explanation.extend(story.reasons);
    let planner = TaskName::new(planner).expect("a planner's name is a legal name, which a test checks");
    assemble(dense, &planner, candidate, floor.pair(), explanation, ids, |_| None)
}

/// The plan of a candidate as it is: with these bounds, names of workers and sentences, to which those on
/// bounds, path and basis are added. What `reason` says of a task is why it is there.
pub(crate) fn assemble(
    dense: &Dense,
    planner: &TaskName,
    candidate: &Candidate,
    bounds: (f64, f64),
    mut explanation: Vec<String>,
    ids: &[Option<WorkerId>],
    reason: impl Fn(u32) -> Option<String>,
) -> Plan {
    let Candidate { assignment, timed, .. } = candidate;
    let path = critical_path(timed);
    let tasks = dense.problem.workflow.tasks();
    let ids_of = |w: u32| (w != NONE).then(|| ids[w as usize].clone()).flatten();
    let by_worker = assignment.tasks_by_worker();
    let whys = Why::new(dense, assignment, &by_worker);
    let mut words = String::with_capacity(WHY_BYTES);
    let mut optimizations = assignment.extras.listed(dense, &assignment.worker, &assignment.size);
    let planned = (0..dense.len()).map(|t| {
        let at = t as usize;
        PlannedTask {
            task: tasks[at].id.clone(),
            worker: ids_of(assignment.worker[at]),
            config: dense.size(assignment.size[at]).config,
            rank: assignment.rank[at],
            start_ms: timed.start_ms[at],
            end_ms: timed.end_ms[at],
            exec_ms: dense.code_ms(assignment.size[at], t),
            output_bytes: None,
            optimizations: optimizations.get_mut(at).map(std::mem::take).unwrap_or_default(),
            unexpected: false,
            why: reason(t).unwrap_or_else(|| whys.of(t, &mut words)),
            forecast: None,
        }
    });
    let problem = dense.problem;
    let bounds = bounds::gap(bounds, &timed.summary);
    explanation.push(bounds_in_words(&bounds));
    explanation.push(path_in_words(dense, &path));
    explanation.push(basis_in_words(dense));
    explanation.extend(left_out_in_words(dense, assignment));
    let task_id = |t: &u32| -> TaskId { tasks[*t as usize].id.clone() };
    Plan {
        workflow: problem.workflow.name().clone(),
        planner: planner.clone(),
        seed: problem.seed,
        objective: problem.objective,
        sla: problem.predictions.sla,
        platform: problem.platform.name.clone(),
        model_epoch: problem.predictions.epoch,
        workers: workers(dense, assignment, timed, ids, &by_worker),
        tasks: planned.collect(),
        prewarms: assignment.extras.prewarms(dense),
        flexible: None,
        predicted: timed.summary,
        usage: timed.usage.clone(),
        outlook: None,
        bounds,
        critical_path: path.iter().map(task_id).collect(),
        explanation,
    }
}

/// Names in order of the first start; a worker without tasks gets none. Digits are padded, so that names
/// sort, and the pool's workers are told apart.
fn worker_ids(
    dense: &Dense,
    assignment: &Assignment,
    timed: &Timed,
    by_worker: &[Vec<u32>],
) -> Vec<Option<WorkerId>> {
    let mut order = Vec::new();
    let mut seen = vec![false; assignment.workers as usize];
    for life in timed.lives.iter().filter(|l| l.worker != NONE) {
        if !std::mem::replace(&mut seen[life.worker as usize], true) {
            order.push(life.worker);
        }
    }
    // Where copies are faster a run may end before a worker gets a place; it comes last.
    for &worker in assignment.worker.iter().filter(|&&w| w != NONE) {
        if !std::mem::replace(&mut seen[worker as usize], true) {
            order.push(worker);
        }
    }
    let digits = order.len().to_string().len();
    let mut ids = vec![None; assignment.workers as usize];
    for (at, &w) in order.iter().enumerate() {
        let is_pooled = by_worker[w as usize].first().is_some_and(|&t| dense.is_pooled(t));
        let kind = if is_pooled { "pool" } else { "w" };
        let id = WorkerId::new(format!("{kind}{:0digits$}", at + 1));
        ids[w as usize] = Some(id.expect("letters and digits are a legal name"));
    }
    ids
}

fn workers(
    dense: &Dense,
    assignment: &Assignment,
    timed: &Timed,
    ids: &[Option<WorkerId>],
    by_worker: &[Vec<u32>],
) -> Vec<PlannedWorker> {
    let mut sums: Vec<Option<PlannedWorker>> = vec![None; ids.len()];
    for life in timed.lives.iter().filter(|l| l.worker != NONE) {
        let w = life.worker as usize;
        let (Some(id), Some(&first)) = (&ids[w], by_worker[w].first()) else { continue };
        let config = dense.size(assignment.size[first as usize]).config;
        let sum = sums[w].get_or_insert_with(|| PlannedWorker {
            id: id.clone(),
            config,
            start_ms: life.start_ms,
            end_ms: life.end_ms,
            cost_usd: 0.0,
        });
        sum.end_ms = sum.end_ms.max(life.end_ms);
        sum.cost_usd += life.cost_usd;
    }
    for ((sum, id), tasks) in sums.iter_mut().zip(ids).zip(by_worker) {
        if let (None, Some(id), Some(&first)) = (&sum, id, tasks.first()) {
            let (config, ms) =
                (dense.size(assignment.size[first as usize]).config, timed.summary.makespan_ms);
            *sum = Some(PlannedWorker { id: id.clone(), config, start_ms: ms, end_ms: ms, cost_usd: 0.0 });
        }
    }
    let mut listed: Vec<PlannedWorker> = sums.into_iter().flatten().collect();
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    listed
}

/// The chain of tasks that decides the makespan, first to last: each began when the one before it was done.
pub(crate) fn critical_path(timed: &Timed) -> Vec<u32> {
    let ends = timed.end_ms.iter().enumerate();
    let last = ends.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0))).map(|(t, _)| t as u32);
    let mut path: Vec<u32> = Vec::new();
    let mut at = last.unwrap_or(NONE);
    while at != NONE && path.len() < timed.end_ms.len() {
        path.push(at);
        at = timed.cause[at as usize];
    }
    path.reverse();
    path
}

pub(crate) fn bounds_in_words(bounds: &Bounds) -> String {
    format!(
        "No plan takes less than {:.0} ms or costs less than {:.8} USD: this is {:.2} and {:.2} times that.",
        bounds.makespan_ms, bounds.cost_usd, bounds.makespan_ratio, bounds.cost_ratio
    )
}

pub(crate) fn path_in_words(dense: &Dense, path: &[u32]) -> String {
    let id = |t: &u32| format!("`{}`", dense.problem.workflow.task(*t).id);
    let names: Vec<String> = match path.len() {
        len if len <= PATH_SHOWN_MAX => path.iter().map(id).collect(),
        len => {
            let half = PATH_SHOWN_MAX / 2;
            let left_out = vec![format!("({} more)", len - 2 * half)];
            let (head, tail) = (path[..half].iter().map(id), path[len - half..].iter().map(id));
            head.chain(left_out).chain(tail).collect()
        }
    };
    format!("The makespan is decided by {}.", names.join(", "))
}

fn basis_in_words(dense: &Dense) -> String {
    let basis = &dense.problem.predictions.basis;
    let count = |b: Basis| basis.iter().filter(|x| **x == b).count();
    let sla = dense.problem.predictions.sla;
    if dense.is_blind() {
        return format!(
            "Nothing of this workflow was measured yet: all times ({sla}) are hints or assumptions."
        );
    }
    let named = [
        (Basis::Exact, "measured at this memory"),
        (Basis::MemoryNormalised, "fitted over memory"),
        (Basis::Pooled, "pooled over memory"),
        (Basis::Prior, "borrowed from other workflows"),
        (Basis::None, "assumed"),
    ];
    let parts: Vec<String> = named
        .iter()
        .filter(|(b, _)| count(*b) > 0)
        .map(|(b, text)| format!("{} {text}", count(*b)))
        .collect();
    format!(
        "Times are predictions ({sla}) of model epoch {}: tasks {}.",
        dense.problem.predictions.epoch,
        parts.join(", ")
    )
}

/// What the workflow forces and the plan cannot carry out; nothing where there is no such thing.
fn left_out_in_words(dense: &Dense, assignment: &Assignment) -> Option<String> {
    let tasks = if dense.forces() { 0..dense.len() } else { 0..0 };
    let told = tasks.flat_map(|t| {
        let id = &dense.problem.workflow.task(t).id;
        left_out(dense, t, &assignment.extras.warmings, |t| assignment.place(t))
            .map(move |(kind, why)| format!("{} of `{id}` ({why})", kind.as_str()))
    });
    let told: Vec<String> = told.collect();
    let more = match told.len().saturating_sub(LEFT_OUT_SHOWN_MAX) {
        0 => String::new(),
        more => format!(", and {more} more, as their tasks say"),
    };
    let shown = told[..told.len().min(LEFT_OUT_SHOWN_MAX)].join(", ");
    (!told.is_empty()).then(|| format!("Forced and not carried out: {shown}{more}."))
}

/// Why tasks are where they are. The words for sizes are found once: they are the same for most tasks.
struct Why<'c> {
    dense: &'c Dense<'c>,
    assignment: &'c Assignment,
    by_worker: &'c [Vec<u32>],
    sizes: Vec<String>,
}

impl<'c> Why<'c> {
    fn new(dense: &'c Dense<'c>, assignment: &'c Assignment, by_worker: &'c [Vec<u32>]) -> Self {
        let sizes = dense.sizes.iter().map(|size| size.config.to_string()).collect();
        Self { dense, assignment, by_worker, sizes }
    }

    /// One sentence, written into `words` first: a copy of it takes no more memory than it needs.
    fn of(&self, task: u32, words: &mut String) -> String {
        words.clear();
        self.push_all(words, task);
        words.as_str().to_owned()
    }

    fn push_all(&self, words: &mut String, task: u32) {
        let (dense, size) = (self.dense, self.sizes[self.assignment.size[task as usize] as usize].as_str());
        let worker = self.assignment.worker[task as usize];
        if worker == NONE {
            words.extend(["any worker of ", size, " may take it when it is ready"]);
        } else if dense.is_pooled(task) {
            words.extend([pool::reason(dense, task).as_str(), ", so it runs in the pool; ", size]);
        } else {
            self.push_place(words, worker, task);
            words.extend(["; ", size]);
        }
        let needed_mb = dense.memory_mb_min[task as usize];
        if needed_mb > 0 && !dense.is_pooled(task) {
            push(words, format_args!("; it needs {needed_mb} MB"));
        }
        for (kind, why) in
            left_out(dense, task, &self.assignment.extras.warmings, |t| self.assignment.place(t))
        {
            push(words, format_args!("; {} is forced and not carried out: {why}", kind.as_str()));
        }
    }

    fn push_place(&self, words: &mut String, worker: u32, task: u32) {
        let is_here = |&(_, maker): &(u64, u32)| self.assignment.worker[maker as usize] == worker;
        let reads = self.dense.stored_reads(task).iter();
        let made =
            reads.filter_map(|&o| self.dense.maker(o).map(|maker| (self.dense.object_bytes(o), maker)));
        let others = self.by_worker[worker as usize].len() - 1;
        match made.filter(is_here).max() {
            Some((bytes, maker)) => {
                let maker = self.dense.problem.workflow.task(maker).id.as_str();
                push(words, format_args!("its worker holds {bytes} bytes of its input, made by `"));
                words.extend([maker, "`"]);
            }
            None if others == 0 => words.push_str("alone on its worker, beside whatever else is ready"),
            None => {
                push(words, format_args!("shares its worker with {others} others instead of starting one"))
            }
        }
    }
}

fn push(words: &mut String, what: std::fmt::Arguments) {
    words.write_fmt(what).expect("a string takes everything");
}
