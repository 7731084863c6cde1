//! `foresail demo`: one real workflow, several times: first blind, then with what was learned.
//!
//! Between runs every worker is stopped, so that each run starts cold and nothing but knowledge carries over.
//! The result of every run is compared by its hash.

use std::path::{Path, PathBuf};
use std::time::Instant;

use foresail_schemas::Workflow;
use foresail_schemas::config::Sla;
use foresail_schemas::plan::PlanSummary;
use foresail_schemas::prediction::Basis;
use serde::Serialize;

use super::args::{DemoArgs, Global, HostArgs};
use super::error::CliError;
use super::execute::follow;
use super::interrupt::Interrupt;
use super::plan::sizes;
use super::render::{self, Table};
use super::session::{Session, stack_settings};
use super::terminal::Terminal;
use crate::client::{self, SubmitOptions};
use crate::error::ClientError;
use crate::examples::{self, ExampleError};
use crate::run::RunHandle;
use crate::settings::ClientSettings;
use crate::stack::{LocalStack, StackSettings};
use crate::text::report::Report;
use crate::text::scan;
use crate::text::{REPORT_JSON, TextAnalysis};
use crate::units;

/// Planner of the first run, which knows nothing.
const BLIND_PLANNER: &str = "simple";
/// Planner of the others.
const PLANNER: &str = "auto";
/// Seed of every plan: what changes from run to run is knowledge alone.
const SEED: u64 = 1;
/// Added to every cold start, because a process on the same machine starts sooner than a function in a cloud.
const COLD_START_MS: f64 = 250.0;

/// What is told of one run.
#[derive(Debug, Serialize)]
struct DemoRun {
    run: String,
    planner: String,
    sizes: String,
    assumed_tasks: usize,
    predicted: PlanSummary,
    actual: PlanSummary,
    makespan_error_percent: Option<f64>,
    result_hash: String,
}

/// Runs the demo.
///
/// # Errors
/// [`CliError`] when there is no text, a run fails, or results differ.
pub async fn demo(
    global: &Global,
    args: &DemoArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    let began = Instant::now();
    let folder = args.folder.clone().unwrap_or_else(examples::default_folder);
    let (workflow, described) = workflow(&folder, args)?;
    // A fresh directory makes the first run blind; one that was named is kept, for a look afterwards.
    let scratch = tempfile::tempdir()?;
    let data = global.data.clone().unwrap_or_else(|| scratch.path().to_owned());
    let workers = HostArgs {
        cold_start_ms: args.workers.cold_start_ms.or(Some(COLD_START_MS)),
        ..args.workers.clone()
    };
    let settings = StackSettings { data: Some(data.clone()), ..stack_settings(global, &workers) };
    let stack = LocalStack::start(settings).await?;
    let holds_cpu_share = stack.holds_cpu_share();
    let session = Session::embed(stack, ClientSettings::default()).await?;
    terminal.title(&described);
    terminal.say(&format!(
        "stack: metad {} and worker processes on this machine, {} at a time; {} added to every cold start\n",
        session.addresses.metad,
        session.platform.concurrency_max,
        units::ms(workers.cold_start_ms.unwrap_or_default()),
    ));
    if !holds_cpu_share {
        terminal.say(
            "note: this system does not let workers be held to the CPU share of their size, so memory sizes",
        );
        terminal.say("make no difference here; the gain comes from placement alone");
    }
    let done = Demo { session: &session, workflow: &workflow, args, terminal, interrupt }.all_runs().await;
    session.close().await;
    let (runs, report) = done?;
    render::many(global.format, &runs, || {
        format!("{}\n{}\n{}", table(&runs), verdict(&runs), report_table(&report))
    })?;
    for line in next_steps(global.data.as_deref()) {
        terminal.say(&line);
    }
    terminal.say(&format!("all in {}", units::ms(began.elapsed().as_secs_f64() * 1000.0)));
    match runs.iter().find(|run| run.result_hash != runs[0].result_hash) {
        None => Ok(()),
        Some(other) => Err(CliError::Differ(format!("`{}` and `{}`", runs[0].run, other.run))),
    }
}

fn workflow(folder: &Path, args: &DemoArgs) -> Result<(Workflow, String), CliError> {
    let analysis = TextAnalysis {
        bytes_max: args.size,
        parts: args.parts as usize,
        ..TextAnalysis::of(folder.to_owned())
    };
    let workflow = analysis.workflow().map_err(ExampleError::from)?;
    let sources = scan::choose(folder, args.size)?;
    let bytes: u64 = sources.iter().map(|s| s.bytes).sum();
    let described = format!(
        "text analysis of {} files ({}) in {}: {} tasks",
        sources.len(),
        units::bytes(bytes),
        folder.display(),
        workflow.tasks().len()
    );
    Ok((workflow, described))
}

/// What every run of the demo needs.
struct Demo<'a> {
    session: &'a Session,
    workflow: &'a Workflow,
    args: &'a DemoArgs,
    terminal: &'a Terminal,
    interrupt: &'a Interrupt,
}

impl Demo<'_> {
    async fn all_runs(&self) -> Result<(Vec<DemoRun>, Report), CliError> {
        let mut runs = Vec::new();
        let mut report = None;
        for number in 1..=self.args.runs {
            let (run, handle) = self.one_run(number).await?;
            if report.is_none() {
                let json = handle.result_output("report", REPORT_JSON).await?;
                report = serde_json::from_slice(&json).ok();
            }
            runs.push(run);
            self.session.quiet().await?;
            self.session.client.drain().await?;
        }
        let unreadable = || ClientError::NoResult("report".to_owned());
        Ok((runs, report.ok_or_else(unreadable)?))
    }

    async fn one_run(&self, number: u32) -> Result<(DemoRun, RunHandle), CliError> {
        let (workflow, platform) = (self.workflow, &self.session.platform);
        let client = &self.session.client;
        let (planner, predictions) = match number {
            1 => (BLIND_PLANNER, foresail_planner::blind_table(workflow, platform, Sla::Mean)),
            _ => {
                let mut learned = client.predictions(workflow, platform, Sla::Mean).await?;
                client.add_distributions(workflow, platform, &mut learned);
                (PLANNER, learned)
            }
        };
        let assumed_tasks = predictions.basis.iter().filter(|b| **b == Basis::None).count();
        let problem = client::problem(workflow, platform, predictions, self.args.objective, SEED);
        let plan = client.plan(planner, &problem)?;
        let (tasks, runs) = (workflow.tasks().len(), self.args.runs);
        let known = tasks - assumed_tasks;
        self.terminal.say(&format!(
            "run {number} of {runs}: planner {planner}, {known} of {tasks} tasks known from measurements"
        ));
        let sizes = sizes(&plan);
        let options = SubmitOptions { rates: Some(platform.rates()), ..SubmitOptions::default() };
        let handle = client.submit(workflow, plan, options).await?;
        let outcome = follow(&handle, self.terminal, self.interrupt, None).await?.completed()?;
        let hashes: Vec<String> = handle.results().await?.into_iter().map(|(_, _, o)| o.hash).collect();
        let (predicted, actual) = (outcome.predicted, outcome.actual);
        let run = DemoRun {
            run: outcome.run.to_string(),
            planner: planner.to_owned(),
            sizes,
            assumed_tasks,
            predicted,
            actual,
            makespan_error_percent: units::prediction_error(predicted.makespan_ms, actual.makespan_ms),
            result_hash: blake3::hash(hashes.concat().as_bytes()).to_hex().to_string(),
        };
        Ok((run, handle))
    }
}

fn table(runs: &[DemoRun]) -> Table {
    let mut table = Table::new(&[
        "run",
        "planner",
        "memory x tasks",
        "workers",
        "cold",
        "predicted",
        "actual",
        "error",
        "against 1",
        "cost",
        "against 1",
        "moved",
    ]);
    let first = &runs[0].actual;
    for (i, run) in runs.iter().enumerate() {
        let (p, a) = (&run.predicted, &run.actual);
        let against =
            |before: f64, now: f64| if i == 0 { "-".to_owned() } else { units::change(before, now) };
        table.row([
            (i + 1).to_string(),
            run.planner.clone(),
            run.sizes.clone(),
            a.invocations.to_string(),
            a.cold_starts.to_string(),
            units::ms(p.makespan_ms),
            units::ms(a.makespan_ms),
            run.makespan_error_percent.map_or_else(|| "-".to_owned(), |e| format!("{e:+.1} %")),
            against(first.makespan_ms, a.makespan_ms),
            units::usd(a.cost_usd),
            against(first.cost_usd, a.cost_usd),
            units::bytes(a.download_bytes + a.upload_bytes),
        ]);
    }
    table
}

fn verdict(runs: &[DemoRun]) -> String {
    let same = runs.iter().all(|run| run.result_hash == runs[0].result_hash);
    let result = match same {
        true => format!("all {} runs gave the same result (hash {})", runs.len(), &runs[0].result_hash[..16]),
        false => "the runs gave DIFFERENT results".to_owned(),
    };
    let [first, .., last] = runs else { return result };
    let time = units::change(first.actual.makespan_ms, last.actual.makespan_ms);
    let cost = units::change(first.actual.cost_usd, last.actual.cost_usd);
    format!("{result}\nfrom the first to the last run: makespan {time}, cost {cost}\n")
}

fn report_table(report: &Report) -> String {
    let mut table = Table::new(&["language", "files", "lines", "words", "typical terms"]);
    for l in &report.languages {
        let terms: Vec<&str> = l.terms.iter().map(|(term, _)| term.as_str()).collect();
        table.row([
            l.language.clone(),
            l.files.to_string(),
            l.lines.to_string(),
            l.words.to_string(),
            terms.join(", "),
        ]);
    }
    table.to_string()
}

fn next_steps(kept: Option<&Path>) -> Vec<String> {
    let data = kept.map(PathBuf::from);
    let mut lines = vec!["look next:".to_owned()];
    match data {
        Some(data) => {
            let data = data.display();
            lines.push(format!("  foresail runs --data {data}      what each run did, event by event"));
            lines.push(format!("  foresail up --data {data}        the dashboard on these runs"));
            lines.push(format!("  foresail plan text-analysis --data {data}"));
        }
        None => {
            lines.push("  foresail demo --data demo-data     keeps the runs for a look at them".to_owned())
        }
    }
    lines.push("  foresail run text-analysis         plans with its own history from run to run".to_owned());
    lines.push(
        "  docs/demo.md                       what the columns mean and where the gain comes from".to_owned(),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(makespan_ms: f64, hash: &str) -> DemoRun {
        let actual = PlanSummary { makespan_ms, cost_usd: makespan_ms / 1e6, ..PlanSummary::default() };
        DemoRun {
            run: "r".to_owned(),
            planner: "simple".to_owned(),
            sizes: "885 MB x 3".to_owned(),
            assumed_tasks: 0,
            predicted: actual,
            actual,
            makespan_error_percent: Some(0.0),
            result_hash: hash.repeat(16),
        }
    }

    #[test]
    fn change_is_told_against_the_first_run() {
        let runs = [run(1_000.0, "a"), run(600.0, "a")];
        let text = table(&runs).to_string();
        assert!(text.contains("-40.0 %"), "{text}");
        assert!(verdict(&runs).contains("makespan -40.0 %, cost -40.0 %"));
    }

    #[test]
    fn different_results_are_told() {
        assert!(verdict(&[run(1.0, "a"), run(1.0, "b")]).contains("DIFFERENT"));
    }
}
