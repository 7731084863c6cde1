//! The tiny workflows and plans that are explored.

use foresail_schemas::decision::{Condition, Wanted};
use foresail_schemas::optimization::FlexibleRules;
use foresail_schemas::plan::{Bounds, Objective, PlanSummary, PlannedTask, PlannedWorker};
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, Plan, ResourceConfig, Sla, WorkerId, Workflow};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

fn task((t, parents): (usize, &&[usize])) -> Task {
    let work = Work::Function { function: name("f"), params: serde_json::Value::Null };
    let mut task = Task::new(name(&format!("t{t}")), name("f"), work);
    let read = |p: &usize| Input::task(name(&format!("t{p}")), ObjectName::default());
    task.inputs = parents.iter().map(read).collect();
    task
}

fn spec(tasks: Vec<Task>) -> Workflow {
    WorkflowSpec { name: name("w"), description: None, tasks, code: Default::default() }
        .check()
        .expect("edges go forward")
}

/// `parents[t]` are the tasks that task `t` reads.
pub fn workflow(parents: &[&[usize]]) -> Workflow {
    spec(parents.iter().enumerate().map(task).collect())
}

/// `t0` decides which of `t1` and `t2` run, by these conditions; the last reads what there is.
fn decided(wanted: [Wanted; 2]) -> Workflow {
    let parents: [&[usize]; 4] = [&[], &[0], &[0], &[1, 2]];
    let mut tasks: Vec<Task> = parents.iter().enumerate().map(task).collect();
    tasks[0].decision = Some(ObjectName::default());
    for (at, wanted) in wanted.into_iter().enumerate() {
        tasks[1 + at].when = Some(Condition { task: name("t0"), wanted });
    }
    for input in &mut tasks[3].inputs {
        if let Input::Task { optional, .. } = input {
            *optional = true;
        }
    }
    spec(tasks)
}

/// The first task decides how many of the next two run.
pub fn fan_out() -> Workflow {
    decided([Wanted::Above(0), Wanted::Above(1)])
}

/// The first task decides for the next or for the one after.
pub fn branch() -> Workflow {
    decided(["left", "right"].map(|text| Wanted::Is(text.to_owned())))
}

/// `places[t]` is the number of the worker of task `t`; nothing for a flexible task.
pub fn plan(workflow: &Workflow, places: &[Option<usize>], flexible: Option<FlexibleRules>) -> Plan {
    let config = ResourceConfig::new(512, None).expect("legal");
    let id = |w: usize| -> WorkerId { name(&format!("w{w}")) };
    let mut numbers: Vec<usize> = places.iter().copied().flatten().collect();
    numbers.sort_unstable();
    numbers.dedup();
    let worker = |w| PlannedWorker { id: id(w), config, start_ms: 0.0, end_ms: 0.0, cost_usd: 0.0 };
    let task = |(t, place): (usize, &Option<usize>)| PlannedTask {
        task: workflow.tasks()[t].id.clone(),
        worker: place.map(id),
        config,
        rank: t as u32,
        start_ms: 0.0,
        end_ms: 0.0,
        exec_ms: 1.0,
        output_bytes: Some(10),
        optimizations: Vec::new(),
        unexpected: false,
        why: String::new(),
        forecast: None,
    };
    Plan {
        workflow: workflow.name().clone(),
        planner: name("drawn"),
        seed: 0,
        objective: Objective::Fastest,
        sla: Sla::MEDIAN,
        platform: name("local"),
        model_epoch: 0,
        tasks: places.iter().enumerate().map(task).collect(),
        workers: numbers.into_iter().map(worker).collect(),
        prewarms: Vec::new(),
        flexible,
        predicted: PlanSummary::default(),
        usage: Vec::new(),
        outlook: None,
        bounds: Bounds::default(),
        critical_path: Vec::new(),
        explanation: Vec::new(),
    }
}
