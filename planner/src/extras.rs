//! What is done beside running the tasks: pre-load and task-dup per task, workers started beforehand, and
//! optimisations of the user's own, which are carried along.
//!
//! The columns are empty where nothing is done, so that a plan without optimisations costs nothing.

use foresail_schemas::TaskId;
use foresail_schemas::optimization::{Optimization, OptimizationKind, PreWarming};
use foresail_schemas::plan::Plan;

use crate::dense::{Dense, NONE};
use crate::draft::DraftFailure;
use crate::error::SimulationFailure;

/// The planned worker of the task downloads its inputs as soon as they exist.
pub(crate) const PRE_LOAD: u8 = 1;
/// A planned worker that waits for the task may run it too.
pub(crate) const TASK_DUP: u8 = 2;
/// A worker is started beforehand for the task; only in what the workflow forces.
pub(crate) const PRE_WARM: u8 = 4;

/// Why nothing is done on the worker of a task.
const UNPLANNED: &str = "the task has no planned worker";

/// Why no worker is started beforehand for a task.
const ALREADY_RUNS: &str = "its worker runs already, started beforehand for another task";

/// A worker that is started beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Warming {
    pub size: u32,
    /// The clock begins when this task begins, or with the run where it is [`NONE`].
    pub after: u32,
    pub delay_ms: f64,
    /// The task whose worker shall start warm.
    pub serves: u32,
}

/// What is done beside running the tasks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Extras {
    /// [`PRE_LOAD`] and [`TASK_DUP`] per task; empty: none of any.
    flags: Vec<u8>,
    pub warmings: Vec<Warming>,
    /// The user's own, in order of the tasks.
    pub customs: Vec<(u32, Optimization)>,
}

impl Extras {
    /// The flags of a task.
    pub fn flags(&self, task: u32) -> u8 {
        self.flags.get(task as usize).copied().unwrap_or(0)
    }

    /// Whether any task has `flag`.
    pub fn have(&self, flag: u8) -> bool {
        self.flags.iter().any(|flags| flags & flag != 0)
    }

    /// Gives `flag` to a task, one of `tasks`.
    pub fn give(&mut self, task: u32, flag: u8, tasks: u32) {
        if self.flags.is_empty() {
            self.flags.resize(tasks as usize, 0);
        }
        self.flags[task as usize] |= flag;
    }

    /// Takes `flag` from all tasks.
    pub fn take_all(&mut self, flag: u8) {
        self.flags.iter_mut().for_each(|flags| *flags &= !flag);
        if self.flags.iter().all(|&flags| flags == 0) {
            self.flags.clear();
        }
    }

    /// Becomes a copy of `other` in the memory that it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.flags.clone_from(&other.flags);
        self.warmings.clone_from(&other.warmings);
        self.customs.clone_from(&other.customs);
    }

    /// Sets down an optimisation of a task; a pre-warming is none of its own, the plan lists those apart.
    pub fn note(&mut self, task: u32, optimization: &Optimization, tasks: u32) {
        match optimization {
            Optimization::PreLoad => self.give(task, PRE_LOAD, tasks),
            Optimization::TaskDup => self.give(task, TASK_DUP, tasks),
            Optimization::PreWarm => {}
            Optimization::Custom { .. } => self.customs.push((task, optimization.clone())),
        }
    }

    /// What a plan says.
    pub fn of_plan(dense: &Dense, plan: &Plan) -> Result<Self, SimulationFailure> {
        let mut extras = Self::default();
        for (t, task) in (0..).zip(&plan.tasks) {
            task.optimizations.iter().for_each(|o| extras.note(t, o, dense.len()));
        }
        extras.set_warmings(dense, &plan.prewarms).map_err(SimulationFailure::PreWarm)?;
        Ok(extras)
    }

    /// Takes over the workers that are started beforehand.
    pub fn set_warmings(&mut self, dense: &Dense, warmings: &[PreWarming]) -> Result<(), DraftFailure> {
        self.warmings.clear();
        for warming in warmings {
            self.warmings.push(warming_of(dense, warming)?);
        }
        Ok(())
    }

    /// The optimisations of every task as the plan lists them: those that are set and those that the
    /// workflow forces, wherever they can be carried out. Empty: no task has any.
    pub fn listed(&self, dense: &Dense, worker: &[u32], size: &[u32]) -> Vec<Vec<Optimization>> {
        if *self == Self::default() && !dense.forces() {
            return Vec::new();
        }
        let mut listed = vec![Vec::new(); dense.len() as usize];
        for (t, listed) in (0..).zip(&mut listed) {
            let flags = self.flags(t) | dense.forced_flags(t);
            if flags & PRE_LOAD != 0 && worker[t as usize] != NONE {
                *listed = vec![Optimization::PreLoad];
            }
            let place = |t: u32| (worker[t as usize], size[t as usize]);
            if flags & TASK_DUP != 0 && may_be_copied(dense, t, place) {
                listed.push(Optimization::TaskDup);
            }
        }
        for warming in &self.warmings {
            let listed = &mut listed[warming.serves as usize];
            if !listed.contains(&Optimization::PreWarm) {
                listed.push(Optimization::PreWarm);
            }
        }
        let tasks = (0..).zip(dense.problem.workflow.tasks());
        let forced = tasks.flat_map(|(t, task)| task.optimizations.iter().map(move |o| (t, o)));
        let customs = forced.filter(|(_, o)| matches!(o, Optimization::Custom { .. }));
        for (t, custom) in customs.chain(self.customs.iter().map(|(t, o)| (*t as usize, o))) {
            if !listed[t].contains(custom) {
                listed[t].push(custom.clone());
            }
        }
        listed
    }

    /// The workers that are started beforehand, as the plan lists them.
    pub fn prewarms(&self, dense: &Dense) -> Vec<PreWarming> {
        let id = |t: u32| dense.problem.workflow.task(t).id.clone();
        let listed = self.warmings.iter().map(|w| PreWarming {
            config: dense.size(w.size).config,
            after: (w.after != NONE).then(|| id(w.after)),
            delay_ms: w.delay_ms,
            serves: id(w.serves),
        });
        listed.collect()
    }
}

/// Whether other planned workers wait for a task that one of them runs, and each is large enough for it: a
/// copy asks nobody whether it fits. `place` says the worker and the size of a task.
pub(crate) fn may_be_copied(dense: &Dense, task: u32, place: impl Fn(u32) -> (u32, u32)) -> bool {
    uncopied(dense, task, place).is_none()
}

/// Why no other worker may run a task too; nothing where one may.
fn uncopied(dense: &Dense, task: u32, place: impl Fn(u32) -> (u32, u32)) -> Option<&'static str> {
    let (own, _) = place(task);
    if own == NONE {
        return Some(UNPLANNED);
    }
    let elsewhere =
        dense.graph.children(task).iter().map(|&c| place(c)).filter(|&(w, _)| w != NONE && w != own);
    let (mut waits, mut fits) = (false, true);
    elsewhere.for_each(|(_, size)| (waits, fits) = (true, fits && dense.allows(size, task)));
    match (waits, fits) {
        (false, _) => Some("no other planned worker waits for it"),
        (true, false) => Some("a worker that waits for it is too small to run it"),
        (true, true) => None,
    }
}

/// What the workflow forces on a task and no plan with these workers can carry out, and why.
pub(crate) fn left_out(
    dense: &Dense,
    task: u32,
    warmings: &[Warming],
    place: impl Fn(u32) -> (u32, u32),
) -> impl Iterator<Item = (OptimizationKind, &'static str)> {
    let flags = dense.forced_flags(task);
    let (own, _) = place(task);
    let is_planned = own != NONE;
    let is_warmed = |serves: u32| warmings.iter().any(|w| w.serves == serves);
    let shares_start = || is_planned && warmings.iter().any(|w| place(w.serves).0 == own);
    let pre_warm = (flags & PRE_WARM != 0 && !is_warmed(task) && shares_start())
        .then_some((OptimizationKind::PreWarm, ALREADY_RUNS));
    let pre_load = (flags & PRE_LOAD != 0 && !is_planned).then_some((OptimizationKind::PreLoad, UNPLANNED));
    let why = if flags & TASK_DUP != 0 { uncopied(dense, task, place) } else { None };
    pre_load.into_iter().chain(why.map(|why| (OptimizationKind::TaskDup, why))).chain(pre_warm)
}

/// How many tasks the workflow forces a pre-load on that have no planned worker.
pub(crate) fn unloaded(dense: &Dense, worker: &[u32]) -> u32 {
    let tasks = if dense.forces() { worker } else { &[] };
    let is_unloaded = |(t, w): &(u32, &u32)| **w == NONE && dense.forced_flags(*t) & PRE_LOAD != 0;
    (0..).zip(tasks).filter(is_unloaded).count() as u32
}

fn warming_of(dense: &Dense, warming: &PreWarming) -> Result<Warming, DraftFailure> {
    let broken = |fault: String| {
        let (serves, config) = (warming.serves.clone(), warming.config.to_string());
        DraftFailure::PreWarm { serves, config, fault }
    };
    let size = dense.size_of(&warming.config);
    let size = size.ok_or_else(|| broken("nothing is predicted for this size".to_owned()))?;
    let find =
        |id: &TaskId| dense.graph.find(id).ok_or_else(|| broken(format!("the workflow has no task `{id}`")));
    let after = warming.after.as_ref().map(find).transpose()?.unwrap_or(NONE);
    let delay_ms = warming.delay_ms;
    if !(delay_ms.is_finite() && delay_ms >= 0.0) {
        return Err(broken(format!("its delay is {delay_ms} ms")));
    }
    Ok(Warming { size, after, delay_ms, serves: find(&warming.serves)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_given_and_taken_one_by_one() {
        let mut extras = Extras::default();
        assert_eq!(extras.flags(3), 0, "nothing is done where nothing was said");
        extras.give(3, PRE_LOAD, 5);
        extras.give(3, TASK_DUP, 5);
        extras.give(4, PRE_LOAD, 5);
        assert_eq!((extras.flags(3), extras.flags(4)), (PRE_LOAD | TASK_DUP, PRE_LOAD));
        extras.take_all(TASK_DUP);
        assert_eq!((extras.flags(3), extras.flags(4)), (PRE_LOAD, PRE_LOAD));
        extras.take_all(PRE_LOAD);
        assert_eq!(extras, Extras::default());
    }
}
