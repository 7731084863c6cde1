//! `auto`: a portfolio. Everything that `simple`, `sweep`, `heft`, `uniform` and `nonuniform` do, where the
//! size of the workflow allows it, is timed, and the best are annealed with a small effort; the best of all
//! under the objective wins. So it is never worse than `simple` under the model.

use foresail_schemas::plan::{Plan, Problem};

use crate::anneal::{self, Starts};
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::search::Search;
use crate::steady::{self, Finalist};
use crate::{heft, nonuniform, simple, sweep, uniform};

/// Effort of the annealing of the planner by name, in seconds.
pub(crate) const EFFORT_S: f64 = 0.3;
/// Moves per task that are enough: a small workflow is done before its effort is spent.
const MOVES_PER_TASK: u32 = 300;
/// Fewer moves than this are not worth while, so large workflows are not annealed.
const MOVES_MIN: u32 = 100;
/// Most tasks for which `heft` and `uniform` are tried.
const FIXED_TASKS_MAX: u32 = 20_000;
/// Most tasks for which `nonuniform` is tried.
const RESIZED_TASKS_MAX: u32 = 5_000;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Auto {
    /// Seconds to spend on annealing.
    pub effort_s: f64,
}

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
        if dense.len() <= RESIZED_TASKS_MAX {
            let flexible = search.best().clone();
            nonuniform::offer_refined(&mut search, flexible);
            starts.note(&search);
        }
        sweep::offer(&mut search);
        starts.note(&search);
        if dense.len() <= FIXED_TASKS_MAX {
            heft::offer(&mut search);
            let mut found = Search::under(&dense, problem.objective, &search.floor);
            uniform::offer(&mut found);
            if dense.len() <= RESIZED_TASKS_MAX {
                let mut refined = Search::under(&dense, problem.objective, &search.floor);
                nonuniform::offer_from(&mut refined, &found);
                refined.refine("nonuniform");
                search.absorb(refined);
            }
            found.refine("uniform");
            search.absorb(found);
            starts.note(&search);
        }
        let passes = anneal::passes(&dense, self.effort_s);
        if passes >= MOVES_MIN {
            anneal::improve(&mut search, &starts.assignments, passes.min(MOVES_PER_TASK * dense.len()));
            starts.note(&search);
        }
        let finalists = starts.labels.into_iter().zip(starts.assignments);
        let finalists = finalists.flat_map(|(label, assignment)| {
            let loosened = assignment.loosened();
            let label_loosened = format!("{label}, flexible");
            [Finalist { label, assignment }, Finalist { label: label_loosened, assignment: loosened }]
        });
        steady::choose(&mut search, finalists.collect());
        Ok(search.plan(self.name()))
    }
}
