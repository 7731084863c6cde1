//! `auto`: a portfolio. Everything that `simple`, `sweep`, `heft`, `uniform` and `nonuniform` do, where the
//! size of the workflow allows it, is timed, large gathers are brought together (see `gather`), and the best
//! are annealed with a small effort; the best of all under the objective wins. So it is never worse than
//! `simple` under the model.
//!
//! Planning takes time too, and a run waits for it. So beyond `simple` and `sweep` the planner by name spends
//! at most a tenth of the makespan that the best plan so far is predicted to have, half of it on annealing
//! and half on the choice among the results: a run of a second is not worth a second of planning. Where the
//! shortest run is asked for, each spends at most half of what that makespan is above its bound: no plan
//! gains more than that.

use foresail_schemas::plan::{Objective, Plan, Problem};

use crate::anneal::{self, Starts};
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::search::Search;
use crate::steady::{self, Finalist};
use crate::{gather, heft, nonuniform, simple, sweep, uniform};

/// Most effort of the annealing of the planner by name, in seconds.
const EFFORT_S: f64 = 0.3;
/// Part of the predicted makespan that the effort may be.
const SHARE_OF_MAKESPAN: f64 = 0.05;
/// Part of what may be gained that the effort may be, where time is all that counts.
const SHARE_OF_GAIN: f64 = 0.5;
/// Effort in seconds that is worth while for the shortest run.
const ALWAYS_S: f64 = 0.005;
/// Effort of the draws that choose among the finalists, as a multiple of that of annealing.
const DRAWS_SHARE: f64 = 1.0;
/// Passes that `heft` and `uniform` take about as long as: 20 to 300 ms for 10,000 tasks.
const FIXED_PASSES: u32 = 50;
/// Passes that gathers and what is done beside running tasks take about as long as.
const GATHER_PASSES: u32 = 200;
/// Moves per task that are enough: a small workflow is done before its effort is spent.
const MOVES_PER_TASK: u32 = 400;
/// Fewer moves than this are not worth while, so large workflows are not annealed.
const MOVES_MIN: u32 = 100;
/// Most tasks for which `heft` and `uniform` are tried.
const FIXED_TASKS_MAX: u32 = 20_000;
/// Most tasks for which `nonuniform` is tried.
const RESIZED_TASKS_MAX: u32 = 5_000;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Auto {
    /// How much to spend.
    pub effort: Effort,
}

/// What is spent on making a plan better.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effort {
    /// So many seconds of annealing.
    Seconds(f64),
    /// What a run of the length that is predicted is worth.
    Worthwhile,
}

impl Effort {
    fn seconds(self, search: &Search) -> f64 {
        match self {
            Self::Seconds(seconds) => seconds,
            Self::Worthwhile => {
                let makespan_ms = search.best().timed.summary.makespan_ms;
                let gain_ms = match search.objective {
                    Objective::Fastest => (makespan_ms - search.bounds.0).max(0.0),
                    _ => f64::INFINITY,
                };
                let worth_ms = (SHARE_OF_MAKESPAN * makespan_ms).min(SHARE_OF_GAIN * gain_ms);
                (worth_ms / 1000.0).clamp(ALWAYS_S, EFFORT_S)
            }
        }
    }

    /// So many moves of annealing, or as many as a small workflow is worth.
    fn limited(self, passes: u32, dense: &Dense) -> u32 {
        match self {
            Self::Seconds(_) => passes,
            Self::Worthwhile => passes.min(MOVES_PER_TASK * dense.len()),
        }
    }

    /// Whether what takes so many passes is worth while too.
    fn covers(self, search: &Search, passes: u32) -> bool {
        match self {
            Self::Seconds(_) => true,
            Self::Worthwhile => anneal::passes(search.dense, self.seconds(search)) >= passes,
        }
    }
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
        let lost = search.stage(sweep::NAME, sweep::offer);
        starts.note(&search);
        if dense.len() <= FIXED_TASKS_MAX && self.effort.covers(&search, FIXED_PASSES) {
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
        if dense.len() <= FIXED_TASKS_MAX && self.effort.covers(&search, GATHER_PASSES) {
            gather::offer(&mut search);
            // Annealed are plans with workers that are started beforehand, which no move finds.
            search.refine(self.name());
            starts.note(&search);
        }
        let passes = anneal::passes(&dense, self.effort.seconds(&search));
        if passes >= MOVES_MIN {
            // The plan that lost to `sweep`, or that of `sweep`, is the last to begin with.
            let lost = lost.map(|(_, assignment)| assignment).filter(|of| !starts.assignments.contains(of));
            let begin: Vec<_> = lost.into_iter().chain(starts.assignments.iter().cloned()).collect();
            anneal::improve(&mut search, &begin, self.effort.limited(passes, &dense));
            starts.note(&search);
        }
        let finalists = starts.labels.into_iter().zip(starts.assignments);
        let finalists = finalists.flat_map(|(label, assignment)| {
            let loosened = assignment.loosened();
            let label_loosened = format!("{label}, flexible");
            [Finalist { label, assignment }, Finalist { label: label_loosened, assignment: loosened }]
        });
        let passes_max = anneal::passes(&dense, DRAWS_SHARE * self.effort.seconds(&search));
        steady::choose(&mut search, finalists.collect(), passes_max);
        Ok(search.plan(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::plan::{Objective, StartupTimes};
    use foresail_schemas::{Platform, Sla};

    use super::*;
    use crate::blind::blind_table;
    use crate::shapes::Shape;

    /// Whether annealing is among what a plan says it tried, for 4,000 tasks of so many ms and less that move
    /// nothing, on so many workers that start at once.
    fn is_annealed(effort: Effort, exec_ms: f64, workers: u32) -> bool {
        let (workflow, mut platform) = (Shape::Layered(10, 400).workflow(), Platform::built_in().remove(1));
        platform.concurrency_max = workers;
        let mut predictions = blind_table(&workflow, &platform, Sla::MEDIAN);
        for times in &mut predictions.exec_ms {
            times.iter_mut().enumerate().for_each(|(n, ms)| *ms = exec_ms / (1 + n * n % 13) as f64);
        }
        predictions.object_bytes.fill(0);
        predictions.startup.fill(StartupTimes { cold_ms: 1.0, warm_ms: 1.0 });
        let (objective, seed, without) = (Objective::Fastest, 1, Vec::new());
        let problem = Problem { workflow, platform, predictions, objective, seed, without };
        let plan = Auto { effort }.plan(&problem).unwrap();
        plan.explanation.iter().any(|line| line.starts_with("anneal:"))
    }

    #[test]
    fn a_short_run_is_not_worth_long_planning_unless_it_is_asked_for() {
        assert!(!is_annealed(Effort::Worthwhile, 0.1, 60));
        assert!(is_annealed(Effort::Worthwhile, 20_000.0, 60));
        assert!(is_annealed(Effort::Seconds(0.1), 0.1, 60));
    }

    #[test]
    fn a_plan_that_none_can_beat_is_not_searched_further() {
        assert!(!is_annealed(Effort::Worthwhile, 20_000.0, 1_000));
        assert!(is_annealed(Effort::Seconds(0.1), 20_000.0, 1_000));
    }
}
