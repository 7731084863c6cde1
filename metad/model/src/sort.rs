//! Sorting of the few hundred values that a fit looks at, in time that grows with their number where they are
//! spread out.
//!
//! Each value goes to the slot of its place between the least and the largest, and insertion does the rest.
//! Where an outlier leaves nearly all of them one slot, the standard sort takes over.
//! Source: E. J. Isaac and R. C. Singleton, "Sorting by address calculation", JACM 3, 1956. Equal values keep
//! their order.

/// Most values that are sorted by insertion alone: most cells of a fit have a handful.
const FEW: usize = 16;
/// Slots.
const SLOTS: usize = 128;
/// Values that may stand in the slot of a value before it, on average, for insertion to be worth it.
const MOVES_EACH: usize = 6;
/// Added to a number below the slots it leaves the nearest whole one in the lowest bits.
const WHOLE: f64 = (1_u64 << 52) as f64;

/// Brings values with something each into ascending order.
pub fn sort<T: Copy>(values: &mut [(f64, T)]) {
    let is_above = |a: &(f64, T), b: &(f64, T)| a.0 > b.0;
    if values.len() <= FEW {
        return insert(values, is_above);
    }
    if values.is_sorted_by(|a, b| a.0 <= b.0) {
        return;
    }
    let (low, high) = bounds(values.iter().map(|value| value.0));
    let scale = (SLOTS - 1) as f64 / (high - low);
    let slot = |value: &(f64, T)| ((value.0 - low) * scale + WHOLE).to_bits() as usize;
    if scale.is_finite() && scatter(values, slot) {
        return insert(values, is_above);
    }
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
}

/// Brings whole numbers into ascending order.
pub fn sort_whole(values: &mut [u64]) {
    if values.len() <= FEW {
        return insert(values, |a, b| a > b);
    }
    let (low, high) = bounds(values.iter().copied());
    let shift = (u64::BITS - (high - low).leading_zeros()).saturating_sub(SLOTS.ilog2());
    if scatter(values, |value| ((value - low) >> shift) as usize) {
        return insert(values, |a, b| a > b);
    }
    values.sort_unstable();
}

/// Slots of a selection.
const SELECT_SLOTS: usize = 32;

/// The value that would stand at `place` in ascending order; the values are brought into another order.
///
/// Only those in the slot of the place are looked at more closely.
pub fn select(values: &mut [f64], place: usize) -> f64 {
    let (low, high) = bounds(values.iter().copied());
    let scale = (SELECT_SLOTS - 1) as f64 / (high - low);
    if values.len() > FEW && scale.is_finite() {
        let slot = |value: f64| ((value - low) * scale + WHOLE).to_bits() as usize % SELECT_SLOTS;
        let mut counts = [0_u32; SELECT_SLOTS];
        values.iter().for_each(|value| counts[slot(*value)] += 1);
        let (mut chosen, mut below) = (0, 0);
        while below + counts[chosen] as usize <= place {
            below += counts[chosen] as usize;
            chosen += 1;
        }
        let mut kept = 0;
        for n in 0..values.len() {
            let value = values[n];
            values[kept] = value;
            kept += usize::from(slot(value) == chosen);
        }
        return nth(&mut values[..kept], place - below);
    }
    nth(values, place)
}

fn nth(values: &mut [f64], place: usize) -> f64 {
    if values.len() <= FEW {
        insert(values, |a, b| a > b);
        return values[place];
    }
    *values.select_nth_unstable_by(place, f64::total_cmp).1
}

/// Least and largest of values, at least one.
fn bounds<T: Copy + PartialOrd>(mut values: impl Iterator<Item = T> + Clone) -> (T, T) {
    let first = values.next().expect("a sort of none has ended before");
    let least = |least: T, value: T| if value < least { value } else { least };
    let most = |most: T, value: T| if value > most { value } else { most };
    values.fold((first, first), |(low, high), value| (least(low, value), most(high, value)))
}

/// Brings values into the order of their slots; whether few enough share one for insertion to end soon.
fn scatter<T: Copy>(values: &mut [T], slot: impl Fn(&T) -> usize) -> bool {
    if values.len() > usize::from(u16::MAX) {
        return false;
    }
    let (source, mut next, mut moves) = (values.to_vec(), [0_u16; SLOTS], 0);
    for value in &source {
        let count = &mut next[slot(value) % SLOTS];
        moves += usize::from(*count);
        *count += 1;
    }
    let mut before = 0;
    for slot in &mut next {
        (*slot, before) = (before, before + *slot);
    }
    for value in &source {
        let place = &mut next[slot(value) % SLOTS];
        values[usize::from(*place)] = *value;
        *place += 1;
    }
    moves <= source.len() * MOVES_EACH
}

/// Sorts by insertion.
fn insert<T: Copy>(values: &mut [T], is_above: impl Fn(&T, &T) -> bool) {
    for next in 1..values.len() {
        let (value, mut place) = (values[next], next);
        while place > 0 && is_above(&values[place - 1], &value) {
            values[place] = values[place - 1];
            place -= 1;
        }
        values[place] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of many shapes, as numbers from 0 to 1.
    fn shapes(count: usize) -> Vec<Vec<f64>> {
        let even = |n: usize| (n * 7919 % 1009) as f64 / 1009.0;
        let each = |of: &dyn Fn(usize) -> f64| (0..count).map(of).collect::<Vec<f64>>();
        vec![
            each(&even),
            each(&|n| (even(n) * 5.0).floor() / 5.0),
            each(&|n| if n == count / 2 { 1.0 } else { even(n) * 1e-6 }),
            each(&|n| even(n) * 1e-320),
            each(&|n| n as f64),
            each(&|n| (count - n) as f64),
            each(&|_| 0.25),
            each(&|n| 1.0 - n as f64 * f64::EPSILON),
        ]
    }

    #[test]
    fn values_are_sorted_whatever_their_shape_and_equal_ones_keep_their_order() {
        for count in (0..=FEW + 1).chain([64, 200, 2000]) {
            for shape in shapes(count) {
                let mut values: Vec<(f64, usize)> = shape.iter().copied().zip(0..).collect();
                let mut expected = values.clone();
                expected.sort_by(|a, b| a.0.total_cmp(&b.0));
                sort(&mut values);
                assert_eq!(values, expected, "{count} values");
            }
        }
    }

    #[test]
    fn a_value_is_selected_as_if_all_were_sorted() {
        for count in [1, 2, 5, FEW, FEW + 1, 64, 200, 2000] {
            for shape in shapes(count) {
                let mut sorted = shape.clone();
                sorted.sort_by(f64::total_cmp);
                for place in [0, count / 3, count / 2, count - 1] {
                    assert_eq!(select(&mut shape.clone(), place), sorted[place], "{place} of {count}");
                }
            }
        }
    }

    #[test]
    fn whole_numbers_are_sorted_whatever_their_shape() {
        for count in (0..=FEW + 1).chain([64, 200, 2000]) {
            for shape in shapes(count) {
                let mut values: Vec<u64> = shape.iter().map(|value| value.to_bits()).collect();
                let mut expected = values.clone();
                expected.sort_unstable();
                sort_whole(&mut values);
                assert_eq!(values, expected, "{count} values");
            }
        }
    }
}
