//! The protocol model-checked with the real machines: every order of every message of tiny runs, with a
//! bounded number of faults, and what must hold in every state that can be reached.
//!
//! Faults: a crash of a worker, a request, an answer or an invocation that is lost, a request or an
//! invocation that arrives twice, a lost hint, everything under way later than a lease lasts (a false expiry
//! and a zombie), a replaced plan. Invariants: a task has one result; an attempt begins with results or with
//! what its worker made itself; what becomes a result was made of results and was not discarded; no task has
//! two live leases; from every state the run completes and everybody leaves once no more faults come.
//! `FORESAIL_PROOF=1` explores larger scenarios with more faults. A ledger with a mistake is found.

mod model;

use foresail_schemas::Workflow;
use foresail_schemas::optimization::FlexibleRules;
use model::{Faults, Mutant, Scenario, explore, plan, workflow};

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
    Scenario { name, workflow, plans, faults, mutant: None }
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
    check(&scenario("chain on one worker", chain_of_two(), [&[W0, W0], &[W1, W1]], faults(2, 3)));
}

#[test]
fn a_chain_across_two_workers_keeps_every_invariant() {
    check(&scenario("chain across two workers", chain_of_two(), [&[W0, W1], &[W1, W0]], faults(1, 2)));
}

#[test]
fn a_chain_of_flexible_tasks_keeps_every_invariant() {
    let places: &[_] = &[FLEXIBLE, FLEXIBLE];
    check(&scenario("flexible chain", chain_of_two(), [places, places], faults(2, 3)));
}
