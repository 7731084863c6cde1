//! `foresail tune`: time and cost of a task against memory, from history.

use foresail_schemas::ResourceConfig;
use foresail_schemas::prediction::Basis;
use serde_json::{Value, json};

use super::args::{Global, TuneArgs};
use super::error::CliError;
use super::predict::{basis_of, configs, interval};
use super::render::{self, Table};
use super::session::Session;
use super::terminal::Terminal;
use super::{known, source};
use crate::tune::{TunePoint, TuneRequest, Tuning};
use crate::units;

/// Characters of the longest bar.
const BAR_LEN: usize = 20;

/// Compares memory sizes.
///
/// # Errors
/// [`CliError`] when the arguments are wrong or nothing is known of the task.
pub async fn tune(global: &Global, args: &TuneArgs, terminal: &Terminal) -> Result<(), CliError> {
    let (workflow, task) = known::names(&args.task)?;
    let platform = source::platform(&args.platform)?;
    let request = TuneRequest {
        task: task.clone(),
        input_bytes: args.input,
        sla: args.sla.sla,
        configs: configs(&args.memory, args.vcpu)?,
        deadline_ms: args.deadline,
    };
    let session = Session::look(global).await?;
    let tuned = async {
        let (tuning, epoch) = session.client.tune(&workflow, &request, &platform).await?;
        match tuning.points.iter().all(|point| point.basis == Basis::None) {
            true => Err(known::unknown_task(&session.client, &workflow, &task).await),
            false => Ok((tuning, epoch)),
        }
    };
    let tuned = tuned.await;
    session.close().await;
    let (tuning, epoch) = tuned?;
    render::one(global.format, &document(args, &tuning, epoch), || text(args, &tuning))?;
    remarks(&tuning, terminal);
    terminal.say(&format!("from epoch {epoch} of the model; nothing was invoked"));
    Ok(())
}

fn document(args: &TuneArgs, tuning: &Tuning, epoch: u64) -> Value {
    let mut document = json!(tuning);
    document["task"] = json!(args.task);
    document["sla"] = json!(args.sla.to_string());
    document["epoch"] = json!(epoch);
    document
}

fn text(args: &TuneArgs, tuning: &Tuning) -> String {
    let input = units::bytes(tuning.input_bytes);
    format!(
        "{} with {input} of input on {}, time at {}\n\n{}\n{}",
        args.task,
        tuning.platform,
        args.sla,
        table(args, tuning),
        choices(tuning)
    )
}

fn table(args: &TuneArgs, tuning: &Tuning) -> Table {
    let time = args.sla.to_string();
    let header = [
        "size",
        &time,
        "",
        "90 % interval",
        "cost of 10^6",
        "",
        "basis",
        "samples",
        "extrapolated",
        "is the",
    ];
    let mut table = Table::new(&header);
    let most = |of: fn(&TunePoint) -> Option<f64>| tuning.points.iter().filter_map(of).fold(0.0, f64::max);
    let (time_max, cost_max) = (most(|p| p.time_ms), most(|p| p.cost_usd));
    let unknown = || "-".to_owned();
    for point in &tuning.points {
        table.row([
            point.config.to_string(),
            point.time_ms.map_or_else(unknown, units::ms),
            bar(point.time_ms, time_max),
            interval(point.interval_ms.as_ref(), units::ms),
            point.cost_usd.map_or_else(unknown, per_million),
            bar(point.cost_usd, cost_max),
            basis_of(point.basis).to_owned(),
            point.samples.to_string(),
            if point.extrapolated { "yes" } else { "no" }.to_owned(),
            marks(tuning, point),
        ]);
    }
    table
}

/// A single execution costs so little that a million are told.
fn per_million(cost_usd: f64) -> String {
    units::usd(cost_usd * 1e6)
}

fn bar(value: Option<f64>, most: f64) -> String {
    let share = value.filter(|_| most > 0.0).map_or(0.0, |value| value / most);
    // What is known has a bar, however short.
    let least = usize::from(value.is_some());
    "#".repeat(((share * BAR_LEN as f64).round() as usize).max(least))
}

fn marks(tuning: &Tuning, point: &TunePoint) -> String {
    let is = |chosen: Option<ResourceConfig>| chosen == Some(point.config);
    let mut marks = Vec::new();
    for (chosen, mark) in [
        (tuning.cheapest, "cheapest"),
        (tuning.fastest, "fastest"),
        (tuning.best, "best trade-off"),
        (tuning.cheapest_in_time, "cheapest in time"),
    ] {
        marks.extend(is(chosen).then_some(mark));
    }
    if point.too_long {
        marks.push("over the platform's limit");
    }
    marks.join(", ")
}

/// The choices in words, the best first.
fn choices(tuning: &Tuning) -> String {
    let point = |config: ResourceConfig| tuning.points.iter().find(|point| point.config == config);
    let line = |what: &str, chosen: Option<ResourceConfig>| {
        let Some(point) = chosen.and_then(point) else { return String::new() };
        let (time_ms, cost_usd) = (point.time_ms.unwrap_or_default(), point.cost_usd.unwrap_or_default());
        let (time, cost) = (units::ms(time_ms), per_million(cost_usd));
        format!("{what}: {} with {time}, {cost} per million executions\n", point.config)
    };
    let mut text = line("best trade-off (least time x cost)", tuning.best);
    text += &line("cheapest", tuning.cheapest);
    text += &line("fastest", tuning.fastest);
    if let Some(deadline_ms) = tuning.deadline_ms {
        let what = format!("cheapest within {}", units::ms(deadline_ms));
        text += &match tuning.cheapest_in_time {
            Some(_) => line(&what, tuning.cheapest_in_time),
            None => format!("{what}: none\n"),
        };
    }
    text
}

fn remarks(tuning: &Tuning, terminal: &Terminal) {
    let sizes = |of: fn(&&TunePoint) -> bool| {
        let sizes: Vec<String> =
            tuning.points.iter().filter(of).map(|point| point.config.to_string()).collect();
        (!sizes.is_empty()).then(|| sizes.join(", "))
    };
    if let Some(sizes) = sizes(|point| point.extrapolated) {
        terminal.say(&format!("extrapolated, so less sure: {sizes}; the size or the input was never seen"));
    }
    if let Some(sizes) = sizes(|point| point.too_long) {
        terminal.say(&format!("longer than {} lets an invocation live: {sizes}", tuning.platform));
    }
    if let (Some(deadline_ms), None) = (tuning.deadline_ms, tuning.cheapest_in_time) {
        let fastest = tuning.points.iter().filter_map(|point| point.time_ms).fold(f64::INFINITY, f64::min);
        let (limit, fastest) = (units::ms(deadline_ms), units::ms(fastest));
        terminal.say(&format!("no size stays within {limit}; the fastest takes {fastest}"));
    }
}
