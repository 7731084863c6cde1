//! `foresail replan`: a better way to go on with a run, looked for and accepted by hand.

use foresail_schemas::id::RunId;
use foresail_schemas::run::{Promise, ReplanRequest, Replanning};
use serde_json::json;

use super::args::{Global, ReplanArgs};
use super::error::CliError;
use super::render::{self, Table};
use super::session::Session;
use super::terminal::Terminal;
use crate::units;
use foresail_planner::Verdict;

/// Looks for a better plan, shows it beside the one in force, and does with it what the arguments say.
///
/// # Errors
/// [`CliError`] when there is no stack or no such run, it has ended, or nothing was suggested for it.
pub async fn replan(global: &Global, args: &ReplanArgs, terminal: &Terminal) -> Result<(), CliError> {
    let session = Session::look(global).await?;
    let done = match args.accept {
        true => accept(global, &session, &args.run, terminal).await,
        false => propose(global, &session, args, terminal).await,
    };
    session.close().await;
    done
}

async fn accept(
    global: &Global,
    session: &Session,
    run: &RunId,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let Some(request) = session.client.suggestion(run).await? else {
        let what = format!("no plan is suggested for run `{run}` in place of the one in force");
        return Err(CliError::input(what, format!("`foresail replan {run}` looks for one")));
    };
    let epoch = session.client.put_in_force(run, &request).await?;
    terminal.say(&format!("plan {epoch} of run {run} is in force"));
    show(global, Verdict::Replace, epoch, &request)
}

async fn propose(
    global: &Global,
    session: &Session,
    args: &ReplanArgs,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let (client, run) = (&session.client, &args.run);
    let found = client.propose(run, Some(session.platform.clone())).await?;
    let mut epoch = found.request.expected_epoch;
    match (found.verdict, args.auto) {
        (Verdict::Keep, _) => terminal.say(&format!("plan {epoch} of run {run} stays in force")),
        (Verdict::Replace, true) => {
            epoch = client.put_in_force(run, &found.request).await?;
            terminal.say(&format!("plan {epoch} of run {run} is in force"));
        }
        (Verdict::Replace, false) => {
            client.suggest(run, &found.request).await?;
            terminal.say(&accept_hint(run, None));
        }
    }
    show(global, found.verdict, epoch, &found.request)
}

/// How to put a suggested plan in force; `metad` is the address where no other command finds it by itself.
pub fn accept_hint(run: &RunId, metad: Option<&str>) -> String {
    let at = metad.map_or_else(String::new, |metad| format!(" --metad {metad}"));
    format!("`foresail replan {run} --accept{at}` puts the suggested plan in force")
}

fn show(global: &Global, verdict: Verdict, epoch: u64, request: &ReplanRequest) -> Result<(), CliError> {
    let is_better = verdict == Verdict::Replace;
    let document = json!({ "better": is_better, "epoch": epoch, "why": request.why });
    Ok(render::one(global.format, &document, || request.why.as_ref().map_or_else(String::new, table))?)
}

fn table(why: &Replanning) -> String {
    let Replanning { cause, reason, kept, new, moved } = why;
    let mut table = Table::new(&["", "plan in force", "new plan"]);
    let mut row = |what: &str, write: fn(f64) -> String, of: fn(&Promise) -> f64| {
        table.row([what.to_owned(), write(of(kept)), write(of(new))]);
    };
    row("makespan", units::ms, |promise| promise.makespan_ms);
    row("cost", units::usd, |promise| promise.cost_usd);
    table.row(["tasks that move".to_owned(), String::new(), moved.to_string()]);
    format!("{table}\nwhy looked: {cause}\nverdict: {reason}\n")
}
