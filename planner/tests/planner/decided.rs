//! Workflows in which tasks decide what runs: every plan keeps the rules, goes as a plan of what is expected
//! alone does, and is whole.

use std::collections::BTreeMap;

use foresail_planner::{
    Progress, ReplanOptions, TaskProgress, expected, find, plan, replan, retimed, simulate, validate,
    validate_rest,
};
use foresail_schemas::decision::{Condition, DecisionForecast, Wanted};
use foresail_schemas::plan::{Plan, PlannedTask, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::workflow::{Input, WorkflowSpec};
use foresail_schemas::{ObjectName, TaskId, Workflow};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::drawn::{lambda, measured, name, planners, problem, task, workflow};

const OBJECTIVE: foresail_schemas::plan::Objective = foresail_schemas::plan::Objective::Fastest;

/// A drawn problem with drawn conditions and predictions of what is decided.
fn decided(seed: u64) -> Problem {
    let mut rng = Pcg64::seed_from_u64(seed ^ 0xdec1);
    let mut problem = problem(seed);
    let mut spec = problem.workflow.spec().clone();
    for t in 1..spec.tasks.len() {
        let is_optional = rng.random_bool(0.4);
        for input in &mut spec.tasks[t].inputs {
            if let Input::Task { optional, .. } = input {
                *optional = is_optional;
            }
        }
        if rng.random_bool(0.4) {
            let decider = rng.random_range(0..t);
            let wanted = match rng.random_range(0..4) {
                0 => Wanted::Is(["left", "right"][rng.random_range(0..2)].to_owned()),
                _ => Wanted::Above(rng.random_range(0..8)),
            };
            spec.tasks[t].when = Some(Condition { task: spec.tasks[decider].id.clone(), wanted });
            spec.tasks[decider].decision = Some(ObjectName::default());
        }
    }
    for task in spec.tasks.iter().filter(|task| task.decision.is_some()) {
        let width = rng.random_bool(0.7).then(|| rng.random_range(0..8));
        let left = rng.random_range(0.0..1.0);
        let branches = [("left".to_owned(), left), ("right".to_owned(), 1.0 - left)];
        let branches = if rng.random_bool(0.7) { BTreeMap::from(branches) } else { BTreeMap::new() };
        if rng.random_bool(0.8) {
            problem.predictions.decisions.insert(task.id.clone(), DecisionForecast { width, branches });
        }
    }
    problem.workflow = spec.check().expect("conditions point backwards");
    problem
}

/// The same problem without what is not expected, made by hand.
fn by_hand(problem: &Problem, expected: &[bool]) -> Problem {
    let (spec, graph) = (problem.workflow.spec(), problem.workflow.graph());
    let is_in = |id: &TaskId| expected[graph.find(id).expect("it is one of the tasks") as usize];
    let mut tasks: Vec<_> = spec.tasks.iter().filter(|t| is_in(&t.id)).cloned().collect();
    for task in &mut tasks {
        task.inputs.retain(|i| if let Input::Task { task, .. } = i { is_in(task) } else { true });
        task.after.extend(task.when.take().map(|when| when.task));
        task.decision = None;
    }
    let workflow = WorkflowSpec { tasks, ..spec.clone() }.check().expect("what is expected is closed");
    let old = &problem.predictions;
    let place = |id: &TaskId| graph.find(id).expect("it is one of the tasks") as usize;
    let mut predictions = old.clone();
    let ids: Vec<TaskId> = workflow.tasks().iter().map(|t| t.id.clone()).collect();
    for (row, old) in predictions.exec_ms.iter_mut().zip(&old.exec_ms) {
        *row = ids.iter().map(|id| old[place(id)]).collect();
    }
    predictions.basis = ids.iter().map(|id| old.basis[place(id)]).collect();
    // Objects are told apart by who writes them, or by their address.
    let bytes = |of: &Workflow, o: usize| {
        let graph = of.graph();
        match graph.objects()[o].producer {
            Some(p) => (of.task(p).id.to_string(), graph.objects()[o].output),
            None => {
                let reader = graph.consumers(o as u32)[0];
                let mut uris: Vec<String> = Vec::new();
                for input in &of.task(reader).inputs {
                    if let Input::External { uri, .. } = input
                        && !uris.contains(uri)
                    {
                        uris.push(uri.clone());
                    }
                }
                let reads = graph.reads(reader).iter();
                let of_files = reads.filter(|&&r| graph.objects()[r as usize].producer.is_none());
                (uris[of_files.take_while(|&&r| r as usize != o).count()].clone(), 0)
            }
        }
    };
    let all = 0..graph.objects().len();
    let known: BTreeMap<_, _> = all.map(|o| (bytes(&problem.workflow, o), old.object_bytes[o])).collect();
    let part = 0..workflow.graph().objects().len();
    predictions.object_bytes = part.map(|o| known[&bytes(&workflow, o)]).collect();
    Problem { workflow, predictions, ..problem.clone() }
}

fn bare(task: &PlannedTask) -> PlannedTask {
    PlannedTask { rank: 0, ..task.clone() }
}

/// The plan of everything, in which nothing is left out.
fn cleared(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.tasks.iter_mut().for_each(|task| task.unexpected = false);
    plan
}

#[test]
fn every_plan_is_that_of_what_is_expected_and_has_the_rest_too() {
    for seed in 0..120 {
        let problem = decided(seed);
        let expected = expected(&problem.workflow, &problem.predictions.decisions);
        let part = by_hand(&problem, &expected);
        for planner in planners() {
            let label = format!("seed {seed}, {}", planner.name());
            let whole = plan(&problem, &*planner).unwrap_or_else(|e| panic!("{label}: {e}"));
            validate(&problem, &whole).unwrap_or_else(|e| panic!("{label}: {e}"));
            let flags: Vec<bool> = whole.tasks.iter().map(|task| !task.unexpected).collect();
            assert_eq!(flags, expected, "{label}");
            let alone = plan(&part, &*planner).unwrap();
            let mut of_part: Vec<&PlannedTask> = whole.tasks.iter().filter(|t| !t.unexpected).collect();
            assert!(of_part.iter().map(|t| bare(t)).eq(alone.tasks.iter().map(bare)), "{label}");
            assert_eq!(whole.predicted, alone.predicted, "{label}");
            assert_eq!(whole.bounds, alone.bounds, "{label}");
            // The order stays.
            of_part.sort_by_key(|task| task.rank);
            let mut alone: Vec<&PlannedTask> = alone.tasks.iter().collect();
            alone.sort_by_key(|task| task.rank);
            assert!(of_part.iter().map(|t| &t.task).eq(alone.iter().map(|t| &t.task)), "{label}");
        }
    }
}

#[test]
fn a_plan_can_be_carried_out_as_expected_and_if_everything_runs_after_all() {
    for seed in 0..150 {
        let problem = decided(seed);
        let all = planners();
        let planner = &all[seed as usize % all.len()];
        let found = plan(&problem, &**planner).unwrap();
        assert_eq!(found, plan(&problem, &**planner).unwrap(), "seed {seed}");
        let done = simulate(&problem, &found, &RunOptions::default());
        let done = done.unwrap_or_else(|e| panic!("seed {seed}, {}: {e}", planner.name()));
        assert!(done.summary.makespan_ms > 0.0 || found.predicted.makespan_ms < 1e-6, "seed {seed}");
        if found.flexible.is_none() {
            let wide = retimed(&problem, &cleared(&found), Vec::new()).unwrap();
            let done = simulate(&problem, &wide, &RunOptions::default());
            done.unwrap_or_else(|e| panic!("seed {seed}, {}, all: {e}", planner.name()));
            let again = retimed(&problem, &found, Vec::new()).unwrap();
            validate(&problem, &again).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert_eq!(again.predicted, found.predicted, "seed {seed}");
        }
    }
}

/// `split` decides how many `map`s run, which `reduce` reads; `places` there are at most.
fn fan(places: u64) -> Workflow {
    let mut tasks = vec![task("split", &[])];
    tasks[0].name = name("split");
    tasks[0].decision = Some(ObjectName::default());
    for place in 0..places {
        let mut map = task(&format!("map{place}"), &["split".to_owned()]);
        map.name = name("map");
        map.when = Some(Condition { task: name("split"), wanted: Wanted::Above(place) });
        tasks.push(map);
    }
    let parents: Vec<String> = (0..places).map(|place| format!("map{place}")).collect();
    let mut reduce = task("reduce", &parents);
    reduce.name = name("reduce");
    for input in &mut reduce.inputs {
        if let Input::Task { optional, .. } = input {
            *optional = true;
        }
    }
    tasks.push(reduce);
    workflow(tasks)
}

fn fan_problem(places: u64, width: Option<u64>) -> Problem {
    let mut problem = measured(fan(places), lambda(), OBJECTIVE);
    let forecast = DecisionForecast { width, branches: BTreeMap::new() };
    problem.predictions.decisions.insert(name("split"), forecast);
    problem
}

#[test]
fn a_plan_of_eight_of_sixty_four_costs_what_eight_cost() {
    let auto = find("auto:0.01").unwrap();
    let eight = plan(&fan_problem(64, Some(8)), &*auto).unwrap();
    assert_eq!(eight.tasks.iter().filter(|task| task.unexpected).count(), 56);
    assert_eq!(eight.predicted, plan(&fan_problem(8, None), &*auto).unwrap().predicted);
    let all = plan(&fan_problem(64, None), &*auto).unwrap();
    assert!(all.tasks.iter().all(|task| !task.unexpected));
    assert!(all.predicted.cost_usd > 3.0 * eight.predicted.cost_usd, "64 cost {}", all.predicted.cost_usd);
    // Place 19 goes where place 3 does, which is 19 modulo 8.
    let place = |id: &str| eight.tasks.iter().find(|t| t.task.as_str() == id).unwrap();
    assert_eq!(place("map19").worker, place("map3").worker);
    assert_eq!(place("map19").config, place("map3").config);
    assert!(place("map19").rank > place("map3").rank && place("map19").rank < place("reduce").rank);
    assert!(place("map19").why.contains("map3"));
}

#[test]
fn a_width_of_none_leaves_nothing_but_what_reads_without() {
    let problem = fan_problem(5, Some(0));
    let found = plan(&problem, &*find("simple").unwrap()).unwrap();
    let expected: Vec<&str> = found.tasks.iter().filter(|t| !t.unexpected).map(|t| t.task.as_str()).collect();
    assert_eq!(expected, ["split", "reduce"]);
    assert!(found.explanation.iter().any(|line| line.contains("5 of 7 tasks are not expected")));
}

#[test]
fn likely_branches_are_expected_and_what_only_the_others_need_is_not() {
    let branch = |id: &str, text: &str| {
        let mut task = task(id, &[]);
        task.when = Some(Condition { task: name("pick"), wanted: Wanted::Is(text.to_owned()) });
        task
    };
    let mut pick = task("pick", &[]);
    pick.decision = Some(ObjectName::default());
    let behind = task("behind", &["c".to_owned()]);
    let flow = workflow(vec![pick, branch("a", "a"), branch("b", "b"), branch("c", "c"), behind]);
    let of = |shares: &[(&str, f64)]| {
        let branches = shares.iter().map(|(text, share)| ((*text).to_owned(), *share)).collect();
        let forecast = DecisionForecast { width: None, branches };
        expected(&flow, &[(name("pick"), forecast)].into())
    };
    assert_eq!(of(&[("a", 0.6), ("b", 0.3), ("c", 0.1)]), [true, true, true, false, false]);
    assert_eq!(of(&[("a", 0.2), ("b", 0.1), ("c", 0.15)]), [true, true, false, false, false]);
    assert_eq!(of(&[("c", 1.0)]), [true, false, false, true, true]);
    assert_eq!(of(&[]), [true; 5]);
    assert_eq!(expected(&flow, &BTreeMap::new()), [true; 5]);
}

#[test]
fn a_validator_finds_what_is_expected_without_what_it_needs() {
    let problem = fan_problem(4, Some(2));
    let good = plan(&problem, &*find("simple").unwrap()).unwrap();
    let broken = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        validate(&problem, &plan).unwrap_err().to_string()
    };
    for at in [0, 5] {
        assert!(broken(&|plan| plan.tasks[at].unexpected = true).contains("nothing can keep it from"));
    }
    assert!(broken(&|plan| plan.tasks[4].exec_ms = 3.0).contains("takes time"));
    // A reader that cannot do without.
    let mut spec = problem.workflow.spec().clone();
    spec.tasks[5].inputs.truncate(1);
    spec.tasks[5].inputs[0] = Input::task(name("map3"), ObjectName::default());
    let strict = Problem { workflow: spec.check().unwrap(), ..problem };
    let error = validate(&strict, &good).unwrap_err().to_string();
    assert!(error.contains("something that it needs is not"), "{error}");
}

#[test]
fn a_run_that_turns_out_wider_is_replanned_with_what_was_decided() {
    let mut problem = fan_problem(24, Some(4));
    problem.predictions.exec_ms.iter_mut().flatten().for_each(|ms| *ms = 2_000.0);
    let narrow = plan(&problem, &*find("heft").unwrap()).unwrap();
    let now_ms = narrow.tasks[0].end_ms + 1.0;
    let progress = Progress::as_planned(&problem, &narrow, now_ms).unwrap();
    assert!(matches!(progress.tasks[0], TaskProgress::Done { .. }));
    assert!(progress.tasks[10..].iter().all(|task| *task == TaskProgress::Open));
    // As expected: the plan stays, and what is skipped counts for nothing.
    let mut skipped = progress.clone();
    skipped.tasks[5..25].iter_mut().for_each(|task| *task = TaskProgress::Skipped);
    let kept = replan(&problem, &narrow, &skipped, &ReplanOptions::default()).unwrap();
    assert!(kept.moved.is_empty(), "{}", kept.reason);
    assert_eq!(kept.plan.tasks.iter().filter(|task| task.unexpected).count(), 20);
    // Wider than expected: a fact.
    problem.predictions.decisions.get_mut("split").unwrap().width = Some(20);
    let wide = replan(&problem, &narrow, &progress, &ReplanOptions::default()).unwrap();
    assert_eq!(wide.plan.tasks.iter().filter(|task| task.unexpected).count(), 4);
    let is_open = |t: u32| progress.tasks[t as usize] == TaskProgress::Open;
    validate_rest(&problem, &wide.plan, is_open).unwrap();
    assert!(wide.new.makespan_ms < wide.kept.makespan_ms, "{}", wide.reason);
}

#[test]
fn a_state_in_which_a_task_ran_before_what_it_needs_is_refused() {
    let problem = fan_problem(4, Some(2));
    let mut spec = problem.workflow.spec().clone();
    // A reader that cannot do without.
    spec.tasks[5].inputs = vec![Input::task(name("map3"), ObjectName::default())];
    let strict = Problem { workflow: spec.check().unwrap(), ..problem };
    let strict_plan = plan(&strict, &*find("simple").unwrap()).unwrap();
    let mut progress = Progress::as_planned(&strict, &strict_plan, 0.0).unwrap();
    for at in [0, 5] {
        progress.tasks[at] = TaskProgress::Done { start_ms: 0.0, end_ms: 0.0, output_bytes: None };
    }
    let error = replan(&strict, &strict_plan, &progress, &ReplanOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`reduce` has begun, and `map3`"), "{error}");
}
