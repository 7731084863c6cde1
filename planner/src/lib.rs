//! Plans whole workflows: which worker of which size runs each task, what that will take and cost, and why.
//!
//! Pure: a plan is a function of the [`Problem`](foresail_schemas::plan::Problem), the same problem and
//! seed give the same bytes. No I/O, no clock, no randomness but the seed. Times in ms, sizes in bytes,
//! memory in MB, money in USD.
//!
//! - [`plan`], [`planners`], [`find`], [`Planner`]: the planners.
//! - [`expected`], [`planned`]: which tasks a plan is made for, where others decide that at run time.
//! - [`pareto`]: the front of time and cost.
//! - [`Pass`], [`passes`], [`improve`]: plans made better by what is done beside running tasks.
//! - [`complete`], [`retimed`], [`alternatives`]: a plan of what somebody else decided; what else could have
//!   been decided. [`summarised`]: only what a plan takes and costs, any number of times.
//! - [`monte_carlo`]: what a plan takes and costs over drawn times, with probabilities and their intervals.
//! - [`replan`]: from a plan in force and the [`Progress`] of its run to the next plan.
//! - [`simulate`]: a plan carried out in virtual time by the state machines that will carry it out in fact;
//!   [`simulate_in`]: in surroundings that take their time, and count.
//! - [`bounds`], [`cost_bound`]: what no plan can beat. [`validate`]: what every plan keeps.
//! - [`shapes`]: workflows to compare planners on.
//! - [`blind_table`]: what is assumed before anything was measured. [`gantt`]: a plan as a picture.

#[cfg(test)]
extern crate self as foresail_planner;

mod alternatives;
mod anneal;
mod assignment;
mod auto;
mod blind;
mod bounds;
mod decisions;
mod dense;
mod draft;
mod draw;
mod error;
#[cfg(test)]
mod exhaustive;
mod expected;
mod explain;
mod extras;
mod faasflow;
mod gantt;
mod gather;
mod grouping;
mod heft;
mod horizon;
mod host;
mod link;
mod montecarlo;
mod moves;
mod nonuniform;
mod objective;
mod pareto;
mod passes;
mod planner;
mod pool;
mod prewarm_all;
mod prewarm_horizon;
mod progress;
mod random;
mod rank;
mod remaining;
mod replan;
mod robust;
mod search;
pub mod shapes;
mod simple;
mod simulate;
mod slack;
mod standing;
mod steady;
mod sweep;
mod timing;
mod tracks;
mod uniform;
mod validate;
mod wukong;

pub use alternatives::{Alternative, Alternatives, Change, alternatives};
pub use blind::blind_table;
pub use draft::{DraftFailure, Placement, complete, draft, retimed, summarised};
pub use error::{DrawFailure, PlanFailure, ReplanFailure, SimulationFailure, UnknownPlanner};
pub use expected::{LIKELY_MIN, expected, is_expected, planned};
pub use gantt::gantt;
pub use montecarlo::{DRAWS_MAX, Distribution, draws_for, monte_carlo, wilson};
pub use objective::compare;
pub use pareto::pareto;
pub use passes::{Pass, improve, passes};
pub use planner::{Planner, bounds, cost_bound, find, plan, planners};
pub use progress::{Progress, TaskProgress, WorkerCondition, WorkerProgress, flexible_id};
pub use remaining::expected_total_ms;
pub use replan::{ReplanOptions, Replanned, Rest, Verdict, replan};
pub use simulate::{Left, Served, Simulated, Surroundings, simulate, simulate_in};
pub use validate::{Violation, validate, validate_rest};
