//! What plans learn of decisions and of the engine, from records to a plan.

use foresail_model::WorkflowModel;
use foresail_planner::{blind_table, find, plan};
use foresail_schemas::decision::Decision;
use foresail_schemas::metric::{
    DecisionRecord, Direction, Record, STORE_OF_LANES, STORE_OF_STATE, TaskRecord, TransferRecord,
};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::{Platform, Sla, Workflow};
use jiff::Timestamp;

use crate::uncertainty::distributions;

const PLACES: u64 = 64;

/// `split` decides how many of `places` run `map`, and `reduce` reads what they make.
fn workflow(places: u64) -> Workflow {
    let map = |at: u64| {
        serde_json::json!({"id": format!("map{at}"), "name": "map", "run": "true",
            "inputs": [{"task": "split"}], "when": {"task": "split", "above": at}})
    };
    let split = serde_json::json!({"id": "split", "name": "split", "run": "true", "decision": "out"});
    let reads: Vec<_> =
        (0..places).map(|at| serde_json::json!({"task": format!("map{at}"), "optional": true})).collect();
    let reduce = serde_json::json!({"id": "reduce", "name": "reduce", "run": "true", "inputs": reads});
    let tasks: Vec<_> = [split].into_iter().chain((0..places).map(map)).chain([reduce]).collect();
    serde_json::from_value(serde_json::json!({"name": "w", "tasks": tasks})).unwrap()
}

/// What twenty runs measured whose widths are about eight.
fn twenty_runs() -> WorkflowModel {
    let mut model = WorkflowModel::new();
    for run in 0..20_i64 {
        let at = Timestamp::from_second(run * 100).unwrap();
        let width = [8, 7, 9, 8][(run % 4) as usize];
        let mut task = |name: &str, input_bytes: u64, output_bytes: u64, exec_ms: f64| {
            let record = TaskRecord {
                task: name.parse().unwrap(),
                memory_mb: 1769,
                vcpu: None,
                input_bytes,
                output_bytes: Some(output_bytes),
                exec_ms,
                peak_memory_mb: None,
                attempt: 1,
                at: None,
                forecast: None,
            };
            model.update(&Record::Task(record), at);
        };
        task("split", 0, 1_000, 100.0);
        (0..width).for_each(|_| task("map", 1_000, 10_000_000, 900.0));
        task("reduce", width * 10_000_000, 10, 50.0 * width as f64);
        let (task, value) = ("split".parse().unwrap(), Decision::Width(width));
        model.update(&Record::Decision(DecisionRecord { task, input_bytes: 0, value, at: None }), at);
    }
    model
}

fn planned(workflow: &Workflow, model: &mut WorkflowModel, sla: Sla) -> (Problem, Plan) {
    let (platform, model) = (Platform::built_in().remove(1), model.snapshot());
    let blind = blind_table(workflow, &platform, sla);
    let ask = |query: &_, sla| model.predict(query, &[sla]);
    let predictions = super::table(workflow, blind, 1, platform.inline_bytes_max, ask);
    let objective = Objective::Fastest;
    let problem = Problem {
        workflow: workflow.clone(),
        platform,
        predictions,
        objective,
        seed: 1,
        without: Vec::new(),
    };
    let plan = plan(&problem, &*find("sweep").unwrap()).unwrap();
    (problem, plan)
}

#[test]
fn after_twenty_runs_of_width_eight_a_plan_of_sixty_four_is_one_of_eight() {
    let mut model = twenty_runs();
    let (_, wide) = planned(&workflow(PLACES), &mut WorkflowModel::new(), Sla::MEDIAN);
    assert!(wide.tasks.iter().all(|task| !task.unexpected), "nothing was seen yet");
    let (problem, found) = planned(&workflow(PLACES), &mut model, Sla::MEDIAN);
    assert_eq!(problem.predictions.decisions["split"].width, Some(8));
    assert_eq!(found.tasks.iter().filter(|task| !task.unexpected).count(), 1 + 8 + 1);
    let (_, eight) = planned(&workflow(8), &mut model, Sla::MEDIAN);
    assert_eq!(found.predicted, eight.predicted);
    // A plan that is to be right more often expects more.
    let (_, careful) = planned(&workflow(PLACES), &mut model, Sla::P95);
    assert_eq!(careful.tasks.iter().filter(|task| !task.unexpected).count(), 1 + 9 + 1);
}

#[test]
fn an_outlook_is_told_how_wide_a_fan_out_may_come() {
    let mut model = twenty_runs();
    let (Problem { workflow, predictions, platform, .. }, _) =
        planned(&workflow(PLACES), &mut model, Sla::MEDIAN);
    let model = model.snapshot();
    let ask = |query: &_, slas: &[Sla]| model.predict(query, slas);
    let found = distributions(&workflow, &predictions, platform.inline_bytes_max, ask);
    let widths = found.widths["split"];
    assert_eq!((widths[0], widths[2]), (7.0, 8.0), "of 7, 8, 8 and 9");
    assert!(widths[5] >= 9.0 && widths.is_sorted(), "{widths:?}");
}

#[test]
fn an_outlook_is_told_how_likely_each_branch_is() {
    let flow = |branches: &[&str]| -> Workflow {
        let pick = serde_json::json!({"id": "pick", "name": "pick", "run": "true", "decision": "out"});
        let branch = |text: &&str| {
            serde_json::json!({"id": text, "name": "work", "run": "true",
                "when": {"task": "pick", "is": text}})
        };
        let tasks: Vec<_> = [pick].into_iter().chain(branches.iter().map(branch)).collect();
        serde_json::from_value(serde_json::json!({"name": "w", "tasks": tasks})).unwrap()
    };
    let mut model = WorkflowModel::new();
    for run in 0..20_i64 {
        let value = Decision::Branch(if run % 4 == 0 { "right" } else { "left" }.to_owned());
        let at = Timestamp::from_second(run * 100).unwrap();
        let task = "pick".parse().unwrap();
        model.update(&Record::Decision(DecisionRecord { task, input_bytes: 0, value, at: None }), at);
    }
    let shares = |workflow: &Workflow, model: &mut WorkflowModel| {
        let (Problem { predictions, platform, .. }, _) = planned(workflow, model, Sla::MEDIAN);
        let model = model.snapshot();
        let ask = |query: &_, slas: &[Sla]| model.predict(query, slas);
        let found = distributions(workflow, &predictions, platform.inline_bytes_max, ask);
        assert!(found.widths.is_empty(), "it decides no width");
        found.branches["pick"].iter().map(|(text, share)| (text.clone(), *share)).collect::<Vec<_>>()
    };
    // The model keeps 1 of 23 parts for what was never seen.
    for (branches, expected) in [
        (&["left", "right"][..], &[("left", 16.0 / 22.0), ("right", 6.0 / 22.0)][..]),
        (&["left"], &[("left", 16.0 / 22.0), ("right", 6.0 / 22.0)]),
        (&["left", "right", "stop"], &[("left", 16.0 / 23.0), ("right", 6.0 / 23.0), ("stop", 1.0 / 23.0)]),
    ] {
        let found = shares(&flow(branches), &mut model);
        assert_eq!(found.len(), expected.len(), "{branches:?}: {found:?}");
        for ((text, share), (wanted, expected)) in found.iter().zip(expected) {
            assert!(text == wanted && (share - expected).abs() < 1e-9, "{branches:?}: {found:?}");
        }
    }
}

#[test]
fn what_the_engine_takes_makes_a_chain_of_brief_tasks_longer() {
    let task = |at: u64| {
        let reads: Vec<_> = at
            .checked_sub(1)
            .map(|before| serde_json::json!({"task": format!("t{before}")}))
            .into_iter()
            .collect();
        serde_json::json!({"id": format!("t{at}"), "name": "t", "run": "true", "inputs": reads})
    };
    let chain = serde_json::json!({"name": "w", "tasks": (0..20).map(task).collect::<Vec<_>>()});
    let workflow: Workflow = serde_json::from_value(chain).unwrap();
    let makespan_ms = |lane_ms: Option<f64>| {
        let mut model = WorkflowModel::new();
        let at = Timestamp::from_second(1).unwrap();
        let record = |task: &str| TaskRecord {
            task: task.parse().unwrap(),
            memory_mb: 1769,
            vcpu: None,
            input_bytes: 0,
            output_bytes: Some(0),
            exec_ms: 0.1,
            peak_memory_mb: None,
            attempt: 1,
            at: None,
            forecast: None,
        };
        (0..20).for_each(|_| model.update(&Record::Task(record("t")), at));
        for (way, time_ms) in lane_ms.into_iter().flat_map(|ms| [(STORE_OF_LANES, ms), (STORE_OF_STATE, 5.0)])
        {
            let (direction, bytes, store) = (Direction::Upload, 0, way.parse().ok());
            let record =
                TransferRecord { direction, bytes, time_ms, memory_mb: 1769, vcpu: None, store, at: None };
            (0..5).for_each(|_| model.update(&Record::Transfer(record.clone()), at));
        }
        let (problem, plan) = planned(&workflow, &mut model, Sla::MEDIAN);
        assert_eq!(problem.predictions.engine.is_some(), lane_ms.is_some());
        assert!(plan.tasks[0].exec_ms < 1.0, "what a task is expected to take is its code alone");
        foresail_planner::validate(&problem, &plan).unwrap();
        plan.predicted.makespan_ms
    };
    let (unknown_ms, brief_ms, long_ms) =
        (makespan_ms(None), makespan_ms(Some(1.0)), makespan_ms(Some(11.0)));
    assert!(brief_ms > unknown_ms, "{unknown_ms} {brief_ms}");
    assert!((long_ms - brief_ms - 20.0 * 10.0).abs() < 10.0, "{brief_ms} {long_ms}");
}
