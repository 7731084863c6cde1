//! A fan-out whose width is not known before: what the draws say of makespan and cost is what comes of widths
//! that were not drawn for it, and `robust` keeps its word.

use foresail_schemas::Workflow;
use foresail_schemas::decision::{Decision, DecisionForecast, Wanted};
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::uncertainty::LEVELS;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::drawn::{name, task, workflow};
use crate::fresh::{
    Decided, by, certain, check_blind, check_draws, check_promise, decides, drawn, gather, uncertainty, when,
};

/// Places of the fan-out.
const PLACES: u64 = 40;

/// What comes: eight and some more, now and then many.
fn width(rng: &mut Pcg64) -> u64 {
    let unit: f64 = rng.random_range(1e-9..1.0);
    (5.0 + 3.0 * -unit.ln()).round().min(PLACES as f64) as u64
}

fn decide(rng: &mut Pcg64) -> Decided {
    [(name("split"), Decision::Width(width(rng)))].into()
}

fn fan_out() -> Workflow {
    let pages: Vec<String> = (0..PLACES).map(|at| format!("page{at}")).collect();
    let page = |(at, id): (u64, &String)| {
        let mut page = task(id, &["split".to_owned()]);
        page.name = name("page");
        when("split", Wanted::Above(at), page)
    };
    let gather = gather("split", &pages);
    let split = decides(task("split", &[]));
    let pages = (0..).zip(&pages).map(page);
    workflow(std::iter::once(split).chain(pages).chain([gather]).collect())
}

/// All is certain but the width, of which the quantiles are known.
fn problem(objective: Objective) -> Problem {
    let mut problem = certain(fan_out(), objective);
    let mut rng = Pcg64::seed_from_u64(7);
    let mut widths: Vec<u64> = (0..20_000).map(|_| width(&mut rng)).collect();
    widths.sort_unstable();
    let at = |level: f64| widths[(level * widths.len() as f64) as usize];
    uncertainty(&mut problem).widths = [(name("split"), LEVELS.map(|level| at(level) as f64))].into();
    let median = DecisionForecast { width: Some(at(0.5)), ..DecisionForecast::default() };
    problem.predictions.decisions.insert(name("split"), median);
    problem
}

#[test]
fn what_is_drawn_of_a_width_is_what_comes() {
    check_draws(&problem(Objective::Fastest), decide);
}

#[test]
fn robust_keeps_a_deadline_under_fresh_widths_that_it_misses_where_none_is_drawn() {
    let asked = |makespan_ms| problem(Objective::Confidence { makespan_ms, probability: 0.9 });
    let plain = problem(Objective::Fastest);
    let sweep = by("sweep", &plain);
    let late_ms = drawn(&plain, &sweep).makespan_ms(0.95);
    for slack in [1.0, 1.1, 1.3] {
        check_promise("widths", &asked(slack * late_ms), decide);
    }
    check_blind("widths", &asked(1.1 * sweep.predicted.makespan_ms), decide);
}
