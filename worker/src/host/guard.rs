//! Watches over the runs that were invoked here, so that one whose client is gone ends all the same.
//!
//! A client that lives repairs sooner what is stuck, so that this is rarely needed and has to cost little:
//! one small question per run and `guard_ms`. The plan is read, and a watchdog started, once
//! something was stuck for so long. To repair twice costs an invocation and harms nothing.
//!
//! Only runs of this host's life are watched: others may belong to another host, whose files are not here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use foresail_choreography::{Invoke, PlanView};
use foresail_schemas::id::RunId;
use foresail_schemas::invocation::Invocation;
use foresail_schemas::run::{
    CurrentPlan, Operation, OperationAnswer, OperationRequest, OperationResult, RunOptions, RunStatus,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Host, HostError};
use crate::api::ApiError;
use crate::metad::Metad;
use crate::watch::{Silence, Watched, watch_over};

/// Runs that wait to be watched; of one that finds no place the next invocation tells again.
pub(super) const RUNS_WAITING_MAX: usize = 1024;
/// Runs that are watched at a time.
const RUNS_WATCHED_MAX: usize = 4096;
/// Looks in a row that are passed over because invocations wait for a place: on a host that is always full
/// something may be stuck all the same.
const PASSED_MAX: u32 = 8;

/// Watches over each run that is told of, until it has ended; ends when nobody can tell of any more.
pub(super) async fn guard(pause_ms: f64, metad: Metad, host: Arc<dyn Host>, mut told: mpsc::Receiver<RunId>) {
    let (mut watched, mut watching) = (HashSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            run = told.recv() => {
                let Some(run) = run else { return };
                if watched.len() < RUNS_WATCHED_MAX && watched.insert(run.clone()) {
                    let guarded = Guarded { run, metad: metad.clone(), host: Arc::clone(&host) };
                    watching.spawn(guarded.watch(pause_ms));
                }
            }
            Some(ended) = watching.join_next() => {
                if let Ok(run) = ended {
                    watched.remove(&run);
                }
            }
        }
    }
}

/// A run that is watched.
struct Guarded {
    run: RunId,
    metad: Metad,
    host: Arc<dyn Host>,
}

/// What a look at a run found.
enum Found {
    Over,
    Stuck,
    Nothing,
}

impl Guarded {
    async fn watch(self, pause_ms: f64) -> RunId {
        let pause = Duration::try_from_secs_f64(pause_ms / 1000.0).unwrap_or(Duration::MAX);
        let mut passed = 0;
        loop {
            tokio::time::sleep(pause).await;
            // While invocations wait for a place here, what they are for is not stuck.
            if passed < PASSED_MAX && self.host.status().await.is_ok_and(|status| status.queued > 0) {
                passed += 1;
                continue;
            }
            passed = 0;
            match self.look(pause_ms).await {
                Found::Over => return self.run,
                Found::Stuck => {}
                Found::Nothing => continue,
            }
            let Some(CurrentPlan { epoch, plan, options }) = self.plan().await else { continue };
            tracing::info!(run = %self.run, "tasks are stuck and no client has started them again");
            let options = RunOptions { watch_ms: options.watch_ms.max(pause_ms), ..options };
            watch_over(&self, Arc::new(PlanView::new(epoch, &plan)), options).await;
            return self.run;
        }
    }

    /// Whether something is stuck.
    async fn look(&self, idle_ms_min: f64) -> Found {
        match self.operate(vec![Operation::Frontier { idle_ms_min, limit: 1 }]).await {
            Err(Silence::ForGood) => Found::Over,
            Err(Silence::ForNow) => Found::Nothing,
            Ok(answer) if answer.status != RunStatus::Running => Found::Over,
            Ok(answer) => match answer.results.first() {
                Some(OperationResult::Frontier { ready, .. }) if !ready.is_empty() => Found::Stuck,
                _ => Found::Nothing,
            },
        }
    }
}

impl Watched for Guarded {
    async fn operate(&self, operations: Vec<Operation>) -> Result<OperationAnswer, Silence> {
        let answer = self.metad.operate(&self.run, &OperationRequest { operations }).await;
        answer.map_err(|error| {
            tracing::debug!(run = %self.run, "the watchdog of the host was not answered: {error}");
            let is_refused = matches!(error, ApiError::Refused { .. });
            if is_refused && !error.is_retryable() { Silence::ForGood } else { Silence::ForNow }
        })
    }

    async fn plan(&self) -> Option<CurrentPlan> {
        let plan = self.metad.plan(&self.run).await;
        plan.inspect_err(|error| tracing::warn!(run = %self.run, "the plan could not be read: {error}")).ok()
    }

    async fn invoke(&self, invoke: Invoke) {
        let Invoke { worker, config, tasks } = invoke;
        tracing::info!(run = %self.run, ?tasks, "the host starts tasks again");
        let metad = self.metad.base().to_owned();
        let invocation = Invocation::new(self.run.clone(), worker, config, tasks, metad);
        match self.host.invoke(invocation).await {
            Ok(_) | Err(HostError::Stopped) => {}
            Err(error) => tracing::warn!(run = %self.run, "{error}"),
        }
    }
}
