//! `foresail resume`: goes on where a run ended, or where it was left.

use foresail_schemas::id::RunId;
use foresail_schemas::run::RunStatus;

use super::args::{Global, ResumeArgs};
use super::error::CliError;
use super::interrupt::Interrupt;
use super::run::{carry_through, show};
use super::session::{self, Session};
use super::terminal::Terminal;
use crate::client::SubmitOptions;
use crate::run::RunHandle;
use crate::settings::ClientSettings;

/// Starts a new run of the same workflow under the same plan, with the results that the old one has; one that
/// has not ended and that nobody works on is taken up itself.
///
/// # Errors
/// [`CliError`] when there is no such run, it has not ended, or the new one fails or is interrupted.
pub async fn resume(
    global: &Global,
    args: &ResumeArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    session::check_host_named(global)?;
    let session = Session::open(global, &args.workers, ClientSettings::default()).await?;
    let done = async {
        let handle = go_on(&session, &args.run, terminal).await?;
        carry_through(&handle, args.output.as_deref(), args.timeout, terminal, interrupt).await
    };
    let done = done.await;
    let shown = show(global, &done);
    session.close().await;
    shown?;
    Ok(done?.0.completed().map(drop)?)
}

/// The run itself where nobody works on it, otherwise a new one with the results of the old.
async fn go_on(session: &Session, run: &RunId, terminal: &Terminal) -> Result<RunHandle, CliError> {
    let old = session.client.attach(run).await?;
    let summary = old.summary().await?;
    // Nobody but this command can work with a stack that it has just started.
    let is_left = summary.stalled_ms.is_some() || session.is_embedded();
    if summary.status == RunStatus::Running && is_left {
        let (committed, tasks) = (summary.committed, summary.tasks);
        terminal.say(&format!("run {run} was left with {committed} of {tasks} tasks done; it goes on"));
        return Ok(session.client.take_up_on(run, Some(session.platform.clone())).await?);
    }
    let mut options = SubmitOptions { resume: Some(run.clone()), ..SubmitOptions::on(&session.platform) };
    options.limits.replan = session.client.workflow_and_plan(run).await?.1.options.replan;
    Ok(session.client.submit(old.workflow(), old.plan().clone(), options).await?)
}
