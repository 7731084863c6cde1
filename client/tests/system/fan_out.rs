//! Fan-outs and branches with real workers: what runs is what a result says, as functions and as commands.

use std::path::Path;

use foresail::schemas::plan::Objective;
use foresail::schemas::run::{Change, FailureKind, RunOptions, RunStatus};
use foresail::schemas::{Sla, Workflow};
use foresail::{
    Client, LocalStack, RunHandle, RunOutcome, StackSettings, SubmitOptions, WorkerCommand, WorkflowBuilder,
    problem,
};
use futures_util::TryStreamExt;
use serde_json::Value;

/// Places of the fan-outs.
const WIDTH_MAX: u64 = 5;

async fn stack() -> LocalStack {
    let program = env!("CARGO_BIN_EXE_foresail").into();
    let worker = Some(WorkerCommand { program, args: Vec::new() });
    LocalStack::start(StackSettings { worker, ..StackSettings::default() }).await.unwrap()
}

async fn run(
    stack: &LocalStack,
    client: &Client,
    workflow: &Workflow,
    planner: &str,
) -> (RunHandle, RunOutcome) {
    let predictions = client.predictions(workflow, stack.platform(), Sla::MEDIAN).await.unwrap();
    let problem = problem(workflow, stack.platform(), predictions, Objective::Fastest, 1);
    let plan = client.plan(planner, &problem).unwrap();
    // Short, so that a worker that was killed is soon missed.
    let limits =
        RunOptions { lease_ms: 2_000.0, heartbeat_ms: 500.0, watch_ms: 500.0, ..RunOptions::default() };
    let options = SubmitOptions { limits, ..SubmitOptions::default() };
    let handle = client.submit(workflow, plan, options).await.unwrap();
    let outcome = handle.wait().await.unwrap();
    (handle, outcome)
}

/// One function that passes on what it reads stands for all tasks.
fn fan_out_of_functions(width: u64) -> Workflow {
    let mut flow = WorkflowBuilder::new("fan-out-of-functions");
    let concat = "foresail.concat";
    let list = flow.task("list").function(concat, ()).reads_value(width).decides("out").handle();
    let parts = flow.fan_out("part", &list, WIDTH_MAX, |task, place| {
        task.function(concat, ()).reads_value(place).reads(&list)
    });
    flow.task("sum").function(concat, ()).gathers(&parts);
    flow.build().unwrap()
}

fn fan_out_of_commands(width: u64) -> Workflow {
    let mut flow = WorkflowBuilder::new("fan-out-of-commands");
    // A list decides by its length.
    let items: Vec<String> = (0..width).map(|item| format!("item-{item}")).collect();
    let items = serde_json::to_string(&items).unwrap();
    let list = flow.task("list").command(format!("echo '{items}'")).decides("out").handle();
    let parts = flow.fan_out("part", &list, WIDTH_MAX, |task, place| {
        task.command(format!("printf {place}; wc -l | tr -d '\\n '")).reads(&list)
    });
    let cat = "for part in \"$FORESAIL_INPUTS\"/*; do [ ! -e \"$part\" ] || cat \"$part\"; done";
    flow.task("sum").command(cat).gathers(&parts);
    flow.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_is_as_wide_as_a_result_says_and_its_reduction_reads_what_there_is() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    for (width, planner) in [(0, "auto"), (3, "auto"), (3, "wukong"), (WIDTH_MAX, "auto")] {
        // What each place writes: its number, and the width or the one line that it reads.
        let of_functions: String = (0..width).map(|place| format!("{place}{width}")).collect();
        let of_commands: String = (0..width).map(|place| format!("{place}1")).collect();
        for (workflow, sum) in
            [(fan_out_of_functions(width), of_functions), (fan_out_of_commands(width), of_commands)]
        {
            let (handle, outcome) = run(&stack, &client, &workflow, planner).await;
            let case = format!("{} of {width} by {planner}", workflow.name());
            assert_eq!(outcome.status, RunStatus::Completed, "{case}: {:?}", outcome.failure);
            let progress = &outcome.progress;
            assert_eq!((progress.committed, progress.skipped), (2 + width, WIDTH_MAX - width), "{case}");
            assert_eq!(progress.settled(), progress.tasks, "{case}");
            assert_eq!(handle.result("sum").await.unwrap(), sum, "{case}");
            let summary = handle.summary().await.unwrap();
            assert_eq!((summary.committed, summary.skipped), (2 + width, WIDTH_MAX - width), "{case}");
        }
    }
    stack.stop().await;
}

/// Two ways that end in one task, and a task beyond one of them that only that way leads to.
fn branch(way: &str, command: impl Fn(&str) -> Option<String>) -> Workflow {
    let mut flow = WorkflowBuilder::new("branch");
    let mut task =
        |id: &str, value: &Value, describe: &dyn Fn(foresail::TaskBuilder<'_>) -> foresail::TaskHandle| {
            let task = flow.task(id);
            describe(match command(&value.to_string()) {
                Some(line) => task.command(line),
                None => task.function("foresail.concat", ()).reads_value(value),
            })
        };
    let ask = task("ask", &Value::from(way), &|task| task.decides("out").handle());
    let left = task("left", &Value::from("l"), &|task| task.when_is(&ask, "left").handle());
    let right = task("right", &Value::from("r"), &|task| task.when_is(&ask, "right").handle());
    task("beyond", &Value::from("b"), &|task| task.reads(&right).handle());
    task("end", &Value::from("e"), &|task| task.gathers(&[left.clone(), right.clone()]).handle());
    flow.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_takes_the_way_that_was_decided_and_what_needs_the_other_is_skipped() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    // A command writes its value and what it reads; a function does by itself.
    let write = |value: &str| {
        let read = "for part in \"$FORESAIL_INPUTS\"/*; do [ ! -e \"$part\" ] || cat \"$part\"; done";
        Some(format!("printf '{value}'; {read}"))
    };
    for (way, runs, end, results) in
        [("left", 3, "\"e\"\"l\"", 1), ("right", 4, "\"e\"\"r\"", 2), ("neither", 2, "\"e\"", 1)]
    {
        for workflow in [branch(way, |_| None), branch(way, write)] {
            let (handle, outcome) = run(&stack, &client, &workflow, "auto").await;
            assert_eq!(outcome.status, RunStatus::Completed, "{way}: {:?}", outcome.failure);
            assert_eq!((outcome.progress.committed, outcome.progress.skipped), (runs, 5 - runs), "{way}");
            assert_eq!(handle.result("end").await.unwrap(), end, "{way}");
            assert_eq!(handle.results().await.unwrap().len(), results, "{way}: skipped tasks have no result");
        }
    }
    stack.stop().await;
}

/// Kills its worker the first time it is run.
fn killing_once(marks: &Path, name: &str, line: &str) -> String {
    let mark = marks.join(name);
    format!("if mkdir '{}'; then kill -9 $PPID; sleep 60; fi; {line}", mark.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_change_neither_what_is_decided_nor_what_runs() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    for planner in ["auto", "wukong"] {
        let marks = tempfile::tempdir().unwrap();
        let killing = |name: &str, line: &str| killing_once(marks.path(), name, line);
        let mut flow = WorkflowBuilder::new("killed-fan-out");
        let list = flow.task("list").command(killing("list", "echo 3")).decides("out").handle();
        let parts = flow.fan_out("part", &list, WIDTH_MAX, |task, place| {
            let line = format!("printf {place}");
            task.command(if place == 1 { killing("part", &line) } else { line }).after(&list)
        });
        flow.task("sum").command("cat \"$FORESAIL_INPUTS\"/*").gathers(&parts);
        let workflow = flow.build().unwrap();
        let (handle, outcome) = run(&stack, &client, &workflow, planner).await;
        assert_eq!(outcome.status, RunStatus::Completed, "{planner}: {:?}", outcome.failure);
        assert_eq!(handle.result("sum").await.unwrap(), "012", "{planner}");
        let events: Vec<_> = handle.events().try_collect().await.unwrap();
        let skips: Vec<_> = events
            .iter()
            .filter_map(|event| match &event.change {
                Change::TasksSkipped { by, tasks } => Some((*by, tasks.clone())),
                _ => None,
            })
            .collect();
        assert_eq!(skips, [(0, vec![4, 5])], "{planner}");
        let mut committed: Vec<u32> = events
            .iter()
            .filter_map(|event| match &event.change {
                Change::TaskCommitted { task, .. } => Some(*task),
                _ => None,
            })
            .collect();
        committed.sort_unstable();
        assert_eq!(committed, [0, 1, 2, 3, 6], "{planner}: each once");
        assert_eq!(std::fs::read_dir(marks.path()).unwrap().count(), 2, "{planner}: two workers were killed");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_decision_ends_the_run_and_says_what_stands_there() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    let mut flow = WorkflowBuilder::new("undecided");
    let ask = flow.task("ask").command("echo left").decides("out").handle();
    flow.task("then").command("true").when_is(&ask, "left");
    let workflow = flow.build().unwrap();
    let (_, outcome) = run(&stack, &client, &workflow, "auto").await;
    assert_eq!(outcome.status, RunStatus::Failed);
    let failure = outcome.failure.unwrap();
    assert_eq!((failure.kind, failure.attempt), (FailureKind::TaskRefused, 1));
    for told in ["`out`", "`ask`", "not JSON", "hint"] {
        assert!(failure.message.contains(told), "{told}: {}", failure.message);
    }
    stack.stop().await;
}
