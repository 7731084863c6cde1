//! Looks after the runs of a stack whose clients are gone: goes on re-planning those that are to be, and
//! takes up those that nobody works on.
//!
//! A stack that stands by itself has what re-planning takes: a client, a planner and the platform of its
//! workers. The host cannot do it, as a worker knows no planner. Each run is only looked at until a client
//! that lives must have acted; where both act, the plan of one of them is refused (compare and set). Plans
//! are not suggested here: a suggestion needs somebody who looks at it, who can ask for one.
//!
//! A run that nobody works on (its client died before it had asked for a worker, or an earlier stack ended
//! with it) is taken up where this stack can carry it out: functions of a user's own binary are not here,
//! and their tasks would fail.

use std::collections::HashMap;
use std::time::Duration;

use foresail_schemas::Workflow;
use foresail_schemas::id::RunId;
use foresail_schemas::platform::Platform;
use foresail_schemas::run::{ReplanMode, RunSummary};
use foresail_schemas::workflow::Work;
use foresail_worker::Registry;
use tokio::task::JoinSet;

use super::Pace;
use crate::client::Client;
use crate::error::ClientError;
use crate::run::RunHandle;

/// Time between two looks at the runs.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// Runs that are looked after at a time.
const RUNS_MAX: usize = 256;

/// What is done for a run.
enum Care {
    /// It is re-planned where its limits say so.
    Replanned,
    /// It is watched over as long as this is kept.
    TakenUp { _handle: Box<RunHandle> },
    /// It was left, and cannot be carried out here.
    Left,
}

/// Looks after the runs of a stack, whose workers have these functions, until it is dropped.
pub async fn attend(client: Client, platform: Platform, functions: Registry) {
    let mut cared: HashMap<RunId, Care> = HashMap::new();
    let mut replanning = JoinSet::new();
    loop {
        tokio::time::sleep(LOOK_PAUSE).await;
        while replanning.try_join_next().is_some() {}
        let running = match client.running().await {
            Ok(running) => running,
            Err(error) => {
                tracing::debug!("the runs could not be looked at: {error}");
                continue;
            }
        };
        cared.retain(|run, _| running.iter().any(|of| of.run == *run));
        for summary in running {
            let run = summary.run.clone();
            let care = match (cared.get(&run), summary.stalled_ms) {
                (None | Some(Care::Replanned), Some(_)) => {
                    take_up(&client, &summary, &platform, &functions).await
                }
                (None, None) if cared.len() < RUNS_MAX => {
                    replanning.spawn(replan(client.clone(), run.clone(), platform.clone()));
                    Ok(Care::Replanned)
                }
                _ => continue,
            };
            match care {
                Ok(care) => drop(cared.insert(run, care)),
                Err(error) => tracing::warn!(%run, "the run could not be taken up: {error}"),
            }
        }
    }
}

/// Goes on re-planning a run, should its client be gone.
async fn replan(client: Client, run: RunId, platform: Platform) {
    match client.replanner(&run, Some(platform)).await {
        Ok(mut replanner) if replanner.mode == ReplanMode::Auto => {
            replanner.pace = Pace::STEWARD;
            replanner.watch().await;
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%run, "the run is not re-planned here: {error}"),
    }
}

async fn take_up(
    client: &Client,
    summary: &RunSummary,
    platform: &Platform,
    functions: &Registry,
) -> Result<Care, ClientError> {
    let run = &summary.run;
    let handle = client.attach(run).await?;
    if !can_run(handle.workflow(), functions) {
        tracing::warn!(%run, "nobody works on the run; hint: resume it from the program with its functions");
        return Ok(Care::Left);
    }
    tracing::info!(%run, "nobody has worked on the run; it goes on");
    Ok(Care::TakenUp { _handle: Box::new(client.take_up_on(run, Some(platform.clone())).await?) })
}

/// Whether workers with these functions have what the tasks run.
fn can_run(workflow: &Workflow, functions: &Registry) -> bool {
    let known = functions.names();
    workflow.tasks().iter().all(|task| match &task.run {
        Work::Function { function, .. } => known.binary_search(&function.as_str()).is_ok(),
        Work::Command(_) | Work::Python { .. } => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkflowBuilder;

    #[test]
    fn only_what_the_workers_have_is_taken_up() {
        let with = |function: &str| {
            let mut flow = WorkflowBuilder::new("w");
            flow.task("a").command("true");
            flow.task("b").function(function, ());
            can_run(&flow.build().unwrap(), &Registry::new())
        };
        assert!(with("foresail.concat"));
        assert!(!with("mine"));
    }
}
