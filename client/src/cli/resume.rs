//! `foresail resume`: goes on where a run ended.

use super::args::{Global, ResumeArgs};
use super::error::CliError;
use super::interrupt::Interrupt;
use super::run::{carry_through, show};
use super::session::{self, Session};
use super::terminal::Terminal;
use crate::client::SubmitOptions;
use crate::settings::ClientSettings;

/// Starts a new run of the same workflow under the same plan, with the results that the old one has.
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
        let old = session.client.attach(&args.run).await?;
        let options =
            SubmitOptions { resume: Some(args.run.clone()), ..SubmitOptions::on(&session.platform) };
        let handle = session.client.submit(old.workflow(), old.plan().clone(), options).await?;
        carry_through(&handle, args.output.as_deref(), args.timeout, terminal, interrupt).await
    };
    let done = done.await;
    let shown = show(global, &done);
    session.close().await;
    shown?;
    Ok(done?.0.completed().map(drop)?)
}
