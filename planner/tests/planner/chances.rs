//! Plans under uncertainty: what the draws say, and whether `robust` keeps its word on others.
//! `FORESAIL_PROOF=1` asks for many more plans.

use foresail_planner::shapes::Shape as Form;
use foresail_planner::{Distribution, find, monte_carlo, plan, planners};
use foresail_schemas::Plan;
use foresail_schemas::plan::{Objective, PlannedTask, Problem, StartupTimes, TransferTimes};
use foresail_schemas::prediction::Basis;
use foresail_schemas::uncertainty::{CERTAIN, Shape, SharedError, StartupShapes, Uncertainty};
use foresail_schemas::workflow::{Input, Output, WorkflowSpec};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::{drawn, graphs};

/// Plans asked for in the normal test, and under `FORESAIL_PROOF=1`.
const PLANS: u64 = 16;
const PLANS_PROOF: u64 = 400;
/// Draws that a plan is tried by: others than those it was chosen and stated by.
const FRESH: u32 = 4_000;

/// Certain about everything.
fn certain(problem: &Problem) -> Uncertainty {
    let sizes = problem.predictions.configs.len();
    Uncertainty {
        shapes: vec![CERTAIN],
        exec: vec![vec![Some(0); problem.workflow.tasks().len()]; sizes],
        startup: vec![StartupShapes { cold: CERTAIN, warm: CERTAIN }; sizes],
        transfer: vec![CERTAIN; sizes],
        ..Uncertainty::default()
    }
}

/// A shape around 1 with an upper tail, `wide` in [0, 1].
fn shape(wide: f64) -> Shape {
    [-0.25, -0.1, 0.0, 0.15, 0.4, 0.7, 2.0].map(|by| 1.0 + wide * by)
}

/// Draws an uncertainty of its own for every kind of task, and names for tasks to share it by.
fn uncertain(mut problem: Problem, seed: u64) -> Problem {
    let mut rng = Pcg64::seed_from_u64(seed);
    let mut spec: WorkflowSpec = problem.workflow.spec().clone();
    for task in &mut spec.tasks {
        task.name = drawn::name(["f", "g", "h"][rng.random_range(0..3)]);
    }
    problem.workflow = spec.check().expect("other names change no edge");
    let mut uncertainty = certain(&problem);
    uncertainty.shapes = (0..4).map(|_| shape(rng.random_range(0.05..1.0))).collect();
    uncertainty.exec.iter_mut().flatten().for_each(|place| *place = Some(rng.random_range(0..4)));
    uncertainty.startup.fill(StartupShapes { cold: shape(0.8), warm: shape(0.3) });
    uncertainty.transfer.fill(shape(rng.random_range(0.0..0.5)));
    let low = rng.random_range(0.0..0.5);
    uncertainty.shared.insert(drawn::name("f"), SharedError { low, high: rng.random_range(low..1.0) });
    problem.predictions.uncertainty = Some(uncertainty);
    problem
}

fn by(name: &str, problem: &Problem) -> Plan {
    plan(problem, find(name).expect("it exists").as_ref()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn draws(problem: &Problem, plan: &Plan, count: u32, seed: u64) -> Distribution {
    monte_carlo(problem, plan, count, seed).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn draws_of_what_is_certain_are_what_was_predicted() {
    for seed in 0..60 {
        let mut problem = drawn::problem(seed);
        problem.predictions.uncertainty = Some(certain(&problem));
        // What WUKONG's workers decide while they run is not drawn.
        for planner in planners().iter().filter(|p| p.name() != "anneal" && p.name() != "wukong") {
            let plan = plan(&problem, planner.as_ref()).unwrap_or_else(|e| panic!("{e}"));
            let drawn = draws(&problem, &plan, 3, seed);
            let expected = [plan.predicted.makespan_ms, plan.predicted.cost_usd];
            for quantile in [0.0, 0.5, 1.0] {
                let found = [drawn.makespan_ms(quantile), drawn.cost_usd(quantile)];
                assert_eq!(found, expected, "seed {seed}, {}", planner.name());
            }
        }
    }
}

/// A task that fetches or stores so many objects, a second each by prediction, whose transfers spread as a
/// log-normal of sigma 1.
fn moving(fetched: usize, stored: usize) -> Problem {
    let mut task = drawn::task("t", &[]);
    task.inputs =
        (0..fetched).map(|at| Input::External { uri: format!("file:///{at}"), bytes: None }).collect();
    task.outputs =
        (0..stored.max(1)).map(|at| Output { name: drawn::name(&format!("o{at}")), bytes: None }).collect();
    let mut problem = drawn::measured(drawn::workflow(vec![task]), drawn::local(), Objective::Fastest);
    let (bytes, ms_per_byte) = (10_000_000, 1e-4);
    let graph = problem.workflow.graph();
    let moves = graph.objects().iter().map(|o| if o.producer.is_none() || stored > 0 { bytes } else { 0 });
    let object_bytes = moves.collect();
    let table = &mut problem.predictions;
    table.object_bytes = object_bytes;
    table.exec_ms.iter_mut().for_each(|row| row.fill(1.0));
    table.startup.fill(StartupTimes { cold_ms: 0.0, warm_ms: 0.0 });
    table.transfer.fill(TransferTimes {
        download_latency_ms: 0.0,
        download_ms_per_byte: ms_per_byte,
        upload_latency_ms: 0.0,
        upload_ms_per_byte: ms_per_byte,
    });
    let mut uncertainty = certain(&problem);
    uncertainty.transfer.fill([0.193, 0.509, 1.0, 1.963, 3.602, 5.180, 10.240]);
    problem.predictions.uncertainty = Some(uncertainty);
    problem
}

#[test]
fn a_transfer_is_as_slow_as_was_measured_and_a_hundred_are_not_all_slow_together() {
    for ((fetched, stored), [least, most]) in [
        ((1, 0), [9.0, 11.5]),
        ((0, 1), [9.0, 11.5]),
        // All by one factor spread as one does, all by their own by no more than 1.3.
        ((100, 0), [3.0, 7.5]),
        ((0, 100), [3.0, 7.5]),
    ] {
        let problem = moving(fetched, stored);
        let drawn = draws(&problem, &by("simple", &problem), 6_000, 3);
        let spread = drawn.makespan_ms(0.99) / drawn.makespan_ms(0.5);
        println!("{fetched} fetched, {stored} stored: p99 is {spread:.2} times the median");
        assert!((least..most).contains(&spread), "{fetched} fetched, {stored} stored: {spread}");
    }
}

/// A plan without what is said about it.
fn decisions(plan: &Plan) -> Vec<(Option<String>, String, u32)> {
    let of = |t: &PlannedTask| (t.worker.as_ref().map(ToString::to_string), t.config.to_string(), t.rank);
    plan.tasks.iter().map(of).collect()
}

#[test]
fn auto_decides_by_times_that_are_certain_and_not_by_guesses() {
    let (mut same, mut flexible) = (0, 0);
    for seed in 0..40 {
        let mut problem = drawn::problem_of(seed, 10..40);
        if problem.predictions.basis.contains(&Basis::None) {
            continue;
        }
        let exact = by("auto:0.01", &problem);
        problem.predictions.uncertainty = Some(certain(&problem));
        assert_eq!(decisions(&exact), decisions(&by("auto:0.01", &problem)), "seed {seed}");
        problem.predictions.uncertainty = None;
        problem.predictions.basis.fill(Basis::None);
        let guessed = by("auto:0.01", &problem);
        same += u32::from(decisions(&exact) == decisions(&guessed));
        flexible += u32::from(guessed.workers.is_empty() && !exact.workers.is_empty());
    }
    assert!(flexible >= 5, "{flexible} plans became flexible, {same} stayed the same");
}

#[test]
fn what_auto_gains_over_simple_it_gains_on_fresh_draws() {
    let (mut ratios, mut losses) = (Vec::new(), 0);
    for seed in 0..30 {
        let drawn = drawn::problem_of(seed, 10..40);
        let problem = uncertain(Problem { objective: Objective::Fastest, ..drawn }, seed);
        let of = |name| draws(&problem, &by(name, &problem), 400, 1_000 + seed).mean_makespan_ms();
        let ratio: f64 = of("auto:0.02") / of("simple");
        losses += u32::from(ratio > 1.01);
        ratios.push(ratio.ln());
    }
    let mean = (ratios.iter().sum::<f64>() / ratios.len() as f64).exp();
    println!(
        "auto takes {mean:.3} times the time of simple on fresh draws, more than 1.01 in {losses} of 30"
    );
    assert!(mean < 0.99 && losses == 0, "{mean:.3}, {losses} losses");
}

#[test]
fn at_the_makespan_of_simple_auto_is_cheaper_on_fresh_draws_and_not_later() {
    let (mut time, mut cost, mut bound) = (0.0, 0.0, 0);
    let problems = 30;
    for seed in 0..problems {
        let drawn = drawn::problem_of(seed, 10..40);
        let fastest = uncertain(Problem { objective: Objective::Fastest, ..drawn }, seed);
        let simple = by("simple", &fastest);
        let objective = Objective::Deadline { makespan_ms: simple.predicted.makespan_ms };
        let problem = Problem { objective, ..fastest };
        let auto = by("auto:0.02", &problem);
        bound += u32::from(!auto.workers.is_empty());
        let [simple, auto] = [simple, auto].map(|plan| draws(&problem, &plan, 400, 1_000 + seed));
        time += (auto.mean_makespan_ms() / simple.mean_makespan_ms()).ln();
        cost += (auto.mean_cost_usd() / simple.mean_cost_usd()).ln();
    }
    let [time, cost] = [time, cost].map(|sum: f64| (sum / problems as f64).exp());
    println!("at simple's makespan auto takes {time:.3} times the time and {cost:.3} times the money; ");
    println!("{bound} of {problems} plans bind tasks to workers");
    assert!(time < 1.01 && cost < 1.0, "{time} times the time, {cost} times the money");
}

#[test]
fn the_same_seed_gives_the_same_draws_and_another_gives_others() {
    let problem = uncertain(drawn::problem_of(3, 20..40), 3);
    let plan = by("simple", &problem);
    let drawn = draws(&problem, &plan, 50, 9);
    assert_eq!(drawn, draws(&problem, &plan, 50, 9));
    assert_ne!(drawn.makespan_ms(0.5), draws(&problem, &plan, 50, 10).makespan_ms(0.5));
    let outlook = drawn.outlook(&problem.objective);
    let text = serde_json::to_string(&outlook).expect("an outlook is JSON");
    assert_eq!(outlook, serde_json::from_str(&text).expect("what was written can be read"));
}

/// A hundred tasks at once, each of 1 s, on workers of their own.
fn fan(shared: SharedError) -> Problem {
    let tasks = (0..100).map(|t| drawn::task(&format!("t{t}"), &[])).collect();
    let mut problem = drawn::measured(drawn::workflow(tasks), drawn::lambda(), Objective::Fastest);
    problem.predictions.exec_ms.iter_mut().flatten().for_each(|ms| *ms = 1_000.0);
    let mut uncertainty = certain(&problem);
    uncertainty.shapes = vec![shape(0.5)];
    uncertainty.shared.insert(drawn::name("f"), shared);
    problem.predictions.uncertainty = Some(uncertainty);
    problem
}

#[test]
fn tasks_that_err_on_their_own_miss_together_more_often_but_their_cost_varies_less() {
    let of = |part: f64| {
        let problem = fan(SharedError { low: part, high: part });
        draws(&problem, &by("simple", &problem), 2_000, 1)
    };
    let (own, all) = (of(0.0), of(1.0));
    // The longest of a hundred that err apart is nearly always late; of those that err as one, half are.
    assert!(own.makespan_ms(0.1) > all.makespan_ms(0.6), "{own:?}");
    let spread = |d: &Distribution| d.cost_usd(0.95) / d.cost_usd(0.05);
    assert!(spread(&all) > 1.2 && spread(&own) < 1.1, "{} {}", spread(&all), spread(&own));
    // A worker of one task: start 600 ms, then 1,000 ms times the factor; the p90 of the shape is 1.2.
    let start_ms = all.makespan_ms(0.5) - 1_000.0;
    assert!((all.makespan_ms(0.9) - start_ms - 1_200.0).abs() < 25.0, "{}", all.makespan_ms(0.9) - start_ms);
}

#[test]
fn a_task_that_may_outlive_its_worker_is_refused_with_its_p99() {
    let mut problem = fan(SharedError::UNKNOWN);
    problem.predictions.exec_ms.iter_mut().for_each(|row| row[7] = 500_000.0);
    let error = plan(&problem, find("simple").expect("it exists").as_ref()).expect_err("p99 is 1,000 s");
    let text = error.to_string();
    assert!(text.contains("`t7`") && text.contains("1000000 ms") && text.contains("hint"), "{text}");
    problem.predictions.uncertainty = Some(certain(&problem));
    assert!(
        plan(&problem, find("simple").expect("it exists").as_ref()).is_ok(),
        "500 s fit if they are certain"
    );
}

#[test]
fn distributions_that_break_a_rule_are_refused() {
    let broken: [fn(&mut Uncertainty); 6] = [
        |u| u.exec[0][0] = Some(1),
        |u| drop(u.exec.pop()),
        |u| u.shapes[0][3] = 0.5,
        |u| u.transfer[0][6] = f64::NAN,
        |u| u.startup.clear(),
        |u| u.shared.extend([(drawn::name("f"), SharedError { low: 0.6, high: 0.5 })]),
    ];
    for (at, change) in broken.iter().enumerate() {
        let mut problem = drawn::problem(1);
        let mut uncertainty = certain(&problem);
        change(&mut uncertainty);
        problem.predictions.uncertainty = Some(uncertainty);
        let error = plan(&problem, find("simple").expect("it exists").as_ref()).expect_err("it is broken");
        assert!(error.to_string().contains("uncertainty"), "{at}: {error}");
    }
    let mut problem = drawn::problem(1);
    assert!(monte_carlo(&problem, &by("simple", &problem), 1, 1).is_err(), "there are no distributions");
    problem.objective = Objective::Confidence { makespan_ms: 1.0, probability: 1.0 };
    assert!(plan(&problem, find("robust").expect("it exists").as_ref()).is_err(), "nothing is certain");
}

/// A problem that asks for a deadline between what is too tight for any plan and what every plan keeps.
fn asked(seed: u64) -> Problem {
    let mut rng = Pcg64::seed_from_u64(seed);
    let problem = match rng.random_range(0..3) {
        0 => drawn::problem_of(seed, 1..40),
        1 => drawn::problem_of(seed, 40..120),
        _ => {
            let shapes = [
                Form::Tree(64).workflow_of(400.0),
                Form::Gemm(4).workflow_of(800.0),
                Form::Svd(16).workflow_of(1_500.0),
                Form::Tsqr(32).workflow_of(300.0),
                Form::ForkJoin(3, 20).workflow_of(2_000.0),
                Form::Layered(6, 16).workflow_of(1_000.0),
            ];
            graphs::problem(&shapes[rng.random_range(0..shapes.len())], Objective::Fastest)
        }
    };
    let mut problem = uncertain(problem, seed);
    problem.objective = Objective::Fastest;
    let fastest = draws(&problem, &by("sweep", &problem), 200, seed);
    let makespan_ms = fastest.makespan_ms(0.95) * rng.random_range(0.9..2.0);
    problem.objective = Objective::Confidence { makespan_ms, probability: 0.95 };
    problem
}

#[test]
fn plans_of_robust_keep_their_word_on_fresh_draws() {
    let is_proof = std::env::var("FORESAIL_PROOF").is_ok_and(|v| v == "1");
    let (mut kept, mut promised, mut refused, mut covered, mut feasible) = (0, 0, 0, 0, 0);
    let (mut sum, mut least, mut dearer, mut naive) = (0.0, 1.0_f64, 1.0_f64, 0);
    for seed in 0..if is_proof { PLANS_PROOF } else { PLANS } {
        let problem = asked(seed);
        let Objective::Confidence { makespan_ms, .. } = problem.objective else { unreachable!() };
        let plan = by("robust", &problem);
        let outlook = plan.outlook.as_deref().expect("robust looks");
        let fresh = draws(&problem, &plan, FRESH, 1_000_003 * (seed + 1));
        let truth = fresh.in_time(makespan_ms);
        let said = outlook.in_time.expect("a deadline was asked for");
        covered += u64::from(said.low <= truth.high && truth.low <= said.high);
        if outlook.keeps() != Some(true) {
            refused += 1;
            let ms = outlook.feasible_ms.expect("there are enough draws");
            assert!(
                ms > makespan_ms && plan.explanation.iter().any(|s| s.contains("is feasible")),
                "seed {seed}"
            );
            feasible += u64::from(fresh.in_time(ms).measured >= 0.95);
            continue;
        }
        promised += 1;
        kept += u64::from(truth.measured >= 0.95);
        sum += truth.measured;
        least = least.min(truth.measured);
        let by_predictions = by("sweep", &problem);
        let sweep = draws(&problem, &by_predictions, 400, seed);
        naive += u64::from(sweep.in_time(makespan_ms).measured >= 0.95);
        dearer *= fresh.mean_cost_usd() / sweep.mean_cost_usd();
    }
    println!(
        "{promised} plans promised 95 %, {kept} keep it on {FRESH} fresh draws (mean P {:.4}, least \
         {least:.4}); {refused} infeasible, of their deadlines {feasible} hold; the interval holds for \
         {covered} of all; cost over `sweep`, of which {naive} keep 95 %: {:.3} (geometric mean)",
        sum / promised as f64,
        dearer.powf(1.0 / promised as f64),
    );
    assert!(promised >= (promised + refused) / 2, "most deadlines are feasible: {promised}, {refused}");
    assert!(100 * kept >= 95 * promised, "{kept} of {promised}");
    assert!(10 * feasible >= 9 * refused, "{feasible} of {refused}");
}
