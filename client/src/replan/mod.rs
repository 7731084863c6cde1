//! Re-planning of a run under way: watches its events beside what the plan expects, asks for fresh
//! predictions, and puts a better plan in force or suggests it.
//!
//! The client does it because it has what it takes (platform, model, planner) and nothing in a worker does.
//! It is not needed: where the client is gone or metad does not answer, the plan in force goes on. Several
//! who re-plan do no harm, as a plan replaces only the one that it was made from (compare and set).

mod asked;
mod course;
mod drift;
#[cfg(test)]
mod early_tests;
mod fresh;
mod slowdown;
mod steward;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foresail_planner::{self as planner, Verdict};
use foresail_schemas::id::RunId;
use foresail_schemas::metric::Forecast;
use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Plan, Problem};
use foresail_schemas::platform::Platform;
use foresail_schemas::run::{
    CurrentPlan, EventPage, Promise, ReplanMode, ReplanRequest, Replanning, RunStatus, RunSummary,
};
use foresail_schemas::{ErrorCode, Workflow};

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Call;
use crate::{resume, watch};
use course::Course;
use drift::{Cause, Drift};
use fresh::Fresh;
pub use steward::attend;

/// Time until the next look where metad did not answer.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause of a worker between two tries to tell metad something.
const TELL_PAUSE_MAX_MS: f64 = 1_000.0;
/// Least time between two re-plannings.
const REPLAN_PAUSE: Duration = Duration::from_millis(300);
/// How long a new plan has until what it moved must be with its new workers. Before, workers that start are
/// not known, so that a plan made then would start them again.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// The next re-planning waits this many times as long as the last took, so that looking costs a tenth.
const REPLAN_REST: u32 = 10;
/// Events that are looked at.
const KINDS: &str = "worker_joined,worker_left,task_leased,task_failed,task_committed,tasks_skipped,\
                     tasks_invalidated,plan_replaced,run_finished";

/// How often a run is looked at, and how long something must stand until it is a cause.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    look: Duration,
    patience: Duration,
}

impl Pace {
    /// Of the client that submitted or took up the run.
    pub const CLIENT: Self = Self { look: Duration::from_millis(100), patience: Duration::ZERO };
    /// Of those who step in where there is none: a client that lives has acted before.
    pub const STEWARD: Self = Self { look: Duration::from_secs(1), patience: Duration::from_secs(2) };
}

/// What re-planning needs to know of a run.
#[derive(Debug)]
pub(crate) struct Replanner {
    pub client: Client,
    pub run: RunId,
    pub workflow: Workflow,
    /// The plan in force and its epoch.
    pub plan: Plan,
    pub epoch: u64,
    pub platform: Platform,
    /// What a planner shall not do.
    pub without: Vec<OptimizationKind>,
    pub mode: ReplanMode,
    pub pace: Pace,
    /// How often workers of the run are heard of at least.
    pub heartbeat_ms: f64,
    /// Where looks are told that changed nothing.
    pub kept: Arc<Mutex<Kept>>,
}

/// What a look for a better plan has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Whether the new plan is worth taking the place of the one in force.
    pub verdict: Verdict,
    /// The plan that is to be in force from now on, why, and what both take and cost. With [`Verdict::Keep`]
    /// it differs from the plan in force in its times only.
    pub request: ReplanRequest,
}

/// Looks for a better plan after which the one in force stayed: no event of the run tells of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    /// How many there were.
    pub looks: u64,
    /// Why the last was taken, and why nothing came of it.
    pub last: Option<Replanning>,
}

/// The state of the watching.
struct Watching {
    replanner: Replanner,
    course: Course,
    drift: Drift,
    last_event: u64,
    /// When metad last told all that had happened.
    heard: Instant,
    /// A moment, and how long the run had taken then by the clock of metad.
    clock: Option<(Instant, f64)>,
    /// Since when there is a cause.
    noticed: Option<Instant>,
    /// No re-planning before.
    next: Instant,
    /// When the last new plan must have been taken up.
    settles: Option<Instant>,
}

impl Replanner {
    /// Watches until the run has ended or metad refuses for good.
    pub async fn watch(self) {
        if self.mode.is_off() || self.plan.flexible.is_some() {
            return;
        }
        let (run, pause) = (self.run.clone(), self.pace.look);
        let mut watching = Watching::new(self);
        loop {
            tokio::time::sleep(pause).await;
            match watching.look().await {
                Ok(()) if watching.course.is_over() => return,
                Ok(()) => {}
                Err(error) if error.is_final_refusal() => {
                    tracing::warn!(%run, "the run is not re-planned any more: {error}");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%run, "the run goes on as planned: {error}");
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }

    /// Looks once for a better plan, whether there is a cause or not.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer, the run has ended, or its plan cannot be replaced.
    pub async fn propose(self) -> Result<Proposal, ClientError> {
        let mut watching = Watching::new(self);
        watching.read_events().await?;
        let (proposal, _) = watching.propose(&[]).await?;
        Ok(proposal)
    }
}

impl Watching {
    fn new(replanner: Replanner) -> Self {
        let course = Course::new(&replanner.workflow, replanner.platform.lanes);
        let drift = Drift::new(&replanner.workflow, &replanner.plan);
        let (clock, noticed, next, settles) = (None, None, Instant::now(), None);
        Self { replanner, course, drift, last_event: 0, heard: next, clock, noticed, next, settles }
    }

    async fn look(&mut self) -> Result<(), ClientError> {
        let unheard = self.heard;
        self.read_events().await?;
        let silence = self.heard - unheard;
        if self.course.is_over() {
            return Ok(());
        }
        if self.course.epoch() > self.replanner.epoch {
            self.read_plan().await?;
        }
        if self.settles.is_some_and(|at| Instant::now() >= at) {
            self.start_missing().await?;
            self.settles = None;
        }
        let now_ms = self.now_ms().await?;
        // As long as after a failed look; a request that was answered at last took that long as well.
        if silence > self.replanner.pace.look + FAILURE_PAUSE {
            let report_ms = self.replanner.heartbeat_ms + TELL_PAUSE_MAX_MS;
            self.course.silence(now_ms - silence.as_secs_f64() * 1000.0, now_ms, report_ms);
        }
        let causes = self.drift.causes(&self.replanner.workflow, &self.course, now_ms);
        if causes.is_empty() {
            self.noticed = None;
            return Ok(());
        }
        let noticed = *self.noticed.get_or_insert_with(Instant::now);
        let is_early = noticed.elapsed() < self.replanner.pace.patience || Instant::now() < self.next;
        if is_early || self.settles.is_some() {
            return Ok(());
        }
        self.noticed = None;
        let began = Instant::now();
        let done = self.replan(&causes).await;
        self.next = Instant::now() + REPLAN_PAUSE.max(began.elapsed() * REPLAN_REST);
        done
    }

    /// Time since the run was created.
    async fn now_ms(&mut self) -> Result<f64, ClientError> {
        let (at, elapsed_ms) = match self.clock {
            Some(clock) => clock,
            None => *self.clock.insert((Instant::now(), self.summary().await?.elapsed_ms)),
        };
        Ok(self.course.at_ms().max(elapsed_ms + at.elapsed().as_secs_f64() * 1000.0))
    }

    async fn summary(&self) -> Result<RunSummary, ClientError> {
        let Replanner { client, run, .. } = &self.replanner;
        client.services.metad.json(Call::get(&["v1", "runs", run.as_str()])).await
    }

    async fn read_events(&mut self) -> Result<(), ClientError> {
        loop {
            let path = ["v1", "runs", self.replanner.run.as_str(), "events"];
            let call = Call::get(&path).query("after", self.last_event).query("kinds", KINDS);
            let page: EventPage = self.replanner.client.services.metad.json(call).await?;
            for event in &page.events {
                if let Some(found) = self.course.apply(event) {
                    self.drift.measured(&found.name, found.task, found.config, found.exec_ms);
                }
            }
            if page.events.is_empty() {
                self.heard = Instant::now();
                return Ok(());
            }
            self.last_event = page.next_after;
        }
    }

    /// Somebody else replaced the plan.
    async fn read_plan(&mut self) -> Result<(), ClientError> {
        let call = Call::get(&["v1", "runs", self.replanner.run.as_str(), "plan"]);
        let CurrentPlan { epoch, plan, .. } = self.replanner.client.services.metad.json(call).await?;
        self.drift.expect(&plan);
        (self.replanner.epoch, self.replanner.plan) = (epoch, plan);
        self.settles = Some(Instant::now() + SETTLE_PAUSE);
        Ok(())
    }

    /// Starts workers of a new plan that have ready tasks and that nobody has started. A worker starts those
    /// whose tasks it loses; where several plans follow each other the one that would may have left before.
    async fn start_missing(&self) -> Result<(), ClientError> {
        let Replanner { client, run, workflow, plan, epoch, .. } = &self.replanner;
        let mut ready = resume::ready(&client.services, run, workflow).await?;
        ready.retain(|&task| {
            let worker = plan.tasks[task as usize].worker.as_ref();
            worker.is_some_and(|worker| !self.course.is_alive(worker))
        });
        watch::begin(&client.services, run, ready, *epoch, plan).await
    }

    /// Looks for a better plan, and carries out what the mode says.
    async fn replan(&mut self, causes: &[Cause]) -> Result<(), ClientError> {
        let run = self.replanner.run.clone();
        let (Proposal { verdict, request }, fresh) = match self.propose(causes).await {
            // The events will tell.
            Err(ClientError::RunEnded { .. }) => return Ok(()),
            Err(error @ ClientError::NoPlan { .. }) => {
                tracing::warn!(%run, "the plan stays: {error}");
                self.drift.told(causes, &self.course);
                return Ok(());
            }
            found => found?,
        };
        if let Some(why) = &request.why {
            tracing::info!(%run, ?verdict, "{}; {}", why.cause, why.reason);
        }
        let client = &self.replanner.client;
        match (verdict, self.replanner.mode) {
            (Verdict::Keep, _) | (_, ReplanMode::Off) => {
                let mut kept = self.replanner.kept.lock().unwrap_or_else(PoisonError::into_inner);
                (kept.looks, kept.last) = (kept.looks + 1, request.why);
            }
            (Verdict::Replace, ReplanMode::Suggest) => match client.suggest(&run, &request).await {
                Err(error) if is_late(&error) => return Ok(()),
                done => done?,
            },
            (Verdict::Replace, ReplanMode::Auto) => match client.put_in_force(&run, &request).await {
                Err(error) if is_late(&error) => return Ok(()),
                epoch => {
                    (self.replanner.epoch, self.replanner.plan) = (epoch?, request.plan);
                    self.settles = Some(Instant::now() + SETTLE_PAUSE);
                }
            },
        }
        self.drift.told(causes, &self.course);
        // What the fresh predictions say is no surprise any more, whatever the verdict.
        self.drift.expect(&fresh.retimed(&self.replanner.workflow, &self.replanner.plan));
        Ok(())
    }

    /// The best plan from now on.
    async fn propose(&mut self, causes: &[Cause]) -> Result<(Proposal, Fresh), ClientError> {
        let Replanner { client, run, workflow, plan, epoch, platform, .. } = &self.replanner;
        let mut fresh = Fresh::ask(client, workflow, platform, plan.sla, self.course.facts()).await?;
        let summary = self.summary().await?;
        if summary.status != RunStatus::Running {
            let (run, status, failure) = (run.clone(), summary.status, summary.failure);
            return Err(ClientError::RunEnded { run, status, failure });
        }
        let now_ms = summary.elapsed_ms;
        self.drift.expect(&fresh.retimed(workflow, plan));
        // What runs is known as it was when metad last told: answers may have taken long since then.
        let known_ms = now_ms - self.heard.elapsed().as_secs_f64() * 1000.0;
        fresh.slow_down(workflow, self.drift.slowdowns(workflow, &self.course, known_ms));
        let problem = Problem {
            workflow: workflow.clone(),
            platform: platform.clone(),
            predictions: fresh.table.clone(),
            objective: plan.objective,
            seed: plan.seed,
            without: self.replanner.without.clone(),
        };
        let progress = self.course.progress(plan, &platform.rates(), now_ms);
        let old = plan.clone();
        let planning = move || planner::replan(&problem, &old, &progress, &planner::ReplanOptions::default());
        let no_plan = |reason| ClientError::NoPlan { planner: "replan".to_owned(), reason };
        let answer = tokio::task::spawn_blocking(planning).await.map_err(|e| no_plan(e.to_string()))?;
        let answer = answer.map_err(|e| no_plan(e.to_string()))?;
        let mut plan = answer.plan;
        let begun: Vec<Option<Forecast>> = plan.tasks.iter().map(|task| task.forecast).collect();
        fresh.fill(workflow, &mut plan);
        for (at, (task, forecast)) in (0..).zip(plan.tasks.iter_mut().zip(begun)) {
            if *self.course.step(at) != course::Step::Open {
                task.forecast = forecast;
            }
        }
        let promise =
            |rest: &planner::Rest| Promise { makespan_ms: rest.makespan_ms, cost_usd: rest.cost_usd };
        let why = Replanning {
            cause: sentence(causes, &fresh),
            kept: promise(&answer.kept),
            new: promise(&answer.new),
            moved: answer.moved.len() as u64,
            reason: answer.reason,
        };
        let request = ReplanRequest { expected_epoch: *epoch, plan, why: Some(why) };
        Ok((Proposal { verdict: answer.verdict, request }, fresh))
    }
}

/// Somebody was faster, or the run has ended: the events will tell.
fn is_late(error: &ClientError) -> bool {
    matches!(error.code(), Some(ErrorCode::PlanEpochConflict | ErrorCode::RunOver))
}

/// Why a plan is looked for, and what is expected otherwise than the model says.
fn sentence(causes: &[Cause], fresh: &Fresh) -> String {
    /// Causes that are named.
    const NAMED_MAX: usize = 3;
    let mut told: Vec<String> = causes.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if let more @ 1.. = causes.len().saturating_sub(NAMED_MAX) {
        told.push(format!("and {more} more"));
    }
    if causes.is_empty() {
        told.push("it was asked for".to_owned());
    }
    told.extend(fresh.in_words());
    told.join("; ")
}
