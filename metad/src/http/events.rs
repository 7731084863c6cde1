//! The events of a run: a page by long poll, or a stream of server-sent events.
//!
//! A long poll answers at once when there is an event of the wanted kinds, or when the run has ended; else
//! when one comes, when the run ends, when its time is over, or when metad stops. Events carry the text under
//! which they are stored; the youngest come from memory, older ones from the store.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use foresail_schemas::run::RunStatus;
use foresail_schemas::{ErrorCode, RunId};
use futures_util::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::pool::blocking;
use super::reply::{Answer, Failure, json};
use super::runs::find;
use super::take::{App, PathOf, QueryOf, accepts};
use crate::board::{Board, Recent};
use crate::store::StoreError;
use crate::store::run_events::EventText;

/// The kinds of events, as `Change::kind` names them.
const KINDS: [&str; 12] = [
    "worker_joined",
    "worker_left",
    "task_leased",
    "task_failed",
    "task_committed",
    "task_ready",
    "task_duplicated",
    "tasks_skipped",
    "run_resumed",
    "plan_replaced",
    "plan_suggested",
    "run_finished",
];
/// Time between two signs of life on a stream without events.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What is asked.
#[derive(Debug, Deserialize)]
pub struct Wanted {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
    kinds: Option<String>,
    limit: Option<u64>,
}

/// A page whose events are text already.
#[derive(Serialize)]
struct Page<'a> {
    status: RunStatus,
    events: Vec<&'a RawValue>,
    next_after: u64,
}

/// Follows the events of one run.
struct Follower {
    app: App,
    board: Arc<Board>,
    kinds: Option<BTreeSet<String>>,
    /// Everything up to this number was looked at.
    after: u64,
    page_max: usize,
}

/// Answers with a page or a stream, by what `Accept` asks for.
pub async fn get(
    State(app): State<App>,
    PathOf(run): PathOf<RunId>,
    QueryOf(wanted): QueryOf<Wanted>,
    mut request: Request,
) -> Answer {
    let place = request.extensions_mut().remove::<Arc<OwnedSemaphorePermit>>();
    let headers = request.headers();
    let board = find(&app, &run)?;
    let kinds = wanted.kinds.as_deref().map(kinds).transpose()?;
    let page_max = wanted.limit.unwrap_or(u64::MAX).clamp(1, app.settings.events_page_max) as usize;
    let after = wanted.after;
    let wait = Duration::from_millis(wanted.wait_ms.min(app.settings.wait_ms_max));
    let mut follower = Follower { app, board, kinds, after, page_max };
    if accepts(headers, "text/event-stream") {
        if let Some(last) = last_event_id(headers)? {
            follower.after = last;
        }
        return Ok(stream_answer(follower, place));
    }
    let (status, events) = follower.wait(Instant::now() + wait).await?;
    let events = events.iter().map(|e| &*e.json).collect();
    Ok(json(&Page { status, events, next_after: follower.after }))
}

fn kinds(text: &str) -> Result<BTreeSet<String>, Failure> {
    let kinds: BTreeSet<String> = text.split(',').map(|k| k.trim().to_owned()).collect();
    match kinds.iter().find(|k| !KINDS.contains(&k.as_str())) {
        None => Ok(kinds),
        Some(unknown) => {
            let detail = format!("`kinds` has `{unknown}`; the kinds are {}", KINDS.join(", "));
            Err(Failure::new(ErrorCode::InvalidParameter, detail))
        }
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let refuse =
        |_| Failure::new(ErrorCode::InvalidParameter, format!("Last-Event-ID `{text}` is no number"));
    text.trim().parse().map(Some).map_err(refuse)
}

impl Follower {
    /// Waits for events until `deadline`. Empty when the time is over, when the run has ended, or when metad
    /// stops.
    async fn wait(&mut self, deadline: Instant) -> Result<(RunStatus, Vec<Arc<EventText>>), Failure> {
        let mut bell = self.board.listen();
        let mut stopping = self.app.stopping.subscribe();
        loop {
            bell.mark_unchanged();
            // The status is read first: with it, every event up to the end of the run is there.
            let status = self.board.status();
            let events = self.look().await?;
            if !events.is_empty() || status != RunStatus::Running || *stopping.borrow() {
                return Ok((status, events));
            }
            let rings = async {
                tokio::select! {
                    rung = bell.changed() => rung.is_ok(),
                    _ = stopping.changed() => false,
                }
            };
            if !timeout_at(deadline, rings).await.unwrap_or(false) {
                return Ok((self.board.status(), Vec::new()));
            }
        }
    }

    /// The wanted events that are there, up to a page of them.
    async fn look(&mut self) -> Result<Vec<Arc<EventText>>, Failure> {
        loop {
            let events = match self.board.recent(self.after, self.page_max) {
                Recent::Held(events) => events,
                Recent::InStore => self.look_in_store().await?,
            };
            let Some(last) = events.last() else { return Ok(Vec::new()) };
            self.after = last.seq;
            let wanted: Vec<_> = events.into_iter().filter(|e| self.wants(e)).collect();
            if !wanted.is_empty() {
                return Ok(wanted);
            }
        }
    }

    async fn look_in_store(&self) -> Result<Vec<Arc<EventText>>, Failure> {
        let (store, number, after, page_max) =
            (self.app.store.clone(), self.board.number, self.after, self.page_max);
        let read = blocking(&self.app, move || {
            let events = store.view()?.events_after(number, after, page_max)?;
            Ok::<_, StoreError>(events.into_iter().map(Arc::new).collect())
        });
        Ok(read.await??)
    }

    fn wants(&self, event: &EventText) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&event.kind))
    }

    /// The next part of a stream; nothing once the run has ended and all of it was sent.
    async fn next(mut self) -> Option<(Vec<Event>, Self)> {
        let deadline = Instant::now() + KEEP_ALIVE;
        let (status, events) = match self.wait(deadline).await {
            Ok(found) => found,
            Err(failure) => {
                tracing::warn!(detail = failure.0.detail, "a stream of events breaks off");
                return None;
            }
        };
        if events.is_empty() && (status != RunStatus::Running || *self.app.stopping.borrow()) {
            return None;
        }
        let events = events
            .iter()
            .map(|e| Event::default().id(e.seq.to_string()).event(&e.kind).data(e.json.get()))
            .collect();
        Some((events, self))
    }
}

/// A stream keeps its place among the listeners until it ends.
fn stream_answer(follower: Follower, place: Option<Arc<OwnedSemaphorePermit>>) -> Response {
    let events: std::pin::Pin<Box<dyn Stream<Item = Result<Event, Infallible>> + Send>> = Box::pin(
        stream::unfold((follower, place), |(follower, place)| async move {
            follower.next().await.map(|(events, follower)| (events, (follower, place)))
        })
        .flat_map(|events| stream::iter(events.into_iter().map(Ok))),
    );
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_checked_by_name() {
        assert_eq!(kinds("task_ready, run_finished").unwrap().len(), 2);
        assert!(kinds("task_ready,task_red").unwrap_err().0.detail.contains("`task_red`"));
        assert!(kinds("").is_err());
    }
}
