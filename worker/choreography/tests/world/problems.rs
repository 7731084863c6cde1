//! Random workflows and random valid plans, with random optimisations.

use foresail_schemas::optimization::{FlexibleRules, Optimization, PreWarming};
use foresail_schemas::plan::{Bounds, Objective, PlanSummary, PlannedTask, PlannedWorker};
use foresail_schemas::retry::SizeMenu;
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, Plan, ResourceConfig, Sla, TaskId, WorkerId, Workflow};
use rand::RngExt;
use rand_pcg::Pcg64;

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

pub fn workflow(rng: &mut Pcg64) -> Workflow {
    let len = rng.random_range(1..25);
    let density = rng.random_range(0.05..0.4);
    let mut tasks = Vec::new();
    for t in 0..len {
        let work = Work::Function { function: name("f"), params: serde_json::Value::Null };
        let mut task = Task::new(name(&format!("t{t}")), name("f"), work);
        for parent in 0..t {
            if rng.random_bool(density) {
                let parent: TaskId = name(&format!("t{parent}"));
                task.inputs.push(Input::task(parent, ObjectName::default()));
            }
        }
        tasks.push(task);
    }
    WorkflowSpec { name: name("w"), description: None, tasks, code: Default::default() }
        .check()
        .expect("edges go forward")
}

/// What the platform offers: two sizes that are planned, and larger ones.
pub fn menu() -> SizeMenu {
    SizeMenu::of(&[512, 1769, 3538, 7076].map(|mb| ResourceConfig::new(mb, None).expect("legal")))
}

/// Most tasks need little; of the others some need more than any planned worker has.
pub fn needs_mb(rng: &mut Pcg64, workflow: &Workflow, share: f64) -> Vec<u32> {
    let large = [1_000, 2_000, 7_000];
    // Where nothing is large nothing is drawn, so that a seed stands for the same run with and without.
    let is_large = |rng: &mut Pcg64| share > 0.0 && rng.random_bool(share);
    let need = |_| if is_large(rng) { large[rng.random_range(0..large.len())] } else { 1 };
    workflow.tasks().iter().map(need).collect()
}

/// One task, and `children` that read what it writes.
pub fn wide(children: usize) -> Workflow {
    let task = |t: usize| {
        let work = Work::Function { function: name("f"), params: serde_json::Value::Null };
        let mut task = Task::new(name(&format!("t{t}")), name("f"), work);
        if t > 0 {
            task.inputs.push(Input::task(name("t0"), ObjectName::default()));
        }
        task
    };
    let tasks = (0..=children).map(task).collect();
    WorkflowSpec { name: name("w"), description: None, tasks, code: Default::default() }
        .check()
        .expect("edges go forward")
}

pub fn plan(rng: &mut Pcg64, workflow: &Workflow) -> Plan {
    let sizes = [ResourceConfig::new(512, None), ResourceConfig::new(1769, None)].map(|c| c.expect("legal"));
    let flexible = [0.0, 0.3, 1.0][rng.random_range(0..3)];
    let optimized = [0.0, 0.3, 1.0][rng.random_range(0..3)];
    let workers = rng.random_range(1..6);
    let planned: Vec<PlannedWorker> = (0..workers)
        .map(|w| PlannedWorker {
            id: name(&format!("w{w}")),
            config: sizes[w % 2],
            start_ms: 0.0,
            end_ms: 0.0,
            cost_usd: 0.0,
        })
        .collect();
    let tasks: Vec<PlannedTask> = workflow
        .tasks()
        .iter()
        .enumerate()
        .map(|(t, task)| {
            let worker = &planned[rng.random_range(0..workers)];
            let id: Option<WorkerId> = (!rng.random_bool(flexible)).then(|| worker.id.clone());
            PlannedTask {
                task: task.id.clone(),
                worker: id,
                config: worker.config,
                rank: t as u32,
                start_ms: 0.0,
                end_ms: 0.0,
                exec_ms: 4_000.0,
                output_bytes: Some(rng.random_range(0..20)),
                optimizations: optimizations(rng, optimized),
                unexpected: false,
                why: String::new(),
                forecast: None,
            }
        })
        .collect();
    let prewarms = (0..rng.random_range(0..4))
        .map(|_| {
            let mut drawn = || tasks[rng.random_range(0..tasks.len())].task.clone();
            let (serves, after) = (drawn(), drawn());
            let after = rng.random_bool(0.7).then_some(after);
            PreWarming { config: sizes[0], after, delay_ms: rng.random_range(0.0..5_000.0), serves }
        })
        .collect();
    Plan {
        workflow: workflow.name().clone(),
        planner: name("drawn"),
        seed: 0,
        objective: Objective::Fastest,
        sla: Sla::MEDIAN,
        platform: name("local"),
        model_epoch: 0,
        tasks,
        workers: planned,
        prewarms,
        flexible: rules(rng),
        predicted: PlanSummary::default(),
        outlook: None,
        bounds: Bounds::default(),
        critical_path: Vec::new(),
        explanation: Vec::new(),
    }
}

/// WUKONG's switches; every output of the drawn runs is large.
fn rules(rng: &mut Pcg64) -> Option<FlexibleRules> {
    rng.random_bool(0.5).then(|| FlexibleRules {
        cluster_fan_out: rng.random_bool(0.7),
        cluster_fan_in: rng.random_bool(0.7),
        delayed_io: rng.random_bool(0.7),
        large_output_bytes: 10,
    })
}

fn optimizations(rng: &mut Pcg64, share: f64) -> Vec<Optimization> {
    let mut all = vec![Optimization::PreLoad, Optimization::TaskDup, Optimization::PreWarm];
    all.retain(|_| rng.random_bool(share));
    all
}
