//! `foresail predict`: asks the model about one task.

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::prediction::{Basis, Prediction, PredictionRequest, Query};
use foresail_schemas::{Sla, TaskName};
use serde_json::{Map, Value, json};

use super::args::{AskedSla, Global, PredictArgs, Quantities};
use super::error::CliError;
use super::known;
use super::plan::basis_name;
use super::render::{self, Table};
use super::session::Session;
use super::terminal::Terminal;
use crate::units;

/// Answers to what was asked.
struct Answers {
    times: Vec<(ResourceConfig, Prediction)>,
    size: Option<Prediction>,
    decision: Option<Prediction>,
    epoch: u64,
}

/// Predicts execution time and output size of one task.
///
/// # Errors
/// [`CliError`] when the arguments are wrong or nothing is known of the task.
pub async fn predict(global: &Global, args: &PredictArgs, terminal: &Terminal) -> Result<(), CliError> {
    let (workflow, task) = known::names(&args.task)?;
    let configs = configs(&args.memory, args.vcpu)?;
    let session = Session::look(global).await?;
    let request = request(args, &task, &configs);
    let answers = async {
        let answer = session.client.ask(&workflow, &request).await?;
        match answer.predictions.iter().all(|answer| answer.basis == Basis::None) {
            true => Err(known::unknown_task(&session.client, &workflow, &task).await),
            false => Ok(answers(args, &configs, answer.predictions, answer.epoch)),
        }
    };
    let answers = answers.await;
    session.close().await;
    let answers = answers?;
    render::one(global.format, &document(args, &answers), || table(args, &answers).to_string())?;
    if answers.size.as_ref().is_some_and(|size| size.basis == Basis::None) {
        terminal.say("the size of its output was never measured");
    }
    terminal.say(&format!("from epoch {} of the model", answers.epoch));
    Ok(())
}

/// Checked sizes of workers.
///
/// # Errors
/// [`CliError::Input`] with the size that is none.
pub fn configs(memory_mb: &[u32], vcpu: Option<f64>) -> Result<Vec<ResourceConfig>, CliError> {
    let hint = "give --memory in MB, for instance 1769, and --vcpu as a number of processors";
    let config = |mb: &u32| ResourceConfig::new(*mb, vcpu).map_err(|e| CliError::input(e.to_string(), hint));
    memory_mb.iter().map(config).collect()
}

fn request(args: &PredictArgs, task: &TaskName, configs: &[ResourceConfig]) -> PredictionRequest {
    let input_bytes = args.input;
    let time = |config: &ResourceConfig| {
        let (memory_mb, vcpu) = (config.memory_mb, config.vcpu);
        Query::ExecutionTime { task: task.clone(), input_bytes, memory_mb, vcpu }
    };
    let mut queries: Vec<Query> = match args.what {
        Quantities::Output | Quantities::Decision => Vec::new(),
        Quantities::All | Quantities::Time => configs.iter().map(time).collect(),
    };
    if has_size(args.what) {
        queries.push(Query::OutputSize { task: task.clone(), input_bytes });
    }
    if has_decision(args.what) {
        queries.push(Query::Decision { task: task.clone(), input_bytes });
    }
    let mut sla: Vec<Sla> = args.sla.iter().map(|asked| asked.sla).collect();
    sla.sort_unstable();
    sla.dedup();
    PredictionRequest { sla, queries }
}

fn has_size(what: Quantities) -> bool {
    matches!(what, Quantities::All | Quantities::Output)
}

fn has_decision(what: Quantities) -> bool {
    matches!(what, Quantities::All | Quantities::Decision)
}

fn answers(
    args: &PredictArgs,
    configs: &[ResourceConfig],
    mut predictions: Vec<Prediction>,
    epoch: u64,
) -> Answers {
    let mut last = |is_asked: bool| if is_asked { predictions.pop() } else { None };
    let decision = last(has_decision(args.what));
    let size = last(has_size(args.what));
    // Most tasks decide nothing.
    let decision = decision.filter(|d| args.what == Quantities::Decision || d.basis != Basis::None);
    Answers { times: configs.iter().copied().zip(predictions).collect(), size, decision, epoch }
}

fn document(args: &PredictArgs, answers: &Answers) -> Value {
    let times = answers.times.iter().map(|(config, answer)| {
        let mut shown = by_asked_names(answer, &args.sla);
        shown["config"] = json!(config);
        shown
    });
    let mut document = json!({ "task": args.task, "epoch": answers.epoch, "input_bytes": args.input });
    if !matches!(args.what, Quantities::Output | Quantities::Decision) {
        document["execution_time"] = times.collect();
    }
    if let Some(size) = &answers.size {
        document["output_size"] = by_asked_names(size, &args.sla);
    }
    if let Some(decision) = &answers.decision {
        document["decision"] = by_asked_names(decision, &args.sla);
    }
    document
}

/// The answer with the statistics under the names by which they were asked.
fn by_asked_names(answer: &Prediction, asked: &[AskedSla]) -> Value {
    let named = |find: &dyn Fn(&Sla) -> Option<Value>| -> Map<String, Value> {
        asked.iter().filter_map(|asked| Some((asked.to_string(), find(&asked.sla)?))).collect()
    };
    let mut shown = json!(answer);
    shown["values"] = named(&|sla| answer.values.get(sla).map(|value| json!(value))).into();
    shown["interval"] = named(&|sla| answer.interval.get(sla).map(|ends| json!(ends))).into();
    shown
}

fn table(args: &PredictArgs, answers: &Answers) -> Table {
    let header =
        ["what", "memory", "statistic", "value", "90 % interval", "basis", "samples", "extrapolated"];
    let mut table = Table::new(&header);
    let mut add = |what: &str, memory: String, answer: &Prediction, write: fn(f64) -> String| {
        for asked in &args.sla {
            let value = answer.values.get(&asked.sla).copied().flatten();
            table.row([
                what.to_owned(),
                memory.clone(),
                asked.to_string(),
                value.map_or_else(|| "-".to_owned(), write),
                interval(answer.interval.get(&asked.sla), write),
                basis_of(answer.basis).to_owned(),
                answer.samples.to_string(),
                if answer.extrapolated { "yes" } else { "no" }.to_owned(),
            ]);
        }
    };
    for (config, answer) in &answers.times {
        add("time", config.to_string(), answer, units::ms);
    }
    if let Some(size) = answers.size.as_ref().filter(|size| size.basis != Basis::None) {
        add("output", "any".to_owned(), size, |bytes| units::bytes(bytes.round() as u64));
    }
    let Some(decision) = &answers.decision else { return table };
    if decision.values.values().any(Option::is_some) {
        add("width", "any".to_owned(), decision, |width| format!("{width:.1}"));
    }
    for (text, share) in &decision.branches {
        table.row([
            "decides".to_owned(),
            "any".to_owned(),
            format!("`{text}`"),
            format!("{:.0} %", share * 100.0),
            "-".to_owned(),
            basis_of(decision.basis).to_owned(),
            decision.samples.to_string(),
            "no".to_owned(),
        ]);
    }
    table
}

/// The ends of an interval, or `-` where none can be told.
pub fn interval(ends: Option<&[f64; 2]>, write: fn(f64) -> String) -> String {
    ends.map_or_else(|| "-".to_owned(), |[low, high]| format!("{} to {}", write(*low), write(*high)))
}

/// A basis in words, where nothing stands in for what is not known.
pub fn basis_of(basis: Basis) -> &'static str {
    if basis == Basis::None { "never measured" } else { basis_name(basis) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use foresail_schemas::prediction::Unit;

    use super::*;

    #[test]
    fn statistics_have_the_names_by_which_they_were_asked() {
        let answer = Prediction {
            unit: Unit::Ms,
            values: BTreeMap::from([(Sla::MEDIAN, Some(2.0)), (Sla::P95, None)]),
            basis: Basis::Exact,
            samples: 3,
            extrapolated: false,
            interval: BTreeMap::from([(Sla::MEDIAN, [1.0, 3.0])]),
            branches: BTreeMap::new(),
        };
        let asked = ["p50", "median", "p95"].map(|text| text.parse().unwrap());
        let shown = by_asked_names(&answer, &asked);
        assert_eq!(shown["values"], json!({ "p50": 2.0, "median": 2.0, "p95": null }));
        assert_eq!(shown["interval"], json!({ "p50": [1.0, 3.0], "median": [1.0, 3.0] }));
        assert_eq!(shown["samples"], 3);
    }
}
