//! Starts a run's first workers and drives its watchdog: the part of choreography that the client carries
//! out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foresail_choreography::{Invoke, PlanView, TimedStart};
use foresail_schemas::id::RunId;
use foresail_schemas::invocation::{Invocation, Invoked, Purpose};
use foresail_schemas::plan::Plan;
use foresail_schemas::run::{CurrentPlan, Operation, OperationAnswer, OperationRequest, RunOptions};
use foresail_worker::data::store::ObjectStore;
use foresail_worker::watch::{Silence, Watched, watch_over};
use futures_util::stream::{self, StreamExt};

use crate::error::ClientError;
use crate::http::{Call, Service};

/// Most first invocations under way at the same time.
const INVOCATIONS_AT_ONCE: usize = 16;

/// The services a run needs, and its objects where they lie elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub metad: Service,
    pub host: Service,
    pub bucket: Option<Bucket>,
}

/// Where large objects lie that are neither files of this machine nor blobs of metad.
#[derive(Clone)]
pub(crate) struct Bucket(pub Arc<dyn ObjectStore>);

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bucket").field(&self.0.name()).finish()
    }
}

impl Bucket {
    /// Reads an object, on a thread that may wait.
    pub async fn get(&self, key: &str) -> Result<Bytes, String> {
        let (store, key) = (Arc::clone(&self.0), key.to_owned());
        let read = tokio::task::spawn_blocking(move || store.get(&key).map_err(|e| e.to_string()));
        read.await.map_err(|e| e.to_string())?
    }
}

impl Services {
    pub async fn operate(
        &self,
        run: &RunId,
        operations: Vec<Operation>,
    ) -> Result<OperationAnswer, ClientError> {
        let path = ["v1", "runs", run.as_str(), "operations"];
        self.metad.json(Call::post(&path, &OperationRequest { operations })).await
    }

    /// Asks the host for a worker. A host that is full for the moment is no error: the watchdog asks again.
    async fn invoke(&self, run: &RunId, invoke: Invoke, purpose: Purpose) -> Result<(), ClientError> {
        let Invoke { worker, config, tasks } = invoke;
        let metad = self.metad.address().to_owned();
        let invocation = Invocation { purpose, ..Invocation::new(run.clone(), worker, config, tasks, metad) };
        match self.host.json::<Invoked>(Call::post(&["v1", "invocations"], &invocation)).await {
            Err(ClientError::Refused { problem, .. }) if problem.code.is_retryable() => {
                tracing::warn!(%run, "the host has no room yet: {}", problem.detail);
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

/// Invokes the workers that the run begins with: those of the tasks that are ready.
///
/// # Errors
/// [`ClientError`] when the host cannot be reached or refuses for good.
pub(crate) async fn begin(
    services: &Services,
    run: &RunId,
    ready: Vec<u32>,
    epoch: u64,
    plan: &Plan,
) -> Result<(), ClientError> {
    let first = foresail_choreography::invocations_for(ready, &PlanView::new(epoch, plan));
    let mut under_way = stream::iter(first)
        .map(|invoke| services.invoke(run, invoke, Purpose::Work))
        .buffered(INVOCATIONS_AT_ONCE);
    while let Some(done) = under_way.next().await {
        done?;
    }
    Ok(())
}

/// Watches until the run has ended, and starts meanwhile the workers that the plan wants to be warm.
pub(crate) async fn watch(services: Services, run: RunId, epoch: u64, plan: Plan, options: RunOptions) {
    let view = Arc::new(PlanView::new(epoch, &plan));
    let reached = Reached { services, run, is_silent: AtomicBool::new(false) };
    tokio::select! {
        () = watch_over(&reached, Arc::clone(&view), options) => {}
        () = start_beforehand(&reached.services, &reached.run, &view) => {}
    }
}

/// Starts each worker of the plan whose clock is that of the run, at its time; then does nothing more.
async fn start_beforehand(services: &Services, run: &RunId, view: &PlanView) {
    let began = Instant::now();
    let mut starts = view.prewarms(None).to_vec();
    starts.sort_by(|a, b| a.delay_ms.total_cmp(&b.delay_ms));
    for TimedStart { delay_ms, config, .. } in starts {
        let delay = Duration::try_from_secs_f64(delay_ms / 1000.0).unwrap_or(Duration::MAX);
        tokio::time::sleep(delay.saturating_sub(began.elapsed())).await;
        let nothing = Invoke { worker: None, config, tasks: Vec::new() };
        if let Err(error) = services.invoke(run, nothing, Purpose::PreWarm).await {
            tracing::warn!(%run, "a worker could not be started beforehand: {error}");
        }
    }
    std::future::pending().await
}

/// A run and the services that it needs.
struct Reached {
    services: Services,
    run: RunId,
    /// Whether the last question was not answered, which is said once.
    is_silent: AtomicBool,
}

impl Watched for Reached {
    async fn operate(&self, operations: Vec<Operation>) -> Result<OperationAnswer, Silence> {
        let answer = self.services.operate(&self.run, operations).await;
        let was_silent = self.is_silent.swap(answer.is_err(), Ordering::Relaxed);
        answer.map_err(|error| {
            let run = &self.run;
            match error.is_final_refusal() {
                true => {
                    tracing::error!(%run, "nobody watches over the run any more: {error}");
                    Silence::ForGood
                }
                false => {
                    if !was_silent {
                        tracing::warn!(%run, "the watchdog is not answered: {error}");
                    }
                    Silence::ForNow
                }
            }
        })
    }

    async fn plan(&self) -> Option<CurrentPlan> {
        let run = &self.run;
        let plan = self.services.metad.json(Call::get(&["v1", "runs", run.as_str(), "plan"])).await;
        plan.inspect_err(|error| tracing::warn!(%run, "the new plan could not be read: {error}")).ok()
    }

    async fn invoke(&self, invoke: Invoke) {
        let run = &self.run;
        tracing::info!(%run, tasks = ?invoke.tasks, "the watchdog starts tasks again");
        if let Err(error) = self.services.invoke(run, invoke, Purpose::Work).await {
            tracing::warn!(%run, "{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::WorkflowBuilder;
    use crate::client::{plan, problem};
    use crate::settings::ClientSettings;
    use foresail_schemas::Sla;
    use foresail_schemas::plan::Objective;
    use foresail_schemas::platform::Platform;

    #[tokio::test]
    async fn a_run_that_metad_does_not_know_is_watched_no_longer() {
        let data = tempfile::tempdir().unwrap();
        let metad = foresail_metad::Server::start(foresail_metad::Settings::embedded(data.path())).unwrap();
        let address = format!("http://{}", metad.address());
        let service = Service::new("metad", &address, &ClientSettings::default()).unwrap();
        let services = Services { metad: service.clone(), host: service, bucket: None };
        let mut flow = WorkflowBuilder::new("one");
        flow.task("a").command("true");
        let workflow = flow.build().unwrap();
        let platform = Platform::built_in().swap_remove(0);
        let blind = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        let plan = plan("simple", &problem(&workflow, &platform, blind, Objective::Fastest, 0)).unwrap();
        let options = RunOptions { watch_ms: 1.0, ..RunOptions::default() };
        let watching = watch(services, "r-unknown".parse().unwrap(), 1, plan, options);
        tokio::time::timeout(Duration::from_secs(60), watching).await.expect("the watching ends by itself");
    }
}
