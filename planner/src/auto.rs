//! `auto`: a portfolio. Everything that `simple`, `sweep`, `heft`, `uniform` and `nonuniform` do, where the
//! size of the workflow allows it, is timed, and the best are annealed with a small effort; the best of all
//! under the objective wins. So it is never worse than `simple` under the model.

use foresail_schemas::plan::{Plan, Problem};

use crate::anneal::{self, Starts};
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::search::Search;
use crate::{heft, nonuniform, simple, sweep, uniform};

/// Effort of the annealing in seconds.
const EFFORT_S: f64 = 0.2;
/// Moves that are enough for any workflow, and per task: a small one is done before its effort is spent.
const MOVES_MIN: u32 = 400;
const MOVES_PER_TASK: u32 = 40;
/// Most tasks for which `heft` and `uniform` are tried.
const FIXED_TASKS_MAX: u32 = 20_000;
/// Most tasks for which `nonuniform` is tried.
const RESIZED_TASKS_MAX: u32 = 5_000;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Auto;

impl Planner for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        let dense = Dense::new(problem)?;
        let mut search = Search::new(&dense);
        let mut starts = Starts::default();
        // `simple` comes first: of equals the simplest wins.
        simple::offer_sizes(&mut search);
        starts.note(&search);
        sweep::offer(&mut search);
        starts.note(&search);
        if dense.len() <= FIXED_TASKS_MAX {
            heft::offer(&mut search);
            let mut found = Search::under(&dense, problem.objective, &search.floor);
            uniform::offer(&mut found);
            if dense.len() <= RESIZED_TASKS_MAX {
                let mut refined = Search::under(&dense, problem.objective, &search.floor);
                nonuniform::offer_from(&mut refined, &found);
                search.absorb(refined);
            }
            search.absorb(found);
            starts.note(&search);
        }
        let most = MOVES_MIN + MOVES_PER_TASK * dense.len();
        let passes = anneal::passes(&dense, EFFORT_S).min(most);
        anneal::improve(&mut search, &starts.assignments, passes);
        Ok(search.plan(self.name()))
    }
}
