//! Starts a run's first workers and drives its watchdog: the part of choreography that the client carries
//! out.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_choreography::{Action, Event, Invoke, PlanView, TimedStart, Watchdog};
use foresail_schemas::id::RunId;
use foresail_schemas::invocation::{Invocation, Invoked, Purpose};
use foresail_schemas::plan::Plan;
use foresail_schemas::run::{CurrentPlan, Operation, OperationAnswer, OperationRequest, RunOptions};
use futures_util::stream::{self, StreamExt};

use crate::error::ClientError;
use crate::http::{Call, Service};

/// Most first invocations under way at the same time.
const INVOCATIONS_AT_ONCE: usize = 16;
/// Longest sleep between two looks, should the machine name no time.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// The two services a run needs.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub metad: Service,
    pub host: Service,
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
    plan: &Plan,
) -> Result<(), ClientError> {
    let first = foresail_choreography::invocations_for(ready, &PlanView::new(1, plan));
    let mut under_way = stream::iter(first)
        .map(|invoke| services.invoke(run, invoke, Purpose::Work))
        .buffered(INVOCATIONS_AT_ONCE);
    while let Some(done) = under_way.next().await {
        done?;
    }
    Ok(())
}

/// Watches until the run has ended, and starts meanwhile the workers that the plan wants to be warm.
pub(crate) async fn watch(services: Services, run: RunId, plan: Plan, options: RunOptions) {
    let view = Arc::new(PlanView::new(1, &plan));
    tokio::select! {
        () = watch_over(services.clone(), run.clone(), Arc::clone(&view), options) => {}
        () = start_beforehand(&services, &run, &view) => {}
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

/// A metad that does not answer is not given up: once restarted it is found again. One that refuses for
/// good, because it knows no such run or wants another token, ends the watching.
async fn watch_over(services: Services, run: RunId, view: Arc<PlanView>, options: RunOptions) {
    let mut machine = Watchdog::new(view, options);
    let mut shell = Shell { services, run, began: Instant::now(), wake: None, events: VecDeque::new() };
    let mut actions = Vec::new();
    machine.start(shell.now_ms(), &mut actions);
    loop {
        shell.wake = None;
        for action in actions.drain(..) {
            if action == Action::Finished {
                return;
            }
            if shell.perform(action).await.is_break() {
                return;
            }
        }
        let event = match shell.events.pop_front() {
            Some(event) => event,
            None => {
                shell.sleep().await;
                Event::Tick
            }
        };
        machine.handle(event, shell.now_ms(), &mut actions);
    }
}

/// The I/O of the machine.
struct Shell {
    services: Services,
    run: RunId,
    began: Instant,
    wake: Option<f64>,
    events: VecDeque<Event>,
}

impl Shell {
    fn now_ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1000.0
    }

    async fn sleep(&self) {
        let longest_ms = SLEEP_MAX.as_secs_f64() * 1000.0;
        let left_ms = self.wake.map_or(longest_ms, |at_ms| (at_ms - self.now_ms()).clamp(0.0, longest_ms));
        tokio::time::sleep(Duration::from_secs_f64(left_ms / 1000.0)).await;
    }

    /// Carries out an action; breaks where no later one can succeed either.
    async fn perform(&mut self, action: Action) -> ControlFlow<()> {
        let run = &self.run;
        match action {
            Action::Operate { request, operations } => {
                self.events.push_back(match self.services.operate(run, operations.to_vec()).await {
                    Ok(answer) => Event::Answered { request, answer },
                    Err(error) if error.is_final_refusal() => {
                        tracing::error!(%run, "nobody watches over the run any more: {error}");
                        return ControlFlow::Break(());
                    }
                    Err(error) => {
                        tracing::warn!(%run, "the watchdog was not answered: {error}");
                        Event::Unanswered { request }
                    }
                });
            }
            Action::ReadPlan => {
                let call = Call::get(&["v1", "runs", run.as_str(), "plan"]);
                match self.services.metad.json(call).await {
                    Ok(CurrentPlan { epoch, plan, .. }) => {
                        self.events.push_back(Event::PlanRead { epoch, plan: Box::new(plan) });
                    }
                    Err(error) => tracing::warn!(%run, "the new plan could not be read: {error}"),
                }
            }
            Action::Invoke(invoke) => {
                tracing::info!(%run, tasks = ?invoke.tasks, "the watchdog starts tasks again");
                if let Err(error) = self.services.invoke(run, invoke, Purpose::Work).await {
                    tracing::warn!(%run, "{error}");
                }
            }
            Action::WakeAt { at_ms } => self.wake = Some(at_ms),
            // A watchdog runs no tasks and holds no subscription; its end is handled by the loop.
            Action::Execute { .. }
            | Action::Store { .. }
            | Action::PreLoad { .. }
            | Action::PreWarm { .. }
            | Action::Abort { .. }
            | Action::Discard { .. }
            | Action::Listen { .. }
            | Action::ReadUsage
            | Action::Finished => {}
        }
        ControlFlow::Continue(())
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
        let services = Services { metad: service.clone(), host: service };
        let mut flow = WorkflowBuilder::new("one");
        flow.task("a").command("true");
        let workflow = flow.build().unwrap();
        let platform = Platform::built_in().swap_remove(0);
        let blind = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        let plan = plan("simple", &problem(&workflow, &platform, blind, Objective::Fastest, 0)).unwrap();
        let options = RunOptions { watch_ms: 1.0, ..RunOptions::default() };
        let watching = watch(services, "r-unknown".parse().unwrap(), plan, options);
        tokio::time::timeout(Duration::from_secs(60), watching).await.expect("the watching ends by itself");
    }
}
