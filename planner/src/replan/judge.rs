//! Whether a new plan takes the place of the one in force, and why.

use foresail_schemas::plan::{Objective, PlanSummary};

use crate::objective::RELATIVE_EPSILON;
use crate::replan::{ReplanOptions, Verdict};
use crate::standing::Standing;

/// What is saved where a deadline is missed.
const PAST: &str = "the time past the deadline";

/// What a way to go on takes and costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rest {
    /// From the start of the run to its end, in ms.
    pub makespan_ms: f64,
    /// The part of it that is left from now on.
    pub remaining_ms: f64,
    /// Of the whole run, in USD.
    pub cost_usd: f64,
    /// The part of it that is not spent yet.
    pub remaining_usd: f64,
}

/// What the verdict rests on.
pub(super) struct Judge {
    now_ms: f64,
    spent_usd: f64,
    options: ReplanOptions,
    promised: PlanSummary,
    /// Open tasks on lost workers.
    stranded: usize,
    /// What the plans are compared by.
    pub objective: Objective,
    /// The plan in force.
    pub kept: PlanSummary,
    /// The deadline that was given up.
    lost_ms: Option<f64>,
    /// The best other plan, where one was looked for.
    pub best: Option<PlanSummary>,
    pub verdict: Verdict,
    pub reason: String,
}

impl Judge {
    pub fn new(
        standing: &Standing,
        (objective, options): (&Objective, &ReplanOptions),
        [promised, kept]: [PlanSummary; 2],
        stranded: usize,
    ) -> Self {
        Self {
            now_ms: standing.now_ms,
            spent_usd: standing.spent_usd,
            options: *options,
            promised,
            kept,
            stranded,
            objective: *objective,
            lost_ms: None,
            best: None,
            verdict: Verdict::Keep,
            reason: String::new(),
        }
    }

    pub fn rest(&self, summary: &PlanSummary) -> Rest {
        let (makespan_ms, cost_usd) = (summary.makespan_ms, summary.cost_usd);
        let remaining_ms = (makespan_ms - self.now_ms).max(0.0);
        Rest { makespan_ms, remaining_ms, cost_usd, remaining_usd: (cost_usd - self.spent_usd).max(0.0) }
    }

    /// Whether the plan in force does what it promised, so that nothing is to be looked for.
    pub fn is_as_promised(&mut self) -> bool {
        let rest = self.rest(&self.kept);
        let is_near = |now: f64, promised: f64, left: f64| {
            (now - promised).abs() <= self.options.drift_min * left + RELATIVE_EPSILON * promised.abs()
        };
        let is_as_promised = self.stranded == 0
            && is_near(rest.makespan_ms, self.promised.makespan_ms, rest.remaining_ms)
            && is_near(rest.cost_usd, self.promised.cost_usd, rest.remaining_usd);
        if is_as_promised {
            self.reason = "the run goes as its plan promised".to_owned();
        }
        is_as_promised
    }

    /// Gives the deadline up where the best makespan that was found misses it; says whether it did.
    pub fn gives_up(&mut self, best_ms: f64) -> bool {
        if let Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. } =
            self.objective
            && best_ms > makespan_ms
        {
            self.objective = Objective::Deadline { makespan_ms: best_ms * (1.0 + self.options.lost_slack) };
            self.lost_ms = Some(makespan_ms);
        }
        self.lost_ms.is_some()
    }

    /// Whether `new` saves enough under the objective as it stands.
    pub fn pays(&self, new: &PlanSummary) -> bool {
        self.gain(&self.kept, new).0 >= self.options.gain_min
    }

    /// Whether `new` takes the place of the plan in force, and why or why not.
    pub fn takes(&mut self, new: &PlanSummary) -> bool {
        self.best = Some(*new);
        let (gain, of) = self.gain(&self.kept, new);
        let least = self.options.gain_min;
        let pays = gain > 0.0 && gain >= least;
        self.verdict = if pays || self.stranded > 0 { Verdict::Replace } else { Verdict::Keep };
        let percent = |part: f64| format!("{:.1} %", 100.0 * part);
        let gain = if gain.is_finite() { percent(gain) } else { "all".to_owned() };
        let mut reason = if pays {
            format!("a new plan saves {gain} of {of}")
        } else {
            format!("a new plan would save {gain} of {of}, less than {}", percent(least))
        };
        if self.stranded > 0 {
            let tasks = if self.stranded == 1 { "task" } else { "tasks" };
            reason = format!("{} open {tasks} were on lost workers; {reason}", self.stranded);
        }
        if let Some(lost_ms) = self.lost_ms.filter(|&lost_ms| new.makespan_ms > lost_ms) {
            reason = format!(
                "the deadline of {lost_ms:.0} ms is lost, so the cheapest plan is looked for within {} of \
                 the best makespan; {reason}",
                percent(self.options.lost_slack)
            );
        }
        self.reason = reason;
        pays
    }

    /// The part that `new` saves of what is left, and of what: infinite where it keeps a limit that the plan
    /// in force misses, negative where it is worse.
    fn gain(&self, kept: &PlanSummary, new: &PlanSummary) -> (f64, &'static str) {
        let (kept, new) = (self.rest(kept), self.rest(new));
        let saved = |kept: f64, new: f64| if kept > 0.0 { 1.0 - new / kept } else { 0.0 };
        let by_time = (saved(kept.remaining_ms, new.remaining_ms), "the time that is left");
        let by_cost = (saved(kept.remaining_usd, new.remaining_usd), "the money that is not spent");
        let by_limit = |kept: f64, new: f64, limit: f64, missed: &'static str, by_other| {
            let is_over = |value: f64| value > limit * (1.0 + RELATIVE_EPSILON);
            match (is_over(kept), is_over(new)) {
                (true, false) => (f64::INFINITY, missed),
                (false, true) => (f64::NEG_INFINITY, missed),
                (true, true) => (saved(kept - limit, new - limit), missed),
                (false, false) => by_other,
            }
        };
        match self.objective {
            Objective::Fastest => by_time,
            Objective::Cheapest => by_cost,
            Objective::Deadline { makespan_ms: limit } | Objective::Confidence { makespan_ms: limit, .. } => {
                let found = by_limit(kept.makespan_ms, new.makespan_ms, limit, PAST, by_cost);
                match self.lost_ms {
                    // `limit` is what can still be kept; what is saved is told of the time past what was
                    // asked for.
                    Some(lost_ms) if found.1 == PAST => {
                        let past = by_limit(kept.makespan_ms, new.makespan_ms, lost_ms, PAST, by_cost);
                        if past.0 > 0.0 && past.0 < by_cost.0 { by_cost } else { past }
                    }
                    _ => found,
                }
            }
            Objective::Budget { cost_usd: limit } => {
                by_limit(kept.cost_usd, new.cost_usd, limit, "the money over the budget", by_time)
            }
            Objective::Balance { time_weight } => {
                let weight = time_weight.clamp(0.0, 1.0);
                (weight * by_time.0 + (1.0 - weight) * by_cost.0, "time and money that are left, weighted")
            }
        }
    }
}
