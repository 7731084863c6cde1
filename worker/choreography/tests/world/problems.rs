//! Random workflows, with branches and fan-outs, and random valid plans, with random optimisations.

use foresail_schemas::decision::{Condition, Decision, Wanted};
use foresail_schemas::optimization::{FlexibleRules, Optimization, PreWarming};
use foresail_schemas::plan::{Bounds, Objective, PlanSummary, PlannedTask, PlannedWorker};
use foresail_schemas::retry::SizeMenu;
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, Plan, ResourceConfig, Sla, TaskId, WorkerId, Workflow};
use rand::RngExt;
use rand_pcg::Pcg64;

/// Texts that are decided and wanted.
const TEXTS: [&str; 3] = ["left", "right", "2"];
/// Largest number of places of a drawn fan-out.
const PLACES_MAX: u64 = 4;

/// A width, or a text.
pub fn decision(rng: &mut Pcg64) -> Decision {
    match rng.random_bool(0.7) {
        true => Decision::Width(rng.random_range(0..=PLACES_MAX)),
        false => Decision::Branch(TEXTS[rng.random_range(0..TEXTS.len())].to_owned()),
    }
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

fn task(t: usize) -> Task {
    let work = Work::Function { function: name("f"), params: serde_json::Value::Null };
    Task::new(name(&format!("t{t}")), name("f"), work)
}

fn spec(tasks: Vec<Task>) -> Workflow {
    WorkflowSpec { name: name("w"), description: None, tasks, code: Default::default() }
        .check()
        .expect("edges go forward")
}

/// Some have no decisions, some a few, some are made of little else.
pub fn workflow(rng: &mut Pcg64) -> Workflow {
    let len = rng.random_range(1..25);
    let density = rng.random_range(0.05..0.4);
    let deciding = [0.0, 0.2, 0.6][rng.random_range(0..3)];
    let optional = [0.0, 0.5, 0.9][rng.random_range(0..3)];
    let mut tasks: Vec<Task> = Vec::new();
    for t in 0..len {
        let mut task = task(t);
        for parent in 0..t {
            if !rng.random_bool(density) {
                continue;
            }
            let parent: TaskId = name(&format!("t{parent}"));
            match deciding > 0.0 && rng.random_bool(0.1) {
                true => task.after.push(parent),
                false => {
                    let optional = deciding > 0.0 && rng.random_bool(optional);
                    task.inputs.push(Input::Task { task: parent, output: ObjectName::default(), optional });
                }
            }
        }
        if deciding > 0.0 {
            task.when = condition(rng, deciding, &tasks);
            task.decision = rng.random_bool(deciding).then(ObjectName::default);
        }
        tasks.push(task);
    }
    spec(tasks)
}

/// On one of the tasks so far that decide, often the last of them, so that decisions nest.
fn condition(rng: &mut Pcg64, share: f64, tasks: &[Task]) -> Option<Condition> {
    let deciders: Vec<&Task> = tasks.iter().filter(|task| task.decision.is_some()).collect();
    if deciders.is_empty() || !rng.random_bool((share + 0.2).min(1.0)) {
        return None;
    }
    let at = if rng.random_bool(0.5) { deciders.len() - 1 } else { rng.random_range(0..deciders.len()) };
    let wanted = match rng.random_bool(0.7) {
        true => Wanted::Above(rng.random_range(0..PLACES_MAX)),
        false => Wanted::Is(TEXTS[rng.random_range(0..TEXTS.len())].to_owned()),
    };
    Some(Condition { task: deciders[at].id.clone(), wanted })
}

/// One task that decides, a task per place that reads it, and one that reads what these have made.
pub fn fan_out(width_max: usize) -> Workflow {
    let mut decider = task(0);
    decider.decision = Some(ObjectName::default());
    let mut tasks = vec![decider];
    for place in 0..width_max {
        let mut task = task(1 + place);
        task.inputs.push(Input::task(name("t0"), ObjectName::default()));
        task.when = Some(Condition { task: name("t0"), wanted: Wanted::Above(place as u64) });
        tasks.push(task);
    }
    let mut last = task(1 + width_max);
    let part = |place| name(&format!("t{}", 1 + place));
    let part = |place| Input::Task { task: part(place), output: ObjectName::default(), optional: true };
    last.inputs = (0..width_max).map(part).collect();
    tasks.push(last);
    spec(tasks)
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
    let reads = |t: usize| {
        let mut task = task(t);
        if t > 0 {
            task.inputs.push(Input::task(name("t0"), ObjectName::default()));
        }
        task
    };
    spec((0..=children).map(reads).collect())
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
        usage: Vec::new(),
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
