//! `auto`: a portfolio. Everything that `simple`, `uniform` and `nonuniform` would do at every size is
//! timed, the best under the objective wins; so it is never worse than any of them under the model.

use foresail_schemas::plan::{Plan, Problem};

use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::search::Search;
use crate::{nonuniform, simple, uniform};

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
        // `simple` comes first: of equals the simplest wins.
        (0..dense.size_count()).for_each(|size| simple::offer_size(&mut search, size));
        let other = || Search::under(&dense, problem.objective, search.bounds);
        let (mut found, mut refined) = (other(), other());
        uniform::offer(&mut found);
        nonuniform::offer_from(&mut refined, &found);
        search.absorb(found);
        search.absorb(refined);
        Ok(search.plan(self.name()))
    }
}
