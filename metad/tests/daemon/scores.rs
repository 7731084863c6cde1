//! Scores: forecasts that come with measurements are held against them and shown.

use foresail_schemas::ErrorCode;
use foresail_schemas::score::WorkflowScores;
use serde_json::{Value, json};

use crate::{Daemon, fails, task};

/// A measurement at noon of a day of January 2026 whose plan had said 100, 110, 120 and 130 ms.
fn scored(exec_ms: f64, day: u32) -> Value {
    let mut record = task(exec_ms);
    record["at"] = json!(format!("2026-01-{day:02}T12:00:00Z"));
    record["forecast"] = json!({"median_ms": 100, "p90_ms": 110, "p95_ms": 120, "p99_ms": 130});
    record
}

async fn scores(daemon: &Daemon) -> WorkflowScores {
    serde_json::from_value(daemon.read("/v1/workflows/w/scores").await).unwrap()
}

#[tokio::test]
async fn forecasts_are_scored_when_the_truth_arrives_and_survive_a_restart() {
    let daemon = Daemon::start();
    let mut other = scored(125.0, 6);
    other["task"] = json!("split");
    daemon.batch("b-1", json!([scored(80.0, 5), scored(100.0, 5), task(1.0)])).await;
    daemon.batch("b-2", json!([scored(125.0, 6), other])).await;
    daemon.batch("b-2", json!([scored(1.0, 7)])).await;
    let before = scores(&daemon).await;
    let total = &before.total;
    let ratios: Vec<f64> = total.score.ratio.values().copied().collect();
    assert_eq!((total.score.n, ratios), (4, vec![0.5, 0.5, 0.5, 1.0]));
    assert!(total.score.mape_percent.is_some_and(|p| (p - (25.0 + 0.0 + 20.0 + 20.0) / 4.0).abs() < 1e-3));
    assert!(total.score.mdape_percent.is_some_and(|p| (p / 20.0 - 1.0).abs() <= 0.1), "{total:?}");
    let days: Vec<_> = total.days.iter().map(|day| (day.day.to_string(), day.score.n)).collect();
    assert_eq!(days, [("2026-01-05".to_owned(), 2), ("2026-01-06".to_owned(), 2)]);
    let tasks: Vec<_> = before.tasks.iter().map(|task| (task.task.as_str(), task.score.n)).collect();
    assert_eq!(tasks, [("count", 3), ("split", 1)]);
    let report = daemon.read("/v1/workflows/w/tasks/count").await;
    assert_eq!((&report["coverage"]["n"], &report["coverage"]["days"][0]["n"]), (&json!(3), &json!(2)));
    let daemon = daemon.restart();
    assert_eq!(scores(&daemon).await, before);
}

#[tokio::test]
async fn scored_tasks_come_in_pages_without_gaps_and_the_sum_with_each() {
    let daemon = Daemon::with(|settings| settings.list_max = 3);
    let named = |name: &str| {
        let mut record = scored(80.0, 5);
        record["task"] = json!(name);
        record
    };
    let mut records: Vec<Value> = ["d", "b", "e", "a", "c"].map(named).to_vec();
    records.push(task(1.0));
    daemon.batch("b-1", json!(records)).await;
    for (limit, expected) in [("", vec!["a b c", "d e"]), ("&limit=2", vec!["a b", "c d", "e"])] {
        let (mut after, mut pages) = (String::new(), Vec::new());
        loop {
            let page = daemon.read(&format!("/v1/workflows/w/scores?{after}{limit}")).await;
            let page: WorkflowScores = serde_json::from_value(page).unwrap();
            assert_eq!(page.total.score.n, 5);
            pages.push(page.tasks.iter().map(|task| task.task.as_str()).collect::<Vec<_>>().join(" "));
            let Some(next) = page.next_after else { break };
            after = format!("after={next}");
        }
        assert_eq!(pages, expected, "{limit}");
    }
    fails(daemon.get("/v1/workflows/w/scores?limit=x"), ErrorCode::InvalidParameter).await;
}

#[tokio::test]
async fn coverage_is_a_metric_once_something_was_scored() {
    let daemon = Daemon::start();
    let metrics = async || daemon.get("/metrics").send().await.unwrap().text().await.unwrap();
    daemon.batch("b-1", json!([task(1.0)])).await;
    assert!(!metrics().await.contains("metad_prediction_coverage_ratio{"));
    daemon.batch("b-2", json!([scored(80.0, 5), scored(115.0, 5)])).await;
    let text = metrics().await;
    for expected in [
        "metad_prediction_coverage_ratio{quantile=\"0.5\"} 0.5\n",
        "metad_prediction_coverage_ratio{quantile=\"0.95\"} 1\n",
        "metad_prediction_scored_total 2\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[tokio::test]
async fn a_workflow_without_scores_has_an_empty_sum_and_an_unknown_one_is_a_problem() {
    let daemon = Daemon::start();
    fails(daemon.get("/v1/workflows/w/scores"), ErrorCode::WorkflowNotFound).await;
    daemon.batch("b-1", json!([task(1.0)])).await;
    let none = scores(&daemon).await;
    assert_eq!((none.total, none.tasks.len()), (Default::default(), 0));
    assert_eq!(daemon.read("/v1/workflows/w/tasks/count").await["coverage"], Value::Null);
}
