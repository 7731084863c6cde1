//! Re-planning of a run under way: watches its events beside what the plan expects, asks for fresh
//! predictions, and puts a better plan in force or suggests it.
//!
//! The client does it because it has what it takes (platform, model, planner) and nothing in a worker does.
//! It is not needed: where the client is gone or metad does not answer, the plan in force goes on. Several
//! clients do no harm, as a plan replaces only the one that it was made from (compare and set).
//!
//! Fresh predictions are those of metad, to which workers of such a run send early, times what the run itself
//! showed beyond them: a model that has seen a hundred fast executions does not believe three slow ones.

mod course;
mod drift;

use std::time::{Duration, Instant};

use foresail_planner::{self as planner, Replanned, Verdict};
use foresail_schemas::config::Sla;
use foresail_schemas::id::RunId;
use foresail_schemas::metric::Forecast;
use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Plan, PredictionTable, Problem};
use foresail_schemas::platform::Platform;
use foresail_schemas::prediction::{Prediction, Query};
use foresail_schemas::run::{
    CurrentPlan, EventPage, Operation, Promise, ReplanMode, ReplanRequest, Replanning, RunStatus, RunSummary,
};
use foresail_schemas::{ErrorCode, TaskName, Workflow};

use crate::client::Client;
use crate::error::ClientError;
use crate::forecast;
use crate::http::Call;
use course::Course;
use drift::{Cause, Drift};

/// Time between two looks at a run.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Time until the next look where metad did not answer.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// Least time between two re-plannings.
const REPLAN_PAUSE: Duration = Duration::from_millis(300);
/// The next re-planning waits this many times as long as the last took, so that looking costs a tenth.
const REPLAN_REST: u32 = 10;
/// Events that are looked at.
const KINDS: &str = "worker_joined,worker_left,task_leased,task_failed,task_committed,tasks_skipped,\
                     plan_replaced,run_finished";

/// What re-planning needs to know of a run.
#[derive(Debug)]
pub(crate) struct Replanner {
    pub client: Client,
    pub run: RunId,
    pub workflow: Workflow,
    /// The plan in force.
    pub plan: Plan,
    pub platform: Platform,
    /// What a planner shall not do.
    pub without: Vec<OptimizationKind>,
    pub mode: ReplanMode,
}

/// The state of the watching.
struct Watching {
    replanner: Replanner,
    epoch: u64,
    course: Course,
    drift: Drift,
    last_event: u64,
    began: Instant,
    /// No re-planning before.
    next: Instant,
}

impl Replanner {
    /// Watches until the run has ended or metad refuses for good.
    pub async fn watch(self) {
        if self.mode.is_off() || self.plan.flexible.is_some() {
            return;
        }
        let (course, drift) = (Course::new(&self.workflow), Drift::new(&self.workflow, &self.plan));
        let (began, run) = (Instant::now(), self.run.clone());
        let mut watching =
            Watching { replanner: self, epoch: 1, course, drift, last_event: 0, began, next: began };
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
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
}

impl Watching {
    async fn look(&mut self) -> Result<(), ClientError> {
        self.read_events().await?;
        if self.course.is_over() {
            return Ok(());
        }
        if self.course.epoch() != self.epoch {
            self.read_plan().await?;
        }
        let now_ms = self.course.at_ms().max(self.began.elapsed().as_secs_f64() * 1000.0);
        let causes = self.drift.causes(&self.replanner.workflow, &self.course, now_ms);
        if causes.is_empty() || Instant::now() < self.next {
            return Ok(());
        }
        let began = Instant::now();
        let done = self.replan(&causes).await;
        self.next = Instant::now() + REPLAN_PAUSE.max(began.elapsed() * REPLAN_REST);
        done
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
        (self.epoch, self.replanner.plan) = (epoch, plan);
        Ok(())
    }

    /// Looks for a better plan.
    async fn replan(&mut self, causes: &[Cause]) -> Result<(), ClientError> {
        let Replanner { client, run, workflow, plan, platform, .. } = &self.replanner;
        let fresh = Fresh::ask(client, workflow, platform, plan.sla).await?;
        let summary: RunSummary =
            client.services.metad.json(Call::get(&["v1", "runs", run.as_str()])).await?;
        if summary.status != RunStatus::Running || summary.plan_epoch != self.epoch {
            return Ok(());
        }
        let (fresh, expected) = fresh.with_what_was_seen(workflow, plan, &mut self.drift);
        let problem = Problem {
            workflow: workflow.clone(),
            platform: platform.clone(),
            predictions: fresh.table.clone(),
            objective: plan.objective,
            seed: plan.seed,
            without: self.replanner.without.clone(),
        };
        let progress = self.course.progress(plan, &platform.rates(), summary.elapsed_ms);
        let old = plan.clone();
        let planning = move || planner::replan(&problem, &old, &progress, &planner::ReplanOptions::default());
        let answer = match tokio::task::spawn_blocking(planning).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%run, "the plan stays: {error}");
                self.drift.told(causes, &self.course);
                return Ok(());
            }
            Err(error) => {
                let no_plan = |reason| ClientError::NoPlan { planner: "replan".to_owned(), reason };
                return Err(no_plan(error.to_string()));
            }
        };
        tracing::info!(%run, verdict = ?answer.verdict, "{}; {}", sentence(causes), answer.reason);
        if answer.verdict == Verdict::Replace {
            self.carry_out(causes, answer, &fresh).await?;
        }
        self.drift.told(causes, &self.course);
        // What the fresh predictions say is no surprise any more, whatever the verdict.
        self.drift.expect(&expected);
        Ok(())
    }

    /// Puts the plan in force, or suggests it.
    async fn carry_out(
        &mut self,
        causes: &[Cause],
        answer: Replanned,
        fresh: &Fresh,
    ) -> Result<(), ClientError> {
        let Replanner { client, run, workflow, mode, .. } = &self.replanner;
        let promise =
            |rest: &planner::Rest| Promise { makespan_ms: rest.makespan_ms, cost_usd: rest.cost_usd };
        let why = Replanning {
            cause: sentence(causes),
            kept: promise(&answer.kept),
            new: promise(&answer.new),
            moved: answer.moved.len() as u64,
            reason: answer.reason,
        };
        if *mode == ReplanMode::Suggest {
            let suggestion = Operation::Suggest { epoch: self.epoch, why };
            return client.services.operate(run, vec![suggestion]).await.map(drop);
        }
        let mut plan = answer.plan;
        let begun: Vec<Option<Forecast>> = plan.tasks.iter().map(|task| task.forecast).collect();
        fresh.fill(workflow, &mut plan);
        for (at, (task, forecast)) in (0..).zip(plan.tasks.iter_mut().zip(begun)) {
            if *self.course.step(at) != course::Step::Open {
                task.forecast = forecast;
            }
        }
        let request = ReplanRequest { expected_epoch: self.epoch, plan, why: Some(why) };
        let call = Call::put(&["v1", "runs", run.as_str(), "plan"], &request);
        match client.services.metad.json::<CurrentPlan>(call).await {
            Ok(CurrentPlan { epoch, .. }) => {
                (self.epoch, self.replanner.plan) = (epoch, request.plan);
                Ok(())
            }
            // Somebody was faster, or the run has ended: the events will tell.
            Err(error) if matches!(error.code(), Some(ErrorCode::PlanEpochConflict | ErrorCode::RunOver)) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn sentence(causes: &[Cause]) -> String {
    /// Causes that are named.
    const NAMED_MAX: usize = 3;
    let named: Vec<String> = causes.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = causes.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", named.join("; "))
}

/// Predictions in the middle of a run.
struct Fresh {
    table: PredictionTable,
    model: Option<std::sync::Arc<foresail_model::Predictor>>,
    /// Types that the run showed to differ from what the model says, and by which factor.
    factors: Vec<(TaskName, f64)>,
}

impl Fresh {
    async fn ask(
        client: &Client,
        workflow: &Workflow,
        platform: &Platform,
        sla: Sla,
    ) -> Result<Self, ClientError> {
        let mut table = client.predictions(workflow, platform, sla).await?;
        client.add_distributions(workflow, platform, &mut table);
        let model = client.models.find(workflow.name(), table.epoch);
        Ok(Self { table, model, factors: Vec::new() })
    }

    /// Makes the times those that the run showed, where they still differ; also the plan in force with what
    /// is expected of its tasks now.
    fn with_what_was_seen(mut self, workflow: &Workflow, plan: &Plan, drift: &mut Drift) -> (Self, Plan) {
        drift.expect(&self.retimed(workflow, plan));
        self.factors = drift.ratios().into_iter().map(|(name, ratio, _)| (name, ratio)).collect();
        for (at, task) in workflow.tasks().iter().enumerate() {
            if let Some(factor) = self.factor(&task.name) {
                self.table.exec_ms.iter_mut().for_each(|row| row[at] *= factor);
            }
        }
        let expected = self.retimed(workflow, plan);
        (self, expected)
    }

    fn factor(&self, name: &TaskName) -> Option<f64> {
        self.factors.iter().find(|(of, _)| of == name).map(|(_, factor)| *factor)
    }

    /// `plan` with the times in the user's code that are predicted now; those around them stay.
    fn retimed(&self, workflow: &Workflow, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        for (at, task) in plan.tasks.iter_mut().enumerate() {
            let size = self.table.configs.iter().position(|c| c.key() == task.config.key());
            if let Some(exec_ms) = size.map(|size| self.table.exec_ms[size][at]) {
                task.end_ms += exec_ms - task.exec_ms;
                task.exec_ms = exec_ms;
            }
        }
        self.fill(workflow, &mut plan);
        plan
    }

    fn fill(&self, workflow: &Workflow, plan: &mut Plan) {
        let Some(model) = &self.model else { return };
        forecast::fill(workflow, &self.table, plan, |query, slas| {
            let mut answer: Prediction = model.predict(query, slas);
            if let Query::ExecutionTime { task, .. } = query
                && let Some(factor) = self.factor(task)
            {
                answer.values.values_mut().flatten().for_each(|ms| *ms *= factor);
            }
            answer
        });
    }
}
