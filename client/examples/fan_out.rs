//! Counts words of as many texts as a task finds: `cargo run -p foresail --example fan_out`.
//!
//! `find` says which texts there are; as many `count` tasks run as it found, up to [`TEXTS_MAX`]. `most` adds
//! what they counted and decides for one of two endings. What no decision calls for is skipped.

use foresail::schemas::Sla;
use foresail::schemas::plan::Objective;
use foresail::{LocalStack, Registry, StackSettings, SubmitOptions, TaskError, TaskInput, TaskOutput};
use foresail::{WorkflowBuilder, problem};
use serde_json::json;

/// Most texts that are counted.
const TEXTS_MAX: u64 = 8;
/// From so many words on it is much.
const MUCH: u64 = 15;

const TEXTS: [&str; 3] =
    ["the quick brown fox", "jumps over the lazy dog", "and the dog sleeps on while the fox runs"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::new()
        .register("find", find)
        .register("count", count)
        .register("most", most)
        .register("tell", tell);
    foresail::worker(registry);
    tokio::runtime::Runtime::new()?.block_on(count_words())
}

/// The texts: a list, which decides by its length.
fn find(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let wanted: usize = serde_json::from_slice(&input.inputs[0])?;
    TaskOutput::json(&TEXTS.iter().take(wanted).collect::<Vec<_>>())
}

/// Counts the words of the text at its place.
fn count(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let texts: Vec<String> = serde_json::from_slice(&input.inputs[0])?;
    let place: usize = input.params_as()?;
    let text = texts.get(place).ok_or_else(|| TaskError::fatal(format!("there is no text {place}")))?;
    TaskOutput::json(&text.split_whitespace().count())
}

/// Adds what there is, and decides whether that is much.
fn most(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let mut words = 0_u64;
    for counted in &input.inputs {
        words += serde_json::from_slice::<u64>(counted)?;
    }
    let way = if words >= MUCH { "much" } else { "little" };
    Ok(TaskOutput(vec![serde_json::to_vec(&words)?.into(), serde_json::to_vec(way)?.into()]))
}

/// Says it.
fn tell(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let words: u64 = serde_json::from_slice(&input.inputs[0])?;
    Ok(format!("{words} words are {}", input.params.as_str().unwrap_or_default()).into())
}

async fn count_words() -> Result<(), Box<dyn std::error::Error>> {
    let stack = LocalStack::start(StackSettings::default()).await?;
    let client = stack.client().await?;
    for texts in [0, 2, 3] {
        let mut flow = WorkflowBuilder::new("fan-out");
        let found = flow.task("find").function("find", ()).reads_value(texts).decides("out").handle();
        let counts = flow
            .fan_out("count", &found, TEXTS_MAX, |task, place| task.function("count", place).reads(&found));
        let most = flow.task("most").function("most", ()).gathers(&counts).outputs(["words", "way"]);
        let most = most.decides("way").handle();
        for way in ["much", "little"] {
            let told = flow.task(way).named("tell").function("tell", json!(way));
            told.when_is(&most, way).reads_output(&most, "words");
        }
        let workflow = flow.build()?;

        let predictions = client.predictions(&workflow, stack.platform(), Sla::Mean).await?;
        let problem = problem(&workflow, stack.platform(), predictions, Objective::Fastest, 0);
        let handle =
            client.submit(&workflow, client.plan("auto", &problem)?, SubmitOptions::default()).await?;
        let outcome = handle.wait().await?.completed()?;
        let (_, _, told) = handle.results().await?.remove(0);
        let told = handle.object("the ending", &told).await?;
        println!(
            "{texts} texts: {}; {} tasks ran, {} were skipped",
            String::from_utf8_lossy(&told),
            outcome.progress.committed,
            outcome.progress.skipped
        );
    }
    stack.stop().await;
    Ok(())
}
