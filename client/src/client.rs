//! The client: predicts, plans and submits workflows, and finds runs again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foresail_model::Predictor;
use foresail_planner as planner;
use foresail_schemas::config::Sla;
use foresail_schemas::decision::DecisionForecast;
use foresail_schemas::id::RunId;
use foresail_schemas::listing::{RunList, TaskEntry, TaskList, WorkflowEntry, WorkflowList};
use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Objective, Plan, PredictionTable, Problem};
use foresail_schemas::platform::{Platform, Rates};
use foresail_schemas::prediction::{Basis, PredictionAnswer, PredictionRequest};
use foresail_schemas::retry::SizeMenu;
use foresail_schemas::run::{CurrentPlan, Resume, RunCreated, RunOptions, RunRequest, RunSummary};
use foresail_schemas::score::WorkflowScores;
use foresail_schemas::{ErrorCode, TaskId, TaskName, Workflow, WorkflowName};
use foresail_worker::data::s3;
use foresail_worker::data::store::StoreError;
use serde::de::DeserializeOwned;

use crate::basis;
use crate::error::ClientError;
use crate::forecast::{self, Models};
use crate::http::{Call, Service};
use crate::planning::{self, Stop};
use crate::predict;
use crate::replan::Replanner;
use crate::resume;
use crate::run::RunHandle;
use crate::settings::ClientSettings;
use crate::uncertainty;
use crate::watch::{self, Bucket, Services};

/// Counts the runs of this process, so that two started in the same millisecond have different ids.
static RUNS_STARTED: AtomicU32 = AtomicU32::new(0);

/// A connection to metad and to the host of the workers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) services: Arc<Services>,
    pub(crate) models: Arc<Models>,
}

/// How a workflow is run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubmitOptions {
    /// Id of the run; one is made of the time where absent.
    pub run: Option<RunId>,
    /// Limits and intervals of the run, and whether its intermediate objects are kept.
    pub limits: RunOptions,
    /// Prices by which the cost is told; those of the platform of the plan where absent.
    pub rates: Option<Rates>,
    /// An ended run whose results are taken over where their tasks are the same in this workflow.
    pub resume: Option<RunId>,
    /// The platform that a run is re-planned for; the built-in one that the plan names where absent.
    pub platform: Option<Platform>,
    /// What a new plan of the run shall not do beside running tasks.
    pub without: Vec<OptimizationKind>,
}

impl SubmitOptions {
    /// The defaults, with the prices and sizes of this platform; for one that is not built in.
    #[must_use]
    pub fn on(platform: &Platform) -> Self {
        let limits = RunOptions { sizes: SizeMenu::of(&platform.menu), ..RunOptions::default() };
        let (rates, platform) = (Some(platform.rates()), Some(platform.clone()));
        Self { rates, limits, platform, ..Self::default() }
    }
}

impl Client {
    /// Connects with the default settings.
    ///
    /// # Errors
    /// [`ClientError`] when an address is none or metad does not answer.
    pub async fn connect(metad_url: &str, host_url: &str) -> Result<Self, ClientError> {
        Self::connect_with(metad_url, host_url, ClientSettings::default()).await
    }

    /// Connects with other limits.
    ///
    /// # Errors
    /// [`ClientError`] when an address is none or metad does not answer.
    pub async fn connect_with(
        metad_url: &str,
        host_url: &str,
        settings: ClientSettings,
    ) -> Result<Self, ClientError> {
        let metad = Service::new("metad", metad_url, &settings)?;
        let host = Service::new("the host of the workers", host_url, &settings)?;
        metad.bytes(Call::get(&["readyz"])).await?;
        let part = "the store of objects";
        let unusable = |e: StoreError| ClientError::Stack { part, reason: e.to_string() };
        let bucket = settings.bucket.as_ref().map(s3::open).transpose().map_err(unusable)?.map(Bucket);
        Ok(Self { services: Arc::new(Services { metad, host, bucket }), models: Arc::default() })
    }

    /// What is known about `workflow` at `sla`: the model is downloaded once and asked in this process; where
    /// it knows nothing the table has hints and assumptions and the basis is `none`.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer or its model cannot be read.
    pub async fn predictions(
        &self,
        workflow: &Workflow,
        platform: &Platform,
        sla: Sla,
    ) -> Result<PredictionTable, ClientError> {
        self.predictions_given(workflow, platform, sla, BTreeMap::new()).await
    }

    /// As [`Self::predictions`], where it is known what some tasks decide.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer or its model cannot be read.
    pub async fn predictions_given(
        &self,
        workflow: &Workflow,
        platform: &Platform,
        sla: Sla,
        decisions: BTreeMap<TaskId, DecisionForecast>,
    ) -> Result<PredictionTable, ClientError> {
        let blind = PredictionTable { decisions, ..planner::blind_table(workflow, platform, sla) };
        Ok(match self.model(workflow.name()).await? {
            None => blind,
            Some((model, epoch)) => {
                let ask = |query: &_, sla| model.predict(query, &[sla]);
                let table = predict::table(workflow, blind, epoch, platform.inline_bytes_max, ask);
                self.models.keep(workflow.name(), epoch, Arc::new(model));
                table
            }
        })
    }

    /// Adds to `table` the distributions behind its times, from the model that it was made of, so that plans
    /// have an outlook and `robust` can look for one that keeps a deadline with the probability asked for.
    /// It adds nothing where the table is none of the latest of [`Self::predictions`] of this client or a
    /// clone of it, or where nothing was measured.
    pub fn add_distributions(&self, workflow: &Workflow, platform: &Platform, table: &mut PredictionTable) {
        if let Some(model) = self.models.find(workflow.name(), table.epoch) {
            let ask = |query: &_, slas: &[Sla]| model.predict(query, slas);
            let found = uncertainty::distributions(workflow, table, platform.inline_bytes_max, ask);
            table.uncertainty = Some(found);
        }
    }

    /// The model of a workflow and its epoch; nothing where nothing was measured.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer or its model cannot be read.
    pub async fn model(&self, workflow: &WorkflowName) -> Result<Option<(Predictor, u64)>, ClientError> {
        let call = Call::get(&["v1", "workflows", workflow.as_str(), "model"]);
        match self.services.metad.packed_and_epoch(call).await {
            Ok(model) => Ok(Some(model)),
            Err(error) if error.code() == Some(ErrorCode::WorkflowNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks metad several questions about one workflow; the answers stand in the order of the questions.
    /// What this workflow does not know is answered from other workflows, with the basis `prior`.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer, or refuses a question.
    pub async fn ask(
        &self,
        workflow: &WorkflowName,
        request: &PredictionRequest,
    ) -> Result<PredictionAnswer, ClientError> {
        let call = Call::post(&["v1", "workflows", workflow.as_str(), "predictions"], request);
        self.services.metad.json(call).await
    }

    /// The workflows of which something was measured or run.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn workflows(&self) -> Result<Vec<WorkflowEntry>, ClientError> {
        let (mut workflows, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(&["v1", "workflows"], after.as_ref());
            let WorkflowList { workflows: found, next_after, .. } = page.await?;
            let is_last = next_after.is_none() || found.is_empty();
            workflows.extend(found);
            if is_last {
                return Ok(workflows);
            }
            after = next_after;
        }
    }

    /// The measured tasks of a workflow, by name; nothing where the workflow is not known.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn tasks(&self, workflow: &WorkflowName) -> Result<Option<Vec<TaskEntry>>, ClientError> {
        let (mut tasks, mut after) = (Vec::new(), None);
        loop {
            let path = ["v1", "workflows", workflow.as_str(), "tasks"];
            match self.page(&path, after.as_ref()).await {
                Ok(TaskList { tasks: found, next_after, .. }) => {
                    let is_last = next_after.is_none() || found.is_empty();
                    tasks.extend(found);
                    if is_last {
                        return Ok(Some(tasks));
                    }
                    after = next_after;
                }
                Err(error) if error.code() == Some(ErrorCode::WorkflowNotFound) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The page of a list behind an entry.
    async fn page<T: DeserializeOwned>(
        &self,
        path: &[&str],
        after: Option<&impl ToString>,
    ) -> Result<T, ClientError> {
        let call = Call::get(path);
        let call = if let Some(after) = after { call.query("after", after.to_string()) } else { call };
        self.services.metad.json(call).await
    }

    /// How well plans of a workflow predicted the times of all its tasks; nothing where the workflow is not
    /// known.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn scores(&self, workflow: &WorkflowName) -> Result<Option<WorkflowScores>, ClientError> {
        let (mut scores, mut after): (Option<WorkflowScores>, Option<TaskName>) = (None, None);
        loop {
            let path = ["v1", "workflows", workflow.as_str(), "scores"];
            let page: WorkflowScores = match self.page(&path, after.as_ref()).await {
                Ok(page) => page,
                Err(error) if error.code() == Some(ErrorCode::WorkflowNotFound) => return Ok(None),
                Err(error) => return Err(error),
            };
            after = page.next_after.clone();
            match &mut scores {
                // The sum is that of the first page.
                Some(all) => all.tasks.extend(page.tasks),
                None => scores = Some(WorkflowScores { next_after: None, ..page }),
            }
            if after.is_none() {
                return Ok(scores);
            }
        }
    }

    /// Plans a problem like [`plan`], and writes into the plan what the model forecasts for each task, so
    /// that the forecasts are scored when the plan was carried out. It has them where the predictions of the
    /// problem are the latest of [`Self::predictions`] of this client or a clone of it.
    ///
    /// # Errors
    /// [`ClientError::NoPlan`] when there is no such planner, or it finds no plan.
    pub fn plan(&self, planner: &str, problem: &Problem) -> Result<Plan, ClientError> {
        self.plan_until(planner, problem, &Stop::never())
    }

    /// Plans like [`Self::plan`]; a planner in another process is ended once `stop` is asked for.
    ///
    /// # Errors
    /// [`ClientError::NoPlan`] when there is no such planner, or it finds no plan.
    pub fn plan_until(&self, planner: &str, problem: &Problem, stop: &Stop) -> Result<Plan, ClientError> {
        self.forecast(problem, planning::plan_until(planner, problem, stop)?)
    }

    /// As [`Client::plan_until`], for a run that begins at once: without the outlook, whose draws take longer
    /// than many a plan.
    ///
    /// # Errors
    /// As [`Client::plan_until`].
    pub fn plan_to_run(&self, planner: &str, problem: &Problem, stop: &Stop) -> Result<Plan, ClientError> {
        self.forecast(problem, planning::plan_alone_until(planner, problem, stop)?)
    }

    fn forecast(&self, problem: &Problem, mut plan: Plan) -> Result<Plan, ClientError> {
        let (workflow, table) = (&problem.workflow, &problem.predictions);
        if let Some(model) = self.models.find(workflow.name(), table.epoch) {
            forecast::fill(workflow, table, &mut plan, |query, slas| model.predict(query, slas));
        }
        Ok(plan)
    }

    /// What the execution time of every task rests on at the size that `plan` chose for it; over the whole
    /// menu where the predictions of the problem are not the latest of this client.
    #[must_use]
    pub fn basis(&self, problem: &Problem, plan: &Plan) -> Vec<Basis> {
        let (workflow, table) = (&problem.workflow, &problem.predictions);
        match self.models.find(workflow.name(), table.epoch) {
            None => table.basis.clone(),
            Some(model) => basis::of_plan(workflow, table, plan, &model),
        }
    }

    /// Starts a run: stores it, invokes its first workers and watches over it until the handle is dropped.
    ///
    /// # Errors
    /// [`ClientError`] when metad refuses the run or no worker can be asked for; the run is then cancelled.
    pub async fn submit(
        &self,
        workflow: &Workflow,
        plan: Plan,
        options: SubmitOptions,
    ) -> Result<RunHandle, ClientError> {
        let SubmitOptions { run, mut limits, rates, resume, platform, without } = options;
        let resume = match resume {
            Some(run) => Some(Resume { without: resume::lost(&self.services, &run).await?, run }),
            None => None,
        };
        if limits.sizes.is_empty() {
            limits.sizes = sizes_of(&plan);
        }
        let request = RunRequest {
            run: Some(run.unwrap_or_else(new_run_id)),
            workflow: workflow.clone(),
            plan,
            options: limits,
            resume,
        };
        let RunCreated { run, reused, .. } =
            self.services.metad.json(Call::post(&["v1", "runs"], &request)).await?;
        let plan = request.plan;
        let rates = rates.unwrap_or_else(|| rates_of(&plan));
        let mut handle = RunHandle::new(self.services.clone(), run, workflow.clone(), plan, rates);
        handle.reused = reused;
        let begun = async {
            let ready = match &request.resume {
                Some(_) => resume::ready(&self.services, handle.id(), workflow).await?,
                None => workflow.graph().sources().collect(),
            };
            watch::begin(&self.services, handle.id(), ready, 1, handle.plan()).await
        };
        if let Err(error) = begun.await {
            let _ = handle.cancel("its first workers could not be started").await;
            return Err(error);
        }
        let platform = platform.unwrap_or_else(|| platform_of(handle.plan()));
        let current = CurrentPlan { epoch: 1, plan: handle.plan().clone(), options: limits };
        let replanner = self.replanner_of(handle.id(), workflow.clone(), current, platform);
        handle.watch(1, limits, Replanner { without, ..replanner });
        Ok(handle)
    }

    /// A run that was started before and that nobody works on any more: starts what is ready, and watches
    /// over it until the handle is dropped. It goes on under the plan in force. Where somebody does work on
    /// it, no harm is done. It is re-planned as its limits say, for the built-in platform that its plan
    /// names.
    ///
    /// # Errors
    /// [`ClientError`] when there is no such run, or no worker can be asked for.
    pub async fn take_up(&self, run: &RunId) -> Result<RunHandle, ClientError> {
        self.take_up_on(run, None).await
    }

    /// As [`Self::take_up`], on workers of this platform.
    ///
    /// # Errors
    /// As [`Self::take_up`].
    pub async fn take_up_on(
        &self,
        run: &RunId,
        platform: Option<Platform>,
    ) -> Result<RunHandle, ClientError> {
        let (workflow, current) = self.workflow_and_plan(run).await?;
        let CurrentPlan { epoch, ref plan, options } = current;
        let ready = resume::ready(&self.services, run, &workflow).await?;
        watch::begin(&self.services, run, ready, epoch, plan).await?;
        let platform = platform.unwrap_or_else(|| platform_of(plan));
        let (services, rates, plan) = (self.services.clone(), rates_of(plan), plan.clone());
        let replanner = self.replanner_of(run, workflow.clone(), current, platform);
        let mut handle = RunHandle::new(services, run.clone(), workflow, plan, rates);
        handle.watch(epoch, options, replanner);
        Ok(handle)
    }

    /// A run that was started before, to look at it or to cancel it; nobody watches over it from here.
    ///
    /// # Errors
    /// [`ClientError`] when there is no such run.
    pub async fn attach(&self, run: &RunId) -> Result<RunHandle, ClientError> {
        let (workflow, current) = self.workflow_and_plan(run).await?;
        let rates = rates_of(&current.plan);
        Ok(RunHandle::new(self.services.clone(), run.clone(), workflow, current.plan, rates))
    }

    /// What is run, and the plan in force.
    pub(crate) async fn workflow_and_plan(
        &self,
        run: &RunId,
    ) -> Result<(Workflow, CurrentPlan), ClientError> {
        let metad = &self.services.metad;
        let workflow = metad.json(Call::get(&["v1", "runs", run.as_str(), "workflow"])).await?;
        let plan = metad.json(Call::get(&["v1", "runs", run.as_str(), "plan"])).await?;
        Ok((workflow, plan))
    }

    /// The runs that metad keeps, youngest first.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn runs(&self) -> Result<Vec<RunSummary>, ClientError> {
        let RunList { runs } = self.services.metad.json(Call::get(&["v1", "runs"])).await?;
        Ok(runs)
    }

    /// The runs that have not ended, youngest first.
    pub(crate) async fn running(&self) -> Result<Vec<RunSummary>, ClientError> {
        let call = Call::get(&["v1", "runs"]).query("status", "running");
        let RunList { runs } = self.services.metad.json(call).await?;
        Ok(runs)
    }

    /// Stops the idle workers of the host, so that the next run starts cold.
    ///
    /// # Errors
    /// [`ClientError`] when the host does not answer.
    pub async fn drain(&self) -> Result<(), ClientError> {
        self.services.host.bytes(Call::post(&["v1", "drain"], &())).await.map(drop)
    }

    /// What the host is doing.
    ///
    /// # Errors
    /// [`ClientError`] when the host does not answer.
    pub async fn host_status(&self) -> Result<foresail_schemas::invocation::HostStatus, ClientError> {
        self.services.host.json(Call::get(&["v1", "status"])).await
    }
}

/// Plans a problem with the planner of this name, or with the program behind `exec:`; see [`planning`]. Needs
/// no connection. Where the problem has distributions the plan has an outlook.
///
/// # Errors
/// [`ClientError::NoPlan`] when there is no such planner, or it finds no plan.
pub fn plan(planner: &str, problem: &Problem) -> Result<Plan, ClientError> {
    planning::plan_until(planner, problem, &Stop::never())
}

/// A problem for [`plan`] from its parts.
#[must_use]
pub fn problem(
    workflow: &Workflow,
    platform: &Platform,
    predictions: PredictionTable,
    objective: Objective,
    seed: u64,
) -> Problem {
    let (workflow, platform) = (workflow.clone(), platform.clone());
    Problem { workflow, platform, predictions, objective, seed, without: Vec::new() }
}

fn rates_of(plan: &Plan) -> Rates {
    platform_of(plan).rates()
}

pub(crate) fn platform_of(plan: &Plan) -> Platform {
    let mut platforms = Platform::built_in();
    let at = platforms.iter().position(|p| p.name == plan.platform).unwrap_or(0);
    platforms.swap_remove(at)
}

/// What the platform of the plan offers, where it is a built-in one.
fn sizes_of(plan: &Plan) -> SizeMenu {
    let platform = Platform::built_in().into_iter().find(|p| p.name == plan.platform);
    platform.map_or_else(SizeMenu::default, |platform| SizeMenu::of(&platform.menu))
}

/// `r-20260105-101530-4f2a1c`: sorts by time, and does not repeat across processes.
fn new_run_id() -> RunId {
    let now = jiff::Timestamp::now();
    let count = RUNS_STARTED.fetch_add(1, Ordering::Relaxed);
    let salt = format!("{} {count} {}", std::process::id(), now.as_nanosecond());
    let salt = blake3::hash(salt.as_bytes()).to_hex();
    RunId::new(format!("r-{}-{}", now.strftime("%Y%m%d-%H%M%S"), &salt[..6]))
        .expect("digits, letters and dashes are a legal id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_differ_although_they_are_made_at_the_same_time() {
        let ids: std::collections::HashSet<_> = (0..100).map(|_| new_run_id()).collect();
        assert_eq!(ids.len(), 100);
    }
}
