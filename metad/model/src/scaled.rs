//! One curve over all configs of a task: log time = shape(share) + correction(share) + curve(size) +
//! interaction(share, size).
//!
//! The parts are fitted in turn to what the others leave (backfitting), so that few measurements, each on
//! another config and of another size, inform both. Source: T. Hastie and R. Tibshirani, Generalized Additive
//! Models, 1990. One more number says how much stronger the shape is at large sizes than at small ones, where
//! start-up takes a larger part of the time. Source: J. W. Tukey, "One degree of freedom for
//! non-additivity", Biometrics 5, 1949.

use foresail_schemas::Sla;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::{Deserialize, Serialize};

use crate::cells::{CELLS_MAX, SAME};
use crate::config::ConfigKey;
use crate::curve::{self, Ask, Curve, OFFSET_MS, Setup};
use crate::evidence::Evidence;
use crate::interaction::{Interaction, Rests};
use crate::local::Local;
use crate::memory::Memory;
use crate::mixture::Fitted;
use crate::shape::{Pool, Shape};
use crate::shared::Shared;
use crate::size::{Point, ln_of_size};
use crate::stats::{Weighted, sum, sums};
use crate::steps::Steps;

/// Standard deviation of log residuals of times expected before anything is seen.
pub const SPREAD_TIME: f64 = 0.1;
/// Log error of the shape at an observed share that is expected before any is seen.
const SHARE_PRIOR: f64 = 0.03;
/// Log distance to the nearest observed share at which that error is complete.
const SHARE_REACH: f64 = 0.35;
/// Weight of the belief that the shape is the same at all sizes, in units of squared shape times size.
const TILT_PRIOR: f64 = 0.5;
/// Strongest dependence of the shape on the size, per unit of log size.
const TILT_MAX: f64 = 0.3;

/// The curve over all configs at the level where the shape's factor is 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaled {
    /// The resource shape.
    pub shape: Shape,
    /// The size curve.
    pub curve: Curve,
    beside: Beside,
    /// What memory says beside the share.
    memory: Option<Memory>,
    interaction: Option<Interaction>,
    /// Change of the shape's strength per unit of log size, and where it is 0.
    tilt: f64,
    ln_size: f64,
    share_min: f64,
    share_max: f64,
    /// The largest time observed at any share, offset included; none where levels were left.
    time_max: Option<f64>,
    /// Shape's log factor at the largest and the smallest share observed.
    ln_factors: (f64, f64),
}

/// What is added to the shape along the shares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Beside {
    /// Nothing.
    Nothing,
    /// Several shares: what they show beyond the shape, and the part of the variance of its error that
    /// residuals of samples which were left out have already.
    Own(Local, f64),
    /// One share: what other tasks show.
    Others(Steps),
}

/// What a fit rests on.
pub struct Measured<'a> {
    /// Measurements of the newest levels.
    pub newest: &'a Shared,
    /// Those of former levels with their configs, where a config changed its level again and again.
    pub former: &'a [(ConfigKey, Point)],
    /// Measurements that it rests on, kept or not.
    pub samples: u64,
}

impl Scaled {
    /// Fits measurements; nothing where there are none.
    pub fn fit(measured: &Measured, evidence: &Evidence, pool: &Pool) -> Option<Self> {
        let shared = measured.newest;
        let Shared { points, grid, .. } = shared;
        if points.is_empty() {
            return None;
        }
        let shape = Shape::new(evidence, pool);
        let setup = Setup {
            spread: SPREAD_TIME,
            history: None,
            samples: measured.samples,
            same: SAME,
            cells_max: CELLS_MAX,
        };
        let (share_min, share_max) = shared.shares();
        let mut parts = Parts::new(shared, &shape);
        if share_min < share_max {
            parts.improve(evidence.noise);
        }
        let levelled = parts.levelled();
        let data = grid.cells_of_kinds(&levelled, points, shared.kinds.as_ref());
        let fitted = Fitted::new(grid, &data);
        let (mut left_out, known) = parts.without_own_share();
        let interaction = Interaction::fit(&parts.rests(&levelled, &fitted)).map(|(found, rests)| {
            left_out.iter_mut().zip(rests).for_each(|(all, rest)| *all += rest);
            found
        });
        // The quantiles come from what the parts say of each sample as if it had not been there.
        let data = if left_out.iter().all(|part| *part == 0.0) {
            data
        } else {
            let less = levelled.iter().zip(&left_out).map(|(value, part)| value - part);
            grid.cells_of_kinds(&less.collect::<Vec<f64>>(), points, shared.kinds.as_ref())
        };
        let residuals = if measured.former.is_empty() { Vec::new() } else { curve::left_out(&data, &fitted) };
        let curve = Curve::of(points, grid, &data, fitted, &setup);
        let Parts { local, tilt, ln_size, .. } = parts;
        let steps = || {
            let alone = share_min == share_max && evidence.brief_odds < 1.0;
            let factor = |share| shape.factor(share).0;
            alone.then(|| Steps::new(&pool.steps, share_min, evidence.brief_odds, factor)).flatten()
        };
        let beside = match local {
            Some(local) => Beside::Own(local, known),
            None => steps().map_or(Beside::Nothing, Beside::Others),
        };
        let ln_factors = (shape.factor(share_max).0.ln(), shape.factor(share_min).0.ln());
        // Former levels may have been higher than anything since.
        let time_max = Some(measured.former)
            .filter(|former| former.is_empty())
            .and_then(|_| shared.greatest().map(f64::exp));
        let mut scaled = Self {
            time_max,
            shape,
            curve,
            beside,
            memory: shared.memory.clone(),
            interaction,
            tilt,
            ln_size,
            share_min,
            share_max,
            ln_factors,
        };
        let former: Vec<Weighted> = measured.former.iter().map(|former| scaled.residual(former)).collect();
        scaled.curve.recall(residuals, &former, SPREAD_TIME);
        Some(scaled)
    }

    /// How far a measurement lies from the middle, as a log ratio, with its weight.
    fn residual(&self, (key, point): &(ConfigKey, Point)) -> Weighted {
        let middle = self.curve.middle(point.size).0 * self.factor_of(*key, point.size).0;
        ((point.value / middle).ln(), point.weight)
    }

    /// The factor on the curve at a config and a size, and the standard deviation of its logarithm.
    pub fn factor_of(&self, key: ConfigKey, size: f64) -> (f64, f64) {
        let (factor, sigma) = self.factor(key.share(), size);
        let (effect, error) = self.by_memory(key);
        (factor * effect, sigma.hypot(error))
    }

    fn by_memory(&self, key: ConfigKey) -> (f64, f64) {
        self.memory.as_ref().map_or((1.0, 0.0), |memory| {
            let (log, error) = memory.at(key.memory_mb());
            (log.exp(), error)
        })
    }

    /// The factor on the curve at `share` and a size where memory says nothing, and the standard deviation of
    /// its logarithm.
    fn factor(&self, share: f64, size: f64) -> (f64, f64) {
        let (factor, sigma) = self.shape.factor(share);
        let ln_share = share.ln();
        let (correction, variance) = match &self.beside {
            Beside::Nothing => (0.0, sigma * sigma),
            Beside::Others(steps) => steps.at(ln_share, sigma),
            Beside::Own(local, known) => {
                let (correction, distance) = local.at(ln_share);
                let misfit = local.misfit.hypot(sigma) * (distance / SHARE_REACH).min(1.0);
                (correction, (misfit * misfit - known).max(0.0))
            }
        };
        let (rest, unknown) =
            self.interaction.as_ref().map_or((0.0, 0.0), |i| i.at(ln_share, ln_of_size(size)));
        let nearest = size.clamp(self.curve.size_min, self.curve.size_max);
        // Beyond the observed shares the tilt stays what it was there: it is not known to go on.
        let strength = factor.ln().clamp(self.ln_factors.0, self.ln_factors.1);
        let tilt = self.tilt * (ln_of_size(nearest) - self.ln_size) * strength;
        (factor * (correction + tilt + rest).exp(), (variance + unknown).sqrt())
    }

    /// The time at `size` on a config.
    pub fn predict(&self, key: ConfigKey, size: f64, slas: &[Sla]) -> Prediction {
        let share = key.share();
        let (scale, sigma) = self.factor_of(key, size);
        let is_beyond = self.memory.as_ref().is_some_and(|memory| memory.is_beyond(key.memory_mb()));
        let extrapolated = share < self.share_min || share > self.share_max || is_beyond;
        let (unit, basis) = (Unit::Ms, Basis::MemoryNormalised);
        // A share takes at most as many times as long as it is smaller.
        let slower = (self.share_max / share).max(1.0) * self.by_memory(key).0;
        let most = self.time_max.map(|time_max| time_max * slower);
        let offset = OFFSET_MS;
        self.curve.answer(&Ask { size, scale, sigma, offset, unit, basis, extrapolated, most }, slas)
    }
}

/// What the parts say of each point.
struct Parts<'a> {
    shared: &'a Shared,
    ln_shares: Vec<f64>,
    /// ln of the shape's factor.
    shape: Vec<f64>,
    /// ln(1 + size) less its mean.
    sizes: Vec<f64>,
    correction: Vec<f64>,
    local: Option<Local>,
    tilt: f64,
    ln_size: f64,
}

impl<'a> Parts<'a> {
    fn new(shared: &'a Shared, shape: &Shape) -> Self {
        let grid = &shared.grid;
        let mut sizes: Vec<f64> = grid.of.iter().map(|cell| grid.ln_sizes[*cell as usize]).collect();
        let ln_size = sum(sizes.len(), |place| sizes[place]) / sizes.len() as f64;
        sizes.iter_mut().for_each(|u| *u -= ln_size);
        let each = |of: &dyn Fn(f64) -> f64| {
            let mut all = vec![0.0; sizes.len()];
            shared.configs().for_each(|(share, places)| all[places].fill(of(share)));
            all
        };
        let (ln_shares, shape) = (each(&f64::ln), each(&|share| shape.factor(share).0.ln()));
        let correction = vec![0.0; sizes.len()];
        Self { shared, ln_shares, shape, sizes, correction, local: None, tilt: 0.0, ln_size }
    }

    /// Log values brought to the level of factor 1.
    fn levelled(&self) -> Vec<f64> {
        self.shared.ln_values.iter().enumerate().map(|(n, value)| value - self.resources(n)).collect()
    }

    fn resources(&self, n: usize) -> f64 {
        self.shape[n] * (1.0 + self.tilt * self.sizes[n]) + self.correction[n]
    }

    /// What size and share leave.
    fn rests<'b>(&'b self, levelled: &[f64], fitted: &Fitted) -> Rests<'b> {
        let Shared { points, grid, .. } = self.shared;
        let rest = |(value, cell): (&f64, &u32)| value - fitted.at_cells[*cell as usize];
        let logs = levelled.iter().zip(&grid.of).map(rest).collect();
        Rests { logs, ln_shares: &self.ln_shares, size_of: &grid.of, ln_sizes: &grid.ln_sizes, points }
    }

    /// What the correction of each sample changes by where it stands alone on its share and is left out, and
    /// the mean variance of the error that this shows.
    fn without_own_share(&self) -> (Vec<f64>, f64) {
        let (mut changes, mut variances) = (vec![0.0; self.ln_shares.len()], 0.0);
        let Some(local) = &self.local else { return (changes, 0.0) };
        // Samples of a config stand together: only one that is its config's only one can be its share's.
        let runs: Vec<&[f64]> = self.ln_shares.chunk_by(|a, b| a == b).collect();
        let mut n = 0;
        for run in &runs {
            let alone = run.len() == 1 && runs.iter().filter(|other| other[0] == run[0]).count() == 1;
            if alone {
                let (correction, distance) = local.without(run[0]);
                changes[n] = correction - self.correction[n];
                variances += (local.misfit * (distance / SHARE_REACH).min(1.0)).powi(2);
            }
            n += run.len();
        }
        (changes, variances / self.ln_shares.len() as f64)
    }

    /// Fits the shares to what the sizes leave, and the tilt to what both leave. Sizes are fitted once more
    /// to what these leave; further rounds change nothing that a back-test sees.
    fn improve(&mut self, noise: f64) {
        let Shared { points, grid, .. } = self.shared;
        let levelled = self.levelled();
        let middles = Fitted::middles(grid, &levelled, points, noise);
        let rests: Vec<f64> =
            levelled.iter().zip(&grid.of).map(|(value, cell)| value - middles[*cell as usize]).collect();
        let mut residuals: Vec<(f64, f64, f64)> =
            (0..rests.len()).map(|n| (self.ln_shares[n], rests[n], points[n].weight)).collect();
        self.local = Local::fit(&mut residuals, SHARE_PRIOR);
        for (share, places) in self.shared.configs() {
            self.correction[places].fill(self.local.as_ref().map_or(0.0, |l| l.at(share.ln()).0));
        }
        let [across, square] = sums(rests.len(), |n| {
            let x = self.shape[n] * self.sizes[n];
            let weighted = points[n].weight * x;
            [weighted * (rests[n] - self.correction[n]).clamp(-1.0, 1.0), weighted * x]
        });
        self.tilt = (across / (square + TILT_PRIOR)).clamp(-TILT_MAX, TILT_MAX);
    }
}
