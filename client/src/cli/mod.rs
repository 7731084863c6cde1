//! The command line: arguments in, library calls, data on stdout, everything else on stderr.
//!
//! [`main`] is the whole binary. A command does no work of its own that the library could do; it decides what
//! to show.

mod apart;
pub mod args;
#[cfg(feature = "aws")]
mod aws;
mod bill;
mod bridge;
mod demo;
mod error;
mod execute;
mod export;
mod import;
mod interrupt;
mod known;
mod lab;
mod plan;
mod predict;
mod render;
mod replan;
mod resume;
mod run;
mod runs;
mod scores;
mod session;
mod source;
mod terminal;
mod tune;
mod up;
mod written;

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use args::{Cli, Command, ExportArgs, ExportWhat, Format, LabArgs, LabCommand, SamplesArgs};
use error::CliError;
use interrupt::Interrupt;
pub(crate) use plan::basis_name;
use terminal::Terminal;

/// Parses the arguments, carries out the command and tells what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.global.verbose);
    let terminal = Terminal::new(cli.global.color);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.error(&format!("no threads can be started: {error}"), "look at the limits of this user");
            return ExitCode::from(3);
        }
    };
    let done = runtime.block_on(until_interrupted(&cli, &terminal));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough, as with `foresail runs | head`.
        Err(CliError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            terminal.error(&error.to_string(), &error.hint());
            error.exit_code()
        }
    }
}

/// Commands that run something end in good order when they are interrupted; the others just end.
async fn until_interrupted(cli: &Cli, terminal: &Terminal) -> Result<(), CliError> {
    let interrupt = Interrupt::listen();
    let ends_itself = match &cli.command {
        Command::Lab(args) => {
            matches!(args.command, LabCommand::Plans(_) | LabCommand::Run(_) | LabCommand::Optimisations(_))
        }
        command => matches!(
            command,
            Command::Up(_)
                | Command::Run(_)
                | Command::Resume(_)
                | Command::Demo(_)
                | Command::Plan(_)
                | Command::Bridge(_)
        ),
    };
    let given_up = async {
        match ends_itself {
            true => interrupt.overdue().await,
            false => interrupt.asked().await,
        }
    };
    tokio::select! {
        done = carry_out(cli, terminal, &interrupt) => done,
        () = given_up => Err(CliError::Stopped { hint: left_behind(&cli.command) }),
    }
}

/// What an interrupted command leaves behind, where the user may ask.
fn left_behind(command: &Command) -> &'static str {
    match command {
        Command::Import(_) => "what was sent is stored; the same import again goes on from there",
        Command::Export(ExportArgs {
            what: Some(ExportWhat::Samples(SamplesArgs { file: Some(_), .. })),
            ..
        }) => "no file was written",
        Command::Deploy(_) | Command::Destroy(_) => {
            "what stands by now stays; the same command goes on from there"
        }
        Command::Run(_) | Command::Resume(_) | Command::Demo(_) => {
            "it took too long to end in good order; `foresail runs` shows whether the run has ended"
        }
        _ => "",
    }
}

/// Some forms are for some commands.
fn check_format(format: Format, command: &Command) -> Result<(), CliError> {
    let lab = if let Command::Lab(LabArgs { command }) = command { Some(command) } else { None };
    let refused = match (format, lab) {
        (Format::Markdown, None) => "only `foresail lab` writes Markdown",
        (Format::Csv, Some(LabCommand::Plans(_) | LabCommand::Run(_) | LabCommand::Optimisations(_)))
        | (Format::Parquet, Some(LabCommand::Plans(_))) => return Ok(()),
        (Format::Csv, _) => "only `plans`, `run` and `optimisations` of `foresail lab` write CSV with -o",
        (Format::Parquet, _) => "only `foresail lab plans` writes Parquet with -o",
        _ => return Ok(()),
    };
    Err(CliError::input(refused, "use -o table, json or ndjson"))
}

async fn carry_out(cli: &Cli, terminal: &Terminal, interrupt: &Interrupt) -> Result<(), CliError> {
    let global = &cli.global;
    check_format(global.format, &cli.command)?;
    match &cli.command {
        Command::Up(args) => up::up(global, args, terminal, interrupt).await,
        Command::Run(args) => run::run(global, args, terminal, interrupt).await,
        Command::Plan(args) => plan::plan(global, args, terminal, interrupt).await,
        Command::Predict(args) => predict::predict(global, args, terminal).await,
        Command::Runs(args) => runs::runs(global, args, terminal).await,
        Command::Bill(args) => bill::bill(global, args).await,
        Command::Resume(args) => resume::resume(global, args, terminal, interrupt).await,
        Command::Cancel(args) => runs::cancel(global, args, terminal).await,
        Command::Replan(args) => replan::replan(global, args, terminal).await,
        Command::Tune(args) => tune::tune(global, args, terminal).await,
        Command::Scores(args) => scores::scores(global, args, terminal).await,
        Command::Import(args) => import::import(global, args, terminal).await,
        Command::Export(args) => export::export(global, args, terminal).await,
        Command::Lab(args) => lab::lab(global, args, terminal, interrupt).await,
        Command::Demo(args) => demo::demo(global, args, terminal, interrupt).await,
        Command::Bridge(args) => bridge::bridge(global, args, interrupt).await,
        #[cfg(feature = "aws")]
        Command::Deploy(args) => aws::deploy(global, args, terminal).await,
        #[cfg(feature = "aws")]
        Command::Doctor(args) => aws::doctor(global, args).await,
        #[cfg(feature = "aws")]
        Command::Destroy(args) => aws::destroy(global, args, terminal).await,
        #[cfg(not(feature = "aws"))]
        Command::Deploy(_) => Err(CliError::without_aws("`foresail deploy`")),
        #[cfg(not(feature = "aws"))]
        Command::Doctor(_) => Err(CliError::without_aws("`foresail doctor`")),
        #[cfg(not(feature = "aws"))]
        Command::Destroy(_) => Err(CliError::without_aws("`foresail destroy`")),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "foresail", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// Logs go to stderr: warnings, or more with `-v`; `FORESAIL_LOG` overrides both.
fn log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("FORESAIL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // Fails only where a logger is set already, as in tests.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}
