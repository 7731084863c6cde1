//! `foresail up`: a stack that runs until it is interrupted.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::args::{Global, UpArgs};
use super::error::CliError;
use super::interrupt::Interrupt;
use super::render::{self, Table};
#[cfg(feature = "aws")]
use super::session::offer;
use super::session::{STACK_FILE, StackFile, data_dir, stack_file, stack_settings};
#[cfg(feature = "aws")]
use super::source;
use super::terminal::Terminal;
use crate::functions;
use crate::replan::attend;
#[cfg(feature = "aws")]
use crate::stack::Workers;
use crate::stack::{LocalStack, StackSettings};

/// Runs a stack until the user interrupts.
///
/// # Errors
/// [`CliError`] when it cannot start or its addresses cannot be written down.
pub async fn up(
    global: &Global,
    args: &UpArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    let data = data_dir(global);
    let settings = StackSettings {
        data: Some(data.clone()),
        listen: args.listen,
        advertise: args.advertise.clone(),
        ..stack_settings(global, &args.workers)
    };
    let settings = with_workers(global, args, settings)?;
    let stack = LocalStack::start(settings).await?;
    let addresses = stack_file(&stack);
    let written = write_down(&data, &addresses);
    // What is printed lands in logs, so that the token is told in the file alone.
    let shown = StackFile { token: None, ..addresses };
    let shown = written.and_then(|()| render::one(global.format, &shown, || table(&shown, &data)));
    if shown.is_ok() {
        let there =
            global.data.as_ref().map_or_else(String::new, |data| format!(" --data {}", data.display()));
        terminal
            .say(&format!("press Ctrl-C to end it; `foresail{there} run hello` in another terminal uses it"));
        let attending = async {
            match stack.client().await {
                Ok(client) => attend(client, stack.platform().clone(), functions::registry()).await,
                Err(error) => terminal.say(&format!("nobody looks after runs without a client: {error}")),
            }
            std::future::pending().await
        };
        tokio::select! {
            () = interrupt.asked() => {}
            () = attending => {}
        }
        terminal.say("ending");
    }
    // The file goes first: a stack that is ending must not be found.
    let _ = std::fs::remove_file(data.join(STACK_FILE));
    stack.stop().await;
    Ok(shown?)
}

/// The workers are those of `--host`: `local`, or `lambda`. An address there is that of a host which other
/// commands use.
fn with_workers(global: &Global, args: &UpArgs, settings: StackSettings) -> Result<StackSettings, CliError> {
    match global.host.as_deref() {
        None | Some("local") => Ok(settings),
        Some(address) if address.starts_with("http") => Ok(settings),
        #[cfg(feature = "aws")]
        Some("lambda") => {
            if args.workers.lanes.is_some() {
                let hint = "leave `--lanes` out, and give `--concurrency` instead";
                return Err(CliError::input("a function on Lambda carries out one task at a time", hint));
            }
            let mut platform = source::platform("aws-lambda-x86")?;
            if !args.workers.memory.is_empty() {
                offer(&mut platform, &args.workers.memory);
            }
            platform.concurrency_max = args.workers.concurrency.unwrap_or(platform.concurrency_max);
            let workers = Workers::Lambda { prefix: args.prefix.clone(), region: None };
            Ok(StackSettings { platform, workers, ..settings })
        }
        #[cfg(not(feature = "aws"))]
        Some("lambda") => Err(CliError::without_aws(&format!("to invoke functions `{}-…`", args.prefix))),
        Some(other) => Err(CliError::input(
            format!("there is no host `{other}`"),
            "use `--host local` or `--host lambda`",
        )),
    }
}

fn write_down(data: &Path, addresses: &StackFile) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(addresses).map_err(std::io::Error::other)?;
    // Renamed into place, so that nobody reads half of it.
    let draft = data.join(format!("{STACK_FILE}.new"));
    // The mode holds for a new file only, and what an earlier stack may have left has another.
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?.write_all(&text)?;
    std::fs::rename(&draft, data.join(STACK_FILE))
}

fn table(addresses: &StackFile, data: &Path) -> String {
    let mut table = Table::new(&["what", "where"]);
    table.row(["metad (API, dashboard)".to_owned(), addresses.metad.clone()]);
    table.row(["host of the workers".to_owned(), addresses.host.clone()]);
    table.row(["data".to_owned(), data.display().to_string()]);
    table.to_string()
}
