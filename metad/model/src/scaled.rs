//! One curve over all configs of a task: log time = shape(share) + correction(share) + curve(size).
//!
//! The parts are fitted in turn to what the others leave (backfitting), so that few measurements, each on
//! another config and of another size, inform both. Source: T. Hastie and R. Tibshirani, Generalized Additive
//! Models, 1990. One more number says how much stronger the shape is at large sizes than at small ones, where
//! start-up takes a larger part of the time. Source: J. W. Tukey, "One degree of freedom for
//! non-additivity", Biometrics 5, 1949.

use foresail_schemas::Sla;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::{Deserialize, Serialize};

use crate::cells::Grid;
use crate::curve::{Ask, Curve, OFFSET_MS, Setup};
use crate::local::Local;
use crate::mixture::Fitted;
use crate::shape::{Evidence, Pool, Shape};
use crate::size::Point;

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
    local: Option<Local>,
    /// Change of the shape's strength per unit of log size, and where it is 0.
    tilt: f64,
    ln_size: f64,
    share_min: f64,
    share_max: f64,
    /// Shape's log factor at the largest and the smallest share observed.
    ln_factors: (f64, f64),
}

impl Scaled {
    /// Fits measurements, given with their shares; `samples` is how many it rests on. Nothing where there are
    /// none.
    pub fn fit(shared: &[(f64, Point)], evidence: &Evidence, pool: &Pool, samples: u64) -> Option<Self> {
        if shared.is_empty() {
            return None;
        }
        let shape = Shape::new(evidence, pool);
        let points: Vec<Point> = shared.iter().map(|s| s.1).collect();
        let setup = Setup { spread: SPREAD_TIME, history: None, samples };
        let (share_min, share_max) =
            shared.iter().fold((f64::MAX, 0.0_f64), |(lo, hi), (share, _)| (lo.min(*share), hi.max(*share)));
        let grid = Grid::new(&points);
        let mut parts = Parts::new(shared, &shape, &grid);
        if share_min < share_max {
            for _ in 1..ROUNDS {
                parts.improve(&points, &grid);
            }
        }
        let data = grid.cells(&parts.levelled(), &points);
        let curve = Curve::of(&points, &grid, &data, Fitted::new(&grid, &data), &setup);
        let Parts { local, tilt, ln_size, .. } = parts;
        let ln_factors = (shape.factor(share_max).0.ln(), shape.factor(share_min).0.ln());
        Some(Self { shape, curve, local, tilt, ln_size, share_min, share_max, ln_factors })
    }

    /// The factor on the curve at `share` and a size, and the standard deviation of its logarithm.
    pub fn factor(&self, share: f64, size: f64) -> (f64, f64) {
        let (factor, sigma) = self.shape.factor(share);
        let Some(local) = &self.local else { return (factor, sigma) };
        let (correction, distance) = local.at(share.ln());
        let misfit = local.misfit.hypot(sigma) * (distance / SHARE_REACH).min(1.0);
        let nearest = size.clamp(self.curve.size_min, self.curve.size_max);
        if self.tilt == 0.0 {
            return (factor * correction.exp(), misfit);
        }
        // Beyond the observed shares the tilt stays what it was there: it is not known to go on.
        let strength = factor.ln().clamp(self.ln_factors.0, self.ln_factors.1);
        let tilt = self.tilt * (nearest.ln_1p() - self.ln_size) * strength;
        (factor * (correction + tilt).exp(), misfit)
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
