//! Branches of which the shares alone are known before: what the draws say of makespan and cost is what comes
//! of branches that were not drawn for it, and `robust` keeps its word.

use std::collections::BTreeMap;

use foresail_schemas::Workflow;
use foresail_schemas::decision::{Decision, DecisionForecast, Wanted};
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::workflow::Task;
use rand::RngExt;
use rand_pcg::Pcg64;

use crate::drawn::{name, task, workflow};
use crate::fresh::{
    Decided, by, certain, check_blind, check_draws, check_promise, decides, drawn, gather, uncertainty, when,
};

/// What `look` decides, how likely, and how many tasks follow. What is left to 1 is nothing at all.
const LOOK: [(&str, f64, usize); 5] =
    [("plain", 0.4, 1), ("usual", 0.26, 6), ("large", 0.15, 12), ("huge", 0.1, 18), ("vast", 0.06, 25)];
/// What the task after `usual` decides: whether four more follow.
const CHECK: [(&str, f64); 2] = [("true", 0.3), ("false", 0.7)];

/// One decision by shares.
fn one_of<'a>(rng: &mut Pcg64, shares: impl IntoIterator<Item = (&'a str, f64)>) -> Decision {
    let mut left: f64 = rng.random();
    let mut shares = shares.into_iter();
    let text = shares.find(|(_, share)| {
        left -= share;
        left < 0.0
    });
    Decision::Branch(text.map_or("nothing", |(text, _)| text).to_owned())
}

fn decide(rng: &mut Pcg64) -> Decided {
    let look = LOOK.map(|(text, share, _)| (text, share));
    [(name("look"), one_of(rng, look)), (name("check"), one_of(rng, CHECK))].into()
}

/// `look` decides for one of several fan-outs, and in one of them `check` for some tasks more.
fn branched() -> Workflow {
    let is = |decider: &str, text: &str, task: Task| when(decider, Wanted::Is(text.to_owned()), task);
    let mut tasks = vec![decides(task("look", &[]))];
    for (text, _, follow) in LOOK {
        tasks.extend(
            (0..follow).map(|at| is("look", text, task(&format!("{text}{at}"), &["look".to_owned()]))),
        );
    }
    tasks.push(decides(task("check", &["usual0".to_owned()])));
    tasks.extend((0..4).map(|at| is("check", "true", task(&format!("more{at}"), &["check".to_owned()]))));
    let others: Vec<String> = tasks[1..].iter().map(|task| task.id.to_string()).collect();
    tasks.push(gather("look", &others));
    workflow(tasks)
}

/// Tells with which shares a task decides.
fn know(problem: &mut Problem, decider: &str, shares: &[(&str, f64)]) {
    let branches: BTreeMap<String, f64> =
        shares.iter().map(|(text, share)| ((*text).to_owned(), *share)).collect();
    uncertainty(problem).branches.insert(name(decider), branches.clone());
    problem.predictions.decisions.insert(name(decider), DecisionForecast { width: None, branches });
}

/// All is certain but the branches, of which the shares are known.
fn problem(objective: Objective) -> Problem {
    let mut problem = certain(branched(), objective);
    know(&mut problem, "look", &LOOK.map(|(text, share, _)| (text, share)));
    know(&mut problem, "check", &CHECK);
    problem
}

#[test]
fn what_is_drawn_of_branches_is_what_comes() {
    check_draws(&problem(Objective::Fastest), decide);
}

#[test]
fn robust_keeps_a_deadline_under_fresh_branches_that_it_misses_where_none_is_drawn() {
    let asked = |makespan_ms| problem(Objective::Confidence { makespan_ms, probability: 0.9 });
    // Made for all that may come, as a probability is asked for.
    let all = asked(1.0);
    let late_ms = drawn(&all, &by("sweep", &all)).makespan_ms(0.9);
    for slack in [1.0, 1.2, 1.5] {
        check_promise("branches", &asked(slack * late_ms), decide);
    }
    let expected_ms = by("sweep", &problem(Objective::Fastest)).predicted.makespan_ms;
    check_blind("branches", &asked(1.1 * expected_ms), decide);
}

#[test]
fn a_branch_that_comes_more_seldom_than_may_be_late_costs_nobody_the_plan_for_the_others() {
    const RARE: [(&str, f64); 3] = [("plain", 0.5), ("usual", 0.48), ("vast", 0.02)];
    let rare = |objective| {
        let mut problem = problem(objective);
        know(&mut problem, "look", &RARE);
        problem
    };
    let decide = |rng: &mut Pcg64| -> Decided {
        [(name("look"), one_of(rng, RARE)), (name("check"), one_of(rng, CHECK))].into()
    };
    let plain = rare(Objective::Fastest);
    let late_ms = drawn(&plain, &by("sweep", &plain)).makespan_ms(0.95);
    // What follows then, 25 tasks of two seconds on four workers, takes longer than that.
    let asked = rare(Objective::Confidence { makespan_ms: 1.15 * late_ms, probability: 0.95 });
    check_promise("a rare branch", &asked, decide);
}
