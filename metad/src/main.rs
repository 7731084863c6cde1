//! The binary `metad`: reads the settings, starts the daemon, stops it on SIGTERM or SIGINT.
//!
//! stdout carries one line, `metad listening on http://ADDRESS`, once requests are answered; the log goes to
//! stderr.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use foresail_metad::{Overrides, Server};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Batches are made by one thread and freed by others, which costs the system's allocator a tenth of the CPU
/// time of an ingest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The metadata and prediction daemon of Foresail.
#[derive(Parser)]
#[command(name = "metad", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    ///
    /// Every setting may be given as a flag, as an environment variable, or in a TOML file under its name
    /// with underscores; the flag wins over the variable, the variable over the file, the file over the
    /// default.
    Serve(Box<Serve>),
}

#[derive(clap::Args)]
struct Serve {
    /// TOML file with settings.
    #[arg(long, env = "FORESAIL_METAD_CONFIG")]
    config: Option<PathBuf>,
    /// What is logged, for instance `debug` or `foresail_metad=debug,info`.
    #[arg(long, env = "FORESAIL_METAD_LOG", default_value = "info")]
    log: String,
    /// How it is logged.
    #[arg(long, env = "FORESAIL_METAD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(flatten)]
    settings: Overrides,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

fn main() -> ExitCode {
    let Command::Serve(serve) = Cli::parse().command;
    match run(*serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(serve: Serve) -> Result<(), Box<dyn std::error::Error>> {
    let filter = EnvFilter::try_new(&serve.log).map_err(|e| {
        format!("`{}` (--log) is no log filter: {e}\nhint: use error, warn, info, debug or trace", serve.log)
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    match serve.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let file = serve.config.as_deref().map(Overrides::from_file).transpose()?.unwrap_or_default();
    let settings = serve.settings.or(file).into_settings();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before the start, so that a signal during it is not lost.
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let server = Server::start(settings)?;
    // Whoever started us may be gone and its pipe closed; that is no reason to stop.
    let mut stdout = std::io::stdout();
    let _closed =
        writeln!(stdout, "metad listening on http://{}", server.address()).and_then(|()| stdout.flush());
    let name = runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    });
    tracing::info!(signal = name, "stopping");
    server.stop();
    Ok(())
}
