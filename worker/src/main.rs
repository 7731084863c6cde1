//! `foresail-worker`: a worker with the built-in functions and commands, and the local host on its own.
//!
//! Started by a host it is a worker; `foresail-worker serve` is one behind an HTTP endpoint; `foresail-worker
//! host` runs a host of processes, or of such endpoints, and prints its address on stdout.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};
use foresail_schemas::Platform;
use foresail_worker::coordination::CoordinationArgs;
use foresail_worker::host::Host;
use foresail_worker::host::endpoint::{Endpoint, EndpointHost, EndpointSettings};
use foresail_worker::host::gateway::{Gateway, GatewaySettings};
use foresail_worker::host::local::settings::{GUARD_MS, OBJECT_RUNS_KEPT_MAX, SHARED_BYTES_MAX};
use foresail_worker::host::local::{CpuShare, LocalFaas, LocalSettings, ObjectPlace, WorkerCommand};
use foresail_worker::serve::{self, ServeSettings};
use foresail_worker::{Registry, run_worker_if_asked};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(version, about = "Workers of Foresail, and the local host that starts them")]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run a host until SIGINT or SIGTERM: of processes on this machine, or of endpoints.
    Host(Box<HostArguments>),
    /// Be a worker behind an HTTP endpoint, for instance in a container of Knative.
    Serve(Box<ServeSettings>),
}

#[derive(Debug, clap::Args)]
struct HostArguments {
    /// Address to listen on; port 0 chooses a free one.
    #[arg(long, env = "FORESAIL_HOST_LISTEN", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of metad.
    #[arg(long, env = "FORESAIL_METAD", default_value = "http://127.0.0.1:7070")]
    metad: String,
    /// Token for metad, where it wants one.
    #[arg(long, env = "FORESAIL_METAD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Directory for objects, measurements that wait and scratch files.
    #[arg(long, env = "FORESAIL_HOST_DATA", default_value = "foresail-data/host")]
    data: PathBuf,
    /// Posts invocations of a size to an endpoint instead of starting processes, as
    /// `512=http://worker-512.default.svc`; once for each size.
    #[arg(long, value_name = "MB=URL")]
    endpoint: Vec<Endpoint>,
    /// Platform whose menu and limits hold here.
    #[arg(long, default_value = "local")]
    platform: String,
    /// Most workers that carry out an invocation at the same time [default: that of the platform].
    #[arg(long)]
    concurrency_max: Option<u32>,
    /// Most invocations that wait for a place.
    #[arg(long)]
    queue_max: Option<u32>,
    /// How long an idle worker stays, in ms [default: that of the platform].
    #[arg(long)]
    keep_alive_ms: Option<f64>,
    /// Longest life of one invocation in ms [default: that of the platform].
    #[arg(long)]
    life_ms_max: Option<f64>,
    /// A simulated delay added to every cold start, in ms.
    #[arg(long, default_value_t = 0.0)]
    cold_start_ms: f64,
    /// Whether workers get the CPU share of their size.
    #[arg(long, value_enum, default_value_t = Cpu::Enforced)]
    cpu_share: Cpu,
    /// Where objects too large for a commit record lie: `files` (below the data directory), `metad`, or
    /// `s3://BUCKET/PREFIX?endpoint=URL&region=NAME` with credentials in the environment.
    #[arg(long, env = "FORESAIL_STORE", default_value_t = ObjectPlace::Files, value_name = "STORE")]
    objects: ObjectPlace,
    #[command(flatten)]
    state: CoordinationArgs,
    /// Most bytes of objects of a remote store that the workers of this machine share; 0 shares none.
    #[arg(long, env = "FORESAIL_HOST_SHARED_BYTES_MAX", default_value_t = SHARED_BYTES_MAX)]
    shared_bytes_max: u64,
    /// Runs that have ended whose objects are kept; older ones are deleted.
    #[arg(long, env = "FORESAIL_HOST_OBJECT_RUNS_KEPT_MAX", default_value_t = OBJECT_RUNS_KEPT_MAX)]
    object_runs_kept_max: usize,
    /// Time between two looks for tasks of a run that are stuck and that no client starts again, in ms.
    #[arg(long, default_value_t = GUARD_MS)]
    guard_ms: f64,
    /// The program of a worker [default: this one].
    #[arg(long)]
    worker: Option<PathBuf>,
    /// The Python interpreter of the workers, 3.9 or later [default: python3].
    #[arg(long, env = "FORESAIL_PYTHON")]
    python: Option<PathBuf>,
    /// Arguments of the program of a worker.
    #[arg(last = true)]
    worker_args: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cpu {
    Enforced,
    Free,
}

fn main() -> ExitCode {
    run_worker_if_asked(&Registry::new());
    let Arguments { command } = Arguments::parse();
    foresail_worker::runtime::log_to_stderr();
    let done = match command {
        What::Serve(settings) => return serve::main(&Registry::new(), *settings),
        What::Host(arguments) if arguments.endpoint.is_empty() => host(*arguments),
        What::Host(arguments) => endpoints(*arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn host(arguments: HostArguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut host = LocalFaas::start(settings(arguments)?)?;
    until_ended(host.url())?;
    host.stop();
    Ok(())
}

/// A host of endpoints, at an address of its own.
fn endpoints(arguments: HostArguments) -> Result<(), Box<dyn std::error::Error>> {
    let defaults = EndpointSettings::new(arguments.endpoint);
    let settings = EndpointSettings {
        token: arguments.token.clone(),
        in_flight_max: arguments.concurrency_max.unwrap_or(defaults.in_flight_max),
        queue_max: arguments.queue_max.unwrap_or(defaults.queue_max),
        ..defaults
    };
    let of_gateway = GatewaySettings {
        listen: arguments.listen,
        token: arguments.token,
        guard_ms: arguments.guard_ms,
        objects: arguments.objects,
        object_runs_kept_max: arguments.object_runs_kept_max,
        ..GatewaySettings::new(arguments.metad)
    };
    let make = || async { EndpointHost::new(settings).map(|host| Arc::new(host) as Arc<dyn Host>) };
    let gateway = Gateway::start(of_gateway, make)?;
    until_ended(gateway.url())
}

/// Tells the address and waits for a signal.
fn until_ended(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Handlers stand before the address is told: whoever reads it may stop the host at once.
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let mut stdout = std::io::stdout();
    writeln!(stdout, "host listening on {url}")?;
    stdout.flush()?;
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    Ok(())
}

fn settings(arguments: HostArguments) -> Result<LocalSettings, String> {
    let platforms = Platform::built_in();
    let platform = platforms.iter().find(|p| p.name.as_str() == arguments.platform).ok_or_else(|| {
        let names: Vec<_> = platforms.iter().map(|p| format!("`{}`", p.name)).collect();
        format!("--platform `{}` is not known; hint: use {}", arguments.platform, names.join(" or "))
    })?;
    let defaults = LocalSettings::new(arguments.metad, arguments.data).for_platform(platform);
    Ok(LocalSettings {
        listen: arguments.listen,
        token: arguments.token,
        worker: arguments.worker.map(|program| WorkerCommand { program, args: arguments.worker_args }),
        python: arguments.python,
        objects: arguments.objects,
        coordination: arguments.state.coordination,
        concurrency_max: arguments.concurrency_max.unwrap_or(defaults.concurrency_max),
        queue_max: arguments.queue_max.unwrap_or(defaults.queue_max),
        keep_alive_ms: arguments.keep_alive_ms.unwrap_or(defaults.keep_alive_ms),
        life_ms_max: arguments.life_ms_max.unwrap_or(defaults.life_ms_max),
        cold_start_ms: arguments.cold_start_ms,
        shared_bytes_max: arguments.shared_bytes_max,
        object_runs_kept_max: arguments.object_runs_kept_max,
        guard_ms: arguments.guard_ms,
        cpu_share: match arguments.cpu_share {
            Cpu::Enforced => CpuShare::Enforced,
            Cpu::Free => CpuShare::Free,
        },
        ..defaults
    })
}
