//! Checks on numbers that serde runs while it reads: finite and not negative.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A finite number >= 0.
pub(crate) fn non_negative<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    check(value).map_err(D::Error::custom)
}

/// A finite number >= 0 or nothing.
pub(crate) fn non_negative_opt<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Option::<f64>::deserialize(from)?.map(check).transpose().map_err(D::Error::custom)
}

/// Shares from 0 to 1.
pub(crate) fn shares<'de, K: Deserialize<'de> + Ord, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<K, f64>, D::Error> {
    let shares = BTreeMap::<K, f64>::deserialize(from)?;
    match shares.values().find(|share| !(0.0..=1.0).contains(*share)) {
        Some(bad) => Err(D::Error::custom(format!("`{bad}` must be from 0 to 1"))),
        None => Ok(shares),
    }
}

/// A finite number > 0 or nothing.
pub(crate) fn positive_opt<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    match Option::<f64>::deserialize(from)? {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(D::Error::custom(format!("`{value}` must be finite and greater than 0")))
        }
        other => Ok(other),
    }
}

pub(crate) fn check(value: f64) -> Result<f64, String> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(format!("`{value}` must be finite and at least 0"))
    }
}
