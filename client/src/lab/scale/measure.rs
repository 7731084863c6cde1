//! What a metad can do, measured over HTTP: requests and operations on the state of a run, news to listeners,
//! documents.
//!
//! Runs are made for it whose tasks nobody carries out: leases are taken and results committed as fast as
//! they are answered. A metad of this process is measured by the CPU time that the process takes, which is
//! that of the client too: it does better by itself, and what else runs on the machine does not count. One
//! elsewhere is measured by the clock. What batches of measurements take is not measured here (`cargo bench
//! -p foresail-tests --bench speed -- ingest` does). Times in us.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_schemas::id::{InstanceId, RunId};
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{
    Commit, Location, Measured as MeasuredTask, Operation, OperationRequest, OperationResult, RunCreated,
    RunOptions, RunRequest, RunStatus, StoredObject,
};
use foresail_schemas::{Platform, Workflow};
use foresail_worker::api::{Api, ApiError, TRANSFER_LIMIT};
use foresail_worker::metad::Metad;
use tokio::task::JoinSet;

use super::dealt::{dealt, layers};
use super::service::{Measured, Service};
use super::wire;

/// Who asks at the same time.
const CLIENTS: u32 = 64;
/// Tasks that each of them leases and commits.
const TASKS_PER_CLIENT: u32 = 300;
/// Operations in a large request.
const OPERATIONS: usize = 50;
/// How often the documents are read by each of a few.
const READS: u32 = 50;
/// Who reads documents at the same time.
const READERS: u32 = 4;
/// Tasks that are committed while all clients listen.
const NEWS: usize = 1_000;
/// Mean time of the tasks in the plan in ms; nobody runs them.
const TASK_MS: f64 = 1_000.0;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// metad was not reached or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It answered something else than was asked for.
    #[error("metad answered `{0}`, a lease or a commit of a new run is granted")]
    Answer(String),
    /// Somebody who asked ended early.
    #[error("a client of the measurement ended: {0}")]
    Client(#[from] tokio::task::JoinError),
    /// The run of the measurement has no plan.
    #[error(transparent)]
    Draft(#[from] foresail_planner::DraftFailure),
}

/// Where the metad is that is measured, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In this process: by its CPU time.
    Here,
    /// In another: by the clock.
    Elsewhere,
}

impl Where {
    /// Time so far in s; what lies between two of them counts.
    fn now_s(self, began: Instant) -> f64 {
        match self {
            Self::Here => cpu_s().unwrap_or_else(|| began.elapsed().as_secs_f64()),
            Self::Elsewhere => began.elapsed().as_secs_f64(),
        }
    }
}

/// CPU time of this process in s, where `/proc` tells it. Its fields 14 and 15 are user and system time in
/// ticks, of which Linux has 100 a second (proc(5)).
fn cpu_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields = stat.rsplit(") ").next()?.split(' ').skip(11).take(2);
    let ticks: Option<Vec<f64>> = fields.map(|field| field.parse().ok()).collect();
    ticks.map(|ticks| ticks.iter().sum::<f64>() / 100.0)
}

/// What `service` says, with what this metad takes in the place of what is measured here.
///
/// # Errors
/// [`MeasureError`]
pub async fn measure(
    (address, place): (&str, Where),
    token: Option<&str>,
    service: Service,
) -> Result<Service, MeasureError> {
    let bench = Arc::new(Bench {
        place,
        began: Instant::now(),
        api: Api::new(address, token)?,
        metad: Metad::new(address, token)?,
        workflow: layers(CLIENTS * TASKS_PER_CLIENT, 1, TASK_MS),
    });
    let single_us = bench.operations(1).await?;
    let large_us = bench.operations(OPERATIONS).await?;
    let operation_us = (large_us - single_us) / (OPERATIONS - 1) as f64;
    let (news_us, byte_us) = (bench.news(single_us).await?, bench.documents().await?);
    let date = jiff::Timestamp::now().strftime("%Y-%m").to_string();
    let source = "`foresail lab scale --measure`; batches, link and limits as in the table before".to_owned();
    let request_us = single_us - operation_us;
    let origin = Measured { date, source };
    Ok(Service { request_us, operation_us, news_us, byte_us, origin, ..service })
}

struct Bench {
    place: Where,
    began: Instant,
    api: Api,
    metad: Metad,
    workflow: Workflow,
}

impl Bench {
    fn now_s(&self) -> f64 {
        self.place.now_s(self.began)
    }

    /// A new run of tasks that wait for nothing; gives its id.
    async fn run(&self) -> Result<RunId, MeasureError> {
        let platform = Platform::built_in().swap_remove(0);
        let (_, plan) = dealt(&self.workflow, &platform, CLIENTS, 0)?;
        let options = RunOptions { lease_ms: 600_000.0, ..RunOptions::default() };
        let request = RunRequest { run: None, workflow: self.workflow.clone(), plan, options, resume: None };
        let created: RunCreated = self.api.post("/v1/runs", &request, TRANSFER_LIMIT).await?;
        Ok(created.run)
    }

    async fn operate(
        &self,
        run: &RunId,
        operations: Vec<Operation>,
    ) -> Result<Vec<OperationResult>, MeasureError> {
        let answer = self.metad.operate(run, &OperationRequest { operations }).await?;
        let is_good = |result: &OperationResult| {
            matches!(
                result,
                OperationResult::Joined { .. }
                    | OperationResult::Granted { .. }
                    | OperationResult::Won { .. }
                    | OperationResult::Done
            )
        };
        match answer.results.iter().find(|result| !is_good(result)) {
            None => Ok(answer.results),
            Some(other) => Err(MeasureError::Answer(format!("{other:?}"))),
        }
    }

    /// Time of a request with so many leases or commits, all clients together.
    async fn operations(self: &Arc<Self>, count: usize) -> Result<f64, MeasureError> {
        let run = self.run().await?;
        let tasks: Vec<u32> = self.workflow.graph().sources().collect();
        let began_s = self.now_s();
        let mut asking = JoinSet::new();
        for (client, tasks) in tasks.chunks(TASKS_PER_CLIENT as usize).enumerate() {
            let (bench, run, tasks) = (Arc::clone(self), run.clone(), tasks.to_vec());
            asking.spawn(async move { bench.client(&run, client, &tasks, count).await });
        }
        let mut requests = 0;
        while let Some(done) = asking.join_next().await {
            requests += done??;
        }
        Ok((self.now_s() - began_s) * 1e6 / requests as f64)
    }

    /// Joins, and leases and commits its tasks, as many in a request; gives the number of requests.
    async fn client(
        &self,
        run: &RunId,
        client: usize,
        tasks: &[u32],
        count: usize,
    ) -> Result<u64, MeasureError> {
        let instance = instance(client);
        self.operate(run, vec![join(&instance)]).await?;
        let mut requests = 1;
        for tasks in tasks.chunks(count) {
            self.operate(run, tasks.iter().map(|&task| lease(task, &instance)).collect()).await?;
            self.operate(run, tasks.iter().map(|&task| commit(task, &instance)).collect()).await?;
            requests += 2;
        }
        Ok(requests)
    }

    /// Time of telling one listener of one piece of news.
    async fn news(self: &Arc<Self>, single_us: f64) -> Result<f64, MeasureError> {
        let run = self.run().await?;
        let mut listening = JoinSet::new();
        for _ in 0..CLIENTS {
            let (bench, run) = (Arc::clone(self), run.clone());
            listening.spawn(async move { bench.listen(&run).await });
        }
        // Until all of them listen.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began_s = self.now_s();
        let mut asked = 1;
        for at in 0..NEWS {
            // Whoever joins is an event that is told.
            self.operate(&run, vec![join(&instance(at))]).await?;
            asked += 1;
        }
        self.cancel(&run).await?;
        let mut pages = 0;
        while let Some(done) = listening.join_next().await {
            pages += done??;
        }
        let took_us = (self.now_s() - began_s) * 1e6;
        Ok((took_us - single_us * f64::from(asked)).max(0.0) / pages as f64)
    }

    /// Answers until the run is over.
    async fn listen(&self, run: &RunId) -> Result<u64, MeasureError> {
        let (mut after, mut pages) = (0, 0);
        loop {
            let page = self.metad.events(run, after, "worker_joined,run_finished").await?;
            pages += 1;
            if page.status != RunStatus::Running {
                return Ok(pages);
            }
            after = page.next_after;
        }
    }

    /// Time of a byte of the documents that workers read.
    async fn documents(self: &Arc<Self>) -> Result<f64, MeasureError> {
        let run = self.run().await?;
        let bytes = wire::json_bytes(self.workflow.spec());
        let began_s = self.now_s();
        let mut reading = JoinSet::new();
        for _ in 0..READERS {
            let (bench, path) = (Arc::clone(self), format!("/v1/runs/{run}/workflow"));
            reading.spawn(async move {
                for _ in 0..READS {
                    bench.api.get_bytes(&path).await?;
                }
                Ok::<_, ApiError>(())
            });
        }
        while let Some(done) = reading.join_next().await {
            done??;
        }
        self.cancel(&run).await?;
        let all = bytes as f64 * f64::from(READERS * READS);
        Ok((self.now_s() - began_s) * 1e6 / all)
    }

    async fn cancel(&self, run: &RunId) -> Result<(), MeasureError> {
        let reason = "the measurement is done".to_owned();
        self.operate(run, vec![Operation::Cancel { reason }]).await.map(drop)
    }
}

fn instance(number: usize) -> InstanceId {
    InstanceId::new(format!("measured-{number}")).expect("letters, digits and a dash are a legal name")
}

fn join(instance: &InstanceId) -> Operation {
    let config = Platform::built_in()[0].default_config;
    Operation::Join { worker: None, instance: instance.clone(), config, start: StartState::Warm }
}

fn lease(task: u32, instance: &InstanceId) -> Operation {
    Operation::Lease { task, instance: instance.clone(), epoch: 1, assuming: Vec::new() }
}

fn commit(task: u32, instance: &InstanceId) -> Operation {
    let location = Location::Stored("measured".to_owned());
    let output = StoredObject { bytes: 1, hash: "0".repeat(64), location };
    let commit = Commit {
        attempt: 1,
        instance: instance.clone(),
        outputs: vec![output],
        measured: MeasuredTask::default(),
        decision: None,
        printed: None,
    };
    Operation::Commit { task, commit, assuming: Vec::new() }
}
