//! The planners by name, and the one way to call them.

use foresail_schemas::plan::{Plan, Problem};

use crate::anneal::{Anneal, EFFORT_S, EFFORT_S_MAX};
use crate::auto::{Auto, Effort};
use crate::bounds::Floor;
use crate::dense::Dense;
use crate::error::{PlanFailure, UnknownPlanner};
use crate::expected::{self, Part};
use crate::faasflow::FaasFlow;
use crate::heft::Heft;
use crate::horizon::Horizon;
use crate::nonuniform::NonUniform;
use crate::pareto::{self, Pareto};
use crate::prewarm_all::PrewarmAll;
use crate::prewarm_horizon::PrewarmHorizon;
use crate::random::Random;
use crate::robust::Robust;
use crate::simple::Simple;
use crate::sweep::Sweep;
use crate::uniform::Uniform;
use crate::validate::validate;
use crate::wukong::Wukong;

/// A planner: a pure function from a problem to a plan. The same problem gives the same bytes.
pub trait Planner {
    /// Its name, a legal task name, unique among planners.
    fn name(&self) -> &'static str;

    /// Plans.
    ///
    /// # Errors
    /// [`PlanFailure`] when the problem is not one, or when no size of the platform suits a task.
    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure>;
}

/// All planners.
#[must_use]
pub fn planners() -> Vec<Box<dyn Planner>> {
    vec![
        Box::new(Simple),
        Box::new(Wukong::default()),
        Box::new(Uniform),
        Box::new(NonUniform),
        Box::new(Heft),
        Box::new(FaasFlow),
        Box::new(Horizon),
        Box::new(PrewarmAll),
        Box::new(PrewarmHorizon),
        Box::new(Random),
        Box::new(Sweep),
        Box::new(Anneal { effort_s: EFFORT_S }),
        Box::new(Pareto { effort_s: pareto::EFFORT_S }),
        Box::new(Robust),
        Box::new(Auto { effort: Effort::Worthwhile }),
    ]
}

/// The planner of this name. `anneal:SECONDS`, `pareto:SECONDS` and `auto:SECONDS` are those with another
/// effort; `wukong:SWITCHES@BYTES` has only these of `fan-out+fan-in+delayed-io` (or `none`), above so many
/// bytes.
///
/// # Errors
/// [`UnknownPlanner`], which lists the names that exist, or says what may stand behind the one given.
pub fn find(name: &str) -> Result<Box<dyn Planner>, UnknownPlanner> {
    let unknown = || {
        let known = planners().iter().map(|p| p.name()).collect();
        UnknownPlanner::Name { name: name.to_owned(), known }
    };
    let (base, argument) =
        name.split_once(':').map_or((name, None), |(base, argument)| (base, Some(argument)));
    let plain = planners().into_iter().find(|p| p.name() == base).ok_or_else(unknown)?;
    let Some(argument) = argument else { return Ok(plain) };
    let takes = |takes: String| UnknownPlanner::Argument {
        planner: base.to_owned(),
        argument: argument.to_owned(),
        takes,
    };
    let effort_s = || {
        let effort_s = argument.parse().ok().filter(|s: &f64| *s > 0.0 && *s <= EFFORT_S_MAX);
        effort_s.ok_or_else(|| takes(format!("seconds, more than 0 and at most {EFFORT_S_MAX}")))
    };
    match base {
        "wukong" => {
            let planner = Wukong::parse(argument).ok_or_else(|| {
                takes("`none` or some of fan-out, fan-in, delayed-io with + between, and @BYTES".to_owned())
            })?;
            Ok(Box::new(planner))
        }
        "anneal" => Ok(Box::new(Anneal { effort_s: effort_s()? })),
        "pareto" => Ok(Box::new(Pareto { effort_s: effort_s()? })),
        "auto" => Ok(Box::new(Auto { effort: Effort::Seconds(effort_s()?) })),
        _ => Err(takes("nothing".to_owned())),
    }
}

/// Plans what is expected to run, places the rest, and in debug builds validates the plan.
///
/// # Errors
/// [`PlanFailure`] when the problem is not one, or when no size of the platform suits a task.
pub fn plan(problem: &Problem, planner: &dyn Planner) -> Result<Plan, PlanFailure> {
    let plan = expected::planned(problem, |part| planner.plan(part))?;
    debug_assert!(
        validate(problem, &plan).is_ok(),
        "planner `{}` broke a rule: {:?}",
        planner.name(),
        validate(problem, &plan).err()
    );
    Ok(plan)
}

/// What no plan of what is expected to run can beat: LB_T in ms and LB_C in USD.
///
/// # Errors
/// [`PlanFailure`] when the problem is not one.
pub fn bounds(problem: &Problem) -> Result<(f64, f64), PlanFailure> {
    let part = Part::of_decisions(problem);
    let problem = part.as_ref().map_or(problem, |part| &part.problem);
    Ok(Floor::new(&Dense::new(problem)?).pair())
}

/// What no plan of this problem that ends by `deadline_ms` can beat: LB_C(D) in USD; infinite where none
/// ends by then.
///
/// # Errors
/// [`PlanFailure`] when the problem is not one.
pub fn cost_bound(problem: &Problem, deadline_ms: f64) -> Result<f64, PlanFailure> {
    let part = Part::of_decisions(problem);
    let problem = part.as_ref().map_or(problem, |part| &part.problem);
    let dense = Dense::new(problem)?;
    Ok(Floor::new(&dense).cost_by(&dense, deadline_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planner_is_found_by_its_name_and_names_are_legal() {
        for planner in planners() {
            assert_eq!(find(planner.name()).unwrap().name(), planner.name());
            assert!(foresail_schemas::TaskName::new(planner.name()).is_ok());
        }
    }

    #[test]
    fn an_unknown_planner_is_refused_with_the_names_that_exist() {
        let error = find("best").err().expect("there is no such planner").to_string();
        assert_eq!(
            error,
            "there is no planner `best`; hint: use one of simple, wukong, uniform, nonuniform, heft, \
             faasflow, horizon, prewarm-all, prewarm-horizon, random, sweep, anneal, pareto, robust, auto"
        );
        assert!(find("anneal:0.5").is_ok() && find("auto:3").is_ok());
        for (name, words) in [
            ("anneal:", "`` cannot stand behind `anneal:`; hint: `anneal` takes seconds, more than 0"),
            ("anneal:-1", "`-1` cannot stand behind `anneal:`"),
            ("anneal:nan", "takes seconds"),
            ("auto:1e9", "at most 86400"),
            ("auto:0", "more than 0"),
            ("simple:1", "`simple` takes nothing"),
            (
                "wukong:bogus",
                "`bogus` cannot stand behind `wukong:`; hint: `wukong` takes `none` or some of fan-out",
            ),
            ("best:1", "there is no planner `best:1`"),
        ] {
            let error = find(name).err().expect("it is wrong").to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    }
}
