//! Against HyperQueue (`hyperqueue_engine.py`): a process per task. And the efficiency of a tree on many
//! slots.
//!
//! Both sides start the program `true` so many times on two slots, Foresail by `sh -c true` in a directory of
//! its own, with what it prints kept as the result, durable; HyperQueue runs the program itself, in one
//! directory, and what it prints goes nowhere. Workers of both sides are warm, medians over the turns.

use std::path::Path;

use foresail::{LocalStack, WorkflowBuilder};
use foresail_schemas::Workflow;
use serde_json::json;

use crate::engine::{Rival, carry_out, graph, settings, tree_rounds};
use crate::load::median;
use crate::need::{self, Missing};
use crate::stack;

/// Turns, of which the median is shown.
const TURNS: usize = 3;
/// Processes.
const TASKS: usize = 10_000;
/// Slots of a process per task.
const SLOTS: usize = 2;
/// Tasks of the tree, and their sleeps in ms.
const TREE: (usize, [u64; 2]) = (1_023, [10, 50]);
/// Workers that carry out the tree, and the lanes of each: 64 slots, in few processes and in many.
const TREE_WORKERS: [(usize, usize); 2] = [(2, 32), (64, 1)];

/// Prints what is measured.
pub fn run(dir: &Path) -> Result<(), Missing> {
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    for (workers, lanes) in TREE_WORKERS {
        tree(&runtime, &dir.join(format!("tree-{workers}")), workers, lanes);
    }

    let python = need::python_with(stack::workspace(), "hyperqueue", "hyperqueue");
    if let Err(missing) = &python {
        println!("without HyperQueue: {missing}");
    }
    let mut rival = python.ok().map(|python| Rival::start(&python, "hyperqueue_engine.py", &[]));
    let stack = runtime.block_on(LocalStack::start(settings(&dir.join("two"), SLOTS, 1)));
    let stack = stack.expect("the stack starts");
    let workflow = commands();
    let mut turns = Vec::new();
    for turn in 0..=TURNS {
        let (run_ms, planning_ms) = runtime.block_on(carry_out(&stack, &workflow));
        let rival_ms = rival.as_mut().map_or(f64::NAN, |rival| rival.ask(&json!({ "tasks": TASKS })));
        if turn > 0 {
            turns.push([run_ms, planning_ms, rival_ms]);
        }
    }
    let middle = |at: usize| median(turns.clone(), |row: &[f64; 3]| row[at])[at];
    let rate = |ms: f64| 1e3 * TASKS as f64 / ms;
    println!("{TASKS} times the program `true`, a process each, on {SLOTS} slots, processes/s");
    println!(
        "  Foresail {:.0}, HyperQueue {:.0}, ratio {:.2}; planning {:.0} ms",
        rate(middle(0)),
        rate(middle(2)),
        middle(2) / middle(0),
        middle(1)
    );
    runtime.block_on(stack.stop());
    Ok(())
}

/// A tree of tasks that sleep.
fn tree(runtime: &tokio::runtime::Runtime, dir: &Path, workers: usize, lanes: usize) {
    let (tasks, sleeps_ms) = TREE;
    let stack = runtime.block_on(LocalStack::start(settings(dir, workers, lanes))).expect("the stack starts");
    println!(
        "a tree of {tasks} tasks on {workers} x {lanes} slots: time of its sleeps over the time measured"
    );
    for sleep_ms in sleeps_ms {
        let workflow = graph("tree", tasks, sleep_ms);
        let turns: Vec<f64> =
            (0..=TURNS).map(|_| runtime.block_on(carry_out(&stack, &workflow)).0).skip(1).collect();
        let run_ms = median(turns, |ms| *ms);
        let least_ms = (tree_rounds(tasks, workers * lanes) * sleep_ms) as f64;
        println!("  sleep {sleep_ms:>3} ms: {run_ms:.1} ms, efficiency {:.3}", least_ms / run_ms);
    }
    runtime.block_on(stack.stop());
}

fn commands() -> Workflow {
    let mut flow = WorkflowBuilder::new("commands");
    for at in 0..TASKS {
        flow.task(format!("t{at}")).named("true").command("true");
    }
    flow.build().expect("the graph is one")
}
