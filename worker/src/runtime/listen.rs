//! Events of a run as hints for the machine, by long poll. A lost event is never a loss: the machine polls as
//! well.

use std::time::Duration;

use foresail_choreography::Event;
use foresail_schemas::id::RunId;
use foresail_schemas::run::{Change, EventPage, RunStatus};
use tokio::sync::mpsc;

use crate::metad::Metad;

/// The events asked for.
const KINDS: &str = "task_ready,run_finished";
/// First pause after a failed question; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause after a failed question.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Passes on what happens after event number `after`, until the run ends or nobody listens any more.
pub(super) async fn listen(metad: Metad, run: RunId, mut after: u64, events: mpsc::Sender<Event>) {
    let mut pause = PAUSE_FIRST;
    loop {
        match metad.events(&run, after, KINDS).await {
            Ok(page) => {
                pause = PAUSE_FIRST;
                after = page.next_after.max(after);
                let is_over = page.status != RunStatus::Running;
                if events.send(hint(&page)).await.is_err() || is_over {
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

fn hint(page: &EventPage) -> Event {
    if page.status != RunStatus::Running {
        return Event::RunEnded { status: page.status };
    }
    let ready = page.events.iter().filter_map(|event| match event.change {
        Change::TaskReady { task } => Some(task),
        _ => None,
    });
    Event::Hint { ready: ready.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_schemas::run::RunEvent;

    fn page(status: RunStatus, changes: Vec<Change>) -> EventPage {
        let number = |(at, change)| RunEvent { seq: at as u64 + 1, at_ms: 0.0, change };
        let events: Vec<_> = changes.into_iter().enumerate().map(number).collect();
        EventPage { status, next_after: events.len() as u64, events }
    }

    #[test]
    fn ready_tasks_are_hints_and_the_end_outweighs_them() {
        let ready = vec![Change::TaskReady { task: 3 }, Change::PlanReplaced { epoch: 2 }];
        assert_eq!(hint(&page(RunStatus::Running, ready.clone())), Event::Hint { ready: vec![3] });
        let ended = Event::RunEnded { status: RunStatus::Failed };
        assert_eq!(hint(&page(RunStatus::Failed, ready)), ended);
    }
}
