//! An optimisation of one's own: outputs are compressed on their way from task to task.
//!
//! `cargo run -p foresail --example compressed` runs the same workflow without and with it and prints what
//! was moved. The planning half, [`where_it_pays`], looks at what the first run taught of the sizes of
//! outputs and writes the optimisation into the plan; the program is its own worker, so that it registers
//! the worker half, [`Compress`]. What leaves these tasks (the result) stays as it is.

use bytes::Bytes;
use foresail::schemas::Sla;
use foresail::schemas::optimization::Optimization;
use foresail::schemas::plan::{Objective, Plan, Problem};
use foresail::{
    Client, CustomOptimization, LocalStack, OptimizedTask, Reach, Registry, RunOutcome, StackSettings,
    SubmitOptions, TaskError, TaskInput, TaskOutput, WorkflowBuilder, problem,
};
use serde::Deserialize;
use serde_json::json;

/// The name under which workers have it and workflows ask for it.
const COMPRESS: &str = "compress";

/// Compresses with zstd what only tasks read that can undo it.
struct Compress;

#[derive(Deserialize)]
struct Settings {
    level: i32,
}

impl CustomOptimization for Compress {
    fn before(&self, task: &OptimizedTask<'_>, inputs: Vec<Bytes>) -> Result<Vec<Bytes>, TaskError> {
        let open = |(input, reach): (Bytes, &Reach)| match reach {
            Reach::Within => Ok(zstd::decode_all(input.as_ref())?.into()),
            Reach::Beyond => Ok(input),
        };
        inputs.into_iter().zip(&task.inputs).map(open).collect()
    }

    fn after(&self, task: &OptimizedTask<'_>, outputs: Vec<Bytes>) -> Result<Vec<Bytes>, TaskError> {
        let Settings { level } = serde_json::from_value(task.params.clone())?;
        let close = |(output, reach): (Bytes, &Reach)| match reach {
            Reach::Within => Ok(zstd::encode_all(output.as_ref(), level)?.into()),
            Reach::Beyond => Ok(output),
        };
        outputs.into_iter().zip(&task.outputs).map(close).collect()
    }
}

/// Outputs of fewer bytes in all move as fast as they are.
const BYTES_MIN: u64 = 1 << 20;

/// The planning half: tasks whose outputs are predicted to be large compress them, and whoever reads them
/// undoes it.
fn where_it_pays(problem: &Problem, mut plan: Plan, compress: &Optimization) -> Plan {
    let (graph, sizes) = (problem.workflow.graph(), &problem.predictions.object_bytes);
    let is_large =
        |task: &u32| graph.writes(*task).iter().map(|&o| sizes[o as usize]).sum::<u64>() >= BYTES_MIN;
    let large: Vec<u32> = (0..graph.len() as u32).filter(is_large).collect();
    let mut marked: Vec<u32> = large.iter().flat_map(|&task| graph.children(task)).copied().collect();
    marked.extend(&large);
    marked.sort_unstable();
    marked.dedup();
    marked.iter().for_each(|&task| plan.tasks[task as usize].optimizations.push(compress.clone()));
    plan.explanation.push(format!("{} tasks compress their outputs.", large.len()));
    plan
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::new().register("table", table).register("sum", sum);
    foresail::worker(registry.register_optimization(COMPRESS, Compress));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(compare())
}

/// A large text that compresses well.
fn table(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let rows = input.params["rows"].as_u64().unwrap_or(0);
    Ok((0..rows).map(|row| format!("row,{row},value,{}\n", row % 10)).collect::<String>().into())
}

/// The sum of the last column of all tables.
fn sum(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let mut sum = 0_u64;
    for table in &input.inputs {
        for line in std::str::from_utf8(table)?.lines() {
            sum += line.rsplit(',').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(sum.to_string().into())
}

/// Two tables, made and added up by different workers; `improve` is the planning half.
async fn run(
    stack: &LocalStack,
    client: &Client,
    improve: impl FnOnce(&Problem, Plan) -> Plan,
) -> Result<(String, RunOutcome), Box<dyn std::error::Error>> {
    let mut flow = WorkflowBuilder::new("compressed");
    let make = |name| flow.task(name).named("table").function("table", json!({ "rows": 100_000 })).handle();
    let tables = ["left", "right"].map(make);
    tables.iter().fold(flow.task("add").function("sum", ()), |add, table| add.reads(table));
    let workflow = flow.build()?;
    let predictions = client.predictions(&workflow, stack.platform(), Sla::Mean).await?;
    let problem = problem(&workflow, stack.platform(), predictions, Objective::Fastest, 0);
    let plan = improve(&problem, client.plan("simple", &problem)?);
    let handle = client.submit(&workflow, plan, SubmitOptions::default()).await?;
    let outcome = handle.wait().await?.completed()?;
    let result = String::from_utf8(handle.result("add").await?.to_vec())?;
    Ok((result, outcome))
}

async fn compare() -> Result<(), Box<dyn std::error::Error>> {
    let stack = LocalStack::start(StackSettings::default()).await?;
    let client = stack.client().await?;
    let compress = Optimization::Custom { name: COMPRESS.parse()?, params: json!({ "level": 3 }) };
    let plain = run(&stack, &client, |_, plan| plan).await?;
    let better = run(&stack, &client, |problem, plan| where_it_pays(problem, plan, &compress)).await?;
    for (what, (result, outcome)) in [("as they are", plain), ("compressed", better)] {
        println!(
            "{what}: sum {result}, {} bytes uploaded, {} bytes downloaded",
            outcome.actual.upload_bytes, outcome.actual.download_bytes
        );
    }
    stack.stop().await;
    Ok(())
}
