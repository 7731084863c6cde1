//! `foresail lab run`: carries workloads out under several planners and shows what they took and cost.

use std::io;

use serde::Serialize;

use super::bench::{Way, each};
use crate::cli::args::{Format, Global, LabRunArgs};
use crate::cli::error::CliError;
use crate::cli::interrupt::Interrupt;
use crate::cli::render::{self, Table};
use crate::cli::terminal::Terminal;
use crate::lab::runs::{Mean, RunRow, RunsSummary, summaries};
use crate::units;

/// What is written as JSON.
#[derive(Debug, Serialize)]
struct Document<'a> {
    summaries: &'a [RunsSummary],
    runs: &'a [RunRow],
}

/// Carries out and compares.
///
/// # Errors
/// [`CliError`] when a workload or planner is not there, a run fails, or after an interrupt, when what was
/// done by then is written.
pub async fn runs(
    global: &Global,
    args: &LabRunArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    super::plans::check_planners(&args.planners)?;
    let mut rows = Vec::new();
    let ended = each(global, &args.bench, terminal, interrupt, async |bench, workload| {
        for repeat in 1..=args.repeats {
            for planner in &args.planners {
                let (name, repeats) = (&workload.name, args.repeats);
                terminal.say(&format!("{name}: repetition {repeat} of {repeats}, planner {planner}"));
                rows.push(bench.one(workload, &Way::of(planner), repeat).await?.0);
            }
        }
        Ok(())
    });
    let ended = ended.await;
    if ended.is_ok() || !rows.is_empty() {
        write(global.format, &rows)?;
    }
    ended?;
    match rows.iter().find(|row| !row.is_correct) {
        None => Ok(()),
        Some(row) => {
            Err(CliError::Differ(format!("`{}` under `{}` and its reference", row.workload, row.planner)))
        }
    }
}

fn write(format: Format, rows: &[RunRow]) -> io::Result<()> {
    let short = summaries(rows);
    match format {
        Format::Markdown => render::text(&table(&short).markdown()),
        Format::Json => render::one(format, &Document { summaries: &short, runs: rows }, String::new),
        Format::Csv => csv(rows),
        Format::Ndjson | Format::Parquet => render::many(Format::Ndjson, rows, String::new),
        Format::Table => render::text(&table(&short).to_string()),
    }
}

/// A line per run.
fn csv(rows: &[RunRow]) -> io::Result<()> {
    let mut out = csv::Writer::from_writer(io::stdout().lock());
    let columns = "workload,tasks,planner,repeat,learned_from,planning_ms,predicted_ms,predicted_usd,\
        actual_ms,actual_usd,gb_seconds,invocations,cold_starts,download_bytes,upload_bytes,is_correct";
    out.write_record(columns.split(','))?;
    for row in rows {
        let (p, a) = (&row.predicted, &row.actual);
        out.write_record([
            row.workload.clone(),
            row.tasks.to_string(),
            row.planner.clone(),
            row.repeat.to_string(),
            row.learned_from.to_string(),
            row.planning_ms.to_string(),
            p.makespan_ms.to_string(),
            p.cost_usd.to_string(),
            a.makespan_ms.to_string(),
            a.cost_usd.to_string(),
            a.gb_seconds.to_string(),
            a.invocations.to_string(),
            a.cold_starts.to_string(),
            a.download_bytes.to_string(),
            a.upload_bytes.to_string(),
            row.is_correct.to_string(),
        ])?;
    }
    out.flush()
}

fn table(summaries: &[RunsSummary]) -> Table {
    let mut table = Table::new(&[
        "workload",
        "planner",
        "runs",
        "makespan",
        "to first",
        "cost",
        "moved",
        "workers",
        "cold",
        "error of prediction",
        "scatter of runs",
        "wrong results",
    ]);
    for s in summaries {
        table.row([
            s.workload.clone(),
            s.planner.clone(),
            s.runs.to_string(),
            with_margin(s.makespan_ms, units::ms),
            format!("{:.2}", s.makespan_to_first),
            with_margin(s.cost_usd, units::usd),
            units::bytes(s.moved_bytes as u64),
            format!("{:.1}", s.invocations),
            format!("{:.1}", s.cold_starts),
            format!("{:.1} %", s.error_percent),
            format!("{:.1} %", s.scatter_percent),
            s.wrong.to_string(),
        ]);
    }
    table
}

fn with_margin(mean: Mean, show: impl Fn(f64) -> String) -> String {
    match mean.margin {
        Some(margin) => format!("{} ± {}", show(mean.mean), show(margin)),
        None => show(mean.mean),
    }
}
