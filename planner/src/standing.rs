//! Where a run stands, in dense form: what has begun and who lives, checked.

use std::collections::{HashMap, HashSet};

use foresail_schemas::WorkerId;
use foresail_schemas::plan::{Plan, PlanSummary};

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::draw;
use crate::error::ReplanFailure;
use crate::extras::Warming;
use crate::progress::{Progress, TaskProgress, WorkerCondition, WorkerProgress};
use crate::rank::by_rank;
use crate::remaining::expected_total_ms;

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Stage {
    Open,
    /// On which of the living, since when, and when its code is expected to end or to have ended.
    Running {
        living: u32,
        start_ms: f64,
        computed_ms: f64,
    },
    Done {
        start_ms: f64,
        end_ms: f64,
    },
}

impl Stage {
    /// When it was begun.
    pub fn start_ms(&self) -> Option<f64> {
        match *self {
            Self::Open => None,
            Self::Running { start_ms, .. } | Self::Done { start_ms, .. } => Some(start_ms),
        }
    }
}

/// An invocation that lives or starts.
#[derive(Debug, Clone)]
pub(crate) struct Living {
    /// The planned worker, or [`NONE`].
    pub worker: u32,
    pub size: u32,
    pub start_ms: f64,
    /// Whether it has joined the run.
    pub is_up: bool,
    /// What it holds of what is still read, ascending.
    pub objects: Vec<u32>,
}

/// The state of a run.
#[derive(Debug)]
pub(crate) struct Standing {
    pub now_ms: f64,
    pub tasks: Vec<Stage>,
    /// What is done, by time of the end.
    pub done: Vec<u32>,
    pub living: Vec<Living>,
    /// Workers of the plan in force; those that come new have higher numbers.
    pub workers: u32,
    /// Which of them are lost.
    pub is_lost: Vec<bool>,
    /// Open tasks for which the plan in force has started a flexible worker, ascending: on which size, and
    /// when. The state of a run knows nothing of such a worker before it joins, but when its task was ready.
    invoked: Vec<(u32, u32, f64)>,
    /// What ended invocations took.
    pub spent: PlanSummary,
    /// That and the lives of the living until now.
    pub spent_usd: f64,
}

impl Standing {
    /// The state, and what the plan in force says.
    pub fn new(dense: &Dense, plan: &Plan, progress: &Progress) -> Result<(Self, Assignment), ReplanFailure> {
        let now_ms = progress.now_ms;
        if !(now_ms.is_finite() && now_ms >= 0.0) {
            return Err(ReplanFailure::Time { what: "now_ms".to_owned(), ms: now_ms });
        }
        let (expected, found) = (dense.len() as usize, progress.tasks.len());
        if expected != found {
            return Err(ReplanFailure::Tasks { expected, found });
        }
        let base = Assignment::of_plan(dense, plan)?;
        let numbers: HashMap<&WorkerId, u32> = plan.workers.iter().map(|w| &w.id).zip(0..).collect();
        let mut standing = Self {
            now_ms,
            tasks: Vec::with_capacity(expected),
            done: Vec::new(),
            living: Vec::new(),
            workers: plan.workers.len() as u32,
            is_lost: vec![false; plan.workers.len()],
            invoked: Vec::new(),
            spent: progress.spent,
            spent_usd: 0.0,
        };
        let places = standing.seat(dense, progress, &numbers)?;
        for (t, task) in (0..).zip(&progress.tasks) {
            let stage = standing.stage(dense, (t, task), base.size[t as usize], &places)?;
            if matches!(stage, Stage::Done { .. }) {
                standing.done.push(t);
            }
            standing.tasks.push(stage);
        }
        standing.check_order(dense)?;
        standing.queue_behind(dense, &base);
        standing.sort_done(dense);
        standing.find_invoked(dense, &base);
        let lived_usd = standing.living.iter().map(|l| {
            let lived_ms = (now_ms - l.start_ms).max(0.0);
            let config = &dense.size(l.size).config;
            dense.rates.usd_per_ms(config) * lived_ms + dense.rates.request_usd(config)
        });
        standing.spent_usd = progress.spent.cost_usd + lived_usd.sum::<f64>();
        Ok((standing, base))
    }

    /// Takes in the workers; the places of those that live, and nothing for those that are lost.
    fn seat<'p>(
        &mut self,
        dense: &Dense,
        progress: &'p Progress,
        numbers: &HashMap<&WorkerId, u32>,
    ) -> Result<HashMap<&'p WorkerId, Option<u32>>, ReplanFailure> {
        let (mut places, mut seated) = (HashMap::new(), HashSet::new());
        let is_done = |t: u32| matches!(progress.tasks[t as usize], TaskProgress::Done { .. });
        for worker in &progress.workers {
            let WorkerProgress { id, config, condition, since_ms, objects } = worker;
            let size = dense
                .size_of(config)
                .ok_or_else(|| ReplanFailure::Config { worker: id.clone(), config: config.to_string() })?;
            if let Some(&object) = objects.iter().find(|&&o| o as usize >= dense.objects.len()) {
                return Err(ReplanFailure::Object { worker: id.clone(), object });
            }
            if !(since_ms.is_finite() && *since_ms >= 0.0) {
                return Err(ReplanFailure::Time { what: id.to_string(), ms: *since_ms });
            }
            let number = numbers.get(id).copied();
            if *condition == WorkerCondition::Lost {
                if let Some(number) = number {
                    self.is_lost[number as usize] = true;
                }
                places.entry(id).or_insert(None);
                continue;
            }
            // A second invocation of a planned worker leaves as soon as it has joined.
            let worker = number.filter(|&number| seated.insert(number)).unwrap_or(NONE);
            let is_read = |&o: &u32| dense.graph.consumers(o).iter().any(|&t| !is_done(t));
            let mut objects: Vec<u32> = objects.iter().copied().filter(is_read).collect();
            objects.sort_unstable();
            places.insert(id, Some(self.living.len() as u32));
            let (start_ms, is_up) = (since_ms.min(self.now_ms), *condition == WorkerCondition::Alive);
            self.living.push(Living { worker, size, start_ms, is_up, objects });
        }
        // An id that lives again is not lost.
        self.living.iter().filter(|l| l.worker != NONE).for_each(|l| self.is_lost[l.worker as usize] = false);
        Ok(places)
    }

    fn stage(
        &mut self,
        dense: &Dense,
        (t, task): (u32, &TaskProgress),
        planned_size: u32,
        places: &HashMap<&WorkerId, Option<u32>>,
    ) -> Result<Stage, ReplanFailure> {
        let id = || dense.problem.workflow.task(t).id.clone();
        let check = |ms: f64| match ms.is_finite() && ms >= 0.0 {
            true => Ok(ms),
            false => Err(ReplanFailure::Time { what: id().to_string(), ms }),
        };
        match task {
            TaskProgress::Open | TaskProgress::Skipped => Ok(Stage::Open),
            TaskProgress::Done { start_ms, end_ms, .. } => {
                let end_ms = check(*end_ms)?.min(self.now_ms);
                Ok(Stage::Done { start_ms: check(*start_ms)?.min(end_ms), end_ms })
            }
            TaskProgress::Leased { worker, since_ms } => {
                let start_ms = check(*since_ms)?.min(self.now_ms);
                let living = match worker {
                    Some(worker) => *places
                        .get(worker)
                        .ok_or_else(|| ReplanFailure::Holder { task: id(), worker: worker.clone() })?,
                    None => Some(self.add_unknown(planned_size, start_ms)),
                };
                let Some(living) = living else { return Ok(Stage::Open) };
                self.living[living as usize].is_up = true;
                let computed_ms = self.computed_ms(dense, t, &self.living[living as usize], start_ms);
                Ok(Stage::Running { living, start_ms, computed_ms })
            }
        }
    }

    /// Somebody runs a task of whom nothing else is known.
    fn add_unknown(&mut self, size: u32, start_ms: f64) -> u32 {
        self.living.push(Living { worker: NONE, size, start_ms, is_up: true, objects: Vec::new() });
        self.living.len() as u32 - 1
    }

    /// When the code of a task that runs is expected to end: it began once its inputs were there.
    fn computed_ms(&self, dense: &Dense, task: u32, living: &Living, start_ms: f64) -> f64 {
        let fetched = dense.stored_reads(task).iter().filter(|o| living.objects.binary_search(o).is_err());
        let began_ms = start_ms + fetched.map(|&o| dense.download_ms(living.size, o)).sum::<f64>();
        let table = &dense.problem.predictions;
        let shape = table.uncertainty.as_ref().and_then(|u| draw::exec_shape(u, living.size, task));
        // Its outputs may be on their way: only what is longer than that too tells anything.
        let elapsed_ms = (self.now_ms - began_ms - dense.upload_ms(living.size, task)).max(0.0);
        began_ms + expected_total_ms(dense.exec_ms(living.size, task), shape, table.sla, elapsed_ms)
    }

    /// What a worker has leased beyond its lanes waits there for those that it leased before.
    fn queue_behind(&mut self, dense: &Dense, base: &Assignment) {
        let mut leased: Vec<Vec<(f64, u32, u32)>> = vec![Vec::new(); self.living.len()];
        for (t, stage) in (0..).zip(&self.tasks) {
            if let Stage::Running { living, start_ms, .. } = *stage {
                leased[living as usize].push((start_ms, base.rank[t as usize], t));
            }
        }
        let lanes = dense.lanes as usize;
        for of_one in leased.iter_mut().filter(|of_one| of_one.len() > lanes) {
            of_one.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
            let mut free_ms: Vec<f64> = Vec::with_capacity(lanes);
            for &(_, _, t) in of_one.iter() {
                let Stage::Running { computed_ms, .. } = &mut self.tasks[t as usize] else { continue };
                if free_ms.len() == lanes {
                    let waits_ms = free_ms.pop().map_or(0.0, |ms| ms - self.now_ms);
                    *computed_ms += waits_ms.max(0.0);
                }
                free_ms.push(*computed_ms);
                free_ms.sort_by(|a, b| b.total_cmp(a));
            }
        }
    }

    /// What has begun has only parents with results.
    fn check_order(&self, dense: &Dense) -> Result<(), ReplanFailure> {
        let is_done = |&t: &u32| matches!(self.tasks[t as usize], Stage::Done { .. });
        for task in (0..dense.len()).filter(|&t| self.has_begun(t)) {
            if let Some(&parent) = dense.graph.parents(task).iter().find(|p| !is_done(p)) {
                let id = |t: u32| dense.problem.workflow.task(t).id.clone();
                return Err(ReplanFailure::Order { task: id(task), parent: id(parent) });
            }
        }
        Ok(())
    }

    fn find_invoked(&mut self, dense: &Dense, base: &Assignment) {
        let invoked = (0..dense.len()).filter(|&t| !self.has_begun(t) && base.worker[t as usize] == NONE);
        let invoked = invoked.filter_map(|task| {
            let parents = dense.graph.parents(task);
            let end_ms = parents.iter().map(|&p| match self.tasks[p as usize] {
                Stage::Done { end_ms, .. } => end_ms + dense.dispatch_ms,
                _ => f64::INFINITY,
            });
            let (size, since_ms) = (base.size[task as usize], end_ms.fold(0.0, f64::max));
            // What should run by now has no worker, or waits for a place.
            let due_ms = since_ms + dense.startup_ms(size, true);
            (since_ms <= self.now_ms && self.now_ms <= due_ms).then_some((task, size, since_ms))
        });
        self.invoked = invoked.collect();
    }

    /// When a flexible worker of this size was started for this task, where one is on its way.
    pub fn invoked_ms(&self, task: u32, size: u32) -> Option<f64> {
        let at = self.invoked.binary_search_by_key(&task, |&(task, ..)| task).ok()?;
        let (_, of_size, since_ms) = self.invoked[at];
        (of_size == size).then_some(since_ms)
    }

    fn sort_done(&mut self, dense: &Dense) {
        let mut place = vec![0_u32; self.tasks.len()];
        (0..).zip(dense.graph.order()).for_each(|(at, &t)| place[t as usize] = at);
        let end_ms = |t: u32| match self.tasks[t as usize] {
            Stage::Done { end_ms, .. } => end_ms.abs(),
            _ => f64::INFINITY,
        };
        // Times are not negative, so that their bits order like they do.
        let key = |&t: &u32| (end_ms(t).to_bits(), place[t as usize], t);
        let mut done: Vec<(u64, u32, u32)> = self.done.iter().map(key).collect();
        done.sort_unstable();
        self.done = done.into_iter().map(|(_, _, t)| t).collect();
    }

    /// Whether a task runs or has a result, so that it stays where it is.
    pub fn has_begun(&self, task: u32) -> bool {
        !matches!(self.tasks[task as usize], Stage::Open)
    }

    /// Whether an open task is planned on a worker that is lost.
    pub fn is_stranded(&self, base: &Assignment, task: u32) -> bool {
        let worker = base.worker[task as usize];
        !self.has_begun(task) && self.is_lost.get(worker as usize) == Some(&true)
    }

    /// The plan in force, where the tasks of a lost worker go on together on a new one of its size.
    pub fn repaired(&self, base: &Assignment) -> Assignment {
        let mut repaired = base.clone();
        let mut successors = vec![NONE; self.is_lost.len()];
        for t in 0..self.tasks.len() as u32 {
            if self.is_stranded(base, t) {
                let lost = &mut repaired.worker[t as usize];
                let successor = &mut successors[*lost as usize];
                if *successor == NONE {
                    *successor = repaired.workers;
                    repaired.workers += 1;
                }
                *lost = *successor;
            }
        }
        repaired
    }

    /// Takes what has begun, what the pool runs and what is done beside from the plan in force; the ranks of
    /// open tasks are dealt anew among them.
    pub fn rebase(&self, dense: &Dense, base: &Assignment, new: &mut Assignment) {
        let open = |t: &u32| !self.has_begun(*t);
        let ranked = by_rank((0..dense.len()).filter(open), &new.rank);
        let ranks = by_rank((0..dense.len()).filter(open), &base.rank);
        new.rank.clone_from(&base.rank);
        let dealt = ranks.iter().map(|&t| base.rank[t as usize]);
        ranked.iter().zip(dealt).for_each(|(&t, rank)| new.rank[t as usize] = rank);
        for t in (0..dense.len()).filter(|&t| self.has_begun(t) || dense.is_pooled(t)) {
            (new.worker[t as usize], new.size[t as usize]) = (base.worker[t as usize], base.size[t as usize]);
        }
        new.workers = new.workers.max(base.workers);
        new.extras.copy_from(&base.extras);
        new.extras.warmings.retain(|w| !self.has_begun(w.serves));
        for warming in new.extras.warmings.iter_mut().filter(|w| !self.is_due(w)) {
            warming.size = new.size[warming.serves as usize];
        }
    }

    /// Whether a worker was started beforehand already.
    fn is_due(&self, warming: &Warming) -> bool {
        let from_ms = match warming.after {
            NONE => Some(0.0),
            after => self.tasks[after as usize].start_ms(),
        };
        from_ms.is_some_and(|ms| ms + warming.delay_ms < self.now_ms)
    }
}
