//! The protocol model-checked with the real machines: every order of every message of tiny runs, with a
//! bounded number of faults, and what must hold in every state that can be reached.
//!
//! Faults: a crash of a worker, a request, an answer or an invocation that is lost, a request or an
//! invocation that arrives twice, a lost hint, everything under way later than a lease lasts (a false expiry
//! and a zombie), a replaced plan; attempts of one task that decide differently. Invariants: a task has one
//! result; an attempt begins with results or with what its worker made itself; what becomes a result was made
//! of results and was not discarded; no task has two live leases; tasks run or are skipped as the result that
//! stands decides; from every state the run completes and everybody leaves once no more faults come.
//! `FORESAIL_PROOF=1` explores two faults on the flexible chain. A ledger with a mistake is found.

mod model;

use foresail_schemas::Workflow;
use foresail_schemas::decision::Decision;
use foresail_schemas::optimization::FlexibleRules;
use model::{Faults, Mutant, Scenario, branch, explore, fan_out, plan, workflow};

const W0: Option<usize> = Some(0);
const W1: Option<usize> = Some(1);
const FLEXIBLE: Option<usize> = None;

fn scenario(
    name: &'static str,
    workflow: Workflow,
    places: [&[Option<usize>]; 2],
    faults: Faults,
) -> Scenario {
    let plans = places.map(|places| plan(&workflow, places, None));
    Scenario { name, workflow, plans, faults, decisions: none_or_one(), mutant: None }
}

fn none_or_one() -> [Decision; 2] {
    [Decision::Width(0), Decision::Width(1)]
}

fn left_or_right() -> [Decision; 2] {
    ["left", "right"].map(|text| Decision::Branch(text.to_owned()))
}

fn chain_of_two() -> Workflow {
    workflow(&[&[], &[0]])
}

fn join_of_two() -> Workflow {
    workflow(&[&[], &[], &[0, 1]])
}

/// One, two that read it, one that reads both.
fn diamond() -> Workflow {
    workflow(&[&[], &[0], &[0], &[1, 2]])
}

fn is_proof() -> bool {
    std::env::var("FORESAIL_PROOF").is_ok_and(|v| v == "1")
}

/// `scaled` faults in the normal test, `full` under `FORESAIL_PROOF=1`.
fn faults(scaled: u8, full: u8) -> Faults {
    Faults::each_once(if is_proof() { full } else { scaled })
}

fn check(scenario: &Scenario) {
    let began = std::time::Instant::now();
    match explore(scenario) {
        Ok(explored) => eprintln!(
            "{}: {} states, {} steps, {} ends, depth {}, {:.1} s",
            scenario.name,
            explored.states,
            explored.steps,
            explored.ends,
            explored.depth,
            began.elapsed().as_secs_f64()
        ),
        Err(refuted) => panic!("{}: {}\n{}", scenario.name, refuted.broken, refuted.trace),
    }
}

#[test]
fn a_chain_on_one_worker_keeps_every_invariant() {
    check(&scenario("chain on one worker", chain_of_two(), [&[W0, W0], &[W1, W1]], faults(1, 1)));
}

#[test]
fn a_chain_across_two_workers_keeps_every_invariant() {
    check(&scenario("chain across two workers", chain_of_two(), [&[W0, W1], &[W1, W0]], faults(1, 1)));
}

#[test]
fn a_chain_of_flexible_tasks_keeps_every_invariant() {
    let places: &[_] = &[FLEXIBLE, FLEXIBLE];
    check(&scenario("flexible chain", chain_of_two(), [places, places], faults(1, 2)));
}

#[test]
fn a_chain_of_three_survives_a_request_that_arrives_late_or_twice() {
    let faults = Faults { total: 1, late: 1, double: u8::from(is_proof()), ..Faults::default() };
    let chain = workflow(&[&[], &[0], &[1]]);
    check(&scenario("chain of three", chain, [&[W0, W0, W0], &[W0, W1, W0]], faults));
}

#[test]
fn a_fan_in_across_two_workers_keeps_every_invariant() {
    check(&scenario("fan-in", join_of_two(), [&[W0, W1, W0], &[W1, W1, W0]], faults(0, 0)));
}

#[test]
fn a_fork_and_join_across_two_workers_keeps_every_invariant() {
    let places: [&[_]; 2] = [&[W0, W0, W1, W0], &[W0, W1, W1, W1]];
    check(&scenario("fork and join", diamond(), places, faults(0, 0)));
}

#[test]
fn a_fork_and_join_of_flexible_tasks_keeps_every_invariant() {
    let places: &[_] = &[FLEXIBLE; 4];
    check(&scenario("flexible fork and join", diamond(), [places, places], faults(0, 0)));
}

/// Outputs stay in the memory of the worker, and children run on them before they are results.
fn held() -> FlexibleRules {
    FlexibleRules { cluster_fan_out: true, cluster_fan_in: true, delayed_io: true, large_output_bytes: 10 }
}

#[test]
fn a_fork_and_join_on_held_outputs_keeps_every_invariant() {
    let workflow = diamond();
    let plan = plan(&workflow, &[FLEXIBLE; 4], Some(held()));
    let plans = [plan.clone(), plan];
    let faults = faults(1, 1);
    let decisions = none_or_one();
    check(&Scenario { name: "held outputs", workflow, plans, faults, decisions, mutant: None });
}

#[test]
fn a_fan_out_on_one_worker_runs_what_the_result_that_stands_decides() {
    let places: [&[_]; 2] = [&[W0; 4], &[W1; 4]];
    // What comes too late is the next test.
    let faults = Faults { late: u8::from(is_proof()), ..faults(1, 1) };
    check(&scenario("fan-out on one worker", fan_out(), places, faults));
}

/// A worker that is thought to be lost decides for nothing and goes on; its successor decides for one.
fn decided_twice() -> Scenario {
    let places: [&[_]; 2] = [&[W0; 4], &[W0; 4]];
    let faults = Faults { total: 1, late: 1, ..Faults::default() };
    let mut scenario = scenario("fan-out decided twice", fan_out(), places, faults);
    scenario.decisions.reverse();
    scenario
}

#[test]
fn what_ran_ahead_without_a_task_does_not_stand_where_another_result_calls_for_it() {
    check(&decided_twice());
}

#[test]
fn a_fan_out_across_two_workers_runs_what_is_decided() {
    let places: [&[_]; 2] = [&[W0, W0, W1, W0], &[W0, W1, W1, W1]];
    check(&scenario("fan-out across two workers", fan_out(), places, faults(0, 0)));
}

#[test]
fn a_branch_of_flexible_tasks_takes_one_way() {
    let places: &[_] = &[FLEXIBLE; 4];
    let scenario = scenario("flexible branch", branch(), [places, places], faults(1, 1));
    check(&Scenario { decisions: left_or_right(), ..scenario });
}

#[test]
fn a_branch_beside_held_outputs_takes_one_way() {
    let workflow = branch();
    let plan = plan(&workflow, &[FLEXIBLE; 4], Some(held()));
    let (plans, decisions) = ([plan.clone(), plan], left_or_right());
    check(&Scenario { name: "held branch", workflow, plans, faults: faults(1, 1), decisions, mutant: None });
}

/// The ledger with this mistake breaks what `says` says, in a run with these faults.
fn check_mutant(mutant: Mutant, says: &str, workflow: Workflow, places: &[Option<usize>], faults: Faults) {
    let scenario =
        Scenario { mutant: Some(mutant), ..scenario("mutant", workflow, [places, places], faults) };
    match explore(&scenario) {
        Ok(explored) => panic!("{mutant:?} is not found in {} states", explored.states),
        Err(refuted) => {
            assert!(refuted.broken.contains(says), "{mutant:?}: {}\n{}", refuted.broken, refuted.trace);
            assert!(!refuted.trace.is_empty(), "{mutant:?} is found on some way");
        }
    }
}

#[test]
fn a_ledger_that_grants_a_task_twice_is_found() {
    let faults = Faults { total: 1, double: 1, ..Faults::default() };
    check_mutant(Mutant::GrantsTwice, "two live leases", chain_of_two(), &[FLEXIBLE; 2], faults);
}

#[test]
fn a_ledger_that_counts_marks_is_found_by_one_repeated_request() {
    let faults = Faults { total: 1, double: 1, ..Faults::default() };
    let says = "before task";
    check_mutant(Mutant::CountsMarks, says, join_of_two(), &[FLEXIBLE; 3], faults);
}

#[test]
fn a_ledger_that_forgets_marks_is_found_without_a_fault() {
    check_mutant(Mutant::ForgetsMarks, "not over", join_of_two(), &[W0, W1, W0], Faults::default());
}

#[test]
fn a_ledger_that_takes_the_last_commit_is_found() {
    let faults = Faults { total: 1, late: 1, ..Faults::default() };
    check_mutant(Mutant::TakesTheLast, "two results", chain_of_two(), &[W0, W0], faults);
}

#[test]
fn a_ledger_that_trusts_what_ran_ahead_of_a_decision_is_found() {
    let scenario = Scenario { mutant: Some(Mutant::TrustsWhatRanAhead), ..decided_twice() };
    let refuted = explore(&scenario).expect_err("the last task read nothing, and the first part ran");
    assert!(refuted.broken.contains("task 3") && refuted.broken.contains("made of"), "{}", refuted.broken);
}

#[test]
fn a_ledger_that_trusts_what_ran_ahead_is_found() {
    let faults = Faults { total: 1, late: 1, ..Faults::default() };
    check_mutant(Mutant::TrustsWhatRanAhead, "made of", chain_of_two(), &[W0, W0], faults);
}
