//! Counts words with functions of this program: run it with `cargo run -p foresail --example hello`.
//!
//! The program is its own worker: `foresail::worker` is called first, and a host that starts this program
//! again gets a worker instead of `main`.

use std::collections::BTreeMap;

use foresail::schemas::Sla;
use foresail::schemas::plan::Objective;
use foresail::{LocalStack, Registry, StackSettings, SubmitOptions, TaskError, TaskInput, TaskOutput};
use foresail::{WorkflowBuilder, problem};
use serde_json::json;

type Words = BTreeMap<String, u64>;

const TEXTS: [&str; 3] =
    ["the quick brown fox", "jumps over the lazy dog", "and the dog sleeps on while the fox runs"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    foresail::worker(Registry::new().register("count", count).register("add", add));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(count_words())
}

/// Counts the words of one text.
fn count(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let text = String::from_utf8(input.inputs[0].to_vec())?;
    let mut words = Words::new();
    for word in text.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()) {
        *words.entry(word.to_lowercase()).or_default() += 1;
    }
    TaskOutput::json(&words)
}

/// Adds counts and keeps the most frequent words.
fn add(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let mut sum = Words::new();
    for counts in &input.inputs {
        for (word, times) in serde_json::from_slice::<Words>(counts)? {
            *sum.entry(word).or_default() += times;
        }
    }
    let top = usize::try_from(input.params["top"].as_u64().unwrap_or(u64::MAX))?;
    let mut list: Vec<(String, u64)> = sum.into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    list.truncate(top);
    TaskOutput::json(&list)
}

async fn count_words() -> Result<(), Box<dyn std::error::Error>> {
    let mut flow = WorkflowBuilder::new("hello-words");
    let mut counts = Vec::new();
    for (i, text) in TEXTS.iter().enumerate() {
        let task = flow.task(format!("count-{}", i + 1)).named("count").function("count", ());
        counts.push(task.reads_value(text).handle());
    }
    let sum = flow.task("add").function("add", json!({ "top": 3 }));
    counts.iter().fold(sum, |task, count| task.reads(count));
    let workflow = flow.build()?;

    let stack = LocalStack::start(StackSettings::default()).await?;
    let client = stack.client().await?;
    for run in 1..=2 {
        // The first time nothing is known; the second time the first run was measured.
        let predictions = client.predictions(&workflow, stack.platform(), Sla::Mean).await?;
        let plan =
            client.plan("auto", &problem(&workflow, stack.platform(), predictions, Objective::Fastest, 0))?;
        let handle = client.submit(&workflow, plan, SubmitOptions::default()).await?;
        let outcome = handle.wait().await?.completed()?;
        let words: Vec<(String, u64)> = serde_json::from_slice(&handle.result("add").await?)?;
        println!(
            "run {run}: {words:?}, {:.0} ms predicted, {:.0} ms taken, ${:.7}",
            outcome.predicted.makespan_ms, outcome.actual.makespan_ms, outcome.actual.cost_usd
        );
    }
    stack.stop().await;
    Ok(())
}
