//! Events: pages, filters, long polls that wake, streams that resume.

use std::time::Duration;

use foresail_schemas::ErrorCode;
use foresail_schemas::run::{EventPage, RunStatus};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::timeout;

use crate::runs::{commit, complete, join, lease};
use crate::{Daemon, fails};

/// Far longer than anything here takes; a test that reaches it fails.
const LONG: Duration = Duration::from_secs(20);

async fn page(daemon: &Daemon, query: &str) -> EventPage {
    serde_json::from_value(daemon.read(&format!("/v1/runs/r-1/events?{query}")).await).unwrap()
}

fn seqs(page: &EventPage) -> Vec<u64> {
    page.events.iter().map(|e| e.seq).collect()
}

#[tokio::test]
async fn events_are_numbered_without_gaps_and_paged() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    complete(&daemon, "r-1").await;
    let all = page(&daemon, "").await;
    assert_eq!(all.status, RunStatus::Completed);
    assert_eq!(seqs(&all), (1..=all.events.len() as u64).collect::<Vec<_>>());
    assert_eq!(all.events.first().unwrap().change.kind(), "task_ready");
    assert_eq!(all.events.last().unwrap().change.kind(), "run_finished");
    assert!(all.events.windows(2).all(|e| e[0].at_ms <= e[1].at_ms));
    let daemon = daemon.restart();
    assert_eq!(page(&daemon, "").await, all, "those of an earlier life come from the store");
    let (mut after, mut collected) = (0, Vec::new());
    loop {
        let next = page(&daemon, &format!("after={after}&limit=3")).await;
        assert!(next.events.len() <= 3);
        if next.events.is_empty() {
            break;
        }
        after = next.next_after;
        collected.extend(next.events);
    }
    assert_eq!(collected, all.events);
}

#[tokio::test]
async fn only_the_wanted_kinds_come_and_the_place_moves_on() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    complete(&daemon, "r-1").await;
    let commits = page(&daemon, "kinds=task_committed,run_finished").await;
    assert!(commits.events.iter().all(|e| ["task_committed", "run_finished"].contains(&e.change.kind())));
    assert_eq!(commits.events.len(), 5);
    let last = page(&daemon, "").await.next_after;
    let none = page(&daemon, "kinds=task_failed").await;
    assert_eq!((none.events.len(), none.next_after), (0, last), "what was looked at is not looked at again");
    for (query, named) in [("kinds=task_red", "task_red"), ("after=x", "after"), ("wait_ms=-1", "wait_ms")] {
        let refused =
            fails(daemon.get(&format!("/v1/runs/r-1/events?{query}")), ErrorCode::InvalidParameter).await;
        assert!(refused.detail.contains(named), "{}", refused.detail);
    }
}

#[tokio::test]
async fn a_long_poll_wakes_for_an_event_of_its_kinds() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    let waiting = daemon.get("/v1/runs/r-1/events?after=1&wait_ms=30000&kinds=task_committed");
    let waiting =
        tokio::spawn(async move { waiting.send().await.unwrap().json::<EventPage>().await.unwrap() });
    daemon.operate("r-1", json!([join("i-1"), lease(0, "i-1")])).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "the events so far are of other kinds");
    daemon.operate("r-1", json!([commit(0, "i-1", 2)])).await;
    let page = timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!((seqs(&page), page.next_after), (vec![4], 6), "two tasks became ready with it");
}

#[tokio::test]
async fn a_long_poll_ends_when_the_run_ends_or_its_time_is_over() {
    let daemon = Daemon::with(|s| s.wait_ms_max = 60);
    daemon.run("r-1").await;
    let over = page(&daemon, "after=1&wait_ms=100000000").await;
    assert_eq!((over.status, seqs(&over), over.next_after), (RunStatus::Running, vec![], 1));
    let waiting = daemon.get("/v1/runs/r-1/events?after=1&wait_ms=30000&kinds=task_failed");
    complete(&daemon, "r-1").await;
    let ended = timeout(LONG, waiting.send()).await.unwrap().unwrap().json::<EventPage>().await.unwrap();
    assert_eq!((ended.status, ended.events.len()), (RunStatus::Completed, 0));
}

/// Reads a stream of server-sent events until it ends or `events` have come: (id, event).
async fn read_stream(daemon: &Daemon, last: Option<u64>, events: usize) -> Vec<(u64, String)> {
    let mut request = daemon.get("/v1/runs/r-1/events").header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let (mut body, mut text) = (answer.bytes_stream(), String::new());
    while text.matches("\n\n").count() < events {
        match timeout(LONG, body.next()).await.unwrap() {
            Some(chunk) => text += std::str::from_utf8(&chunk.unwrap()).unwrap(),
            None => break,
        }
    }
    let field = |block: &str, name: &str| {
        block.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned()).unwrap_or_default()
    };
    let blocks = text.split("\n\n").filter(|b| b.contains("data:"));
    blocks
        .map(|b| {
            let data: serde_json::Value = serde_json::from_str(&field(b, "data:")).unwrap();
            assert_eq!(
                (data["seq"].to_string(), data["kind"].as_str().unwrap()),
                (field(b, "id:"), &*field(b, "event:"))
            );
            (field(b, "id:").parse().unwrap(), field(b, "event:"))
        })
        .collect()
}

#[tokio::test]
async fn a_stream_brings_events_as_they_come_and_ends_with_the_run() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    let (streamed, ()) = tokio::join!(read_stream(&daemon, None, usize::MAX), async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        complete(&daemon, "r-1").await;
    });
    let all = page(&daemon, "").await;
    let expected: Vec<_> = all.events.iter().map(|e| (e.seq, e.change.kind().to_owned())).collect();
    assert_eq!(streamed, expected);
}

#[tokio::test]
async fn a_stream_goes_on_behind_the_last_event_seen() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    daemon.operate("r-1", json!([join("i-1"), lease(0, "i-1")])).await;
    let resumed = read_stream(&daemon, Some(2), 1).await;
    assert_eq!(resumed, [(3, "task_leased".to_owned())]);
    let bad =
        daemon.get("/v1/runs/r-1/events").header("accept", "text/event-stream").header("last-event-id", "x");
    fails(bad, ErrorCode::InvalidParameter).await;
}

#[tokio::test]
async fn a_stop_ends_polls_and_streams_at_once() {
    let mut daemon = Daemon::start();
    daemon.run("r-1").await;
    let poll = daemon.get("/v1/runs/r-1/events?after=1&wait_ms=30000");
    let poll = tokio::spawn(async move { poll.send().await.unwrap().json::<EventPage>().await.unwrap() });
    let stream = daemon.get("/v1/runs/r-1/events").header("accept", "text/event-stream");
    let stream = tokio::spawn(async move { stream.send().await.unwrap().text().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::task::spawn_blocking(move || daemon.stop()).await.unwrap();
    assert!(timeout(LONG, poll).await.unwrap().unwrap().events.is_empty());
    assert!(timeout(LONG, stream).await.unwrap().unwrap().unwrap().contains("id: 1\n"));
}
