//! A fitted curve in words of a formula: which size models it is mixed from, with their weights.
//!
//! The median time at a size is the product of the parts, each to the power of its weight; the weights sum
//! to 1. At sizes that were measured often their own median corrects it. Units: ms and bytes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One size model of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CurvePart {
    /// The same time at every size.
    Constant {
        /// Weight in the mixture.
        weight: f64,
        /// The time.
        time_ms: f64,
    },
    /// `intercept_ms + ms_per_byte * size`.
    Line {
        /// Weight in the mixture.
        weight: f64,
        /// Time at size 0; where it is negative, small sizes take a time in proportion.
        intercept_ms: f64,
        /// Rise per byte.
        ms_per_byte: f64,
    },
    /// `scale_ms * (1 + size)^exponent`.
    PowerLaw {
        /// Weight in the mixture.
        weight: f64,
        /// Time at size 0.
        scale_ms: f64,
        /// Power of the size.
        exponent: f64,
    },
    /// `ms_per_byte * (1 + size)`.
    Ratio {
        /// Weight in the mixture.
        weight: f64,
        /// Time per byte.
        ms_per_byte: f64,
    },
    /// Between the two nearest of the sizes observed.
    Neighbours {
        /// Weight in the mixture.
        weight: f64,
        /// Sizes observed, alike ones joined.
        sizes: u64,
    },
    /// Averaged over near sizes.
    Smooth {
        /// Weight in the mixture.
        weight: f64,
        /// Sizes observed, alike ones joined.
        sizes: u64,
    },
}

impl CurvePart {
    /// Its weight in the mixture.
    #[must_use]
    pub fn weight(&self) -> f64 {
        match self {
            Self::Constant { weight, .. }
            | Self::Line { weight, .. }
            | Self::PowerLaw { weight, .. }
            | Self::Ratio { weight, .. }
            | Self::Neighbours { weight, .. }
            | Self::Smooth { weight, .. } => *weight,
        }
    }

    /// The part of a curve whose times are `factor` times as long.
    pub(crate) fn scaled(mut self, factor: f64) -> Self {
        match &mut self {
            Self::Constant { time_ms: time, .. }
            | Self::PowerLaw { scale_ms: time, .. }
            | Self::Ratio { ms_per_byte: time, .. } => *time *= factor,
            Self::Line { intercept_ms, ms_per_byte, .. } => {
                *intercept_ms *= factor;
                *ms_per_byte *= factor;
            }
            Self::Neighbours { .. } | Self::Smooth { .. } => {}
        }
        self
    }
}
