//! The bill of a run: what was predicted before it, what was billed, and what the difference consists of.
//!
//! A pure function of the first plan, the prices and the events. Every line has a quantity and an amount; the
//! amounts of all lines add up to the cost that is told of the run elsewhere. The difference is explained by
//! causes that add up to it ([`causes`]). Money in USD, times in ms, GB of memory and of transfers are 2^30
//! bytes.
//!
//! Guarantees: nothing is billed twice; what no worker reported is estimated and said to be. Not in it:
//! invocations that found the run over, and what a worker does after it has told what it used (on Lambda the
//! log of the function tells both).

mod books;
mod causes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use foresail_schemas::Workflow;
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::{PlatformName, RunId, WorkflowName};
use foresail_schemas::plan::Plan;
use foresail_schemas::platform::{GB_BYTES, Origin, Platform, Rates};
use foresail_schemas::run::{ConfigUsage, RunEvent, RunStatus};
use serde::Serialize;

use books::Books;
pub use causes::{Cause, CauseKind};

/// What a bill is made of.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// The run.
    pub run: &'a RunId,
    /// What was run.
    pub workflow: &'a Workflow,
    /// The plan that it began with.
    pub plan: &'a Plan,
    /// Whose prices hold.
    pub platform: &'a Platform,
    /// All its events until now.
    pub events: &'a [RunEvent],
    /// Time since it was created.
    pub now_ms: f64,
}

/// What a run was predicted to cost and has cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bill {
    /// The run.
    pub run: RunId,
    /// What was run.
    pub workflow: WorkflowName,
    /// Where it stands; what still runs is estimated.
    pub status: RunStatus,
    /// Whose prices hold.
    pub platform: PlatformName,
    /// Where and when the prices were valid, and who says so.
    pub origin: Option<Origin>,
    /// Sum of what was predicted before the run.
    pub predicted_usd: f64,
    /// Sum of what is billed.
    pub billed_usd: f64,
    /// What is billed beyond what was predicted.
    pub difference_usd: f64,
    /// What both sums consist of.
    pub lines: Vec<Line>,
    /// What the difference consists of, the largest first.
    pub causes: Vec<Cause>,
    /// Invocations that have not reported what they used, and are estimated by their life so far.
    pub estimated: u64,
    /// Plans that were put in force after the first.
    pub replanned: u64,
}

/// What is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// Invocations.
    Requests,
    /// Memory while workers carry something out or wait, in GB s.
    Execution,
    /// Memory while new workers make themselves ready, in GB s.
    Initialisation,
    /// Workers of the pool, in hours.
    Pool,
    /// Objects written.
    Puts,
    /// Objects read.
    Gets,
    /// Bytes between workers and the store, in GB.
    Transfer,
}

impl LineKind {
    /// What its quantity counts.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Requests => "request",
            Self::Execution | Self::Initialisation => "GB s",
            Self::Pool => "h",
            Self::Puts => "PUT",
            Self::Gets => "GET",
            Self::Transfer => "GB",
        }
    }
}

/// A line of a bill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What is paid for.
    pub kind: LineKind,
    /// The size of the workers, where it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ResourceConfig>,
    /// What the quantity counts.
    pub unit: &'static str,
    /// Price of one in USD.
    pub price_usd: f64,
    /// What was predicted; absent where the plan does not say what its cost consists of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Amount>,
    /// What is billed.
    pub billed: Amount,
}

/// How much, and what it costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Amount {
    /// How much.
    pub quantity: f64,
    /// What it costs.
    pub usd: f64,
}

impl Line {
    /// What is billed beyond what was predicted.
    #[must_use]
    pub fn difference_usd(&self) -> Option<f64> {
        Some(self.billed.usd - self.predicted?.usd)
    }
}

/// Makes the bill of a run.
#[must_use]
pub fn bill(account: &Account<'_>) -> Bill {
    let Account { run, workflow, plan, platform, .. } = *account;
    let (books, rates) = (Books::of(account), platform.rates());
    let billed = books.usage();
    let is_itemised = !plan.usage.is_empty();
    let lines = lines(&rates, &billed, is_itemised.then_some(&plan.usage));
    let billed_usd = lines.iter().map(|line| line.billed.usd).sum();
    let predicted_usd = match is_itemised {
        true => lines.iter().filter_map(|line| line.predicted).map(|amount| amount.usd).sum(),
        false => plan.predicted.cost_usd,
    };
    let causes = match is_itemised {
        true => causes::causes(account, &books),
        false => causes::unitemised(billed_usd - predicted_usd),
    };
    Bill {
        run: run.clone(),
        workflow: workflow.name().clone(),
        status: books.status,
        platform: platform.name.clone(),
        origin: platform.origin.clone(),
        predicted_usd,
        billed_usd,
        difference_usd: billed_usd - predicted_usd,
        lines,
        causes,
        estimated: books.estimated(),
        replanned: books.replanned,
    }
}

/// Kind and size of a line.
type Key = (LineKind, (u32, u32));
/// The size where it has one, and the quantity.
type Item = (Option<ResourceConfig>, f64);
/// As the lines of a bill stand.
type Items = BTreeMap<Key, Item>;

fn lines(rates: &Rates, billed: &[ConfigUsage], predicted: Option<&Vec<ConfigUsage>>) -> Vec<Line> {
    let billed = items(rates, billed);
    let predicted = predicted.map(|usage| items(rates, usage));
    let mut all: Items = billed.clone();
    for (key, (config, _)) in predicted.iter().flatten() {
        all.entry(*key).or_insert((*config, 0.0));
    }
    let line = |(key, (config, _)): (&Key, &Item)| {
        let price_usd = price(rates, key.0);
        let of = |items: &Items| {
            let quantity = items.get(key).map_or(0.0, |(_, quantity)| *quantity);
            Amount { quantity, usd: quantity * price_usd }
        };
        let (kind, unit) = (key.0, key.0.unit());
        let (predicted, billed) = (predicted.as_ref().map(of), of(&billed));
        Line { kind, config: *config, unit, price_usd, predicted, billed }
    };
    all.iter().map(line).collect()
}

fn price(rates: &Rates, kind: LineKind) -> f64 {
    let prices = &rates.prices;
    match kind {
        LineKind::Requests => prices.request_usd,
        LineKind::Execution | LineKind::Initialisation => prices.gb_second_usd,
        LineKind::Pool => rates.pool.map_or(0.0, |pool| pool.worker_hour_usd),
        LineKind::Puts => prices.put_usd,
        LineKind::Gets => prices.get_usd,
        LineKind::Transfer => prices.transfer_gb_usd,
    }
}

/// The quantities of all that workers used.
fn items(rates: &Rates, used: &[ConfigUsage]) -> Items {
    let mut items = Items::new();
    let mut add = |kind, config: Option<ResourceConfig>, quantity: f64| {
        let key = config.map_or((0, 0), |config| config.key());
        items.entry((kind, key)).or_insert((config, 0.0)).1 += quantity;
    };
    let everywhere = [LineKind::Requests, LineKind::Puts, LineKind::Gets, LineKind::Transfer];
    everywhere.into_iter().for_each(|kind| add(kind, None, 0.0));
    for ConfigUsage { config, invocations, usage, .. } in used {
        let at = Some(*config);
        if rates.pool.is_some_and(|pool| pool.config().key() == config.key()) {
            add(LineKind::Pool, at, usage.billed_ms / 3_600_000.0);
        } else {
            // What a worker reports of its initialisation is part of what it reports in all.
            let init_ms = usage.init_ms.min(usage.billed_ms);
            add(LineKind::Requests, None, *invocations as f64);
            add(LineKind::Execution, at, config.gb() * (usage.billed_ms - init_ms) / 1000.0);
            add(LineKind::Initialisation, at, config.gb() * init_ms / 1000.0);
        }
        add(LineKind::Puts, None, usage.puts as f64);
        add(LineKind::Gets, None, usage.gets as f64);
        add(LineKind::Transfer, None, (usage.download_bytes + usage.upload_bytes) as f64 / GB_BYTES);
    }
    items
}
