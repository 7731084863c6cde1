//! WUKONG's switches on graphs with large outputs, carried out by the event simulator.

use foresail_planner::shapes::Shape;
use foresail_planner::{find, plan, simulate};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::workflow::Output;
use foresail_schemas::{ObjectName, Workflow};

use crate::drawn::{self, lambda, measured, task, workflow};
use crate::graphs;

const LARGE_BYTES: u64 = 50_000_000;

fn planned(problem: &Problem, planner: &str) -> Plan {
    let planner = find(planner).expect("the planner exists");
    plan(problem, planner.as_ref()).expect("there is a plan")
}

/// `a` writes a large object that `width` tasks read, whose small outputs `z` reads.
fn fan(width: usize) -> Workflow {
    let mut tasks = vec![task("a", &[])];
    let out = |bytes| vec![Output { name: ObjectName::default(), bytes: Some(bytes) }];
    tasks[0].outputs = out(LARGE_BYTES);
    let middle: Vec<String> = (0..width).map(|i| format!("m{i}")).collect();
    for id in &middle {
        let mut reader = task(id, &["a".to_owned()]);
        reader.outputs = out(1_000);
        tasks.push(reader);
    }
    tasks.push(task("z", &middle));
    workflow(tasks)
}

#[test]
fn a_fan_out_of_a_large_object_is_clustered_and_the_object_never_stored() {
    let problem = measured(fan(4), lambda(), Objective::Fastest);
    let clustered = planned(&problem, "wukong:fan-out@1000000").predicted;
    let plain = planned(&problem, "wukong:none").predicted;
    assert_eq!(clustered.invocations, 1, "{clustered:?}");
    assert_eq!(clustered.upload_bytes + LARGE_BYTES, plain.upload_bytes, "{clustered:?}, {plain:?}");
    assert!(plain.invocations > 1 && plain.download_bytes >= 3 * LARGE_BYTES, "{plain:?}");
    let above = planned(&problem, "wukong:fan-out@60000000").predicted;
    assert_eq!(above, plain, "nothing is as large as the threshold");
}

#[test]
fn delayed_input_and_output_waits_for_the_small_one() {
    // `z` reads the large object of `a` and the small one of `b`, which takes longer.
    let mut tasks = vec![task("a", &[]), task("b", &[]), task("z", &["a".to_owned(), "b".to_owned()])];
    let out = |bytes| vec![Output { name: ObjectName::default(), bytes: Some(bytes) }];
    (tasks[0].outputs, tasks[1].outputs) = (out(LARGE_BYTES), out(1_000));
    let mut problem = measured(workflow(tasks), lambda(), Objective::Fastest);
    for row in &mut problem.predictions.exec_ms {
        (row[0], row[1]) = (500.0, 3_000.0);
    }
    let delayed = planned(&problem, "wukong:delayed-io+fan-out@1000000").predicted;
    let plain = planned(&problem, "wukong:none").predicted;
    assert_eq!(delayed.upload_bytes + LARGE_BYTES, plain.upload_bytes, "{delayed:?}, {plain:?}");
    assert_eq!(delayed.download_bytes + LARGE_BYTES, plain.download_bytes, "{delayed:?}, {plain:?}");
}

#[test]
fn without_large_outputs_wukong_is_simple() {
    let problem = graphs::problem(&Shape::Tree(64).workflow(), Objective::Fastest);
    let (wukong, simple) = (planned(&problem, "wukong"), planned(&problem, "simple"));
    let ratio = wukong.predicted.makespan_ms / simple.predicted.makespan_ms;
    assert!((0.99..1.01).contains(&ratio), "{ratio}");
}

#[test]
fn what_the_plan_says_is_what_the_simulator_does() {
    for shape in ["gemm:3", "svd:6", "fork-join:2x8"] {
        let shape: Shape = shape.parse().unwrap();
        let problem = graphs::problem(&shape.workflow(), Objective::Cheapest);
        let plan = planned(&problem, "wukong@100000".replace('@', ":@").as_str());
        let simulated = simulate(&problem, &plan, &RunOptions::default()).unwrap();
        assert_eq!(simulated.summary, plan.predicted, "{shape}");
        let last = plan.tasks.iter().find(|t| Some(&t.task) == plan.critical_path.last()).unwrap();
        assert!(plan.tasks.iter().all(|t| t.end_ms <= last.end_ms), "{shape}");
    }
}

/// Outputs held by one worker wait for each other along several ways; what is stored in between frees others.
#[test]
fn held_outputs_that_wait_for_each_other_come_to_an_end() {
    for seed in [1_702, 7_346] {
        let problem = drawn::problem(seed);
        assert_eq!(planned(&problem, "wukong").tasks.len(), problem.workflow.tasks().len());
    }
}
