//! `foresail lab plans`: compares planners and shows what is known so far when it is interrupted.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;

use crate::cli::args::{Format, Global, PlannersArgs};
use crate::cli::error::CliError;
use crate::cli::interrupt::Interrupt;
use crate::cli::render::Table;
use crate::cli::source;
use crate::cli::terminal::Terminal;
use crate::cli::written;
use crate::error::apart;
use crate::lab::plans::summary::geometric_mean;
use crate::lab::plans::{Case, Origin, Row, Settings, Summary, columns, compare, rows_expected, summaries};
use crate::planning::{EXEC, Stop};
use crate::units;

/// How long a planner in another process has to end once the user interrupts.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// What is written as JSON.
#[derive(Debug, Serialize)]
struct Document<'a> {
    summaries: &'a [Summary],
    rows: &'a [Row],
}

/// Compares planners.
///
/// # Errors
/// [`CliError`] when a workflow or a planner is not there, a planner gave no plan, or after an interrupt; in
/// the last two cases what was done is written.
pub async fn plans(
    global: &Global,
    args: &PlannersArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    let settings = settings(args)?;
    if let Some(file) = &args.file {
        written::may_be_written(file, "--file")?;
    }
    let cases = cases(args)?;
    if global.format == Format::Parquet && args.file.is_none() && io::stdout().is_terminal() {
        let hint = "name a file with --file, or use a pipe";
        return Err(CliError::input("Parquet is not for a terminal", hint));
    }
    let expected = rows_expected(&cases, &settings);
    let (stop, goal, planners) = (Stop::never(), settings.goal, settings.planners.len());
    let (tell, mut told) = mpsc::unbounded_channel();
    let asked = stop.clone();
    // Planning takes the processor: it has a thread of its own, which an interrupt does not wait for.
    std::thread::spawn(move || compare(&cases, &settings, &asked, |row| drop(tell.send(row))));
    let mut line = terminal.counter("plans", expected);
    let mut rows = Vec::new();
    let is_interrupted = loop {
        tokio::select! {
            row = told.recv() => match row {
                Some(row) => rows.push(row),
                None => break false,
            },
            () = interrupt.asked() => break true,
        }
        line.show(rows.len() as u64);
    };
    if is_interrupted {
        stop.ask();
        // What a planner in another process leaves behind is cleared away before this one ends.
        while let Ok(Some(row)) = tokio::time::timeout(STOP_LIMIT, told.recv()).await {
            rows.push(row);
        }
    }
    line.end();
    let summaries = summaries(&mut rows, goal, planners);
    write(global.format, args, &rows, &summaries)?;
    if is_interrupted {
        terminal.say(&format!("{} of {expected} plans are done", rows.len()));
        return Err(CliError::Stopped { hint: "" });
    }
    let mut failed = rows.iter().filter_map(|row| Some((row, row.failure.as_deref()?)));
    let Some((first, why)) = failed.next() else { return Ok(()) };
    let (why, hint) = apart(why);
    Err(CliError::Unplanned {
        failed: 1 + failed.count(),
        plans: rows.len(),
        first: format!("`{}` for {}: {why}", first.planner, first.workflow),
        hint: hint.unwrap_or("`-o json` has the `failure` of each").to_owned(),
    })
}

fn settings(args: &PlannersArgs) -> Result<Settings, CliError> {
    let mut planners: Vec<String> = Vec::new();
    for asked in &args.planners {
        let named: Vec<String> = match asked.as_str() {
            "all" => foresail_planner::planners().iter().map(|p| p.name().to_owned()).collect(),
            one => vec![one.to_owned()],
        };
        planners.extend(named);
    }
    let mut seen = Vec::new();
    planners.retain(|p| {
        !seen.contains(p) && {
            seen.push(p.clone());
            true
        }
    });
    check_planners(&planners)?;
    Ok(Settings {
        planners,
        goal: args.objective,
        without: args.without.clone(),
        sla: args.sla,
        platform: source::platform(&args.platform)?,
        seeds: args.seeds,
        history: args.history.clone(),
        noise: args.noise,
        curve: args.curve,
        task_ms_max: args.tasks_ms_max.clone(),
    })
}

/// Whether each of these is a planner, or a program.
///
/// # Errors
/// [`CliError::Input`] with the first that is none.
pub(super) fn check_planners(planners: &[String]) -> Result<(), CliError> {
    for planner in planners.iter().filter(|p| !p.starts_with(EXEC)) {
        foresail_planner::find(planner).map_err(|e| {
            let text = e.to_string();
            let (what, hint) = apart(&text);
            CliError::input(what, hint.unwrap_or_default())
        })?;
    }
    Ok(())
}

fn cases(args: &PlannersArgs) -> Result<Vec<Case>, CliError> {
    let recorded = source::recorded(&args.wfformat)?;
    let recorded =
        recorded.into_iter().map(|(name, workflow)| Case { name, origin: Origin::Recorded, workflow });
    let shapes = args.shapes.iter().map(|shape| Case {
        name: shape.to_string(),
        origin: Origin::Shape,
        workflow: shape.workflow(),
    });
    let cases: Vec<Case> = recorded.chain(shapes).collect();
    if cases.is_empty() {
        let hint = "give WfFormat files with --wfformat, or --shapes";
        return Err(CliError::input("there is no workflow to compare on", hint));
    }
    Ok(cases)
}

fn write(format: Format, args: &PlannersArgs, rows: &[Row], summaries: &[Summary]) -> Result<(), CliError> {
    let mut out: Box<dyn Write + Send> = match &args.file {
        Some(path) => Box::new(BufWriter::new(File::create(path).map_err(|e| written::failed(path, &e))?)),
        None => Box::new(BufWriter::new(io::stdout())),
    };
    match format {
        Format::Csv => columns::csv(rows, &mut out)?,
        Format::Parquet => columns::parquet(rows, &mut out).map_err(io::Error::other)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &Document { summaries, rows }).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Format::Ndjson => {
            for row in rows {
                serde_json::to_writer(&mut out, row).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        }
        Format::Table => write!(out, "{}\n{}", overview(summaries), by_file(rows))?,
        Format::Markdown => {
            write!(out, "{}\n{}", overview(summaries).markdown(), by_file(rows).markdown())?;
        }
    }
    Ok(out.flush()?)
}

/// A row per scale, history and planner.
fn overview(summaries: &[Summary]) -> Table {
    let mut table = Table::new(&[
        "tasks up to",
        "earlier runs",
        "planner",
        "plans",
        "time/LB_T",
        "cost/LB_C",
        "near LB_T",
        "time/simple",
        "cost/simple",
        "at most",
        "GB s",
        "wins",
        "beaten by plain",
        "planning",
        "at most",
    ]);
    for s in summaries {
        let failed = if s.failed > 0 { format!(" ({} failed)", s.failed) } else { String::new() };
        table.row([
            scale(s.task_ms_max),
            s.history.map_or_else(|| "truth".to_owned(), |runs| runs.to_string()),
            s.planner.clone(),
            format!("{}{failed}", s.plans),
            ratio(s.makespan_ratio),
            ratio(s.cost_ratio),
            if s.recorded > 0 { format!("{}/{}", s.close, s.recorded) } else { "-".to_owned() },
            ratio(s.makespan_to_simple),
            ratio(s.cost_to_simple),
            ratio(s.cost_to_simple_max),
            format!("{:.0}", s.gb_seconds),
            s.wins.to_string(),
            s.worse_than_plain.to_string(),
            units::ms(s.planning_ms),
            units::ms(s.planning_ms_max),
        ]);
    }
    table
}

/// A row per workflow, scale and history: makespan and cost over their bounds per planner, over all seeds.
fn by_file(rows: &[Row]) -> Table {
    let mut planners: Vec<&str> = Vec::new();
    let mut problems: Vec<(&str, Option<u64>, Option<u32>)> = Vec::new();
    let mut ratios: HashMap<_, (Vec<f64>, Vec<f64>)> = HashMap::new();
    let mut tasks: HashMap<&str, u64> = HashMap::new();
    for row in rows {
        let problem = (row.workflow.as_str(), row.task_ms_max.map(f64::to_bits), row.history);
        if !planners.contains(&row.planner.as_str()) {
            planners.push(&row.planner);
        }
        if !problems.contains(&problem) {
            problems.push(problem);
        }
        tasks.insert(&row.workflow, row.tasks);
        let found = ratios.entry((problem, row.planner.as_str())).or_default();
        found.0.extend(row.makespan_ratio());
        found.1.extend(row.cost_ratio());
    }
    let mut header = vec!["workflow", "tasks", "tasks up to", "earlier runs"];
    header.extend(&planners);
    let mut table = Table::new(&header);
    for problem in problems {
        let (workflow, bits, history) = problem;
        let mut cells = vec![
            workflow.to_owned(),
            tasks.get(workflow).map_or_else(String::new, u64::to_string),
            scale(bits.map(f64::from_bits)),
            history.map_or_else(|| "truth".to_owned(), |runs| runs.to_string()),
        ];
        cells.extend(planners.iter().map(|planner| match ratios.get(&(problem, *planner)) {
            Some((time, cost)) if !time.is_empty() => {
                format!("{} : {}", ratio(geometric_mean(time)), ratio(geometric_mean(cost)))
            }
            _ => "-".to_owned(),
        }));
        table.row(cells);
    }
    table
}

fn scale(task_ms_max: Option<f64>) -> String {
    task_ms_max.map_or_else(|| "as recorded".to_owned(), units::ms)
}

fn ratio(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { "-".to_owned() }
}
