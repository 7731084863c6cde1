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

use crate::cells::{Grid, SAME};
use crate::curve::{self, Ask, Curve, OFFSET_MS, Setup};
use crate::interaction::{Interaction, Rests};
use crate::local::Local;
use crate::mixture::Fitted;
use crate::shape::{Evidence, Pool, Shape};
use crate::size::Point;
use crate::stats::Weighted;
use crate::steps::Steps;

/// Standard deviation of log residuals of times expected before anything is seen.
pub const SPREAD_TIME: f64 = 0.1;
/// Times that each part is fitted to what the others leave.
const ROUNDS: usize = 3;
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
    interaction: Option<Interaction>,
    /// Change of the shape's strength per unit of log size, and where it is 0.
    tilt: f64,
    ln_size: f64,
    share_min: f64,
    share_max: f64,
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
    /// Measurements of the newest levels, given with their shares; those of a config stand together.
    pub newest: &'a [(f64, Point)],
    /// Those of former levels, where a config changed its level again and again.
    pub former: &'a [(f64, Point)],
    /// Measurements that it rests on, kept or not.
    pub samples: u64,
}

impl Scaled {
    /// Fits measurements; nothing where there are none.
    pub fn fit(measured: &Measured, evidence: &Evidence, pool: &Pool) -> Option<Self> {
        let shared = measured.newest;
        if shared.is_empty() {
            return None;
        }
        let shape = Shape::new(evidence, pool);
        let points: Vec<Point> = shared.iter().map(|s| s.1).collect();
        let setup = Setup { spread: SPREAD_TIME, history: None, samples: measured.samples, same: SAME };
        let (share_min, share_max) =
            shared.iter().fold((f64::MAX, 0.0_f64), |(lo, hi), (share, _)| (lo.min(*share), hi.max(*share)));
        let grid = Grid::new(&points);
        let mut parts = Parts::new(shared, &shape, &grid);
        if share_min < share_max {
            for _ in 1..ROUNDS {
                parts.improve(&points, &grid);
            }
        }
        let levelled = parts.levelled();
        let data = grid.cells(&levelled, &points);
        let fitted = Fitted::new(&grid, &data);
        let (mut left_out, known) = parts.without_own_share();
        let interaction = Interaction::fit(&parts.rests(&levelled, &fitted, &grid)).map(|(found, rests)| {
            left_out.iter_mut().zip(rests).for_each(|(all, rest)| *all += rest);
            found
        });
        // The quantiles come from what the parts say of each sample as if it had not been there.
        let data = if left_out.iter().all(|part| *part == 0.0) {
            data
        } else {
            let less = levelled.iter().zip(&left_out).map(|(value, part)| value - part);
            grid.cells(&less.collect::<Vec<f64>>(), &points)
        };
        let residuals = if measured.former.is_empty() { Vec::new() } else { curve::left_out(&data, &fitted) };
        let curve = Curve::of(&points, &grid, &data, fitted, &setup);
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
        let mut scaled =
            Self { shape, curve, beside, interaction, tilt, ln_size, share_min, share_max, ln_factors };
        let former: Vec<Weighted> = measured.former.iter().map(|former| scaled.residual(former)).collect();
        scaled.curve.recall(residuals, &former, SPREAD_TIME);
        Some(scaled)
    }

    /// How far a measurement lies from the middle, as a log ratio, with its weight.
    fn residual(&self, (share, point): &(f64, Point)) -> Weighted {
        let middle = self.curve.middle(point.size).0 * self.factor(*share, point.size).0;
        ((point.value / middle).ln(), point.weight)
    }

    /// The factor on the curve at `share` and a size, and the standard deviation of its logarithm.
    pub fn factor(&self, share: f64, size: f64) -> (f64, f64) {
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
        let (rest, unknown) = self.interaction.as_ref().map_or((0.0, 0.0), |i| i.at(ln_share, size.ln_1p()));
        let nearest = size.clamp(self.curve.size_min, self.curve.size_max);
        // Beyond the observed shares the tilt stays what it was there: it is not known to go on.
        let strength = factor.ln().clamp(self.ln_factors.0, self.ln_factors.1);
        let tilt = self.tilt * (nearest.ln_1p() - self.ln_size) * strength;
        (factor * (correction + tilt + rest).exp(), (variance + unknown).sqrt())
    }

    /// The time at `size` on a config of `share`.
    pub fn predict(&self, share: f64, size: f64, slas: &[Sla]) -> Prediction {
        let (scale, sigma) = self.factor(share, size);
        let extrapolated = share < self.share_min || share > self.share_max;
        let (unit, basis) = (Unit::Ms, Basis::MemoryNormalised);
        self.curve.answer(&Ask { size, scale, sigma, offset: OFFSET_MS, unit, basis, extrapolated }, slas)
    }
}

/// What the parts say of each point.
struct Parts {
    ln_values: Vec<f64>,
    ln_shares: Vec<f64>,
    weights: Vec<f64>,
    /// ln of the shape's factor.
    shape: Vec<f64>,
    /// ln(1 + size) less its mean.
    sizes: Vec<f64>,
    correction: Vec<f64>,
    local: Option<Local>,
    tilt: f64,
    ln_size: f64,
}

impl Parts {
    fn new(shared: &[(f64, Point)], shape: &Shape, grid: &Grid) -> Self {
        let mut former = (f64::NAN, 0.0, 0.0);
        let mut factor = |share: f64| {
            // Points of one config stand together.
            if former.0 != share {
                former = (share, share.ln(), shape.factor(share).0.ln());
            }
            (former.1, former.2)
        };
        let factors: Vec<(f64, f64)> = shared.iter().map(|(share, _)| factor(*share)).collect();
        let ln_sizes: Vec<f64> = grid.of.iter().map(|cell| grid.ln_sizes[*cell as usize]).collect();
        let ln_size = ln_sizes.iter().sum::<f64>() / ln_sizes.len() as f64;
        Self {
            ln_values: shared.iter().map(|(_, p)| p.value.ln()).collect(),
            ln_shares: factors.iter().map(|f| f.0).collect(),
            weights: shared.iter().map(|(_, p)| p.weight).collect(),
            shape: factors.iter().map(|f| f.1).collect(),
            sizes: ln_sizes.iter().map(|u| u - ln_size).collect(),
            correction: vec![0.0; shared.len()],
            local: None,
            tilt: 0.0,
            ln_size,
        }
    }

    /// Log values brought to the level of factor 1.
    fn levelled(&self) -> Vec<f64> {
        (0..self.ln_values.len()).map(|n| self.ln_values[n] - self.resources(n)).collect()
    }

    fn resources(&self, n: usize) -> f64 {
        self.shape[n] * (1.0 + self.tilt * self.sizes[n]) + self.correction[n]
    }

    /// What size and share leave.
    fn rests<'a>(&'a self, levelled: &[f64], fitted: &Fitted, grid: &'a Grid) -> Rests<'a> {
        let rest = |(value, cell): (&f64, &u32)| value - fitted.at_cells[*cell as usize];
        let logs = levelled.iter().zip(&grid.of).map(rest).collect();
        let (ln_shares, weights) = (&self.ln_shares, &self.weights);
        Rests { logs, ln_shares, size_of: &grid.of, ln_sizes: &grid.ln_sizes, weights }
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

    /// One round: the sizes, then the shares, then the tilt.
    fn improve(&mut self, points: &[Point], grid: &Grid) {
        let data = grid.cells(&self.levelled(), points);
        let middles = Fitted::new(grid, &data).at_cells;
        let rest = |n: usize| self.ln_values[n] - middles[grid.of[n] as usize] - self.shape[n];
        let rest: Vec<f64> = (0..self.ln_values.len()).map(rest).collect();
        let tilted = |n: usize| self.tilt * self.shape[n] * self.sizes[n];
        let mut residuals: Vec<(f64, f64, f64)> =
            (0..rest.len()).map(|n| (self.ln_shares[n], rest[n] - tilted(n), self.weights[n])).collect();
        self.local = Local::fit(&mut residuals, SHARE_PRIOR);
        let mut former = (f64::NAN, 0.0);
        for n in 0..rest.len() {
            if former.0 != self.ln_shares[n] {
                former = (self.ln_shares[n], self.local.as_ref().map_or(0.0, |l| l.at(self.ln_shares[n]).0));
            }
            self.correction[n] = former.1;
        }
        let (mut across, mut square) = (0.0, TILT_PRIOR);
        for (n, rest) in rest.iter().enumerate() {
            let x = self.shape[n] * self.sizes[n];
            across += self.weights[n] * x * (rest - self.correction[n]).clamp(-1.0, 1.0);
            square += self.weights[n] * x * x;
        }
        self.tilt = (across / square).clamp(-TILT_MAX, TILT_MAX);
    }
}
