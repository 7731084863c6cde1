//! What is a cause to look at a plan again, and what is expected then, by events made up for it.

use foresail_schemas::Sla;
use foresail_schemas::decision::DecisionForecast;
use foresail_schemas::metric::{Forecast, StartState};
use foresail_schemas::plan::Objective;
use foresail_schemas::platform::Platform;
use foresail_schemas::run::{Change, Commit, Failure, FailureKind, Measured, RunEvent, WorkerUsage};

use foresail_planner::TaskProgress;

use super::*;
use crate::builder::WorkflowBuilder;
use crate::client::{plan, problem};

/// Eight tasks of one type that take 1 s each, p95 2 s.
fn planned() -> (Workflow, Plan) {
    let mut flow = WorkflowBuilder::new("w");
    for at in 0..8 {
        flow.task(format!("t{at}")).named("work").command("true");
    }
    let workflow = flow.build().unwrap();
    let platform = Platform::built_in().swap_remove(0);
    let mut table = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
    table.exec_ms.iter_mut().for_each(|row| row.fill(1_000.0));
    let mut plan = plan("simple", &problem(&workflow, &platform, table, Objective::Fastest, 1)).unwrap();
    let forecast = Forecast::new([1_000.0, 1_800.0, 2_000.0, 3_000.0]);
    plan.tasks.iter_mut().for_each(|task| task.forecast = Some(forecast));
    (workflow, plan)
}

fn name() -> TaskName {
    TaskName::new("work").unwrap()
}

#[test]
fn a_type_drifts_with_three_executions_that_are_a_fifth_off() {
    for (times_ms, ratio) in [
        (&[3_000.0, 3_000.0][..], None),
        (&[3_000.0, 3_000.0, 3_100.0], Some(3.0)),
        (&[1_190.0, 1_190.0, 1_190.0], None),
        (&[700.0, 750.0, 790.0], Some(0.75)),
        (&[1_000.0, 1_000.0, 90_000.0], None),
    ] {
        let (workflow, plan) = planned();
        let mut drift = Drift::new(&workflow, &plan);
        let config = plan.tasks[0].config;
        (0..).zip(times_ms).for_each(|(task, &ms)| drift.measured(&name(), task, config, ms));
        assert_eq!(drift.ratios().first().map(|(_, ratio, _)| *ratio), ratio, "{times_ms:?}");
        let mut slower = plan.clone();
        slower.tasks.iter_mut().for_each(|task| task.forecast = None);
        slower.tasks.iter_mut().for_each(|task| task.exec_ms = times_ms[0]);
        drift.expect(&slower);
        assert_eq!(drift.ratios(), [], "what is expected is no drift: {times_ms:?}");
    }
}

#[test]
fn an_execution_at_another_size_says_nothing() {
    let (workflow, plan) = planned();
    let mut drift = Drift::new(&workflow, &plan);
    let other = ResourceConfig::new(plan.tasks[0].config.memory_mb * 2, None).unwrap();
    (0..5).for_each(|task| drift.measured(&name(), task, other, 9_000.0));
    assert_eq!(drift.ratios(), []);
}

#[test]
fn what_is_too_short_to_matter_is_no_cause() {
    let (workflow, mut plan) = planned();
    plan.predicted.makespan_ms = 1e9;
    let mut drift = Drift::new(&workflow, &plan);
    (0..5).for_each(|task| drift.measured(&name(), task, plan.tasks[0].config, 3_000.0));
    assert_eq!(drift.ratios(), []);
}

#[test]
fn a_task_past_its_p95_is_a_cause_once() {
    let (workflow, plan) = planned();
    let mut drift = Drift::new(&workflow, &plan);
    let mut course = Course::new(&workflow, 1);
    let instance: foresail_schemas::InstanceId = "i-1".parse().unwrap();
    let config = plan.tasks[0].config;
    let joined =
        Change::WorkerJoined { worker: None, instance: instance.clone(), config, start: StartState::Cold };
    let assuming = Vec::new();
    let leased = Change::TaskLeased { task: 3, attempt: 1, instance, epoch: 1, expires_ms: 1e9, assuming };
    for (seq, at_ms, change) in [(1, 0.0, joined), (2, 100.0, leased)] {
        course.apply(&RunEvent { seq, at_ms, change });
    }
    assert_eq!(drift.causes(&workflow, &course, 2_000.0), []);
    let causes = drift.causes(&workflow, &course, 1e6);
    assert!(matches!(causes[..], [Cause::Slow { at: 3, .. }]), "{causes:?}");
    drift.told(&causes, &course);
    assert_eq!(drift.causes(&workflow, &course, 1e6), []);
}

#[test]
fn what_waits_in_its_worker_for_a_lane_does_not_run() {
    let (workflow, plan) = planned();
    let mut course = Course::new(&workflow, 2);
    let instance: foresail_schemas::InstanceId = "i-1".parse().unwrap();
    let config = plan.tasks[0].config;
    let mut seq = 0;
    let mut tell = |course: &mut Course, at_ms: f64, change: Change| {
        seq += 1;
        course.apply(&RunEvent { seq, at_ms, change });
        let running = course.running(at_ms).map(|of| (of.task, of.since_ms));
        running.collect::<Vec<_>>()
    };
    let start = StartState::Cold;
    tell(&mut course, 0.0, Change::WorkerJoined { worker: None, instance: instance.clone(), config, start });
    let leased = |task: u32| {
        let (instance, assuming) = (instance.clone(), Vec::new());
        Change::TaskLeased { task, attempt: 1, instance, epoch: 1, expires_ms: 1e9, assuming }
    };
    for task in [5, 1, 3, 0] {
        tell(&mut course, 100.0, leased(task));
    }
    assert_eq!(tell(&mut course, 100.0, leased(7)), [(1, 100.0), (5, 100.0)]);
    let committed = |task: u32| {
        let (printed, decision, measured) = (None, None, Measured::default());
        let (instance, outputs) = (instance.clone(), Vec::new());
        Change::TaskCommitted {
            task,
            commit: Commit { attempt: 1, instance, outputs, measured, decision, printed },
        }
    };
    assert_eq!(tell(&mut course, 300.0, committed(5)), [(1, 100.0), (3, 300.0)]);
    assert_eq!(tell(&mut course, 400.0, committed(3)), [(0, 400.0), (1, 100.0)]);
    let Step::Done { start_ms, .. } = course.step(3) else { panic!("{:?}", course.step(3)) };
    assert_eq!(*start_ms, 300.0, "it began when the one before it ended");
    let waits_ms = course.progress(&plan, &Platform::built_in()[0].rates(), 450.0).tasks[7].clone();
    assert_eq!(
        waits_ms,
        TaskProgress::Leased { worker: Some("flexible0".parse().unwrap()), since_ms: 450.0 }
    );
    assert_eq!(tell(&mut course, 500.0, Change::WorkerLeft { instance, usage: WorkerUsage::default() }), []);
    assert_eq!(*course.step(7), Step::Open);
}

#[test]
fn a_worker_that_its_host_tells_dead_is_a_cause_once_and_leaves_nothing_warm() {
    let (workflow, plan) = planned();
    let (mut drift, mut course) = (Drift::new(&workflow, &plan), Course::new(&workflow, 1));
    let (instance, config) = ("i-1".parse::<foresail_schemas::InstanceId>().unwrap(), plan.tasks[0].config);
    let failure = |kind| Failure {
        task: None,
        attempt: 1,
        kind,
        message: String::new(),
        exception: None,
        lost: Vec::new(),
    };
    let failed = |kind| Change::TaskFailed {
        task: 3,
        attempt: 1,
        instance: instance.clone(),
        failure: failure(kind),
        again_ms: None,
        config: None,
    };
    let (epoch, expires_ms, assuming) = (1, 1e9, Vec::new());
    let changes = [
        Change::WorkerJoined { worker: None, instance: instance.clone(), config, start: StartState::Cold },
        Change::TaskLeased { task: 3, attempt: 1, instance: instance.clone(), epoch, expires_ms, assuming },
        failed(FailureKind::TaskError),
        failed(FailureKind::WorkerLost),
        Change::WorkerLeft { instance: instance.clone(), usage: WorkerUsage::default() },
    ];
    let mut found = Vec::new();
    for (seq, change) in (1..).zip(changes) {
        course.apply(&RunEvent { seq, at_ms: 10.0, change });
        let causes = drift.causes(&workflow, &course, 20.0);
        drift.told(&causes, &course);
        found.push(causes.first().map(ToString::to_string));
    }
    assert_eq!(found, [None, None, None, Some("a worker was lost".to_owned()), None]);
    let rates = Platform::built_in().swap_remove(0).rates();
    assert_eq!(course.progress(&plan, &rates, 20.0).idle, []);
}

#[test]
fn a_silence_is_not_taken_for_a_long_execution() {
    let (workflow, plan) = planned();
    let drift = Drift::new(&workflow, &plan);
    let mut course = Course::new(&workflow, 2);
    let config = plan.tasks[0].config;
    let mut seq = 0;
    let mut tell = |course: &mut Course, at_ms, change| {
        seq += 1;
        course.apply(&RunEvent { seq, at_ms, change });
    };
    let leased = |task, name: &str| Change::TaskLeased {
        task,
        attempt: 1,
        instance: name.parse().unwrap(),
        epoch: 1,
        expires_ms: 1e9,
        assuming: Vec::new(),
    };
    for (task, name) in [(1, "i-1"), (2, "i-2")] {
        let (instance, start) = (name.parse().unwrap(), StartState::Cold);
        tell(&mut course, 0.0, Change::WorkerJoined { worker: None, instance, config, start });
        tell(&mut course, 100.0, leased(task, name));
    }
    let late: Vec<f64> = [600.0, 9_000.0].map(|now_ms| slowest(&drift, &workflow, &course, now_ms)).into();
    assert!(late[0] < 1.1 && late[1] > 1.3, "without a silence they would be late: {late:?}");
    // Nothing is heard from 600 to 9,000 ms; who lives reports within 4 s.
    course.silence(600.0, 9_000.0, 4_000.0);
    for now_ms in [9_000.0, 12_900.0] {
        assert_eq!(drift.causes(&workflow, &course, now_ms), []);
        assert!(slowest(&drift, &workflow, &course, now_ms) < 1.1);
    }
    // One reports with its next task and is measured again; the other may have ended for all that is known.
    tell(&mut course, 9_100.0, leased(3, "i-1"));
    let causes = drift.causes(&workflow, &course, 12_900.0);
    assert!(causes.iter().all(|c| matches!(c, Cause::Slow { at: 1 | 3, .. })), "{causes:?}");
    assert!(causes.iter().any(|c| matches!(c, Cause::Slow { at: 3, .. })), "{causes:?}");
    // Whose lease lasts beyond its heartbeat has run all the time.
    let causes = drift.causes(&workflow, &course, 13_000.0);
    assert!(causes.iter().any(|c| matches!(c, Cause::Slow { at: 2, .. })), "{causes:?}");
}

/// The factor that is expected of the type.
fn slowest(drift: &Drift, workflow: &Workflow, course: &Course, now_ms: f64) -> f64 {
    drift.slowdowns(workflow, course, now_ms).first().map_or(1.0, |(_, factor)| *factor)
}

#[test]
fn a_task_that_runs_on_is_a_cause_again_and_more_often_ever_later() {
    let (workflow, plan) = planned();
    let mut drift = Drift::new(&workflow, &plan);
    let mut course = Course::new(&workflow, 1);
    let instance: foresail_schemas::InstanceId = "i-1".parse().unwrap();
    let assuming = Vec::new();
    let change = Change::TaskLeased { task: 3, attempt: 1, instance, epoch: 1, expires_ms: 1e9, assuming };
    course.apply(&RunEvent { seq: 1, at_ms: 0.0, change });
    let mut told_ms = Vec::new();
    for now_ms in (0..20_000).map(f64::from) {
        let causes = drift.causes(&workflow, &course, now_ms);
        if !causes.is_empty() {
            told_ms.push(now_ms);
            drift.told(&causes, &course);
        }
    }
    assert!(told_ms[0] < 2_500.0, "at its p95, with its transfers: {told_ms:?}");
    assert!(told_ms.windows(2).all(|pair| pair[1] >= 1.25 * pair[0]), "{told_ms:?}");
    assert!((3..15).contains(&told_ms.len()), "{told_ms:?}");
}

#[test]
fn what_ended_in_time_keeps_one_that_lags_from_making_its_type_suspect() {
    let (workflow, plan) = planned();
    let mut course = Course::new(&workflow, 1);
    let (config, instance) = (plan.tasks[0].config, "i-1".parse::<foresail_schemas::InstanceId>().unwrap());
    let start = StartState::Cold;
    let joined = Change::WorkerJoined { worker: None, instance: instance.clone(), config, start };
    let assuming = Vec::new();
    let leased = Change::TaskLeased { task: 7, attempt: 1, instance, epoch: 1, expires_ms: 1e9, assuming };
    for (seq, change) in [(1, joined), (2, leased)] {
        course.apply(&RunEvent { seq, at_ms: 0.0, change });
    }
    let alone = Drift::new(&workflow, &plan).slowdowns(&workflow, &course, 5_000.0);
    assert!(alone.first().is_some_and(|(_, factor)| *factor > 1.3), "{alone:?}");
    let mut drift = Drift::new(&workflow, &plan);
    (0..6).for_each(|task| drift.measured(&name(), task, config, 1_000.0));
    let beside = drift.slowdowns(&workflow, &course, 5_000.0);
    assert!(beside.first().is_none_or(|(_, factor)| *factor < 1.2), "{beside:?}");
}

#[test]
fn a_decision_that_calls_more_than_expected_is_a_cause_once() {
    let place = |at: u32| {
        serde_json::json!({"id": format!("p{at}"), "name": "p", "run": "true",
            "when": {"task": "d", "above": at}})
    };
    let decider = serde_json::json!({"id": "d", "name": "d", "run": "true", "decision": "out"});
    let tasks: Vec<_> = [decider].into_iter().chain((0..4).map(place)).collect();
    let workflow: Workflow =
        serde_json::from_value(serde_json::json!({"name": "w", "tasks": tasks})).unwrap();
    let platform = Platform::built_in().swap_remove(0);
    let mut table = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
    let two = DecisionForecast { width: Some(2), ..DecisionForecast::default() };
    table.decisions.insert("d".parse().unwrap(), two);
    let plan = plan("simple", &problem(&workflow, &platform, table, Objective::Fastest, 1)).unwrap();
    for (width, called) in [(1, None), (2, None), (3, Some(1)), (9, Some(2))] {
        let mut drift = Drift::new(&workflow, &plan);
        let mut course = Course::new(&workflow, 1);
        let commit = Commit {
            printed: None,
            attempt: 1,
            instance: "i-1".parse().unwrap(),
            outputs: Vec::new(),
            measured: Measured::default(),
            decision: Some(Decision::Width(width)),
        };
        let change = Change::TaskCommitted { task: 0, commit };
        course.apply(&RunEvent { seq: 1, at_ms: 5.0, change });
        let causes = drift.causes(&workflow, &course, 6.0);
        let found = causes.first().map(|cause| match cause {
            Cause::Decided { called, .. } => *called,
            other => panic!("{other}"),
        });
        assert_eq!(found, called, "width {width}");
        assert_eq!(course.facts()["d"].width, Some(width));
        drift.told(&causes, &course);
        assert_eq!(drift.causes(&workflow, &course, 7.0), []);
    }
}
