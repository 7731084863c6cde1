//! By which factor a type of tasks takes longer in this run than was predicted, from executions that have
//! ended and from those that have not yet. Pure.
//!
//! An execution that still runs says that its time is above what has elapsed. Leaving it out would take the
//! fast ones for all: of sixteen that began together the first three to end are no fair sample. So the factor
//! is estimated by a censored likelihood: an accelerated failure time model with log-logistic errors, whose
//! survival function has a closed form. Each execution takes `factor x median x error`, and how widely errors
//! spread is what the prediction says. Two things are assumed beside it:
//!
//! - Most types do not change between runs ([`CHANGED`]); those that do follow a Laplace law in the logarithm
//!   ([`CHANGE_SCALE`]). It has no memory: a type of which all that is known is that its executions have
//!   outlived `e` times their median is expected at about 1.35 times `e`, whatever `e` is.
//! - Some executions are slow by themselves ([`OUTLIER`]), so that one that lags behind five that ended in
//!   time says little of the next.
//!
//! The answer is the geometric mean of the posterior: with no evidence 1, and it moves without jumps, so that
//! one attempt that has just passed its p95 makes its siblings suspect and does not condemn them.
//!
//! Sources: Kaplan and Meier (1958) for counting what still runs; Bennett (Applied Statistics 1983) for the
//! log-logistic model of survival times.

/// Probability that a type takes another time than predicted.
const CHANGED: f64 = 0.2;
/// Mean of the absolute logarithm of the factor where it does.
const CHANGE_SCALE: f64 = 0.3;
/// Part of the executions whose time spreads by [`OUTLIER_SPREAD`], whatever was predicted.
const OUTLIER: f64 = 0.05;
/// How widely times of outliers spread: their tail is that of [`CHANGE_SCALE`], so that neither explanation
/// drives the other out the longer an attempt runs.
const OUTLIER_SPREAD: f64 = CHANGE_SCALE;
/// Least spread that is believed: a p95 that is 16 % above the median.
const SPREAD_MIN: f64 = 0.05;
/// Logit of 0.95: how many spreads the logarithm of p95 lies above that of the median.
const P95_SPREADS: f64 = 2.944_438_979_166_44;
/// The factors that are weighed lie between this and its inverse.
const FACTOR_MAX: f64 = 16.0;
/// Factors on either side of 1.
const STEPS: i32 = 160;

/// An execution that has ended, or that runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lifetime {
    /// Logarithm of its time, or of what has elapsed of it, over the median that was predicted.
    log_ratio: f64,
    spread: f64,
}

impl Lifetime {
    /// An execution of `ms` where `median_ms` was predicted; nothing where either is no time.
    #[must_use]
    pub fn new(ms: f64, median_ms: f64, p95_ms: Option<f64>) -> Option<Self> {
        let log_ratio = (ms / median_ms).ln();
        let spread = p95_ms.map_or(0.0, |p95_ms| (p95_ms / median_ms).ln() / P95_SPREADS);
        log_ratio.is_finite().then_some(Self { log_ratio, spread: spread.max(SPREAD_MIN) })
    }

    /// Logarithm of the density of its time, up to a constant, where the factor is `e^log_factor`.
    fn log_density(&self, log_factor: f64) -> f64 {
        let density = |spread: f64| {
            let survival = survival((self.log_ratio - log_factor) / spread);
            survival * (1.0 - survival) / spread
        };
        self.mixed(density)
    }

    /// Logarithm of the probability that it takes longer.
    fn log_survival(&self, log_factor: f64) -> f64 {
        self.mixed(|spread| survival((self.log_ratio - log_factor) / spread))
    }

    fn mixed(&self, of_spread: impl Fn(f64) -> f64) -> f64 {
        let likelihood = (1.0 - OUTLIER) * of_spread(self.spread) + OUTLIER * of_spread(OUTLIER_SPREAD);
        likelihood.max(f64::MIN_POSITIVE).ln()
    }
}

/// Of a logistic variable.
fn survival(z: f64) -> f64 {
    1.0 / (1.0 + z.exp())
}

/// The factor: 1 where nothing speaks against the prediction.
#[must_use]
pub fn slowdown(ended: &[Lifetime], running: &[Lifetime]) -> f64 {
    let width = FACTOR_MAX.ln() / f64::from(STEPS);
    let prior = |log_factor: f64| {
        let changed = CHANGED * width / (2.0 * CHANGE_SCALE) * (-log_factor.abs() / CHANGE_SCALE).exp();
        if log_factor == 0.0 { changed + 1.0 - CHANGED } else { changed }
    };
    let weighed = (-STEPS..=STEPS).map(|step| {
        let log_factor = f64::from(step) * width;
        let of_ended: f64 = ended.iter().map(|l| l.log_density(log_factor)).sum();
        let of_running: f64 = running.iter().map(|l| l.log_survival(log_factor)).sum();
        (log_factor, prior(log_factor).ln() + of_ended + of_running)
    });
    let weighed: Vec<(f64, f64)> = weighed.collect();
    let most = weighed.iter().fold(f64::NEG_INFINITY, |most, (_, weight)| most.max(*weight));
    let (mut sum, mut moment) = (0.0, 0.0);
    for (log_factor, weight) in weighed {
        let weight = (weight - most).exp();
        sum += weight;
        moment += weight * log_factor;
    }
    (moment / sum).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Executions whose median is 1 s and whose p95 is 1.2 s.
    fn lives(times_ms: &[f64]) -> Vec<Lifetime> {
        times_ms.iter().filter_map(|&ms| Lifetime::new(ms, 1_000.0, Some(1_200.0))).collect()
    }

    fn of(ended_ms: &[f64], running_ms: &[f64]) -> f64 {
        slowdown(&lives(ended_ms), &lives(running_ms))
    }

    #[test]
    fn what_goes_as_predicted_leaves_the_prediction() {
        for (ended, running) in [
            (&[][..], &[][..]),
            (&[], &[100.0, 900.0]),
            (&[950.0, 1_000.0, 1_050.0, 1_100.0], &[]),
            (&[1_000.0, 1_000.0, 1_000.0], &[500.0; 8]),
        ] {
            let factor = of(ended, running);
            assert!((0.97..1.05).contains(&factor), "{ended:?} {running:?}: {factor}");
        }
    }

    #[test]
    fn one_attempt_past_its_p95_makes_its_siblings_suspect() {
        let at_p95 = of(&[], &[1_200.0]);
        assert!((1.1..1.4).contains(&at_p95), "{at_p95}");
        let mut before = 1.0;
        for elapsed_ms in [1_200.0, 1_500.0, 2_000.0, 3_000.0, 6_000.0] {
            let factor = of(&[], &[elapsed_ms]);
            assert!(factor > before, "the longer it runs the slower its type: {elapsed_ms} ms, {factor}");
            before = factor;
        }
    }

    #[test]
    fn several_past_their_p95_say_more_than_one() {
        let [one, eight] = [1, 8].map(|count| of(&[], &vec![1_300.0; count]));
        assert!(one < eight && eight > 1.3, "{one} {eight}");
    }

    #[test]
    fn one_that_lags_behind_those_that_ended_in_time_is_slow_by_itself() {
        let factor = of(&[1_000.0, 980.0, 1_050.0, 1_020.0, 990.0], &[3_000.0]);
        assert!((0.97..1.05).contains(&factor), "{factor}");
    }

    #[test]
    fn the_first_to_end_are_no_fair_sample() {
        let biased = of(&[1_000.0, 1_050.0], &[]);
        let counted = of(&[1_000.0, 1_050.0], &[1_900.0; 14]);
        assert!(biased < 1.1 && counted > 1.5, "{biased} {counted}");
    }

    #[test]
    fn many_ended_executions_say_it_all() {
        for factor in [0.5, 1.4, 3.0] {
            let found = of(&[1_000.0 * factor; 12], &[]);
            assert!((found / factor - 1.0).abs() < 0.05, "{factor}: {found}");
        }
    }

    #[test]
    fn what_is_no_time_is_no_evidence() {
        assert_eq!(Lifetime::new(0.0, 1_000.0, None), None);
        assert_eq!(Lifetime::new(1_000.0, 0.0, None), None);
        assert!(of(&[], &[1e12; 64]).is_finite());
    }
}
