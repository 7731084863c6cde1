//! Where a run stands, as whoever re-plans it knows it.
//!
//! Times in ms since the run began.

use foresail_schemas::WorkerId;
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::plan::{Plan, PlanSummary, Problem};

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::error::ReplanFailure;
use crate::expected::Part;
use crate::timing::{Timed, Timing};

/// How far a task is.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskProgress {
    /// Nobody has it.
    Open,
    /// A worker has leased it and runs it.
    Leased {
        /// Which of [`Progress::workers`]; nothing where that is not known.
        worker: Option<WorkerId>,
        /// Since when.
        since_ms: f64,
    },
    /// It will not run, by what another decided.
    Skipped,
    /// It has a result.
    Done {
        /// When it was begun.
        start_ms: f64,
        /// When its result was there.
        end_ms: f64,
        /// Size of all its outputs, where it was measured.
        output_bytes: Option<u64>,
    },
}

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerCondition {
    /// It was invoked and has not joined the run yet.
    Starting,
    /// It lives.
    Alive,
    /// It is not heard of any more: what it had leased counts as open, and it gets no more tasks.
    Lost,
}

/// One invocation of a worker that has not ended as it should.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerProgress {
    /// Its id: that of the plan for a planned worker, any other for a flexible one.
    pub id: WorkerId,
    /// Its size.
    pub config: ResourceConfig,
    /// How it is.
    pub condition: WorkerCondition,
    /// When it was invoked.
    pub since_ms: f64,
    /// What it holds in its memory: places in `workflow.graph().objects()`.
    pub objects: Vec<u32>,
}

/// The state of a run that is under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Time since the run began.
    pub now_ms: f64,
    /// Every task, in the order of the workflow.
    pub tasks: Vec<TaskProgress>,
    /// The workers that live, start or were lost.
    pub workers: Vec<WorkerProgress>,
    /// Containers that are idle and warm, by size.
    pub idle: Vec<(ResourceConfig, u32)>,
    /// Other ids that this run has used, which no new worker gets.
    pub used: Vec<WorkerId>,
    /// What the invocations that have ended took and cost in sum, lost ones included, and what the living
    /// have paid for objects read and written.
    pub spent: PlanSummary,
}

impl Progress {
    /// Where a run stands at `now_ms` that goes as planned and measures nothing. A flexible worker that has
    /// not joined yet is left out, as the state of a run knows nothing of it.
    ///
    /// # Errors
    /// [`ReplanFailure`] when problem or plan are none.
    pub fn as_planned(problem: &Problem, plan: &Plan, now_ms: f64) -> Result<Self, ReplanFailure> {
        if let Some(part) = Part::of_plan(problem, plan) {
            let progress = Self::as_planned(&part.problem, &part.narrow(plan), now_ms)?;
            return Ok(part.widen_progress(progress));
        }
        let dense = Dense::new(problem)?;
        let assignment = Assignment::of_plan(&dense, plan)?;
        let mut timing = Timing::new(&dense);
        let summary = timing.pass(&assignment);
        let Timed { lives, start_ms, end_ms, .. } = timing.timed(summary);
        let mut tasks = Vec::with_capacity(plan.tasks.len());
        let id_of = |life: usize| match lives[life].worker {
            NONE => flexible_id(plan, life),
            worker => plan.workers[worker as usize].id.clone(),
        };
        let mut objects = vec![Vec::new(); lives.len()];
        let mut requests_usd = vec![0.0; lives.len()];
        for (t, (&start_ms, &end_ms)) in start_ms.iter().zip(&end_ms).enumerate() {
            let ran_on = timing.ran()[t].ran_on as usize;
            let container = lives.get(ran_on).map_or(0, |life| life.container as usize);
            tasks.push(if end_ms <= now_ms {
                let (held, t, prices) = (&mut objects[container], t as u32, &problem.platform.prices);
                let gets = dense.stored_reads(t).iter().filter(|o| !held.contains(*o)).count();
                let puts = dense.uploads[t as usize].objects;
                let usd = f64::from(puts) * prices.put_usd + gets as f64 * prices.get_usd;
                requests_usd.get_mut(ran_on).into_iter().for_each(|sum| *sum += usd);
                held.extend(dense.graph.reads(t));
                held.extend(dense.graph.writes(t));
                TaskProgress::Done { start_ms, end_ms, output_bytes: None }
            } else if start_ms <= now_ms {
                let worker = (ran_on < lives.len()).then(|| id_of(ran_on));
                TaskProgress::Leased { worker, since_ms: start_ms }
            } else {
                TaskProgress::Open
            });
        }
        let (mut workers, mut spent) = (Vec::new(), PlanSummary::default());
        let mut idle: Vec<u32> = dense.warm.clone();
        for (at, life) in lives.iter().enumerate().filter(|(_, life)| life.start_ms <= now_ms) {
            let config = dense.size(life.size).config;
            let idle = &mut idle[life.size as usize];
            *idle = idle.saturating_sub(u32::from(!life.is_cold));
            if life.end_ms <= now_ms {
                spent.cost_usd += life.cost_usd;
                spent.gb_seconds += config.gb() * (life.end_ms - life.start_ms) / 1000.0;
                spent.invocations += 1;
                spent.cold_starts += u64::from(life.is_cold);
                *idle += u32::from(now_ms - life.end_ms <= problem.platform.keep_alive_ms);
                continue;
            }
            let is_up = now_ms >= life.start_ms + dense.startup_ms(life.size, life.is_cold);
            if life.worker == NONE && !is_up {
                continue;
            }
            spent.cold_starts += u64::from(life.is_cold);
            spent.cost_usd += requests_usd[at];
            let mut objects = objects[life.container as usize].clone();
            objects.sort_unstable();
            objects.dedup();
            let condition = if is_up { WorkerCondition::Alive } else { WorkerCondition::Starting };
            let (id, since_ms) = (id_of(at), life.start_ms);
            workers.push(WorkerProgress { id, config, condition, since_ms, objects });
        }
        let idle = dense.sizes.iter().map(|s| s.config).zip(idle).filter(|&(_, count)| count > 0).collect();
        Ok(Self { now_ms, tasks, workers, idle, used: Vec::new(), spent })
    }
}

/// A name for a flexible worker that no planned worker has.
#[must_use]
pub fn flexible_id(plan: &Plan, life: usize) -> WorkerId {
    let is_taken = |id: &WorkerId| plan.workers.iter().any(|w| w.id == *id);
    let mut name = format!("flexible{life}");
    loop {
        let id = WorkerId::new(&name).expect("letters, digits and dashes are a legal name");
        if !is_taken(&id) {
            return id;
        }
        name.push('-');
    }
}
