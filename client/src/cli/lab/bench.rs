//! Workloads on stacks of their own: what real comparisons in the lab have in common.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foresail_schemas::Workflow;
use foresail_schemas::config::Sla;
use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Objective, Plan};
use foresail_schemas::run::RunOptions;

use crate::cli::args::{BenchArgs, Global};
use crate::cli::error::CliError;
use crate::cli::execute::follow;
use crate::cli::interrupt::Interrupt;
use crate::cli::session::{Session, stack_settings};
use crate::cli::terminal::Terminal;
use crate::client::SubmitOptions;
use crate::examples::{self, Example};
use crate::functions::registry;
use crate::lab::runs::{RunRow, digest, expected};
use crate::planning::Stop;
use crate::prepare::{PlanRequest, Warmth};
use crate::settings::ClientSettings;
use crate::stack::{LocalStack, StackSettings};

/// Pause behind every run: processes that were stopped give their memory back, and the host deletes what the
/// run stored. Both would slow the next run down, and that of another planner not alike.
const SETTLE: Duration = Duration::from_millis(300);
/// Planner of the first run of a workload, which knows nothing.
const BLIND_PLANNER: &str = "simple";
/// Planner of the other runs that only learn.
const LEARNING_PLANNER: &str = "auto";
/// The word for all workloads.
const ALL: &str = "all";

/// A workload as it was asked for.
pub(super) struct Workload {
    pub name: String,
    pub workflow: Workflow,
    /// Hash of the right results; that of the first run where there is no reference.
    pub expected: Option<String>,
}

/// The workloads of these names; files are read from `folder`.
///
/// # Errors
/// [`CliError`] when there is none of a name, or it cannot have the size that was asked for.
fn workloads(asked: &[String], folder: Option<&Path>) -> Result<Vec<Workload>, CliError> {
    let folder: PathBuf = folder.map_or_else(examples::default_folder, Path::to_owned);
    let mut named: Vec<(String, Example, Option<u64>)> = Vec::new();
    for asked in asked {
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

/// How a run is planned and carried out.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub planner: String,
    /// What the planner shall not do beside running tasks.
    pub without: Vec<OptimizationKind>,
    pub limits: RunOptions,
}

impl Way {
    /// Under this planner, with everything on.
    pub fn of(planner: &str) -> Self {
        Self { planner: planner.to_owned(), without: Vec::new(), limits: RunOptions::default() }
    }
}

/// Calls `measure` for every workload that was asked for, each on a stack of its own that has learnt from it,
/// until one fails or the user interrupts.
///
/// # Errors
/// [`CliError`] when a workload is not there, a stack cannot be started, or a run fails.
pub(super) async fn each(
    global: &Global,
    args: &BenchArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
    mut measure: impl AsyncFnMut(&mut Bench, &mut Workload) -> Result<(), CliError>,
) -> Result<(), CliError> {
    for mut workload in workloads(&args.workloads, args.folder.as_deref())? {
        let mut bench = Bench::start(global, args, terminal, interrupt).await?;
        let done = async {
            bench.learn(&mut workload, args.learn).await?;
            measure(&mut bench, &mut workload).await
        };
        let done = done.await;
        bench.close().await;
        done?;
    }
    Ok(())
}

/// A stack for one workload, and all that its runs share.
pub(super) struct Bench<'a> {
    session: Session,
    objective: Objective,
    sla: Sla,
    terminal: &'a Terminal,
    interrupt: &'a Interrupt,
    /// Runs so far, which were measured.
    done: u32,
    /// Where the stack has its data.
    _scratch: tempfile::TempDir,
}

impl<'a> Bench<'a> {
    /// A stack without history.
    ///
    /// # Errors
    /// [`CliError`] when it cannot be started.
    async fn start(
        global: &Global,
        args: &BenchArgs,
        terminal: &'a Terminal,
        interrupt: &'a Interrupt,
    ) -> Result<Self, CliError> {
        let scratch = tempfile::tempdir()?;
        let data = Some(scratch.path().to_owned());
        let settings = StackSettings { data, ..stack_settings(global, &args.workers) };
        let stack = LocalStack::start(settings).await?;
        let session = Session::embed(stack, ClientSettings::default()).await?;
        let BenchArgs { objective, sla, .. } = *args;
        Ok(Self { session, objective, sla, terminal, interrupt, done: 0, _scratch: scratch })
    }

    /// Ends the stack.
    async fn close(self) {
        self.session.close().await;
    }

    /// Runs that only learn: the first blind.
    ///
    /// # Errors
    /// As [`Self::one`].
    async fn learn(&mut self, workload: &mut Workload, runs: u32) -> Result<(), CliError> {
        for number in 1..=runs {
            let planner = if number == 1 { BLIND_PLANNER } else { LEARNING_PLANNER };
            self.terminal.say(&format!("{}: learning run {number} of {runs}", workload.name));
            self.one(workload, &Way::of(planner), 0).await?;
        }
        Ok(())
    }

    /// One run from a cold start, and its plan; its workers are stopped behind it.
    ///
    /// # Errors
    /// [`CliError`] when there is no plan, the run fails, or the user interrupts.
    pub async fn one(
        &mut self,
        workload: &mut Workload,
        way: &Way,
        repeat: u32,
    ) -> Result<(RunRow, Plan), CliError> {
        let (client, platform) = (&self.session.client, &self.session.platform);
        let workflow = workload.workflow.clone();
        let request = PlanRequest {
            planner: way.planner.clone(),
            objective: self.objective,
            sla: self.sla,
            seed: u64::from(repeat),
            without: way.without.clone(),
            // Every run begins cold, so that they can be compared.
            warmth: Warmth::Cold,
        };
        let problem = client.prepare(&workflow, platform, &request).await?;
        let began = Instant::now();
        let plan = client.plan_to_run(&way.planner, &problem, &Stop::never())?;
        let planning_ms = began.elapsed().as_secs_f64() * 1000.0;
        let options =
            SubmitOptions { limits: way.limits, rates: Some(platform.rates()), ..SubmitOptions::default() };
        let handle = client.submit(&workflow, plan.clone(), options).await?;
        let outcome = follow(&handle, self.terminal, self.interrupt, None).await?.completed()?;
        let results = handle.results().await?.into_iter();
        let found = digest(results.map(|(t, n, o)| (t.to_string(), n.to_string(), o.hash)).collect());
        self.session.quiet().await?;
        client.drain().await?;
        tokio::time::sleep(SETTLE).await;
        let row = RunRow {
            workload: workload.name.clone(),
            tasks: workflow.tasks().len() as u64,
            planner: way.planner.clone(),
            repeat,
            learned_from: self.done,
            planning_ms,
            predicted: outcome.predicted,
            actual: outcome.actual,
            is_correct: *workload.expected.get_or_insert_with(|| found.clone()) == found,
        };
        self.done += 1;
        Ok((row, plan))
    }
}
