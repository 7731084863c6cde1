//! The methods of the bridge and what a session remembers between them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foresail_schemas::config::Sla;
use foresail_schemas::id::RunId;
use foresail_schemas::plan::{Plan, Problem};
use foresail_schemas::prediction::{Basis, PredictionRequest};
use foresail_schemas::run::ReplanMode;
use foresail_schemas::workflow::WorkflowSpec;
use foresail_schemas::{Workflow, WorkflowName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::wire::{Fault, notification};
use super::{PROTOCOL, Place, Served, follow, reasons, results};
use crate::cli::args::parse_objective;
use crate::client::{Client, SubmitOptions};
use crate::error::ClientError;
use crate::omitted::Omitted;
use crate::planning::Stop;
use crate::prepare::{PlanRequest, Warmth};
use crate::run::RunHandle;

/// Plans that are kept to be submitted or explained; the oldest goes.
const PLANS_MAX: usize = 32;
/// Runs whose handles are kept; of more, the oldest that has ended goes.
const RUNS_MAX: usize = 1_024;
/// Longest wait for events in one request.
const EVENTS_WAIT_MAX: Duration = Duration::from_secs(20);

/// One session.
#[derive(Debug)]
pub struct Session {
    pub served: Served,
    /// Where files are exchanged.
    pub folder: PathBuf,
    say: mpsc::Sender<String>,
    over: Arc<Notify>,
    stop: Stop,
    numbers: AtomicU64,
    plans: Mutex<VecDeque<(String, Arc<Planned>)>>,
    runs: Mutex<VecDeque<Arc<RunHandle>>>,
}

/// A plan and what it was made of.
#[derive(Debug)]
pub struct Planned {
    pub problem: Problem,
    pub plan: Plan,
    basis: Vec<Basis>,
}

/// What is planned or run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The workflow.
    #[serde(default)]
    workflow: Option<WorkflowSpec>,
    /// A file that has it, as JSON.
    #[serde(default)]
    workflow_file: Option<PathBuf>,
    /// A plan that was made before, instead of both.
    #[serde(default)]
    plan: Option<String>,
    #[serde(default)]
    options: Options,
}

/// How it is planned and run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    planner: String,
    objective: String,
    sla: Sla,
    seed: u64,
    without: Vec<Omitted>,
    replan: ReplanMode,
    keep_intermediate: bool,
    attempts_max: Option<u32>,
    resume: Option<RunId>,
}

impl Default for Options {
    fn default() -> Self {
        let PlanRequest { planner, sla, seed, .. } = PlanRequest::default();
        let (objective, replan, without) = ("fastest".to_owned(), ReplanMode::Off, Vec::new());
        let (keep_intermediate, attempts_max, resume) = (false, None, None);
        Self { planner, objective, sla, seed, without, replan, keep_intermediate, attempts_max, resume }
    }
}

/// How a plan is made: with what is told of it, or as it is run.
type Make = fn(&Client, &str, &Problem, &Stop) -> Result<Plan, ClientError>;

impl Session {
    pub fn new(served: Served, folder: PathBuf, say: mpsc::Sender<String>, over: Arc<Notify>) -> Self {
        Self {
            served,
            folder,
            say,
            over,
            stop: Stop::never(),
            numbers: AtomicU64::new(1),
            plans: Mutex::default(),
            runs: Mutex::default(),
        }
    }

    /// Writes a line; nothing where nobody reads any more.
    pub async fn say(&self, line: String) {
        let _ = self.say.send(line).await;
    }

    /// Tells something unasked.
    pub async fn tell(&self, method: &str, params: &Value) {
        self.say(notification(method, params)).await;
    }

    /// Carries out a request.
    pub async fn call(self: &Arc<Self>, method: &str, params: Value) -> Result<Value, Fault> {
        match method {
            "hello" => self.hello(&read::<Hello>(params)?),
            "plan" => self.plan(read(params)?).await,
            "submit" => self.submit(read(params)?).await,
            "follow" => follow::begin(self, read(params)?).await,
            "progress" => follow::once(self, &read::<OfRun>(params)?.run).await,
            "result" => results::write(self, read(params)?).await,
            "cancel" => self.cancel(read(params)?).await,
            "explain" => reasons::explain(self, read(params)?).await,
            "page" => reasons::page(self, read(params)?).await,
            "events" => self.events(read(params)?).await,
            "bill" => self.bill(&read::<OfRun>(params)?.run).await,
            "predict" => self.predict(read(params)?).await,
            "runs" => Ok(json!(self.served.client.runs().await?)),
            "close" => {
                self.over.notify_one();
                Ok(Value::Null)
            }
            _ => Err(Fault::no_method(method)),
        }
    }

    /// Cancels the runs of a stack that ends with the session, and ends programs that plan.
    pub async fn end(&self) {
        self.stop.ask();
        let runs: Vec<_> = lock(&self.runs).drain(..).collect();
        if self.served.place != Place::Running {
            let ending = runs.iter().map(|run| run.cancel("the session that started it has ended"));
            futures_util::future::join_all(ending).await;
        }
    }

    fn hello(&self, hello: &Hello) -> Result<Value, Fault> {
        if hello.protocol != PROTOCOL {
            let asked = hello.protocol;
            return Err(Fault::wrong(
                format!("the package speaks version {asked} of the bridge, `foresail` {PROTOCOL}"),
                "install both from the same version; FORESAIL_BINARY may name an older program",
            ));
        }
        let Served { platform, place, metad, host, .. } = &self.served;
        let data = if let Place::Embedded(data) = place { Some(data) } else { None };
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": PROTOCOL,
            "process": std::process::id(),
            "folder": self.folder,
            "data": data,
            "metad": metad,
            "host": host,
            "platform": platform.name,
            "workers": platform.concurrency_max,
            "memory_mb": platform.menu.iter().map(|size| size.memory_mb).collect::<Vec<_>>(),
        }))
    }

    async fn plan(&self, asked: Asked) -> Result<Value, Fault> {
        let make: Make = Client::plan_until;
        let planned = self.planned(asked.workflow, asked.workflow_file, &asked.options, make).await?;
        let basis: Vec<&str> = planned.basis.iter().map(|basis| crate::cli::basis_name(*basis)).collect();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let id = format!("plan-{number}");
        let answer = json!({ "id": id, "plan": planned.plan, "basis": basis });
        self.keep_plan(id, planned);
        Ok(answer)
    }

    async fn planned(
        &self,
        workflow: Option<WorkflowSpec>,
        file: Option<PathBuf>,
        options: &Options,
        make: Make,
    ) -> Result<Arc<Planned>, Fault> {
        let workflow = match (workflow, file) {
            (Some(spec), _) => checked(spec)?,
            (None, Some(file)) => read_workflow(&file).await?,
            (None, None) => return Err(Fault::wrong("there is no workflow", "give `workflow` or `plan`")),
        };
        let wrong = |e: String| Fault::wrong(e, "docs/python-api.md has the objectives");
        let request = PlanRequest {
            planner: options.planner.clone(),
            objective: parse_objective(&options.objective).map_err(wrong)?,
            sla: options.sla,
            seed: options.seed,
            without: Omitted::planned(&options.without),
            warmth: Warmth::AsFound,
        };
        let Served { client, platform, .. } = &self.served;
        let problem = client.prepare(&workflow, platform, &request).await?;
        let (with, stop) = (client.clone(), self.stop.clone());
        let work = move || {
            let plan = make(&with, &request.planner, &problem, &stop)?;
            Ok(Arc::new(Planned { basis: with.basis(&problem, &plan), plan, problem }))
        };
        apart(work).await?
    }

    async fn submit(&self, asked: Asked) -> Result<Value, Fault> {
        let Asked { workflow, workflow_file, plan, options } = asked;
        let planned = match plan {
            Some(id) => self.find_plan(&id).ok_or_else(|| no_plan(&id))?,
            None => self.planned(workflow, workflow_file, &options, Client::plan_to_run).await?,
        };
        let mut submit = SubmitOptions { resume: options.resume, ..SubmitOptions::on(&self.served.platform) };
        submit.without = Omitted::planned(&options.without);
        Omitted::switch_off(&options.without, &mut submit.limits);
        submit.limits.keep_intermediate = options.keep_intermediate;
        submit.limits.replan = options.replan;
        if let Some(attempts_max) = options.attempts_max {
            submit.limits.attempts_max = attempts_max;
        }
        let (workflow, plan) = (&planned.problem.workflow, planned.plan.clone());
        let handle = Arc::new(self.served.client.submit(workflow, plan, submit).await?);
        let run = handle.id().to_string();
        self.keep_run(Arc::clone(&handle));
        self.keep_plan(run.clone(), planned);
        let plan = handle.plan();
        Ok(json!({
            "run": run,
            "tasks": plan.tasks.len(),
            "planner": plan.planner,
            "workers": plan.workers.len(),
            "predicted": plan.predicted,
            "reused": handle.reused(),
        }))
    }

    async fn cancel(&self, cancel: Cancel) -> Result<Value, Fault> {
        self.run(&cancel.run).await?.cancel(&cancel.reason).await?;
        Ok(Value::Null)
    }

    async fn events(&self, asked: EventsOf) -> Result<Value, Fault> {
        let wait = Duration::try_from_secs_f64(asked.wait_ms / 1000.0).unwrap_or_default();
        let run = self.run(&asked.run).await?;
        Ok(json!(run.events_after(asked.after, wait.min(EVENTS_WAIT_MAX)).await?))
    }

    async fn bill(&self, run: &RunId) -> Result<Value, Fault> {
        Ok(json!(self.run(run).await?.bill(Some(&self.served.platform)).await?))
    }

    async fn predict(&self, asked: Predict) -> Result<Value, Fault> {
        let request = PredictionRequest { sla: asked.sla, queries: asked.queries };
        Ok(json!(self.served.client.ask(&asked.workflow, &request).await?))
    }

    /// A run of this session, or any other that metad keeps.
    pub async fn run(&self, run: &RunId) -> Result<Arc<RunHandle>, Fault> {
        let known = lock(&self.runs).iter().find(|handle| handle.id() == run).map(Arc::clone);
        match known {
            Some(handle) => Ok(handle),
            None => {
                let handle = Arc::new(self.served.client.attach(run).await?);
                self.keep_run(Arc::clone(&handle));
                Ok(handle)
            }
        }
    }

    /// Writes a file of the session and names it; whoever reads it may delete it.
    pub async fn write_file(&self, kind: &str, content: &[u8]) -> std::io::Result<PathBuf> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{kind}-{number}"));
        tokio::fs::write(&path, content).await?;
        Ok(path)
    }

    fn keep_run(&self, handle: Arc<RunHandle>) {
        let mut runs = lock(&self.runs);
        if runs.len() >= RUNS_MAX {
            // A handle that is still used lives on with whoever uses it.
            runs.pop_front();
        }
        runs.push_back(handle);
    }

    fn keep_plan(&self, id: String, planned: Arc<Planned>) {
        let mut plans = lock(&self.plans);
        if plans.len() >= PLANS_MAX {
            plans.pop_front();
        }
        plans.push_back((id, planned));
    }

    /// What is known of a plan, by its id or that of a run.
    pub fn find_plan(&self, id: &str) -> Option<Arc<Planned>> {
        lock(&self.plans).iter().find(|(known, _)| known == id).map(|(_, planned)| Arc::clone(planned))
    }
}

#[derive(Deserialize)]
struct Hello {
    protocol: u32,
}

/// A run.
#[derive(Deserialize)]
pub struct OfRun {
    pub run: RunId,
}

#[derive(Deserialize)]
struct Cancel {
    run: RunId,
    #[serde(default = "asked_for")]
    reason: String,
}

fn asked_for() -> String {
    "the program that started it asked for it".to_owned()
}

#[derive(Deserialize)]
struct EventsOf {
    run: RunId,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: f64,
}

#[derive(Deserialize)]
struct Predict {
    workflow: WorkflowName,
    sla: Vec<Sla>,
    queries: Vec<foresail_schemas::prediction::Query>,
}

/// A plan that is not kept any more.
pub fn no_plan(id: &str) -> Fault {
    let hint = format!("the last {PLANS_MAX} are kept; plan again");
    Fault::wrong(format!("there is no plan `{id}` in this session"), hint)
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, Fault> {
    let hint = "are the package and the program `foresail` of the same version?";
    serde_json::from_value(params).map_err(|e| Fault::wrong(format!("the parameters do not fit: {e}"), hint))
}

async fn read_workflow(file: &Path) -> Result<Workflow, Fault> {
    let text = tokio::fs::read(file).await?;
    let wrong = |e: serde_json::Error| {
        Fault::wrong(format!("the workflow cannot be read: {e}"), "see docs/python-api.md")
    };
    checked(serde_json::from_slice(&text).map_err(wrong)?)
}

fn checked(spec: WorkflowSpec) -> Result<Workflow, Fault> {
    let wrong = |e: foresail_schemas::workflow::WorkflowError| {
        Fault::wrong(format!("the workflow is refused: {e}"), "see docs/python-api.md")
    };
    spec.check().map_err(wrong)
}

/// Work that takes the processor, on a thread that the end of the session does not wait for.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(tell.send(work())));
    let lost = |_| Fault::from(std::io::Error::other("the computation ended without a result"));
    told.await.map_err(lost)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
