//! Re-planning: what holds for every drawn run at every drawn moment. `FORESAIL_PROOF=1` draws many more.

use foresail_planner::{
    Progress, ReplanFailure, ReplanOptions, Replanned, TaskProgress, Verdict, WorkerCondition,
    WorkerProgress, compare, find, plan, replan, validate_rest,
};
use foresail_schemas::optimization::Optimization;
use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};
use foresail_schemas::{WorkerId, Workflow};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::drawn;
use crate::graphs;
use crate::properties::problems;

const PROBLEMS_PROOF: u64 = 20_000;
/// Runs in which a task runs in an invocation of its worker that another invocation of it outlives.
const TWO_INVOCATIONS: [u64; 2] = [10_883, 1_055];

/// A drawn problem, the plan of a planner for it, and a generator of what happens to the run.
fn drawn_run(seed: u64) -> (Problem, Plan, Pcg64) {
    let problem = drawn::problem_of(seed, 2..40);
    let names = ["simple", "sweep", "random", "uniform", "auto:0.002", "heft"];
    let planner = find(names[seed as usize % names.len()]).expect("it exists");
    let plan = plan(&problem, planner.as_ref()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    (problem, plan, Pcg64::seed_from_u64(seed ^ 0x4e91))
}

fn as_planned(problem: &Problem, plan: &Plan, now_ms: f64) -> Progress {
    Progress::as_planned(problem, plan, now_ms).expect("the plan is one of the problem")
}

/// Ids of which no invocation lives.
fn lost(progress: &Progress) -> Vec<&WorkerId> {
    let is_lost = |id: &&WorkerId| {
        let mut of_id = progress.workers.iter().filter(|w| w.id == **id);
        of_id.all(|w| w.condition == WorkerCondition::Lost)
    };
    progress.workers.iter().map(|w| &w.id).filter(is_lost).collect()
}

fn is_open(progress: &Progress, task: u32) -> bool {
    match &progress.tasks[task as usize] {
        TaskProgress::Open => true,
        TaskProgress::Leased { worker, .. } => worker.as_ref().is_some_and(|w| lost(progress).contains(&w)),
        TaskProgress::Done { .. } | TaskProgress::Skipped => false,
    }
}

fn replanned(seed: u64, problem: &Problem, plan: &Plan, progress: &Progress) -> Replanned {
    replan(problem, plan, progress, &ReplanOptions::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"))
}

/// What holds of every answer.
fn check(seed: u64, problem: &Problem, old: &Plan, progress: &Progress, answer: &Replanned) {
    let new = &answer.plan;
    validate_rest(problem, new, |t| is_open(progress, t)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let lost = lost(progress);
    for (t, (new, old)) in (0..).zip(new.tasks.iter().zip(&old.tasks)) {
        let is_moved = (&new.worker, new.config) != (&old.worker, old.config);
        assert_eq!(is_moved, answer.moved.contains(&new.task), "seed {seed}, `{}`", new.task);
        if !is_open(progress, t) {
            assert!(!is_moved, "seed {seed}: `{}` has begun", new.task);
        } else if let Some(worker) = &new.worker {
            assert!(!lost.contains(&worker), "seed {seed}: `{}` is on a lost worker", new.task);
        }
        if answer.verdict == Verdict::Keep {
            assert!(!is_moved, "seed {seed}: `{}` moves in a plan that is kept", new.task);
        }
    }
    let known: Vec<&WorkerId> = old.workers.iter().map(|w| &w.id).collect();
    let taken = progress.used.iter().chain(progress.workers.iter().map(|w| &w.id));
    let taken: Vec<&WorkerId> = taken.filter(|id| !known.contains(id)).collect();
    assert!(new.workers.iter().all(|w| !taken.contains(&&w.id)), "seed {seed}: an id is used again");
    let taken_over = if answer.verdict == Verdict::Keep { answer.kept } else { answer.new };
    if answer.verdict == Verdict::Keep {
        assert_eq!(new.predicted.makespan_ms, taken_over.makespan_ms, "seed {seed}");
        assert_eq!(new.predicted.cost_usd, taken_over.cost_usd, "seed {seed}");
    }
}

/// Not worse than the plan in force, under the objective, or, once a deadline is lost, later by no more than
/// the slack.
fn check_no_worse(seed: u64, problem: &Problem, answer: &Replanned) {
    let kept = PlanSummary {
        makespan_ms: answer.kept.makespan_ms,
        cost_usd: answer.kept.cost_usd,
        ..PlanSummary::default()
    };
    let new = &answer.plan.predicted;
    let is_lost = match problem.objective {
        Objective::Deadline { makespan_ms } => new.makespan_ms > makespan_ms,
        _ => false,
    };
    if is_lost {
        let slack = 1.0 + ReplanOptions::default().lost_slack + 1e-9;
        assert!(new.makespan_ms <= slack * kept.makespan_ms, "seed {seed}: {new:?}\n{kept:?}");
        return;
    }
    let bounds = (answer.plan.bounds.makespan_ms, answer.plan.bounds.cost_usd);
    let order = compare(&problem.objective, new, &kept, bounds);
    assert!(order.is_le(), "seed {seed}, {:?}: {new:?}\n{kept:?}", problem.objective);
}

/// Predictions in which everything of some tasks takes `factor` times as long.
fn slowed(problem: &Problem, factor: f64, is_slow: impl Fn(usize) -> bool) -> Problem {
    let mut slowed = problem.clone();
    for row in &mut slowed.predictions.exec_ms {
        row.iter_mut().enumerate().filter(|(t, _)| is_slow(*t)).for_each(|(_, ms)| *ms *= factor);
    }
    slowed
}

#[test]
fn a_run_that_goes_as_planned_takes_what_was_promised_from_any_moment_on() {
    let (mut error, mut count, mut worst) = (0.0, 0.0, (0.0, 0));
    for seed in problems(PROBLEMS_PROOF).chain(TWO_INVOCATIONS) {
        let (problem, plan, mut rng) = drawn_run(seed);
        let now_ms = rng.random_range(0.0..1.0) * plan.predicted.makespan_ms;
        let progress = as_planned(&problem, &plan, now_ms);
        let options = ReplanOptions { drift_min: f64::INFINITY, ..ReplanOptions::default() };
        let answer = replan(&problem, &plan, &progress, &options).unwrap_or_else(|e| panic!("{seed}: {e}"));
        assert_eq!(answer.verdict, Verdict::Keep, "seed {seed}");
        check(seed, &problem, &plan, &progress, &answer);
        let off = (answer.kept.makespan_ms / plan.predicted.makespan_ms - 1.0).abs();
        error += off;
        count += 1.0;
        if off > worst.0 {
            worst = (off, seed);
        }
    }
    let percent = 100.0 * error / count;
    println!("mean error {percent:.2} %, worst {:.2} % of seed {}", 100.0 * worst.0, worst.1);
    assert!(percent < 2.0, "{percent} % on the average, worst {worst:?}");
}

#[test]
fn whatever_happens_the_answer_is_valid_and_no_worse_than_keeping() {
    let mut verdicts = [0, 0];
    for seed in problems(PROBLEMS_PROOF).chain(TWO_INVOCATIONS) {
        let (problem, plan, mut rng) = drawn_run(seed);
        let now_ms = rng.random_range(0.0..1.0) * plan.predicted.makespan_ms;
        let mut progress = as_planned(&problem, &plan, now_ms);
        for worker in &mut progress.workers {
            if rng.random_bool(0.2) {
                worker.condition = WorkerCondition::Lost;
                progress.spent.invocations += 1;
            }
        }
        for task in &mut progress.tasks {
            if let TaskProgress::Done { output_bytes, .. } = task {
                *output_bytes = rng.random_bool(0.3).then(|| rng.random_range(0..1_000_000));
            }
        }
        let (factor, part) = (rng.random_range(0.3..4.0), rng.random_range(0.0..1.0));
        let draws: Vec<bool> = progress.tasks.iter().map(|_| rng.random_bool(part)).collect();
        let fresh = slowed(&problem, factor, |t| draws[t]);
        let answer = replanned(seed, &fresh, &plan, &progress);
        check(seed, &fresh, &plan, &progress, &answer);
        check_no_worse(seed, &fresh, &answer);
        verdicts[usize::from(answer.verdict == Verdict::Replace)] += 1;
        assert_eq!(answer, replanned(seed, &fresh, &plan, &progress), "seed {seed}: the same twice");
    }
    println!("kept {}, replaced {}", verdicts[0], verdicts[1]);
    assert!(verdicts.iter().all(|&count| count > 0), "{verdicts:?}");
}

#[test]
fn nothing_changed_so_the_plan_is_kept() {
    let mut kept = 0;
    for seed in 0..200 {
        let problem = drawn::problem_of(seed, 2..40);
        let planner = find("auto:0.002").expect("it exists");
        let plan = plan(&problem, planner.as_ref()).expect("a drawn problem is valid");
        let mut rng = Pcg64::seed_from_u64(seed);
        let now_ms = rng.random_range(0.0..1.0) * plan.predicted.makespan_ms;
        let progress = as_planned(&problem, &plan, now_ms);
        let answer = replanned(seed, &problem, &plan, &progress);
        kept += u32::from(answer.verdict == Verdict::Keep);
    }
    println!("kept {kept} of 200");
    // A state does not tell which fetches are on their way and which flexible workers start.
    assert!(kept >= 190, "{kept} of 200");
}

/// A layered workflow of two kinds of task in two halves, planned by `planner` and half done.
fn layered(planner: &str, objective: Objective) -> (Problem, Plan, Progress) {
    let workflow: Workflow = foresail_planner::shapes::Shape::Layered(10, 10).workflow_of(2_000.0);
    let problem = graphs::problem(&workflow, objective);
    let plan = plan(&problem, find(planner).expect("it exists").as_ref()).expect("it is valid");
    let progress = as_planned(&problem, &plan, 0.5 * plan.predicted.makespan_ms);
    (problem, plan, progress)
}

#[test]
fn open_tasks_of_a_lost_worker_move_to_workers_with_new_names() {
    let (problem, plan, mut progress) = layered("uniform", Objective::Fastest);
    let has_open = |id: &WorkerId| {
        (0..).zip(&plan.tasks).any(|(t, task)| task.worker.as_ref() == Some(id) && is_open(&progress, t))
    };
    let at = progress.workers.iter().position(|w| has_open(&w.id)).expect("half of the run is left");
    progress.workers[at].condition = WorkerCondition::Lost;
    let lost = progress.workers[at].id.clone();
    progress.used = vec!["w900".parse().expect("a legal name")];
    let answer = replanned(0, &problem, &plan, &progress);
    check(0, &problem, &plan, &progress, &answer);
    assert_eq!(answer.verdict, Verdict::Replace);
    assert!(answer.reason.contains("lost worker"), "{}", answer.reason);
    for (t, task) in (0..).zip(&plan.tasks) {
        let stays = answer.plan.tasks[t as usize].worker == task.worker;
        assert!(task.worker.as_ref() != Some(&lost) || stays != is_open(&progress, t), "`{}`", task.task);
    }
}

#[test]
fn tasks_that_turn_out_twice_as_slow_are_planned_anew_or_kept_for_a_reason() {
    for objective in [Objective::Fastest, Objective::Cheapest, Objective::Balance { time_weight: 0.5 }] {
        let (problem, plan, progress) = layered("auto:0.01", objective);
        let fresh = slowed(&problem, 2.0, |t| t % 2 == 0);
        let answer = replanned(0, &fresh, &plan, &progress);
        check(0, &fresh, &plan, &progress, &answer);
        check_no_worse(0, &fresh, &answer);
        assert!(!answer.reason.contains("as its plan promised"), "{}", answer.reason);
        assert!(answer.kept.remaining_ms > 1.2 * (plan.predicted.makespan_ms - progress.now_ms));
    }
}

#[test]
fn what_a_worker_has_leased_beyond_its_lanes_is_run_one_after_the_other() {
    let tasks = (0..6).map(|at| drawn::task(&format!("t{at}"), &[])).collect();
    let mut problem = drawn::measured(drawn::workflow(tasks), drawn::local(), Objective::Fastest);
    problem.platform.lanes = 2;
    problem.predictions.exec_ms.iter_mut().for_each(|row| row.fill(10_000.0));
    let plan = plan(&problem, find("heft").expect("it exists").as_ref()).expect("it is valid");
    let (id, config) = (plan.workers[0].id.clone(), plan.workers[0].config);
    let (condition, now_ms) = (WorkerCondition::Alive, 3_000.0);
    let since_ms = |at: usize| if at < 2 { 1_000.0 } else { now_ms };
    let leased = |at| TaskProgress::Leased { worker: Some(id.clone()), since_ms: since_ms(at) };
    let progress = Progress {
        now_ms,
        tasks: (0..6).map(leased).collect(),
        workers: vec![WorkerProgress {
            id: id.clone(),
            config,
            condition,
            since_ms: 0.0,
            objects: Vec::new(),
        }],
        idle: Vec::new(),
        used: Vec::new(),
        spent: PlanSummary::default(),
    };
    let makespan_ms = replanned(0, &problem, &plan, &progress).kept.makespan_ms;
    assert!((makespan_ms - 31_000.0).abs() < 100.0, "three times two of 10 s from 1 s on: {makespan_ms}");
}

#[test]
fn a_plan_that_serialises_too_much_gives_way_to_one_that_saves_time() {
    let (problem, plan, progress) = layered("random", Objective::Fastest);
    let fresh = slowed(&problem, 2.0, |_| true);
    let answer = replanned(0, &fresh, &plan, &progress);
    check(0, &fresh, &plan, &progress, &answer);
    assert_eq!(answer.verdict, Verdict::Replace, "{}", answer.reason);
    assert!(answer.new.remaining_ms < 0.95 * answer.kept.remaining_ms);
    assert_eq!(answer.plan.predicted.makespan_ms, answer.new.makespan_ms);
    // Who asks for more than there is to gain keeps the plan.
    let options = ReplanOptions { gain_min: 0.99, ..ReplanOptions::default() };
    let kept = replan(&fresh, &plan, &progress, &options).expect("the state is one of this plan");
    assert_eq!(kept.verdict, Verdict::Keep);
    assert!(kept.moved.is_empty() && kept.reason.contains("less than 99.0 %"), "{}", kept.reason);
}

#[test]
fn a_deadline_that_is_lost_gives_way_to_the_cheapest_near_the_best_makespan() {
    let (problem, plan, progress) = layered("simple", Objective::Fastest);
    let deadline_ms = 1.05 * plan.predicted.makespan_ms;
    let mut fresh = slowed(&problem, 3.0, |_| true);
    fresh.objective = Objective::Deadline { makespan_ms: deadline_ms };
    let answer = replanned(0, &fresh, &plan, &progress);
    check(0, &fresh, &plan, &progress, &answer);
    assert!(answer.reason.contains("is lost"), "{}", answer.reason);
    let fastest = Problem { objective: Objective::Fastest, ..fresh };
    let best = replanned(0, &fastest, &plan, &progress);
    let best_ms = best.new.makespan_ms.min(best.kept.makespan_ms);
    assert!(answer.plan.predicted.makespan_ms <= 1.05 * best_ms * (1.0 + 1e-9));
    assert!(answer.new.cost_usd <= best.new.cost_usd * (1.0 + 1e-9));
}

#[test]
fn what_a_new_plan_saves_past_a_lost_deadline_is_told_of_that_deadline() {
    let (problem, plan, progress) = layered("random", Objective::Fastest);
    let deadline_ms = progress.now_ms + 1.0;
    let fresh = slowed(&problem, 2.0, |_| true);
    let fresh = Problem { objective: Objective::Deadline { makespan_ms: deadline_ms }, ..fresh };
    let answer = replanned(0, &fresh, &plan, &progress);
    check(0, &fresh, &plan, &progress, &answer);
    assert_eq!(answer.verdict, Verdict::Replace, "{}", answer.reason);
    let past = |makespan_ms: f64| makespan_ms - deadline_ms;
    let saved = 1.0 - past(answer.new.makespan_ms) / past(answer.kept.makespan_ms);
    let told = format!("saves {:.1} % of the time past the deadline", 100.0 * saved);
    assert!(answer.reason.contains("is lost") && answer.reason.contains(&told), "{told}: {}", answer.reason);
}

#[test]
fn forced_and_custom_optimisations_survive() {
    let (mut problem, mut plan, progress) = layered("random", Objective::Fastest);
    let custom = Optimization::Custom { name: drawn::name("mine"), params: serde_json::json!({"k": 1}) };
    let mut spec = foresail_schemas::workflow::WorkflowSpec {
        name: problem.workflow.name().clone(),
        description: None,
        tasks: problem.workflow.tasks().to_vec(),
        code: Default::default(),
    };
    for task in &mut spec.tasks {
        task.optimizations = vec![Optimization::PreLoad];
    }
    problem.workflow = spec.check().expect("it was one before");
    for task in &mut plan.tasks {
        task.optimizations = vec![Optimization::PreLoad, custom.clone()];
    }
    let fresh = slowed(&problem, 2.0, |_| true);
    let answer = replanned(0, &fresh, &plan, &progress);
    assert_eq!(answer.verdict, Verdict::Replace);
    check(0, &fresh, &plan, &progress, &answer);
    for task in &answer.plan.tasks {
        assert!(task.optimizations.contains(&custom), "`{}` lost what is its own", task.task);
        let is_loaded = task.optimizations.contains(&Optimization::PreLoad);
        assert_eq!(is_loaded, task.worker.is_some(), "`{}`", task.task);
    }
}

#[test]
fn a_state_that_cannot_be_is_refused_with_what_is_wrong() {
    let (problem, plan, progress) = layered("uniform", Objective::Fastest);
    let refused = |change: &dyn Fn(&mut Progress), expect: &str| {
        let mut progress = progress.clone();
        change(&mut progress);
        let error = replan(&problem, &plan, &progress, &ReplanOptions::default());
        let error = error.expect_err("it cannot be").to_string();
        assert!(error.contains(expect), "{error}");
    };
    refused(&|p| drop(p.tasks.pop()), "has 99 tasks");
    refused(&|p| p.now_ms = f64::NAN, "`NaN` for `now_ms`");
    refused(&|p| p.workers[0].objects.push(1_000_000), "holds object 1000000");
    refused(&|p| p.workers[0].config.memory_mb = 77, "none of `predictions.configs`");
    refused(&|p| p.tasks[0] = TaskProgress::Open, "has no result");
    let worker = Some(drawn::name("nobody"));
    refused(
        &|p| p.tasks[99] = TaskProgress::Leased { worker: worker.clone(), since_ms: 0.0 },
        "leased to worker `nobody`",
    );
    let wukong = foresail_planner::plan(&problem, find("wukong").expect("it exists").as_ref());
    let flexible = replan(&problem, &wukong.expect("valid"), &progress, &ReplanOptions::default());
    assert_eq!(flexible, Err(ReplanFailure::Flexible));
}
