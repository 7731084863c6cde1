//! Example of how well plans predicted.

use std::collections::BTreeMap;

use crate::config::Sla;
use crate::examples::task_name;
use crate::score::{Coverage, DayScore, Score, TaskScore, WorkflowScores};

/// Two tasks of which plans forecast the times on two days.
#[must_use]
pub fn workflow_scores() -> WorkflowScores {
    let days = vec![
        DayScore { day: jiff::civil::date(2026, 1, 4), score: score(12, 6.1, 8.3, [0.5, 0.9167, 1.0, 1.0]) },
        DayScore { day: jiff::civil::date(2026, 1, 5), score: score(8, 4.2, 5.0, [0.5, 0.875, 0.875, 1.0]) },
    ];
    let total = Coverage { score: score(20, 5.4, 6.98, [0.5, 0.9, 0.95, 1.0]), days };
    let count = TaskScore { task: task_name("count"), score: score(16, 5.6, 7.1, [0.5, 0.875, 0.9375, 1.0]) };
    let split = TaskScore { task: task_name("split"), score: score(4, 4.9, 6.5, [0.5, 1.0, 1.0, 1.0]) };
    WorkflowScores { epoch: 412, total, tasks: vec![count, split], next_after: None }
}

fn score(n: u64, mdape_percent: f64, mape_percent: f64, within: [f64; 4]) -> Score {
    let slas = [Sla::MEDIAN, Sla::P90, Sla::P95, Sla::P99];
    let ratio: BTreeMap<Sla, f64> = slas.into_iter().zip(within).collect();
    Score { n, mdape_percent: Some(mdape_percent), mape_percent: Some(mape_percent), ratio }
}
