//! Events of a run as hints for the machine, by long poll. A lost event is never a loss: the machine polls as
//! well.

use std::sync::Arc;
use std::time::Duration;

use foresail_choreography::{CommitHints, Event};
use foresail_schemas::id::RunId;
use foresail_schemas::run::{Change, EventPage, RunStatus};
use tokio::sync::mpsc;

use crate::coordination::Coordination;

/// The events asked for by a machine that does not want to hear of results.
const KINDS: &str = "task_ready,tasks_skipped,run_finished";
/// The events asked for by one that does.
const KINDS_WITH_COMMITS: &str = "task_ready,task_committed,tasks_skipped,run_finished";
/// First pause after a failed question; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause after a failed question.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Passes on what happens after event number `after`, until the run ends or nobody listens any more.
pub(super) async fn listen(
    state: Arc<dyn Coordination>,
    run: RunId,
    mut after: u64,
    commits: CommitHints,
    events: mpsc::Sender<Event>,
) {
    let kinds = match commits {
        CommitHints::Drop => KINDS,
        CommitHints::Pass => KINDS_WITH_COMMITS,
    };
    let mut pause = PAUSE_FIRST;
    loop {
        match state.events(&run, after, kinds).await {
            Ok(page) => {
                pause = PAUSE_FIRST;
                after = page.next_after.max(after);
                let is_over = page.status != RunStatus::Running;
                if events.send(hint(page)).await.is_err() || is_over {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no events for the moment");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn hint(page: EventPage) -> Event {
    if page.status != RunStatus::Running {
        return Event::RunEnded { status: page.status };
    }
    let (mut ready, mut committed, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for event in page.events {
        match event.change {
            Change::TaskReady { task } => ready.push(task),
            Change::TaskCommitted { task, commit } => committed.push((task, commit)),
            Change::TasksSkipped { tasks, .. } => skipped.extend(tasks),
            _ => {}
        }
    }
    Event::Hint { ready, committed, skipped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_schemas::run::{Commit, Measured, RunEvent};

    fn page(status: RunStatus, changes: Vec<Change>) -> EventPage {
        let number = |(at, change)| RunEvent { seq: at as u64 + 1, at_ms: 0.0, change };
        let events: Vec<_> = changes.into_iter().enumerate().map(number).collect();
        EventPage { status, next_after: events.len() as u64, events }
    }

    #[test]
    fn only_kinds_that_exist_are_asked_for() {
        let asked = KINDS.split(',').chain(KINDS_WITH_COMMITS.split(','));
        assert!(asked.into_iter().all(|kind| Change::KINDS.contains(&kind)), "metad would refuse them");
    }

    #[test]
    fn ready_and_skipped_tasks_and_results_are_hints_and_the_end_outweighs_them() {
        let commit = Commit {
            decision: None,
            printed: None,
            attempt: 1,
            instance: "i1".parse().unwrap(),
            outputs: Vec::new(),
            measured: Measured::default(),
        };
        let changes = vec![
            Change::TaskCommitted { task: 2, commit: commit.clone() },
            Change::TasksSkipped { by: 2, tasks: vec![4, 5] },
            Change::TaskReady { task: 3 },
            Change::PlanReplaced { epoch: 2, why: None },
        ];
        let expected = Event::Hint { ready: vec![3], committed: vec![(2, commit)], skipped: vec![4, 5] };
        assert_eq!(hint(page(RunStatus::Running, changes.clone())), expected);
        let ended = Event::RunEnded { status: RunStatus::Failed };
        assert_eq!(hint(page(RunStatus::Failed, changes)), ended);
    }
}
