//! `foresail run`: predicts, plans, executes and compares.

use std::path::{Path, PathBuf};
use std::time::Duration;

use foresail_schemas::plan::{Objective, PlanSummary};
use foresail_schemas::run::{Failure, RunStatus, WorkerUsage};
use foresail_schemas::wfformat::Scale;
use serde::Serialize;

use super::args::{Global, RunArgs};
use super::bill::in_short;
use super::error::CliError;
use super::execute::follow;
use super::interrupt::Interrupt;
use super::plan::{Planned, basis_line, make, missed, sizes};
use super::render::{self, Table};
use super::session::{self, Session};
use super::source;
use super::terminal::Terminal;
use crate::client::SubmitOptions;
use crate::omitted::Omitted;
use crate::run::{RunHandle, RunOutcome};
use crate::settings::ClientSettings;
use crate::units;

/// Small enough that a recorded run of hours fits a minute.
const SCALED: Scale = Scale { time: 0.01, size: 0.001 };
/// Results up to this size are shown where no folder was given, in bytes.
const SHOWN_BYTES_MAX: u64 = 2_000;

/// What is told of a run at its end.
#[derive(Debug, Serialize)]
pub struct Told {
    run: String,
    workflow: String,
    planner: String,
    status: RunStatus,
    /// Why it failed or was cancelled.
    failure: Option<Failure>,
    predicted: PlanSummary,
    actual: PlanSummary,
    /// What the workers moved, and what they did not have to.
    usage: WorkerUsage,
    failed_attempts: u64,
    /// Tasks that did not run, because of what others decided.
    skipped: u64,
    /// Plans that were put in force after the first.
    replanned: u64,
    /// Better plans that were found and not put in force.
    suggested: u64,
    /// Tasks whose results were taken over from an earlier run.
    reused: u64,
    objective: Objective,
    /// The limit of the objective that was missed, in words.
    missed: Option<String>,
    results: Vec<TheResult>,
}

/// One result of a workflow.
#[derive(Debug, Serialize)]
struct TheResult {
    task: String,
    output: String,
    bytes: u64,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip)]
    text: Option<String>,
}

/// Runs a workflow.
///
/// # Errors
/// [`CliError`] when it cannot be planned, fails, or is interrupted.
pub async fn run(
    global: &Global,
    args: &RunArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    session::check_host_named(global)?;
    args.output.as_deref().map_or(Ok(()), make_folder)?;
    let workflow = source::workflow(&args.planning, SCALED)?;
    let session = Session::open(global, &args.workers, ClientSettings::default()).await?;
    let place = if session.is_embedded() { "a stack of this command" } else { "the stack at" };
    terminal.say(&format!("{place} {}", session.addresses.metad));
    let done = submit_and_follow(&session, args, &workflow, terminal, interrupt).await;
    let shown = show(global, &done);
    if args.keep && session.is_embedded() && !matches!(done, Err(CliError::Interrupted)) {
        terminal.say("the stack goes on until Ctrl-C");
        interrupt.asked().await;
    }
    session.close().await;
    shown?;
    Ok(done?.0.completed().map(drop)?)
}

/// Shows what is told of a run, where it came to its end.
///
/// # Errors
/// When stdout cannot be written.
pub fn show(global: &Global, done: &Result<(RunOutcome, Told), CliError>) -> std::io::Result<()> {
    match done {
        Ok((_, told)) => render::one(global.format, told, || table(told)),
        Err(_) => Ok(()),
    }
}

async fn submit_and_follow(
    session: &Session,
    args: &RunArgs,
    workflow: &foresail_schemas::Workflow,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(RunOutcome, Told), CliError> {
    let (client, platform) = (&session.client, &session.platform);
    let planned = make(client, workflow, platform, &args.planning.request(), terminal, interrupt).await?;
    let Planned { plan, basis, .. } = planned;
    terminal.say(&basis_line(args.planning.sla, &basis));
    if let Some(miss) = missed(&plan.objective, &plan.predicted) {
        terminal
            .say(&format!("no plan was found that keeps to it: {miss} is predicted; it is run all the same"));
    }
    let mut options = SubmitOptions { resume: args.resume.clone(), ..SubmitOptions::on(&session.platform) };
    options.limits.keep_intermediate = args.keep_intermediate;
    options.limits.replan = args.replan.into();
    options.without = Omitted::planned(&args.planning.without);
    Omitted::switch_off(&args.planning.without, &mut options.limits);
    let handle = session.client.submit(workflow, plan, options).await?;
    carry_through(&handle, args.output.as_deref(), args.timeout, terminal, interrupt).await
}

/// Follows a run to its end and collects what is told of it.
///
/// # Errors
/// [`CliError`] when it is interrupted or its results cannot be read.
pub async fn carry_through(
    handle: &RunHandle,
    output: Option<&Path>,
    timeout_ms: Option<f64>,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(RunOutcome, Told), CliError> {
    let workflow = handle.workflow();
    if handle.reused() > 0 {
        let (reused, all) = (handle.reused(), workflow.tasks().len());
        terminal.say(&format!("{reused} of {all} tasks re-used"));
    }
    terminal.title(&format!(
        "run {} of {}: {}, planner {}, memory {}",
        handle.id(),
        workflow.name(),
        units::count(workflow.tasks().len() as u64, "task"),
        handle.plan().planner,
        sizes(handle.plan())
    ));
    let limit = timeout_ms.map(|ms| Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX));
    let outcome = follow(handle, terminal, interrupt, limit).await?;
    let results = match outcome.status {
        RunStatus::Completed => results(handle, output).await?,
        _ => Vec::new(),
    };
    let told = tell(handle, &outcome, results);
    if let Some(miss) = &told.missed {
        terminal.say(&format!("the run did not keep to it: {miss}"));
    }
    Ok((outcome, told))
}

/// Reads the results: small text is kept to be shown, everything is saved where a folder is given.
async fn results(handle: &RunHandle, folder: Option<&Path>) -> Result<Vec<TheResult>, CliError> {
    let mut list = Vec::new();
    for (task, output, object) in handle.results().await? {
        let mut result = TheResult {
            task: task.to_string(),
            output: output.to_string(),
            bytes: object.bytes,
            hash: object.hash.clone(),
            file: None,
            text: None,
        };
        if folder.is_some() || object.bytes <= SHOWN_BYTES_MAX {
            let content = handle.object(task.as_str(), &object).await?;
            result.text =
                String::from_utf8(content.to_vec()).ok().filter(|_| object.bytes <= SHOWN_BYTES_MAX);
            if let Some(folder) = folder {
                let file = folder.join(file_name(task.as_str(), output.as_str()));
                make_folder(folder)?;
                std::fs::write(&file, &content).map_err(|e| unwritable(&file, &e))?;
                result.file = Some(file);
            }
        }
        list.push(result);
    }
    Ok(list)
}

/// Makes the folder of the results, before anything runs for them.
fn make_folder(folder: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(folder).map_err(|e| unwritable(folder, &e))
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::input(
        format!("`{}` cannot be written: {error}", path.display()),
        "give --output a folder that you may write to",
    )
}

/// One flat name per output: names of outputs may be paths, and must not lead out of the folder.
fn file_name(task: &str, output: &str) -> String {
    let flat: String = output.chars().map(|c| if c == '/' || c == '\\' { '_' } else { c }).collect();
    format!("{task}.{}", flat.trim_start_matches('.'))
}

fn tell(handle: &RunHandle, outcome: &RunOutcome, results: Vec<TheResult>) -> Told {
    Told {
        run: outcome.run.to_string(),
        workflow: handle.workflow().name().to_string(),
        planner: handle.plan().planner.to_string(),
        status: outcome.status,
        failure: outcome.failure.clone(),
        predicted: outcome.predicted,
        actual: outcome.actual,
        usage: outcome.progress.usage(),
        failed_attempts: outcome.progress.failed_attempts,
        skipped: outcome.progress.skipped,
        replanned: outcome.progress.replanned,
        suggested: outcome.progress.suggested,
        reused: handle.reused(),
        objective: handle.plan().objective,
        missed: missed(&handle.plan().objective, &outcome.actual),
        results,
    }
}

fn table(told: &Told) -> String {
    let mut text = comparison(&told.predicted, &told.actual, told.status).to_string();
    text += &format!("\n{}\n", data_line(&told.usage));
    text += &format!("\n{}\n", in_short(&told.run, told.predicted.cost_usd, told.actual.cost_usd));
    if told.failed_attempts > 0 {
        text += &format!("\nfailed attempts: {}\n", told.failed_attempts);
    }
    if told.skipped > 0 {
        text += &format!("\nskipped tasks, because of what others decided: {}\n", told.skipped);
    }
    for (count, what) in [(told.replanned, "put in force"), (told.suggested, "suggested")] {
        if count > 0 {
            text += &format!("\nbetter plans {what}: {count}; foresail runs {} tells why\n", told.run);
        }
    }
    for result in &told.results {
        let TheResult { task, output, bytes, hash, file, text: content } = result;
        let size = units::bytes(*bytes);
        let saved = file.as_ref().map_or_else(String::new, |f| format!(", saved as {}", f.display()));
        text += &format!("\n{task}/{output}: {size}, hash {}{saved}\n", &hash[..hash.len().min(16)]);
        if let Some(content) = content.as_ref().filter(|_| file.is_none()) {
            content.lines().for_each(|line| text += &format!("  {line}\n"));
        }
    }
    text
}

/// What the workers moved, and what they did not have to.
#[must_use]
pub fn data_line(usage: &WorkerUsage) -> String {
    let WorkerUsage { puts, gets, .. } = usage;
    let [stored, brought] = [usage.upload_bytes, usage.download_bytes].map(units::bytes);
    let [own, shared, inline] = [usage.saved_bytes, usage.shared_bytes, usage.inline_bytes].map(units::bytes);
    format!(
        "data moved: {stored} stored ({puts} writes), {brought} brought ({gets} reads); saved: \
         {own} were in the worker's memory, {shared} in shared memory, {inline} in commit records"
    )
}

/// What was predicted beside what happened. The prediction is that of a whole run: one that did not complete
/// tells nothing of its error.
#[must_use]
pub fn comparison(predicted: &PlanSummary, actual: &PlanSummary, status: RunStatus) -> Table {
    let mut table = Table::new(&["", "predicted", "actual", "error"]);
    let error = |predicted: f64, actual: f64| {
        let error = units::prediction_error(predicted, actual).filter(|_| status == RunStatus::Completed);
        error.map_or_else(|| "-".to_owned(), |e| format!("{e:+.1} %"))
    };
    let mut row = |what: &str, write: fn(f64) -> String, p: f64, a: f64| {
        table.row([what.to_owned(), write(p), write(a), error(p, a)]);
    };
    let count = |n: f64| format!("{n:.0}");
    let size = |n: f64| units::bytes(n.round() as u64);
    row("makespan", units::ms, predicted.makespan_ms, actual.makespan_ms);
    row("cost", units::usd, predicted.cost_usd, actual.cost_usd);
    row("GB s", |n| format!("{n:.2}"), predicted.gb_seconds, actual.gb_seconds);
    row("invocations", count, predicted.invocations as f64, actual.invocations as f64);
    row("cold starts", count, predicted.cold_starts as f64, actual.cold_starts as f64);
    row("downloaded", size, predicted.download_bytes as f64, actual.download_bytes as f64);
    row("uploaded", size, predicted.upload_bytes as f64, actual.upload_bytes as f64);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_results_stay_in_the_folder() {
        assert_eq!(file_name("report", "report.json"), "report.report.json");
        assert_eq!(file_name("t", "../../etc/passwd"), "t._.._etc_passwd");
        assert_eq!(file_name("t", "/a/b"), "t._a_b");
    }

    #[test]
    fn the_data_line_tells_every_way_apart() {
        let usage = WorkerUsage {
            puts: 2,
            upload_bytes: 1_000,
            gets: 3,
            download_bytes: 20_000,
            saved_bytes: 300_000,
            shared_bytes: 4_000_000,
            inline_bytes: 50,
            ..WorkerUsage::default()
        };
        let text = data_line(&usage);
        for part in ["2 writes", "3 reads"] {
            assert!(text.contains(part), "{text}");
        }
        for bytes in [1_000, 20_000, 300_000, 4_000_000, 50] {
            assert!(text.contains(&units::bytes(bytes)), "{bytes}: {text}");
        }
    }

    #[test]
    fn the_comparison_tells_the_error_of_the_prediction() {
        let predicted = PlanSummary { makespan_ms: 900.0, ..PlanSummary::default() };
        let actual = PlanSummary { makespan_ms: 1_000.0, ..PlanSummary::default() };
        let text = comparison(&predicted, &actual, RunStatus::Completed).to_string();
        assert!(text.contains("900 ms     1.00 s  -10.0 %"), "{text}");
        let failed = comparison(&predicted, &actual, RunStatus::Failed).to_string();
        assert!(failed.contains("900 ms     1.00 s") && !failed.contains('%'), "{failed}");
    }
}
