//! What can be typed: commands, flags and the types of their values. No command is carried out here.

mod ask;
#[cfg(feature = "aws")]
mod aws;
mod bridge;
mod data;
mod lab;
mod past;
mod plans;
mod replan;
mod runs;
mod scale;
#[cfg(not(feature = "aws"))]
mod without;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use foresail_schemas::TaskId;
use foresail_schemas::config::Sla;
use foresail_schemas::id::RunId;
use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::Objective;
use foresail_worker::coordination::CoordinationArgs;
use foresail_worker::host::local::ObjectPlace;

use crate::omitted::Omitted;
use crate::prepare::{PlanRequest, Warmth};
use crate::units;

pub use ask::{AskedSla, PredictArgs, Quantities, ScoresArgs, TuneArgs};
#[cfg(feature = "aws")]
pub use aws::{
    DeployArgs, DeployAwsArgs, DeployTo, DestroyArgs, DestroyAwsArgs, DestroyOn, DoctorArgs, Emit, OnAws,
    Processor, Which,
};
pub use bridge::BridgeArgs;
pub use data::{ExportArgs, ExportWhat, ImportArgs, ImportOrder, SampleForm, SamplesArgs};
pub use lab::{AccuracyArgs, BacktestArgs, LabArgs, LabCommand};
pub use past::{BillArgs, CancelArgs, ResumeArgs, RunsArgs};
pub use plans::{PlannersArgs, parse_goal};
pub use replan::{Replan, ReplanArgs};
pub use runs::{BenchArgs, LabOptimisationsArgs, LabRunArgs};
pub use scale::LabScaleArgs;
#[cfg(not(feature = "aws"))]
pub use without::{DeployArgs, DestroyArgs, DoctorArgs};

const AFTER_HELP: &str = "\
Start here:
  foresail demo                       watch one real workflow get better from run to run
  foresail run hello                  run the smallest example
  foresail run text-analysis          run it again and again: every run plans with what the last ones measured
  foresail plan montage -o table      see a plan without running it
  foresail import history.csv         learn from measurements made elsewhere
  foresail tune w/t --input 50MB      find the memory size for a task, without invoking it
  foresail up                         keep a stack running; other commands find it

Data goes to stdout, everything else to stderr.
Exit codes: 0 done; 1 the run failed, was cancelled by somebody else or had ended before, results differ,
a compared planner gave no plan, lines of an import were refused, or the output cannot be written; 2 wrong
arguments, input file or name; 3 the stack cannot be reached or started; 130 interrupted.";

/// Workflows on serverless workers that get better with every run.
#[derive(Debug, Parser)]
#[command(name = "foresail", version, about, after_help = AFTER_HELP, propagate_version = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Form of the data on stdout.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table, global = true)]
    pub format: Format,
    /// Colour and redrawn lines on a terminal.
    #[arg(long, value_enum, default_value_t = Color::Auto, global = true)]
    pub color: Color,
    /// Address of metad, for instance http://127.0.0.1:7070; without it a running stack is looked for.
    #[arg(long, env = "FORESAIL_METAD", value_name = "URL", global = true)]
    pub metad: Option<String>,
    /// Address of the host of the workers.
    #[arg(long, env = "FORESAIL_HOST", value_name = "URL", global = true)]
    pub host: Option<String>,
    /// Token that metad and the host want; a stack that is started wants it of everybody.
    #[arg(long, env = "FORESAIL_METAD_TOKEN", value_name = "TOKEN", hide_env_values = true, global = true)]
    pub token: Option<String>,
    /// Where measurements and runs are kept [default: ~/.local/share/foresail].
    #[arg(long, env = "FORESAIL_DATA", value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    /// Tells more on stderr; twice for details.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// Form of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON document per line.
    Ndjson,
    /// A Markdown table, for `lab`.
    Markdown,
    /// Lines with commas, for `lab plans` and `lab run`.
    Csv,
    /// An Apache Parquet file, for `lab plans`.
    Parquet,
}

/// When colour is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep a local stack running: metad and real worker processes on this machine.
    Up(UpArgs),
    /// Run a workflow: predict, plan, execute, compare.
    Run(RunArgs),
    /// Plan a workflow without running it.
    Plan(PlanArgs),
    /// Ask the model how long a task will take and how much it will write.
    Predict(PredictArgs),
    /// Compare memory sizes for a task: time and cost, from history, without invoking anything.
    Tune(TuneArgs),
    /// Show how good the predictions were that plans were made with.
    Scores(ScoresArgs),
    /// List runs, or show one with its events.
    Runs(RunsArgs),
    /// Show what a run was predicted to cost, what it has cost, and why that differs.
    Bill(BillArgs),
    /// Go on where a run failed or was cancelled: what it finished is not run again.
    Resume(ResumeArgs),
    /// Look for a better way to go on with a run, and put it in force.
    Replan(ReplanArgs),
    /// End a run.
    Cancel(CancelArgs),
    /// Read measurements from a CSV or NDJSON file.
    Import(ImportArgs),
    /// Write a run, or the measurements of a workflow, in an exchange format.
    Export(ExportArgs),
    /// Measure: the predictor, planners, workloads, optimisations, a run at size.
    Lab(LabArgs),
    /// Run one real workflow several times and watch it get better.
    Demo(DemoArgs),
    /// Make the functions that workers are on a platform.
    Deploy(DeployArgs),
    /// Look whether a deployment stands and can be invoked.
    Doctor(DoctorArgs),
    /// Destroy a deployment, and nothing else.
    Destroy(DestroyArgs),
    /// Serve one program of another language over stdin and stdout.
    #[command(hide = true)]
    Bridge(BridgeArgs),
    /// Write completions for a shell to stdout.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How workers of an embedded stack behave.
#[derive(Debug, Clone, Default, Args)]
pub struct HostArgs {
    /// Most workers at the same time [default: the processors of this machine].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrency: Option<u32>,
    /// Tasks that a worker carries out at the same time, which share its processors [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub lanes: Option<u32>,
    /// Delay added to every cold start, as a platform far away would have it.
    #[arg(long, value_name = "MS")]
    pub cold_start_ms: Option<f64>,
    /// Memory sizes of workers in MB, separated by commas [default: 442,885,1769].
    #[arg(long, value_name = "MB,...", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    pub memory: Vec<u32>,
    /// Python interpreter of the workers, 3.9 or later [default: python3].
    #[arg(long, value_name = "PATH", env = "FORESAIL_PYTHON")]
    pub python: Option<PathBuf>,
    /// Where objects too large for a commit record lie: `files`, `metad`, or
    /// `s3://BUCKET/PREFIX?endpoint=URL&region=NAME` with credentials in the environment.
    #[arg(long, value_name = "STORE", env = "FORESAIL_STORE", default_value_t = ObjectPlace::Files)]
    pub store: ObjectPlace,
    /// Where the state of runs is kept.
    #[command(flatten)]
    pub state: CoordinationArgs,
}

/// `foresail up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  foresail up --data ./foresail-data --concurrency 4\n  \
    foresail up --host lambda --memory 512,1769 --listen 0.0.0.0:7070 --advertise http://10.0.0.5:7070\n\n\
    The addresses are printed and written to DIR/stack.json, where other commands find them,\n\
    with the token if there is one; only you can read that file. Ctrl-C ends all.")]
pub struct UpArgs {
    /// Address for metad; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDR")]
    pub listen: std::net::SocketAddr,
    /// Address of metad as its workers reach it, where that is another.
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// Begin of the names of the functions, with `--host lambda`.
    #[arg(long, default_value = "foresail", value_name = "NAME")]
    pub prefix: String,
    /// Workers.
    #[command(flatten)]
    pub workers: HostArgs,
}

/// What is planned and how.
#[derive(Debug, Clone, Args)]
pub struct PlanningArgs {
    /// A workflow as JSON, a WfFormat 1.5 instance, or an example: hello, text-analysis, tree-reduction,
    /// montage, gemm, svd1, tsqr, wordcount, image-transform, cycles, epigenomics, genome, soykb, video and
    /// others; docs/workloads.md says what each does.
    #[arg(value_name = "FILE|EXAMPLE")]
    pub workflow: String,
    /// Who plans: auto (the best of what the others find; where times are uncertain it prefers flexible
    /// plans), simple, wukong, uniform, nonuniform, heft, faasflow, horizon, prewarm-all, prewarm-horizon,
    /// random, sweep, anneal, pareto, robust (keeps a deadline with a probability), or exec:PROGRAM for one
    /// of your own.
    /// anneal:2, pareto:2 and auto:2 search for about two seconds.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub planner: String,
    /// What the plan shall be best at: fastest, cheapest, deadline:20s, budget:0.01, balance:0.5.
    #[arg(long, default_value = "fastest", value_parser = parse_objective)]
    pub objective: Objective,
    /// Statistic of times that is planned with: mean (a run takes the sum of many), median or pNN.
    #[arg(long, default_value = "mean")]
    pub sla: Sla,
    /// What is not done beside running tasks, separated by commas: pre-load, task-dup, pre-warm, which plans
    /// choose, overlap-uploads and run-ahead, which workers do. What the workflow forces is done anyway.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub without: Vec<Omitted>,
    /// Seed of everything drawn; the same seed gives the same plan.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Size of an example; what it counts depends on the example.
    #[arg(long, value_name = "N")]
    pub size: Option<u64>,
    /// Folder that text-analysis reads [default: the sources in the cargo registry].
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Factor on the recorded times of a WfFormat file [default: 0.01 to run, 1 to plan].
    #[arg(long, value_name = "X")]
    pub time_scale: Option<f64>,
    /// Factor on the recorded sizes of a WfFormat file [default: 0.001 to run, 1 to plan].
    #[arg(long, value_name = "X")]
    pub size_scale: Option<f64>,
}

impl PlanningArgs {
    /// Who plans, and what for.
    #[must_use]
    pub fn request(&self) -> PlanRequest {
        PlanRequest {
            planner: self.planner.clone(),
            objective: self.objective,
            sla: self.sla,
            seed: self.seed,
            without: Omitted::planned(&self.without),
            warmth: Warmth::AsFound,
        }
    }
}

/// `foresail run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  foresail run text-analysis --objective deadline:20s --sla p95\n  \
    foresail run my-workflow.json --output results\n  \
    foresail run montage-chameleon.json --time-scale 0.01\n\n\
    Ctrl-C cancels the run. Without a running stack one is started for the run;\n\
    what it learns is kept in --data.")]
pub struct RunArgs {
    /// What is planned and how.
    #[command(flatten)]
    pub planning: PlanningArgs,
    /// Saves the results in this folder, one file per output.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Gives up after this time, for instance 10min.
    #[arg(long, value_name = "TIME", value_parser = units::parse_ms)]
    pub timeout: Option<f64>,
    /// Keeps the objects that only tasks of the run read; without it they are deleted when it has completed.
    #[arg(long)]
    pub keep_intermediate: bool,
    /// What happens when the run does not go as planned: nothing, a better plan is suggested, or it is put
    /// in force.
    #[arg(long, value_enum, default_value = "off")]
    pub replan: Replan,
    /// Takes over the results of this run, which has ended, where their tasks are the same in the workflow.
    #[arg(long, value_name = "RUN")]
    pub resume: Option<RunId>,
    /// Keeps the embedded stack running after the run, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Workers, where a stack is started for the run.
    #[command(flatten)]
    pub workers: HostArgs,
}

/// `foresail plan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  foresail plan tree-reduction --planner simple\n  \
    foresail plan montage-chameleon.json --platform aws-lambda-x86 --objective deadline:2min\n  \
    foresail plan hello -o json > plan.json\n  \
    foresail plan montage --html plan.html --explain mAdd\n  \
    foresail plan montage --planner 'exec:python3 mine.py'    a planner of one's own, docs/planning.md\n\n\
    Ctrl-C ends planning; nothing is left behind.")]
pub struct PlanArgs {
    /// What is planned and how.
    #[command(flatten)]
    pub planning: PlanningArgs,
    /// Prices and sizes: local, aws-lambda-x86, aws-lambda-arm64, knative or a TOML file.
    #[arg(long, default_value = "local", value_name = "NAME|FILE")]
    pub platform: String,
    /// Tells everything about this task: why it is where it is, and what every other size and place would
    /// have taken and cost. May be given several times.
    #[arg(long, value_name = "TASK")]
    pub explain: Vec<TaskId>,
    /// Writes the plan as one page for a browser, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `foresail demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  foresail demo ~/src --size 40MB --runs 5\n\n\
    Run 1 knows nothing; the others plan with what the runs before measured. Between runs all\n\
    workers are stopped, so that nothing but knowledge carries over.")]
pub struct DemoArgs {
    /// Folder of text to analyse [default: the sources in the cargo registry, failing that this folder].
    pub folder: Option<PathBuf>,
    /// How often the workflow is run.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub runs: u32,
    /// Most text that is read.
    #[arg(long, default_value = "48MB", value_parser = units::parse_bytes, value_name = "SIZE")]
    pub size: u64,
    /// Parts the text is cut into.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub parts: u32,
    /// What the plans shall be best at.
    #[arg(long, default_value = "fastest", value_parser = parse_objective)]
    pub objective: Objective,
    /// Workers.
    #[command(flatten)]
    pub workers: HostArgs,
}

/// Reads the name of an optimisation.
///
/// # Errors
/// A sentence that names what was expected.
pub fn parse_optimization(text: &str) -> Result<OptimizationKind, String> {
    let known = OptimizationKind::ALL;
    known.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let names = known.map(OptimizationKind::as_str).join(", ");
        format!("`{text}` is no optimisation; hint: use some of {names}")
    })
}

/// Reads `fastest`, `cheapest`, `deadline:20s`, `deadline:20s@0.95`, `budget:0.01` or `balance:0.5`.
///
/// # Errors
/// A sentence that names what was expected.
pub fn parse_objective(text: &str) -> Result<Objective, String> {
    let (kind, value) = text.split_once(':').unwrap_or((text, ""));
    match (kind, value) {
        ("fastest", "") => Ok(Objective::Fastest),
        ("cheapest", "") => Ok(Objective::Cheapest),
        ("deadline", time) if time.contains('@') => {
            let (time, share) = time.split_once('@').unwrap_or((time, ""));
            let makespan_ms = units::parse_ms(time).map_err(|e| e.to_string())?;
            match f64::from_str(share) {
                Ok(probability) if probability > 0.0 && probability <= 0.999 => {
                    Ok(Objective::Confidence { makespan_ms, probability })
                }
                _ => Err(format!(
                    "`{share}` is no probability above 0 and up to 0.999, for instance deadline:20s@0.95"
                )),
            }
        }
        ("deadline", time) => {
            let makespan_ms = units::parse_ms(time).map_err(|e| e.to_string())?;
            Ok(Objective::Deadline { makespan_ms })
        }
        ("budget", money) => {
            let cost_usd = units::parse_usd(money).map_err(|e| e.to_string())?;
            Ok(Objective::Budget { cost_usd })
        }
        ("balance", weight) => match f64::from_str(weight) {
            Ok(time_weight) if (0.0..=1.0).contains(&time_weight) => Ok(Objective::Balance { time_weight }),
            _ => Err(format!("`{weight}` is not a weight of time between 0 and 1, for instance balance:0.5")),
        },
        _ => Err(format!(
            "`{text}` is not an objective: use fastest, cheapest, deadline:20s, budget:0.01 or balance:0.5"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn objectives_are_read_with_their_values() {
        for (text, expect) in [
            ("fastest", Objective::Fastest),
            ("cheapest", Objective::Cheapest),
            ("deadline:20s", Objective::Deadline { makespan_ms: 20_000.0 }),
            ("deadline:20s@0.95", Objective::Confidence { makespan_ms: 20_000.0, probability: 0.95 }),
            ("budget:$0.01", Objective::Budget { cost_usd: 0.01 }),
            ("balance:0.5", Objective::Balance { time_weight: 0.5 }),
        ] {
            assert_eq!(parse_objective(text), Ok(expect), "{text}");
        }
        for bad in ["", "fast", "deadline", "deadline:20", "budget:-1", "balance:2", "fastest:1"] {
            assert!(parse_objective(bad).is_err(), "{bad:?}");
        }
        for share in ["0", "1", "-1", "nan", "often"] {
            let error = parse_objective(&format!("deadline:20s@{share}")).unwrap_err();
            assert!(error.starts_with(&format!("`{share}` is no probability above 0 and up to")), "{error}");
        }
    }

    #[test]
    fn optimisations_to_go_without_are_named_or_refused_with_the_names() {
        let cli = Cli::parse_from(["foresail", "run", "hello", "--without", "pre-warm,task-dup"]);
        let Command::Run(args) = cli.command else { panic!("not a run") };
        let planned = [OptimizationKind::PreWarm, OptimizationKind::TaskDup];
        assert_eq!(args.planning.without, planned.map(Omitted::Planned));
        let error = parse_optimization("preload").unwrap_err();
        assert!(error.contains("`preload`") && error.contains("pre-load, task-dup, pre-warm"), "{error}");
    }

    #[test]
    fn options_of_every_command_may_stand_behind_it() {
        let cli =
            Cli::parse_from(["foresail", "plan", "hello", "-o", "json", "--sla", "p95", "--color", "never"]);
        assert_eq!((cli.global.format, cli.global.color), (Format::Json, Color::Never));
        let Command::Plan(args) = cli.command else { panic!("not a plan") };
        assert_eq!(args.planning.sla, Sla::P95);
    }
}
