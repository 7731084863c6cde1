//! How long a run still takes, from its plan and from how many of its tasks have ended: pure.
//!
//! The plan says when each task ends. With `n` tasks ended the run stands, on the clock of the plan, between
//! the ends of the `n`-th and of the next task: at the time that has passed where that lies between the two,
//! else at the nearer of them. What the plan has left from there is what is left of the run. So a run that is
//! late keeps its prediction of the rest, and one that is early is told so.

use foresail_schemas::plan::Plan;

/// The predicted ends of the tasks of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Eta {
    /// Ascending, in ms from the start of the run.
    ends_ms: Vec<f64>,
}

impl Eta {
    /// From a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self::of(plan.tasks.iter().map(|task| task.end_ms).collect())
    }

    fn of(mut ends_ms: Vec<f64>) -> Self {
        ends_ms.sort_by(f64::total_cmp);
        Self { ends_ms }
    }

    /// Time until the end in ms, after `elapsed_ms` with `ended` tasks that have ended.
    #[must_use]
    pub fn left_ms(&self, ended: u64, elapsed_ms: f64) -> f64 {
        let ended = usize::try_from(ended).unwrap_or(usize::MAX);
        let (Some(last), Some(next)) = (self.ends_ms.last(), self.ends_ms.get(ended)) else { return 0.0 };
        let before = ended.checked_sub(1).and_then(|at| self.ends_ms.get(at)).copied().unwrap_or(0.0);
        last - elapsed_ms.clamp(before, *next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(ended: u64, elapsed_ms: f64) -> f64 {
        Eta::of(vec![300.0, 100.0, 200.0]).left_ms(ended, elapsed_ms)
    }

    #[test]
    fn a_run_on_time_has_left_what_its_plan_has_left() {
        assert_eq!([left(0, 0.0), left(0, 50.0), left(1, 150.0), left(2, 299.0)], [300.0, 250.0, 150.0, 1.0]);
    }

    #[test]
    fn a_late_run_keeps_its_rest_and_an_early_one_gains() {
        assert_eq!(left(1, 1_000.0), 100.0);
        assert_eq!(left(2, 10.0), 100.0);
        assert_eq!([left(3, 10.0), left(9, 10.0)], [0.0, 0.0]);
    }
}
