//! Numbers as people read them.

/// Digits after the point beyond which nothing matters.
const MAX_DECIMALS: usize = 6;

/// `12345` as "12,345".
pub(super) fn fmt_thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Two digits and zeros, rounded up: `1873` as "1,900".
pub(super) fn fmt_rounded_up(number: u64) -> String {
    let mut unit: u64 = 1;
    while number / unit >= 100 {
        unit = unit.saturating_mul(10);
    }
    fmt_thousands(number.div_ceil(unit).saturating_mul(unit))
}

/// A fraction as "93.1 %", with more digits where that would wrongly read as none or all.
pub(super) fn fmt_percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    let certain = fraction <= 0.0 || fraction >= 1.0;
    let decimals = (1..MAX_DECIMALS).find(|&decimals| {
        let gap = 0.5 * 0.1_f64.powi(i32::try_from(decimals).unwrap_or(0));
        certain || (percent > gap && percent < 100.0 - gap)
    });
    format!("{percent:.*} %", decimals.unwrap_or(MAX_DECIMALS))
}

/// A difference of fractions in points: 0.021 as "2.1", with more digits where that would read as none.
pub(super) fn fmt_points(difference: f64) -> String {
    // Adding nothing turns -0 into 0.
    let points = difference * 100.0 + 0.0;
    let decimals = if points == 0.0 { 1 } else { first_nonzero_decimal(points.abs()).max(1) };
    format!("{points:.*}", decimals.min(MAX_DECIMALS))
}

/// A difference in points as it was written: 0.03 as "3 points".
pub(super) fn fmt_effect(difference: f64) -> String {
    let written = trim_zeros(&format!("{:.2}", difference * 100.0)).to_owned();
    let unit = if written == "1" { "point" } else { "points" };
    format!("{written} {unit}")
}

/// A chance, with one digit and rounded up: "p = 0.00002".
pub(super) fn fmt_p_value(p: f64) -> String {
    let decimals = first_nonzero_decimal(p);
    if decimals > MAX_DECIMALS {
        return "p < 0.000001".to_owned();
    }
    let scale = 10_f64.powi(i32::try_from(decimals).unwrap_or(0));
    // What is a whole number but for rounding stays one.
    let rounded = (p * scale - 1e-9).ceil() / scale;
    format!("p = {}", trim_zeros(&format!("{rounded:.decimals$}")))
}

/// Which digit after the point is the first that is not 0; 0 from 1 on.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn first_nonzero_decimal(number: f64) -> usize {
    (-number.log10()).ceil() as usize
}

fn trim_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fmt_thousands_large_numbers_separated() {
        for (number, written) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")]
        {
            assert_eq!(fmt_thousands(number), written);
        }
        for (number, written) in [(0, "0"), (7, "7"), (99, "99"), (101, "110"), (1_873, "1,900"), (9_999, "10,000")] {
            assert_eq!(fmt_rounded_up(number), written);
        }
        assert!(fmt_rounded_up(u64::MAX).starts_with("18,"));
    }

    #[test]
    fn fmt_percent_near_bounds_gets_more_digits() {
        for (fraction, written) in
            [(0.931, "93.1 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (0.9997, "99.97 %"), (0.000_02, "0.002 %")]
        {
            assert_eq!(fmt_percent(fraction), written);
        }
        assert_eq!(fmt_percent(0.9996), "99.96 %");
    }

    #[test]
    fn fmt_points_small_values_keep_significant_digit() {
        for (difference, written) in [
            (0.021, "2.1"),
            (-0.0081, "-0.8"),
            (0.0, "0.0"),
            (-0.0, "0.0"),
            (0.000_21, "0.02"),
            (-0.000_021, "-0.002"),
            (0.25, "25.0"),
        ] {
            assert_eq!(fmt_points(difference), written);
        }
        assert_eq!(
            [0.03, 0.01, 0.025, 0.07, 0.2].map(fmt_effect),
            ["3 points", "1 point", "2.5 points", "7 points", "20 points"]
        );
    }

    #[test]
    fn fmt_p_value_one_digit_rounded_up() {
        for (p, written) in [
            (0.000_02, "p = 0.00002"),
            (0.000_95, "p = 0.001"),
            (0.000_41, "p = 0.0005"),
            (1.0, "p = 1"),
            (0.0, "p < 0.000001"),
            (3e-9, "p < 0.000001"),
        ] {
            assert_eq!(fmt_p_value(p), written);
        }
    }
}
