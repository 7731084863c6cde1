//! Draws: one possible truth about every time that a plan rests on.
//!
//! A drawn time is the predicted one times a factor. The factor is the quantile, in its shape, of a standard
//! normal error; between the quantiles that a shape holds it is interpolated along the error, beyond p5 and
//! p99 it goes on as a log-normal tail does, up to [`ERROR_MAX`].
//!
//! Tasks of one name err together: error = sqrt(s) common + sqrt(1 - s) own, where s is the shared part of
//! the variance. Each time keeps its own distribution whatever s is. Where only bounds of s are known, every
//! draw takes another value between them, so that what is not known about s is in the result too. The common
//! error at two sizes is the same only in part, for a size may be taken for faster than it is: common =
//! sqrt(r) of the name + sqrt(1 - r) of the name and size, r between 0 and 1 in every draw, as nothing is
//! known of it.
//! A worker draws its start. Its transfers err together in the same way: the error is sqrt(s) of that of the
//! link and sqrt(1 - s) of the transfer's own, s between 0 and 1 in every draw, as nothing is known of it. So
//! one slow transfer makes not all of a worker's slow, and a worker far from the store may be slow in all.
//!
//! Source: the one-factor Gaussian copula (Vasicek, Risk 2002; Li, J. Fixed Income 2000).
//!
//! Execution times come from one stream in the order of the tasks, what belongs to an invocation from a
//! stream of its own. So two plans of one problem meet the same luck, which makes their difference sharper.

use std::collections::HashMap;
use std::sync::LazyLock;

use foresail_schemas::TaskName;
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::prediction::Basis;
use foresail_schemas::uncertainty::{CERTAIN, Shape, SharedError, StartupShapes, Uncertainty};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::decisions::{Decisions, are_shares};
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::link::Links;

/// Errors at the quantiles of a shape: the normal quantiles of `uncertainty::LEVELS`.
const ERRORS: [f64; 7] = [
    -1.644_853_626_951_472_7,
    -0.674_489_750_196_081_7,
    0.0,
    0.674_489_750_196_081_7,
    1.281_551_565_544_600_4,
    1.644_853_626_951_472_7,
    2.326_347_874_040_840_8,
];
/// Largest error that a tail is followed to: one draw of 30,000 lies beyond.
const ERROR_MAX: f64 = 4.0;
/// Largest probability that may be asked for: more would need more draws than anyone waits for.
pub(crate) const PROBABILITY_MAX: f64 = 0.999;

/// The shape of a time that was never measured: one standard deviation is a factor of 3 up or down.
const UNMEASURED: Shape = [0.164, 0.477, 1.0, 2.098, 4.088, 6.093, 12.88];

/// What is known of the spread of times, with [`UNMEASURED`] for tasks that nothing is known of; nothing
/// where all is taken as certain.
pub(crate) fn assumed(dense: &Dense) -> Option<Uncertainty> {
    let table = &dense.problem.predictions;
    let is_unknown = |t: usize| table.basis[t] == Basis::None;
    let mut uncertainty = match &table.uncertainty {
        Some(known) => known.clone(),
        None if (0..table.basis.len()).any(is_unknown) => Uncertainty {
            exec: vec![vec![None; table.basis.len()]; table.configs.len()],
            startup: vec![StartupShapes { cold: CERTAIN, warm: CERTAIN }; table.configs.len()],
            transfer: vec![CERTAIN; table.configs.len()],
            ..Uncertainty::default()
        },
        None => return None,
    };
    let place = uncertainty.shapes.len() as u32;
    uncertainty.shapes.push(UNMEASURED);
    for row in &mut uncertainty.exec {
        let unknown = row.iter_mut().enumerate().filter(|(t, shape)| shape.is_none() && is_unknown(*t));
        unknown.for_each(|(_, shape)| *shape = Some(place));
    }
    Some(uncertainty)
}

/// The shape of an execution time, where it is known.
pub(crate) fn exec_shape(uncertainty: &Uncertainty, size: u32, task: u32) -> Option<&Shape> {
    let place = uncertainty.exec[size as usize][task as usize];
    place.map(|place| &uncertainty.shapes[place as usize])
}

/// Checks the distributions of a problem, where it has any, and the probability that it asks for.
pub(crate) fn check(problem: &Problem) -> Result<(), PlanFailure> {
    if let Objective::Confidence { probability, .. } = problem.objective
        && !(probability > 0.0 && probability <= PROBABILITY_MAX)
    {
        return Err(PlanFailure::Probability(probability));
    }
    let table = &problem.predictions;
    let Some(uncertainty) = &table.uncertainty else { return Ok(()) };
    let (sizes, tasks) = (table.configs.len(), problem.workflow.graph().len());
    let length = |field, expected: usize, found: usize| match expected == found {
        true => Ok(()),
        false => Err(PlanFailure::Dimensions { field, expected, found }),
    };
    length("uncertainty.exec", sizes, uncertainty.exec.len())?;
    uncertainty.exec.iter().try_for_each(|row| length("uncertainty.exec[..]", tasks, row.len()))?;
    if !uncertainty.samples.is_empty() {
        length("uncertainty.samples", tasks, uncertainty.samples.len())?;
    }
    length("uncertainty.startup", sizes, uncertainty.startup.len())?;
    length("uncertainty.transfer", sizes, uncertainty.transfer.len())?;
    let wrong = |field, rule| Err(PlanFailure::Uncertainty { field, rule });
    let known = uncertainty.shapes.len();
    if uncertainty.exec.iter().flatten().flatten().any(|&place| place as usize >= known) {
        return wrong("exec", "every entry must be the place of one of `shapes`, or nothing");
    }
    let is_shape = |shape: &Shape| {
        shape.iter().all(|f| f.is_finite() && *f >= 0.0) && shape.windows(2).all(|w| w[0] <= w[1])
    };
    let rule = "quantiles must be finite, at least 0 and ascending";
    if !uncertainty.shapes.iter().all(is_shape) {
        return wrong("shapes", rule);
    }
    if !uncertainty.startup.iter().all(|s| is_shape(&s.cold) && is_shape(&s.warm)) {
        return wrong("startup", rule);
    }
    if !uncertainty.transfer.iter().all(is_shape) {
        return wrong("transfer", rule);
    }
    if !uncertainty.widths.values().all(is_shape) {
        return wrong("widths", rule);
    }
    if !uncertainty.branches.values().all(are_shares) {
        return wrong("branches", "shares must be at least 0 and sum up to at most 1 for each task");
    }
    if !uncertainty.shared.values().all(|s| 0.0 <= s.low && s.low <= s.high && s.high <= 1.0) {
        return wrong("shared", "it must hold that 0 <= low <= high <= 1");
    }
    Ok(())
}

/// What was drawn for one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draw {
    /// Execution time over the predicted one, per task.
    pub exec: Vec<f64>,
    /// Which tasks do not run, as it is decided otherwise; empty: all run.
    pub absent: Vec<bool>,
    /// Seed of what belongs to invocations.
    seed: u64,
    /// Part of the variance of transfers that those of one link of a worker share.
    alike: f64,
}

impl Draw {
    /// Start of an invocation in ms, and its links.
    pub fn invocation(&self, dense: &Dense, size: u32, is_cold: bool, id: u32) -> (f64, Links) {
        let startup_ms = dense.startup_ms(size, is_cold);
        let Some(uncertainty) = &dense.problem.predictions.uncertainty else {
            return (startup_ms, Links::default());
        };
        let mut normals = Normals::new(self.seed.wrapping_add(u64::from(id)));
        let shapes = &uncertainty.startup[size as usize];
        let startup = if is_cold { &shapes.cold } else { &shapes.warm };
        let startup_ms = startup_ms * factor(startup, normals.next());
        let of_links = [(); 2].map(|()| self.alike.sqrt() * normals.next());
        let (shape, own) = (uncertainty.transfer[size as usize], (1.0 - self.alike).sqrt());
        (startup_ms, Links::drawn(Transfers { shape, of_links, own, normals }))
    }
}

/// What is drawn for the transfers of one invocation.
#[derive(Debug)]
pub(crate) struct Transfers {
    shape: Shape,
    /// The error that all transfers of a link share.
    of_links: [f64; 2],
    /// The weight of a transfer's own.
    own: f64,
    normals: Normals,
}

impl Transfers {
    /// The factor of the next transfer on a link.
    pub fn next(&mut self, link: usize) -> f64 {
        factor(&self.shape, self.of_links[link] + self.own * self.normals.next())
    }
}

/// Makes draws; the memory is kept from one to the next.
#[derive(Debug)]
pub(crate) struct Sampler<'a> {
    dense: &'a Dense<'a>,
    uncertainty: &'a Uncertainty,
    /// Name of every task, by place in `shared`.
    named: Vec<u32>,
    shared: Vec<SharedError>,
    /// Per name and useful size, in the draw that is made: the common error, and the weight of a task's own.
    common: Vec<(f64, f64)>,
    /// Place of every size among the useful ones.
    places: Vec<u32>,
    /// What is drawn of decisions, if anything.
    decisions: Option<Decisions>,
    normals: Normals,
}

impl<'a> Sampler<'a> {
    pub fn new(dense: &'a Dense<'a>, uncertainty: &'a Uncertainty) -> Self {
        let mut places: HashMap<&TaskName, u32> = HashMap::new();
        let mut shared = Vec::new();
        let name = |task: &'a foresail_schemas::workflow::Task| {
            *places.entry(&task.name).or_insert_with(|| {
                shared.push(uncertainty.shared.get(&task.name).copied().unwrap_or(SharedError::UNKNOWN));
                shared.len() as u32 - 1
            })
        };
        let named = dense.problem.workflow.tasks().iter().map(name).collect();
        // A size that is not useful errs as the next one below that is.
        let place = |size| dense.useful.partition_point(|&useful| useful <= size).saturating_sub(1) as u32;
        let places = (0..dense.size_count()).map(place).collect();
        let (common, normals) = (Vec::new(), Normals::new(0));
        let decisions = Decisions::of(&dense.problem.workflow, uncertainty, |_| true);
        Self { dense, uncertainty, named, shared, common, places, decisions, normals }
    }

    /// The same for a plan that does not expect all tasks.
    pub fn expecting(mut self, is_expected: impl Fn(u32) -> bool) -> Self {
        self.decisions = Decisions::of(&self.dense.problem.workflow, self.uncertainty, is_expected);
        self
    }

    /// Begins anew: the same seed gives the same draws.
    pub fn seed(&mut self, seed: u64) {
        self.normals = Normals::new(seed);
    }

    /// Tasks whose time is taken as certain where they run on `sizes`.
    pub fn certain(&self, sizes: &[u32]) -> u32 {
        let is_certain = |&(t, &size): &(usize, &u32)| exec_shape(self.uncertainty, size, t as u32).is_none();
        sizes.iter().enumerate().filter(is_certain).count() as u32
    }

    /// The next draw for tasks on `sizes`.
    pub fn draw(&mut self, sizes: &[u32], draw: &mut Draw) {
        let (normals, sizes_useful) = (&mut self.normals, self.dense.useful.len());
        draw.seed = normals.rng.random();
        draw.alike = Normals::new(!draw.seed).part();
        if let Some(decisions) = &mut self.decisions {
            decisions.draw(normals, &mut draw.absent);
        }
        self.common.clear();
        for part in &self.shared {
            let shared = part.low + (part.high - part.low) * normals.rng.random::<f64>();
            let (alike, of_name) = (normals.rng.random::<f64>(), normals.next());
            self.common.extend((0..sizes_useful).map(|_| {
                let error = alike.sqrt() * of_name + (1.0 - alike).sqrt() * normals.next();
                (shared.sqrt() * error, (1.0 - shared).sqrt())
            }));
        }
        draw.exec.clear();
        draw.exec.extend((0..self.dense.len()).map(|t| {
            let size = sizes[t as usize];
            let at = self.named[t as usize] as usize * sizes_useful + self.places[size as usize] as usize;
            let (common, own) = self.common[at];
            let error = common + own * normals.next();
            exec_shape(self.uncertainty, size, t).map_or(1.0, |shape| factor(shape, error))
        }));
    }
}

/// The factor that a shape has with this probability at most.
pub(crate) fn factor_at(shape: &Shape, probability: f64) -> f64 {
    let part = (probability.clamp(0.0, 1.0) * PARTS as f64).ceil() as usize;
    factor(shape, ENDS[part])
}

/// The factor of a shape at a standard normal error.
pub(crate) fn factor(shape: &Shape, error: f64) -> f64 {
    let last = ERRORS.len() - 1;
    let tail = |at: usize, before: usize, error: f64| {
        let steps = (error - ERRORS[at]) / (ERRORS[at] - ERRORS[before]);
        let ratio = if shape[before] > 0.0 { shape[at] / shape[before] } else { 1.0 };
        shape[at] * ratio.powf(steps)
    };
    if error <= ERRORS[0] {
        return if shape[0] > 0.0 { tail(0, 1, error.max(-ERROR_MAX)) } else { 0.0 };
    }
    if error >= ERRORS[last] {
        return tail(last, last - 1, error.min(ERROR_MAX));
    }
    let above = ERRORS.iter().position(|&e| error < e).unwrap_or(last);
    let part = (error - ERRORS[above - 1]) / (ERRORS[above] - ERRORS[above - 1]);
    shape[above - 1] + part * (shape[above] - shape[above - 1])
}

/// Standard normal numbers up to [`ERROR_MAX`], two by two.
#[derive(Debug)]
pub(crate) struct Normals {
    rng: Pcg64,
    spare: Option<u32>,
}

/// Parts that the normal distribution is cut into, all equally likely. Within one of them numbers are spread
/// evenly, which differs from the distribution by less than draws tell but for one of [`PARTS`] at each end.
const PARTS: usize = 1 << 12;
/// Bits of a number that do not name its part.
const BITS_WITHIN: u32 = 32 - PARTS.ilog2();

/// The ends of the parts: the inverse of the distribution by summing up its density.
static ENDS: LazyLock<[f64; PARTS + 1]> = LazyLock::new(|| {
    const STEPS: usize = 80_000;
    let step = 2.0 * ERROR_MAX / STEPS as f64;
    let density = |at: usize| (-0.5 * (at as f64 * step - ERROR_MAX).powi(2)).exp();
    let total: f64 = (0..STEPS).map(|at| 0.5 * (density(at) + density(at + 1))).sum();
    let (mut ends, mut next, mut sum) = ([ERROR_MAX; PARTS + 1], 1, 0.0);
    ends[0] = -ERROR_MAX;
    for at in 0..STEPS {
        let more = 0.5 * (density(at) + density(at + 1)) / total;
        while next < PARTS && sum + more >= next as f64 / PARTS as f64 {
            let within = (next as f64 / PARTS as f64 - sum) / more;
            ends[next] = (at as f64 + within) * step - ERROR_MAX;
            next += 1;
        }
        sum += more;
    }
    ends
});

impl Normals {
    fn new(seed: u64) -> Self {
        Self { rng: Pcg64::seed_from_u64(seed), spare: None }
    }

    /// A number in [0, 1), all of them equally likely.
    pub(crate) fn part(&mut self) -> f64 {
        self.rng.random()
    }

    pub(crate) fn next(&mut self) -> f64 {
        let bits = self.spare.take().unwrap_or_else(|| {
            let both: u64 = self.rng.random();
            self.spare = Some((both >> 32) as u32);
            both as u32
        });
        let part = (bits >> BITS_WITHIN) as usize;
        let within = f64::from(bits & ((1 << BITS_WITHIN) - 1)) / f64::from(1_u32 << BITS_WITHIN);
        ENDS[part] + within * (ENDS[part + 1] - ENDS[part])
    }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::uncertainty::LEVELS;

    use super::*;

    const SHAPE: Shape = [0.5, 0.8, 1.0, 1.3, 1.9, 2.6, 6.0];

    #[test]
    fn drawn_factors_have_the_quantiles_of_their_shape() {
        let mut normals = Normals::new(1);
        let mut drawn: Vec<f64> = (0..200_000).map(|_| factor(&SHAPE, normals.next())).collect();
        drawn.sort_by(f64::total_cmp);
        for (level, expected) in LEVELS.iter().zip(SHAPE) {
            let found = drawn[(level * drawn.len() as f64) as usize];
            assert!((found / expected - 1.0).abs() < 0.03, "{level}: {found}, not {expected}");
        }
    }

    #[test]
    fn normal_numbers_have_the_quantiles_of_the_tables() {
        for (error, level) in ERRORS.iter().zip(LEVELS) {
            let end = ENDS[(level * PARTS as f64).round() as usize];
            assert!((end - error).abs() < 2e-3, "{level}: {end}, not {error}");
        }
        assert!(ENDS.windows(2).all(|w| w[0] < w[1]) && ENDS[PARTS] == ERROR_MAX);
    }

    #[test]
    fn a_factor_grows_with_the_error_and_stays_finite() {
        let mut before = 0.0;
        for step in -100..=100 {
            let found = factor(&SHAPE, f64::from(step) / 10.0);
            assert!(found >= before && found.is_finite(), "{step}: {found} after {before}");
            before = found;
        }
        assert_eq!(factor(&[0.0; 7], 3.0), 0.0);
        assert_eq!(factor(&[0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0], -3.0), 0.0);
    }
}
