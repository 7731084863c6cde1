//! Reports as tables: the same rows as plain text and as Markdown.

use foresail_model::backtest::{Method, QUANTILES, Report, Score};
use foresail_schemas::Sla;
use foresail_schemas::prediction::Unit;

use crate::cli::render::Table;
use crate::lab::Accuracy;

/// Everything about one back-test, a row per method.
#[must_use]
pub fn report_table(report: &Report) -> Table {
    let loss = if report.unit == Unit::Bytes { "pinball bytes" } else { "pinball ms" };
    let mut header: Vec<String> = ["method", "n", "MdAPE", "MAPE"].map(str::to_owned).to_vec();
    header.extend(QUANTILES.map(|sla| format!("{loss} {sla}")));
    header.extend(QUANTILES.map(|sla| format!("coverage {sla}")));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = Table::new(&header);
    for score in &report.scores {
        let mut row = vec![
            score.method.to_string(),
            score.n.to_string(),
            percent(score.mdape_percent),
            percent(score.mape_percent),
        ];
        row.extend(QUANTILES.map(|sla| score.pinball_ms.get(&sla).map_or_else(unknown, |loss| short(*loss))));
        row.extend(QUANTILES.map(|sla| coverage(score, sla)));
        table.row(row);
    }
    table
}

/// The median error of every method, a row per file and question.
#[must_use]
pub fn accuracy_table(accuracy: &Accuracy) -> Table {
    let methods = Method::ALL.map(|method| method.to_string());
    let mut header = vec!["file", "question", "n"];
    header.extend(methods.iter().map(String::as_str));
    header.extend(["p90 covers", "p95 covers"]);
    let mut table = Table::new(&header);
    for answer in &accuracy.reports {
        let report = &answer.report;
        let of = |method| report.scores.iter().find(|score| score.method == method);
        let model = of(Method::Model);
        let mut row = vec![
            answer.file.clone(),
            format!("{}, {}", report.protocol, report.quantity),
            model.map_or_else(unknown, |score| score.n.to_string()),
        ];
        row.extend(Method::ALL.map(|method| of(method).map_or_else(unknown, |s| percent(s.mdape_percent))));
        row.extend([Sla::P90, Sla::P95].map(|sla| model.map_or_else(unknown, |score| coverage(score, sla))));
        table.row(row);
    }
    table
}

fn unknown() -> String {
    "-".to_owned()
}

fn percent(value: f64) -> String {
    match value {
        v if v < 9.95 => format!("{v:.2} %"),
        v if v < 999.5 => format!("{v:.1} %"),
        v => format!("{v:.0} %"),
    }
}

fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") }
}

fn coverage(score: &Score, sla: Sla) -> String {
    score.coverage.get(&sla).map_or_else(unknown, |ratio| format!("{ratio:.3}"))
}
