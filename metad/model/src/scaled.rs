//! One size curve over all configs of a task: their samples brought to one level by the fitted resource
//! shape, and the answer brought to the config asked for.

use foresail_schemas::Sla;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::{Deserialize, Serialize};

use crate::curve::{Ask, Curve, OFFSET_MS, Setup, choose};
use crate::local::{Local, Reach};
use crate::shape::{Evidence, Pool, Shape};
use crate::size::Point;

/// Standard deviation of log residuals of times expected before anything is seen.
pub const SPREAD_TIME: f64 = 0.1;
/// Log error of the shape between observed shares.
const SHARE_MISFIT: f64 = 0.03;
/// Log distance to the nearest observed share at which that error is complete.
const SHARE_REACH: f64 = 0.35;

/// The curve over all configs at the level where the shape's factor is 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaled {
    /// The resource shape.
    pub shape: Shape,
    /// The size curve.
    pub curve: Curve,
    local: Option<Local>,
    share_min: f64,
    share_max: f64,
}

impl Scaled {
    /// Fits the curve to samples given with their shares; `samples` is how many it rests on. Nothing where
    /// there are none.
    pub fn fit(shared: &[(f64, Point)], evidence: &Evidence, pool: &Pool, samples: u64) -> Option<Self> {
        let shape = Shape::new(evidence, pool);
        let level = |(share, p): &(f64, Point), correction: f64| Point {
            value: p.value / shape.factor(*share).0 / correction.exp(),
            ..*p
        };
        let setup = Setup { spread: SPREAD_TIME, tail: None, samples };
        let first: Vec<Point> = shared.iter().map(|shared| level(shared, 0.0)).collect();
        if first.is_empty() {
            return None;
        }
        let choice = choose(&first);
        let (share_min, share_max) =
            shared.iter().fold((f64::MAX, 0.0_f64), |(lo, hi), (share, _)| (lo.min(*share), hi.max(*share)));
        if share_min == share_max {
            let curve = Curve::with_choice(&first, &choice, &setup);
            return Some(Self { shape, curve, local: None, share_min, share_max });
        }
        let residual = |(shared, p): (&(f64, Point), &Point)| {
            (shared.0.ln(), (p.value / choice.model.at(p.size)).ln(), p.weight)
        };
        let mut residuals: Vec<_> = shared.iter().zip(&first).map(residual).collect();
        let local = Local::fit(&mut residuals, SHARE_MISFIT, Reach::Between);
        let correction = |share: f64| local.as_ref().map_or(0.0, |l| l.at(share.ln()).0);
        let second: Vec<Point> = shared.iter().map(|shared| level(shared, correction(shared.0))).collect();
        let curve = Curve::with_choice(&second, &choice.again(&second), &setup);
        Some(Self { shape, curve, local, share_min, share_max })
    }

    /// The factor on the curve at `share`, and the standard deviation of its logarithm.
    pub fn factor(&self, share: f64) -> (f64, f64) {
        let (factor, sigma) = self.shape.factor(share);
        let Some(local) = &self.local else { return (factor, sigma) };
        let (correction, distance) = local.at(share.ln());
        let misfit = SHARE_MISFIT.hypot(sigma) * (distance / SHARE_REACH).min(1.0);
        (factor * correction.exp(), misfit)
    }

    /// The time at a size and a share.
    pub fn predict(&self, share: f64, size: f64, slas: &[Sla]) -> Prediction {
        let (scale, sigma) = self.factor(share);
        let extrapolated = share < self.share_min || share > self.share_max;
        let (unit, basis) = (Unit::Ms, Basis::MemoryNormalised);
        self.curve.answer(&Ask { size, scale, sigma, offset: OFFSET_MS, unit, basis, extrapolated }, slas)
    }
}
