//! What follows the death of a worker process: metad is told, and the tasks that it ran are started again.
//!
//! The store decides what becomes of each of them; here is only carried out what it says: the same worker
//! after a pause, or a flexible one of a larger size. What is lost on the way the run's watchdog finds.

use std::sync::Arc;
use std::time::Duration;

use foresail_schemas::id::{InstanceId, RunId};
use foresail_schemas::invocation::Invocation;
use foresail_schemas::run::{
    FAILURE_TEXT_MAX, Failure, FailureKind, Operation, OperationRequest, OperationResult, WorkerUsage,
};
use tokio::time::timeout;

use super::Host;
use crate::metad::Metad;
use crate::note::Note;
use crate::text::cut;

/// How long the host tries to tell metad of a dead worker.
const TELL_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two tries.
const TELL_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause that the host keeps in mind; a task with a longer one is left to the watchdog.
const AGAIN_MS_MAX: f64 = 60_000.0;

/// What metad is told of an invocation that was lost: the attempts that ran have failed like this, and it has
/// left.
pub(crate) fn obituary(
    instance: &InstanceId,
    notes: &[Note],
    kind: FailureKind,
    mut message: String,
    usage: WorkerUsage,
) -> Vec<Operation> {
    cut(&mut message, FAILURE_TEXT_MAX);
    let of_it = notes.iter().filter(|note| note.instance == *instance);
    let failed = of_it.map(|note| Operation::Fail {
        task: note.task,
        attempt: note.attempt,
        instance: instance.clone(),
        failure: Failure {
            task: Some(note.task_id.clone()),
            attempt: note.attempt,
            kind,
            message: message.clone(),
            exception: None,
            lost: Vec::new(),
        },
    });
    let leave = Operation::Leave { instance: instance.clone(), tasks: Vec::new(), usage };
    failed.chain([leave]).collect()
}

/// Tells metad of a dead worker and starts what it left. Past the limit the leases of the worker end by
/// themselves.
pub(crate) async fn tell(metad: Metad, host: Arc<dyn Host>, carried: Invocation, operations: Vec<Operation>) {
    let request = OperationRequest { operations };
    let told = timeout(TELL_LIMIT, told(&metad, &carried.run, &request)).await;
    let Ok(Some(results)) = told else { return };
    let mut next = again(&carried, &request.operations, &results);
    next.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut passed_ms = 0.0;
    for (after_ms, invocation) in next.into_iter().filter(|(after_ms, _)| *after_ms <= AGAIN_MS_MAX) {
        tokio::time::sleep(Duration::from_secs_f64((after_ms - passed_ms) / 1000.0)).await;
        passed_ms = after_ms;
        if let Err(error) = host.invoke(invocation).await {
            tracing::warn!(%error, "what a dead worker left is left to the watchdog of the run");
        }
    }
}

async fn told(metad: &Metad, run: &RunId, request: &OperationRequest) -> Option<Vec<OperationResult>> {
    loop {
        match metad.operate(run, request).await {
            Ok(answer) => return Some(answer.results),
            Err(error) => {
                tracing::debug!(%error, "metad does not know yet that a worker is dead");
                if !error.is_retryable() {
                    return None;
                }
                tokio::time::sleep(TELL_PAUSE).await;
            }
        }
    }
}

/// The invocations that the answers ask for, each with its time from now in ms. A planned worker is one, with
/// all its tasks, at the time of the first of them.
fn again(
    carried: &Invocation,
    operations: &[Operation],
    results: &[OperationResult],
) -> Vec<(f64, Invocation)> {
    let mut next: Vec<(f64, Invocation)> = Vec::new();
    let invocation =
        |config, tasks| Invocation::new(carried.run.clone(), None, config, tasks, carried.metad.clone());
    let mut same: Option<(f64, Vec<u32>)> = None;
    for (operation, result) in operations.iter().zip(results) {
        let Operation::Fail { task, .. } = operation else { continue };
        match result {
            OperationResult::NeedsLarger { config } => next.push((0.0, invocation(*config, vec![*task]))),
            OperationResult::Again { in_ms } => {
                let (first_ms, tasks) = same.get_or_insert((*in_ms, Vec::new()));
                *first_ms = first_ms.min(*in_ms);
                tasks.push(*task);
            }
            _ => {}
        }
    }
    // A planned worker has more to do than what it ran when it died.
    let is_planned = carried.worker.is_some() && !results.contains(&OperationResult::RunOver);
    if is_planned && same.is_none() && !next.is_empty() {
        same = Some((0.0, Vec::new()));
    }
    next.extend(same.map(|(after_ms, tasks)| {
        (after_ms, Invocation { worker: carried.worker.clone(), ..invocation(carried.config, tasks) })
    }));
    next
}

#[cfg(test)]
mod tests {
    use foresail_schemas::ResourceConfig;

    use super::*;

    #[test]
    fn a_planned_worker_comes_back_once_and_what_needs_memory_goes_to_a_larger_one() {
        let size = |mb| ResourceConfig::new(mb, None).unwrap();
        let worker = Some("w".parse().unwrap());
        let carried = Invocation::new("r".parse().unwrap(), worker.clone(), size(512), vec![0], "m".into());
        let fail = |task| Operation::Fail {
            task,
            attempt: 1,
            instance: "i".parse().unwrap(),
            failure: Failure {
                task: None,
                attempt: 1,
                kind: FailureKind::TaskCrash,
                message: String::new(),
                exception: None,
                lost: Vec::new(),
            },
        };
        let again_in = |in_ms| OperationResult::Again { in_ms };
        let larger = OperationResult::NeedsLarger { config: size(1024) };
        let operations = [fail(3), fail(4), fail(5)];
        let next = again(&carried, &operations, &[again_in(90.0), again_in(70.0), larger.clone()]);
        let shape: Vec<_> = next.iter().map(|(at, i)| (*at, i.config.memory_mb, i.tasks.clone())).collect();
        assert_eq!(shape, [(0.0, 1024, vec![5]), (70.0, 512, vec![3, 4])]);
        assert_eq!((next[0].1.worker.clone(), next[1].1.worker.clone()), (None, worker));
        let alone = again(&carried, &operations[..1], &[larger]);
        assert_eq!(alone.len(), 2, "the other tasks of the planned worker are not forgotten");
        assert!(again(&carried, &operations, &vec![OperationResult::Done; 3]).is_empty());
    }
}
