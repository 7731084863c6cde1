//! Against Dask distributed (`dask_engine.py`) and, where it is installed, Ray (`ray_engine.py`): graphs of
//! small tasks on two worker processes each.
//!
//! The efficiency of the tree is the time that its sleeps take on two slots at least, over the time measured.
//! Workers of both sides are warm: one round before the measured ones starts them, and metad learns from it.
//! Foresail plans with `auto`; the time of planning stands beside the time of the run, Dask decides as it
//! goes. Times are from the submission to the result as the client sees it, medians over the turns.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use foresail::{LocalStack, StackSettings, SubmitOptions, TaskHandle, WorkflowBuilder};
use foresail_schemas::Workflow;
use foresail_schemas::config::Sla;
use foresail_schemas::plan::Objective;
use foresail_worker::host::local::WorkerCommand;
use serde_json::{Value, json};

use crate::load::median;
use crate::need::{self, Missing};
use crate::stack;

/// Turns, of which the median is shown.
const TURNS: usize = 3;
/// Workers of either side.
const SLOTS: usize = 2;
/// What is carried out: kind, tasks, sleep of each in ms.
const GRAPHS: [(&str, usize, u64); 5] =
    [("noop", 10_000, 0), ("chain", 500, 0), ("tree", 1_023, 0), ("tree", 1_023, 10), ("tree", 1_023, 50)];

/// A rival in a Python process of its own; it ends with this value.
pub struct Rival {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Prints the table.
pub fn run(dir: &Path) -> Result<(), Missing> {
    let python = need::python_with(stack::workspace(), "distributed", "dask[distributed]")?;
    let mut default = Rival::start(&python, "dask_engine.py", &[]);
    let mut eager = Rival::start(&python, "dask_engine.py", &["inf"]);
    let ray = need::python_with(stack::workspace(), "ray", "ray");
    if let Err(missing) = &ray {
        println!("without Ray: {missing}");
    }
    let mut ray = ray.ok().map(|python| Rival::start(&python, "ray_engine.py", &[]));
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    let stack = runtime.block_on(LocalStack::start(settings(dir, SLOTS, 1))).expect("the stack starts");
    println!("wall time in ms on two warm workers, Dask with its default and with worker-saturation=inf");
    println!(
        "{:>6} {:>6} {:>5} | {:>9} {:>9} | {:>9} {:>9} {:>9} | {:>9} {:>7} {:>7} {:>7} {:>10}",
        "graph",
        "tasks",
        "sleep",
        "foresail",
        "planning",
        "dask",
        "dask inf",
        "ray",
        "tasks/s",
        "dask/",
        "inf/",
        "ray/",
        "efficiency"
    );
    for (kind, tasks, sleep_ms) in GRAPHS {
        let workflow = graph(kind, tasks, sleep_ms);
        let ask = json!({"kind": kind, "tasks": tasks, "sleep_ms": sleep_ms});
        let mut turns = Vec::new();
        // The first turn starts the workers and is learned from.
        for turn in 0..=TURNS {
            let (run_ms, planning_ms) = runtime.block_on(carry_out(&stack, &workflow));
            let ray_ms = ray.as_mut().map_or(f64::NAN, |ray| ray.ask(&ask));
            let row = [run_ms, planning_ms, default.ask(&ask), eager.ask(&ask), ray_ms];
            if turn > 0 {
                turns.push(row);
            }
        }
        let middle = |at: usize| median(turns.clone(), |row: &[f64; 5]| row[at])[at];
        let [run_ms, planning_ms, dask_ms, eager_ms, ray_ms] =
            [middle(0), middle(1), middle(2), middle(3), middle(4)];
        println!(
            "{kind:>6} {tasks:>6} {sleep_ms:>5} | {run_ms:>9.1} {planning_ms:>9.1} | {dask_ms:>9.1} \
             {eager_ms:>9.1} {ray_ms:>9.1} | {:>9.0} {:>7.2} {:>7.2} {:>7.2} {:>10}",
            1e3 * tasks as f64 / run_ms,
            dask_ms / run_ms,
            eager_ms / run_ms,
            ray_ms / run_ms,
            efficiency(kind, tasks, sleep_ms, run_ms)
        );
    }
    runtime.block_on(stack.stop());
    Ok(())
}

/// The least time of the sleeps of a tree on two slots over the time measured; nothing for other graphs.
fn efficiency(kind: &str, tasks: usize, sleep_ms: u64, run_ms: f64) -> String {
    if kind != "tree" || sleep_ms == 0 {
        return "-".to_owned();
    }
    format!("{:.3}", (tree_rounds(tasks, SLOTS) * sleep_ms) as f64 / run_ms)
}

/// Rounds that a tree of so many additions takes on `slots` at least: levels wider than the slots fill them
/// all, and every narrower one is a round of its own.
pub fn tree_rounds(tasks: usize, slots: usize) -> u64 {
    let (mut width, mut wide, mut narrow) = (tasks.div_ceil(2), 0, 1);
    while width > 1 {
        if width > slots {
            wide += width;
        } else {
            narrow += 1;
        }
        width = width.div_ceil(2);
    }
    (wide.div_ceil(slots) + narrow) as u64
}

/// A stack of so many workers with so many lanes each.
pub fn settings(dir: &Path, workers: usize, lanes: usize) -> StackSettings {
    let mut settings = StackSettings {
        data: Some(dir.join("engine")),
        worker: Some(WorkerCommand { program: stack::binary("foresail"), args: Vec::new() }),
        ..StackSettings::default()
    };
    settings.platform.concurrency_max = workers as u32;
    settings.platform.lanes = lanes as u32;
    settings
}

pub fn graph(kind: &str, tasks: usize, sleep_ms: u64) -> Workflow {
    let mut flow = WorkflowBuilder::new(format!("{kind}-{tasks}-{sleep_ms}"));
    let params = json!({ "sleep_ms": sleep_ms });
    match kind {
        "noop" => (0..tasks).for_each(|i| {
            flow.task(format!("t{i}")).named("t").function("example.add", &params).reads_value(i);
        }),
        "chain" => {
            let mut last: Option<TaskHandle> = None;
            for i in 0..tasks {
                let task = flow.task(format!("t{i}")).named("t").function("example.add", &params);
                last = Some(match &last {
                    Some(before) => task.reads(before).handle(),
                    None => task.reads_value(1).handle(),
                });
            }
        }
        _ => {
            let mut level: Vec<TaskHandle> = Vec::new();
            for i in 0..tasks.div_ceil(2) {
                let task = flow.task(format!("a0-{i}")).named("add").function("example.add", &params);
                level.push(task.reads_value(2 * i + 1).reads_value(2 * i + 2).handle());
            }
            let mut depth = 0;
            while level.len() > 1 {
                depth += 1;
                let add = |(i, pair): (usize, &[TaskHandle])| {
                    let task = flow.task(format!("a{depth}-{i}")).named("add");
                    let task = task.function("example.add", &params);
                    pair.iter().fold(task, |task, parent| task.reads(parent)).handle()
                };
                level = level.chunks(2).enumerate().map(add).collect();
            }
        }
    }
    flow.build().expect("the graph is one")
}

/// Time of the run and of its planning, in ms.
pub async fn carry_out(stack: &LocalStack, workflow: &Workflow) -> (f64, f64) {
    let client = stack.client().await.expect("the stack answers");
    let platform = stack.platform();
    let table = client.predictions(workflow, platform, Sla::MEDIAN).await.expect("metad answers");
    let problem = foresail::problem(workflow, platform, table, Objective::Fastest, 1);
    let began = Instant::now();
    let plan = client.plan("auto", &problem).expect("there is a plan");
    let planning_ms = began.elapsed().as_secs_f64() * 1e3;
    let began = Instant::now();
    let run = client.submit(workflow, plan, SubmitOptions::default()).await.expect("the run begins");
    run.wait().await.expect("the run is watched").completed().expect("the run completes");
    let run_ms = began.elapsed().as_secs_f64() * 1e3;
    (run_ms, planning_ms)
}

impl Rival {
    /// Starts one of the scripts beside this file.
    pub fn start(python: &Path, script: &str, args: &[&str]) -> Self {
        let script = stack::workspace().join("tests/benches/rivals").join(script);
        let mut child = Command::new(python)
            .arg(script)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python was found");
        let commands = child.stdin.take().expect("stdin is a pipe");
        let answers = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut rival = Self { child, commands, answers };
        rival.answer();
        rival
    }

    fn answer(&mut self) -> Value {
        // What else a rival prints is no answer.
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line).expect("the rival answers");
            assert!(read > 0, "the rival has ended");
            if line.starts_with('{') {
                return serde_json::from_str(&line).expect("a line of JSON");
            }
        }
    }

    /// Wall time in ms.
    pub fn ask(&mut self, asked: &Value) -> f64 {
        writeln!(self.commands, "{asked}").expect("the rival listens");
        1e3 * self.answer()["seconds"].as_f64().expect("a number")
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
