//! `foresail up`: a stack that runs until it is interrupted.

use std::path::Path;

use super::args::{Global, UpArgs};
use super::error::CliError;
use super::interrupt::Interrupt;
use super::render::{self, Table};
use super::session::{STACK_FILE, StackFile, data_dir, stack_file, stack_settings};
use super::terminal::Terminal;
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
    let settings =
        StackSettings { data: Some(data.clone()), listen: args.listen, ..stack_settings(&args.workers) };
    let stack = LocalStack::start(settings).await?;
    let addresses = stack_file(&stack);
    let written = write_down(&data, &addresses);
    let shown = written.and_then(|()| render::one(global.format, &addresses, || table(&addresses, &data)));
    if shown.is_ok() {
        terminal.say("press Ctrl-C to end it; `foresail run hello` in another terminal uses it");
        interrupt.asked().await;
        terminal.say("ending");
    }
    // The file goes first: a stack that is ending must not be found.
    let _ = std::fs::remove_file(data.join(STACK_FILE));
    stack.stop().await;
    Ok(shown?)
}

fn write_down(data: &Path, addresses: &StackFile) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(addresses).map_err(std::io::Error::other)?;
    // Renamed into place, so that nobody reads half of it.
    let draft = data.join(format!("{STACK_FILE}.new"));
    std::fs::write(&draft, text)?;
    std::fs::rename(&draft, data.join(STACK_FILE))
}

fn table(addresses: &StackFile, data: &Path) -> String {
    let mut table = Table::new(&["what", "where"]);
    table.row(["metad (API, dashboard)".to_owned(), addresses.metad.clone()]);
    table.row(["host of the workers".to_owned(), addresses.host.clone()]);
    table.row(["data".to_owned(), data.display().to_string()]);
    table.to_string()
}
