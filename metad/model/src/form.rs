//! The grid of forms that a task's time may follow its CPU share by, and the belief in each before anything
//! is measured: f(share) = serial + (1 - serial) / min(share, cap)^power.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// Serial parts.
pub const SERIALS: [f64; 16] =
    [0.0, 0.02, 0.05, 0.08, 0.12, 0.17, 0.23, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96, 1.0];
/// Caps with the prior belief in each: most functions have one or two busy threads. The last stands for no
/// cap.
const CAPS: [(f64, f64); 15] = [
    (0.3, 0.01),
    (0.45, 0.02),
    (0.6, 0.03),
    (0.8, 0.06),
    (1.0, 0.26),
    (1.15, 0.1),
    (1.35, 0.08),
    (1.6, 0.08),
    (2.0, 0.14),
    (2.5, 0.05),
    (3.0, 0.04),
    (4.0, 0.04),
    (6.0, 0.03),
    (10.0, 0.02),
    (1e6, 0.04),
];
/// Powers of the share with the prior belief in each: platforms that throttle a container, and those that
/// give a small one less of the caches and of the memory's bandwidth as well, slow it down by more than its
/// share.
pub const POWERS: [(f64, f64); 2] = [(1.0, 0.75), (STEEP, 0.25)];
/// The larger power, five quarters: roots take a fifth of the time of a power.
const STEEP: f64 = 1.25;
/// Points of the grid.
pub const GRID: usize = SERIALS.len() * CAPS.len() * POWERS.len();
/// Mean of the exponential prior of the serial part, and the even belief mixed into it.
const SERIAL_MEAN: f64 = 0.08;
const SERIAL_EVEN: f64 = 0.06;

/// A point of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Form {
    /// Serial part.
    pub serial: f64,
    /// vCPUs beyond which nothing gets faster.
    pub cap: f64,
    /// Power of the share.
    pub power: f64,
}

impl Form {
    /// f at `share`; larger is slower, 1 at share 1 where cap is at least 1.
    pub fn slowdown(self, share: f64) -> f64 {
        self.serial + (1.0 - self.serial) * parallel(self.cap, self.power, share)
    }
}

/// Time of the part that follows the share.
pub fn parallel(cap: f64, power: f64, share: f64) -> f64 {
    let share = share.min(cap);
    match power {
        1.0 => 1.0 / share,
        STEEP => 1.0 / (share * share.sqrt().sqrt()),
        _ => share.powf(-power),
    }
}

/// Caps that a share tells apart: all from the last of them on do not limit it.
pub fn caps_below(share: f64) -> usize {
    (CAPS.partition_point(|(cap, _)| *cap < share) + 1).min(CAPS.len())
}

/// Caps and powers with the prior belief in both.
fn followers() -> impl Iterator<Item = ((f64, f64), f64)> {
    let with = |(cap, belief): &(f64, f64)| {
        let (cap, belief) = (*cap, *belief);
        POWERS.iter().map(move |(power, more)| ((cap, *power), belief * more))
    };
    CAPS.iter().flat_map(with)
}

/// The forms: every serial part with every cap and power, in this order.
pub static FORMS: LazyLock<Vec<Form>> = LazyLock::new(|| {
    let with = |serial: &f64| {
        let serial = *serial;
        followers().map(move |((cap, power), _)| Form { serial, cap, power })
    };
    SERIALS.iter().flat_map(with).collect()
});

/// The belief in each form, 1 in sum.
pub static PRIOR: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let serials = SERIALS.map(|s| (-s / SERIAL_MEAN).exp() + SERIAL_EVEN);
    let total: f64 = serials.iter().sum::<f64>() * followers().map(|f| f.1).sum::<f64>();
    serials.iter().flat_map(|s| followers().map(move |(_, belief)| s * belief / total)).collect()
});

/// What `different` says of each form: one entry for each of those whose caps limit some of the shares up to
/// `share`, and one for all the others of a serial part and power, which are alike.
pub fn of_forms(share: f64, different: &[f64]) -> Vec<f64> {
    with_caps(different, caps_below(share), CAPS.len())
}

/// Values for some caps and every power, by serial parts, with those of the last cap repeated up to `caps`.
pub fn with_caps(values: &[f64], own: usize, caps: usize) -> Vec<f64> {
    let mut all: Vec<[f64; POWERS.len()]> = Vec::with_capacity(SERIALS.len() * caps);
    let (values, _) = values.as_chunks();
    for values in values.chunks_exact(own) {
        all.extend_from_slice(&values[..own.min(caps)]);
        let last = values[own.min(caps) - 1];
        all.resize(all.len() + caps.saturating_sub(own), last);
    }
    all.into_flattened()
}
