//! Quantities as people write and read them: sizes, times, money, shares.
//!
//! Parsing takes what a person types (`50MB`, `1.5GiB`, `20s`, `500ms`, `$0.01`); formatting writes at most
//! three significant digits with a unit. `kB`, `MB`, `GB` are powers of 1,000; `KiB`, `MiB`, `GiB` powers of
//! 1,024.

/// Why a quantity was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: write it like {example}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    example: &'static str,
}

const BYTE_UNITS: [(&str, f64); 10] = [
    ("", 1.0),
    ("b", 1.0),
    ("k", 1e3),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
    ("m", 1e6),
];
const TIME_UNITS: [(&str, f64); 6] =
    [("ms", 1.0), ("s", 1e3), ("sec", 1e3), ("min", 6e4), ("m", 6e4), ("h", 3.6e6)];

/// Bytes of a size such as `50MB`, `1.5GiB` or `1200`.
///
/// # Errors
/// [`UnitError`] when the number or the unit cannot be read, or the size is negative.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    scaled(text, &BYTE_UNITS)
        .map(|bytes| bytes.round() as u64)
        .ok_or_else(|| refuse(text, "a size", "50MB, 1.5GiB or 1200"))
}

/// Milliseconds of a time such as `20s`, `500ms` or `1.5min`.
///
/// # Errors
/// [`UnitError`] when the number or the unit cannot be read, or the time is negative.
pub fn parse_ms(text: &str) -> Result<f64, UnitError> {
    scaled(text, &TIME_UNITS).ok_or_else(|| refuse(text, "a time", "20s, 500ms or 1.5min"))
}

/// USD of an amount such as `0.01` or `$0.01`.
///
/// # Errors
/// [`UnitError`] when the number cannot be read or is negative.
pub fn parse_usd(text: &str) -> Result<f64, UnitError> {
    let number = text.trim().trim_start_matches('$');
    finite(number).ok_or_else(|| refuse(text, "an amount of money", "0.01 or $0.01"))
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.to_ascii_lowercase();
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    finite(number.trim()).map(|n| n * scale)
}

fn finite(number: &str) -> Option<f64> {
    number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)
}

fn refuse(text: &str, what: &'static str, example: &'static str) -> UnitError {
    UnitError { text: text.to_owned(), what, example }
}

/// A size with a decimal unit: `50.0 MB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    match value {
        v if v < 1e3 => format!("{bytes} B"),
        v if v < 1e6 => format!("{} kB", digits(v / 1e3)),
        v if v < 1e9 => format!("{} MB", digits(v / 1e6)),
        v => format!("{} GB", digits(v / 1e9)),
    }
}

/// A time with a fitting unit: `340 ms`, `4.21 s`, `3.50 min`.
#[must_use]
pub fn ms(time_ms: f64) -> String {
    match time_ms {
        t if t < 1e3 => format!("{} ms", digits(t)),
        t if t < 12e4 => format!("{} s", digits(t / 1e3)),
        t if t < 72e5 => format!("{} min", digits(t / 6e4)),
        t => format!("{} h", digits(t / 3.6e6)),
    }
}

/// An amount of money: `$0.000123`.
#[must_use]
pub fn usd(cost_usd: f64) -> String {
    match cost_usd {
        c if c >= 1.0 => format!("${c:.2}"),
        c if c >= 0.01 => format!("${c:.4}"),
        // Six places would leave one digit or none.
        c if c > 0.0 && c < 1e-5 => small_usd(c),
        c => format!("${c:.6}"),
    }
}

/// An amount of money of any size and sign, with three digits that tell: `$0.000000412`, `-$0.0250`.
#[must_use]
pub fn small_usd(amount_usd: f64) -> String {
    let sign = if amount_usd < 0.0 { "-" } else { "" };
    let amount_usd = amount_usd.abs();
    let places = match amount_usd {
        c if !(1e-12..1.0).contains(&c) => 2,
        c => (2.0 - c.log10().floor()) as usize,
    };
    format!("{sign}${amount_usd:.places$}")
}

/// The same with a sign in front of what is more.
#[must_use]
pub fn signed_usd(amount_usd: f64) -> String {
    let sign = if amount_usd > 0.0 { "+" } else { "" };
    format!("{sign}{}", small_usd(amount_usd))
}

/// A number of things: `1 task`, `2 tasks`.
#[must_use]
pub fn count(number: u64, one: &str) -> String {
    let many = if number == 1 { "" } else { "s" };
    format!("{number} {one}{many}")
}

/// The change from `before` to `after`: `-38.2 %`, or `-` where `before` is 0.
#[must_use]
pub fn change(before: f64, after: f64) -> String {
    if before.abs() < f64::EPSILON {
        return "-".to_owned();
    }
    let percent = (after - before) / before * 100.0;
    format!("{percent:+.1} %")
}

/// How far a prediction was off: (`actual` - `predicted`) / `actual` in percent; nothing where `actual` is 0.
#[must_use]
pub fn prediction_error(predicted: f64, actual: f64) -> Option<f64> {
    (actual > 0.0).then(|| (predicted - actual) / actual * 100.0)
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_amounts_keep_three_digits_and_their_sign() {
        for (amount_usd, expect) in [
            (0.0, "$0.00"),
            (0.000_000_412, "$0.000000412"),
            (-0.025, "-$0.0250"),
            (12.345, "$12.35"),
            (0.000_1, "$0.000100"),
        ] {
            assert_eq!(small_usd(amount_usd), expect);
        }
        assert_eq!((signed_usd(0.5), signed_usd(-0.5)), ("+$0.500".to_owned(), "-$0.500".to_owned()));
    }

    #[test]
    fn sizes_are_read_in_powers_of_1000_and_of_1024() {
        for (text, expect) in [
            ("50MB", 50_000_000),
            ("1.5GiB", 1_610_612_736),
            ("12", 12),
            ("3 kB", 3_000),
            ("2 KiB", 2_048),
            ("0", 0),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), expect, "{text}");
        }
        for bad in ["", "MB", "-1MB", "5 apples", "nan", "1e400", "inf"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_need_a_unit() {
        for (text, expect) in [("20s", 20_000.0), ("500ms", 500.0), ("1.5min", 90_000.0), ("2h", 7.2e6)] {
            assert!((parse_ms(text).unwrap() - expect).abs() < 1e-9, "{text}");
        }
        for bad in ["20", "", "s", "-1s", "1 day"] {
            assert!(parse_ms(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn quantities_are_written_with_three_digits() {
        assert_eq!(
            [bytes(999), bytes(1_500), bytes(52_428_800), bytes(3_000_000_000)],
            ["999 B", "1.50 kB", "52.4 MB", "3.00 GB"]
        );
        assert_eq!([ms(12.34), ms(4_210.0), ms(210_000.0)], ["12.3 ms", "4.21 s", "3.50 min"]);
        assert_eq!([usd(0.000_123_4), usd(0.0123), usd(12.5)], ["$0.000123", "$0.0123", "$12.50"]);
        assert_eq!([usd(1e-9), usd(0.0), usd(0.000_012)], ["$0.00000000100", "$0.000000", "$0.000012"]);
        assert_eq!([change(100.0, 62.0), change(0.0, 1.0)], ["-38.0 %", "-"]);
    }
}
