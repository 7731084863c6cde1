//! `foresail bill`: what a run was predicted to cost, what it has cost, and why that differs.

use foresail_schemas::run::RunStatus;

use super::args::{BillArgs, Global};
use super::error::CliError;
use super::render::{self, Table};
use super::session::Session;
use crate::bill::{Amount, Bill, Line, LineKind};
use crate::units::{change, signed_usd, small_usd};

/// Shows the bill of a run.
///
/// # Errors
/// [`CliError`] when there is no stack or no such run.
pub async fn bill(global: &Global, args: &BillArgs) -> Result<(), CliError> {
    let session = Session::look(global).await?;
    let made = async { session.client.attach(&args.run).await?.bill(Some(&session.platform)).await };
    let made = made.await;
    session.close().await;
    let made = made?;
    Ok(render::one(global.format, &made, || text(&made))?)
}

/// The bill in one line.
#[must_use]
pub fn in_short(run: &str, predicted_usd: f64, billed_usd: f64) -> String {
    format!(
        "bill: {} predicted, {} billed ({}); foresail bill {run} tells why",
        small_usd(predicted_usd),
        small_usd(billed_usd),
        change(predicted_usd, billed_usd)
    )
}

fn text(bill: &Bill) -> String {
    let Bill { run, workflow, platform, difference_usd, causes, .. } = bill;
    let prices = bill.origin.as_ref().map_or_else(String::new, |origin| {
        format!(", prices of {}, {}, by: {}", origin.region, origin.date, origin.source)
    });
    let mut text = format!("run {run} of {workflow} on {platform}{prices}\n\n{}", lines(bill));
    if !causes.is_empty() {
        text += &format!("\nwhere {} come from\n\n", signed_usd(*difference_usd));
        let mut table = Table::new(&["adds", "why", "task", "what"]);
        for cause in causes {
            let kind = serde_json::to_value(cause.kind).unwrap_or_default();
            let kind = kind.as_str().unwrap_or_default().replace('_', " ");
            let task = cause.task.clone().unwrap_or_default();
            table.row([signed_usd(cause.usd), kind, task, cause.what.clone()]);
        }
        text += &table.to_string();
    }
    notes(bill).iter().for_each(|note| text += &format!("\n{note}\n"));
    text
}

fn lines(bill: &Bill) -> Table {
    let header = ["for", "size", "price", "predicted", "", "billed", "", "difference"];
    let mut table = Table::new(&header);
    for line in &bill.lines {
        let Line { kind, config, unit, price_usd, predicted, billed } = line;
        let quantity = |amount: &Amount| match kind {
            LineKind::Requests | LineKind::Puts | LineKind::Gets => format!("{:.0}", amount.quantity),
            _ => format!("{:.4}", amount.quantity),
        };
        let told = |amount: Option<&Amount>| match amount {
            Some(amount) => [quantity(amount), small_usd(amount.usd)],
            None => ["-".to_owned(), "-".to_owned()],
        };
        let name = format!("{kind:?}").to_lowercase();
        let config = config.map_or_else(String::new, |config| config.to_string());
        let [predicted, predicted_usd] = told(predicted.as_ref());
        let [billed, billed_usd] = told(Some(billed));
        let difference = line.difference_usd().map_or_else(|| "-".to_owned(), signed_usd);
        let price = format!("{} per {unit}", small_usd(*price_usd));
        table.row([name, config, price, predicted, predicted_usd, billed, billed_usd, difference]);
    }
    let [predicted, billed] = [bill.predicted_usd, bill.billed_usd].map(small_usd);
    let none = String::new;
    table.row([
        "sum".into(),
        none(),
        none(),
        none(),
        predicted,
        none(),
        billed,
        signed_usd(bill.difference_usd),
    ]);
    table
}

/// What is to be known beside the figures.
fn notes(bill: &Bill) -> Vec<String> {
    let mut notes = Vec::new();
    if bill.status == RunStatus::Running {
        notes.push("the run is under way: this is what it has cost until now".to_owned());
    }
    if bill.estimated > 0 {
        let count = bill.estimated;
        notes.push(format!(
            "{count} workers have not said what they used: they are taken to live until now, \
             or the end of the run"
        ));
    }
    if bill.replanned > 0 {
        let count = bill.replanned;
        notes.push(format!("{count} plans took the place of the one that is predicted by here"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_run_tells_both_sums_and_where_the_reasons_are() {
        let line = in_short("r-1", 0.000_02, 0.000_025);
        assert_eq!(
            line,
            "bill: $0.0000200 predicted, $0.0000250 billed (+25.0 %); foresail bill r-1 tells why"
        );
    }
}
