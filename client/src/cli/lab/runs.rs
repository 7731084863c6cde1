//! `foresail lab run`: carries workloads out under several planners and shows what they took and cost.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use foresail_schemas::Workflow;
use foresail_schemas::config::Sla;
use serde::Serialize;

use crate::cli::args::{Format, Global, LabRunArgs};
use crate::cli::error::CliError;
use crate::cli::execute::follow;
use crate::cli::interrupt::Interrupt;
use crate::cli::render::{self, Table};
use crate::cli::session::{Session, stack_settings};
use crate::cli::terminal::Terminal;
use crate::client::{self, SubmitOptions};
use crate::examples::{self, Example};
use crate::functions::registry;
use crate::lab::runs::{Mean, RunRow, RunsSummary, digest, expected, summaries};
use crate::settings::ClientSettings;
use crate::stack::{LocalStack, StackSettings};
use crate::units;

/// Planner of the first run of a workload, which knows nothing.
const BLIND_PLANNER: &str = "simple";
/// Planner of the other runs that only learn.
const LEARNING_PLANNER: &str = "auto";
/// The word for all workloads.
const ALL: &str = "all";

/// What is written as JSON.
#[derive(Debug, Serialize)]
struct Document<'a> {
    summaries: &'a [RunsSummary],
    runs: &'a [RunRow],
}

/// A workload as it was asked for.
struct Workload {
    name: String,
    workflow: Workflow,
    /// Hash of the right results; that of the first run where there is no reference.
    expected: Option<String>,
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
    let workloads = workloads(args)?;
    let mut rows = Vec::new();
    let mut ended = Ok(());
    for mut workload in workloads {
        ended = carry_out(global, args, &mut workload, terminal, interrupt, &mut rows).await;
        if ended.is_err() {
            break;
        }
    }
    write(global.format, &rows)?;
    ended?;
    match rows.iter().find(|row| !row.is_correct) {
        None => Ok(()),
        Some(row) => {
            Err(CliError::Differ(format!("`{}` under `{}` and its reference", row.workload, row.planner)))
        }
    }
}

fn workloads(args: &LabRunArgs) -> Result<Vec<Workload>, CliError> {
    let folder: PathBuf = args.folder.clone().unwrap_or_else(examples::default_folder);
    let mut named: Vec<(String, Example, Option<u64>)> = Vec::new();
    for asked in &args.workloads {
        if asked == ALL {
            named.extend(examples::ALL.iter().map(|example| (example.name.to_owned(), *example, None)));
            continue;
        }
        let (name, size) = asked.split_once(':').map_or((asked.as_str(), None), |(n, s)| (n, Some(s)));
        let example = Example::find(name).ok_or_else(|| crate::cli::source::no_such(name))?;
        let size = size.map(|text| {
            let hint = "the form is NAME or NAME:SIZE, for instance tree-reduction:1024";
            text.parse().map_err(|_| CliError::input(format!("`{text}` is no size of a workload"), hint))
        });
        named.push((asked.clone(), example, size.transpose()?));
    }
    let registry = registry();
    let build = |(name, example, size): (String, Example, Option<u64>)| {
        let workflow = example.workflow(size, &folder)?;
        let expected = expected(&workflow, &registry).ok();
        Ok(Workload { name, workflow, expected })
    };
    named.into_iter().map(build).collect()
}

/// All runs of one workload, on a stack of its own.
async fn carry_out(
    global: &Global,
    args: &LabRunArgs,
    workload: &mut Workload,
    terminal: &Terminal,
    interrupt: &Interrupt,
    rows: &mut Vec<RunRow>,
) -> Result<(), CliError> {
    let scratch = tempfile::tempdir()?;
    let data = Some(scratch.path().to_owned());
    let settings = StackSettings { data, ..stack_settings(global, &args.workers) };
    let stack = LocalStack::start(settings).await?;
    let session = Session::embed(stack, ClientSettings::default()).await?;
    let bench = Bench { session: &session, args, terminal, interrupt };
    let done = bench.all(workload, rows).await;
    session.close().await;
    done
}

/// What every run needs.
struct Bench<'a> {
    session: &'a Session,
    args: &'a LabRunArgs,
    terminal: &'a Terminal,
    interrupt: &'a Interrupt,
}

impl Bench<'_> {
    async fn all(&self, workload: &mut Workload, rows: &mut Vec<RunRow>) -> Result<(), CliError> {
        let name = workload.name.clone();
        let mut done = 0;
        for number in 1..=self.args.learn {
            let planner = if number == 1 { BLIND_PLANNER } else { LEARNING_PLANNER };
            self.terminal.say(&format!("{name}: learning run {number} of {}", self.args.learn));
            self.one(workload, planner, 0, done).await?;
            done += 1;
        }
        for repeat in 1..=self.args.repeats {
            for planner in &self.args.planners {
                let repeats = self.args.repeats;
                self.terminal.say(&format!("{name}: repetition {repeat} of {repeats}, planner {planner}"));
                rows.push(self.one(workload, planner, repeat, done).await?);
                done += 1;
            }
        }
        Ok(())
    }

    async fn one(
        &self,
        workload: &mut Workload,
        planner: &str,
        repeat: u32,
        learned_from: u32,
    ) -> Result<RunRow, CliError> {
        let (client, platform) = (&self.session.client, &self.session.platform);
        let workflow = workload.workflow.clone();
        let predictions = match learned_from {
            0 => foresail_planner::blind_table(&workflow, platform, Sla::MEDIAN),
            _ => client.predictions(&workflow, platform, self.args.sla).await?,
        };
        let problem =
            client::problem(&workflow, platform, predictions, self.args.objective, u64::from(repeat));
        let began = Instant::now();
        let plan = client.plan(planner, &problem)?;
        let planning_ms = began.elapsed().as_secs_f64() * 1000.0;
        let options = SubmitOptions { rates: Some(platform.rates()), ..SubmitOptions::default() };
        let handle = client.submit(&workflow, plan, options).await?;
        let outcome = follow(&handle, self.terminal, self.interrupt, None).await?.completed()?;
        let results = handle.results().await?.into_iter();
        let found = digest(results.map(|(t, n, o)| (t.to_string(), n.to_string(), o.hash)).collect());
        self.session.quiet().await?;
        client.drain().await?;
        Ok(RunRow {
            workload: workload.name.clone(),
            tasks: workflow.tasks().len() as u64,
            planner: planner.to_owned(),
            repeat,
            learned_from,
            planning_ms,
            predicted: outcome.predicted,
            actual: outcome.actual,
            is_correct: *workload.expected.get_or_insert_with(|| found.clone()) == found,
        })
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
